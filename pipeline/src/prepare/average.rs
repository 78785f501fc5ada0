//! Area averages of a volume on a coarser lattice along the patient's axes.
//!
//! Sampling points aliases noise; here every output voxel is the mean over its own box, with exact
//! fractions of the voxels at its border. The box is separable, so each output row is made of row
//! sums over slices, then over rows, then over columns, all in the first-level cache.

use ndarray::{Array3, ArrayView3, ArrayViewMut2, Axis, Slice};
use rayon::prelude::*;

use crate::volume::{Grid, PatientPoint, Volume, VoxelPoint};

/// What lies outside a volume, HU. Sums are kept relative to it, so that it need not be added.
const AIR_HU: f32 = -1000.0;

/// A volume seen along the patient's axes: x to the left, y to the back, z to the head, each the
/// nearest axis of the volume's own lattice. Nothing is rotated or copied.
pub(crate) struct PatientView<'a> {
    /// The lattice with its axes in that order and sense.
    pub(crate) grid: Grid,
    /// Axes z, y, x, each in the order of memory.
    voxels: ArrayView3<'a, i16>,
    /// Whether memory runs against the axis; x, y, z.
    reversed: [bool; 3],
}

/// How output beyond the volume's ends is averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    /// As air.
    Air,
    /// Not at all: the mean of the part inside.
    LeftOut,
}

/// One output place along one axis: the input places that it averages.
#[derive(Clone, Debug, PartialEq)]
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

impl<'a> PatientView<'a> {
    pub(crate) fn of(volume: &'a Volume) -> Self {
        let order = patient_order(&volume.grid);
        let reversed = [0, 1, 2].map(|axis| volume.grid.directions[order[axis]][axis] < 0.0);
        let mut corner = VoxelPoint([0.0; 3]);
        let mut directions = [[0.0; 3]; 3];
        for axis in 0..3 {
            let own = order[axis];
            directions[axis] = volume.grid.directions[own];
            if reversed[axis] {
                directions[axis] = directions[axis].map(|component| -component);
                corner.0[own] = volume.grid.size[own].saturating_sub(1) as f64;
            }
        }
        // A grid's axis 0, 1, 2 (columns, rows, slices) is an array's axis 2, 1, 0.
        let array_axes = [2 - order[2], 2 - order[1], 2 - order[0]];
        Self {
            grid: Grid {
                origin_mm: volume.grid.patient_from_voxel(corner),
                directions,
                spacing_mm: order.map(|own| volume.grid.spacing_mm[own]),
                size: order.map(|own| volume.grid.size[own]),
            },
            voxels: volume.hounsfield.view().permuted_axes(array_axes),
            reversed,
        }
    }

    /// The same volume with slices and rows left out, so that those left are at most `step_mm` apart
    /// where that is possible.
    pub(crate) fn thinned(mut self, step_mm: f64) -> Self {
        for (axis, array_axis) in [(2, Axis(0)), (1, Axis(1))] {
            let step = whole(
                (step_mm / self.grid.spacing_mm[axis])
                    .floor()
                    .clamp(1.0, 64.0),
            );
            let length = self.grid.size[axis];
            let (kept, last) = (length.div_ceil(step), (length - 1) / step * step);
            if self.reversed[axis] {
                // Along the axis the first voxel left is the last in memory.
                let mut first = VoxelPoint([0.0; 3]);
                first.0[axis] = (length - 1 - last) as f64;
                self.grid.origin_mm = self.grid.patient_from_voxel(first);
            }
            self.voxels
                .slice_axis_inplace(array_axis, Slice::from(..).step_by(step.cast_signed()));
            self.grid.spacing_mm[axis] *= step as f64;
            self.grid.size[axis] = kept;
        }
        self
    }

    /// A lattice of `size` boxes of `spacing_mm` along the same axes, centred on `centre`.
    pub(crate) fn lattice(
        &self,
        centre: PatientPoint,
        spacing_mm: [f64; 3],
        size: [usize; 3],
    ) -> Grid {
        let middle = self.grid.voxel_from_patient(centre);
        let first = VoxelPoint(std::array::from_fn(|axis| {
            let half_mm = (size[axis] as f64 - 1.0) / 2.0 * spacing_mm[axis];
            middle.0[axis] - half_mm / self.grid.spacing_mm[axis]
        }));
        Grid {
            origin_mm: self.grid.patient_from_voxel(first),
            directions: self.grid.directions,
            spacing_mm,
            size,
        }
    }

    /// Averages over the boxes of `target`, a lattice made by [`Self::lattice`]; axes: z, y, x.
    ///
    /// Beside the volume lies air. A box that reaches beyond the first or last slice is the mean of
    /// the part inside: air there would dilute the brain in the outermost slab.
    pub(crate) fn average(&self, target: &Grid) -> Array3<f32> {
        let x_taps = self.taps(target, 0, Outside::Air);
        let y_taps = self.taps(target, 1, Outside::Air);
        let z_taps = self.taps(target, 2, Outside::LeftOut);
        let [columns, rows, slabs] = target.size;
        let mut averages = Array3::zeros((slabs, rows, columns));
        averages
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(z_taps)
            .for_each(|(slab, z)| self.average_slab(&z, &y_taps, &x_taps, slab));
        averages
    }

    fn taps(&self, target: &Grid, axis: usize, outside: Outside) -> Vec<Taps> {
        let first = self.grid.voxel_from_patient(target.origin_mm).0[axis];
        let width = target.spacing_mm[axis] / self.grid.spacing_mm[axis];
        let length = self.grid.size[axis];
        (0..target.size[axis])
            .map(|place| {
                let middle = first + place as f64 * width;
                let mut taps = box_taps(middle - width / 2.0, middle + width / 2.0, length);
                if outside == Outside::LeftOut {
                    taps.normalise();
                }
                if self.reversed[axis] {
                    taps.reverse(length);
                }
                taps
            })
            .collect()
    }

    fn average_slab(
        &self,
        z_taps: &Taps,
        y_taps: &[Taps],
        x_taps: &[Taps],
        mut output: ArrayViewMut2<'_, f32>,
    ) {
        let width = self.voxels.len_of(Axis(2));
        let mut over_slices = vec![0.0; width];
        let mut summed_row = None;
        let mut over_rows = vec![0.0; width];
        for (mut target, y) in output.rows_mut().into_iter().zip(y_taps) {
            over_rows.fill(0.0);
            for (row, weight) in y.iter() {
                // Neighbouring boxes share the row at their border.
                if summed_row != Some(row) {
                    self.sum_slices(z_taps, row, &mut over_slices);
                    summed_row = Some(row);
                }
                add(&mut over_rows, weight, &over_slices);
            }
            for (voxel, x) in target.iter_mut().zip(x_taps) {
                let above_air: f32 = x.iter().map(|(at, weight)| weight * over_rows[at]).sum();
                *voxel = above_air + AIR_HU;
            }
        }
    }

    /// Weighted sum of row `row` over slices, as HU above air.
    fn sum_slices(&self, z_taps: &Taps, row: usize, sum: &mut [f32]) {
        sum.fill(0.0);
        for (slice, weight) in z_taps.iter() {
            let plane = self.voxels.index_axis(Axis(0), slice);
            let values = plane.index_axis_move(Axis(0), row);
            match values.to_slice() {
                Some(values) => add_voxels(sum, weight, values.iter()),
                None => add_voxels(sum, weight, values.iter()),
            }
        }
    }
}

fn add(sum: &mut [f32], weight: f32, values: &[f32]) {
    for (total, value) in sum.iter_mut().zip(values) {
        *total += weight * value;
    }
}

fn add_voxels<'a>(sum: &mut [f32], weight: f32, values: impl Iterator<Item = &'a i16>) {
    for (total, value) in sum.iter_mut().zip(values) {
        *total += weight * (f32::from(*value) - AIR_HU);
    }
}

/// For patient axes x, y, z the axis of `grid` that lies nearest; z chooses first, as slabs matter
/// most.
fn patient_order(grid: &Grid) -> [usize; 3] {
    let mut order = [0; 3];
    let mut free = vec![0, 1, 2];
    for axis in [2, 1, 0] {
        let nearness = |own: &usize| grid.directions[*own][axis].abs();
        let best = (0..free.len())
            .max_by(|a, b| nearness(&free[*a]).total_cmp(&nearness(&free[*b])))
            .unwrap_or(0);
        order[axis] = free.remove(best);
    }
    order
}

/// The voxels between `low` and `high`, in voxels of an axis of `length`, where voxel `n` reaches
/// from `n - 0.5` to `n + 0.5`. Weights are shares of the whole box, also of its part outside.
fn box_taps(low: f64, high: f64, length: usize) -> Taps {
    let inside = |edge: f64| (edge + 0.5).clamp(0.0, length as f64);
    let (start, end) = (inside(low), inside(high));
    let first = whole(start.floor()).min(length.saturating_sub(1));
    let last = whole(end.ceil()).clamp(first, length);
    let weights = (first..last)
        .map(|voxel| {
            let overlap = end.min(voxel as f64 + 1.0) - start.max(voxel as f64);
            narrowed(overlap.max(0.0) / (high - low))
        })
        .collect();
    Taps { first, weights }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the edge was clamped to an axis' length"
)]
fn whole(edge: f64) -> usize {
    edge as usize
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a weight between 0 and 1 needs no more digits"
)]
fn narrowed(weight: f64) -> f32 {
    weight as f32
}

impl Taps {
    fn iter(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.weights
            .iter()
            .enumerate()
            .map(|(offset, weight)| (self.first + offset, *weight))
    }

    /// Makes the weights' sum one, where the box touches the volume at all.
    fn normalise(&mut self) {
        let sum: f32 = self.weights.iter().sum();
        if sum > 0.0 {
            self.weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    }

    /// Counts voxels from the other end of an axis of `length`.
    fn reverse(&mut self, length: usize) {
        self.first = length - self.first - self.weights.len();
        self.weights.reverse();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn neighbouring_boxes_share_every_voxel_between_them_and_lose_none(
            start in -5.0..5.0_f64, width in 0.2..7.0_f64, length in 1_usize..40
        ) {
            let mut share = vec![0.0; length];
            for place in 0..400 {
                let low = start - 10.0 + f64::from(place) * width;
                for (at, weight) in box_taps(low, low + width, length).iter() {
                    share[at] += f64::from(weight) * width;
                }
            }
            for total in share {
                prop_assert!((total - 1.0).abs() < 1e-4, "{total}");
            }
        }
    }

    #[test]
    fn a_box_outside_has_no_weight() {
        assert!(
            box_taps(-9.0, -3.0, 5)
                .iter()
                .all(|(_, weight)| weight.abs() < 1e-6)
        );
        assert!(
            box_taps(7.0, 9.0, 5)
                .iter()
                .all(|(_, weight)| weight.abs() < 1e-6)
        );
    }
}
