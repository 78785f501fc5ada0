//! Slices of two scans in turn, which no header tells apart.
//!
//! Where only one of the two scans bleeds, the same place is denser on every second slice. Nothing in
//! a head is like that: what it has on one slice goes on, or ends.

use ndarray::{Array2, Array3, ArrayView2, Axis};
use rayon::prelude::*;

use crate::reason::{Reason, ReasonCode};

/// At least so many slices are looked at, if there are so many; of thin ones not all, which would
/// take a study of 300 another 20 ms.
const SLICES: usize = 64;
/// Blocks across a picture: some 4 mm in a head. Fewer where one would have less voxels than average
/// noise away on a side.
const BLOCKS: usize = 64;
const SIDE_MIN_PX: usize = 4;
/// Rows of a block that are looked at: enough to average noise away.
const ROWS_OF_A_BLOCK: usize = 2;
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
    // An odd step keeps the turns of two scans.
    let every = (hounsfield.len_of(Axis(0)) / SLICES).saturating_sub(1) / 2 * 2 + 1;
    let planes: Vec<ArrayView2<'_, i16>> = hounsfield.outer_iter().step_by(every).collect();
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

/// The mean of each block of a slice, HU, by some of its rows; not a number where it is not all
/// tissue.
fn block_means(plane: &ArrayView2<'_, i16>) -> Array2<f32> {
    let (rows, columns) = plane.dim();
    let side = (rows.min(columns) / BLOCKS).max(SIDE_MIN_PX);
    let every = side / ROWS_OF_A_BLOCK;
    Array2::from_shape_fn((rows / side, columns / side), |(down, across)| {
        let (mut sum, mut tissue, mut voxels) = (0, 0, 0);
        for row in (down * side..(down + 1) * side).step_by(every) {
            let Some(values) = plane.row(row).to_slice() else {
                return f32::NAN;
            };
            let values = &values[across * side..(across + 1) * side];
            sum += values.iter().map(|value| i32::from(*value)).sum::<i32>();
            tissue += values
                .iter()
                .filter(|value| TISSUE_HU.contains(value))
                .count();
            voxels += side;
        }
        if tissue as f64 >= TISSUE_SHARE_MIN * voxels as f64 {
            sum as f32 / voxels as f32
        } else {
            f32::NAN
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoding;
    use crate::limits::Limits;
    use crate::study::StudyScans;
    use crate::study::tests::fixture;

    fn head(name: &str) -> Array3<i16> {
        let (_folder, instances) = fixture(name);
        let limits = Limits::default();
        let scan = StudyScans::of(&instances, Decoding::afresh(&limits)).next_scan();
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
