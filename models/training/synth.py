"""Blood, put into three neighbouring slabs of a head.

Blood is drawn as the share of each voxel that it fills, so its border has partial volume; that share
is the voxel target. Lengths are in mm on the slabs' grid. Axes: slab, row, column.
"""

import cv2
import numpy as np

from data import BLOOD, EDH, IPH, IVH, SAH, SDH, UNKNOWN

PIXEL_MM, SLAB_MM = 230 / 256, 5.0
# Places through a slab at which a shape is asked; their mean is the share of the slab.
THROUGH_MM = np.array([-2.0, -0.7, 0.7, 2.0])
SMALLEST_AREA_PX = 3000  # of the inside of the skull: above the base, below the vertex
SMALLEST_BLEED_PX = 7


def noise(rng, shape, period_px):
    """A smooth random field of mean 0 and deviation 1."""
    coarse = rng.standard_normal([max(int(side / period_px) + 3, 4) for side in shape]).astype(np.float32)
    field = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / (field.std() + 1e-6)


def step(distance_mm, width_mm=0.9):
    """Share of blood at a signed distance from its border: 1 inside (below 0)."""
    return np.clip(0.5 - distance_mm / width_mm, 0, 1)


def depth_mm(inside):
    """Distance from the skull's inner side."""
    return np.stack([cv2.distanceTransform(slab.astype(np.uint8), cv2.DIST_L2, 5) for slab in inside]) * PIXEL_MM


def plane():
    y, x = np.mgrid[0:256, 0:256].astype(np.float32) * PIXEL_MM
    return x, y


def heights(centre_mm):
    """Height of each slab's sampled places above the bleed's middle."""
    return [slab * SLAB_MM + THROUGH_MM - centre_mm for slab in (-1, 0, 1)]


def parenchymal(rng, hu, inside, depth, low):
    """One bleed of any size, or up to four dots near each other, as contusions and shear injuries are."""
    choices = np.argwhere((depth[1] > 5) & (hu[1] > 15))
    if not len(choices):
        return None
    if rng.random() < 0.6:
        places, least_ml, most_ml = choices[rng.integers(len(choices))][None], 0.15, 70
    else:
        near = np.hypot(*(choices - choices[rng.integers(len(choices))]).T) * PIXEL_MM < 30
        places, least_ml, most_ml = rng.choice(choices[near], rng.integers(1, 5)), 0.03, 0.5
    share, ring = np.zeros_like(hu), np.zeros_like(hu)
    for place in places:
        one, around = clot(rng, place * PIXEL_MM, np.exp(rng.uniform(np.log(least_ml), np.log(most_ml))))
        share, ring = np.maximum(share, one), np.maximum(ring, around)
    share *= depth > 1.0
    swollen = hu - rng.uniform(0, 11) * ring * (hu > 12) * inside
    return share, swollen


def clot(rng, place_mm, volume_ml):
    """Share of a ragged ellipsoid in each voxel, and of the ring around it that swells."""
    cy, cx = place_mm
    radius = (volume_ml * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    ratios = np.exp(rng.normal(0, 0.22, 3))
    turn = rng.uniform(0, np.pi)
    x, y = plane()
    u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / ratios[0]
    v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / ratios[1]
    wobble = rng.uniform(0.03, 0.3) * noise(rng, x.shape, max(radius / PIXEL_MM * rng.uniform(0.5, 1.2), 4))
    middle = rng.uniform(-0.7, 0.7) * radius
    share, ring = np.zeros((3, *x.shape), np.float32), np.zeros((3, *x.shape), np.float32)
    for slab, through in enumerate(heights(middle)):
        for height in through:
            out = np.sqrt(u**2 + v**2 + (height / ratios[2]) ** 2) - radius * (1 + wobble)
            share[slab] += step(out) / len(through)
            ring[slab] += np.clip(1 - np.maximum(out, 0) / rng.uniform(3, 8), 0, 1) / len(through)
    return share, ring


def layer(rng, hu, inside, depth, low, is_lens):
    """A crescent (subdural) or a lens (epidural) along the inner side of the skull."""
    x, y = plane()
    rows, columns = np.nonzero(inside[1])
    cy, cx = rows.mean() * PIXEL_MM, columns.mean() * PIXEL_MM
    angle = rng.uniform(-np.pi, np.pi)
    if is_lens:
        half, thick, tall = rng.uniform(0.16, 0.6), np.exp(rng.uniform(np.log(2.5), np.log(26))), rng.uniform(12, 45)
    else:
        half, thick, tall = rng.uniform(0.5, 1.5), np.exp(rng.uniform(np.log(2), np.log(18))), rng.uniform(15, 70)
    away = (np.arctan2(y - cy, x - cx) - angle + np.pi) % (2 * np.pi) - np.pi
    middle = rng.uniform(-0.8, 0.8) * tall
    rough = 1 + rng.uniform(0, 0.15) * noise(rng, x.shape, 20)
    share = np.zeros_like(hu)
    # A crescent ends at the midline, a lens at sutures; neither crosses the falx.
    own_side = ((x - cx) * np.sign(np.cos(angle)) > 1.0) | (is_lens & (rng.random() < 0.3))
    for slab, through in enumerate(heights(middle)):
        for height in through:
            rest = 1 - (away / half) ** 2 - (height / tall) ** 2
            profile = np.clip(rest, 0, None) ** (1.0 if is_lens else 0.5)
            out = depth[slab] - thick * profile * rough
            share[slab] += np.where(rest > 0, step(out), 0) / len(through)
    share *= own_side & (depth > 0.2)
    return share, hu


def in_front(inside):
    """Whether a place lies before the middle of the middle slab's inside. Low in the head what lies deep is cisterns in front, and the
    fourth ventricle behind."""
    _, y = plane()
    return y < np.nonzero(inside[1])[0].mean() * PIXEL_MM


def fluid(hu, inside):
    """Share of cerebrospinal fluid, as well as can be told from noise."""
    smooth = np.stack([cv2.GaussianBlur(slab, (0, 0), 1.0) for slab in np.clip(hu, -20, 80)])
    return np.clip((23 - smooth) / 12, 0, 1) * inside, smooth


def ventricular(rng, hu, inside, depth, low):
    csf, _ = fluid(hu, inside)
    x, y = plane()
    _, columns = np.nonzero(inside[1])
    deep = csf * (depth > 22) * ~(low & in_front(inside))
    if deep[1].sum() < (25 if low else 60):
        return None
    place = np.ones_like(x)
    if rng.random() < 0.6:
        place = place * (((x - columns.mean() * PIXEL_MM) * rng.choice([-1, 1])) > 0)
    filled = (deep[1] * place) > 0.5
    if filled.sum() < (15 if low else 30):
        return None
    if rng.random() < 0.6:  # settled to the back, with a level
        level = np.quantile(np.nonzero(filled)[0] * PIXEL_MM, rng.uniform(0, 0.8))
        place = place * step(level - y + 1.0 * noise(rng, x.shape, 25), 1.5)
    share = deep * place
    return np.clip(share * 1.3, 0, 1), hu


def subarachnoid(rng, hu, inside, depth, low):
    csf, smooth = fluid(hu, inside)
    # What lies around, of tissue alone: bone beside it would make a sulcus of all that lies along the skull.
    weight = np.stack([cv2.GaussianBlur(slab.astype(np.float32), (0, 0), 4.0) for slab in inside])
    around = np.stack([cv2.GaussianBlur(slab, (0, 0), 4.0) for slab in smooth * inside]) / np.maximum(weight, 0.05)
    sulci = np.clip((around - smooth - 1) / 4, 0, 1) * inside
    thin = np.stack([step(np.abs(noise(rng, slab.shape, rng.uniform(8, 16))) * 4 - rng.uniform(0.3, 0.8)) for slab in hu])
    films = np.maximum(np.maximum(csf * (depth < 30), sulci), thin * (rng.random() < 0.5)) * (depth < rng.uniform(12, 35))
    films = np.where(low & in_front(inside), np.maximum(csf, films), films)
    choices = np.argwhere((films[1] > 0.5) & (depth[1] > 0.5))
    if len(choices) < 30:
        return None
    cy, cx = choices[rng.integers(len(choices))] * PIXEL_MM
    x, y = plane()
    reach, tall = rng.uniform(9, 45), rng.uniform(8, 30)
    ragged = reach * (1 + 0.3 * noise(rng, x.shape, 14))
    near = np.stack([
        step(np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (slab * SLAB_MM * reach / tall) ** 2) - ragged, 6) for slab in (-1, 0, 1)
    ])
    return films * near * rng.uniform(0.75, 1.0), hu


SHAPES = {
    IPH: parenchymal,
    IVH: ventricular,
    SAH: subarachnoid,
    SDH: lambda *where: layer(*where, is_lens=False),
    EDH: lambda *where: layer(*where, is_lens=True),
}
# Density of blood, HU: mean range, by kind. Layers may hold older, lighter parts.
DENSITY_HU = {IPH: (52, 80), IVH: (45, 78), SAH: (50, 78), SDH: (42, 76), EDH: (45, 78)}


def add_bleed(rng, hu, inside, kind, low):
    """Gives the slabs with a bleed of `kind` and its share of each voxel, or None where it does not fit. `low`: at the level of the
    basal cisterns or below."""
    if inside[1].sum() < SMALLEST_AREA_PX:
        return None
    made = SHAPES[kind](rng, hu, inside, depth_mm(inside), low)
    if made is None:
        return None
    share, around = made
    share = share * cv2.dilate(inside[1].astype(np.uint8), np.ones((3, 3), np.uint8)) * (hu < 150)
    if share[1].sum() < SMALLEST_BLEED_PX:
        return None
    blood = rng.uniform(*DENSITY_HU[kind]) + rng.uniform(0, 5) * np.stack([noise(rng, slab.shape, rng.uniform(6, 30)) for slab in hu])
    if kind in (SDH, EDH, IPH) and rng.random() < 0.2:  # unclotted or older parts
        blood -= rng.uniform(8, 22) * (noise(rng, hu.shape[1:], 25) > 0.3)
    # The tissue's own noise stays: blood takes the place of the smooth image, not of the grain.
    grain = hu - np.stack([cv2.GaussianBlur(np.clip(slab, -20, 90), (0, 0), 1.5) for slab in hu])
    grain = np.clip(grain, -12, 12) * rng.uniform(0.4, 1.0)
    return around * (1 - share) + (blood + grain) * share, share


def outline_mm(inside):
    """Middle of a slab's inside, and how far it reaches at each degree."""
    rows, columns = np.nonzero(inside)
    middle = np.array([columns.mean(), rows.mean()])
    away = np.column_stack([columns, rows]) - middle
    degree = np.degrees(np.arctan2(away[:, 1], away[:, 0])).astype(int) % 360
    reach = np.zeros(360)
    np.maximum.at(reach, degree, np.hypot(*away.T))
    around = np.concatenate([reach[-4:], reach, reach[:4]])
    smooth = np.stack([around[shift : shift + 360] for shift in range(9)])
    return middle * PIXEL_MM, np.median(smooth, axis=0) * PIXEL_MM


def transplant(rng, hu, inside, donor_hu, donor_inside, blood):
    """Gives the slabs with the blood of another patient, and its target in the middle slab: the donor's
    head is stretched, along each direction from its middle, to the shape of this one.

    `blood`: bool as `donor_hu`, what of the donor is surely blood. None where it does not fit.
    """
    if inside[1].sum() < SMALLEST_AREA_PX or donor_inside[1].sum() < SMALLEST_AREA_PX:
        return None
    (own_middle, own_reach), (other_middle, other_reach) = outline_mm(inside[1]), outline_mm(donor_inside[1])
    x, y = plane()
    mirror = rng.choice([-1, 1])
    away_x, away_y = x - own_middle[0], y - own_middle[1]
    own_degree = np.degrees(np.arctan2(away_y, away_x)).astype(int) % 360
    other_degree = np.degrees(np.arctan2(away_y, mirror * away_x)).astype(int) % 360
    stretch = np.clip(other_reach[other_degree] / np.maximum(own_reach[own_degree], 1), 0.5, 2)
    from_x = ((other_middle[0] + mirror * away_x * stretch) / PIXEL_MM).astype(np.float32)
    from_y = ((other_middle[1] + away_y * stretch) / PIXEL_MM).astype(np.float32)
    moved = [cv2.remap(slab, from_x, from_y, cv2.INTER_LINEAR, borderValue=-1000.0) for slab in donor_hu.astype(np.float32)]
    core = [cv2.remap(slab.astype(np.float32), from_x, from_y, cv2.INTER_LINEAR) > 0.5 for slab in blood]
    fits = cv2.dilate(inside[1].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    # The donor's brain is brought to the density of this one.
    shift = np.median(hu[1][inside[1]]) - np.median(donor_hu[1][donor_inside[1]])
    out, target = hu.copy(), None
    for slab in range(3):
        place = core[slab] & fits & (moved[slab] < 110) & (hu[slab] < 150)
        wide = cv2.dilate(place.astype(np.float32), np.ones((5, 5), np.uint8)) * fits * (hu[slab] < 150)
        share = np.maximum(cv2.GaussianBlur(wide, (0, 0), 1.2) * wide, place)
        out[slab] += share * (moved[slab] + shift - hu[slab])
        if slab == 1:
            target = np.where(place, BLOOD, np.where(wide > 0, UNKNOWN, 0)).astype(np.uint8)
    return (out, target) if (target == BLOOD).sum() >= 12 else None
