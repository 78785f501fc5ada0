"""Answers of the trained networks for the patients that they did not learn from.

usage: predict.py DATA.pkl SLABS NETWORKS OUT      (NETWORKS holds fold-0.pt … fold-4.pt)

OUT/NNN.npz for each patient: `suspicion` [slabs, kinds], what a slab's probability is made of; `voxel_prob` uint8
[slabs, kinds, side, side], 255 = 1.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import torch

from data import folds, read_slabs, windowed, with_neighbours
from network import Exported, Network

SLABS_PER_RUN = 8


def tensor_of(hu, contract):
    """All slabs of a head as the network's input."""
    shown = [windowed(with_neighbours(hu, slab), contract).reshape(-1, *hu.shape[1:]) for slab in range(len(hu))]
    return np.stack(shown)


def load(path):
    network = Network()
    network.load_state_dict(torch.load(path), strict=True)
    return network.eval().to(memory_format=torch.channels_last)


@torch.no_grad()
def answer(network, hu, contract):
    """Of all slabs: voxel probabilities, suspicion."""
    exported, voxels, suspicions = Exported(network), [], []
    for part in torch.from_numpy(tensor_of(hu, contract)).split(SLABS_PER_RUN):
        of_voxels, of_slabs = exported.answers(part)
        voxels.append(of_voxels.numpy())
        suspicions.append(of_slabs.numpy())
    return np.concatenate(voxels), np.concatenate(suspicions)


def main():
    data, slabs, networks, out = map(Path, sys.argv[1:5])
    heads, *_, contract = pickle.loads(data.read_bytes())
    fold_of = folds(heads)
    out.mkdir(parents=True, exist_ok=True)
    for fold in sorted(set(fold_of.values())):
        path = networks / f"fold-{fold}.pt"
        if not path.exists():
            print(f"fold {fold}: no network yet")
            continue
        network = load(path)
        for head in heads:
            if fold_of[head.patient] == fold:
                voxels, suspicions = answer(network, read_slabs(slabs, head.uid)[0], contract)
                voxels = np.rint(voxels * 255).astype(np.uint8)
                np.savez_compressed(out / f"{head.patient:03d}.npz", suspicion=suspicions, voxel_prob=voxels)


if __name__ == "__main__":
    main()
