"""What a batch is drawn from, and how: slabs of patients with and without blood, made blood, phantoms."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from data import ANY, BLOOD, KINDS, UNKNOWN
from network import SIDE_PX
from synth import PIXEL_MM

# One byte says how far bone is (half millimetres, at most FAR) and, by its highest bit, whether it is within the skull.
HALF_MM, FAR, WITHIN = 2, 127, 128
BONE_HU = 200
# So much blood that a slab must be called for it.
SEEN_PX = 12


def surroundings(hu, inside=None):
    """Distance from bone and place, of slabs [n, rows, columns], as one byte."""
    out = np.empty(hu.shape, np.uint8)
    for slab, image in enumerate(hu):
        away_mm = cv2.distanceTransform((image < BONE_HU).astype(np.uint8), cv2.DIST_L2, 3).clip(max=SIDE_PX) * PIXEL_MM
        out[slab] = np.minimum(away_mm * HALF_MM, FAR)
    return out if inside is None else out | (inside.astype(np.uint8) * WITHIN)


def alone(target):
    """Which kind a voxel's blood is, where it is sure to be just one; else 0."""
    sure = (target[1:] >= BLOOD // 2) & (target[1:] != UNKNOWN)
    single = (sure.sum(0) == 1) & ~(target[1:] == UNKNOWN).any(0)
    return np.where(single, 1 + sure.argmax(0), 0).astype(np.uint8)


@dataclass
class Drawn:
    """A slab to learn from. `target`: share of blood, kind, box (somewhere in it is blood); `labels`: -1 unknown."""

    hu: np.ndarray
    around: np.ndarray
    target: np.ndarray | None
    labels: np.ndarray
    mixable: bool = True


class Samples:
    """Draws training samples; everything random comes from one seed."""

    def __init__(self, sources, made, seed):
        self.heads, phantoms, self.others, self.apart = sources
        self.rng = np.random.default_rng(seed)
        with ThreadPoolExecutor() as pool:
            list(pool.map(prepare, sum(sources, [])))
        self.free = [head for head in self.heads if not head.bleeds]
        kinds = range(1, len(KINDS))
        self.by_kind = {kind: [head for head in self.heads if (head.labels[:, kind] == 1).any()] for kind in kinds}
        self.pairs = {kind: [] for kind in kinds}
        for without, with_blood in zip(phantoms[::2], phantoms[1::2]):
            for kind in kinds:
                if (with_blood.labels[:, kind] != 0).any():
                    self.pairs[kind].append((with_blood, without))
        self.made_hu, self.made_around, self.made_target, table = made
        known = np.isin(table[:, :2], [-1, *(head.patient for head in self.heads + self.others + self.apart)]).all(axis=1)
        self.made_by_kind = {kind: np.nonzero(known & (table[:, 2] == kind))[0] for kind in kinds}

    def choice(self, values):
        return values[self.rng.integers(len(values))]

    def kind(self):
        return 1 + self.rng.choice(len(self.kind_shares), p=self.kind_shares)

    def of_head(self, head, slab):
        where = np.clip([slab - 1, slab, slab + 1], 0, len(head.hu) - 1)
        target = head.drawn.get(slab)
        mixable = target is not None or not (head.labels[where, ANY] != 0).any()
        return Drawn(head.hu[where], head.around[where], target, head.labels[slab], mixable)

    def bleeding(self):
        kind = self.kind()
        head = self.choice(self.by_kind[kind] or [head for head in self.heads if head.bleeds])
        labelled = head.labels[:, kind] if (head.labels[:, kind] == 1).any() else head.labels[:, ANY]
        return self.of_head(head, self.choice(np.nonzero(labelled == 1)[0]))

    def quiet(self):
        draw = self.rng.random()
        if self.apart and draw > 0.85:
            head = self.choice(self.apart)
        else:
            head = self.choice(self.others if draw < 0.12 or not self.heads else self.free if draw < 0.65 else self.heads)
        return self.of_head(head, self.choice(np.nonzero(head.labels[:, ANY] == 0)[0]))

    def synthetic(self):
        kind = self.kind()
        index = self.choice(self.made_by_kind[kind])
        share = self.made_target[index]
        sure = (share >= BLOOD // 2) & (share != UNKNOWN)
        labels = np.zeros(len(KINDS), np.int8)
        labels[[ANY, kind]] = 1 if sure.sum() > SEEN_PX else -1
        target = np.stack([share, np.where(sure, kind, 0).astype(np.uint8), np.zeros_like(share)])
        return Drawn(self.made_hu[index], self.made_around[index], target, labels)

    def phantom(self):
        """As often as not a slab with blood; else any slab of the pair's heads."""
        with_blood, without = self.choice(self.pairs[self.kind()])
        if self.rng.random() < 0.5:
            return self.of_head(with_blood, self.choice(np.nonzero(with_blood.labels[:, ANY] != 0)[0]))
        head = self.choice((with_blood, without))
        return self.of_head(head, self.rng.integers(len(head.hu)))

    def batch(self, counts, kind_shares):
        """HU, surroundings [n, 3, side, side], targets [n, 3, side, side], labels [n, kinds], mixable [n]; as `counts` names them."""
        self.kind_shares = kind_shares
        drawn = [getattr(self, name)() for name, count in counts.items() for _ in range(count)]
        nothing = np.zeros((3, SIDE_PX, SIDE_PX), np.uint8)
        target = np.stack([nothing if one.target is None else one.target for one in drawn])
        labels = np.stack([one.labels for one in drawn])
        mixable = np.array([one.mixable for one in drawn], np.float32)
        return np.stack([one.hu for one in drawn]), np.stack([one.around for one in drawn]), target, labels, mixable


def prepare(head):
    """Adds to a head what a batch needs of it: `around`, and `drawn`: slab → share of blood, kind, box."""
    head.around = surroundings(head.hu, head.inside if head.inside.shape == head.hu.shape else None)
    head.drawn = {}
    for slab, target in head.targets.items():
        boxed = head.boxed.get(slab, np.zeros(target.shape[1:], bool))
        head.drawn[slab] = np.stack([target[ANY], alone(target), boxed.astype(np.uint8)])
