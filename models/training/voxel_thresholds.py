"""Chooses, on phantoms kept for it, from which probability on a voxel is marked.

usage: voxel_thresholds.py SLABS PAIRS.csv MODEL.onnx OUT.json

For each finding: the threshold at which the most volumes lie within 10 % or 1 mL of the truth; of any hemorrhage, which
is marked wherever a kind is, once the kinds' are chosen. Neither the network's training nor the figures of volumes.py have seen
these phantoms.
"""

import json
import sys
from pathlib import Path

import numpy as np

from data import ANY, KINDS
from export import open_session
from figures import VOXEL_ML, marks_of
from volumes import LARGEST_ML, SMALLEST_ML, THREADS, answer, pairs_of, right

THRESHOLDS = tuple(round(0.25 + 0.05 * step, 2) for step in range(11))


def best(true_ml, found_ml):
    """`found_ml`: [phantoms, thresholds]. Where several do about equally well, the one whose mean relative error is least."""
    truth = np.array(true_ml)[:, None]
    share, error = right(found_ml, truth).mean(axis=0), np.abs(found_ml / truth - 1).mean(axis=0)
    place = int(np.argmax(share - 0.2 * error))
    return THRESHOLDS[place], f"{len(truth)} phantoms: {THRESHOLDS[place]} of {np.round(share, 2)} right, {np.round(error, 2)} off"


def main():
    slabs, pairs, model, out = map(Path, sys.argv[1:5])
    session, shown = open_session(model, THREADS), []
    for kind, true_ml, row in pairs_of(pairs):
        if SMALLEST_ML <= true_ml <= LARGEST_ML:
            voxels, _ = answer(session, slabs, row["with_uid"])
            shown.append((kind, true_ml, voxels.astype(np.float16)))
    chosen = {}
    for kind, name in [*enumerate(KINDS)][1:]:
        own = [(true_ml, voxels[:, kind]) for of, true_ml, voxels in shown if of == kind]
        found_ml = [[marks_of(blood, bound).sum() * VOXEL_ML for bound in THRESHOLDS] for _, blood in own]
        chosen[name], why = best([true_ml for true_ml, _ in own], np.array(found_ml))
        print(name, why)
    found_ml = []
    for _, _, voxels in shown:
        of_kinds = np.logical_or.reduce([marks_of(voxels[:, kind], chosen[name]) for kind, name in enumerate(KINDS) if kind != ANY])
        found_ml.append([(of_kinds | marks_of(voxels[:, ANY], bound)).sum() * VOXEL_ML for bound in THRESHOLDS])
    chosen[KINDS[ANY]], why = best([true_ml for _, true_ml, _ in shown], np.array(found_ml))
    print(KINDS[ANY], why)
    out.write_text(json.dumps({name: chosen[name] for name in KINDS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
