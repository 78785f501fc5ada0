"""ROC and reliability curves of the cross-validated figures, as SVG.

usage: curves.py FIGURES.json OUT_FOLDER
"""

import json
import sys
from pathlib import Path

ANY = "intracranial_hemorrhage"
SIDE, MARGIN = 300, 48
COLOURS = ("#1b5fa8", "#c2571a")


def place(x, y):
    return f"{MARGIN + x * SIDE:.1f},{MARGIN + (1 - y) * SIDE:.1f}"


def frame(title, x_title, y_title, inner):
    size = SIDE + 2 * MARGIN
    text = lambda x, y, words, more="": f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" {more}>{words}</text>'
    ticks = [
        text(MARGIN + part * SIDE, MARGIN + SIDE + 16, f"{part:g}") + text(MARGIN - 16, MARGIN + (1 - part) * SIDE + 4, f"{part:g}")
        for part in (0, 0.25, 0.5, 0.75, 1)
    ]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="11">',
        f"<title>{title}</title>",
        f'<rect width="{size}" height="{size}" fill="#fff"/>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#888"/>',
        f'<polyline points="{place(0, 0)} {place(1, 1)}" stroke="#bbb" stroke-dasharray="4"/>',
        *ticks,
        text(size / 2, 24, title, 'font-size="13"'),
        text(size / 2, size - 12, x_title),
        text(0, 0, y_title, f'transform="translate(14 {size / 2}) rotate(-90)"'),
        *inner,
        "</svg>\n",
    ])


def roc(figures):
    own = figures["by_patient"][ANY]["auc"], figures["by_slice_auc"][ANY]
    curves = figures["roc"]["by_patient"], figures["roc"]["by_slice"]
    inner = []
    for row, (what, auc, points, colour) in enumerate(zip(("patients", "slices"), own, curves, COLOURS)):
        inner.append(f'<polyline points="{" ".join(place(*point) for point in points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        words = f"by {what}: AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})"
        inner.append(f'<text x="{MARGIN + 60}" y="{MARGIN + SIDE - 30 + 16 * row}" fill="{colour}">{words}</text>')
    return frame("Any hemorrhage, cross-validated by patient", "1 − specificity", "sensitivity", inner)


def reliability(figures):
    own = figures["by_patient"][ANY]
    points = own["reliability"]
    inner = [f'<polyline points="{" ".join(place(one["mean"], one["share"]) for one in points)}" fill="none" stroke="{COLOURS[0]}"/>']
    for one in points:
        x, y = place(one["mean"], one["share"]).split(",")
        inner.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[0]}"><title>{one["count"]} patients</title></circle>')
    error = own["nested_expected_calibration_error"]
    inner.append(f'<text x="{MARGIN + 90}" y="{MARGIN + SIDE - 14}">expected calibration error {error:.3f}, {figures["patients"]} patients</text>')
    return frame("Any hemorrhage by patient, cross-validated", "probability", "share that bleeds", inner)


def main():
    figures, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, curve in (("roc", roc), ("reliability", reliability)):
        (folder / f"hemorrhage-{name}.svg").write_text(curve(figures))


if __name__ == "__main__":
    main()
