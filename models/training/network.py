"""The network: three neighbouring slabs in two windows → voxel and slab probabilities of six findings.

A U-Net whose first level has pixels of 4 x 4: two cores have no time for convolutions on the full grid.
The fine border comes from a light head that sees the slab's own pixels again. A head is nearly
symmetric, so deep features are shown together with their mirror image. What lies further out than
INNER_PX (200 mm across) is outside every skull: it is not looked at, and never blood.
"""

import torch
from torch import nn
from torch.nn import functional

KINDS = 6
SIDE_PX, INNER_PX = 256, 224
# Where the brain window is stretched once more: blood differs from brain by a tenth of it.
NARROW_LOW, NARROW_HIGH = 0.25, 0.75
# Voxels start as what they mostly are, not blood; outside the inner field they stay so.
VOXEL_LOGIT, OUTSIDE_LOGIT = -4.0, -20.0


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
    """Channels: for each slab the brain window, then another; see `tez slabs`."""

    def __init__(self, windows=2, neighbours=1, widths=(48, 80, 128, 192), fine=24, dropout=0.2):
        super().__init__()
        self.windows, self.neighbours = windows, neighbours
        slabs = 2 * neighbours + 1
        self.stem = nn.Sequential(nn.PixelUnshuffle(4), convolution(slabs * (windows + 1) * 16, widths[0]), Block(widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), convolution(a, b), Block(b), Mirror(b)) for a, b in zip(widths, widths[1:])
        )
        self.narrow = nn.ModuleList(convolution(b, a, 1) for a, b in zip(widths, widths[1:]))
        self.up = nn.ModuleList(nn.Sequential(convolution(2 * a, a), Block(a)) for a in widths[:-1])
        self.spread = nn.Sequential(nn.Conv2d(widths[0], 4 * fine, 1), nn.PixelShuffle(2))
        self.unshuffle = nn.PixelUnshuffle(2)
        self.fine = nn.Sequential(
            nn.Conv2d(fine + 4 * (windows + 1), fine, 3, padding=1, bias=False), nn.BatchNorm2d(fine), nn.LeakyReLU(0.2)
        )
        self.voxel = nn.Sequential(nn.Conv2d(fine, 4 * KINDS, 3, padding=1), nn.PixelShuffle(2))
        nn.init.constant_(self.voxel[0].bias, VOXEL_LOGIT)
        # Blood starts as rare; which kind it is, as open.
        with torch.no_grad():
            self.voxel[0].bias.view(KINDS, 4)[1:] = 0
        pooled = 2 * widths[-1] + 2 * widths[0]
        self.slab = nn.Sequential(nn.Linear(pooled, 96), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(96, KINDS))
        self.seen = nn.Linear(2 * KINDS, KINDS)
        nn.init.zeros_(self.slab[-1].weight)
        nn.init.constant_(self.seen.bias, 1.0)
        with torch.no_grad():
            self.seen.weight.copy_(0.4 * torch.eye(KINDS).repeat(1, 2))

    def forward(self, slabs):
        """Voxels [n, kinds, side, side]: logit of blood, then logits of its kind; slabs [n, kinds]: logits."""
        rim = (SIDE_PX - INNER_PX) // 2
        slabs = slabs[:, :, rim : SIDE_PX - rim, rim : SIDE_PX - rim]
        brain = slabs[:, :: self.windows]
        stretched = ((brain - NARROW_LOW) * (2 / (NARROW_HIGH - NARROW_LOW)) - 1).clamp(-1, 1)
        levels = [self.stem(torch.cat([slabs, stretched], 1))]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels[-1]
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.narrow[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat([x, levels[level]], 1))
        voxels = self.voxel(self.fine(torch.cat([self.spread(x), self.unshuffle(self.own(slabs, stretched))], 1)))
        coarse = functional.avg_pool2d(voxels, 8)
        coarse = torch.cat([coarse[:, :1], coarse[:, :1] + functional.log_softmax(coarse[:, 1:], 1)], 1)
        pooled = [mean_of(levels[-1]), max_of(levels[-1]), mean_of(x), max_of(x)]
        # Blood that was seen counts as it is; the rest says how much to believe it.
        seen = torch.cat([max_of(coarse), max_of(functional.avg_pool2d(coarse, 2))], 1)
        return functional.pad(voxels, [rim] * 4, value=OUTSIDE_LOGIT), self.slab(torch.cat(pooled, 1)) + self.seen(seen)

    def own(self, slabs, stretched):
        """The slab in question, without its neighbours."""
        first, centre = self.neighbours * self.windows, self.neighbours
        return torch.cat([slabs[:, first : first + self.windows], stretched[:, centre : centre + 1]], 1)


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
        blood = torch.sigmoid(voxels[:, :1])
        return torch.cat([blood, blood * torch.softmax(voxels[:, 1:], 1)], 1), torch.sigmoid(slices)
