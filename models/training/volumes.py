"""Chooses the voxel thresholds on phantoms that took no part in training, and says how true volumes come out.

usage: volumes.py SLABS PAIRS.csv NETWORK.pt FIGURES.json OUT.json

For each finding: the threshold, of a few, at which the most volumes lie within 10 % or 1 mL of the truth, and
the factor by which 95 % of those that Tez would call lie within the truth.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from data import ANY, EDH, IPH, IVH, KINDS, SAH, SDH, read_slabs
from figures import among_neighbours, calibrated, pool
from predict import answer, load

THRESHOLDS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
MINIMUM_ML = 0.3
INTERVAL = 0.95
OF_NAME = {"Intraparenchymal": IPH, "Intraventricular": IVH, "Subarachnoid": SAH, "Subdural": SDH, "Epidural": EDH}


def marked_ml(probability, threshold, voxel_ml):
    """As `models::tasks` counts: marks that hang together, without specks."""
    pieces, count = ndimage.label(probability >= threshold, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:] * voxel_ml
    return float(sizes[sizes >= MINIMUM_ML].sum())


def called(slices, channel, cards):
    """Whether the study would be called, as `models::tasks` decides."""
    pooled = pool(among_neighbours(slices))
    calls = [
        bool(calibrated(pooled[kind], (card["slope"], card["offset"])) >= card["threshold"])
        for kind, card in ((kind, cards[KINDS[kind]]["card"]) for kind in (ANY, channel))
    ]
    return all(calls)


def main():
    slabs, pairs, model, cards, out = map(Path, sys.argv[1:6])
    cards = json.loads(cards.read_text())["by_patient"]
    network, measured = load(model), []
    for row in csv.DictReader(pairs.open()):
        hu, sidecar = read_slabs(slabs, row["with_uid"])
        voxels, _, slices = answer(network, hu, sidecar["contract"])
        voxel_ml = float(np.prod(sidecar["spacing_mm"]) / 1000)
        kind, true_ml = OF_NAME[row["kind"]], float(row["volume_ml"])
        bare, bare_sidecar = read_slabs(slabs, row["without_uid"])
        _, _, quiet = answer(network, bare, bare_sidecar["contract"])
        for channel in (ANY, kind):
            found = [marked_ml(voxels[:, channel], bound, voxel_ml) for bound in THRESHOLDS]
            measured.append((channel, kind, true_ml, found, *(called(one, channel, cards) for one in (slices, quiet))))
    figures = {}
    for channel, name in enumerate(KINDS):
        own = [one for one in measured if one[0] == channel and 2 <= one[2] <= 100]
        truth, found = np.array([one[2] for one in own]), np.array([one[3] for one in own])
        right = np.abs(found - truth[:, None]) <= np.maximum(1.0, 0.1 * truth[:, None])
        # Where several do equally well, the one whose mean relative error is least.
        error = np.abs(found / truth[:, None] - 1).mean(axis=0)
        best = int(np.argmax(right.mean(axis=0) - 0.2 * error))
        seen = np.array([one[4] for one in own]) & (found[:, best] > 0)
        ratio = found[seen, best] / truth[seen]
        factor = float(np.quantile(np.maximum(ratio, 1 / ratio), INTERVAL, method="higher")) if seen.any() else None
        figures[name] = {
            "volume_factor": factor and round(factor, 2),
            "voxel_threshold": THRESHOLDS[best],
            "minimum_volume_ml": MINIMUM_ML,
            "phantoms": len(own),
            "called": int(seen.sum()),
            "called_without": [sum(one[5] for one in measured if one[0] == channel), sum(one[0] == channel for one in measured)],
            "within_10_percent_or_1_ml": round(float(right[:, best].mean()), 3),
            "median_found_over_true": round(float(np.median(found[:, best] / truth)), 3),
            "volumes": [
                {"kind": KINDS[one[1]], "true_ml": one[2], "found_ml": round(one[3][best], 2),
                 "called": one[4], "called_without": one[5]}
                for one in measured if one[0] == channel
            ],
        }
        print(name, {key: value for key, value in figures[name].items() if key != "volumes"})
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
