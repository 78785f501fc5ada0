"""Puts blood into the heads without, once for all folds: shapes, and the blood of other patients.

usage: prepare_synthetic.py DATA.pkl OUT [SHAPES TRANSPLANTS]      (each of them for each head)

OUT/hu.npy int16 [n, 3, side, side] (the slab between its neighbours), OUT/around.npy uint8 likewise (samples.surroundings),
OUT/target.npy uint8 [n, side, side],
OUT/table.npy int32 [n, 3]: head, donor (-1: a shape), kind. A fold takes those of which it knows both patients.
"""

import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

import synth
from data import ANY, BLOOD, FIRST_APART, FIRST_OTHER, KINDS, UNKNOWN, with_neighbours
from samples import surroundings

SEED = 20261128
SHAPES, TRANSPLANTS = 160, 90
# A slice of another scanner stands for a head: a part of the shapes, no blood of others.
OTHERS_PART = 0.35
# Which kind a shape or a transplant is (IPH, IVH, SAH, SDH, EDH).
KIND_SHARES = [0.28, 0.15, 0.19, 0.19, 0.19]
# Slabs below the vertex: the posterior fossa ends here, the lateral ventricles do where the cisterns begin.
LOWEST, CISTERNS = 26, 18
# Slabs that the blood of another patient is moved up or down at most.
NEAR = 6
SMALLEST_DONOR_PX = 20
TRIES = 40
WORK = None


def kind_of(rng):
    return 1 + rng.choice(len(KIND_SHARES), p=KIND_SHARES)


def place(rng, head):
    """A slab between its neighbours, their insides, and how many slabs it lies below the vertex."""
    slab = rng.integers(max(head.vertex - LOWEST, 0), head.vertex + 1)
    return with_neighbours(head.hu, slab).astype(np.float32), with_neighbours(head.inside, slab), head.vertex - slab


def shape(rng, head, _):
    kind = kind_of(rng)
    hu, inside, below = place(rng, head)
    made = synth.add_bleed(rng, hu, inside, kind, below > CISTERNS)
    if made is None:
        return None
    hu, share = made
    return hu, np.rint(share[1] * BLOOD).astype(np.uint8), -1, kind


def sure(head, slab, kind):
    target = head.targets.get(slab)
    if target is None:
        return np.zeros(head.hu.shape[1:], bool)
    return (target[kind] >= BLOOD // 2) & (target[kind] != UNKNOWN)


def donors_of(heads):
    """By kind: (head, slab) with enough blood that is surely of that kind."""
    found = {kind: [] for kind in range(1, len(KINDS))}
    for head in heads:
        for slab in head.targets:
            for kind in found:
                if sure(head, slab, kind).sum() >= SMALLEST_DONOR_PX:
                    found[kind].append((head, slab))
    return found


def transplanted(rng, head, donors):
    kind = kind_of(rng)
    if not donors[kind]:
        return None
    hu, inside, below = place(rng, head)
    patients = sorted({donor.patient for donor, _ in donors[kind]})
    patient = patients[rng.integers(len(patients))]
    near = [one for one in donors[kind] if one[0].patient == patient and abs(one[0].vertex - one[1] - below) <= NEAR]
    if not near:
        return None
    donor, slab = near[rng.integers(len(near))]
    slabs = np.clip([slab - 1, slab, slab + 1], 0, len(donor.hu) - 1)
    blood = np.stack([sure(donor, one, kind) for one in slabs])
    made = synth.transplant(rng, hu, inside, donor.hu[slabs], donor.inside[slabs], blood)
    return made and (*made, donor.patient, kind)


def of_head(place_of_head):
    """What is made of one head; `WORK` came over with the fork, so that no image is sent between processes."""
    free, donors, counts = WORK
    head = free[place_of_head]
    cv2.setNumThreads(1)
    if FIRST_APART < head.patient <= FIRST_OTHER:
        counts = [int(OTHERS_PART * counts[0]), 0]
    rng = np.random.default_rng([SEED, abs(head.patient)])
    hus, arounds, targets, table = [], [], [], []
    for draw, count in zip((shape, transplanted), counts):
        wanted, tries = len(hus) + count, 0
        while len(hus) < wanted and tries < TRIES * count:
            tries += 1
            made = draw(rng, head, donors)
            if made is not None:
                hu, target, donor, kind = made
                hus.append(np.rint(hu).clip(-1024, 3071).astype(np.int16))
                arounds.append(surroundings(hus[-1]))
                targets.append(target)
                table.append((head.patient, donor, kind))
    return np.stack(hus), np.stack(arounds), np.stack(targets), np.array(table, np.int32)


def main():
    data, out = map(Path, sys.argv[1:3])
    counts = [int(one) for one in sys.argv[3:5]] or [SHAPES, TRANSPLANTS]
    heads, _, others, apart, _ = pickle.loads(data.read_bytes())
    donors = donors_of(heads)
    free = [head for head in heads if not head.bleeds] + others + apart
    global WORK
    WORK = free, donors, counts
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        parts = list(pool.map(of_head, range(len(free))))
    out.mkdir(parents=True, exist_ok=True)
    for name, arrays in zip(("hu", "around", "target", "table"), zip(*parts)):
        np.save(out / f"{name}.npy", np.concatenate(arrays))
    table = np.concatenate([part[3] for part in parts])
    kinds = {name: int((table[:, 2] == kind).sum()) for kind, name in enumerate(KINDS) if kind != ANY}
    print(f"{len(table)} made, {int((table[:, 1] >= 0).sum())} of them transplants: {kinds}")


if __name__ == "__main__":
    main()
