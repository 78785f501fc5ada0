"""Cross-validated figures: every patient is answered by the network that did not learn from it.

usage: figures.py DATA.pkl ANSWERS TEACHER_LABELS VOXEL_THRESHOLDS.json OUT.json [TEACHER.json]

TEACHER.json: what teacher.py says of patients without blood.

Intervals are 95 %, by bootstrap over patients. Calibration and threshold that go into the card are
fitted on all cross-validated answers; the figures that depend on them (sensitivity, specificity,
calibration error) are taken with those fitted on the other four folds.
"""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage, optimize, stats

from data import ANY, BLOOD, KINDS, UNKNOWN, folds

ROUNDS = 2000
NEIGHBOUR_WEIGHT, POOLED_SLABS = 0.5, 3
VOXEL_THRESHOLD = 0.5
# Smaller pieces are specks.
MINIMUM_ML = 0.3
# Share of patients without it that must not be called: any hemorrhage, a kind.
SPECIFICITY_WANTED = 0.9, 0.75
THRESHOLD_RULE = (
    f"The threshold leaves {SPECIFICITY_WANTED[0]:.0%} of the patients without blood uncalled; that of a kind {SPECIFICITY_WANTED[1]:.0%} "
    "of those who bleed otherwise, and a kind is called only where any hemorrhage is and where it is marked."
)
SMALL_ML = 5.0
VOXEL_ML = (230 / 256) ** 2 * 5 / 1000


def auc(truth, score):
    truth, score = np.asarray(truth, bool), np.asarray(score, float)
    if truth.all() or not truth.any():
        return np.nan
    ranks = stats.rankdata(score)
    positives = truth.sum()
    return (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (~truth).sum())


def interval(of, groups, rng):
    """`of(indices of groups)` over resampled groups: value, low, high."""
    draws = [of(rng.integers(groups, size=groups)) for _ in range(ROUNDS)]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return {"value": round(float(of(np.arange(groups))), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def share(hits):
    """Wilson's interval."""
    count, of = int(np.sum(hits)), len(hits)
    if not of:
        return None
    bounds = stats.binomtest(count, of).proportion_ci(method="wilson")
    return {"value": round(count / of, 4), "low": round(bounds.low, 4), "high": round(bounds.high, 4), "count": count, "of": of}


def pool(slice_prob, slabs=POOLED_SLABS):
    return np.sort(slice_prob, axis=0)[::-1][:slabs].mean(axis=0)


def among_neighbours(slice_prob, weight=NEIGHBOUR_WEIGHT):
    """Each slab's logit averaged with its neighbours', as `models::output` does."""
    z = logit(slice_prob.astype(np.float64))
    beside = np.concatenate([z[:1], z[:-1]]) + np.concatenate([z[1:], z[-1:]])
    return 1 / (1 + np.exp(-(z + weight * beside) / (1 + 2 * weight)))


def logit(p):
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def logistic_fit(x, truth):
    """Slope and offset by maximum likelihood; Platt's own smoothed targets, and a slope above 0."""
    positives = truth.sum()
    wanted = np.where(truth, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))

    def loss(parameters):
        z = np.exp(parameters[0]) * x + parameters[1]
        return np.mean(np.logaddexp(0, z) - wanted * z)

    found = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-7, "fatol": 1e-10})
    return float(np.exp(found.x[0])), float(found.x[1])


def platt(pooled, truth):
    return logistic_fit(logit(pooled), truth)


def calibrated(pooled, parameters):
    return 1 / (1 + np.exp(-(parameters[0] * logit(pooled) + parameters[1])))


def threshold_for(probability, truth, bleeds, kind):
    """Just above the share of patients without it that must not be called (of a kind: of those who bleed otherwise);
    half-way (in logits) to the next answer."""
    others = ~truth if kind == ANY else bleeds & ~truth
    bound = np.quantile(probability[others], SPECIFICITY_WANTED[kind != ANY], method="lower")
    above = probability[probability > bound]
    between = (logit(bound) + logit(above.min())) / 2 if len(above) else logit(bound) + 0.05
    return float(1 / (1 + np.exp(-between)))


def calibration_error(probability, truth, bins=8):
    """Expected calibration error over bins of equal count, and the curve."""
    order = np.argsort(probability)
    curve = [
        {"mean": round(float(probability[part].mean()), 4), "share": round(float(truth[part].mean()), 4), "count": len(part)}
        for part in np.array_split(order, bins)
    ]
    error = sum(point["count"] * abs(point["mean"] - point["share"]) for point in curve) / len(probability)
    return round(float(error), 4), curve


def dice(found, true):
    return 2 * (found & true).sum() / max(found.sum() + true.sum(), 1)


def roc(truth, score):
    """Points (1 - specificity, sensitivity) at every answer, thinned to at most 200."""
    order = np.argsort(-np.asarray(score))
    hits, alarms = np.cumsum(truth[order]) / truth.sum(), np.cumsum(~truth[order]) / (~truth).sum()
    rows = np.unique(np.linspace(0, len(hits) - 1, 200).astype(int))
    return [[0.0, 0.0]] + [[round(float(alarms[row]), 4), round(float(hits[row]), 4)] for row in rows]


def by_patient_auc(truths, scores, rng):
    return interval(
        lambda rows: auc(np.concatenate([truths[row] for row in rows]), np.concatenate([scores[row] for row in rows])),
        len(truths),
        rng,
    )


def slice_figures(heads, answers, rng):
    figures = {}
    for kind, name in enumerate(KINDS):
        truths = [head.labels[:, kind] == 1 for head in heads]
        figures[name] = by_patient_auc(truths, [answer["slice_prob"][:, kind] for answer in answers], rng)
        figures[name]["slices"] = int(sum(map(len, truths)))
        figures[name]["positive_slices"] = int(sum(truth.sum() for truth in truths))
        figures[name]["positive_patients"] = int(sum(truth.any() for truth in truths))
    return figures


def slab_auc(heads, slice_prob):
    truth = np.concatenate([head.labels[:, ANY] == 1 for head in heads])
    return round(float(auc(truth, np.concatenate(slice_prob)[:, ANY])), 4)


def marks_of(probability, threshold):
    """Voxels from a threshold on, as `models::output` marks them: pieces that hang together, without specks."""
    pieces, count = ndimage.label(probability >= threshold, np.ones((3, 3, 3)))
    kept = np.bincount(pieces.ravel(), minlength=count + 1) * VOXEL_ML >= MINIMUM_ML
    kept[0] = False
    return kept[pieces]


def patient_figures(kind, heads, answers, fold, rng, any_calls=None, voxel_threshold=None):
    """`any_calls`: nested and final calls of any hemorrhage; a kind is called only where that is, and where it is marked
    (voxels from `voxel_threshold` on)."""
    truth = np.array([(head.labels[:, kind] == 1).any() for head in heads])
    bleeds = np.array([head.bleeds for head in heads])
    pooled = np.array([pool(answer["slice_prob"])[kind] for answer in answers])
    nested, calls = np.zeros(len(heads)), np.zeros(len(heads), bool)
    for out in np.unique(fold):
        others = fold != out
        parameters = platt(pooled[others], truth[others])
        nested[~others] = calibrated(pooled[~others], parameters)
        calls[~others] = nested[~others] >= threshold_for(
            calibrated(pooled[others], parameters), truth[others], bleeds[others], kind
        )
    marked = np.array([kind == ANY or marks_of(answer["voxel_prob"][:, kind] / 255.0, voxel_threshold).any() for answer in answers])
    calls &= (any_calls[0] & marked) if any_calls else True
    slope, offset = platt(pooled, truth)
    final = calibrated(pooled, (slope, offset))
    threshold = threshold_for(final, truth, bleeds, kind)
    final_calls = (final >= threshold) & ((any_calls[1] & marked) if any_calls else True)
    error, curve = calibration_error(nested, truth)
    figures = {
        "positive_patients": int(truth.sum()),
        "auc": interval(lambda rows: auc(truth[rows], pooled[rows]), len(heads), rng),
        "nested_sensitivity": share(calls[truth]),
        "nested_specificity": share(~calls[~truth]),
        "nested_expected_calibration_error": error,
        "reliability": curve,
        "card": {"slope": round(slope, 4), "offset": round(offset, 4), "threshold": round(threshold, 4)},
        "sensitivity_at_card": share(final_calls[truth]),
        "specificity_at_card": share(~final_calls[~truth]),
        "sensitivity_by_specificity": operating_points(truth, pooled),
        "patients": {
            str(head.patient): {"truth": bool(true), "pooled": round(float(raw), 4), "nested": round(float(own), 4)}
            for head, true, raw, own in zip(heads, truth, pooled, nested)
        },
    }
    return figures, (calls, final_calls)


def operating_points(truth, pooled):
    cut = {wanted: np.quantile(pooled[~truth], wanted, method="higher") for wanted in (0.8, 0.85, 0.9, 0.95)}
    return {str(wanted): round(float((pooled[truth] > bound).mean()), 4) for wanted, bound in cut.items()}


def best_volume_ml(head):
    """What was drawn or estimated, without what nobody knows."""
    areas = [((target[ANY] >= BLOOD // 2) & (target[ANY] != UNKNOWN)).sum() for target in head.targets.values()]
    return float(sum(areas) * VOXEL_ML)


def mask_figures(heads, answers):
    pairs = [
        (head.patient, answer["voxel_prob"][slab, ANY] / 255.0, mask)
        for head, answer in zip(heads, answers)
        for slab, mask in head.masked.items()
        if mask.any()
    ]
    figures = {"slices": len(pairs)}
    for bound in (0.3, 0.4, VOXEL_THRESHOLD, 0.6):
        each = [dice(probability >= bound, mask) for _, probability, mask in pairs]
        found = np.concatenate([(probability >= bound).ravel() for _, probability, _ in pairs])
        true = np.concatenate([mask.ravel() for _, _, mask in pairs])
        figures[f"at_{bound}"] = {
            "dice_mean_of_slices": round(float(np.mean(each)), 4),
            "dice_of_all_voxels": round(float(dice(found, true)), 4),
        }
    each = [dice(probability >= VOXEL_THRESHOLD, mask) for _, probability, mask in pairs]
    figures["by_patient"] = {
        str(patient): round(float(np.mean([one for one, (own, _, _) in zip(each, pairs) if own == patient])), 4)
        for patient in sorted({own for own, _, _ in pairs})
    }
    return figures


def teacher_areas(heads, folder, more):
    """Area of blood (IPH, extra-axial, IVH) that the teacher's first network marks in each slice, mm²: of patients who
    bleed as `folder` has it, of others as teacher.py wrote it to `more`."""
    areas, others = {}, json.loads(more.read_text()) if more else {}
    for head in heads:
        path, own = folder / f"{head.patient:03d}.npz", others.get(f"{head.patient:03d}")
        if path.exists():
            archive = np.load(path)
            pixel_mm2 = (2 * float(archive["pixel_mm_650"])) ** 2
            area = (archive["prob"][[0, 1, 3]].max(axis=0) > 127).sum(axis=(1, 2)) * pixel_mm2
        elif own:
            area = np.array(own["areas_mm2"])[[0, 1, 3]].sum(axis=0).astype(float)
        else:
            continue
        if len(area) == len(head.hu):
            areas[head.patient] = area
        else:
            print(f"teacher: patient {head.patient} has {len(area)} slices, {len(head.hu)} slabs: left out")
    return areas


def teacher_figures(heads, answers, folder, more, rng):
    """The teacher's first network and ours on the same slices and patients."""
    areas = teacher_areas(heads, folder, more)
    seen = [(head, answer["slice_prob"]) for head, answer in zip(heads, answers) if head.patient in areas]

    def compared(pairs):
        truths = [head.labels[:, ANY] == 1 for head, _ in pairs]
        return {
            "patients": len(pairs),
            "teacher_area": by_patient_auc(truths, [areas[head.patient] for head, _ in pairs], rng),
            "ours": by_patient_auc(truths, [slices[:, ANY] for _, slices in pairs], rng),
        }

    figures = {"slice_auc_of_bleeding": compared([pair for pair in seen if pair[0].bleeds])}
    quiet = sum(not head.bleeds for head, _ in seen)
    if not quiet:
        return figures
    bleeds = np.array([head.bleeds for head, _ in seen])
    scores = {
        "teacher_largest_area": np.array([areas[head.patient].max() for head, _ in seen]),
        "teacher_whole_area": np.array([areas[head.patient].sum() for head, _ in seen]),
        "ours": np.array([pool(slices)[ANY] for _, slices in seen]),
    }
    by_patient = {name: interval(lambda rows: auc(bleeds[rows], score[rows]), len(seen), rng) for name, score in scores.items()}
    largest = {str(head.patient): round(float(areas[head.patient].max()), 1) for head, _ in seen}
    return {**figures, "slice_auc": compared(seen), "quiet_patients": quiet, "patient_auc": by_patient, "largest_area_mm2": largest}


def small_bleeds(heads, threshold_calls):
    volumes = {head.patient: best_volume_ml(head) for head in heads if head.bleeds}
    small = [patient for patient, volume in volumes.items() if volume < SMALL_ML]
    return {"volumes_ml": {str(patient): round(volume, 1) for patient, volume in volumes.items()}, "patients": small,
            "nested_sensitivity": share(np.array([threshold_calls[patient] for patient in small]))}


def main():
    data, folder, teacher, thresholds, out, *more = map(Path, sys.argv[1:7])
    thresholds = json.loads(thresholds.read_text())
    heads, *_ = pickle.loads(data.read_bytes())
    fold_of = folds(heads)
    heads = [head for head in heads if (folder / f"{head.patient:03d}.npz").exists()]
    answers = [dict(np.load(folder / f"{head.patient:03d}.npz")) for head in heads]
    alone = [answer["slice_prob"] for answer in answers]
    answers = [{**answer, "slice_prob": among_neighbours(answer["slice_prob"])} for answer in answers]
    fold = np.array([fold_of[head.patient] for head in heads])
    rng = np.random.default_rng(1)
    any_figures, any_calls = patient_figures(ANY, heads, answers, fold, rng)
    patient = {KINDS[ANY]: any_figures}
    for kind, name in enumerate(KINDS[1:], 1):
        patient[name], _ = patient_figures(kind, heads, answers, fold, rng, any_calls, thresholds[name])
    calls = {head.patient: bool(call) for head, call in zip(heads, any_calls[0])}
    bleeds = np.array([head.bleeds for head in heads])
    figures = {
        "roc": {
            "by_patient": roc(bleeds, np.array([pool(answer["slice_prob"])[ANY] for answer in answers])),
            "by_slice": roc(
                np.concatenate([head.labels[:, ANY] == 1 for head in heads]),
                np.concatenate([answer["slice_prob"][:, ANY] for answer in answers]),
            ),
        },
        "patients": len(heads),
        "pooled_slabs": POOLED_SLABS,
        "neighbour_weight": NEIGHBOUR_WEIGHT,
        "by_slice_auc_without_neighbours": slab_auc(heads, alone),
        "threshold_rule": THRESHOLD_RULE,
        "by_slice_auc": slice_figures(heads, answers, rng),
        "by_patient": patient,
        "small_bleeds": small_bleeds(heads, calls),
        "masks": mask_figures(heads, answers),
        "teacher": teacher_figures(heads, answers, teacher, more[0] if more else None, rng),
        "auc_by_pooled_slabs": {
            str(count): round(float(auc(bleeds, [pool(a["slice_prob"], count)[ANY] for a in answers])), 4)
            for count in (1, 2, 3, 4, 5)
        },
    }
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(summary(figures))


def summary(figures):
    text = lambda one: f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" if one else "-"
    lines = [f"{figures['patients']} patients"]
    for name in KINDS:
        by_slice, by_patient = figures["by_slice_auc"][name], figures["by_patient"][name]
        lines.append(
            f"{name:28} slices {text(by_slice)} ({by_slice['positive_slices']}), patients {text(by_patient['auc'])} "
            f"({by_patient['positive_patients']}), sens {text(by_patient['nested_sensitivity'])} "
            f"spec {text(by_patient['nested_specificity'])} ECE {by_patient['nested_expected_calibration_error']}"
        )
    lines.append(f"any: sensitivity by specificity {figures['by_patient'][KINDS[ANY]]['sensitivity_by_specificity']}")
    lines.append(f"pooling {figures['auc_by_pooled_slabs']}")
    lines.append(f"small bleeds: {text(figures['small_bleeds']['nested_sensitivity'])} of {len(figures['small_bleeds']['patients'])}")
    lines.append(f"masks {figures['masks']}")
    lines.append(f"teacher {figures['teacher']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
