"""Slabs that `tez slabs` wrote + labels → what training reads: Hounsfield units, slab labels, voxel targets.

Everything lies on the slabs' own grid. A voxel target is one byte for each finding: 0 to BLOOD is the
share of blood, UNKNOWN means that nobody knows and no loss is taken there.
"""

import csv
import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

from ct_ich_to_dicom import SKULL_MM

KINDS = [
    "intracranial_hemorrhage",
    "intraparenchymal_hemorrhage",
    "intraventricular_hemorrhage",
    "subarachnoid_hemorrhage",
    "subdural_hemorrhage",
    "epidural_hemorrhage",
]
ANY, IPH, IVH, SAH, SDH, EDH = range(6)
SHORT = {"IPH": IPH, "IVH": IVH, "SAH": SAH, "SDH": SDH, "EDH": EDH}
PHANTOM_KINDS = {"Intraparenchymal": IPH, "Intraventricular": IVH, "Subarachnoid": SAH, "Subdural": SDH, "Epidural": EDH}
TEACHER_CHANNEL = {IPH: 0, SAH: 1, SDH: 1, EDH: 1, IVH: 3}
IMAGE_PX, TEACHER_PX = 650, 325
BLOOD, UNKNOWN = 250, 255
BONE_HU = 250.0
# In how many of 16 directions bone is met from within the skull, and how large beside the largest another piece of tissue there is.
ENCLOSED, LARGE_PIECE = 13, 0.2
VERTEX_PX = 500
# Heads that are no patients of ct-ich are numbered downwards from here.
FIRST_OTHER, FIRST_APART = -2, -1000
# As `training_heads` marks blood.
MARK_HU = 500.0
WHITE_HU, AIR_HU = 900.0, -1000.0


@dataclass
class Head:
    """One study. `hu` int16 [slabs, side, side]; `labels` int8 [slabs, kinds], -1 unknown."""

    uid: str
    patient: int
    hu: np.ndarray
    labels: np.ndarray
    inside: np.ndarray  # bool as hu: within the skull
    targets: dict = field(default_factory=dict)  # slab → uint8 [kinds, side, side]; absent: no blood
    masked: dict = field(default_factory=dict)  # slab → bool [side, side], drawn by hand
    boxed: dict = field(default_factory=dict)  # slab → bool [side, side]: somewhere here is blood

    @property
    def bleeds(self):
        return bool((self.labels[:, ANY] == 1).any())

    @cached_property
    def vertex(self):
        """The topmost slab that shows some of the inside of the skull."""
        return np.flatnonzero(self.inside.sum((1, 2)) > VERTEX_PX)[-1]


def read_slabs(folder, uid):
    return np.load(folder / f"{uid}.npy"), json.loads((folder / f"{uid}.json").read_text())


def windowed(hu, contract):
    """The card's windows, as `pipeline::prepare` cuts them: one channel each, on axis -3."""
    cut = [
        np.clip((hu - window["low_hu"]) / (window["high_hu"] - window["low_hu"]), 0, 1)
        for window in contract["windows"]
    ]
    return np.stack(cut, axis=-3).astype(np.float32)


def with_neighbours(hu, slab):
    """The slab between its neighbours; beyond the ends the end slab is repeated."""
    return hu[np.clip([slab - 1, slab, slab + 1], 0, len(hu) - 1)]


def enclosed(bone):
    """Where bone is met in nearly all of 16 directions: [rows, columns]. A gap in the skull (orbits, sutures, fractures,
    thin bone mixed with air or brain) is open to a few of them."""
    rows, columns = bone.shape
    middle, met, bone = ((columns - 1) / 2, (rows - 1) / 2), np.zeros(bone.shape, np.float32), bone.astype(np.uint8)
    for degrees in np.arange(4) * 22.5:
        turn = cv2.getRotationMatrix2D(middle, degrees, 1.0)
        turned = cv2.warpAffine(bone, turn, (columns, rows), flags=cv2.INTER_LINEAR)
        ways = np.zeros(bone.shape, np.float32)
        for axis in (0, 1):
            ways += np.maximum.accumulate(turned, axis)
            ways += np.flip(np.maximum.accumulate(np.flip(turned, axis), axis), axis)
        met += cv2.warpAffine(ways, turn, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return met > ENCLOSED - 0.5


def inside_skull(hu):
    """Soft tissue enclosed by bone in its slab: its largest piece and others of some size (the fossae), filled."""
    out = np.zeros(hu.shape, bool)
    for slab, image in enumerate(hu):
        bone = image > BONE_HU
        walls = cv2.morphologyEx(bone.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
        tissue = (enclosed(walls) & ~walls & (image > -30) & (image < 110)).astype(np.uint8)
        tissue = cv2.morphologyEx(tissue, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        pieces, count = ndimage.label(tissue)
        if count:
            area_px = np.bincount(pieces.ravel())
            area_px[0] = 0
            kept = (area_px >= max(LARGE_PIECE * area_px.max(), 1))[pieces]
            out[slab] = ndimage.binary_fill_holes(kept) & ~bone
    return out


def smooth_tissue(image, place, sigma_px=1.3):
    """A mean over `place` only, so that bone beside it does not leak in."""
    weight = cv2.GaussianBlur(place.astype(np.float32), (0, 0), sigma_px)
    total = cv2.GaussianBlur(np.where(place, image, 0).astype(np.float32), (0, 0), sigma_px)
    return np.where(place, total / np.maximum(weight, 1e-3), 0)


class Images:
    """What ct-ich says of its images, brought to the slabs' grid."""

    def __init__(self, ct_ich, teacher):
        self.ct_ich, self.teacher = ct_ich, teacher
        self.boxes = defaultdict(list)
        for row in csv.DictReader((ct_ich / "boxes.csv").open()):
            fractions = [float(row[name]) for name in ("x_centre", "y_centre", "width", "height")]
            self.boxes[int(row["patient"]), int(row["slice"])].append((SHORT[row["subtype"]], fractions))

    def affine(self, sidecar, pixel_mm, image_px):
        """For cv2 (inverse map): image pixel from slab pixel."""
        image_mm = pixel_mm * IMAGE_PX / image_px
        corner_mm = -(image_px - 1) / 2 * image_mm
        step = sidecar["spacing_mm"][0] / image_mm
        shift = [(sidecar["origin_mm"][axis] - corner_mm) / image_mm for axis in (0, 1)]
        return np.array([[step, 0, shift[0]], [0, step, shift[1]]])

    def to_slab(self, image, sidecar, pixel_mm, side):
        affine = self.affine(sidecar, pixel_mm, image.shape[0])
        flags = cv2.INTER_AREA | cv2.WARP_INVERSE_MAP
        image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.4 * affine[0, 0]) if affine[0, 0] > 1.2 else image
        return cv2.warpAffine(image.astype(np.float32), affine, (side, side), flags=cv2.INTER_LINEAR | flags)

    def mask(self, patient, index, sidecar, pixel_mm, side):
        path = self.ct_ich / "masks" / f"{patient:03d}_{index:02d}.png"
        if not path.exists():
            return None
        return self.to_slab(np.asarray(Image.open(path)) / 255.0, sidecar, pixel_mm, side)

    def box_areas(self, patient, index, sidecar, pixel_mm, side):
        areas = {}
        affine = self.affine(sidecar, pixel_mm, IMAGE_PX)
        for kind, (x, y, width, height) in self.boxes[patient, index]:
            edges = np.array([[x - width / 2, y - height / 2], [x + width / 2, y + height / 2]]) * IMAGE_PX
            (left, top), (right, low) = np.rint((edges - affine[:, 2]) / affine[0, 0]).astype(int)
            area = areas.setdefault(kind, np.zeros((side, side), bool))
            area[max(top - 2, 0) : low + 3, max(left - 2, 0) : right + 3] = True
        return areas

    def teacher_maps(self, patient, index, sidecar, pixel_mm, side):
        path = self.teacher / f"{patient:03d}.npz"
        if not path.exists():
            return {}
        if getattr(self, "kept", (None,))[0] != patient:
            archive = np.load(path)
            self.kept = (patient, archive["prob"], list(archive["slices"]))
        _, prob, slices = self.kept
        if index not in slices:
            return {}
        at = slices.index(index)
        return {
            kind: self.to_slab(prob[channel, at] / 255.0, sidecar, pixel_mm, side)
            for kind, channel in TEACHER_CHANNEL.items()
        }


def target_of(image, inside, present, mask, boxes, teacher):
    """Voxel target of one bleeding slab: what was drawn, else dense tissue within the boxes, else the teacher."""
    target = np.zeros((len(KINDS), *image.shape), np.uint8)
    near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    place = near & (image > -10) & (image < 110)
    smooth = smooth_tissue(image, place)
    brain_hu = np.median(image[inside]) if inside.any() else 32.0
    dense = place & (smooth > max(brain_hu + 11, 42))
    doubtful = place & (smooth > brain_hu + 5)
    for kind in present:
        drawn = teacher.get(kind, np.zeros(image.shape)) > 0.4
        if mask is not None and len(present) == 1:
            target[kind] = np.rint(np.clip(mask, 0, 1) * BLOOD)
            continue
        if mask is not None:
            blood = mask > 0.5
            own = blood & boxes[kind] if kind in boxes else np.zeros_like(blood)
            target[kind][blood & ~own] = UNKNOWN
            target[kind][own] = BLOOD
            continue
        if kind in boxes:
            core = boxes[kind] & near & (dense | (drawn & doubtful))
            core = cv2.morphologyEx(core.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0
            unsure = boxes[kind] & near & (doubtful | (core.sum() < 25))
        else:
            core = drawn & doubtful
            unsure = doubtful | drawn
        rim = cv2.dilate(core.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        target[kind][(unsure | rim) & ~core] = UNKNOWN
        target[kind][core] = BLOOD
    unknown = (target == UNKNOWN).any(axis=0)
    target[ANY] = np.where(target == UNKNOWN, 0, target)[1:].max(axis=0)
    if mask is not None:
        target[ANY] = np.rint(np.clip(mask, 0, 1) * BLOOD)
    else:
        target[ANY][unknown & (target[ANY] < BLOOD // 2)] = UNKNOWN
    if not target[ANY].any():
        # There is blood, and nothing says where.
        target[ANY][near] = UNKNOWN
    return target


def load_patients(slabs, dicom, ct_ich, teacher):
    """All ct-ich patients. `dicom` is what ct_ich_to_dicom.py wrote; `slabs` what `tez slabs` made of it."""
    images = Images(ct_ich, teacher)
    rows = {row["sop_uid"]: row for row in csv.DictReader((dicom / "slices.csv").open())}
    studies = {row["study_uid"]: int(row["patient"]) for row in rows.values()}
    heads = []
    for uid, patient in sorted(studies.items(), key=lambda item: item[1]):
        hu, sidecar = read_slabs(slabs, uid)
        labels = np.zeros((len(hu), len(KINDS)), np.int8)
        head = Head(uid, patient, np.rint(hu).astype(np.int16), labels, inside_skull(hu))
        side = hu.shape[1]
        for slab, sop in enumerate(sidecar["nearest_slices"]):
            row = rows[sop]
            labels[slab] = [int(row[kind]) for kind in KINDS]
            if not labels[slab, ANY]:
                continue
            where = (patient, int(row["slice"]), sidecar, float(row["pixel_mm"]), side)
            mask = images.mask(*where)
            if mask is not None:
                head.masked[slab] = mask > 0.5
            present = [kind for kind in range(1, len(KINDS)) if labels[slab, kind] == 1]
            boxes = images.box_areas(*where)
            near = cv2.dilate(head.inside[slab].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            for area in boxes.values():
                head.boxed[slab] = head.boxed.get(slab, False) | (area & near)
            head.targets[slab] = target_of(
                hu[slab], head.inside[slab], present, mask, boxes, images.teacher_maps(*where)
            )
        heads.append(head)
    contract = json.loads((slabs / f"{heads[0].uid}.json").read_text())["contract"]
    return heads, contract


def load_others(folder, contract):
    """Single slices of other scanners without blood (CPAISD: acute ischaemia), each as three slabs alike.

    A grey value is a Hounsfield unit, 0 and below are black, from 255 on white. Nothing says how large a pixel
    is: the skull is taken to be as long as in ct_ich_to_dicom.py. No study, so `tez slabs` has no part in it.
    """
    heads, side, pixel_mm = [], contract["side_px"], contract["side_mm"] / contract["side_px"]
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        grey = np.asarray(Image.open(path).convert("L")).astype(np.float32)
        hu = np.where(grey >= 255, WHITE_HU, np.where(grey > 0, grey, AIR_HU))
        pieces, _ = ndimage.label(hu >= WHITE_HU)
        skull = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        rows, columns = np.nonzero(skull)
        step = np.ptp(rows) / SKULL_MM * pixel_mm
        corner = [(own.min() + own.max()) / 2 - step * (side - 1) / 2 for own in (columns, rows)]
        affine = np.array([[step, 0, corner[0]], [0, step, corner[1]]])
        soft = cv2.GaussianBlur(hu, (0, 0), 0.4 * step) if step > 1.2 else hu
        slab = cv2.warpAffine(soft, affine, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=AIR_HU)
        slabs = np.repeat(np.rint(slab).astype(np.int16)[None], 3, axis=0)
        inside = np.repeat(inside_skull(slab[None]), 3, axis=0)
        heads.append(Head(path.stem, FIRST_OTHER - number, slabs, np.zeros((3, len(KINDS)), np.int8), inside))
    return heads


def load_apart(slabs):
    """Heads without blood that only the final network learns from: none of the folds knows them."""
    heads = []
    for number, path in enumerate(sorted(slabs.glob("*.npy"))):
        hu, _ = read_slabs(slabs, path.stem)
        labels = np.zeros((len(hu), len(KINDS)), np.int8)
        heads.append(Head(path.stem, FIRST_APART - number, np.rint(hu).astype(np.int16), labels, inside_skull(hu)))
    return heads


def load_phantoms(slabs, pairs):
    """Synthetic heads of fixtures' `training_heads`; where blood is marked by MARK_HU a voxel shows its share of it."""
    heads = []
    for row in csv.DictReader(pairs.open()):
        kind = PHANTOM_KINDS[row["kind"]]
        with_blood, _ = read_slabs(slabs, row["with_uid"])
        without, _ = read_slabs(slabs, row["without_uid"])
        marked, _ = read_slabs(slabs, row["marked_uid"])
        share = np.clip((marked - with_blood) / MARK_HU, 0, 1)
        for hu, blood in ((without, None), (with_blood, share)):
            labels = np.zeros((len(hu), len(KINDS)), np.int8)
            head = Head(row["with_uid"], -1, np.rint(hu).astype(np.int16), labels, np.zeros((0,)))
            for slab in range(len(hu)) if blood is not None else ():
                area_px = blood[slab].sum()
                if area_px > 4:
                    target = np.zeros((len(KINDS), *hu.shape[1:]), np.uint8)
                    target[kind] = target[ANY] = np.rint(blood[slab] * BLOOD)
                    head.targets[slab] = target
                    labels[slab, [ANY, kind]] = 1 if area_px > 25 else -1
            heads.append(head)
    return heads


def folds(heads, count=5):
    """Fold of each patient: rank among those that bleed, or among the others, modulo `count`."""
    of = {}
    for bleeding in (True, False):
        ranked = sorted(head.patient for head in heads if head.bleeds == bleeding)
        of.update({patient: rank % count for rank, patient in enumerate(ranked)})
    return of
