//! Voxels in planes and pieces: what sees bone, what hangs together, how far it reaches.

use std::collections::VecDeque;

use ndarray::{Array2, Array3, ArrayView2, Axis, s};

use super::{BONE_HU, SIGHT_MM, VOXEL_MM};

/// For each voxel the number of the plane's eight directions in which bone is met.
pub(crate) fn bone_in_sight(plane: &ArrayView2<'_, f32>) -> Array2<u8> {
    let mut seen = Array2::zeros(plane.dim());
    for (down, right) in [
        (0, 1),
        (0, -1),
        (1, 0),
        (-1, 0),
        (1, 1),
        (1, -1),
        (-1, 1),
        (-1, -1),
    ] {
        look(plane, down, right, &mut seen);
    }
    seen
}

/// Adds one to each voxel that meets bone when it looks back against the direction `down`, `right`.
fn look(plane: &ArrayView2<'_, f32>, down: isize, right: isize, seen: &mut Array2<u8>) {
    let (rows, columns) = plane.dim();
    let stride_mm = VOXEL_MM * ((down * down + right * right) as f64).sqrt();
    // Distance to the last bone on the way, mm.
    let mut distance = Array2::from_elem((rows, columns), f64::INFINITY);
    let ordered = |length: usize, step: isize| -> Vec<usize> {
        if step < 0 {
            (0..length).rev().collect()
        } else {
            (0..length).collect()
        }
    };
    for row in ordered(rows, down) {
        for column in ordered(columns, right) {
            let before = row
                .checked_add_signed(-down)
                .zip(column.checked_add_signed(-right))
                .and_then(|place| distance.get(place))
                .copied()
                .unwrap_or(f64::INFINITY);
            let here = if plane[(row, column)] >= BONE_HU {
                0.0
            } else {
                before + stride_mm
            };
            distance[(row, column)] = here;
            seen[(row, column)] += u8::from(here <= SIGHT_MM);
        }
    }
}

/// The largest piece of `mask` connected by faces; empty if the mask is.
pub(crate) fn largest_piece(mask: &Array3<bool>) -> Array3<bool> {
    let mut label = Array3::<u32>::zeros(mask.dim());
    let mut largest = (0_usize, 0_u32);
    let mut next = 0;
    for (place, flag) in mask.indexed_iter() {
        if *flag && label[place] == 0 {
            next += 1;
            let size = flood(mask, &mut label, place, next);
            if size > largest.0 {
                largest = (size, next);
            }
        }
    }
    label.mapv(|piece| piece != 0 && piece == largest.1)
}

pub(super) fn flood(
    mask: &Array3<bool>,
    label: &mut Array3<u32>,
    start: (usize, usize, usize),
    piece: u32,
) -> usize {
    let mut waiting = VecDeque::from([start]);
    label[start] = piece;
    let mut size = 0;
    while let Some((z, y, x)) = waiting.pop_front() {
        size += 1;
        let beside = [
            (z.wrapping_sub(1), y, x),
            (z + 1, y, x),
            (z, y.wrapping_sub(1), x),
            (z, y + 1, x),
            (z, y, x.wrapping_sub(1)),
            (z, y, x + 1),
        ];
        for place in beside {
            // Wrapped places lie outside and have no entry.
            if mask.get(place) == Some(&true) && label[place] == 0 {
                label[place] = piece;
                waiting.push_back(place);
            }
        }
    }
    size
}

/// First and last places (x, y, z) of what is set; `None` if nothing is.
pub(super) fn bounds(mask: &Array3<bool>) -> Option<[[usize; 3]; 2]> {
    let mut found: Option<[[usize; 3]; 2]> = None;
    for ((z, y, x), _) in mask.indexed_iter().filter(|(_, flag)| **flag) {
        let place = [x, y, z];
        let [low, high] = found.get_or_insert([place, place]);
        for axis in 0..3 {
            low[axis] = low[axis].min(place[axis]);
            high[axis] = high[axis].max(place[axis]);
        }
    }
    found
}

/// Shorter and longer side of the rectangle around `mask`, mm.
pub(super) fn sides_mm(mask: &ArrayView2<'_, bool>) -> [f64; 2] {
    let solid = mask.to_owned().insert_axis(Axis(0));
    let [low, high] = bounds(&solid).unwrap_or([[0; 3]; 2]);
    let sides_mm = [0, 1].map(|axis| (high[axis] - low[axis] + 1) as f64 * VOXEL_MM);
    [sides_mm[0].min(sides_mm[1]), sides_mm[0].max(sides_mm[1])]
}

/// `mask` and all within `voxels` of it along rows and columns (a square neighbourhood).
pub(super) fn grown(mask: &ArrayView2<'_, bool>, voxels: usize) -> Array2<bool> {
    let (rows, columns) = mask.dim();
    let mut along_rows = Array2::from_elem((rows, columns), false);
    for ((row, column), _) in mask.indexed_iter().filter(|(_, flag)| **flag) {
        let (low, high) = (
            column.saturating_sub(voxels),
            (column + voxels + 1).min(columns),
        );
        along_rows.slice_mut(s![row, low..high]).fill(true);
    }
    let mut both = Array2::from_elem((rows, columns), false);
    for ((row, column), _) in along_rows.indexed_iter().filter(|(_, flag)| **flag) {
        let (low, high) = (row.saturating_sub(voxels), (row + voxels + 1).min(rows));
        both.slice_mut(s![low..high, column]).fill(true);
    }
    both
}

/// Whether `skull` reaches a side of the field of view in more than one plane.
pub(super) fn touches_side(skull: &Array3<bool>) -> bool {
    let touches = |plane: &ArrayView2<'_, bool>| {
        let (rows, columns) = plane.dim();
        let edges = [
            plane.row(0),
            plane.row(rows - 1),
            plane.column(0),
            plane.column(columns - 1),
        ];
        edges.iter().any(|edge| edge.iter().any(|flag| *flag))
    };
    skull.outer_iter().filter(touches).count() > 1
}
