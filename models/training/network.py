"""The network: three neighbouring slabs in two windows → voxel and slab probabilities of six findings.

A U-Net whose first level has pixels of 4 x 4: two cores have no time for convolutions on the full grid.
The fine border comes from a light head that sees the slab's own pixels again. A head is nearly
symmetric, so deep features are shown together with their mirror image.
"""

import torch
from torch import nn
from torch.nn import functional

KINDS = 6


def convolution(inputs, outputs, size=3):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Block(nn.Module):
    """Two convolutions with a way round."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x):
        return functional.relu(x + self.body(x))


class Mirror(nn.Module):
    """Joins features with those of the other side."""

    def __init__(self, channels):
        super().__init__()
        self.join = convolution(2 * channels, channels, 1)

    def forward(self, x):
        return x + self.join(torch.cat([x, x.flip(3)], 1))


class Network(nn.Module):
    def __init__(self, windows=2, neighbours=1, widths=(48, 80, 128, 192), fine=24, dropout=0.2):
        super().__init__()
        self.windows, self.centre = windows, neighbours * windows
        inputs = windows * (2 * neighbours + 1) * 16
        self.stem = nn.Sequential(nn.PixelUnshuffle(4), convolution(inputs, widths[0]), Block(widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), convolution(a, b), Block(b), Mirror(b)) for a, b in zip(widths, widths[1:])
        )
        self.narrow = nn.ModuleList(convolution(b, a, 1) for a, b in zip(widths, widths[1:]))
        self.up = nn.ModuleList(nn.Sequential(convolution(2 * a, a), Block(a)) for a in widths[:-1])
        self.spread = nn.Sequential(nn.Conv2d(widths[0], 4 * fine, 1), nn.PixelShuffle(2))
        self.fine = nn.Sequential(
            convolution(fine + 4 * windows, fine), nn.Conv2d(fine, 4 * KINDS, 3, padding=1), nn.PixelShuffle(2)
        )
        self.unshuffle = nn.PixelUnshuffle(2)
        pooled = 2 * widths[-1] + 2 * widths[0] + 2 * KINDS
        self.slab = nn.Sequential(nn.Linear(pooled, 96), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(96, KINDS))

    def forward(self, slabs):
        """Logits: voxels [n, kinds, side, side], slabs [n, kinds]."""
        levels = [self.stem(slabs)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels[-1]
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.narrow[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat([x, levels[level]], 1))
        own = self.unshuffle(slabs[:, self.centre : self.centre + self.windows])
        voxels = self.fine(torch.cat([self.spread(x), own], 1))
        coarse = functional.avg_pool2d(voxels, 4)
        parts = [both(levels[-1]) for both in (mean_of, max_of)] + [both(x) for both in (mean_of, max_of)]
        parts += [max_of(coarse) / 8, mean_of(torch.sigmoid(coarse)) * 64]
        return voxels, self.slab(torch.cat(parts, 1))


def mean_of(x):
    return x.mean((2, 3))


def max_of(x):
    return x.amax((2, 3))


class Exported(nn.Module):
    """What the ONNX file holds: probabilities."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, slabs):
        voxels, slices = self.network(slabs)
        return torch.sigmoid(voxels), torch.sigmoid(slices)
