//! [`Volume`] → the tensor that a model takes.

pub(crate) mod average;

use ndarray::{Array3, Array4, ArrayViewMut3, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::head;
use crate::reason::{Reason, ReasonCode};
use crate::volume::{Grid, PatientPoint, SourceSlice, Volume};
use average::PatientView;

/// Largest tensor that is made, values (4 bytes each). Far above any head in any sound contract.
const TENSOR_VALUES_MAX: usize = 1 << 29;
/// A slab that would cover less than this share of its thickness at the volume's ends is not made.
const SLAB_SLIVER: f64 = 0.02;

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

impl InputContract {
    /// Channels of the tensor: every window of a slab and its neighbours.
    pub fn channels(&self) -> usize {
        (2 * self.neighbours + 1) * self.windows.len()
    }

    fn check(&self) -> Result<(), Reason> {
        let positive = |mm: f64| mm.is_finite() && mm > 0.0;
        let window = |window: &Window| {
            window.low_hu.is_finite()
                && window.high_hu.is_finite()
                && window.high_hu > window.low_hu
        };
        let sound = positive(self.slab_mm)
            && positive(self.side_mm)
            && (1..=4096).contains(&self.side_px)
            && self.neighbours <= 64
            && (1..=64).contains(&self.windows.len())
            && self.windows.iter().all(window);
        if sound {
            return Ok(());
        }
        Err(Reason::new(
            ReasonCode::OutsideModelContract,
            format!("The model's card asks for an input that cannot be made: {self:?}."),
        ))
    }
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

impl ModelInput {
    /// The received slice of `volume` that lies nearest to the middle of slab `slab`.
    pub fn source_of_slab<'a>(&self, slab: usize, volume: &'a Volume) -> Option<&'a SourceSlice> {
        volume.nearest_source(self.grid.middle_of_plane(slab as f64))
    }
}

/// Brings `volume` into the form of `contract`, centred on the head that [`head::examine`] finds.
///
/// # Errors
///
/// [`Reason`] if no such tensor can be made.
pub fn prepare(volume: &Volume, contract: &InputContract) -> Result<ModelInput, Reason> {
    prepare_centred(volume, contract, head::examine(volume).centre_mm)
}

/// Brings `volume` into the form of `contract`, its slabs centred on `centre`.
///
/// Slabs cover the whole volume from feet to head, evenly about its middle; only their place beside
/// that axis follows `centre`. Beside the volume lies air (-1000 HU). An end slab that reaches
/// beyond the volume is the mean of the part inside. Windows are cut after averaging.
///
/// # Errors
///
/// [`Reason`] if the contract is unsound or the tensor would be too large.
pub fn prepare_centred(
    volume: &Volume,
    contract: &InputContract,
    centre: PatientPoint,
) -> Result<ModelInput, Reason> {
    contract.check()?;
    let view = PatientView::of(volume);
    let grid = slab_grid(&view, contract, centre)?;
    let slabs = view.average(&grid);
    Ok(ModelInput {
        tensor: tensor(&slabs, contract),
        grid,
    })
}

fn slab_grid(
    view: &PatientView<'_>,
    contract: &InputContract,
    centre: PatientPoint,
) -> Result<Grid, Reason> {
    let height_mm = view.grid.size[2] as f64 * view.grid.spacing_mm[2];
    let slabs = (height_mm / contract.slab_mm - SLAB_SLIVER).ceil().max(1.0);
    let values =
        slabs * contract.channels() as f64 * contract.side_px as f64 * contract.side_px as f64;
    if values.is_nan() || values > TENSOR_VALUES_MAX as f64 {
        return Err(Reason::new(
            ReasonCode::LimitExceeded,
            format!(
                "The model's input would have {values:.0} values; the limit is \
                 {TENSOR_VALUES_MAX}."
            ),
        ));
    }
    let mut middle = view.grid.voxel_from_patient(centre);
    middle.0[2] = view.grid.voxel_from_patient(view.grid.middle()).0[2];
    let pixel_mm = contract.side_mm / contract.side_px as f64;
    Ok(view.lattice(
        view.grid.patient_from_voxel(middle),
        [pixel_mm, pixel_mm, contract.slab_mm],
        [contract.side_px, contract.side_px, slab_count(slabs)],
    ))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at least one and below the limit of the tensor"
)]
fn slab_count(slabs: f64) -> usize {
    slabs as usize
}

fn tensor(slabs: &Array3<f32>, contract: &InputContract) -> Array4<f32> {
    let (count, rows, columns) = slabs.dim();
    let mut tensor = Array4::zeros((count, contract.channels(), rows, columns));
    tensor
        .axis_iter_mut(Axis(0))
        .into_par_iter()
        .enumerate()
        .for_each(|(slab, channels)| fill_channels(slabs, slab, contract, channels));
    tensor
}

fn fill_channels(
    slabs: &Array3<f32>,
    slab: usize,
    contract: &InputContract,
    mut channels: ArrayViewMut3<'_, f32>,
) {
    let last = slabs.len_of(Axis(0)) - 1;
    let shown = (0..=2 * contract.neighbours).map(|offset| {
        (slab + offset)
            .saturating_sub(contract.neighbours)
            .min(last)
    });
    let pairs = shown.flat_map(|shown| contract.windows.iter().map(move |window| (shown, window)));
    for (mut channel, (shown, window)) in channels.outer_iter_mut().zip(pairs) {
        let scale = 1.0 / (window.high_hu - window.low_hu);
        channel.zip_mut_with(&slabs.index_axis(Axis(0), shown), |value, hounsfield| {
            *value = ((hounsfield - window.low_hu) * scale).clamp(0.0, 1.0);
        });
    }
}

#[cfg(test)]
mod tests;
