"""What makes a slab look like another: patients' shapes, look-alikes of blood, scanners. On whole batches, on any device.

Hounsfield units in and out: float32 [n, 3 (the slab between its neighbours), SIDE_PX, SIDE_PX], until `windowed`.
"""

import math

import torch
from torch.nn import functional

from network import INNER_PX, SIDE_PX
from synth import PIXEL_MM

SPOTS = 6
# Share of look-alikes: calcium, a dense falx, vessels with contrast, streaks.
LOOKALIKES = 0.5, 0.18, 0.14, 0.18


def uniform(like, low, high):
    """One number a sample, as [n, 1, 1, 1]."""
    return torch.rand(len(like), 1, 1, 1, device=like.device) * (high - low) + low


def happens(like, share):
    return (uniform(like, 0, 1) < share).float()


def normal(like, deviation):
    return torch.randn(len(like), 1, 1, 1, device=like.device) * deviation


def noise(like, period_px, channels=1):
    """A smooth random field of mean 0 and deviation 1: [n, channels, SIDE_PX, SIDE_PX]."""
    coarse = torch.randn(len(like), channels, *[max(int(SIDE_PX / period_px) + 3, 4)] * 2, device=like.device)
    fine = functional.interpolate(coarse, (SIDE_PX, SIDE_PX), mode="bicubic", align_corners=True)
    return (fine - fine.mean((2, 3), keepdim=True)) / (fine.std((2, 3), keepdim=True) + 1e-6)


def blurred(images, sigma_px):
    """A Gaussian blur over rows and columns; beyond the border its last pixel counts again. As products with banded matrices, which
    any device has a fast way for; convolutions of one channel are slow on CPUs."""
    reach = math.ceil(3 * sigma_px)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma_px) ** 2)
    weights = (weights / weights.sum()).to(images.dtype)
    along_rows, along_columns = (banded(weights, side) for side in images.shape[-2:])
    return along_rows @ images @ along_columns.T


def banded(weights, side):
    """Row by row the weights around each place of `side`: [side, side]."""
    reach = len(weights) // 2
    place = torch.arange(side, device=weights.device)[:, None]
    beside = (place + torch.arange(-reach, reach + 1, device=weights.device)).clamp(0, side - 1)
    return weights.new_zeros(side, side).scatter_add_(1, beside, weights.expand(side, -1).contiguous())


def step(distance_mm, width_mm=0.9):
    """Share of a voxel at a signed distance from a border: 1 inside (below 0)."""
    return (0.5 - distance_mm / width_mm).clamp(0, 1)


def plane(device):
    """Column and row of each pixel in mm."""
    line = torch.arange(SIDE_PX, device=device, dtype=torch.float32) * PIXEL_MM
    return line[None, None, None, :], line[None, None, :, None]


def with_lookalikes(hu, inside):
    """What is not blood. `inside`: [n, 1, SIDE_PX, SIDE_PX], 1 within the skull of the middle slab."""
    draw, start = uniform(hu, 0, 1), 0.0
    large = (inside.sum((2, 3), keepdim=True) > 3000).float()
    out = hu
    for share, put in zip(LOOKALIKES, (calcified, falx, vessels, streaks)):
        chosen = ((draw >= start) & (draw < start + share)).float() * large
        out, start = torch.where(chosen > 0, put(hu, inside), out), start + share
    return out


def calcified(hu, inside):
    """Spots, half of them with a twin on the other side (choroid plexus, basal ganglia). Denser than blood somewhere, or blood's
    own dots would be taught to be nothing; but those with a twin need not be."""
    x, y = plane(hu.device)
    places = (torch.rand_like(inside) * (0.05 + inside)).flatten(1).topk(SPOTS).indices
    middle_mm = (inside * x).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)
    paired = torch.rand(len(hu), device=hu.device) < 0.5
    through = torch.ones_like(hu[:, :, :1, :1])
    through[:, ::2] = happens(hu, 0.5)
    least_hu = torch.where(paired, math.log(90), math.log(140)).reshape(-1, 1, 1, 1)
    density = torch.exp(least_hu + uniform(hu, 0, 1) * (math.log(600) - least_hu))
    for spot in range(SPOTS):
        row_mm, column_mm = places[:, spot] // SIDE_PX * PIXEL_MM, places[:, spot] % SIDE_PX * PIXEL_MM
        if spot % 2:
            shift = torch.randn(2, len(hu), device=hu.device) * 2
            row_mm = torch.where(paired, last[0] + shift[0], row_mm)
            column_mm = torch.where(paired, 2 * middle_mm - last[1] + shift[1], column_mm)
        last = row_mm, column_mm
        present = happens(hu, 1.0 if spot < 2 else 0.35)
        away = torch.sqrt((x - column_mm.reshape(-1, 1, 1, 1)) ** 2 + (uniform(hu, 0.6, 1.6) * (y - row_mm.reshape(-1, 1, 1, 1))) ** 2)
        radius = uniform(hu, 0.6, 5.0)
        share = step(away - radius, uniform(hu, 0.9, 4.0).minimum(2 * radius)) * inside * through * present
        hu = hu + (density * torch.exp(normal(hu, 0.2)) - hu.clamp(-20, 80)).clamp(min=0) * share
    return hu


def falx(hu, inside):
    x, y = plane(hu.device)
    middle_mm = ((inside * x).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)).reshape(-1, 1, 1, 1)
    bend = middle_mm + uniform(hu, -2, 2) + uniform(hu, -0.04, 0.04) * (y - SIDE_PX * PIXEL_MM / 2)
    line = step((x - bend).abs() - uniform(hu, 0.4, 1.8)) * inside
    part = y > uniform(hu, 60, 150)
    return hu + (uniform(hu, 48, 80) - hu) * line * part * (hu < 90) * 0.9


def vessels(hu, inside):
    tube = step(noise(hu, 22).abs() * 12 - uniform(hu, 0.4, 1.2)) * (noise(hu, 25) > 0.8)
    return hu + (uniform(hu, 90, 220) - hu) * tube * inside


def streaks(hu, inside):
    x, y = plane(hu.device)
    across, down = x - uniform(hu, 40, 190), y - uniform(hu, 40, 190)
    rays = torch.cos(torch.floor(uniform(hu, 4, 14)) * torch.atan2(down, across) + uniform(hu, 0, 6)) ** 3
    return hu + rays * uniform(hu, 5, 120) / (1 + torch.sqrt(across**2 + down**2) / uniform(hu, 5, 25))


def hardened(hu, bone_mm, share, rims, skew):
    """What a scanner adds along the skull, which is no blood: tissue gets denser towards bone (beam hardening, the
    skull's slope through a thick slab), on both sides much alike. `bone_mm`: each voxel's distance from bone; `rims`: at most so many HU, falling by e
    within so many mm; `skew`: 1 draws all heights alike, above it the high ones seldom."""
    chosen = torch.rand(len(hu), device=hu.device) < share
    out, hu, bone_mm = hu.clone(), hu[chosen], bone_mm[chosen]
    symmetric = noise(hu, 70)
    symmetric = (symmetric + symmetric.flip(3)) / math.sqrt(2)
    uneven = (1 + uniform(hu, 0, 0.7) * symmetric + uniform(hu, 0, 0.25) * noise(hu, 90)).clamp(0.1, 2.5)
    added = 0
    for most_hu, reach_mm in rims:
        added = added + most_hu * uniform(hu, 0, 1) ** skew * happens(hu, 0.7) * torch.exp(-bone_mm / uniform(hu, *reach_mm))
    out[chosen] = hu + (hu > -20) * (hu < 200) * uneven * added
    return out


def restacked(hu, mixable, shifted_share, thickened_share):
    """The neighbours mixed in, as shifted or thicker slabs are, and in either order. `mixable`: [n], whether the
    neighbours' labels leave that open."""
    draw, mixable = uniform(hu, 0, 1), mixable.reshape(-1, 1, 1, 1)
    shifted = (draw < shifted_share).float() * mixable
    thick = ((draw >= shifted_share) & (draw < shifted_share + thickened_share)).float() * mixable
    below, own, above = hu.split(1, 1)
    part = uniform(hu, 0, 0.45) * shifted
    own_shifted = (1 - part) * own + part * torch.where(uniform(hu, 0, 1) < 0.5, below, above)
    part = uniform(hu, 0.05, 0.33) * thick
    mixed = (1 - 2 * part) * own_shifted + part * (below + above)
    stack = torch.cat([(1 - part) * below + part * own, mixed, (1 - part) * above + part * own], 1)
    return torch.where(uniform(hu, 0, 1) < 0.5, stack.flip(1), stack)


def moved(hu, targets, settings):
    """Turned, scaled, shifted, mirrored and bent; of the result the inner INNER_PX: (HU, targets)."""
    n, device = len(hu), hu.device
    turn, scale, stretch = (normal(hu, settings[name]).flatten() for name in ("turn_deg", "scale", "stretch"))
    turn, scale, stretch = torch.deg2rad(turn), torch.exp(scale), torch.exp(stretch)
    mirror = torch.where(torch.rand(n, device=device) < 0.5, -1.0, 1.0)
    cos, sin = scale * torch.cos(turn), scale * torch.sin(turn)
    linear = torch.stack([mirror * cos * stretch, -sin, mirror * sin * stretch, cos], 1).reshape(n, 2, 2)
    shift = torch.randn(n, 2, 1, device=device) * settings["shift_px"] / (SIDE_PX / 2)
    line = (torch.arange(INNER_PX, device=device) - (INNER_PX - 1) / 2) / (SIDE_PX / 2)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    grid = torch.stack([columns, rows], -1).reshape(1, -1, 2) @ linear.transpose(1, 2) + shift.transpose(1, 2)
    grid = grid.reshape(n, INNER_PX, INNER_PX, 2)
    inner = slice((SIDE_PX - INNER_PX) // 2, (SIDE_PX + INNER_PX) // 2)
    bend = uniform(hu, 0, settings["bend_px"] / (SIDE_PX / 2)) * noise(hu, 48, 2)[..., inner, inner]
    grid = grid + bend.permute(0, 2, 3, 1)
    hu = functional.grid_sample(hu, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return hu, functional.grid_sample(targets, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def scanned(hu, offset_hu):
    """Another scanner: sharpness, noise, calibration."""
    chosen = torch.rand(3, len(hu), device=hu.device)
    hu, sharpness, noisy = hu.clone(), chosen[0] < 0.4, chosen[1] < 0.5
    some = hu[sharpness]
    smooth = torch.lerp(blurred(some, 0.7), blurred(some, 1.5), uniform(some, 0, 1))
    hu[sharpness] = some + uniform(some, -0.7, 1.0) * (smooth - some)  # below 0 sharper
    grain, coarse = torch.randn_like(hu[noisy]), chosen[2][noisy] < 0.5
    grain[coarse] = 2.2 * blurred(grain[coarse], 0.8)
    hu[noisy] += grain * uniform(grain, 0, 6)
    return hu * torch.exp(normal(hu, 0.03)) + normal(hu, offset_hu)


def windowed(hu, contract):
    """The card's windows, slab by slab: [n, 3 x windows, rows, columns], as `data.windowed`."""
    cut = [(hu - one["low_hu"]) / (one["high_hu"] - one["low_hu"]) for one in contract["windows"]]
    return torch.stack(cut, 2).clamp(0, 1).flatten(1, 2)
