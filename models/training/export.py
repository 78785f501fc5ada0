"""Weights → ONNX, checked against PyTorch.

usage: export.py WEIGHTS.pt OUT.onnx
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional

from network import KINDS, Exported
from predict import load

OPSET = 17
LARGEST_DIFFERENCE = 1e-3
# ONNX Runtime's fast convolutions take channels by so many.
CHANNELS = 4


def filled_up(network):
    """With planes of zeros, which nothing heeds, so that the first convolution is a fast one too."""
    first, field = network.stem[0][0], network.field
    spare = [0, 0, 0, 0, 0, -first.in_channels % CHANNELS]
    first.weight, network.field = nn.Parameter(functional.pad(first.weight, spare)), functional.pad(field, spare)
    return network


def export(weights, out):
    model = Exported(filled_up(load(weights))).eval()
    shown = torch.rand(2, 6, 256, 256, generator=torch.Generator().manual_seed(1))
    torch.onnx.export(
        model,
        (shown,),
        str(out),
        input_names=["slabs"],
        output_names=["voxel_prob", "slice_prob"],
        dynamic_axes={name: {0: "n"} for name in ("slabs", "voxel_prob", "slice_prob")},
        opset_version=OPSET,
        dynamo=False,
    )
    made = onnx.load(out)
    # The exporter leaves some sizes open that are known; the card's check wants them said.
    sizes = {"voxel_prob": [KINDS, 256, 256], "slice_prob": [KINDS]}
    for value in made.graph.output:
        for place, size in zip(list(value.type.tensor_type.shape.dim)[1:], sizes[value.name]):
            place.dim_value = size
    onnx.checker.check_model(made, full_check=True)
    out.write_bytes(made.SerializeToString(deterministic=True))
    compare(model, out)


def compare(model, path):
    """The file must answer as the weights do, for any number of slabs."""
    session = open_session(path)
    slabs = torch.rand(3, 6, 256, 256, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = model(slabs)
    found = session.run(["voxel_prob", "slice_prob"], {"slabs": slabs.numpy()})
    for one, other in zip(wanted, found):
        difference = float(np.abs(one.numpy() - other).max())
        assert difference < LARGEST_DIFFERENCE, f"ONNX differs by {difference}"


def open_session(path, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
