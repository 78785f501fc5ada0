//! A stack as it was scanned → an orthogonal, evenly spaced volume.
//!
//! The gantry's tilt moves each slice within its own plane. Each output plane takes the two slices
//! that it lies between, puts each where it truly lies beside the stack's normal (linear
//! interpolation along rows and columns), and mixes them by distance. Nothing is rotated: axes stay
//! row, column and normal. What no slice covers is air. This is what dcm2niix does in its `Tilt`
//! and `Eq` steps, in one pass and for a tilt in any direction.

use ndarray::{Array3, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::limits::Limits;
use crate::reason::ReasonCode;

use super::gaps::Gaps;
use super::stack::{Placed, Stack};
use super::{Grid, PatientPoint, VolumeError};

/// Tilts up to this are rounding of positions, degrees.
const TILT_TOLERANCE_DEG: f64 = 0.1;
/// Largest distance of a slice from the stack's line that is left alone, pixels.
const ASIDE_PIXELS: f64 = 0.5;
/// Weights below this are rounding.
const WEIGHT_MIN: f64 = 1e-3;
/// Shifts all values so that the air around the slices is zero and need not be written, HU.
const AIR_HU: f32 = -1000.0;

/// The line along which slices lie: their offsets beside the normal, fitted over all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    /// Angle between the line and the normal, degrees, never negative.
    pub(super) tilt_deg: f64,
    /// Largest distance of a slice from the line, along rows and columns, mm.
    pub(super) aside_mm: [f64; 2],
}

impl Line {
    /// Fits the line by least squares; `slices` are at least two.
    pub(super) fn through(slices: &[Placed<'_>]) -> Self {
        let count = slices.len() as f64;
        let mean_along = slices.iter().map(|slice| slice.along_mm).sum::<f64>() / count;
        let variance: f64 = slices
            .iter()
            .map(|slice| (slice.along_mm - mean_along).powi(2))
            .sum();
        let fit = |axis: usize| {
            let mean_beside = slices
                .iter()
                .map(|slice| slice.beside_mm[axis])
                .sum::<f64>()
                / count;
            let covariance: f64 = slices
                .iter()
                .map(|slice| (slice.along_mm - mean_along) * (slice.beside_mm[axis] - mean_beside))
                .sum();
            let slope = covariance / variance;
            let aside_mm = slices
                .iter()
                .map(|slice| {
                    let on_line = mean_beside + slope * (slice.along_mm - mean_along);
                    (slice.beside_mm[axis] - on_line).abs()
                })
                .fold(0.0, f64::max);
            (slope, aside_mm)
        };
        let ((row_slope, row_aside), (column_slope, column_aside)) = (fit(0), fit(1));
        Self {
            tilt_deg: row_slope.hypot(column_slope).atan().to_degrees(),
            aside_mm: [row_aside, column_aside],
        }
    }

    pub(super) fn is_tilted(&self) -> bool {
        self.tilt_deg > TILT_TOLERANCE_DEG
    }

    /// Whether slices lie off the line by more than can be left alone.
    pub(super) fn is_staggered(&self, spacing_mm: [f64; 2]) -> bool {
        (0..2).any(|axis| self.aside_mm[axis] > ASIDE_PIXELS * spacing_mm[axis])
    }
}

/// The volume's lattice and where each slice goes on it.
#[derive(Clone, Debug)]
pub(super) struct Lattice {
    pub(super) grid: Grid,
    /// Whether voxels must be moved to get there.
    pub(super) moves: bool,
    shifts: Vec<Shift>,
}

/// Where a slice's first voxel lies, in pixels right of and below the lattice's.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shift {
    columns: Step,
    rows: Step,
}

/// A distance in whole pixels and a fraction that is nought or worth interpolating.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    whole: usize,
    fraction: f64,
}

impl Step {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "distances from the least offset are not negative; a huge one fails the limit"
    )]
    fn new(pixels: f64) -> Self {
        let snapped = if (pixels - pixels.round()).abs() < WEIGHT_MIN {
            pixels.round()
        } else {
            pixels
        };
        Self {
            whole: snapped.floor() as usize,
            fraction: snapped - snapped.floor(),
        }
    }

    /// Pixels by which the lattice must exceed the slice.
    fn reach(self) -> usize {
        self.whole.saturating_add(usize::from(self.fraction > 0.0))
    }

    /// Whole shifts and their weights.
    fn taps(self) -> impl Iterator<Item = (usize, f64)> {
        [
            (self.whole, 1.0 - self.fraction),
            (self.whole + 1, self.fraction),
        ]
        .into_iter()
        .filter(|(_, weight)| *weight > 0.0)
    }
}

impl Lattice {
    /// Plans the volume of `stack` and checks it against the limit.
    ///
    /// # Errors
    ///
    /// [`ReasonCode::LimitExceeded`] if it would have too many voxels.
    pub(super) fn plan(
        stack: &Stack<'_>,
        gaps: &Gaps,
        line: &Line,
        limits: &Limits,
    ) -> Result<Self, VolumeError> {
        let slices: Vec<Placed<'_>> = stack.places.iter().map(|place| *place.first()).collect();
        let beside_moves = line.is_tilted() || line.is_staggered(stack.spacing_mm);
        let origin_beside = [0, 1].map(|axis| {
            let offsets = slices.iter().map(|slice| slice.beside_mm[axis]);
            if beside_moves {
                offsets.fold(f64::INFINITY, f64::min)
            } else {
                // Offsets differ by rounding only: the middle one halves the error.
                slices[slices.len() / 2].beside_mm[axis]
            }
        });
        let shift = |slice: &Placed<'_>, axis: usize| {
            if beside_moves {
                let mm = slice.beside_mm[axis] - origin_beside[axis];
                Step::new(mm / stack.spacing_mm[axis])
            } else {
                Step::new(0.0)
            }
        };
        let shifts: Vec<Shift> = slices
            .iter()
            .map(|slice| Shift {
                columns: shift(slice, 0),
                rows: shift(slice, 1),
            })
            .collect();
        let reach = |pick: fn(&Shift) -> Step| {
            shifts
                .iter()
                .map(|shift| pick(shift).reach())
                .max()
                .unwrap_or(0)
        };
        let size = [
            stack.columns.saturating_add(reach(|shift| shift.columns)),
            stack.rows.saturating_add(reach(|shift| shift.rows)),
            planes(&slices, gaps),
        ];
        check_size(size, limits)?;
        let first_along = slices.first().map_or(0.0, |slice| slice.along_mm);
        Ok(Self {
            grid: grid(stack, origin_beside, first_along, gaps.step_mm, size),
            moves: beside_moves || !gaps.even,
            shifts,
        })
    }

    /// Place of `slice` along the grid's slice axis, voxels.
    pub(super) fn slice_position(&self, slice: &Placed<'_>, first: &Placed<'_>) -> f64 {
        (slice.along_mm - first.along_mm) / self.grid.spacing_mm[2]
    }
}

/// Planes of the volume: the last lies on the last slice or less than a step beyond it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "slices lie in order; a huge number saturates and fails the limit"
)]
fn planes(slices: &[Placed<'_>], gaps: &Gaps) -> usize {
    if gaps.even {
        return slices.len();
    }
    let span_mm = match (slices.first(), slices.last()) {
        (Some(first), Some(last)) => last.along_mm - first.along_mm,
        _ => 0.0,
    };
    let steps = (span_mm / gaps.step_mm - 0.01).ceil().max(0.0);
    (steps as usize).saturating_add(1)
}

fn check_size(size: [usize; 3], limits: &Limits) -> Result<(), VolumeError> {
    let voxels = size
        .iter()
        .try_fold(1_usize, |product, side| product.checked_mul(*side));
    if voxels.is_some_and(|voxels| voxels <= limits.volume_voxels_max) {
        return Ok(());
    }
    Err(VolumeError::new(
        ReasonCode::LimitExceeded,
        format!(
            "A volume of {} × {} × {} voxels is more than the limit of {}.",
            size[0], size[1], size[2], limits.volume_voxels_max
        ),
    ))
}

fn grid(
    stack: &Stack<'_>,
    beside_mm: [f64; 2],
    along_mm: f64,
    step_mm: f64,
    size: [usize; 3],
) -> Grid {
    let axes = &stack.axes;
    let origin = std::array::from_fn(|axis| {
        axes.row[axis] * beside_mm[0]
            + axes.column[axis] * beside_mm[1]
            + axes.normal[axis] * along_mm
    });
    Grid {
        origin_mm: PatientPoint(origin),
        directions: [axes.row, axes.column, axes.normal],
        spacing_mm: [stack.spacing_mm[0], stack.spacing_mm[1], step_mm],
        size,
    }
}

/// Moves the voxels of `stacked` (a plane a slice, in order) onto the lattice, all cores at work.
pub(super) fn resample(
    stacked: &Array3<i16>,
    slices: &[Placed<'_>],
    lattice: &Lattice,
) -> Array3<i16> {
    let [columns, rows, planes] = lattice.grid.size;
    let mut volume = Array3::zeros((planes, rows, columns));
    let first_mm = slices.first().map_or(0.0, |slice| slice.along_mm);
    volume
        .axis_iter_mut(Axis(0))
        .into_par_iter()
        .enumerate()
        .for_each(|(plane, output)| {
            let along_mm = first_mm + plane as f64 * lattice.grid.spacing_mm[2];
            let sources: Vec<Source<'_>> = neighbours(slices, along_mm)
                .into_iter()
                .map(|(index, weight)| Source {
                    plane: stacked.index_axis(Axis(0), index),
                    shift: lattice.shifts[index],
                    weight,
                })
                .collect();
            mix(&sources, output);
        });
    volume
}

/// A slice that an output plane is made of.
struct Source<'a> {
    plane: ArrayView2<'a, i16>,
    shift: Shift,
    weight: f64,
}

/// The slices around `along_mm` and their weights; beyond the ends the end slice.
fn neighbours(slices: &[Placed<'_>], along_mm: f64) -> Vec<(usize, f64)> {
    let above = slices.partition_point(|slice| slice.along_mm <= along_mm);
    if above == 0 || above == slices.len() {
        return vec![(above.saturating_sub(1).min(slices.len() - 1), 1.0)];
    }
    let (below_mm, above_mm) = (slices[above - 1].along_mm, slices[above].along_mm);
    let weight = (along_mm - below_mm) / (above_mm - below_mm);
    if weight < WEIGHT_MIN {
        vec![(above - 1, 1.0)]
    } else if weight > 1.0 - WEIGHT_MIN {
        vec![(above, 1.0)]
    } else {
        vec![(above - 1, 1.0 - weight), (above, weight)]
    }
}

fn mix(sources: &[Source<'_>], mut output: ArrayViewMut2<'_, i16>) {
    let mut sum = vec![0.0_f32; output.ncols()];
    for (row, mut target) in output.rows_mut().into_iter().enumerate() {
        sum.fill(0.0);
        for source in sources {
            add_row(source, row, &mut sum);
        }
        for (voxel, above_air) in target.iter_mut().zip(&sum) {
            *voxel = rounded(above_air + AIR_HU);
        }
    }
}

/// Adds what `source` gives to output row `row`, as HU above air.
fn add_row(source: &Source<'_>, row: usize, sum: &mut [f32]) {
    for (down, row_weight) in source.shift.rows.taps() {
        let Some(source_row) = row
            .checked_sub(down)
            .filter(|at| *at < source.plane.nrows())
        else {
            continue;
        };
        let values = source.plane.row(source_row);
        for (right, column_weight) in source.shift.columns.taps() {
            let weight = narrowed(source.weight * row_weight * column_weight);
            // The lattice is as wide as every shifted slice (`Step::reach`).
            for (total, value) in sum[right..].iter_mut().zip(values) {
                *total += weight * (f32::from(*value) - AIR_HU);
            }
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a weight between 0 and 1 needs no more digits"
)]
fn narrowed(weight: f64) -> f32 {
    weight as f32
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a mean of 16-bit values is one, and a float cast saturates"
)]
fn rounded(hounsfield: f32) -> i16 {
    hounsfield.round() as i16
}
