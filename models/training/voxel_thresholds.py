"""Chooses, on phantoms kept for it, from which probability on a voxel is marked.

usage: voxel_thresholds.py SLABS PAIRS.csv NETWORK.pt OUT.json

For each finding: the threshold at which the most volumes lie within 10 % or 1 mL of the truth. Neither the
network's training nor the figures of volumes.py have seen these phantoms.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np

from data import ANY, KINDS, PHANTOM_KINDS, read_slabs
from figures import marked_ml
from predict import answer, load

THRESHOLDS = tuple(round(0.25 + 0.05 * step, 2) for step in range(11))
SMALLEST_ML, LARGEST_ML = 2, 100


def main():
    slabs, pairs, model, out = map(Path, sys.argv[1:5])
    network, measured = load(model), []
    for row in csv.DictReader(pairs.open()):
        true_ml = float(row["volume_ml"])
        if SMALLEST_ML <= true_ml <= LARGEST_ML:
            hu, sidecar = read_slabs(slabs, row["with_uid"])
            voxels, _, _ = answer(network, hu, sidecar["contract"])
            for channel in (ANY, PHANTOM_KINDS[row["kind"]]):
                measured.append((channel, true_ml, [marked_ml(voxels[:, channel], bound) for bound in THRESHOLDS]))
    chosen = {}
    for channel, name in enumerate(KINDS):
        truth, found = (np.array([one[place] for one in measured if one[0] == channel]) for place in (1, 2))
        right = np.abs(found - truth[:, None]) <= np.maximum(1.0, 0.1 * truth[:, None])
        # Where several do about equally well, the one whose mean relative error is least.
        error = np.abs(found / truth[:, None] - 1).mean(axis=0)
        chosen[name] = THRESHOLDS[int(np.argmax(right.mean(axis=0) - 0.2 * error))]
        print(name, len(truth), "phantoms:", chosen[name], np.round(right.mean(axis=0), 2), np.round(error, 2))
    out.write_text(json.dumps(chosen, indent=1) + "\n")


if __name__ == "__main__":
    main()
