//! A volume as a NIfTI-1 file, for other tools to read.
//!
//! DICOM's patient space is LPS (x to the left, y to the back), NIfTI's is RAS (x to the right, y
//! to the front); so the first two rows of the matrix change sign.

use std::path::{Path, PathBuf};

use nifti::NiftiHeader;
use nifti::writer::WriterOptions;
use pipeline::uid::Uid;
use pipeline::volume::{Grid, Volume};

/// `NIFTI_XFORM_SCANNER_ANAT` of nifti1.h: the matrix leads to the scanner's space.
const SCANNER_ANATOMICAL: i16 = 1;
/// `NIFTI_UNITS_MM` of nifti1.h.
const UNITS_MM: u8 = 2;

/// Writes `volume` (Hounsfield units, 16 bits) to `folder` as `<study UID>.nii.gz`, and gives its
/// path.
///
/// # Errors
///
/// If the file cannot be written.
pub(super) fn write_volume(
    folder: &Path,
    file_uid: &Uid,
    volume: &Volume,
) -> anyhow::Result<PathBuf> {
    // A UID is digits and dots, so it cannot lead out of the folder.
    let path = folder.join(format!("{file_uid}.nii.gz"));
    let header = header_of(&volume.grid);
    // NIfTI counts columns first, rows, then slices.
    let columns_first = volume.hounsfield.view().permuted_axes([2, 1, 0]);
    WriterOptions::new(&path)
        .reference_header(&header)
        .write_nifti(&columns_first)?;
    Ok(path)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the format holds 32 bits; a millionth of a millimetre is lost"
)]
fn header_of(grid: &Grid) -> NiftiHeader {
    let [x, y, z] = grid.spacing_mm.map(|spacing_mm| spacing_mm as f32);
    let row = |axis: usize, sign: f64| -> [f32; 4] {
        std::array::from_fn(|column| match column {
            3 => (sign * grid.origin_mm.0[axis]) as f32,
            _ => (sign * grid.directions[column][axis] * grid.spacing_mm[column]) as f32,
        })
    };
    NiftiHeader {
        pixdim: [1.0, x, y, z, 1.0, 1.0, 1.0, 1.0],
        xyzt_units: UNITS_MM,
        // Only the matrix is given: a quaternion says the same less exactly.
        qform_code: 0,
        sform_code: SCANNER_ANATOMICAL,
        srow_x: row(0, -1.0),
        srow_y: row(1, -1.0),
        srow_z: row(2, 1.0),
        ..NiftiHeader::default()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use nifti::{IntoNdArray, NiftiObject, ReaderOptions};
    use pipeline::volume::PatientPoint;

    use super::*;

    #[test]
    fn voxels_and_their_place_come_back_in_ras() {
        let mut hounsfield = Array3::zeros((4, 3, 2));
        hounsfield[[3, 1, 0]] = -1024;
        hounsfield[[0, 2, 1]] = 77;
        let volume = Volume {
            hounsfield,
            grid: Grid {
                origin_mm: PatientPoint([-120.0, -100.0, 30.0]),
                directions: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
                spacing_mm: [0.5, 0.25, 5.0],
                size: [2, 3, 4],
            },
            sources: Vec::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        let uid = Uid::new("1.2.3").unwrap();
        let path = write_volume(folder.path(), &uid, &volume).unwrap();
        assert!(path.ends_with("1.2.3.nii.gz"));
        let file = ReaderOptions::new().read_file(&path).unwrap();
        let header = file.header().clone();
        let floats = |row: [f32; 4]| row.map(f64::from);
        assert_eq!(
            format!("{:?}", floats(header.srow_x)),
            "[-0.5, -0.0, -0.0, 120.0]"
        );
        assert_eq!(
            format!("{:?}", floats(header.srow_y)),
            "[-0.0, -0.25, -0.0, 100.0]"
        );
        assert_eq!(
            format!("{:?}", floats(header.srow_z)),
            "[0.0, 0.0, 5.0, 30.0]"
        );
        let voxels = file.into_volume().into_ndarray::<i16>().unwrap();
        assert_eq!(voxels.shape(), [2, 3, 4]);
        assert_eq!((voxels[[0, 1, 3]], voxels[[1, 2, 0]]), (-1024, 77));
    }
}
