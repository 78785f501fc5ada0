"""From a slab's most suspicious places to its probability: one logistic function a kind.

usage: fit_slabs.py DATA.pkl ANSWERS NETWORKS

Fitted on answers of networks for patients that they did not learn from (predict.py): of patients that it
knows a network is too sure. The function of fold F is fitted on the other folds, that of the final network
on all. Writes NETWORKS/fold-F.fitted.pt, and `slice_prob` [slabs, kinds] into ANSWERS/NNN.npz.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import optimize

from data import KINDS, folds

# Keeps weights small where there is little to learn from.
RIDGE = 1e-3


def fit(features, labels):
    """Weights, none below 0, and the offset."""

    def loss(parameters):
        z = features @ parameters[:-1] + parameters[-1]
        slope = (1 / (1 + np.exp(-z)) - labels) / len(labels)
        misfit = (np.logaddexp(0, z) - labels * z).mean() + RIDGE * (parameters[:-1] ** 2).sum()
        return misfit, np.append(features.T @ slope + 2 * RIDGE * parameters[:-1], slope.sum())

    start = np.full(features.shape[1] + 1, 0.2)
    bounds = [(0, None)] * features.shape[1] + [(None, None)]
    return optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x


def fit_kinds(heads, answers):
    """[kinds, features + 1]."""
    features = np.concatenate([answer["features"] for answer in answers]).astype(np.float64)
    labels = np.concatenate([head.labels == 1 for head in heads])
    return np.stack([fit(features[:, kind], labels[:, kind]) for kind in range(len(KINDS))])


def main():
    data, folder, networks = map(Path, sys.argv[1:4])
    heads, *_ = pickle.loads(data.read_bytes())
    fold_of = folds(heads)
    heads = [head for head in heads if (folder / f"{head.patient:03d}.npz").exists()]
    answers = [dict(np.load(folder / f"{head.patient:03d}.npz")) for head in heads]
    for fold in [*sorted({fold_of[head.patient] for head in heads}), "none"]:
        taken = [row for row, head in enumerate(heads) if fold_of[head.patient] != fold]
        found = fit_kinds([heads[row] for row in taken], [answers[row] for row in taken])
        for row, head in enumerate(heads):
            if fold_of[head.patient] == fold:
                z = (answers[row]["features"] * found[:, :-1]).sum(2) + found[:, -1]
                slices = (1 / (1 + np.exp(-z))).astype(np.float32)
                np.savez_compressed(folder / f"{head.patient:03d}.npz", **{**answers[row], "slice_prob": slices})
        path = networks / f"fold-{fold}.pt"
        if path.exists():
            state = torch.load(path)
            state["slab_weight"], state["slab_bias"] = torch.from_numpy(found[:, :-1]).float(), torch.from_numpy(found[:, -1]).float()
            torch.save(state, networks / f"fold-{fold}.fitted.pt")
        print(fold, np.round(found[0], 2))


if __name__ == "__main__":
    main()
