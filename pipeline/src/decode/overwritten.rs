//! Parts of a picture that are lost: painted over with one value, cut off, or garbled.
//!
//! A transfer that lost blocks, or a program that masks too much, leaves rectangles of one value or
//! of other bytes. What lay there is gone, and a bleed with it. Tissue has noise, so that no piece of
//! it has one value; skin and skull lie between brain and air, so that no long straight line has
//! brain on one side and air on the other; and few neighbours differ by more than bone from air.

use ndarray::{Array3, ArrayView2};
use rayon::prelude::*;

use super::plausible::{JUMP_HU, NOT_AIR_HU, count_of, lines_of, looked_at};
use crate::reason::{Reason, ReasonCode};

/// Slices that are looked at, evenly spread: at least one in 5 mm of any head.
const SLICES: usize = 64;
/// Rows that are looked at for pieces of one value.
const ROWS: usize = 128;
/// A piece is this share of a row, and not shorter than that many voxels.
const PIECES_IN_A_ROW: usize = 32;
const PIECE_MIN: usize = 8;
/// Brain and blood, HU. So much of a slice in pieces of one such value is paint (64 patients of
/// CT-ICH: at most 0.0003; one head of GE: none) …
const TISSUE_HU: std::ops::RangeInclusive<i16> = -20..=100;
const PAINTED_TISSUE_MAX: f64 = 0.003;
/// … and so much of any other value that is not air (CT-ICH: 0.076, where bone has one value).
const PAINTED_MAX: f64 = 0.15;
/// A piece counts from the fourth row in turn on that has its value, if those are more rows than a
/// block of JPEG has.
const ROWS_IN_TURN: usize = 4;
const BLOCK_PX: usize = 8;
/// Neighbours that differ by more than bone from air, HU, are at most this share of a slice (CT-ICH:
/// 0.01).
const AIR_HU: i16 = -1024;
const GARBLED_MAX: f64 = 0.04;
/// Emptiness, HU. A line that has it beside brain, two voxels away in 512, is a cut if it is this
/// share of the picture's side (CT-ICH: 0.1; GE: 0.08) …
const CUT_WITHIN: usize = 256;
const EMPTY_HU: i16 = -400;
const BRAIN_HU: std::ops::RangeInclusive<i16> = 0..=100;
const CUT_MIN: f64 = 0.2;
/// … unless it lies in the outermost tenth of the picture, where the head holder ends so.
const MARGIN_PARTS: usize = 10;

/// Slices of a stack (axes: slice, row, column; HU) that were painted over in part, as what makes
/// "nothing found" worth less.
pub(super) fn overwritten(hounsfield: &Array3<i16>) -> Option<Reason> {
    let slices = looked_at(hounsfield, SLICES);
    let painted = slices
        .par_iter()
        .filter(|plane| is_painted(plane) || is_cut(plane) || is_garbled(plane))
        .count();
    (painted > 0).then(|| {
        Reason::new(
            ReasonCode::ImplausiblePixels,
            format!(
                "On {painted} of the {} slices that were looked at, a part of the picture is not what \
                 a scanner makes (one value all over, a straight cut, or noise): what lay there was \
                 not seen. Send the series again, uncompressed.",
                slices.len()
            ),
        )
    })
}

/// Whether pieces of rows have one value, one row after the other, where a scanner has noise: lossy
/// compression leaves flat blocks, but not several of one value. Corners do not count: beyond
/// the circle that is reconstructed lies padding.
fn is_painted(plane: &ArrayView2<'_, i16>) -> bool {
    let (rows, columns) = plane.dim();
    let piece = (columns / PIECES_IN_A_ROW).max(PIECE_MIN);
    let every = (rows / ROWS).max(1);
    let in_turn = (BLOCK_PX / every + 1).max(ROWS_IN_TURN);
    let radius = rows.min(columns) as f64 / 2.0;
    // Of each piece: its one value, and for how many rows it has had it.
    let mut same = vec![(0_i16, 0_usize); columns / piece];
    let (mut looked_at, mut tissue, mut other) = (0_usize, 0_usize, 0_usize);
    for (row, values) in plane.outer_iter().enumerate().step_by(every) {
        let Some(values) = values.to_slice() else {
            continue;
        };
        let down = row as f64 + 0.5 - rows as f64 / 2.0;
        for (index, values) in values.chunks_exact(piece).enumerate() {
            looked_at += 1;
            let across = (index as f64 + 0.5) * piece as f64 - columns as f64 / 2.0;
            let value = values[0];
            let is_flat = value > NOT_AIR_HU && values.iter().all(|other| *other == value);
            let (before, times) = same[index];
            let times = match (is_flat, before == value) {
                (false, _) => 0,
                (true, true) => times + 1,
                (true, false) => 1,
            };
            same[index] = (value, times);
            if times >= in_turn && down.hypot(across) < radius {
                tissue += usize::from(TISSUE_HU.contains(&value));
                other += usize::from(!TISSUE_HU.contains(&value));
            }
        }
    }
    let is_over = |count: usize, most: f64| count as f64 > most * looked_at as f64;
    is_over(tissue, PAINTED_TISSUE_MAX) || is_over(other, PAINTED_MAX)
}

/// Whether so many neighbours jump that a part of the picture is no picture.
fn is_garbled(plane: &ArrayView2<'_, i16>) -> bool {
    let jumps: usize = lines_of(plane)
        .windows(2)
        .map(|pair| count_of(pair[0], pair[1], jumps_over))
        .sum();
    jumps as f64 > GARBLED_MAX * plane.len() as f64
}

/// Whether neighbours differ by more than bone from air; padding is no less than air.
fn jumps_over(one: i16, other: i16) -> bool {
    one.max(AIR_HU).abs_diff(other.max(AIR_HU)) > JUMP_HU
}

/// Whether a straight line along rows or columns has brain on one side and nothing on the other.
fn is_cut(plane: &ArrayView2<'_, i16>) -> bool {
    let (rows, columns) = plane.dim();
    let lines = lines_of(plane);
    let is_long = |count: usize, side: usize| count as f64 >= CUT_MIN * side as f64;
    let within = (rows.min(columns) / CUT_WITHIN).max(1);
    let mut along_rows = lines
        .windows(within + 1)
        .take(inside(rows).end)
        .skip(inside(rows).start);
    let is_row_cut = along_rows.any(|band| {
        is_long(count_of(band[0], band[within], ends), columns)
            || is_long(count_of(band[within], band[0], ends), columns)
    });
    is_row_cut || {
        let mut ended = vec![[0_u16; 2]; columns.saturating_sub(within)];
        for row in &lines {
            let beside = row.iter().skip(within);
            for ((counts, value), beside) in ended.iter_mut().zip(*row).zip(beside) {
                counts[0] += u16::from(ends(*value, *beside));
                counts[1] += u16::from(ends(*beside, *value));
            }
        }
        let inner = ended.get(inside(columns)).unwrap_or_default();
        let longest = inner.iter().flatten().max();
        longest.is_some_and(|count| is_long(usize::from(*count), rows))
    }
}

/// Lines of a picture of `side` that are not at its margin.
fn inside(side: usize) -> std::ops::Range<usize> {
    let margin = side / MARGIN_PARTS;
    margin..side.saturating_sub(margin + 1)
}

/// Whether brain has nothing beside it.
fn ends(brain: i16, beside: i16) -> bool {
    BRAIN_HU.contains(&brain) && (beside <= EMPTY_HU)
}

#[cfg(test)]
mod tests {
    use ndarray::s;

    use super::*;
    use crate::decode::Decoding;
    use crate::limits::Limits;
    use crate::study::StudyScans;
    use crate::study::tests::fixture;

    fn head() -> Array3<i16> {
        let (_folder, instances) = fixture("small_head");
        let limits = Limits::default();
        let scan = StudyScans::of(&instances, Decoding::afresh(&limits)).next_scan();
        scan.unwrap().volume.unwrap().volume.hounsfield
    }

    fn said(hounsfield: &Array3<i16>) -> String {
        overwritten(hounsfield).map_or_else(String::new, |reason| reason.text)
    }

    #[test]
    fn a_head_as_it_was_scanned_is_not_painted_over() {
        assert_eq!(said(&head()), "");
    }

    #[test]
    fn a_part_of_one_value_is_told_on_the_slices_that_have_it() {
        let head = head();
        let (_, rows, columns) = head.dim();
        let parts = [
            ("left half", s![8..18, .., ..columns / 2]),
            ("right half", s![8..18, .., columns / 2..]),
            ("upper half", s![8..18, ..rows / 2, ..]),
            ("lower half", s![8..18, rows / 2.., ..]),
            (
                "middle",
                s![8..18, rows / 4..rows * 3 / 4, columns / 4..columns * 3 / 4],
            ),
        ];
        for (name, part) in parts {
            // Water, brain, bone, air, stored zeros and below.
            for value in [0, 36, 80, 1000, 3071, -1000, -1024, -2048] {
                let mut painted = head.clone();
                painted.slice_mut(part).fill(value);
                let told = said(&painted);
                assert!(told.starts_with("On 10 of the"), "{name} {value}: {told:?}");
            }
        }
    }

    #[test]
    fn a_small_part_as_dense_as_brain_is_told() {
        let mut head = head();
        let (_, rows, columns) = head.dim();
        let (row, column) = (rows * 2 / 5, columns * 2 / 5);
        let part = s![10..12, row..row + rows / 8, column..column + columns / 8];
        head.slice_mut(part).fill(34);
        assert!(said(&head).starts_with("On 2 of the"));
    }

    #[test]
    fn a_garbled_part_and_a_soft_cut_are_told() {
        let head = head();
        let (_, rows, columns) = head.dim();
        let mut garbled = head.clone();
        let mut state = 7_u32;
        for value in garbled.slice_mut(s![8..18, rows / 4..rows / 2, ..]) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = i16::try_from(state >> 20).unwrap() - 1024;
        }
        assert!(said(&garbled).starts_with("On 10 of the"));
        let mut cut = head;
        cut.slice_mut(s![8..18, .., columns / 3..]).fill(-500);
        assert!(said(&cut).starts_with("On 10 of the"));
    }

    /// As lossy compression leaves it.
    #[test]
    fn flat_blocks_of_eight_are_no_paint() {
        let mut head = head();
        let source = head.clone();
        for ((slice, row, column), value) in head.indexed_iter_mut() {
            if (row / 8 + column / 8) % 2 == 0 {
                *value = source[(slice, row / 8 * 8, column / 8 * 8)];
            }
        }
        assert!(head.outer_iter().all(|plane| !is_painted(&plane)));
    }

    #[test]
    fn padding_in_the_corners_is_none() {
        let mut head = head();
        let (_, rows, columns) = head.dim();
        let (middle_row, middle_column) = (rows as f64 / 2.0, columns as f64 / 2.0);
        for ((_, row, column), value) in head.indexed_iter_mut() {
            let (down, across) = (row as f64 - middle_row, column as f64 - middle_column);
            if down.hypot(across) > middle_row {
                *value = 0;
            }
        }
        assert_eq!(said(&head), "");
    }
}
