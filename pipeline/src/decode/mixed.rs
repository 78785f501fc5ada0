//! Slices of two scans in turn, which no header tells apart.
//!
//! Where only one of the two scans bleeds, the same place is denser on every second slice. Nothing in
//! a head is like that: what it has on one slice goes on, or ends.

use ndarray::{Array2, Array3, ArrayView2, Axis};
use rayon::prelude::*;

use crate::reason::{Reason, ReasonCode};

/// Blocks across a picture: some 4 mm in a head. Fewer where one would have less voxels than average
/// noise away on a side.
const BLOCKS: usize = 64;
const SIDE_MIN_PX: usize = 4;
/// Only where nearly all of a block is brain or blood, HU: the edge of bone moves from slice to slice.
const TISSUE_HU: std::ops::RangeInclusive<i16> = -10..=110;
const TISSUE_SHARE_MIN: f64 = 0.9;
/// A block that differs by so much from the mean of those above and below, HU, and by so many times
/// what half of the blocks differ …
const STEP_HU: f32 = 12.0;
const SPREADS: f32 = 4.0;
/// … in turn to either side, so many times from slice to slice …
const TURNS_MIN: usize = 4;
/// … in this share of the picture (64 patients of CT-ICH: at most 0.0005; one head of GE: none).
const SHARE_MIN: f64 = 0.003;

/// Says so if a stack (axes: slice, row, column; HU) looks like two in turn.
pub(super) fn mixed(hounsfield: &Array3<i16>) -> Option<Reason> {
    let planes: Vec<ArrayView2<'_, i16>> = hounsfield.outer_iter().collect();
    let blocks: Vec<Array2<f32>> = planes.par_iter().map(block_means).collect();
    // Not a number where one of the three is no tissue.
    let steps: Vec<Array2<f32>> = blocks
        .windows(3)
        .map(|around| &around[1] - (&around[0] + &around[2]) / 2.0)
        .collect();
    let large = STEP_HU.max(SPREADS * median_size(&steps)?);
    let mut turns: Array2<usize> = Array2::zeros(blocks.first()?.dim());
    let mut most = turns.clone();
    for pair in steps.windows(2) {
        ndarray::Zip::from(&mut turns)
            .and(&pair[0])
            .and(&pair[1])
            .for_each(|turns, step, next| {
                let both = step.abs().min(next.abs()) >= large;
                let is_turn = both && step * next < 0.0;
                *turns = if is_turn { *turns + 1 } else { 0 };
            });
        most.zip_mut_with(&turns, |most, turns| *most = (*most).max(*turns));
    }
    let flickers = most.iter().filter(|turns| **turns >= TURNS_MIN).count();
    (flickers as f64 >= SHARE_MIN * most.len() as f64).then(|| {
        Reason::new(
            ReasonCode::OverlappingSlices,
            "At one place the brain is denser on every second slice: these may be the slices of two \
             scans in turn, which the header does not tell apart. Volumes are not to be trusted; send \
             each scan as a series of its own.",
        )
    })
}

/// Half of the steps are smaller: what noise and anatomy make. `None` without tissue.
fn median_size(steps: &[Array2<f32>]) -> Option<f32> {
    let sizes = steps.iter().flatten().map(|step| step.abs());
    let mut sizes: Vec<f32> = sizes.filter(|size| !size.is_nan()).collect();
    let middle = sizes.len() / 2;
    (!sizes.is_empty()).then(|| *sizes.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// The mean of each block of a slice, HU; not a number where it is not all tissue.
fn block_means(plane: &ArrayView2<'_, i16>) -> Array2<f32> {
    let (rows, columns) = plane.dim();
    let side = (rows.min(columns) / BLOCKS).max(SIDE_MIN_PX);
    let mut sums = Array2::<i32>::zeros((rows / side, columns / side));
    let mut tissue = sums.clone();
    for (row, values) in plane.axis_iter(Axis(0)).enumerate() {
        let Some((values, block_row)) = values
            .to_slice()
            .filter(|_| row / side < rows / side)
            .map(|values| (values, row / side))
        else {
            continue;
        };
        for (column, block) in values.chunks_exact(side).enumerate() {
            sums[(block_row, column)] += block.iter().map(|value| i32::from(*value)).sum::<i32>();
            let inside = block.iter().filter(|value| TISSUE_HU.contains(value));
            tissue[(block_row, column)] += i32::try_from(inside.count()).unwrap_or(0);
        }
    }
    let voxels = (side * side) as f32;
    let mean = |sum: &i32, tissue: &i32| {
        if f64::from(*tissue) >= TISSUE_SHARE_MIN * f64::from(voxels) {
            *sum as f32 / voxels
        } else {
            f32::NAN
        }
    };
    ndarray::Zip::from(&sums).and(&tissue).map_collect(mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::study::StudyScans;
    use crate::study::tests::fixture;

    fn head(name: &str) -> Array3<i16> {
        let (_folder, instances) = fixture(name);
        let limits = Limits::default();
        let scan = StudyScans::of(&instances, &limits).next_scan();
        scan.unwrap().volume.unwrap().volume.hounsfield
    }

    #[test]
    fn one_scan_is_not_mixed() {
        for name in ["bleed_intraparenchymal_left", "metal_clip", "motion"] {
            assert_eq!(mixed(&head(name)), None, "{name}");
        }
    }

    #[test]
    fn blood_on_every_second_slice_is_told() {
        let healthy = head("head");
        for name in [
            "bleed_intraparenchymal_left",
            "bleed_intraparenchymal_lobar",
        ] {
            let bleeding = head(name);
            for turn in 0..2 {
                let mut both = bleeding.clone();
                let pairs = both.outer_iter_mut().zip(healthy.outer_iter());
                for (mut plane, other) in pairs.skip(turn).step_by(2) {
                    plane.assign(&other);
                }
                let reason = mixed(&both).unwrap();
                assert_eq!(reason.code, ReasonCode::OverlappingSlices);
            }
        }
    }
}
