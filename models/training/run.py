"""From data to ONNX in one command: converts, takes slabs, trains five folds and the final network, measures, writes the card.

usage: run.py CT_ICH TEACHER_LABELS WORK --tez TEZ --phantoms TRAINING_HEADS [--iterations N] [--jobs N]

WORK must lie outside the checkout: it gets images of patients. A step whose result is there is not done
again. TEZ is the built program, TRAINING_HEADS the built example `training_heads` of fixtures.
Written into the checkout: models/weights/hemorrhage.{onnx,toml} and models/training/runs/.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from card import VERSION

HERE = Path(__file__).resolve().parent
WEIGHTS, RUNS = HERE.parent / "weights", HERE / "runs"
FOLDS = [*map(str, range(5)), "none"]
# Count and seed of phantom pairs: to learn from, and to choose voxel thresholds on.
PHANTOMS = {"phantoms": (60, 7), "phantoms_apart": (60, 11)}
LARGEST_DIFFERENCE = 1e-3


def step(result, command):
    """Runs `command` unless its `result` is there."""
    if result.exists():
        return
    print("->", result, flush=True)
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


def python(script, *arguments):
    return [sys.executable, HERE / script, *arguments]


def prepare(options):
    work = options.work
    dicom, slabs = work / "dicom", work / "slabs"
    step(dicom / "studies.csv", python("ct_ich_to_dicom.py", options.ct_ich, dicom))
    step(slabs, [options.tez, "slabs", slabs, dicom])
    for name, (count, seed) in PHANTOMS.items():
        step(work / name / "pairs.csv", [options.phantoms, count, seed, work / name])
        step(work / f"{name}_slabs", [options.tez, "slabs", work / f"{name}_slabs", work / name])
    sources = [slabs, dicom, options.ct_ich, options.teacher, work / "phantoms_slabs", work / "phantoms/pairs.csv"]
    step(work / "data.pkl", python("prepare_data.py", *sources, work / "data.pkl"))


def train(options):
    networks = options.work / "networks"

    def one(fold):
        arguments = [options.work / "data.pkl", networks, "--fold", fold, "--iterations", options.iterations]
        step(networks / f"fold-{fold}.pt", python("train.py", *arguments))
        step(networks / f"fold-{fold}.onnx", python("export.py", networks / f"fold-{fold}.pt", networks / f"fold-{fold}.onnx"))

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, FOLDS))


def measure(options):
    work, networks = options.work, options.work / "networks"
    step(work / "answers", python("predict.py", work / "data.pkl", work / "slabs", networks, work / "answers"))
    figures, volumes = RUNS / "figures.json", RUNS / "volumes.json"
    RUNS.mkdir(exist_ok=True)
    for fold in FOLDS:
        shutil.copy(networks / f"fold-{fold}.json", RUNS)
    subprocess.run(
        [*map(str, python("figures.py", work / "data.pkl", work / "answers", options.teacher, figures))], check=True
    )
    apart = [work / "phantoms_apart_slabs", work / "phantoms_apart/pairs.csv"]
    subprocess.run([*map(str, python("volumes.py", *apart, networks / "fold-none.onnx", volumes))], check=True)
    sidecar = next((work / "slabs").glob("*.json"))
    for fold in FOLDS:
        model = networks / f"fold-{fold}.onnx"
        if fold == "none":
            model = Path(shutil.copy(model, WEIGHTS / "hemorrhage.onnx"))
        card = model.with_suffix(".toml")
        subprocess.run([*map(str, python("card.py", figures, volumes, sidecar, model, card))], check=True)


def compare(options):
    """The shipped path must say of patients what Python says of their slabs: same network, same input."""
    import numpy as np

    from data import KINDS
    from figures import calibrated, pool

    figures = json.loads((RUNS / "figures.json").read_text())
    ranks = {bleeds: 0 for bleeds in "01"}
    for row in csv.DictReader((options.work / "dicom/studies.csv").open()):
        bleeds = row["intracranial_hemorrhage"]
        fold, ranks[bleeds] = ranks[bleeds] % 5, ranks[bleeds] + 1
        if ranks[bleeds] % 4:
            continue
        command = [options.tez, "triage", "--json", options.work / "dicom" / row["path"]]
        command += ["--model", options.work / f"networks/fold-{fold}.toml"]
        report = json.loads(subprocess.run([*map(str, command)], capture_output=True, check=True).stdout)
        pooled = pool(np.load(options.work / f"answers/{row['path']}.npz")["slice_prob"], figures["pooled_slabs"])
        for kind, own, finding in zip(KINDS, pooled, report["findings"], strict=True):
            fitted = figures["by_patient"][kind]["card"]
            wanted = calibrated(own, (fitted["slope"], fitted["offset"]))
            difference = abs(finding["probability"] - wanted)
            assert difference < LARGEST_DIFFERENCE, f"{row['path']} {kind}: Tez differs by {difference:.4f}"
    print(f"hemorrhage {VERSION}: Tez and Python agree")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct_ich", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tez", type=Path, required=True)
    parser.add_argument("--phantoms", type=Path, required=True)
    parser.add_argument("--iterations", default="2200")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    for part in (prepare, train, measure, compare):
        part(options)


if __name__ == "__main__":
    main()
