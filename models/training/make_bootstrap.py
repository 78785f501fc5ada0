#!/usr/bin/env python3
"""Writes models/weights/bootstrap.onnx: a network with fixed weights that answers to dense tissue
inside the skull. Nothing in it was trained. It exists so that the way through ONNX Runtime is real
before trained weights are.

usage: make_bootstrap.py OUT.onnx        (needs numpy and onnx; the same bytes on every run)

It has the interface of the 2.5-D networks that replace it:
  input   slabs       float32 [n, 6, 256, 256]   slabs of 5 mm, 230 mm wide, feet to head;
                                                 brain and bone window of the slab below, the slab, the slab above
  output  voxel_prob  float32 [n, 1, 256, 256]
  output  slice_prob  float32 [n, 1]
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 256
PX_MM = 230.0 / SIDE_PX
# The windows of the card: low → 0, high → 1.
BRAIN_LOW_HU, BRAIN_HIGH_HU = -20.0, 100.0
BONE_LOW_HU, BONE_HIGH_HU = -900.0, 2300.0

BONE_HU = 250.0  # at and above: skull
AIR_HU = -200.0  # below: sinus, mastoid cell or outside
TISSUE_HU = (0.0, 92.0)  # brain and blood; above lies calcification or the partial volume of bone
RIM_PX = 2  # this near to bone nothing is called: partial volume, dura, sinuses
CALCIFICATION_RIM_PX = 1
SMOOTHING_SIGMA_PX = 1.4  # in the slab; across slabs the weights are 1/4, 1/2, 1/4
SMOOTHING_RADIUS_PX = 4
DENSE_HU = 50.0  # smoothed tissue must reach this …
ABOVE_BRAIN_HU = 15.0  # … and stand this far above the slab's mean tissue
SOFTNESS_HU = 3.0  # the slope of voxel_prob around that bound
OPENING_PX = 2  # what is thinner than 2 * 2 + 1 pixels (4.5 mm) goes: falx, tentorium, vessels
HALF_AREA_MM2 = 80.0  # a dense area of this size gives slice_prob 0.5
BASE_AIR_FRACTION = 0.02  # more air than this within the bony ring: skull base, not answered
BASE_TISSUE_FRACTION = 0.3  # less clear tissue than this within it: skull base or vertex, not answered


class Graph:
    """Collects nodes and constants; every method gives the name of its result."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value, dtype=np.float32):
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind, *inputs, output=None, **attributes):
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def channels(self, source, *indices):
        return self.op("Gather", source, self.constant(indices, np.int64), axis=1)

    def at_least(self, values, bound):
        return self.number(self.op("GreaterOrEqual", values, self.constant(bound)))

    def below(self, values, bound):
        return self.number(self.op("Less", values, self.constant(bound)))

    def number(self, truth):
        return self.op("Cast", truth, to=TensorProto.FLOAT)

    def product(self, first, *others):
        for other in others:
            first = self.op("Mul", first, other)
        return first

    def complement(self, mask):
        return self.op("Sub", self.constant(1.0), mask)

    def dilate(self, mask, radius_px):
        size = 2 * radius_px + 1
        return self.op("MaxPool", mask, kernel_shape=[size, size], pads=[radius_px] * 4)

    def erode(self, mask, radius_px):
        return self.complement(self.dilate(self.complement(mask), radius_px))

    def sum_in_slab(self, values):
        return self.op("ReduceSum", values, self.constant([2, 3], np.int64), keepdims=1)


def hounsfield(graph, channel, low, high):
    scaled = graph.op("Mul", channel, graph.constant(high - low))
    return graph.op("Add", scaled, graph.constant(low))


def inside_bone(graph, bone):
    """1 where bone lies in all four directions of the slab."""
    sides = []
    for axis in (2, 3):
        for reverse in (0, 1):
            count = graph.op("CumSum", bone, graph.constant(axis, np.int64), reverse=reverse)
            sides.append(graph.at_least(count, 0.5))
    return graph.product(*sides)


def gaussian_weights(slabs):
    """A Gaussian in the slab for each of `slabs` input channels; sums to one."""
    offset = np.arange(-SMOOTHING_RADIUS_PX, SMOOTHING_RADIUS_PX + 1)
    line = np.exp(-0.5 * (offset / SMOOTHING_SIGMA_PX) ** 2)
    plane = np.outer(line, line) / line.sum() ** 2
    across = {1: [1.0], 3: [0.25, 0.5, 0.25]}[slabs]
    return np.stack([weight * plane for weight in across])[None].astype(np.float32)


def smooth(graph, values, slabs):
    weights = graph.constant(gaussian_weights(slabs))
    return graph.op("Conv", values, weights, pads=[SMOOTHING_RADIUS_PX] * 4)


def build():
    g = Graph()
    brain_hu = hounsfield(g, g.channels("slabs", 0, 2, 4), BRAIN_LOW_HU, BRAIN_HIGH_HU)
    bone_hu = hounsfield(g, g.channels("slabs", 3), BONE_LOW_HU, BONE_HIGH_HU)
    centre_hu = g.channels(brain_hu, 1)

    # Where: tissue inside the skull, away from bone and calcification.
    bone = g.at_least(bone_hu, BONE_HU)
    ring = inside_bone(g, bone)
    dense = g.at_least(centre_hu, TISSUE_HU[1])
    clear = g.product(g.complement(g.dilate(bone, RIM_PX)), g.complement(g.dilate(dense, CALCIFICATION_RIM_PX)))
    place = g.product(ring, clear, g.at_least(centre_hu, TISSUE_HU[0]))

    # How dense: a mean over tissue only, so that bone and air beside it do not leak in.
    tissue = g.product(g.at_least(brain_hu, TISSUE_HU[0]), g.below(brain_hu, TISSUE_HU[1]), place)
    weight = g.op("Max", smooth(g, tissue, 3), g.constant(1e-3))
    smoothed_hu = g.op("Div", smooth(g, g.product(brain_hu, tissue), 3), weight)

    # Against what: the slab's own mean, which follows the scanner's calibration.
    count = g.op("Max", g.sum_in_slab(place), g.constant(1.0))
    mean_hu = g.op("Div", g.sum_in_slab(g.product(centre_hu, place)), count)
    bound_hu = g.op("Max", g.op("Add", mean_hu, g.constant(ABOVE_BRAIN_HU)), g.constant(DENSE_HU))
    excess_hu = g.op("Sub", smoothed_hu, bound_hu)

    # Slabs through the skull base hold air cells and muscle between bones: no answer there.
    air = g.product(ring, g.below(bone_hu, AIR_HU))
    ring_area = g.op("Max", g.sum_in_slab(ring), g.constant(1.0))
    airless = g.below(g.op("Div", g.sum_in_slab(air), ring_area), BASE_AIR_FRACTION)
    open_inside = g.at_least(g.op("Div", g.sum_in_slab(place), ring_area), BASE_TISSUE_FRACTION)
    vault = g.product(airless, open_inside)

    hot = g.product(g.number(g.op("Greater", excess_hu, g.constant(0.0))), place, vault)
    opened = g.op("Mul", g.dilate(g.erode(hot, OPENING_PX), OPENING_PX), hot)
    slope = g.op("Sigmoid", g.op("Div", excess_hu, g.constant(SOFTNESS_HU)))
    g.op("Mul", slope, opened, output="voxel_prob")

    area_mm2 = g.op("Mul", g.sum_in_slab(opened), g.constant(PX_MM**2))
    share = g.op("Div", area_mm2, g.op("Add", area_mm2, g.constant(HALF_AREA_MM2)))
    g.op("Flatten", share, output="slice_prob", axis=1)
    return g


def model():
    g = build()
    image = ["n", 1, SIDE_PX, SIDE_PX]
    graph = helper.make_graph(
        g.nodes,
        "bootstrap",
        [helper.make_tensor_value_info("slabs", TensorProto.FLOAT, ["n", 6, SIDE_PX, SIDE_PX])],
        [
            helper.make_tensor_value_info("voxel_prob", TensorProto.FLOAT, image),
            helper.make_tensor_value_info("slice_prob", TensorProto.FLOAT, ["n", 1]),
        ],
        g.constants,
        doc_string="Fixed weights, not trained, not calibrated: for exercising the path only.",
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="make_bootstrap.py"
    )
    onnx.checker.check_model(made, full_check=True)
    return made


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], "wb") as target:
        target.write(model().SerializeToString(deterministic=True))
