"""How true volumes come out, on phantoms that took no part in training.

usage: volumes.py SLABS PAIRS.csv MODEL.onnx FIGURES.json VOXEL_THRESHOLDS.json OUT.json

For each finding: how many volumes lie within 10 % or 1 mL of the truth, and the factor by which 95 % of
those that Tez would call lie within it.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np

from data import ANY, KINDS, PHANTOM_KINDS, read_slabs
from export import open_session
from figures import MINIMUM_ML, VOXEL_ML, among_neighbours, calibrated, marks_of, pool
from predict import SLABS_PER_RUN, tensor_of

INTERVAL = 0.95
# Phantoms whose volumes are measured.
SMALLEST_ML, LARGEST_ML = 2, 100
THREADS = 2


def pairs_of(path):
    """Of each pair: kind, true volume, its row."""
    for row in csv.DictReader(path.open()):
        yield PHANTOM_KINDS[row["kind"]], float(row["volume_ml"]), row


def answer(session, slabs, uid):
    """What the model says of a head: voxel and slab probabilities."""
    hu, sidecar = read_slabs(slabs, uid)
    shown = np.split(tensor_of(hu, sidecar["contract"]), range(SLABS_PER_RUN, len(hu), SLABS_PER_RUN))
    parts = [session.run(["voxel_prob", "slice_prob"], {"slabs": part}) for part in shown]
    return [np.concatenate(part) for part in zip(*parts)]


def right(found_ml, true_ml):
    return np.abs(found_ml - true_ml) <= np.maximum(1.0, 0.1 * true_ml)


def findings(voxels, slices, cards, thresholds):
    """Of each finding whether it is called, and the volume that it marks; as `models::output` does: any hemorrhage is marked wherever
    a kind is."""
    marks = [marks_of(voxels[:, kind], thresholds[name]) for kind, name in enumerate(KINDS)]
    marks[ANY] = np.logical_or.reduce(marks)
    pooled, calls = pool(among_neighbours(slices)), []
    for kind, name in enumerate(KINDS):
        card = cards[name]["card"]
        likely = bool(calibrated(pooled[kind], (card["slope"], card["offset"])) >= card["threshold"])
        calls.append(likely and (kind == ANY or (calls[ANY] and bool(marks[kind].any()))))
    return calls, [own.sum() * VOXEL_ML for own in marks]


def figures_of(measured):
    """`measured`: (kind, true volume, found volume, called, called without) of each pair."""
    own = [one for one in measured if SMALLEST_ML <= one[1] <= LARGEST_ML]
    _, truth, found, called, _ = map(np.array, zip(*own))
    ratio = (found / truth)[called & (found > 0)]
    factor = float(np.quantile(np.maximum(ratio, 1 / ratio), INTERVAL, method="higher")) if len(ratio) else None
    return {
        "volume_factor": factor and round(factor, 2),
        "minimum_volume_ml": MINIMUM_ML,
        "phantoms": len(own),
        "called": len(ratio),
        "called_without": [sum(one[4] for one in measured), len(measured)],
        "within_10_percent_or_1_ml": round(float(right(found, truth).mean()), 3),
        "median_found_over_true": round(float(np.median(found / truth)), 3),
        "volumes": [
            {"kind": KINDS[kind], "true_ml": true_ml, "found_ml": round(float(found_ml), 2), "called": call, "called_without": without}
            for kind, true_ml, found_ml, call, without in measured
        ],
    }


def main():
    slabs, pairs, model, cards, thresholds, out = map(Path, sys.argv[1:7])
    cards, thresholds = json.loads(cards.read_text())["by_patient"], json.loads(thresholds.read_text())
    session, measured = open_session(model, THREADS), {channel: [] for channel in range(len(KINDS))}
    for kind, true_ml, row in pairs_of(pairs):
        answers = (answer(session, slabs, row[uid]) for uid in ("with_uid", "without_uid"))
        (calls, volumes), (calls_without, _) = (findings(*one, cards, thresholds) for one in answers)
        for channel in (ANY, kind):
            measured[channel].append((kind, true_ml, volumes[channel], calls[channel], calls_without[channel]))
    figures = {}
    for channel, name in enumerate(KINDS):
        figures[name] = {"voxel_threshold": thresholds[name], **figures_of(measured[channel])}
        print(name, {key: value for key, value in figures[name].items() if key != "volumes"})
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
