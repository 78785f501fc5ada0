//! Pictures of what was found: each key slice, plain and with its marks.
//!
//! They are drawn on the slabs' lattice, so a picture's left is the patient's right and its top is
//! the front, whatever way the scanner stored the slice. Nothing of the patient stands in them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use image::{Rgb, RgbImage};
use models::analysis::Analysis;
use models::findings::Finding;
use models::output::FindingMap;
use ndarray::{Array2, ArrayView2, Axis};
use pipeline::uid::Uid;
use pipeline::volume::{SourceSlice, Volume, VoxelPoint};

/// The window in which brain is read, HU.
const WINDOW_HU: [f64; 2] = [0.0, 80.0];
/// The outline of marks.
const MARK: Rgb<u8> = Rgb([255, 64, 32]);
const AIR_HU: f64 = -1000.0;

/// Writes a picture of each key slice of each finding to `folder`, named
/// `UID_finding_N.png` by `uid`, the best slice first. Gives their paths.
///
/// # Errors
///
/// If one cannot be written.
pub(super) fn write_pictures(
    folder: &Path,
    uid: &Uid,
    analysis: &Analysis,
) -> anyhow::Result<Vec<PathBuf>> {
    let (Some(map), Some(volume)) = (analysis.map(), &analysis.volume) else {
        return Ok(Vec::new());
    };
    let mut written = Vec::new();
    for finding in analysis.report.findings.iter().filter(|one| one.present) {
        for (index, picture) in pictures(finding, &map, volume).into_iter().enumerate() {
            // A UID is digits and dots, so it cannot lead out of the folder.
            let name = format!("{uid}_{}_{}.png", finding.kind.as_str(), index + 1);
            let path = folder.join(name);
            picture
                .save(&path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            written.push(path);
        }
    }
    Ok(written)
}

fn pictures(finding: &Finding, map: &FindingMap, volume: &Volume) -> Vec<RgbImage> {
    let Some(channel) = map.kinds.iter().position(|kind| *kind == finding.kind) else {
        return Vec::new();
    };
    let marked = map.marked.index_axis(Axis(0), channel);
    let sources = finding.key_slices.iter().filter_map(|uid| {
        let mut sources = volume.sources.iter();
        sources.find(|source| source.sop_instance_uid == *uid)
    });
    sources
        .map(|source| {
            let slab = map.slab_of_source(source, volume);
            let plain = slice(source, map, volume);
            side_by_side(&plain, &marked.index_axis(Axis(0), slab))
        })
        .collect()
}

/// Hounsfield units of `source`'s plane on the slabs' lattice.
fn slice(source: &SourceSlice, map: &FindingMap, volume: &Volume) -> Array2<f64> {
    let [columns, rows, _] = map.grid.size;
    let slab = map.slab_of_source(source, volume) as f64;
    Array2::from_shape_fn((rows, columns), |(row, column)| {
        let place = map
            .grid
            .patient_from_voxel(VoxelPoint([column as f64, row as f64, slab]));
        let VoxelPoint([x, y, _]) = volume.grid.voxel_from_patient(place);
        hounsfield_at(volume, [x, y], source.slice_position)
    })
}

/// Between the four nearest voxels of the nearest slice; air outside.
fn hounsfield_at(volume: &Volume, [x, y]: [f64; 2], slice: f64) -> f64 {
    let at = |row: f64, column: f64| {
        let place = [slice.round(), row, column].map(index);
        let [Some(slice), Some(row), Some(column)] = place else {
            return AIR_HU;
        };
        let voxel = volume.hounsfield.get((slice, row, column));
        voxel.copied().map_or(AIR_HU, f64::from)
    };
    let (left, top) = (x.floor(), y.floor());
    let (right_part, low_part) = (x - left, y - top);
    let along = |row: f64| at(row, left) * (1.0 - right_part) + at(row, left + 1.0) * right_part;
    along(top) * (1.0 - low_part) + along(top + 1.0) * low_part
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "only what is not negative is taken; what is too large has no voxel"
)]
fn index(place: f64) -> Option<usize> {
    (place >= 0.0).then_some(place as usize)
}

fn side_by_side(hounsfield: &Array2<f64>, marked: &ArrayView2<'_, bool>) -> RgbImage {
    let (rows, columns) = hounsfield.dim();
    let mut picture = RgbImage::new(pixels(2 * columns), pixels(rows));
    for ((row, column), value) in hounsfield.indexed_iter() {
        let grey = Rgb([shade(*value); 3]);
        picture.put_pixel(pixels(column), pixels(row), grey);
        let shown = if is_outline(marked, row, column) {
            MARK
        } else {
            grey
        };
        picture.put_pixel(pixels(columns + column), pixels(row), shown);
    }
    picture
}

/// Whether a marked pixel lies beside one that is not.
fn is_outline(marked: &ArrayView2<'_, bool>, row: usize, column: usize) -> bool {
    let beside = [
        (row.wrapping_sub(1), column),
        (row + 1, column),
        (row, column.wrapping_sub(1)),
        (row, column + 1),
    ];
    marked[(row, column)] && beside.iter().any(|place| marked.get(*place) != Some(&true))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to a byte first"
)]
fn shade(hounsfield: f64) -> u8 {
    let [low, high] = WINDOW_HU;
    (255.0 * (hounsfield - low) / (high - low))
        .round()
        .clamp(0.0, 255.0) as u8
}

fn pixels(count: usize) -> u32 {
    u32::try_from(count).expect("a card's slab has at most 1024 pixels a side")
}

#[cfg(test)]
mod tests {
    use models::findings::{FindingKind, Probability};
    use ndarray::{Array3, Array4};
    use pipeline::uid::Uid;
    use pipeline::volume::{Grid, PatientPoint};

    use super::*;

    fn grid(size: usize, slices: usize) -> Grid {
        Grid {
            origin_mm: PatientPoint([0.0; 3]),
            directions: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            spacing_mm: [1.0; 3],
            size: [size, size, slices],
        }
    }

    /// 6 × 6 pixels, 3 slices; the scanner's rows run to the patient's right. One voxel of 80 HU
    /// lies on the patient's left.
    fn found() -> (Finding, FindingMap, Volume) {
        let mut hounsfield = Array3::from_elem((3, 6, 6), 40);
        hounsfield[(1, 2, 0)] = 80;
        let source = |index: u8| SourceSlice {
            sop_instance_uid: Uid::new(&format!("1.{index}")).unwrap(),
            frame_index: 0,
            slice_position: f64::from(index),
            position_mm: PatientPoint([0.0; 3]),
        };
        let volume = Volume {
            hounsfield,
            grid: Grid {
                origin_mm: PatientPoint([5.0, 0.0, 0.0]),
                directions: [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
                ..grid(6, 3)
            },
            sources: (0..3).map(source).collect(),
        };
        let mut marked = Array4::from_elem((1, 3, 6, 6), false);
        marked.slice_mut(ndarray::s![0, 1, 1..4, 3..6]).fill(true);
        let kind = FindingKind::IntracranialHemorrhage;
        let map = FindingMap {
            grid: grid(6, 3),
            kinds: vec![kind],
            marked,
            slab_prob: Array2::zeros((3, 1)),
        };
        let finding = Finding {
            kind,
            present: true,
            probability: Probability::new(0.9).unwrap(),
            volume_ml: None,
            volume_interval_ml: None,
            shift_mm: None,
            side: None,
            key_slices: vec![Uid::new("1.1").unwrap()],
        };
        (finding, map, volume)
    }

    #[test]
    fn the_patients_left_is_on_the_right_and_marks_are_outlined_in_the_second_half() {
        let (finding, map, volume) = found();
        let pictures = pictures(&finding, &map, &volume);
        assert_eq!(pictures.len(), 1);
        let picture = &pictures[0];
        assert_eq!(picture.dimensions(), (12, 6));
        assert_eq!(picture[(5, 2)], Rgb([255; 3]));
        assert_eq!(picture[(0, 2)], Rgb([128; 3]));
        assert_eq!(picture[(6 + 3, 1)], MARK);
        // Its middle is not painted over.
        assert_eq!(picture[(6 + 4, 2)], Rgb([128; 3]));
        assert_eq!(picture[(6, 0)], Rgb([128; 3]));
    }
}
