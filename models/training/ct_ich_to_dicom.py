"""Turns the grey images of ct-ich into DICOM studies that Tez can read, with a studies.csv for `tez eval`
and, for training, slices.csv (labels and pixel size by SOP Instance UID).

usage: ct_ich_to_dicom.py CT_ICH_FOLDER OUT_FOLDER

OUT_FOLDER must lie outside the checkout: it holds images of patients (CC BY 4.0, see the data's own
README). Hounsfield units come back from the brain window (-20 to 100 HU); where that saturates, from
the bone window (-900 to 2300 HU). The images carry no pixel size: each skull is taken to measure
SKULL_MM from front to back, which makes every volume in mL an estimate.
"""

import csv
import hashlib
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy import ndimage

SKULL_MM = 175.0
SKULL_HU = 300.0
VAULT_FROM = 0.45  # share of the slices that lie below
SLICE_MM = 5.0
KINDS = {
    "intracranial_hemorrhage": "any",
    "intraparenchymal_hemorrhage": "iph",
    "intraventricular_hemorrhage": "ivh",
    "subarachnoid_hemorrhage": "sah",
    "subdural_hemorrhage": "sdh",
    "epidural_hemorrhage": "edh",
}
# Windows as (lower end, width) in HU. Patient 50 was exported with other ones.
BRAIN, BONE = (-20.0, 120.0), (-900.0, 3200.0)
OTHER_WINDOWS = {50: ((3.5, 73.0), (-500.0, 2000.0))}
# Grey values of a brain image that are no colour of its own, and what is bone in a bone image.
BLACK, WHITE, BONE_GREY = 3, 252, 95
# Patient 81's bone images are numbered two slices further up than its brain images: as numbered their skulls overlap by a fifth, shifted
# by seven tenths. Of the other 63 none overlaps by less than half. So far a shift is looked for, and so much better it has to be.
MOST_SLICES_UP, CLEARLY_BETTER = 3, 1.5
# Black of the brain window in the bone image's grey values, of a patient with the windows above: 69.6 to 70.3 fitted, 70.1 by the windows.
FARTHEST_FITTED = 2.0


def uid(*parts):
    text = "|".join(map(str, ("tez", "ct-ich", *parts)))
    return "2.25." + str(int(hashlib.sha256(text.encode()).hexdigest()[:30], 16))


def grey(path):
    return np.asarray(Image.open(path).convert("L"), dtype=np.float32)


def hounsfield(brain_grey, bone_grey, windows):
    (brain_low, brain_width), (bone_low, bone_width) = windows
    brain = brain_grey / 255 * brain_width + brain_low
    white = brain_grey >= WHITE
    if bone_grey is None:
        # Without the bone image white can only be bone, and black only air.
        bone = np.where(white, 900.0, -1000.0)
    else:
        bone = bone_grey / 255 * bone_width + bone_low
    return np.where(white | (brain_grey <= BLACK), bone, brain)


def bone_slices_up(brains, bones):
    """How many slices further up than the brain images (slice → grey values) the bone images are numbered: 0, unless their skulls lie
    clearly better on each other."""

    white = {index: brain >= WHITE for index, brain in brains.items()}
    skull = {index: bone >= BONE_GREY for index, bone in bones.items()}

    def overlap(up):
        pairs = [(own, skull[index + up]) for index, own in white.items() if index + up in skull]
        return sum((one & other).sum() for one, other in pairs) / max(1, sum((one | other).sum() for one, other in pairs))

    overlaps = {up: overlap(up) for up in range(-MOST_SLICES_UP, MOST_SLICES_UP + 1)}
    best = max(overlaps, key=overlaps.get)
    return best if overlaps[best] > CLEARLY_BETTER * overlaps[0] else 0


def black_in_bone_image(brains, bones):
    """Which grey value of the bone images black of the brain images is: by the line through what neither of them saturates."""
    shown = [(brain[::4, ::4], bones[index][::4, ::4]) for index, brain in brains.items() if index in bones]
    brain, bone = (np.concatenate([pair[side].ravel() for pair in shown]) for side in (0, 1))
    tissue = (brain > 40) & (brain < 215)
    near = tissue & (np.abs(bone - np.median(bone[tissue])) < 12)
    return np.polyfit(brain[near], bone[near], 1)[1]


def slices_of(source, patient, rows):
    """A patient's slices in HU. Says so where its images do not fit together as they should."""
    brains = {int(row["slice"]): grey(source / row["brain"]) for row in rows}
    bones = {int(row["slice"]): grey(source / row["bone"]) for row in rows if row["bone"]}
    up = bone_slices_up(brains, bones)
    if up:
        print(f"\npatient {patient}: bone images taken {up} slices further up than they are numbered", file=sys.stderr)
        bones = {index - up: bone for index, bone in bones.items()}
    windows = OTHER_WINDOWS.get(patient, (BRAIN, BONE))
    (brain_low, _), (bone_low, bone_width) = windows
    wanted = (brain_low - bone_low) / bone_width * 255
    found = black_in_bone_image(brains, bones) if bones else wanted
    if abs(found - wanted) > FARTHEST_FITTED:
        print(
            f"\npatient {patient}: windowed otherwise (black of the brain images is {found:.1f} in the bone images, not {wanted:.1f}): "
            "its Hounsfield units are wrong until OTHER_WINDOWS says how",
            file=sys.stderr,
        )
    return [hounsfield(brain, bones.get(index), windows) for index, brain in brains.items()]


def skull_length_px(hu):
    """Front-to-back extent of the largest piece of bone, pixels; 0 without one."""
    pieces, count = ndimage.label(hu > SKULL_HU)
    if not count:
        return 0
    largest = 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    rows = np.where((pieces == largest).any(axis=1))[0]
    return rows[-1] - rows[0] + 1


def pixel_mm(slices):
    """The skull's greatest length in the upper part of the head is taken as SKULL_MM: there is no
    face, neck or head holder to mistake for it."""
    upper = slices[int(VAULT_FROM * len(slices)) :]
    return SKULL_MM / np.percentile([skull_length_px(hu) for hu in upper], 90)


def write_slice(path, patient, index, hu, spacing_mm):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid(patient, index)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = uid(patient, "study"), uid(patient, "series")
    data.FrameOfReferenceUID = uid(patient, "frame")
    data.PatientName, data.PatientID = f"CT-ICH^{patient:03d}", f"CTICH{patient:03d}"
    data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.BodyPartExamined, data.StudyDescription = "HEAD", "CT-ICH, rebuilt from grey images"
    data.SliceThickness, data.InstanceNumber, data.SeriesNumber = SLICE_MM, index, 1
    side = hu.shape[0]
    corner = -(side - 1) / 2 * spacing_mm
    data.ImagePositionPatient = [f"{corner:.4f}", f"{corner:.4f}", f"{index * SLICE_MM:.4f}"]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.PixelSpacing = [f"{spacing_mm:.6f}"] * 2
    data.Rows, data.Columns, data.SamplesPerPixel = *hu.shape, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "HU"
    data.PixelData = np.rint(hu).clip(-1024, 3071).astype("<i2").tobytes()
    data["PixelData"].VR = "OW"
    data.save_as(path, enforce_file_format=True)


def main():
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    patients = defaultdict(list)
    for row in csv.DictReader((source / "slices.csv").open()):
        patients[int(row["patient"])].append(row)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "studies.csv").open("w", newline="") as table, (out / "slices.csv").open("w", newline="") as slice_table:
        writer, slice_writer = csv.writer(table), csv.writer(slice_table)
        writer.writerow(["path", *KINDS])
        slice_writer.writerow(["study_uid", "sop_uid", "patient", "slice", "pixel_mm", *KINDS])
        for done, (patient, rows) in enumerate(sorted(patients.items()), 1):
            rows.sort(key=lambda row: int(row["slice"]))
            slices = slices_of(source, patient, rows)
            spacing_mm = pixel_mm(slices)
            folder = out / f"{patient:03d}"
            folder.mkdir(exist_ok=True)
            for row, hu in zip(rows, slices):
                index = int(row["slice"])
                write_slice(folder / f"{index:02d}.dcm", patient, index, hu, spacing_mm)
                labels = [row[label] for label in KINDS.values()]
                uids = [uid(patient, "study"), uid(patient, index)]
                slice_writer.writerow([*uids, patient, index, f"{spacing_mm:.6f}", *labels])
            writer.writerow([folder.name, *(int(any(row[label] == "1" for row in rows)) for label in KINDS.values())])
            print(f"\r{done} of {len(patients)} patients", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
