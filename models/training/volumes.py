"""How true volumes come out, on phantoms that took no part in training.

usage: volumes.py SLABS PAIRS.csv NETWORK.pt FIGURES.json VOXEL_THRESHOLDS.json OUT.json

For each finding: how many volumes lie within 10 % or 1 mL of the truth, and the factor by which 95 % of
those that Tez would call lie within it.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np

from data import ANY, KINDS, PHANTOM_KINDS, read_slabs
from figures import MINIMUM_ML, among_neighbours, calibrated, marked_ml, pool
from predict import answer, load

INTERVAL = 0.95


def called(volume_ml, slices, channel, cards):
    """Whether the study would be called, as `models::tasks` decides."""
    pooled = pool(among_neighbours(slices))
    calls = [
        bool(calibrated(pooled[kind], (card["slope"], card["offset"])) >= card["threshold"])
        for kind, card in ((kind, cards[KINDS[kind]]["card"]) for kind in (ANY, channel))
    ]
    return all(calls) and (channel == ANY or volume_ml > 0)


def main():
    slabs, pairs, model, cards, thresholds, out = map(Path, sys.argv[1:7])
    cards, thresholds = json.loads(cards.read_text())["by_patient"], json.loads(thresholds.read_text())
    network, measured = load(model), []
    for row in csv.DictReader(pairs.open()):
        kind, true_ml = PHANTOM_KINDS[row["kind"]], float(row["volume_ml"])
        answers = []
        for uid in (row["with_uid"], row["without_uid"]):
            hu, sidecar = read_slabs(slabs, uid)
            answers.append(answer(network, hu, sidecar["contract"]))
        for channel in (ANY, kind):
            found = [marked_ml(voxels[:, channel], thresholds[KINDS[channel]]) for voxels, _, _ in answers]
            calls = [called(own, slices, channel, cards) for own, (_, _, slices) in zip(found, answers)]
            measured.append((channel, kind, true_ml, found[0], *calls))
    figures = {}
    for channel, name in enumerate(KINDS):
        own = [one for one in measured if one[0] == channel and 2 <= one[2] <= 100]
        truth, found = np.array([one[2] for one in own]), np.array([one[3] for one in own])
        right = np.abs(found - truth) <= np.maximum(1.0, 0.1 * truth)
        seen = np.array([one[4] for one in own]) & (found > 0)
        ratio = found[seen] / truth[seen]
        factor = float(np.quantile(np.maximum(ratio, 1 / ratio), INTERVAL, method="higher")) if seen.any() else None
        figures[name] = {
            "volume_factor": factor and round(factor, 2),
            "voxel_threshold": thresholds[name],
            "minimum_volume_ml": MINIMUM_ML,
            "phantoms": len(own),
            "called": int(seen.sum()),
            "called_without": [sum(one[5] for one in measured if one[0] == channel), sum(one[0] == channel for one in measured)],
            "within_10_percent_or_1_ml": round(float(right.mean()), 3),
            "median_found_over_true": round(float(np.median(found / truth)), 3),
            "volumes": [
                {"kind": KINDS[one[1]], "true_ml": one[2], "found_ml": round(one[3], 2), "called": one[4], "called_without": one[5]}
                for one in measured if one[0] == channel
            ],
        }
        print(name, {key: value for key, value in figures[name].items() if key != "volumes"})
    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
