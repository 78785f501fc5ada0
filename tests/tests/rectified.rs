//! The rectified real head against dcm2niix, which converts for most of neuroimaging.

use std::path::{Path, PathBuf};
use std::process::Command;

use nifti::{IntoNdArray, NiftiHeader, NiftiObject, ReaderOptions};
use ndarray::Array3;
use tests::peers;
use tests::service::{shared_data, workspace_root};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
/// The bound on the mean absolute difference inside the head.
const DIFFERENCE_HU_MAX: f64 = 10.0;

/// A NIfTI volume: axes i, j, k, and the way from them to RAS millimetres.
struct Volume {
    hounsfield: Array3<f32>,
    ras_from_index: [[f64; 4]; 3],
}

impl Volume {
    fn read(path: &Path) -> Self {
        let object = ReaderOptions::new().read_file(path).expect("a NIfTI file");
        let ras_from_index = rows(object.header());
        let hounsfield = object.into_volume().into_ndarray::<f32>().expect("voxels");
        let hounsfield = hounsfield.into_dimensionality().expect("three axes");
        Self { hounsfield, ras_from_index }
    }

    fn ras(&self, index: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|row| {
            let line = self.ras_from_index[row];
            line[0] * index[0] + line[1] * index[1] + line[2] * index[2] + line[3]
        })
    }

    /// Fractional index of a point: the axes are orthogonal, so projecting on them inverts.
    fn index(&self, ras: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|axis| {
            let step: [f64; 3] = std::array::from_fn(|row| self.ras_from_index[row][axis]);
            let offset: [f64; 3] = std::array::from_fn(|row| ras[row] - self.ras_from_index[row][3]);
            let along: f64 = step.iter().zip(offset).map(|(a, b)| a * b).sum();
            along / step.iter().map(|a| a * a).sum::<f64>()
        })
    }

    /// Trilinear; `None` outside.
    fn at(&self, index: [f64; 3]) -> Option<f64> {
        let shape = self.hounsfield.dim();
        let sizes = [shape.0, shape.1, shape.2];
        let mut low = [0_usize; 3];
        let mut fraction = [0.0; 3];
        for axis in 0..3 {
            let floor = index[axis].floor();
            if floor < 0.0 || floor + 1.0 >= sizes[axis] as f64 {
                return None;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked against the shape")]
            let whole = floor as usize;
            low[axis] = whole;
            fraction[axis] = index[axis] - floor;
        }
        let mut sum = 0.0;
        for corner in 0..8_usize {
            let bit = |axis: usize| (corner >> axis) & 1;
            let weight: f64 =
                (0..3).map(|axis| if bit(axis) == 1 { fraction[axis] } else { 1.0 - fraction[axis] }).product();
            let voxel = self.hounsfield[[low[0] + bit(0), low[1] + bit(1), low[2] + bit(2)]];
            sum += weight * f64::from(voxel);
        }
        Some(sum)
    }
}

fn rows(header: &NiftiHeader) -> [[f64; 4]; 3] {
    [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from))
}

fn one_file(folder: &Path, part: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.contains(part) && name.contains(".nii")
        })
        .collect();
    assert_eq!(found.len(), 1, "{part} in {}: {found:?}", folder.display());
    found.remove(0)
}

/// Mean absolute difference over the reference's voxels that are not air, and how many they were.
fn mean_difference_hu(ours: &Volume, reference: &Volume) -> (f64, u32) {
    let (mut sum, mut count) = (0.0, 0_u32);
    for ((i, j, k), &expected) in reference.hounsfield.indexed_iter() {
        if expected < -200.0 {
            continue;
        }
        let ras = reference.ras([i as f64, j as f64, k as f64]);
        if let Some(found) = ours.at(ours.index(ras)) {
            sum += (found - f64::from(expected)).abs();
            count += 1;
        }
    }
    (sum / f64::from(count), count)
}

#[test]
fn the_rectified_real_head_matches_dcm2niix() {
    let Some(shared) = shared_data("the_rectified_real_head_matches_dcm2niix") else { return };
    let head = shared.join("data/ge-head");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let (theirs, ours) = (scratch.path().join("theirs"), scratch.path().join("ours"));
    std::fs::create_dir_all(&theirs).expect("a folder");
    peers::run(Command::new("dcm2niix").args(["-f", "head", "-o"]).arg(&theirs).arg(&head)).expect("dcm2niix");
    peers::run(
        Command::new(TEZ).args(["triage", "--json", "--volume-out"]).arg(&ours).arg(&head).current_dir(workspace_root()),
    )
    .expect("tez triage");
    let reference = Volume::read(&one_file(&theirs, "Tilt"));
    let (difference_hu, count) = mean_difference_hu(&Volume::read(&one_file(&ours, "")), &reference);
    println!("mean absolute difference {difference_hu:.2} HU over {count} voxels");
    assert!(count > 2_000_000, "{count} voxels of the head were compared");
    assert!(difference_hu <= DIFFERENCE_HU_MAX, "{difference_hu:.2} HU");
}
