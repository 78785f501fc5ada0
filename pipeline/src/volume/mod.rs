//! A series' slices → one volume in Hounsfield units with its geometry certificate.

mod certificate;
mod grid;

pub use certificate::GeometryCertificate;
pub use grid::{Grid, PatientPoint, VoxelPoint};

use ndarray::Array3;

use crate::uid::Uid;

/// A head volume on an orthogonal, evenly spaced grid.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Hounsfield units, rounded; axes: slice (feet to head), row, column.
    pub hounsfield: Array3<i16>,
    /// Where the voxels lie in the patient.
    pub grid: Grid,
    /// For each received slice, feet to head: its SOP Instance UID and the place of its centre
    /// along the grid's slice axis, in voxels of the grid (fractions lie between).
    pub sources: Vec<SourceSlice>,
}

/// Where a received slice lies in the volume.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSlice {
    /// The object.
    pub sop_instance_uid: Uid,
    /// Zero-based frame of it.
    pub frame_index: usize,
    /// Position along the volume's slice axis, in voxels.
    pub slice_position: f64,
}
