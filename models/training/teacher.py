"""What the teacher (one network of BLAST-CT) says of patients, to be measured against: the area that it marks in each slice.

usage: teacher.py NETWORK.onnx DICOM OUT.json [PATIENT…]

DICOM is what ct_ich_to_dicom.py wrote. Its graph is run by PyTorch, on processors with AVX-512 in bfloat16,
several times as fast where they have AMX; the first patch is checked against ONNX Runtime. OUT.json: for each patient and each
class (IPH, extra-axial, oedema, IVH) the area above 0.5 in each slice, mm²; and the CPU seconds it took. A patient
who stands there already is not looked at again.
"""

import csv
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pydicom
import torch
from onnx import numpy_helper
from scipy import ndimage
from torch.nn import functional

from data import inside_skull
from network import ON_CPU

# Voxels of 1 mm: what one run takes, and the middle of it that it answers.
TAKEN, ANSWERED = 140, 60
MARGIN = (TAKEN - ANSWERED) // 2
LOW_HU, HIGH_HU, AIR_HU = -15.0, 100.0, -1000.0
SLICE_MM = 5
LARGEST_DIFFERENCE = 0.05


class Teacher:
    """The graph, node by node."""

    def __init__(self, path):
        graph = onnx.load(path).graph
        self.nodes = graph.node
        self.held = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
        self.fast = {
            name: value.to(ON_CPU) if value.dtype == torch.float32 else value for name, value in self.held.items()
        }
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.checked = False

    @torch.no_grad()
    def __call__(self, patch):
        """Classes x 60 x 60 x 60 of HU 140 x 140 x 140."""
        shown = torch.from_numpy((2 * np.clip(patch, LOW_HU, HIGH_HU) + 15 - 100) / 115)[None, None].float()
        values = {**self.fast, "image": shown.to(ON_CPU)}
        for node in self.nodes:
            values[node.output[0]] = self.run(node, [values[name] if name else None for name in node.input])
        prob = values["prob"][0].float().numpy()
        if not self.checked and (shown.std() > 0.3):
            wanted = self.session.run(["prob"], {"image": shown.numpy()})[0][0]
            difference = float(np.abs(prob - wanted).max())
            assert difference < LARGEST_DIFFERENCE, f"PyTorch differs by {difference:.3f}"
            print(f"{ON_CPU} against ONNX Runtime: at most {difference:.4f}", flush=True)
            self.checked = True
        return prob

    @staticmethod
    def run(node, inputs):
        x = inputs[0]
        if node.op_type == "Conv":
            return functional.conv3d(x.contiguous(memory_format=torch.channels_last_3d), inputs[1], inputs[2] if len(inputs) > 2 else None)
        if node.op_type == "BatchNormalization":
            _, scale, bias, mean, variance = inputs
            epsilon = next(one.f for one in node.attribute if one.name == "epsilon")
            factor = scale.float() / torch.sqrt(variance.float() + epsilon)
            shape = (1, -1, 1, 1, 1)
            return (x * factor.reshape(shape) + (bias.float() - mean.float() * factor).reshape(shape)).to(x.dtype)
        if node.op_type == "PRelu":
            return torch.where(x >= 0, x, x * inputs[1])
        if node.op_type == "Slice":
            starts, ends, axes, steps = (one.tolist() for one in inputs[1:5])
            where = [slice(None)] * x.dim()
            for start, end, axis, step in zip(starts, ends, axes, steps):
                where[axis] = slice(start, min(end, x.shape[axis]), step)
            return x[tuple(where)]
        if node.op_type == "Add":
            return x + inputs[1]
        if node.op_type == "Resize":
            return functional.interpolate(x, scale_factor=inputs[2].float().tolist()[2:], mode="nearest")
        if node.op_type == "Concat":
            return torch.cat(inputs, 1)
        assert node.op_type == "Softmax", node.op_type
        return torch.softmax(x.float(), 1)


def slices_1mm(folder):
    """HU of each slice on pixels of 1 mm."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    pixel_mm = float(slices[0].PixelSpacing[0])
    return np.stack([ndimage.zoom(one.pixel_array.astype(np.float32), pixel_mm, order=1, mode="nearest") for one in slices])


def planes_1mm(stack):
    """Voxels of 1 mm (z, y, x) of slices that lie at every fifth plane."""
    at = np.arange((len(stack) - 1) * SLICE_MM + 1) / SLICE_MM
    below = np.minimum(at.astype(int), len(stack) - 1)
    above, part = np.minimum(below + 1, len(stack) - 1), (at - below)[:, None, None]
    return ((1 - part) * stack[below] + part * stack[above]).astype(np.float32)


def areas_mm2(teacher, stack):
    """Area of each class above 0.5 in each slice: patches that hold any of what is within the skull."""
    hu, inside = planes_1mm(stack), planes_1mm(inside_skull(stack)) > 0
    corners = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    low = [own[0] for own in corners]
    sides = [int(np.ceil((own[-1] + 1 - own[0]) / ANSWERED)) * ANSWERED for own in corners]
    reach = [(MARGIN, max(0, start + side - own) + MARGIN) for start, side, own in zip(low, sides, hu.shape)]
    padded = np.pad(hu, reach, constant_values=AIR_HU)
    held = np.pad(inside, [(0, after - MARGIN) for _, after in reach])
    marked = np.zeros((4, *held.shape), bool)
    for tile in np.ndindex(*(side // ANSWERED for side in sides)):
        start = [first + ANSWERED * one for first, one in zip(low, tile)]
        answered = tuple(slice(one, one + ANSWERED) for one in start)
        if held[answered].any():
            prob = teacher(padded[tuple(slice(one, one + TAKEN) for one in start)])
            marked[(slice(None), *answered)] = prob[1:] > 0.5
    return marked[:, : len(hu) : SLICE_MM].sum(axis=(2, 3))


def main():
    network, dicom, out = map(Path, sys.argv[1:4])
    torch.set_num_threads(2)
    wanted = set(sys.argv[4:])
    teacher, answers = Teacher(network), json.loads(out.read_text()) if out.exists() else {}
    patients = defaultdict(int)
    for row in csv.DictReader((dicom / "studies.csv").open()):
        patients[row["path"]] = int(row["intracranial_hemorrhage"])
    for name in sorted(patients):
        if name in answers or (wanted and name not in wanted):
            continue
        stack, started = slices_1mm(dicom / name), time.process_time()
        areas = areas_mm2(teacher, stack)
        answers[name] = {
            "areas_mm2": areas.tolist(),
            "cpu_seconds": round(time.process_time() - started, 1),
        }
        print(f"{name}: bleeds {patients[name]}, blood at most {areas[[0, 1, 3]].sum(axis=0).max()} mm², {answers[name]['cpu_seconds']} CPU s", flush=True)
        out.write_text(json.dumps(answers) + "\n")


if __name__ == "__main__":
    main()
