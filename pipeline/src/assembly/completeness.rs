//! Is the stack that would be analysed provably whole? By positions, and by the pixels of three
//! slices: the two ends and one from the middle.

use ndarray::{Array2, Array3, s};

use crate::decode::{Decoding, frame_hounsfield};
use crate::head::{
    BASE_SHARE, BRAIN_HU, DIRECTIONS_MIN, VERTEX_CM2, VOXEL_MM, bone_in_sight, largest_piece,
};
use crate::instance::Instance;
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::series::stacks::{PlacedSlice, SAME_PLACE_MM, placed, span_mm};
use crate::series::{Slice, candidates, scans_of};
use crate::volume::examine_positions;

/// A gap of this many of both its neighbours may be one where slices are missing.
const SUSPICIOUS_GAPS: f64 = 1.5;

/// … and so may one of this many times its slices' thickness.
const GAP_OF_THICKNESS: f64 = 1.25;

/// The widest cross-section of a head lies about here in a stack that spans it: a share of the way
/// from the lowest to the topmost slice.
const WIDEST_SHARE: f64 = 0.55;

/// Whether more slices are to be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Even, without a gap, from above the vertex to the skull base.
    Whole,
    /// Slices may be missing; why.
    NotProven(Vec<Reason>),
}

impl Completeness {
    fn of(reasons: Vec<Reason>) -> Self {
        if reasons.is_empty() {
            Self::Whole
        } else {
            Self::NotProven(reasons)
        }
    }
}

/// Whether every scan of `instances` is whole, by the reconstruction that would be analysed. A study
/// without a scan that could be is never proven: a usable series may still come.
pub fn study_completeness(instances: &[Instance], limits: &Limits) -> Completeness {
    let candidates = candidates(instances, limits).list;
    let scans = scans_of(&candidates);
    if scans.is_empty() {
        return Completeness::NotProven(vec![Reason::new(
            ReasonCode::NoUsableSeries,
            "No series can be analysed so far.",
        )]);
    }
    for scan in scans.iter().take(limits.scans_max) {
        let best = scan
            .reconstructions
            .iter()
            .find_map(|at| candidates.get(*at));
        let Some(best) = best else { continue };
        let found = match completeness(&best.slices, limits) {
            Completeness::Whole => Completeness::of(best.incomplete.clone()),
            not_proven @ Completeness::NotProven(_) => not_proven,
        };
        if found != Completeness::Whole {
            return found;
        }
    }
    Completeness::Whole
}

/// Whether `slices`, one stack in any order, are whole. Decodes three of them, and none where the
/// positions already show that some are missing.
pub fn completeness(slices: &[Slice<'_>], limits: &Limits) -> Completeness {
    let by_positions = gaps(slices, limits);
    if !by_positions.is_empty() {
        return Completeness::NotProven(by_positions);
    }
    match ends(slices, limits) {
        Ok(reasons) => Completeness::of(reasons),
        Err(reason) => Completeness::NotProven(vec![reason]),
    }
}

/// Why slices may be missing between the ends. Blocks of even slices with an odd step between
/// them, as of 4 mm below and 7 mm above, have none missing.
fn gaps(slices: &[Slice<'_>], limits: &Limits) -> Vec<Reason> {
    let mut reasons = match examine_positions(slices, limits) {
        Ok(warnings) => warnings,
        Err(error) => return vec![error.reason],
    };
    reasons.retain(|reason| reason.code == ReasonCode::MissingSlices);
    if reasons.is_empty() {
        let placed = placed(slices).unwrap_or_default();
        reasons.extend(suspicious_gap(&places_mm(&placed)));
        reasons.extend(gap_beyond_thickness(&placed));
    }
    reasons
}

/// A gap that is wider than its slices are thick: what lies there may still come.
fn gap_beyond_thickness(placed: &[PlacedSlice<'_>]) -> Option<Reason> {
    let thickness_mm = |one: &PlacedSlice<'_>| one.slice.frame()?.thickness_mm;
    let wide = |pair: &[PlacedSlice<'_>]| {
        let gap_mm = pair[1].along_mm - pair[0].along_mm;
        let thick_mm = thickness_mm(&pair[0])?.max(thickness_mm(&pair[1])?);
        (gap_mm > GAP_OF_THICKNESS * thick_mm).then_some((gap_mm, thick_mm))
    };
    let (gap_mm, thick_mm) = placed.windows(2).find_map(wide)?;
    Some(Reason::new(
        ReasonCode::MissingSlices,
        format!(
            "Slices of {thick_mm:.2} mm lie {gap_mm:.2} mm apart: those between may be missing."
        ),
    ))
}

fn places_mm(placed: &[PlacedSlice<'_>]) -> Vec<f64> {
    let mut places: Vec<f64> = placed.iter().map(|placed| placed.along_mm).collect();
    places.dedup_by(|next, kept| *next - *kept < SAME_PLACE_MM);
    places
}

/// A gap that is wider than both its neighbours by more than a block's border explains.
fn suspicious_gap(places_mm: &[f64]) -> Option<Reason> {
    let gaps_mm: Vec<f64> = places_mm.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let wide = |index: &usize| {
        let before = index.checked_sub(1).and_then(|before| gaps_mm.get(before));
        let neighbours = [before, gaps_mm.get(index + 1)];
        let widest = neighbours
            .into_iter()
            .flatten()
            .copied()
            .fold(0.0, f64::max);
        widest > 0.0 && gaps_mm[*index] > SUSPICIOUS_GAPS * widest
    };
    let found = (0..gaps_mm.len()).find(wide)?;
    Some(Reason::new(
        ReasonCode::MissingSlices,
        format!(
            "After slice {} counted from the feet there is a gap of {:.2} mm, wider than its \
             neighbours.",
            found + 1,
            gaps_mm[found]
        ),
    ))
}

/// What the end slices do not show: brain that ends below the top, a base that the foot end
/// reaches.
fn ends(slices: &[Slice<'_>], limits: &Limits) -> Result<Vec<Reason>, Reason> {
    let stack = placed(slices).ok_or_else(|| {
        Reason::new(
            ReasonCode::MissingGeometry,
            "A slice has no place in the patient.",
        )
    })?;
    let widest_mm = stack[0].along_mm + WIDEST_SHARE * span_mm(&stack);
    let widest = stack.partition_point(|placed| placed.along_mm < widest_mm);
    let last = stack.len() - 1;
    let index = [0, widest.min(last), last];
    let mut areas_cm2 = [0.0; 3];
    for (area_cm2, index) in areas_cm2.iter_mut().zip(index) {
        *area_cm2 = brain_cm2(&stack[index].slice, limits)?;
    }
    let [lowest, widest, topmost] = areas_cm2;
    let mut reasons = Vec::new();
    if topmost > VERTEX_CM2 {
        reasons.push(Reason::new(
            ReasonCode::CoverageNotProven,
            format!(
                "The topmost slice still shows {topmost:.0} cm² of brain: slices above it may be \
                 missing."
            ),
        ));
    }
    if lowest > BASE_SHARE * widest {
        reasons.push(Reason::new(
            ReasonCode::CoverageNotProven,
            format!(
                "The lowest slice shows {lowest:.0} cm² of brain, the middle one {widest:.0}: \
                 slices below it may be missing."
            ),
        ));
    }
    Ok(reasons)
}

/// The largest piece of soft tissue within bone in one slice, cm², by the rule of [`crate::head`].
fn brain_cm2(slice: &Slice<'_>, limits: &Limits) -> Result<f64, Reason> {
    let hounsfield = frame_hounsfield(slice, Decoding::afresh(limits))?;
    let spacing_mm = slice
        .instance
        .frames
        .get(slice.frame_index)
        .and_then(|frame| frame.spacing_mm)
        .unwrap_or([1.0; 2]);
    let [width, height] = spacing_mm.map(pixels_per_box);
    let coarse = averaged(&hounsfield, width, height);
    let sight = bone_in_sight(&coarse.view());
    let enclosed =
        Array3::from_shape_fn((1, coarse.nrows(), coarse.ncols()), |(_, row, column)| {
            BRAIN_HU.contains(&coarse[(row, column)]) && sight[(row, column)] >= DIRECTIONS_MIN
        });
    let brain = largest_piece(&enclosed)
        .iter()
        .filter(|inside| **inside)
        .count();
    let box_cm2 = spacing_mm[0] * spacing_mm[1] * (width * height) as f64 / 100.0;
    Ok(brain as f64 * box_cm2)
}

/// How many pixels make up the side of a box of [`VOXEL_MM`].
fn pixels_per_box(spacing_mm: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a small range first; a NaN becomes zero"
    )]
    let pixels = (VOXEL_MM / spacing_mm).round().clamp(1.0, 1024.0) as usize;
    pixels.max(1)
}

/// Means over boxes of `width` × `height` pixels; what does not fill a box is left out.
fn averaged(hounsfield: &Array2<i16>, width: usize, height: usize) -> Array2<f32> {
    let (rows, columns) = (hounsfield.nrows() / height, hounsfield.ncols() / width);
    Array2::from_shape_fn((rows, columns), |(row, column)| {
        let part = hounsfield.slice(s![
            row * height..(row + 1) * height,
            column * width..(column + 1) * width
        ]);
        let sum: i64 = part.iter().map(|hounsfield| i64::from(*hounsfield)).sum();
        sum as f32 / part.len() as f32
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::tests::head_series;
    use crate::study::tests::fixture;

    fn first(completeness: Completeness) -> (ReasonCode, String) {
        let Completeness::NotProven(reasons) = completeness else {
            panic!("proven whole");
        };
        (reasons[0].code, reasons[0].text.clone())
    }

    fn of(instances: &[Instance]) -> Completeness {
        study_completeness(instances, &Limits::default())
    }

    #[test]
    fn a_whole_head_is_proven_and_each_lack_is_named() {
        let (_folder, mut instances) = fixture("small_head");
        instances.sort_by(|a, b| {
            let height = |instance: &Instance| instance.frames[0].position_mm.unwrap()[2];
            height(a).total_cmp(&height(b))
        });
        assert_eq!(of(&instances), Completeness::Whole);

        let (code, text) = first(of(&instances[..instances.len() - 6]));
        assert_eq!(code, ReasonCode::CoverageNotProven, "{text}");
        assert!(text.contains("topmost"), "{text}");

        let (code, text) = first(of(&instances[12..]));
        assert_eq!(code, ReasonCode::CoverageNotProven, "{text}");
        assert!(text.contains("lowest"), "{text}");

        let mut gap = instances.clone();
        gap.remove(10);
        assert_eq!(first(of(&gap)).0, ReasonCode::MissingSlices);

        let mut unreadable = instances.clone();
        unreadable[0].path = "nowhere".into();
        assert!(matches!(of(&unreadable), Completeness::NotProven(_)));
    }

    #[test]
    fn a_study_without_a_usable_series_is_never_proven() {
        assert_eq!(first(of(&[])).0, ReasonCode::NoUsableSeries);
        assert_eq!(first(of(&head_series(1, 1))).0, ReasonCode::NoUsableSeries);
    }

    fn at(heights_mm: &[f64], thickness_mm: impl Fn(usize) -> f64) -> Vec<Instance> {
        let mut instances = head_series(1, u32::try_from(heights_mm.len()).unwrap());
        for (index, (instance, height)) in instances.iter_mut().zip(heights_mm).enumerate() {
            instance.frames[0].position_mm = Some([0.0, 0.0, *height]);
            instance.frames[0].thickness_mm = Some(thickness_mm(index));
        }
        instances
    }

    fn gaps_of(instances: &[Instance]) -> Vec<Reason> {
        let slices: Vec<Slice<'_>> = instances
            .iter()
            .map(|instance| Slice::of(instance, 0))
            .collect();
        gaps(&slices, &Limits::default())
    }

    #[test]
    fn two_even_blocks_with_an_odd_step_between_them_have_nothing_missing() {
        let mut heights: Vec<f64> = (0..14).map(|index| 4.0 * f64::from(index)).collect();
        let step = heights[13] + 1.08;
        heights.extend((0..14).map(|index| step + 7.0 * f64::from(index)));
        let thickness = |index: usize| if index < 14 { 4.0 } else { 7.0 };
        assert_eq!(gaps_of(&at(&heights, thickness)), []);
        heights.remove(20);
        let thickness = |index: usize| if index < 14 { 4.0 } else { 7.0 };
        assert_eq!(
            gaps_of(&at(&heights, thickness))[0].code,
            ReasonCode::MissingSlices
        );
    }

    proptest! {
        #[test]
        fn any_slice_gone_from_within_an_even_stack_is_noticed(
            count in 8_usize..60,
            step_mm in 0.5_f64..8.0,
            gone in any::<proptest::sample::Index>(),
        ) {
            let mut heights: Vec<f64> = (0..count).map(|index| step_mm * index as f64).collect();
            prop_assert_eq!(gaps_of(&at(&heights, |_| step_mm)), []);
            heights.remove(1 + gone.index(count - 2));
            prop_assert_eq!(gaps_of(&at(&heights, |_| step_mm))[0].code, ReasonCode::MissingSlices);
        }
    }
}
