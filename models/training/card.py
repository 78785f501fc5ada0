"""Writes the model card beside the ONNX file.

usage: card.py FIGURES.json VOXELS.json SIDECAR.json MODEL.onnx CARD.toml

Thresholds and calibration come from cross-validated answers (figures.py), voxel thresholds from
phantoms that took no part in training (volumes.py), the contract from what `tez slabs` wrote.
"""

import hashlib
import json
import sys
from pathlib import Path

from data import KINDS

SHORT = {
    "intracranial_hemorrhage": "any haemorrhage",
    "intraparenchymal_hemorrhage": "intraparenchymal",
    "intraventricular_hemorrhage": "intraventricular",
    "subarachnoid_hemorrhage": "subarachnoid",
    "subdural_hemorrhage": "subdural",
    "epidural_hemorrhage": "epidural",
}
VERSION = "1"


def estimate(one):
    return f"{one['value']:.2f} ({one['low']:.2f}-{one['high']:.2f})"


def limits(figures):
    any_patient = figures["by_patient"]["intracranial_hemorrhage"]
    slices, small = figures["by_slice_auc"], figures["small_bleeds"]
    rare = ", ".join(
        f"{SHORT[kind]} {slices[kind]['positive_patients']}" for kind in KINDS[1:] if slices[kind]["positive_patients"] < 6
    )
    kinds = "; ".join(f"{SHORT[kind]} {estimate(slices[kind])}" for kind in KINDS[1:])
    return [
        f"Learnt from {figures['patients']} patients of one hospital after trauma, {any_patient['positive_patients']} with blood; "
        "not validated anywhere else. All figures are cross-validated by patient, with 95 % intervals.",
        f"By patient: AUC {estimate(any_patient['auc'])}, sensitivity {estimate(any_patient['nested_sensitivity'])}, "
        f"specificity {estimate(any_patient['nested_specificity'])}, calibration error {any_patient['nested_expected_calibration_error']:.2f}. "
        f"By slice: AUC {estimate(slices['intracranial_hemorrhage'])}.",
        f"Kinds by slice, AUC: {kinds}. Patients with the rare ones: {rare}.",
        f"Of bleeds under 5 mL (estimated) {small['nested_sensitivity']['count']} of {small['nested_sensitivity']['of']} were found: "
        "small and thin ones are missed.",
        "Volumes of patients are estimates: the training images carry no pixel size.",
        "Old or isodense collections, as of chronic subdural haematoma, are mostly not seen as blood.",
        "Children, contrast, operated heads and heavy motion or metal were hardly or never seen in training.",
        "The probability is calibrated to a sample in which 44 % of patients bleed; where fewer do, it is too high.",
    ]


def text_of(figures, voxels, contract, model):
    quoted = lambda text: json.dumps(text, ensure_ascii=False)
    lines = [
        "# Made by models/training/run.py; figures and configuration stand in models/training/runs/.",
        'name = "hemorrhage"',
        f'version = "{VERSION}"',
        f'file = "{model.name}"',
        f'sha256 = "{hashlib.sha256(model.read_bytes()).hexdigest()}"',
        "trained = true",
        'intended_use = "To move head CTs without contrast of adults up a reading list when they may show bleeding. '
        "It takes none off the list and is not a diagnosis. It is not cleared for clinical use.\"",
        "limits = [",
        *(f"  {quoted(limit)}," for limit in limits(figures)),
        "]",
        "credits = [",
        "  \"Data: Hssayeni M. et al., Computed Tomography Images for Intracranial Hemorrhage Detection and Segmentation, PhysioNet; Data 2020, 5:14. CC BY 4.0.\",",
        "  \"Voxel labels of some slices: BLAST-CT, Monteiro M. et al., Lancet Digital Health 2020. Apache-2.0.\",",
        "]",
        f"pooled_slabs = {figures['pooled_slabs']}",
        "",
        "[input]",
        'name = "slabs"',
        "",
        "[input.contract]",
        f"slab_mm = {contract['slab_mm']}",
        f"side_px = {contract['side_px']}",
        f"side_mm = {contract['side_mm']}",
        f"neighbours = {contract['neighbours']}",
        "windows = ["
        + ", ".join(f"{{ low_hu = {one['low_hu']}, high_hu = {one['high_hu']} }}" for one in contract["windows"])
        + "]",
        "",
        "[outputs]",
        'voxel_prob = "voxel_prob"',
        'slice_prob = "slice_prob"',
    ]
    for kind in KINDS:
        fitted, own = figures["by_patient"][kind]["card"], voxels[kind]
        lines += [
            "",
            "[[findings]]",
            f'kind = "{kind}"',
            f"threshold = {fitted['threshold']}",
            f"voxel_threshold = {own['voxel_threshold']}",
            f"minimum_volume_ml = {own['minimum_volume_ml']}",
            f"calibration = {{ slope = {fitted['slope']}, offset = {fitted['offset']} }}",
        ]
    return "\n".join(lines) + "\n"


def main():
    figures, voxels, sidecar, model, card = map(Path, sys.argv[1:6])
    contract = json.loads(sidecar.read_text())["contract"]
    card.write_text(text_of(json.loads(figures.read_text()), json.loads(voxels.read_text()), contract, model))


if __name__ == "__main__":
    main()
