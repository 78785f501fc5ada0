"""The network: three neighbouring slabs in two windows → voxel and slab probabilities of six findings.

A U-Net whose first level has cells of 4 x 4 pixels: two cores have no time for convolutions on the full
grid. The fine border comes from a light head that sees the slab's own pixels again. It is told where a cell
lies and how dense the same place of the other side is. What lies further out than INNER_PX (200 mm across) is
outside every skull: it is not looked at, and never blood. A slab's probability comes from its most
suspicious place.
"""

import torch
from torch import nn
from torch.nn import functional

KINDS = 6
SIDE_PX, INNER_PX, CELL_PX = 256, 224, 4
RIM_PX = (SIDE_PX - INNER_PX) // 2
# Where the brain window is stretched once more, 10 to 70 HU: blood differs from brain by a tenth of it.
NARROW = 0.25, 0.75
# What is soft tissue or blood, in the same window: 0 to 94 HU.
TISSUE = 0.17, 0.95
# A voxel half of bone in the bone window (-900 to 2300 HU): 500 HU.
HALF_BONE = (500 + 900) / 3200
# Voxels start as what they mostly are, not blood.
BLOOD_LOGIT = -3.0
SHARPNESS = 4.0
# Share of the deepest level's channels that a slab does without in training.
DROPPED = 0.15
# Side of the place that counts for a slab, pixels: 3.6 mm.
PLACE_PX = 4
# What two cores compute in. Without AVX-512 PyTorch's way with bfloat16 takes ten times as long as float32.
ON_CPU = torch.bfloat16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else torch.float32


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


class Picking(nn.Module):
    """Moves pixels by a convolution that only picks: ONNX Runtime moves them otherwise slowly, and on one thread. `channels` are those
    of the larger image."""

    def __init__(self, channels, size):
        super().__init__()
        self.size, self.channels = size, channels
        each = torch.eye(size**2).reshape(size**2, 1, size, size)
        self.register_buffer("picks", each.repeat(channels, 1, 1, 1), persistent=False)


class Unshuffled(Picking):
    """As `PixelUnshuffle`."""

    def forward(self, images):
        return functional.conv2d(images, self.picks, stride=self.size, groups=self.channels)


class Shuffled(Picking):
    """As `PixelShuffle`."""

    def forward(self, images):
        return functional.conv_transpose2d(images, self.picks, stride=self.size, groups=self.channels)


class Network(nn.Module):
    """Channels: for each slab the brain window, then another; see `tez slabs`."""

    def __init__(self, windows=2, neighbours=1, widths=(48, 80, 128, 192), fine=24):
        super().__init__()
        self.windows, self.neighbours = windows, neighbours
        slabs = 2 * neighbours + 1
        inputs = slabs * ((windows + 1) * CELL_PX**2 + 2) + slabs + 2
        self.stem = nn.Sequential(convolution(inputs, widths[0]), Block(widths[0]))
        self.cells, self.halves = Unshuffled(slabs * (windows + 1), CELL_PX), Unshuffled(windows + 1, 2)
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), convolution(a, b), Block(b)) for a, b in zip(widths, widths[1:]))
        self.narrow = nn.ModuleList(convolution(b, a, 1) for a, b in zip(widths, widths[1:]))
        self.up = nn.ModuleList(nn.Sequential(convolution(2 * a, a), Block(a)) for a in widths[:-1])
        self.dropped = nn.Dropout2d(DROPPED)
        self.spread = nn.Sequential(nn.Conv2d(widths[0], 4 * fine, 1), Shuffled(fine, 2))
        self.fine = nn.Sequential(
            nn.Conv2d(fine + 4 * (windows + 1), fine, 3, padding=1, bias=False), nn.BatchNorm2d(fine), nn.LeakyReLU(0.2)
        )
        self.voxel = nn.Sequential(nn.Conv2d(fine, 4 * KINDS, 3, padding=1), Shuffled(KINDS, 2))
        with torch.no_grad():
            self.voxel[0].bias.zero_()
            self.voxel[0].bias[:4] = BLOOD_LOGIT
        # Fitted after the rest, on whole slabs.
        self.slab_slope = nn.Parameter(torch.ones(KINDS), requires_grad=False)
        self.slab_offset = nn.Parameter(torch.zeros(KINDS), requires_grad=False)
        self.register_buffer("field", field(INNER_PX // CELL_PX), persistent=False)

    def voxels(self, slabs, corners=None, cells=None):
        """Of the inner field's slabs the logit of blood, then logits of its kind: [n, kinds, side, side]; or those of a part of it of
        `cells` squared that begins at `corners` [n, 2], in cells."""
        brain = slabs.unflatten(1, (-1, self.windows))[:, :, 0]
        narrow, own_density, tissue = stretched(brain), *density(brain)
        difference = functional.avg_pool2d(own_density - own_density.flip(3), 3, 1, 1)
        around = torch.cat([own_density, tissue, difference, self.field.expand(slabs.shape[0], -1, -1, -1)], 1)
        close = torch.cat([slabs, narrow], 1)
        if corners is not None:
            around, close = part_of(around, corners, cells), part_of(close, corners * CELL_PX, cells * CELL_PX)
        seen = torch.cat([self.cells(close), around], 1)
        first, centre = self.neighbours * self.windows, self.neighbours
        own = torch.cat([close[:, first : first + self.windows], close[:, slabs.shape[1] + centre, None]], 1)
        levels = [self.stem(seen)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = self.dropped(levels[-1])
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.narrow[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat([x, levels[level]], 1))
        return self.voxel(self.fine(torch.cat([self.spread(x), self.halves(own)], 1)))


def part_of(images, corners, size):
    """Of each image [n, channels, rows, columns] the square of `size` that begins at its corner (row, column)."""
    parts = [image[:, row : row + size, column : column + size] for image, (row, column) in zip(images, corners.tolist())]
    return torch.stack(parts).to(memory_format=torch.channels_last)


def stretched(brain):
    return ((brain - NARROW[0]) * (2 / (NARROW[1] - NARROW[0])) - 1).clamp(-1, 1)


def density(brain):
    """Mean density of soft tissue in each cell, and how much of the cell it fills.

    Neither bone nor air leaks in, and most of the noise is gone: what blood is told by.
    """
    tissue = ((brain > TISSUE[0]) & (brain < TISSUE[1])).to(brain.dtype)
    share = functional.avg_pool2d(tissue, CELL_PX)
    return 3 * functional.avg_pool2d(stretched(brain) * tissue, CELL_PX) / (share + 0.06), share


def field(cells):
    """Where each cell lies: to the back, and away from the middle; -1 to 1."""
    line = torch.linspace(-1, 1, cells)
    back, across = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([back, across.abs()])[None]


def suspicion(voxels):
    """Logit at a slab's most suspicious place of PLACE_PX squared: [n, kinds]."""
    blood, kind = voxels[:, :1].clamp(min=-12), log_shares(voxels[:, 1:]).clamp(min=-8)
    return torch.cat([functional.avg_pool2d(part, PLACE_PX) for part in (blood, blood + kind)], 1).amax((2, 3))


def log_shares(kinds):
    """`log_softmax` over the kinds, step by step: ONNX Runtime's own takes six times as long for any axis but the last."""
    below_highest = kinds - kinds.amax(1, keepdim=True).detach()
    return below_highest - below_highest.exp().sum(1, keepdim=True).log()


class Exported(nn.Module):
    """What the ONNX file holds: probabilities."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, slabs):
        """Probabilities of voxels [n, kinds, side, side] and of slabs [n, kinds]."""
        voxels, suspicions = self.answers(slabs)
        return voxels, torch.sigmoid(suspicions * self.network.slab_slope + self.network.slab_offset)

    def answers(self, slabs):
        """Probabilities of voxels, and what a slab's is made of."""
        inner = slabs[:, :, RIM_PX : SIDE_PX - RIM_PX, RIM_PX : SIDE_PX - RIM_PX]
        voxels = self.network.voxels(inner)
        bone = inner[:, self.network.neighbours * self.network.windows + 1, None]
        # What is bone for the greater part is not blood, whatever lies beside it.
        blood = torch.sigmoid(voxels[:, :1]) * (bone < HALF_BONE).to(bone.dtype)
        # Nearly all of a voxel goes to its likeliest kind, so that the kinds' volumes add up to that of all blood.
        shares = log_shares(SHARPNESS * voxels[:, 1:]).exp()
        return functional.pad(torch.cat([blood, blood * shares], 1), [RIM_PX] * 4), suspicion(voxels)
