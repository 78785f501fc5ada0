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
# The bone images of patient 81 are numbered two slices further up than its brain images (their skulls overlap by a quarter as they are
# numbered, and as other patients' do, by four fifths, when shifted).
BONE_SLICES_UP = {81: 2}


def uid(*parts):
    text = "|".join(map(str, ("tez", "ct-ich", *parts)))
    return "2.25." + str(int(hashlib.sha256(text.encode()).hexdigest()[:30], 16))


def grey(path):
    return np.asarray(Image.open(path).convert("L"), dtype=np.float32)


def hounsfield(folder, row, bone_image):
    brain_window, bone_window = OTHER_WINDOWS.get(int(row["patient"]), (BRAIN, BONE))
    brain_grey = grey(folder / row["brain"])
    brain = brain_grey / 255 * brain_window[1] + brain_window[0]
    saturated = (brain_grey >= 252) | (brain_grey <= 3)
    if bone_image:
        bone = grey(folder / bone_image) / 255 * bone_window[1] + bone_window[0]
    else:
        # Without the bone image white can only be bone, and black only air.
        bone = np.where(brain_grey >= 252, 900.0, -1000.0)
    return np.where(saturated, bone, brain)


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
            bones = {int(row["slice"]): row["bone"] for row in rows}
            shift = BONE_SLICES_UP.get(patient, 0)
            slices = [hounsfield(source, row, bones.get(int(row["slice"]) + shift)) for row in rows]
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
