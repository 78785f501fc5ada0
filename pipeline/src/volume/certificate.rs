//! What was found out about a series' geometry, and what was done about it.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// The geometry part of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeometryCertificate {
    /// Distinct slices that the volume was made of.
    pub slices: usize,
    /// Angle between the stack's direction and the slices' normal, degrees, never negative.
    pub tilt_deg: f64,
    /// Between columns (x) and between rows (y), mm.
    pub spacing_mm: [f64; 2],
    /// Smallest and largest gap between neighbouring slice planes, mm along the normal.
    pub gap_mm: [f64; 2],
    /// Whether voxels were moved: tilt sheared out or uneven gaps resampled.
    pub rectified: bool,
    /// What was odd.
    pub warnings: Vec<Reason>,
}
