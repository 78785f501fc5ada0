//! The voxel lattice of one volume, and the way between it and the patient.
//!
//! Two spaces meet here. *Voxel* space counts columns, rows and slices from zero, at voxel
//! centres. *Patient* space is DICOM's: millimetres, x to the patient's left, y to the back,
//! z to the head (PS3.3 C.7.6.2.1.1). A conversion is named `target_from_source`.

use serde::{Deserialize, Serialize};

/// A point in voxel space: column, row, slice. Fractions lie between voxel centres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoxelPoint(pub [f64; 3]);

/// A point in patient space, mm: x left, y posterior, z head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatientPoint(pub [f64; 3]);

/// An orthogonal, evenly spaced lattice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Centre of voxel (0, 0, 0), mm.
    pub origin_mm: PatientPoint,
    /// Unit vectors along columns (x), rows (y) and slices (z), in patient space.
    pub directions: [[f64; 3]; 3],
    /// Distance between voxel centres along each of them, mm.
    pub spacing_mm: [f64; 3],
    /// Number of columns, rows and slices.
    pub size: [usize; 3],
}

impl Grid {
    /// Where `voxel` lies in the patient.
    pub fn patient_from_voxel(&self, voxel: VoxelPoint) -> PatientPoint {
        let mut point = self.origin_mm.0;
        for (axis, direction) in self.directions.iter().enumerate() {
            let distance_mm = voxel.0[axis] * self.spacing_mm[axis];
            for (coordinate, component) in point.iter_mut().zip(direction) {
                *coordinate += distance_mm * component;
            }
        }
        PatientPoint(point)
    }

    /// Where `point` lies in the lattice; outside it the result is below zero or past the size.
    pub fn voxel_from_patient(&self, point: PatientPoint) -> VoxelPoint {
        let offset: [f64; 3] = std::array::from_fn(|axis| point.0[axis] - self.origin_mm.0[axis]);
        VoxelPoint(std::array::from_fn(|axis| {
            let direction = &self.directions[axis];
            let along_mm: f64 = offset.iter().zip(direction).map(|(a, b)| a * b).sum();
            along_mm / self.spacing_mm[axis]
        }))
    }

    /// Volume of one voxel, mL.
    pub fn voxel_volume_ml(&self) -> f64 {
        self.spacing_mm.iter().product::<f64>() / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_voxel_lies_on_the_origin_and_the_way_back_is_exact() {
        let grid = Grid {
            origin_mm: PatientPoint([-120.0, -100.0, 30.0]),
            directions: [[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]],
            spacing_mm: [0.5, 0.5, 5.0],
            size: [512, 512, 30],
        };
        assert_eq!(
            grid.patient_from_voxel(VoxelPoint([0.0; 3])),
            grid.origin_mm
        );
        let voxel = VoxelPoint([10.0, 20.5, 3.25]);
        let back = grid.voxel_from_patient(grid.patient_from_voxel(voxel));
        for axis in 0..3 {
            assert!((back.0[axis] - voxel.0[axis]).abs() < 1e-9);
        }
    }
}
