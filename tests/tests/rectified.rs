//! The rectified real head against dcm2niix, which converts for most of neuroimaging.

use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::Array3;
use nifti::{IntoNdArray, NiftiObject, ReaderOptions};
use tests::peers;
use tests::service::{shared_data, workspace_root};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
/// The bound that was set for the mean absolute difference inside the head.
const DIFFERENCE_HU_MAX: f64 = 10.0;
/// Softer than this is air; both volumes are padded with it.
const HEAD_HU_MIN: f32 = -200.0;

/// A NIfTI volume: axes i, j, k.
struct Volume {
    hounsfield: Array3<f32>,
    slice_step_mm: f64,
}

impl Volume {
    fn read(path: &Path) -> Self {
        let object = ReaderOptions::new().read_file(path).expect("a NIfTI file");
        let slice_step_mm = f64::from(object.header().pixdim[3]);
        let hounsfield = object.into_volume().into_ndarray::<f32>().expect("voxels");
        Self {
            hounsfield: hounsfield.into_dimensionality().expect("three axes"),
            slice_step_mm,
        }
    }

    /// Linear between slices; `None` past the ends.
    fn at(&self, i: usize, j: usize, height_mm: f64) -> Option<f64> {
        let k = height_mm / self.slice_step_mm;
        let below = k.floor();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "heights begin at zero"
        )]
        let low = below as usize;
        let lower = f64::from(*self.hounsfield.get((i, j, low))?);
        let upper = f64::from(*self.hounsfield.get((i, j, low + 1))?);
        Some(lower + (upper - lower) * (k - below))
    }
}

/// The one NIfTI file in `folder` whose name holds `part`.
fn one_file(folder: &Path, part: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            name.contains(part) && name.contains(".nii")
        })
        .collect();
    assert_eq!(found.len(), 1, "{part} in {}: {found:?}", folder.display());
    found.remove(0)
}

/// Mean absolute difference over the reference's voxels that are not air, and how many they were.
///
/// The two lie in one lattice across the slices: dcm2niix too shifts rows and pads them, and begins
/// at the lowest slice; only its rows run the other way. Its header's matrix is of no use here: its
/// columns are not orthogonal for a tilted stack (seen with v1.0.20220720).
fn mean_difference_hu(ours: &Volume, reference: &Volume) -> (f64, u32) {
    let (mut sum, mut count) = (0.0, 0_u32);
    let rows = reference.hounsfield.dim().1;
    for ((i, j, k), &expected) in reference.hounsfield.indexed_iter() {
        if expected < HEAD_HU_MIN {
            continue;
        }
        if let Some(found) = ours.at(i, rows - 1 - j, k as f64 * reference.slice_step_mm) {
            sum += (found - f64::from(expected)).abs();
            count += 1;
        }
    }
    (sum / f64::from(count), count)
}

#[test]
fn the_rectified_real_head_matches_dcm2niix() {
    let Some(shared) = shared_data("the_rectified_real_head_matches_dcm2niix") else {
        return;
    };
    let head = shared.join("data/ge-head");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (theirs, ours) = (scratch.path().join("theirs"), scratch.path().join("ours"));
    std::fs::create_dir_all(&theirs).expect("a folder");
    peers::run(
        Command::new("dcm2niix")
            .args(["-f", "head", "-o"])
            .arg(&theirs)
            .arg(&head),
    )
    .expect("dcm2niix");
    peers::run(
        Command::new(TEZ)
            .args(["triage", "--json", "--volume-out"])
            .arg(&ours)
            .arg(&head)
            .current_dir(workspace_root()),
    )
    .expect("tez triage");
    let reference = Volume::read(&one_file(&theirs, "Tilt"));
    let rectified = Volume::read(&one_file(&ours, ""));
    let across = |volume: &Volume| (volume.hounsfield.dim().0, volume.hounsfield.dim().1);
    assert_eq!(
        across(&rectified),
        across(&reference),
        "columns and padded rows"
    );
    let (difference_hu, count) = mean_difference_hu(&rectified, &reference);
    println!("mean absolute difference {difference_hu:.2} HU over {count} voxels");
    assert!(
        count > 2_000_000,
        "{count} voxels of the head were compared"
    );
    assert!(difference_hu <= DIFFERENCE_HU_MAX, "{difference_hu:.2} HU");
}
