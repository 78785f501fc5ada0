//! [`Volume`] → the tensor that a model takes.

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use crate::reason::Reason;
use crate::volume::{Grid, Volume};

/// A range of Hounsfield units that becomes one channel: `low_hu` → 0, `high_hu` → 1, clipped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Becomes 0.
    pub low_hu: f32,
    /// Becomes 1.
    pub high_hu: f32,
}

/// What a model takes: slabs of fixed physical size, centred on the head.
///
/// Slabs lie across the head-foot axis of the volume's grid and are averages over their
/// thickness; pixels are averages over their area. x runs to the patient's left, y to the back,
/// slabs from feet to head, whatever way the scanner stored them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputContract {
    /// Thickness of a slab and distance between slab centres, mm.
    pub slab_mm: f64,
    /// Width and height of a slab, pixels.
    pub side_px: usize,
    /// Width and height of a slab, mm.
    pub side_mm: f64,
    /// Slabs on each side of the slab in question that are shown with it.
    pub neighbours: usize,
    /// Channels of each slab.
    pub windows: Vec<Window>,
}

/// A tensor and where it lies in the patient.
#[derive(Clone, Debug)]
pub struct ModelInput {
    /// Axes: slab (feet to head), channel, row, column. Channels: for each offset from
    /// `-neighbours` to `+neighbours`, each window in the contract's order. Beyond the ends of the
    /// volume the end slab is repeated.
    pub tensor: Array4<f32>,
    /// Where the slabs' pixels lie in the patient; `size` is columns, rows, slabs.
    pub grid: Grid,
}

/// Brings `volume` into the form of `contract`.
///
/// # Errors
///
/// [`Reason`] if the volume is outside the contract.
pub fn prepare(volume: &Volume, contract: &InputContract) -> Result<ModelInput, Reason> {
    let _ = (volume, contract);
    Err(Reason::new(
        crate::reason::ReasonCode::OutsideModelContract,
        "not written yet",
    ))
}
