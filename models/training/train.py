"""Trains one network: on four folds of patients, or on all of them.

usage: train.py DATA.pkl SYNTHETIC OUT --fold shared|0..4|none [--start NETWORK.pt] [--part P] [--first-stage N] [--seed N]

DATA.pkl is what prepare_data.py wrote, SYNTHETIC what prepare_synthetic.py did. OUT/fold-F.pt gets the weights (their running mean),
OUT/fold-F.json what was done. `shared` learns from what every fold may know: phantoms, slices of other scanners and blood put into those;
--start goes on from there. --first-stage N goes on from OUT/fold-F.pt, as the stage before left it; --part shortens the stages. Heads kept apart (prepare_data.py) are for the final network (`none`) alone. Runs on a GPU where there is one.
"""

import argparse
import json
import pickle
import threading
import time
from pathlib import Path
from queue import Queue

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

import augment
from data import ANY, BLOOD, UNKNOWN, folds
from network import CELL_PX, ON_CPU, Network, part_of, suspicion
from samples import FAR, HALF_MM, WITHIN, Samples

# The stages of training, by where it runs: two cores, where what ships was made, have time for an eighth of what a GPU does (decisions 12 and 14),
# so what holds for every fold they learn once (`shared`).
# batch: slabs without blood (so many of them with something like it), with it, heads into which blood was put, phantoms.
# kind_shares: of slabs with blood, which kind (IPH, IVH, SAH, SDH, EDH). start_kept: share of the weights at the stage's
# start in those at its end. crop_cells: side of what is shown of a slab, in cells; None: all of it. blood_loss: weight of the
# voxels' loss, a mean over all of them; of a crop more of them are blood. kind_loss: that of which kind it is.
THIN_BLOOD_OFTEN = [0.24, 0.11, 0.17, 0.25, 0.23]
CROPS, WHOLE = {"crop_cells": 32, "blood_loss": 6.0}, {"crop_cells": None, "blood_loss": 16.0}
ON_GPU = {**WHOLE, "mean_decay": 0.999, "lookalikes": 4, "kind_loss": 0.4}
ON_TWO_CORES = {
    "start_kept": 0.0, "mean_decay": 0.998, "lookalikes": 2, "kind_loss": 0.8, "kind_shares": THIN_BLOOD_OFTEN,
    "hardened_share": 0.5, "rims": [[60, [0.7, 2]], [40, [2, 5]], [12, [6, 15]]], "skew": 2,
}
# What holds for every scanner is learnt with rims along the skull; strong ones to the end hide thin blood there.
WEAKER_RIMS = {"hardened_share": 0.4, "rims": [[60, [0.7, 2]], [20, [2, 5]], [6, [6, 15]]]}
STAGES = {
    # Strong rims along the skull first, so that no scanner's is taken for blood; then weaker ones.
    "cuda": {"shared": [], "own": [
        {
            **ON_GPU, "iterations": 4700, "rate": 2e-3, "start_kept": 0.0,
            "batch": {"quiet": 10, "bleeding": 9, "synthetic": 8, "phantom": 5}, "kind_shares": [0.26, 0.12, 0.14, 0.22, 0.26],
            "hardened_share": 0.5, "rims": [[60, [0.7, 2]], [45, [2, 5]], [12, [6, 15]]], "skew": 1,
        },
        {
            **ON_GPU, "iterations": 2200, "rate": 1e-3, "start_kept": 0.5,
            "batch": {"quiet": 10, "bleeding": 9, "synthetic": 7, "phantom": 6}, "kind_shares": THIN_BLOOD_OFTEN,
            "hardened_share": 0.4, "rims": [[50, [0.7, 2]], [28, [2, 5]], [10, [6, 15]]], "skew": 2,
        },
    ]},
    # Crops around blood first, which show most in the least time; then whole slabs, whose most suspicious place is what is asked.
    "cpu": {
        "shared": [
            {
                **ON_TWO_CORES, **CROPS, "iterations": 3500, "rate": 2e-3,
                "batch": {"quiet": 3, "synthetic": 4, "phantom": 9},
            },
            {
                **ON_TWO_CORES, **WHOLE, "iterations": 500, "rate": 1e-3,
                "batch": {"quiet": 3, "synthetic": 4, "phantom": 9},
            },
        ],
        "own": [
            {
                **ON_TWO_CORES, **WEAKER_RIMS, **CROPS, "iterations": 1200, "rate": 1.5e-3,
                "batch": {"quiet": 5, "bleeding": 4, "synthetic": 5, "phantom": 2},
            },
            {
                **ON_TWO_CORES, **WEAKER_RIMS, **WHOLE, "iterations": 1500, "rate": 1e-3,
                "batch": {"quiet": 6, "bleeding": 4, "synthetic": 4, "phantom": 2},
            },
            # What is below the brain and at the vertex of heads unlike theirs had come to be taken for blood.
            {
                **ON_TWO_CORES, **WEAKER_RIMS, **WHOLE, "iterations": 350, "rate": 7e-4, "start_kept": 0.5,
                "batch": {"quiet": 6, "bleeding": 4, "synthetic": 2, "phantom": 4},
            },
        ],
    },
}
CONFIG = {
    "weight_decay": 0.05,
    "warm_up": 0.1,
    "loss_weights": {"dice": 1.0, "boxed": 0.15, "slab": 0.4},
    "blood_weight": 2.0,
    "shifted_share": 0.2,
    "thickened_share": 0.4,
    "moved": {"turn_deg": 8.0, "scale": 0.07, "stretch": 0.04, "shift_px": 6.0, "bend_px": 3.0},
    "offset_hu": 3.0,
    "kept_every": 500,
}
PARTS = "blood", "kind", *CONFIG["loss_weights"]
# Pixels of a box that are taken to be blood.
BOXED_PX = 12
# A crop: how many of a bleeding slab's are around its blood, how far from its middle at most, and how much of the slab's
# blood (or of the box where it is) must show to say that the crop bleeds.
AROUND_BLOOD, ASIDE_CELLS, SHOWN = 0.9, 9, 0.5
AHEAD = 4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUMBERS = {"cuda": torch.bfloat16, "cpu": ON_CPU}


def learnable(drawn, contract, device, stage):
    """What `Samples.batch` drew → what `Network.voxels` takes, targets [n, 3, side, side], labels; augmented."""
    hu, around, target, labels, mixable = (torch.from_numpy(one).to(device, non_blocking=True) for one in drawn)
    hu, count = hu.float(), stage["lookalikes"]
    within = (around[:count, 1:2] >= WITHIN).float()
    hu = torch.cat([augment.with_lookalikes(hu[:count], within), hu[count:]])
    bone_mm = (around & FAR).float() / HALF_MM
    hu = augment.hardened(hu, bone_mm, stage["hardened_share"], stage["rims"], stage["skew"])
    hu = augment.restacked(hu, mixable, CONFIG["shifted_share"], CONFIG["thickened_share"])
    hu, target = augment.moved(hu, target.float(), CONFIG["moved"])
    slabs = augment.windowed(augment.scanned(hu, CONFIG["offset_hu"]), contract)
    slabs = slabs.to(memory_format=torch.channels_last)
    if stage["crop_cells"] is None:
        return (slabs,), target, labels
    return crops_of(slabs, hu, target, labels, stage["crop_cells"])


def crops_of(slabs, hu, target, labels, cells):
    """The same of a crop of each slab; what of its blood does not show is not asked for."""
    blood = bleeding(target)
    corners = corners_of(hu, blood, cells)
    cropped = part_of(target, corners * CELL_PX, cells * CELL_PX)
    shown = bleeding(cropped).sum((1, 2)) >= SHOWN * blood.sum((1, 2))
    labels = torch.where((labels == 1) & ~shown[:, None], -1, labels)
    cropped[:, 2] *= shown[:, None, None]
    return (slabs, corners, cells), cropped, labels


def bleeding(target):
    """Where blood is, or is somewhere: [n, rows, columns]."""
    share, _, boxed = target.unbind(1)
    return ((share >= BLOOD / 2) & (share != UNKNOWN)) | (boxed > 0)


def corners_of(hu, blood, cells):
    """Where each slab's crop begins, in cells: [n, 2]; around blood, or around any soft tissue."""
    tissue = ((hu[:, 1] > 5) & (hu[:, 1] < 90)).float()
    blood = blood.float() * (torch.rand(len(hu), 1, 1, device=hu.device) < AROUND_BLOOD)
    places = torch.where(blood.sum((1, 2), keepdim=True) > 0, blood, tissue + 1e-6)
    places = functional.max_pool2d(places[:, None], CELL_PX)[:, 0]
    most = places.shape[-1] - cells
    place = torch.multinomial(places.flatten(1), 1)
    middle = torch.cat([place // places.shape[-1], place % places.shape[-1]], 1)
    aside = torch.randint(-ASIDE_CELLS, ASIDE_CELLS + 1, middle.shape, device=hu.device)
    return (middle + aside - cells // 2).clamp(0, most)


def loss_of(voxels, target, labels, stage):
    voxels = voxels.float()
    share, kind, boxed = target.unbind(1)
    known = (share != UNKNOWN).float()
    share = (share / BLOOD).clamp(max=1.0) * known
    weight = known * (1 + (CONFIG["blood_weight"] - 1) * share)
    each = functional.binary_cross_entropy_with_logits(voxels[:, ANY], share, reduction="none")
    blood_loss = (each * weight).sum() / known.sum()
    probability = torch.sigmoid(voxels[:, ANY]) * known
    dice_loss = 1 - (2 * (probability * share).sum() + 1) / (probability.sum() + share.sum() + 1)
    parts = (
        blood_loss,
        kind_loss_of(voxels[:, 1:], kind.long()),
        dice_loss,
        boxed_loss_of(voxels[:, ANY], boxed > 0),
        slab_loss_of(suspicion(voxels), labels),
    )
    weights = {"blood": stage["blood_loss"], "kind": stage["kind_loss"], **CONFIG["loss_weights"]}
    return sum(weights[name] * part for name, part in zip(PARTS, parts)), parts


def kind_loss_of(kinds, kind):
    """Which kind it is, where blood is sure to be (0: not so); a rarer kind's voxel counts for more."""
    sure = kind > 0
    own, kinds = kind[sure] - 1, kinds.movedim(1, -1)[sure]
    weight = torch.bincount(own, minlength=kinds.shape[1]).clamp(min=1).float()[own] ** -0.5
    return (functional.cross_entropy(kinds, own, reduction="none") * weight).sum() / weight.sum().clamp(min=1e-6)


def boxed_loss_of(blood, boxed):
    """Somewhere in a box there is blood, also where density alone does not show it."""
    some = (boxed.flatten(1).sum(1) >= BOXED_PX).float()
    highest = blood.masked_fill(~boxed, -1e4).flatten(1).topk(BOXED_PX, dim=1).values
    return (functional.softplus(-highest).mean(1) * some).sum() / some.sum().clamp(min=1)


def slab_loss_of(suspicions, labels):
    """What is asked of a slab: its most suspicious place, of each kind."""
    known = (labels >= 0).float()
    each = functional.binary_cross_entropy_with_logits(suspicions, (labels == 1).float(), reduction="none")
    return (each * known).sum() / known.sum()


class RunningMean:
    """The exponential mean of weights and of batch statistics."""

    def __init__(self, network, decay):
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.steps = 0

    def update(self, network):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        now = {name: value for name, value in network.state_dict().items() if value.dtype.is_floating_point}
        torch._foreach_lerp_([self.values[name] for name in now], list(now.values()), 1 - decay)

    def on_cpu(self):
        return {name: value.cpu() for name, value in self.values.items()}


def drawn_ahead(samples, stage):
    """A stage's batches, drawn by a thread while the network learns from the one before."""
    queue = Queue(AHEAD)

    def draw():
        for _ in range(stage["iterations"]):
            queue.put(samples.batch(stage["batch"], stage["kind_shares"]))

    threading.Thread(target=draw, daemon=True).start()
    return (queue.get() for _ in range(stage["iterations"]))


def train(network, samples, contract, stage, device, say, keep):
    """Weights after one stage, and the loss every 50 iterations."""
    iterations, rate = stage["iterations"], stage["rate"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=CONFIG["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=iterations, pct_start=CONFIG["warm_up"]
    )
    start = {name: value.detach().clone() for name, value in network.state_dict().items()}
    mean, started, recent, losses = RunningMean(network, stage["mean_decay"]), time.time(), [], []
    for iteration, drawn in enumerate(drawn_ahead(samples, stage)):
        seen, target, labels = learnable(drawn, contract, device, stage)
        with torch.autocast(device, dtype=NUMBERS[device], enabled=NUMBERS[device] != torch.float32):
            voxels = network.voxels(*seen)
        loss, parts = loss_of(voxels, target, labels, stage)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimizer.step()
        schedule.step()
        mean.update(network)
        recent.append(torch.stack([loss.detach(), *(part.detach() for part in parts)]))
        if iteration % 50 == 49:
            total, *each = torch.stack(recent).mean(0).tolist()
            losses.append(round(total, 4))
            recent = []
            each = ", ".join(f"{name} {part:.3f}" for name, part in zip(PARTS, each))
            left_minutes = (time.time() - started) / (iteration + 1) * (iterations - iteration - 1) / 60
            say(f"{iteration + 1}/{iterations} loss {total:.3f}: {each} {left_minutes:.1f} min left")
        if iteration % CONFIG["kept_every"] == CONFIG["kept_every"] - 1:
            keep(mean.on_cpu())
    for name, value in mean.values.items():
        if value.dtype.is_floating_point:
            value.lerp_(start[name], stage["start_kept"])
    return mean.on_cpu(), losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fold", required=True, help="the fold that is left out, or none; shared: all of them")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--part", type=float, default=1.0)
    parser.add_argument("--first-stage", type=int, default=0)
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default=DEVICE)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    heads, phantoms, others, apart, contract = pickle.loads(options.data.read_bytes())
    apart = apart if options.fold == "none" else []
    fold_of = folds(heads)
    kept = [head for head in heads if options.fold not in ("shared", str(fold_of[head.patient]))]
    started = time.time()
    seed = options.seed + int({"none": 9, "shared": 8}.get(options.fold, options.fold)) + 100 * options.first_stage
    options.out.mkdir(parents=True, exist_ok=True)

    def keep(values):
        torch.save(values, options.out / f"fold-{options.fold}.part.pt")

    made = [np.load(options.synthetic / f"{name}.npy", mmap_mode="r") for name in ("hu", "around", "target", "table")]
    samples = Samples((kept, phantoms, others, apart), made, seed)
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    network = Network(windows=len(contract["windows"]), neighbours=contract["neighbours"])
    start = options.out / f"fold-{options.fold}.pt" if options.first_stage else options.start
    if start:
        network.load_state_dict(torch.load(start))
    network = network.to(options.device, memory_format=torch.channels_last).train()
    losses = []
    stages = STAGES[options.device]["shared" if options.fold == "shared" else "own"]
    for stage in stages[options.first_stage :]:
        stage = {**stage, "iterations": round(options.part * stage["iterations"])}
        weights, of_stage = train(network, samples, contract, stage, options.device, lambda line: print(line, flush=True), keep)
        network.load_state_dict(weights)
        losses.append(of_stage)
    torch.save(weights, options.out / f"fold-{options.fold}.pt")
    (options.out / f"fold-{options.fold}.part.pt").unlink(missing_ok=True)
    record = {
        "fold": options.fold,
        "patients": [head.patient for head in kept],
        "phantoms": len(phantoms),
        "others": len(others),
        "apart": len(apart),
        "synthetic_slabs": int(sum(map(len, samples.made_by_kind.values()))),
        "part": options.part,
        "first_stage": options.first_stage,
        "seed": seed,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads",
        "minutes": round((time.time() - started) / 60, 1),
        "torch": torch.__version__,
        "config": {**CONFIG, "stages": stages},
        "loss_every_50": losses,
    }
    (options.out / f"fold-{options.fold}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
