"""From data to ONNX in one command: converts, takes slabs, trains five folds and the final network, measures, writes the card.

usage: run.py CT_ICH TEACHER_LABELS CPAISD_IMAGES APART WORK --tez TEZ --phantoms TRAINING_HEADS [--part P] [--jobs N] [--teacher-answers JSON]

WORK must lie outside the checkout: it gets images of patients. A step whose result is there is not done
again. TEZ is the built program, TRAINING_HEADS the built example `training_heads` of fixtures.
Written into the checkout: models/weights/hemorrhage.{onnx,toml}, models/training/runs/, curves in docs/images/.
"""

import argparse
import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from card import VERSION
from data import KINDS, folds
from fit_slabs import FOLDS
from train import DEVICE, STAGES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WEIGHTS, RUNS, DOCS = HERE.parent / "weights", HERE / "runs", ROOT / "docs/images"
# Phantom pairs, to learn from (training adds noise of its own), to choose voxel thresholds on, to measure volumes on: how many, and their seed.
PHANTOMS = {"phantoms": (300, 7, "noiseless"), "phantoms_chosen": (60, 13), "phantoms_apart": (60, 11)}
LARGEST_DIFFERENCE = 1e-3
# glibc gives large blocks back at once, to fetch them anew for every batch.
KEEP_MEMORY = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}


def step(result, command, environment=None):
    """Runs `command` unless its `result` is there."""
    if result.exists():
        return
    print("->", result, flush=True)
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, env=environment)


def always(command):
    print("->", *command[1:], flush=True)
    # In the checkout, where Tez finds ONNX Runtime as `cargo xtask setup` put it.
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)


def python(script, *arguments):
    return [sys.executable, HERE / script, *arguments]


def prepare(options):
    work = options.work
    dicom, slabs = work / "dicom", work / "slabs"
    step(dicom / "studies.csv", python("ct_ich_to_dicom.py", options.ct_ich, dicom))
    step(slabs, [options.tez, "slabs", slabs, dicom])
    for name, (count, seed, *how) in PHANTOMS.items():
        step(work / name / "pairs.csv", [options.phantoms, count, seed, work / name, *how])
        step(work / f"{name}_slabs", [options.tez, "slabs", work / f"{name}_slabs", work / name])
    sources = [slabs, dicom, options.ct_ich, options.teacher, work / "phantoms_slabs", work / "phantoms/pairs.csv", options.cpaisd, work / "apart_slabs"]
    step(work / "apart_slabs", [options.tez, "slabs", work / "apart_slabs", options.apart])
    step(work / "data.pkl", python("prepare_data.py", *sources, work / "data.pkl"))
    step(work / "synthetic", python("prepare_synthetic.py", work / "data.pkl", work / "synthetic"))


def train(options):
    networks = options.work / "networks"
    start = []

    def one(fold, *more):
        arguments = [options.work / "data.pkl", options.work / "synthetic", networks, "--fold", fold, "--part", options.part, *more]
        step(networks / f"fold-{fold}.pt", python("train.py", *arguments), KEEP_MEMORY)

    if STAGES[DEVICE]["shared"]:
        one("shared", "--threads", options.jobs)
        start = ["--start", networks / "fold-shared.pt"]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda fold: one(fold, *start), FOLDS))


def measure(options):
    work, networks = options.work, options.work / "networks"
    figures, volumes, thresholds = (RUNS / f"{name}.json" for name in ("figures", "volumes", "voxel_thresholds"))
    chosen, apart = ([work / f"{name}_slabs", work / name / "pairs.csv"] for name in ("phantoms_chosen", "phantoms_apart"))
    data, answers = work / "data.pkl", work / "answers"
    step(answers, python("predict.py", data, work / "slabs", networks, answers))
    always(python("fit_slabs.py", data, answers, networks))
    RUNS.mkdir(exist_ok=True)
    for record in networks.glob("fold-*.json"):
        shutil.copy(record, RUNS)
    final = WEIGHTS / "hemorrhage.onnx"
    models = [networks / f"fold-{fold}.onnx" if fold != "none" else final for fold in FOLDS]
    for fold, model in zip(FOLDS, models):
        always(python("export.py", networks / f"fold-{fold}.fitted.pt", model))
    always(python("voxel_thresholds.py", *chosen, final, thresholds))
    always(python("figures.py", data, answers, options.teacher, thresholds, figures, *filter(None, [options.teacher_answers])))
    always(python("volumes.py", *apart, final, figures, thresholds, volumes))
    always(python("curves.py", figures, DOCS))
    sidecar = next((work / "slabs").glob("*.json"))
    for model in models:
        always(python("card.py", figures, volumes, sidecar, model, model.with_suffix(".toml")))


def shipped_answers(options, rows):
    """What `tez eval` writes for each fold's patients with the network that did not learn from them."""
    for fold in range(5):
        folder = options.work / f"eval-{fold}"
        folder.mkdir(exist_ok=True)
        own = [{**row, "path": f"../dicom/{row['path']}"} for row in rows if row["fold"] == fold]
        with (folder / "studies.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [name for name in own[0] if name != "fold"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(own)
        shutil.copy(options.work / "dicom/slices.csv", folder)
        out = options.work / f"eval-{fold}.csv"
        model = options.work / f"networks/fold-{fold}.toml"
        always([options.tez, "eval", folder, "--model", model, "--predictions", out])
        yield from csv.DictReader(out.open())


def compare(options):
    """The shipped path must say of patients what Python says of their slabs: same network, same input."""
    import numpy as np

    from figures import among_neighbours, calibrated, pool

    figures = json.loads((RUNS / "figures.json").read_text())
    heads, *_ = pickle.loads((options.work / "data.pkl").read_bytes())
    fold_of, rows = folds(heads), list(csv.DictReader((options.work / "dicom/studies.csv").open()))
    for row in rows:
        row["fold"] = fold_of[int(row["path"])]
    answers = {}
    for row in rows:
        slices = np.load(options.work / f"answers/{row['path']}.npz")["slice_prob"]
        pooled = pool(among_neighbours(slices, figures["neighbour_weight"]), figures["pooled_slabs"])
        for kind, own in zip(KINDS, pooled, strict=True):
            fitted = figures["by_patient"][kind]["card"]
            answers[row["path"], kind] = calibrated(own, (fitted["slope"], fitted["offset"]))
    compared, largest = 0, 0.0
    for found in shipped_answers(options, rows):
        if found["level"] != "study":
            continue
        wanted = answers[Path(found["path"]).name, found["kind"]]
        difference = abs(float(found["probability"]) - wanted)
        compared, largest = compared + 1, max(largest, difference)
        assert difference < LARGEST_DIFFERENCE, f"{found['path']} {found['finding']}: Tez differs by {difference:.4f}"
    assert compared == len(answers), f"{compared} answers of {len(answers)}"
    print(f"hemorrhage {VERSION}: Tez and Python agree in {compared} answers, within {largest:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct_ich", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("cpaisd", type=Path)
    parser.add_argument("apart", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tez", type=Path, required=True)
    parser.add_argument("--phantoms", type=Path, required=True)
    parser.add_argument("--part", default="1", help="of each stage's iterations: less, where there is no GPU")
    parser.add_argument("--teacher-answers", type=Path, help="what teacher.py says of patients without blood")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    for name, value in vars(options).items():
        if isinstance(value, Path):
            setattr(options, name, value.resolve())
    for part in (prepare, train, measure, compare):
        part(options)


if __name__ == "__main__":
    main()
