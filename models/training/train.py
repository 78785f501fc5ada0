"""Trains one network: on four folds of patients, or on all of them.

usage: train.py DATA.pkl OUT --fold 0..4|none [--iterations N] [--seed N] [--start WEIGHTS.pt]

DATA.pkl is what prepare_data.py wrote. OUT/fold-F.pt gets the weights (their running mean),
OUT/fold-F.json what was done.
"""

import argparse
import json
import pickle
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import optimize
from torch import nn
from torch.nn import functional

import synth
from data import ANY, BLOOD, KINDS, UNKNOWN, folds, windowed, with_neighbours
from network import CELL_PX, INNER_PX, RIM_PX, SIDE_PX, Network, field, suspicion

CONFIG = {
    "batch": 16,
    "rate": 2e-3,
    "weight_decay": 0.02,
    "warm_up": 0.1,
    "mean_decay": 0.99,
    "loss_weights": {"blood": 4.0, "dice": 1.0, "kind": 0.4},
    "blood_weight": 2.0,
    # Crops, and how many of a bleeding slab's are around its blood.
    "crop_px": 96,
    "around_blood": 0.85,
    # What a sample is: a slab with blood, one without, blood put into a head without, a phantom.
    "shares": {"bleeding": 0.36, "quiet": 0.3, "synthetic": 0.24, "phantom": 0.1},
    # Of bleeding and synthetic slabs: which kind (IPH, IVH, SAH, SDH, EDH).
    "kind_shares": [0.27, 0.14, 0.14, 0.2, 0.25],
    "lookalike_share": 0.12,
    "hardened_share": 0.4,
}
PARTS = ("blood", "dice", "kind")
STRIDE_QUIET = 3
AREA_PRESENT_PX, AREA_UNSURE_PX = 30, 8
# No blood is put into this part of the slabs from below: face and skull base.
BASE_PART = 0.22


class Samples:
    """Draws training samples; everything random comes from one seed."""

    def __init__(self, heads, phantoms, contract, seed):
        self.heads, self.phantoms, self.contract = heads, phantoms, contract
        self.rng = np.random.default_rng(seed)
        self.field = field(INNER_PX // CELL_PX)
        self.free = [head for head in heads if not head.bleeds]
        self.by_kind = {
            kind: [head for head in heads if (head.labels[:, kind] == 1).any()] for kind in range(1, len(KINDS))
        }

    def choice(self, values):
        return values[self.rng.integers(len(values))]

    def kind(self):
        kind = 1 + self.rng.choice(len(CONFIG["kind_shares"]), p=CONFIG["kind_shares"])
        return kind if self.by_kind[kind] else ANY + 1

    def bleeding(self):
        kind = self.kind()
        head = self.choice(self.by_kind[kind])
        slab = self.choice(np.nonzero(head.labels[:, kind] == 1)[0])
        return with_neighbours(head.hu, slab), head.targets[slab], head.labels[slab], None

    def quiet(self):
        head = self.choice(self.free if self.rng.random() < 0.6 else self.heads)
        slab = self.choice(np.nonzero(head.labels[:, ANY] == 0)[0])
        inside = with_neighbours(head.inside, slab)
        return with_neighbours(head.hu, slab), None, head.labels[slab], inside

    def synthetic(self):
        for _ in range(20):
            head = self.choice(self.free)
            slab = self.rng.integers(int(BASE_PART * len(head.hu)), len(head.hu))
            kind = self.kind()
            hu, inside = with_neighbours(head.hu, slab).astype(np.float32), with_neighbours(head.inside, slab)
            made = synth.add_bleed(self.rng, hu, inside, kind)
            if made is None:
                continue
            hu, share = made
            target = np.zeros((len(KINDS), *hu.shape[1:]), np.uint8)
            target[kind] = target[ANY] = np.rint(share[1] * BLOOD)
            area = (share[1] > 0.5).sum()
            labels = np.zeros(len(KINDS), np.int8)
            labels[[ANY, kind]] = 1 if area >= AREA_PRESENT_PX else -1 if area >= AREA_UNSURE_PX else 0
            return hu, target, labels, None
        return self.quiet()

    def phantom(self):
        head = self.choice(self.phantoms)
        bleeding = np.nonzero(head.labels[:, ANY] != 0)[0]
        slab = self.choice(bleeding) if len(bleeding) and self.rng.random() < 0.7 else self.rng.integers(len(head.hu))
        return with_neighbours(head.hu, slab), head.targets.get(slab), head.labels[slab], None

    def sample(self):
        shares = CONFIG["shares"]
        draw = self.rng.choice(list(shares), p=list(shares.values()))
        hu, target, labels, inside = getattr(self, draw)()
        hu = hu.astype(np.float32)
        if inside is not None and self.rng.random() < CONFIG["lookalike_share"]:
            hu = synth.add_lookalike(self.rng, hu, inside)
        hu, target = self.moved(hu, target)
        if self.rng.random() < CONFIG["hardened_share"]:
            hu = synth.harden(self.rng, hu)
        top, left = self.corner(hu[1], target)
        size = CONFIG["crop_px"]
        rows, columns = slice(top, top + size), slice(left, left + size)
        # The same place of the other side, as the mirrored slab shows it.
        both = np.stack([hu[:, rows, columns], hu[:, :, ::-1][:, rows, columns]])
        both = windowed(self.scanned(both), self.contract)  # [2, slabs, windows, rows, columns]
        own = None if target is None else target[:, rows, columns]
        return both.reshape(2, -1, size, size), own, ((top - RIM_PX) // CELL_PX, (left - RIM_PX) // CELL_PX)

    def corner(self, image, target):
        """Where a crop begins, on the network's cells: around blood, or anywhere in the head."""
        rng, size = self.rng, CONFIG["crop_px"]
        blood = () if target is None else np.argwhere((target[ANY] >= BLOOD // 2) & (target[ANY] != UNKNOWN))
        if len(blood) and rng.random() < CONFIG["around_blood"]:
            middle = blood[rng.integers(len(blood))] + rng.integers(-32, 33, 2)
        else:
            tissue = np.argwhere((image[::4, ::4] > 5) & (image[::4, ::4] < 90)) * 4
            middle = tissue[rng.integers(len(tissue))] if len(tissue) else np.full(2, SIDE_PX // 2)
        cells = np.clip((middle - size // 2 - RIM_PX) // CELL_PX, 0, (INNER_PX - size) // CELL_PX)
        return cells * CELL_PX + RIM_PX

    def moved(self, hu, target):
        """Turned, scaled, shifted, mirrored; and the neighbours mixed in, as thicker or shifted slabs are."""
        rng, side = self.rng, hu.shape[1]
        if rng.random() < 0.4:
            part = rng.uniform(0, 0.45)
            hu = np.stack([hu[0], (1 - part) * hu[1] + part * hu[rng.choice([0, 2])], hu[2]])
        if rng.random() < 0.5:  # the order of slabs has no meaning for blood
            hu = hu[::-1]
        turn, scale = np.radians(rng.normal(0, 8)), np.exp(rng.normal(0, 0.07))
        stretch = np.exp(rng.normal(0, 0.04))
        cos, sin = scale * np.cos(turn), scale * np.sin(turn)
        affine = np.array([[cos * stretch, -sin], [sin * stretch, cos]])
        if rng.random() < 0.5:
            affine[:, 0] *= -1
        middle = np.full(2, (side - 1) / 2)
        shift = middle - affine @ middle + rng.normal(0, 6, 2)
        affine = np.column_stack([affine, shift])
        hu = np.stack([
            cv2.warpAffine(np.ascontiguousarray(slab), affine, (side, side), flags=cv2.INTER_LINEAR, borderValue=-1000.0)
            for slab in hu
        ])
        if target is not None:
            target = np.stack([
                cv2.warpAffine(plane, affine, (side, side), flags=cv2.INTER_NEAREST) if plane.any() else plane
                for plane in target
            ])
        return hu, target

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
        return hu * np.exp(rng.normal(0, 0.03)) + rng.normal(0, 2.0)

    def batch(self, size):
        drawn = [self.sample() for _ in range(size)]
        side = CONFIG["crop_px"]
        target = np.zeros((size, len(KINDS), side, side), np.uint8)
        for index, (_, own, _) in enumerate(drawn):
            if own is not None:
                target[index] = own
        slabs = torch.from_numpy(np.stack([one[0] for one in drawn]))
        cells = side // CELL_PX
        place = torch.cat([self.field[:, :, top : top + cells, left : left + cells] for _, _, (top, left) in drawn])
        own, mirrored, place = (
            part.bfloat16().to(memory_format=torch.channels_last) for part in (slabs[:, 0], slabs[:, 1], place)
        )
        return (own, mirrored, place), torch.from_numpy(target)


def blurred(images, sigma_px):
    flat = images.reshape(-1, *images.shape[-2:]).astype(np.float32)
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma_px) for image in flat]).reshape(images.shape)


def loss_of(voxels, target):
    voxels = voxels.float()
    known = target[:, ANY] != UNKNOWN
    share = (target[:, ANY].float() / BLOOD).clamp(max=1.0)
    weight = known * (1 + (CONFIG["blood_weight"] - 1) * share)
    each = functional.binary_cross_entropy_with_logits(voxels[:, ANY], share, reduction="none")
    blood_loss = (each * weight).sum() / known.sum()
    probability, true = torch.sigmoid(voxels[:, ANY]) * known, share * known
    dice_loss = 1 - (2 * (probability * true).sum() + 1) / (probability.sum() + true.sum() + 1)
    parts = blood_loss, dice_loss, kind_loss_of(voxels[:, 1:], target[:, 1:])
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


class RunningMean:
    """The exponential mean of weights and of batch statistics."""

    def __init__(self, network):
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.steps = 0

    def update(self, network):
        self.steps += 1
        decay = min(CONFIG["mean_decay"], (1 + self.steps) / (10 + self.steps))
        for name, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                self.values[name].lerp_(value.detach(), 1 - decay)


def train(samples, options, seed, say):
    torch.manual_seed(seed)
    iterations = options.iterations
    network = Network(windows=len(samples.contract["windows"]), neighbours=samples.contract["neighbours"])
    if options.start:
        network.load_state_dict({**network.state_dict(), **learnt(options.start)})
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=CONFIG["rate"], weight_decay=CONFIG["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=CONFIG["rate"] * (0.6 if options.start else 1), total_steps=iterations, pct_start=CONFIG["warm_up"]
    )
    mean, started, recent = RunningMean(network), time.time(), []
    for iteration in range(iterations):
        shown, target = samples.batch(CONFIG["batch"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            voxels = network.voxels(*shown)
        loss, parts = loss_of(voxels, target)
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
            say(f"{iteration + 1}/{iterations} loss {total:.3f}: {each} after {time.time() - started:.0f} s")
    network.load_state_dict(mean.values)
    network.eval()
    fit_slabs(network, samples)
    return network, [round(float(total), 4) for total, *_ in recent[49::50]]


def learnt(path):
    """Weights without what is fitted after training."""
    return {name: value for name, value in torch.load(path).items() if not name.startswith("slab_")}


def fit_slabs(network, samples):
    """From a slab's most suspicious places to its probability: one logistic function a kind, no weight below 0."""
    shown, labels, counts = [], [], []
    for head in samples.heads:
        for slab in range(len(head.hu)):
            quiet = head.labels[slab, ANY] == 0
            if quiet and slab % STRIDE_QUIET:
                continue
            slabs = windowed(with_neighbours(head.hu, slab), samples.contract).reshape(1, -1, *head.hu.shape[1:])
            slabs = torch.from_numpy(slabs)[:, :, RIM_PX : SIDE_PX - RIM_PX, RIM_PX : SIDE_PX - RIM_PX]
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                voxels = network.voxels(slabs, slabs.flip(3), network.field)
            shown.append(suspicion(voxels.float())[0].numpy())
            labels.append(head.labels[slab] == 1)
            counts.append(STRIDE_QUIET if quiet else 1)
    shown, labels, counts = np.array(shown), np.array(labels), np.array(counts)
    for kind in range(len(KINDS)):

        def loss(parameters):
            z = shown[:, kind] @ parameters[:-1] + parameters[-1]
            misfit = (counts * (np.logaddexp(0, z) - labels[:, kind] * z)).sum() / counts.sum()
            return misfit + 1e-3 * (parameters[:-1] ** 2).sum()

        start = np.full(shown.shape[2] + 1, 0.2)
        bounds = [(0, None)] * shown.shape[2] + [(None, None)]
        found = optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds).x
        network.slab_weight[kind] = torch.from_numpy(found[:-1]).float()
        network.slab_bias[kind] = float(found[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fold", required=True, help="the fold that is left out, or none")
    parser.add_argument("--iterations", type=int, default=2200)
    parser.add_argument("--start", type=Path, help="weights to go on from; of the same fold, or they know its patients")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    heads, phantoms, contract = pickle.loads(options.data.read_bytes())
    fold_of = folds(heads)
    kept = [head for head in heads if options.fold == "none" or fold_of[head.patient] != int(options.fold)]
    started = time.time()
    seed = options.seed + (9 if options.fold == "none" else int(options.fold))
    network, losses = train(
        Samples(kept, phantoms, contract, seed), options, seed, lambda line: print(line, flush=True)
    )
    options.out.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), options.out / f"fold-{options.fold}.pt")
    record = {
        "fold": options.fold,
        "patients": [head.patient for head in kept],
        "phantoms": len(phantoms),
        "iterations": options.iterations,
        "start": options.start and options.start.name,
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
