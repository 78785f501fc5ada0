"""From a slab's most suspicious place to its probability: one logistic function a kind.

usage: fit_slabs.py DATA.pkl ANSWERS NETWORKS

Fitted on answers of networks for patients that they did not learn from (predict.py): of patients that it
knows a network is too sure. All networks get the same function, so that it changes no order of slabs: figures
that go by order owe it nothing. Writes NETWORKS/fold-F.fitted.pt, and `slice_prob` [slabs, kinds] into ANSWERS/NNN.npz.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch

from data import KINDS
from figures import logistic_fit

FOLDS = [*map(str, range(5)), "none"]


def fit_kinds(heads, answers):
    """Slope and offset of each kind: [kinds, 2]."""
    shown = np.concatenate([answer["suspicion"] for answer in answers]).astype(np.float64)
    labels = np.concatenate([head.labels == 1 for head in heads])
    return np.array([logistic_fit(shown[:, kind], labels[:, kind]) for kind in range(len(KINDS))])


def main():
    data, folder, networks = map(Path, sys.argv[1:4])
    heads, *_ = pickle.loads(data.read_bytes())
    paths = [folder / f"{head.patient:03d}.npz" for head in heads]
    answers = [dict(np.load(path)) for path in paths]
    slope, offset = fit_kinds(heads, answers).T
    print("slope", np.round(slope, 2), "offset", np.round(offset, 2))
    for path, answer in zip(paths, answers):
        z = answer["suspicion"] * slope + offset
        np.savez_compressed(path, **{**answer, "slice_prob": (1 / (1 + np.exp(-z))).astype(np.float32)})
    fitted = {"slab_slope": torch.from_numpy(slope).float(), "slab_offset": torch.from_numpy(offset).float()}
    for fold in FOLDS:
        torch.save({**torch.load(networks / f"fold-{fold}.pt"), **fitted}, networks / f"fold-{fold}.fitted.pt")


if __name__ == "__main__":
    main()
