//! Whether the inside of a head can be read: contrast agent, metal, motion, noise.
//!
//! Twelve slabs of 5 mm are looked at, in pixels of 1 mm. Bounds stand far from what 65 routine
//! heads show (64 patients of CT-ICH, 28 of them bleeding, and one of another maker), so that none
//! of them is refused; the figures stand beside each bound. No head with contrast or with heavy
//! motion was among them: there only phantoms say that the bound is passed.

use ndarray::{Array2, Array3, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::pieces::{flood, grown};
use super::{Inside, VOXEL_MM, boxes};
use crate::prepare::average::PatientView;
use crate::reason::{Reason, ReasonCode};
use crate::volume::{Grid, Volume};

/// Pixels of a slab along the side of a coarse voxel.
const PIXELS_PER_VOXEL: usize = 4;
const PIXEL_MM: f64 = VOXEL_MM / PIXELS_PER_VOXEL as f64;
const SLAB_MM: f64 = 5.0;
/// Slabs that are looked at.
const SLABS: usize = 12;
/// A plane with less brain is not looked at, cm².
const PLANE_CM2_MIN: f64 = 60.0;
/// A plane with less than this share of the brain that planes up to so many below and above it have
/// is one that streaks have taken apart.
const DIP_SHARE: f64 = 0.7;
const DIP_PLANES: usize = 5;
/// Brain this near to the rim of the cavity counts neither as noise nor as metal, coarse voxels.
const RIM_VOXELS: usize = 2;

/// Blood in the superior sagittal sinus from which a contrast agent was given, HU. Without one it
/// has 45 to 75, in a thrombosed sinus up to 90; of 65 heads the highest has 72. Some seconds after
/// the injection it has 150 and more (the phantom, whose sinus is small, 107); in the first seconds,
/// before the agent has come back from the arteries, it has not, and such a scan is not noticed.
const CONTRAST_HU: f32 = 95.0;
/// Slabs from the widest upwards in which the sinus must be seen.
const SINUS_SLABS_MIN: usize = 3;
/// In pixels larger than this bone blurs over the sinus, and nothing is said, mm.
const SINUS_PIXEL_MM_MAX: f64 = 1.2;
/// Share of the widest slab's brain down to which the walls are steep enough to see it.
const SINUS_AREA_SHARE: f64 = 0.6;
/// Bone begins here, HU.
const SINUS_BONE_HU: f32 = 300.0;
/// To both sides of the way straight back the sinus is looked for, in half degrees.
const SINUS_HALF_DEGREES: i32 = 60;
/// Depth below the bone at which it lies, mm.
const SINUS_DEPTH_MM: std::ops::RangeInclusive<u32> = 2..=4;
/// Bone lies at this distance from the middle of the brain, mm.
const BONE_DISTANCE_MM: std::ops::Range<u32> = 30..130;

/// Noise of a 5 mm slab, HU, from which small or faint blood drowns: acute blood is some 25 HU denser
/// than brain. The highest of 65 heads is 2.4.
const NOISE_HU_MAX: f32 = 9.0;
/// At least this is metal and not bone or calcium, HU.
const METAL_HU: f32 = 1500.0;
/// No brain, blood or fluid has values beside these, HU.
const TISSUE_HU: std::ops::RangeInclusive<f32> = -30.0..=115.0;
/// Share of a slab with metal in which it has, from which streaks hide the brain. Without metal up to
/// 0.11 of a slab has (air in the head, calcium); a clip of 10 mm reaches 0.04.
const STREAKED_SHARE_MAX: f64 = 0.15;
/// How far a plane of the head may lie beside the middle of the planes next to it, mm.
const JUMP_MM_MAX: f64 = 5.0;
/// Below the widest plane, and above it with less than this share of its area, planes differ too much
/// to tell.
const JUMP_AREA_SHARE: f64 = 0.6;

/// Says whether the head can be read at all; gives what makes "nothing found" worth nothing.
///
/// # Errors
///
/// [`ReasonCode::Contrast`].
pub(super) fn examine(
    volume: &Volume,
    grid: &Grid,
    inside: &Inside,
) -> Result<Vec<Reason>, Reason> {
    let slabs = looks(volume, grid, inside);
    check_contrast(&slabs)?;
    Ok([noisy(&slabs), streaked(&slabs), moved(inside)]
        .into_iter()
        .flatten()
        .collect())
}

/// What one slab shows.
struct Look {
    brain_cm2: f64,
    /// Density of the sinus; `None` where there is no bone behind the brain.
    sinus_hu: Option<f32>,
    noise_hu: f32,
    /// Of the brain away from the rim.
    streaked_share: f64,
    has_metal: bool,
}

fn looks(volume: &Volume, grid: &Grid, inside: &Inside) -> Vec<Look> {
    let view = PatientView::of(volume);
    let cavities: Vec<Cavity> = (0..inside.areas_cm2.len())
        .map(|plane| Cavity::of(inside, plane))
        .filter(|cavity| cavity.brain_cm2 >= PLANE_CM2_MIN)
        .collect();
    let count = cavities.len().min(SLABS);
    // Pixels of a slab that share one of a coarse matrix have no noise between them.
    let noise_step = boxes(view.grid.spacing_mm[0] / PIXEL_MM);
    let [x_mm, y_mm, _] = view.grid.spacing_mm;
    let shows_sinus = x_mm.max(y_mm) <= SINUS_PIXEL_MM_MAX;
    (0..count)
        .into_par_iter()
        .filter_map(|index| {
            let cavity = &cavities[(2 * index + 1) * cavities.len() / (2 * count)];
            let slab = slab_of(&view, grid, cavity.plane);
            let look = look(&slab.view(), cavity, noise_step)?;
            Some(Look {
                sinus_hu: look.sinus_hu.filter(|_| shows_sinus),
                ..look
            })
        })
        .collect()
}

/// Where the brain lies in one coarse plane.
struct Cavity {
    plane: usize,
    brain_cm2: f64,
    /// Without holes: dense blood, calcium and vessels lie within the brain.
    mask: Array2<bool>,
}

impl Cavity {
    /// A plane that has much less brain than planes both below and above it is one where streaks
    /// have other values than brain: its brain lies where theirs does.
    fn of(inside: &Inside, plane: usize) -> Self {
        let most = |planes: std::ops::Range<usize>| {
            let areas = inside.areas_cm2[planes].iter().copied();
            areas.fold(0.0, f64::max)
        };
        let from = plane.saturating_sub(DIP_PLANES);
        let to = (plane + 1 + DIP_PLANES).min(inside.areas_cm2.len());
        let around_cm2 = most(from..plane).min(most(plane + 1..to));
        let own_cm2 = inside.areas_cm2[plane];
        if own_cm2 >= DIP_SHARE * around_cm2 {
            return Self {
                plane,
                brain_cm2: own_cm2,
                mask: filled(&inside.mask.index_axis(Axis(0), plane)),
            };
        }
        let around = inside.mask.slice(s![from..to, .., ..]);
        let union = around.map_axis(Axis(0), |column| column.iter().any(|flag| *flag));
        Self {
            plane,
            brain_cm2: around_cm2,
            mask: filled(&union.view()),
        }
    }
}

/// The slab around the middle of the coarse plane `plane`, over the same field.
fn slab_of(view: &PatientView<'_>, grid: &Grid, plane: usize) -> Array2<f32> {
    let [columns, rows, _] = grid.size;
    let lattice = view.lattice(
        grid.middle_of_plane(plane as f64),
        [PIXEL_MM, PIXEL_MM, SLAB_MM],
        [columns * PIXELS_PER_VOXEL, rows * PIXELS_PER_VOXEL, 1],
    );
    view.average(&lattice).index_axis_move(Axis(0), 0)
}

/// `None` where the rim leaves no brain.
fn look(slab: &ArrayView2<'_, f32>, cavity: &Cavity, noise_step: usize) -> Option<Look> {
    let outside = cavity.mask.mapv(|flag| !flag);
    let near_rim = grown(&outside.view(), RIM_VOXELS);
    let deep = |row: usize, column: usize| {
        let place = (row / PIXELS_PER_VOXEL, column / PIXELS_PER_VOXEL);
        !near_rim[place]
    };
    let (mut bends, mut streaked, mut has_metal) = (Vec::new(), 0_usize, false);
    for ((row, column), hounsfield) in slab.indexed_iter() {
        if deep(row, column) {
            has_metal |= *hounsfield >= METAL_HU;
            streaked += usize::from(!TISSUE_HU.contains(hounsfield));
            let beside = [column.wrapping_sub(noise_step), column + noise_step]
                .map(|at| slab.get((row, at)));
            if let [Some(before), Some(after)] = beside {
                bends.push((before - 2.0 * hounsfield + after).abs());
            }
        }
    }
    let brain = bends.len();
    (brain > 0).then(|| Look {
        brain_cm2: cavity.brain_cm2,
        sinus_hu: sinus_hu(slab, &cavity.mask),
        noise_hu: noise_hu(&mut bends),
        streaked_share: streaked as f64 / brain as f64,
        has_metal,
    })
}

/// Standard deviation of the noise from second differences along rows, by their median, which
/// neither tissue's borders nor a few bright places move: white noise of deviation 1 has second
/// differences of deviation √6, and a median magnitude of 0.6745 of that.
fn noise_hu(bends: &mut [f32]) -> f32 {
    let middle = bends.len() / 2;
    let (_, median, _) = bends.select_nth_unstable_by(middle, f32::total_cmp);
    *median / 0.6745 / 6.0_f32.sqrt()
}

/// The densest place right under the bone at the back: the superior sagittal sinus, where it runs.
/// A place is as dense as the least of the pixels that it goes through, so that bone in a pixel's
/// part does not count.
fn sinus_hu(slab: &ArrayView2<'_, f32>, cavity: &Array2<bool>) -> Option<f32> {
    let [row, column] = middle_of(cavity)?;
    (-SINUS_HALF_DEGREES..=SINUS_HALF_DEGREES)
        .filter_map(|half_degrees| {
            let angle = (f64::from(half_degrees) / 2.0).to_radians();
            let at = |mm: u32| pixel_along(slab, [row, column], angle, f64::from(mm));
            let bone = BONE_DISTANCE_MM
                .into_iter()
                .find(|mm| at(*mm) > SINUS_BONE_HU)?;
            SINUS_DEPTH_MM
                .map(|depth| at(bone - depth))
                .min_by(f32::total_cmp)
        })
        .max_by(f32::total_cmp)
}

/// The pixel `mm` from `middle` to the back, turned by `angle`; air outside the field.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place within some hundred pixels; a negative one becomes the first"
)]
fn pixel_along(slab: &ArrayView2<'_, f32>, middle: [f64; 2], angle: f64, mm: f64) -> f32 {
    let row = middle[0] + mm / PIXEL_MM * angle.cos();
    let column = middle[1] + mm / PIXEL_MM * angle.sin();
    let place = (row as usize, column as usize);
    slab.get(place).copied().unwrap_or(-1000.0)
}

/// Row and column of the middle of `cavity`, in pixels of a slab.
fn middle_of(cavity: &Array2<bool>) -> Option<[f64; 2]> {
    let [row, column] = centroid(&cavity.view())?;
    Some([row, column].map(|voxel| (voxel + 0.5) * PIXELS_PER_VOXEL as f64))
}

fn centroid(mask: &ArrayView2<'_, bool>) -> Option<[f64; 2]> {
    let (mut rows, mut columns, mut count) = (0, 0, 0);
    for ((row, column), _) in mask.indexed_iter().filter(|(_, flag)| **flag) {
        rows += row;
        columns += column;
        count += 1;
    }
    (count > 0).then(|| [rows, columns].map(|sum| sum as f64 / f64::from(count)))
}

/// `mask` with its holes.
fn filled(mask: &ArrayView2<'_, bool>) -> Array2<bool> {
    let (rows, columns) = mask.dim();
    // With a border of one all that lies outside hangs together.
    let around = Array3::from_shape_fn((1, rows + 2, columns + 2), |(_, row, column)| {
        let place = row.checked_sub(1).zip(column.checked_sub(1));
        let inside = place.and_then(|place| mask.get(place));
        inside != Some(&true)
    });
    let mut label = Array3::zeros(around.dim());
    flood(&around, &mut label, (0, 0, 0), 1);
    Array2::from_shape_fn((rows, columns), |(row, column)| {
        label[(0, row + 1, column + 1)] == 0
    })
}

/// By the faintest of the slabs from the widest upwards: a calcified falx or an oblique bone is as
/// dense in some of them, contrast in all.
fn check_contrast(slabs: &[Look]) -> Result<(), Reason> {
    let widest = (0..slabs.len())
        .max_by(|a, b| slabs[*a].brain_cm2.total_cmp(&slabs[*b].brain_cm2))
        .unwrap_or(0);
    let sinus_hu: Vec<f32> = slabs
        .iter()
        .skip(widest)
        .filter(|slab| slab.brain_cm2 >= SINUS_AREA_SHARE * slabs[widest].brain_cm2)
        .filter_map(|slab| slab.sinus_hu)
        .collect();
    let faintest_hu = sinus_hu.iter().copied().min_by(f32::total_cmp);
    let Some(faintest_hu) = faintest_hu.filter(|hounsfield| *hounsfield > CONTRAST_HU) else {
        return Ok(());
    };
    if sinus_hu.len() < SINUS_SLABS_MIN {
        return Ok(());
    }
    Err(Reason::new(
        ReasonCode::Contrast,
        format!(
            "By its pixels a contrast agent was given: blood in the superior sagittal sinus has \
             {faintest_hu:.0} HU or more, without an agent at most 90."
        ),
    ))
}

fn noisy(slabs: &[Look]) -> Option<Reason> {
    let mut noise_hu: Vec<f32> = slabs.iter().map(|slab| slab.noise_hu).collect();
    noise_hu.sort_by(f32::total_cmp);
    let median_hu = noise_hu.get(noise_hu.len() / 2).copied()?;
    (median_hu > NOISE_HU_MAX).then(|| {
        Reason::new(
            ReasonCode::Noise,
            format!(
                "The brain's noise is {median_hu:.0} HU in slabs of 5 mm; from {NOISE_HU_MAX:.0} HU \
                 on small or faint blood is not seen."
            ),
        )
    })
}

fn streaked(slabs: &[Look]) -> Option<Reason> {
    let heavy = |slab: &&Look| slab.has_metal && slab.streaked_share > STREAKED_SHARE_MAX;
    let count = slabs.iter().filter(heavy).count();
    let worst = slabs
        .iter()
        .filter(heavy)
        .map(|slab| slab.streaked_share)
        .max_by(f64::total_cmp)?;
    Some(Reason::new(
        ReasonCode::MetalArtefact,
        format!(
            "Metal throws streaks over up to {:.0} % of the brain in {count} of {} slabs; blood \
             below them is not seen.",
            100.0 * worst,
            slabs.len()
        ),
    ))
}

/// Planes of a head follow one another smoothly; one that lies aside was taken after a movement.
fn moved(inside: &Inside) -> Option<Reason> {
    let largest_cm2 = inside.areas_cm2.get(inside.widest).copied()?;
    let wide = |plane: usize| inside.areas_cm2[plane] >= JUMP_AREA_SHARE * largest_cm2;
    let middles: Vec<Option<[f64; 2]>> = inside
        .mask
        .outer_iter()
        .enumerate()
        .skip(inside.widest)
        .map(|(plane, mask)| wide(plane).then(|| centroid(&mask)).flatten())
        .collect();
    let jump_mm = middles
        .windows(3)
        .filter_map(|three| {
            let [Some(before), Some(here), Some(after)] = three else {
                return None;
            };
            let aside = [0, 1].map(|axis| here[axis] - f64::midpoint(before[axis], after[axis]));
            Some(VOXEL_MM * aside[0].hypot(aside[1]))
        })
        .max_by(f64::total_cmp)?;
    (jump_mm > JUMP_MM_MAX).then(|| {
        Reason::new(
            ReasonCode::Motion,
            format!(
                "The head moved between slices: neighbours lie {jump_mm:.0} mm aside of one another, \
                 and blood between them may be hidden or doubled."
            ),
        )
    })
}

#[cfg(test)]
mod tests;
