"""Trains one network: on four folds of patients, or on all of them.

usage: train.py DATA.pkl SYNTHETIC OUT --fold 0..4|none [--iterations N] [--seed N]

DATA.pkl is what prepare_data.py wrote, SYNTHETIC what prepare_synthetic.py did. OUT/fold-F.pt gets the weights (their running mean),
OUT/fold-F.json what was done. Heads kept apart (prepare_data.py) are for the final network (`none`) alone.
"""

import argparse
import json
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

import synth
from data import ANY, BLOOD, KINDS, UNKNOWN, folds, windowed, with_neighbours
from network import CELL_PX, INNER_PX, RIM_PX, SIDE_PX, Network, field

CONFIG = {
    "batch": 16,
    "rate": 2e-3,
    "weight_decay": 0.05,
    "warm_up": 0.1,
    "mean_decay": 0.998,
    "loss_weights": {"blood": 4.0, "dice": 1.0, "kind": 0.4, "boxed": 0.15},
    "blood_weight": 2.0,
    # Crops, and how many of a bleeding slab's are around its blood.
    "crop_px": 96,
    "around_blood": 0.85,
    # What a sample is: a slab with blood, one without, a head into which blood was put, a phantom.
    "shares": {"bleeding": 0.3, "quiet": 0.34, "synthetic": 0.24, "phantom": 0.12},
    # Of bleeding and synthetic slabs: which kind (IPH, IVH, SAH, SDH, EDH).
    "kind_shares": [0.27, 0.12, 0.13, 0.2, 0.28],
    "lookalike_share": 0.25,
    "hardened_share": 0.5,
    "shifted_share": 0.2,
    "thickened_share": 0.4,
    "offset_hu": 3.0,
    "kept_every": 1000,
}
PARTS = tuple(CONFIG["loss_weights"])
MIDDLE = (SIDE_PX - 1) / 2
# Of a box: pixels that are taken to be blood, and how much of it a crop must show to say so.
BOXED_PX, BOXED_PART = 12, 0.6


@dataclass
class Drawn:
    """A slab to learn from: HU [rows, columns, three slabs], what of it is blood, where blood is somewhere."""

    hu: np.ndarray
    target: np.ndarray | None = None
    boxed: np.ndarray | None = None
    inside: np.ndarray | None = None


class Samples:
    """Draws training samples; everything random comes from one seed."""

    def __init__(self, sources, synthetic, contract, seed):
        heads, self.phantoms, self.others, self.apart = sources
        self.heads, self.contract = heads, contract
        self.rng = np.random.default_rng(seed)
        self.field = field(INNER_PX // CELL_PX)
        self.free = [head for head in heads if not head.bleeds]
        kinds = range(1, len(KINDS))
        self.by_kind = {kind: [head for head in heads if (head.labels[:, kind] == 1).any()] for kind in kinds}
        self.put_hu, self.put_target, table = synthetic
        known = np.isin(table[:, :2], [-1, *(head.patient for head in heads + self.others + self.apart)]).all(axis=1)
        self.put_by_kind = {kind: np.nonzero(known & (table[:, 2] == kind))[0] for kind in kinds}

    def choice(self, values):
        return values[self.rng.integers(len(values))]

    def kind(self):
        return 1 + self.rng.choice(len(CONFIG["kind_shares"]), p=CONFIG["kind_shares"])

    def bleeding(self):
        kind = self.kind()
        head = self.choice(self.by_kind[kind] or [head for head in self.heads if head.bleeds])
        labelled = head.labels[:, kind] if (head.labels[:, kind] == 1).any() else head.labels[:, ANY]
        slab = self.choice(np.nonzero(labelled == 1)[0])
        return Drawn(together(head.hu, slab), head.targets[slab], head.boxed.get(slab))

    def quiet(self):
        draw = self.rng.random()
        if self.apart and draw > 0.93:
            head = self.choice(self.apart)
        else:
            head = self.choice(self.others if draw < 0.15 else self.free if draw < 0.65 else self.heads)
        slab = self.choice(np.nonzero(head.labels[:, ANY] == 0)[0])
        return Drawn(together(head.hu, slab), inside=with_neighbours(head.inside, slab))

    def synthetic(self):
        kind = self.kind()
        index = self.choice(self.put_by_kind[kind])
        blood = self.put_target[index]
        target = np.zeros((len(KINDS), *blood.shape), np.uint8)
        target[kind] = target[ANY] = blood
        return Drawn(self.put_hu[index], target)

    def phantom(self):
        head = self.choice(self.phantoms)
        bleeding = np.nonzero(head.labels[:, ANY] != 0)[0]
        slab = self.choice(bleeding) if len(bleeding) and self.rng.random() < 0.7 else self.rng.integers(len(head.hu))
        return Drawn(together(head.hu, slab), head.targets.get(slab))

    def sample(self):
        """A crop, its mirror image's, its target, where it lies, and where blood is somewhere in it."""
        shares, rng = CONFIG["shares"], self.rng
        drawn = getattr(self, rng.choice(list(shares), p=list(shares.values())))()
        hu = drawn.hu
        if drawn.inside is not None and rng.random() < CONFIG["lookalike_share"]:
            hu = cv2.merge(list(synth.add_lookalike(rng, np.stack(cv2.split(hu)).astype(np.float32), drawn.inside)))
        if rng.random() < CONFIG["hardened_share"]:
            hu = cv2.merge(list(synth.harden(rng, np.stack(cv2.split(hu)).astype(np.float32))))
        hu = self.restacked(hu)
        affine = self.movement()
        top, left = self.corner(hu[..., 1], drawn.target, affine)
        own = cut(hu, affine, (top, left), cv2.INTER_LINEAR)
        # The same place of the other side, as the mirrored slab shows it.
        mirrored = cut(hu, affine @ MIRROR, (top, left), cv2.INTER_LINEAR)
        both = self.scanned(np.stack([own, mirrored]).transpose(0, 3, 1, 2).astype(np.float32))
        both = windowed(both, self.contract)  # [2, slabs, windows, rows, columns]
        size = CONFIG["crop_px"]
        target = np.zeros((len(KINDS), size, size), np.uint8)
        for kind in range(len(KINDS)) if drawn.target is not None else ():
            if drawn.target[kind].any():
                target[kind] = cut(drawn.target[kind], affine, (top, left), cv2.INTER_NEAREST)
        boxed = np.zeros((size, size), bool)
        if drawn.boxed is not None:
            shown = cut(drawn.boxed.astype(np.uint8), affine, (top, left), cv2.INTER_NEAREST) > 0
            if shown.sum() >= BOXED_PART * drawn.boxed.sum():
                boxed = shown
        return both.reshape(2, -1, size, size), target, boxed, ((top - RIM_PX) // CELL_PX, (left - RIM_PX) // CELL_PX)

    def movement(self):
        """Turned, scaled, shifted, mirrored: the source pixel (column, row, 1) of a pixel."""
        rng = self.rng
        turn, scale, stretch = np.radians(rng.normal(0, 8)), np.exp(rng.normal(0, 0.07)), np.exp(rng.normal(0, 0.04))
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        linear = np.array([[cos * stretch, -sin], [sin * stretch, cos]])
        if rng.random() < 0.5:
            linear[:, 0] *= -1
        affine = np.eye(3)
        affine[:2, :2] = linear
        affine[:2, 2] = MIDDLE - linear @ [MIDDLE, MIDDLE] + rng.normal(0, 6, 2)
        return affine

    def corner(self, image, target, affine):
        """Where a crop begins, on the network's cells: around blood, or anywhere in the head."""
        rng, size = self.rng, CONFIG["crop_px"]
        places = () if target is None else np.argwhere((target[ANY] >= BLOOD // 2) & (target[ANY] != UNKNOWN))
        spread = 32
        if not len(places) or rng.random() >= CONFIG["around_blood"]:
            places, spread = np.argwhere((image[::4, ::4] > 5) & (image[::4, ::4] < 90)) * 4, 0
        middle = np.full(2, MIDDLE)
        if len(places):
            row, column = self.choice(places)
            middle = (np.linalg.inv(affine) @ [column, row, 1])[1::-1] + rng.integers(-spread, spread + 1, 2)
        cells = np.clip((middle - size // 2 - RIM_PX) // CELL_PX, 0, (INNER_PX - size) // CELL_PX)
        return cells.astype(int) * CELL_PX + RIM_PX

    def restacked(self, hu):
        """The neighbours mixed in, as shifted or thicker slabs are, and in either order."""
        rng, planes = self.rng, list(cv2.split(hu))
        draw = rng.random()
        if draw < CONFIG["shifted_share"]:
            part, other = np.float32(rng.uniform(0, 0.45)), planes[rng.choice([0, 2])]
            planes = [plane.astype(np.float32) for plane in planes]
            planes[1] = (1 - part) * planes[1] + part * other
        elif draw < CONFIG["shifted_share"] + CONFIG["thickened_share"]:
            part = np.float32(rng.uniform(0.05, 0.33))
            below, own, above = (plane.astype(np.float32) for plane in planes)
            mixed = (1 - 2 * part) * own + part * (below + above)
            planes = [(1 - part) * below + part * own, mixed, (1 - part) * above + part * own]
        return cv2.merge(planes[::-1] if rng.random() < 0.5 else planes)

    def scanned(self, hu):
        """Another scanner: sharpness, noise, calibration."""
        rng = self.rng
        if rng.random() < 0.4:
            smooth = blurred(hu, rng.uniform(0.5, 1.6))
            amount = rng.uniform(-0.7, 1.0)  # below 0 sharper
            hu = hu + amount * (smooth - hu)
        if rng.random() < 0.5:
            grain = rng.standard_normal(hu.shape, dtype=np.float32)
            if rng.random() < 0.5:
                grain = 2.2 * blurred(grain, 0.8)
            hu = hu + grain * rng.uniform(0, 6)
        return hu * np.exp(rng.normal(0, 0.03)) + rng.normal(0, CONFIG["offset_hu"])

    def batch(self, size):
        slabs, target, boxed, corners = zip(*(self.sample() for _ in range(size)))
        cells = CONFIG["crop_px"] // CELL_PX
        place = torch.cat([self.field[:, :, top : top + cells, left : left + cells] for top, left in corners])
        slabs = torch.from_numpy(np.stack(slabs))
        shown = (part.bfloat16().to(memory_format=torch.channels_last) for part in (slabs[:, 0], slabs[:, 1], place))
        return tuple(shown), torch.from_numpy(np.stack(target)), torch.from_numpy(np.stack(boxed))


# The pixel that lies at the same place of the mirror image.
MIRROR = np.array([[-1.0, 0.0, SIDE_PX - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def together(hu, slab):
    """The slab between its neighbours, as [rows, columns, slabs]."""
    return cv2.merge([hu[max(slab - 1, 0)], hu[slab], hu[min(slab + 1, len(hu) - 1)]])


def cut(image, affine, corner, how):
    """A crop of the moved image, in one step."""
    top, left = corner
    shift = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
    size = CONFIG["crop_px"]
    flags = how | cv2.WARP_INVERSE_MAP
    outside = 0 if how == cv2.INTER_NEAREST else (-1000.0,) * 3
    return cv2.warpAffine(image, (affine @ shift)[:2], (size, size), flags=flags, borderValue=outside)


def blurred(images, sigma_px):
    flat = images.reshape(-1, *images.shape[-2:]).astype(np.float32)
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma_px) for image in flat]).reshape(images.shape)


def loss_of(voxels, target, boxed):
    voxels = voxels.float()
    known = target[:, ANY] != UNKNOWN
    share = (target[:, ANY].float() / BLOOD).clamp(max=1.0)
    weight = known * (1 + (CONFIG["blood_weight"] - 1) * share)
    each = functional.binary_cross_entropy_with_logits(voxels[:, ANY], share, reduction="none")
    blood_loss = (each * weight).sum() / known.sum()
    probability, true = torch.sigmoid(voxels[:, ANY]) * known, share * known
    dice_loss = 1 - (2 * (probability * true).sum() + 1) / (probability.sum() + true.sum() + 1)
    parts = blood_loss, dice_loss, kind_loss_of(voxels[:, 1:], target[:, 1:]), boxed_loss_of(voxels[:, ANY], boxed)
    return sum(CONFIG["loss_weights"][name] * part for name, part in zip(PARTS, parts)), parts


def kind_loss_of(kinds, target):
    """Which kind it is, where blood is sure to be; each kind counts alike."""
    sure = (target >= BLOOD // 2) & (target != UNKNOWN)
    alone = (sure.sum(1) == 1) & ~(target == UNKNOWN).any(1)
    kind = sure.int().argmax(1)[alone].long()
    if not len(kind):
        return kinds.sum() * 0
    each = functional.cross_entropy(kinds.permute(0, 2, 3, 1)[alone], kind, reduction="none")
    count = torch.bincount(kind, minlength=target.shape[1]).clamp(min=1).float()
    weight = count[kind] ** -0.5
    return (each * weight).sum() / weight.sum()


def boxed_loss_of(blood, boxed):
    """Somewhere in a box there is blood, also where density alone does not show it."""
    some = boxed.flatten(1).sum(1) >= BOXED_PX
    if not some.any():
        return blood.sum() * 0
    inside = blood[some].masked_fill(~boxed[some], -1e4).flatten(1)
    return functional.softplus(-inside.topk(BOXED_PX, dim=1).values).mean()


class RunningMean:
    """The exponential mean of weights and of batch statistics."""

    def __init__(self, network):
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.steps = 0

    def update(self, network):
        self.steps += 1
        decay = min(CONFIG["mean_decay"], (1 + self.steps) / (10 + self.steps))
        now = {name: value for name, value in network.state_dict().items() if value.dtype.is_floating_point}
        torch._foreach_lerp_([self.values[name] for name in now], list(now.values()), 1 - decay)


def train(samples, options, seed, say, keep):
    torch.manual_seed(seed)
    iterations = options.iterations
    network = Network(windows=len(samples.contract["windows"]), neighbours=samples.contract["neighbours"])
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=CONFIG["rate"], weight_decay=CONFIG["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=CONFIG["rate"], total_steps=iterations, pct_start=CONFIG["warm_up"]
    )
    mean, started, recent = RunningMean(network), time.time(), []
    for iteration in range(iterations):
        shown, target, boxed = samples.batch(CONFIG["batch"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            voxels = network.voxels(*shown)
        loss, parts = loss_of(voxels, target, boxed)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimizer.step()
        schedule.step()
        mean.update(network)
        recent.append((loss.item(), *(part.item() for part in parts)))
        if iteration % 50 == 49:
            total, *each = np.mean(recent[-50:], axis=0)
            each = ", ".join(f"{name} {part:.3f}" for name, part in zip(PARTS, each))
            left_minutes = (time.time() - started) / (iteration + 1) * (iterations - iteration - 1) / 60
            say(f"{iteration + 1}/{iterations} loss {total:.3f}: {each} {left_minutes:.0f} min left")
        if iteration % CONFIG["kept_every"] == CONFIG["kept_every"] - 1:
            keep(mean.values)
    network.load_state_dict(mean.values)
    network.eval()
    return network, [round(float(total), 4) for total, *_ in recent[49::50]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fold", required=True, help="the fold that is left out, or none")
    parser.add_argument("--iterations", type=int, default=4500)
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    heads, phantoms, others, apart, contract = pickle.loads(options.data.read_bytes())
    apart = apart if options.fold == "none" else []
    fold_of = folds(heads)
    kept = [head for head in heads if options.fold == "none" or fold_of[head.patient] != int(options.fold)]
    started = time.time()
    seed = options.seed + (9 if options.fold == "none" else int(options.fold))
    options.out.mkdir(parents=True, exist_ok=True)

    def keep(values):
        torch.save(values, options.out / f"fold-{options.fold}.part.pt")

    synthetic = [np.load(options.synthetic / f"{name}.npy", mmap_mode="r") for name in ("hu", "target", "table")]
    samples = Samples((kept, phantoms, others, apart), synthetic, contract, seed)
    network, losses = train(samples, options, seed, lambda line: print(line, flush=True), keep)
    torch.save(network.state_dict(), options.out / f"fold-{options.fold}.pt")
    record = {
        "fold": options.fold,
        "patients": [head.patient for head in kept],
        "phantoms": len(phantoms),
        "others": len(others),
        "apart": len(apart),
        "synthetic_slabs": int(sum(map(len, samples.put_by_kind.values()))),
        "iterations": options.iterations,
        "seed": seed,
        "threads": options.threads,
        "minutes": round((time.time() - started) / 60, 1),
        "torch": torch.__version__,
        "config": CONFIG,
        "loss_every_50": losses,
    }
    (options.out / f"fold-{options.fold}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
