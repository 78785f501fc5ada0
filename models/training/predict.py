"""Answers of exported networks for the patients that they did not learn from.

usage: predict.py DATA.pkl SLABS FOLDS OUT      (FOLDS holds fold-0.onnx … fold-4.onnx)

OUT/NNN.npz for each patient: `slice_prob` [slabs, kinds]; `voxel_prob` uint8 [slabs, kinds, side, side], 255 = 1.
"""

import pickle
import sys
from pathlib import Path

import numpy as np

from data import folds, read_slabs, windowed, with_neighbours
from export import open_session

SLABS_PER_RUN = 8


def tensor_of(hu, contract):
    """All slabs of a head as the network's input."""
    shown = [windowed(with_neighbours(hu, slab), contract).reshape(-1, *hu.shape[1:]) for slab in range(len(hu))]
    return np.stack(shown)


def answer(session, hu, contract):
    slabs = tensor_of(hu, contract)
    parts = [
        session.run(["voxel_prob", "slice_prob"], {"slabs": slabs[first : first + SLABS_PER_RUN]})
        for first in range(0, len(slabs), SLABS_PER_RUN)
    ]
    return (np.concatenate(part) for part in zip(*parts))


def main():
    data, slabs, networks, out = map(Path, sys.argv[1:5])
    heads, _, contract = pickle.loads(data.read_bytes())
    fold_of = folds(heads)
    out.mkdir(parents=True, exist_ok=True)
    for fold in sorted(set(fold_of.values())):
        path = networks / f"fold-{fold}.onnx"
        if not path.exists():
            print(f"fold {fold}: no network yet")
            continue
        session = open_session(path)
        for head in heads:
            if fold_of[head.patient] == fold:
                voxels, slices = answer(session, read_slabs(slabs, head.uid)[0], contract)
                voxels = np.rint(voxels * 255).astype(np.uint8)
                np.savez_compressed(out / f"{head.patient:03d}.npz", slice_prob=slices, voxel_prob=voxels)


if __name__ == "__main__":
    main()
