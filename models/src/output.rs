//! A network's raw output → findings, and the map of what they were read from.
//!
//! Two spaces meet here: *slab* space counts columns, rows and slabs of the network's tensor,
//! *patient* space is DICOM's (x to the patient's left). The tensor is centred on the head
//! ([`pipeline::prepare`]), so its middle stands for the head's midline.

use std::cmp::Reverse;

use ndarray::{Array2, Array3, Array4, ArrayView1, ArrayView3, Axis};
use pipeline::uid::Uid;
use pipeline::volume::{Grid, SourceSlice, Volume, VoxelPoint};
use rayon::prelude::*;

use crate::card::{CardFinding, ModelCard};
use crate::findings::{Finding, FindingKind, Probability, Side};
use crate::runtime::RawOutput;

/// Marks this near to the midline belong to neither side, mm. Covers the falx, the third
/// ventricle and a few degrees of head rotation.
const MIDLINE_BAND_MM: f64 = 5.0;
/// With less than this part of its volume outside the midline band a finding is on the midline.
const LATERAL_PART_MIN: f64 = 0.2;
/// From this part of the lateral volume on the lesser side, a finding is on both.
const BILATERAL_PART_MIN: f64 = 0.1;
/// A slab is never surer than this when its logit is taken.
const LEAST_PROBABILITY: f64 = 1e-6;
/// Most key slices of one finding.
const KEY_SLICES_MAX: usize = 3;
/// Probabilities are rounded to this many steps before they are compared with a threshold, so that
/// what is shown and what was decided agree.
const PROBABILITY_STEPS: f64 = 1e6;

/// Where the findings were read from: for overlays, segmentation objects and measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct FindingMap {
    /// Where the slabs' voxels lie in the patient; `size` is columns, rows, slabs.
    pub grid: Grid,
    /// The kinds of the first axis of `marked`.
    pub kinds: Vec<FindingKind>,
    /// Axes: kind, slab (feet to head), row, column. Specks are dropped, and a kind that is not
    /// present has no mark; so volumes and key slices can be counted again from here.
    pub marked: Array4<bool>,
    /// Axes: slab (feet to head), kind. Averaged among neighbours as the card says, not calibrated.
    pub slab_prob: Array2<f32>,
}

impl FindingMap {
    /// The slab that covers the middle of the received slice `source` of `volume`.
    pub fn slab_of_source(&self, source: &SourceSlice, volume: &Volume) -> usize {
        let [columns, rows, _] = volume.grid.size;
        let middle = |count: usize| (count as f64 - 1.0) / 2.0;
        let centre = VoxelPoint([middle(columns), middle(rows), source.slice_position]);
        let place = volume.grid.patient_from_voxel(centre);
        let VoxelPoint([_, _, slab]) = self.grid.voxel_from_patient(place);
        nearest_index(slab, self.grid.size[2])
    }
}

/// The index nearest to `place` of `count` things.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of indices first"
)]
fn nearest_index(place: f64, count: usize) -> usize {
    place.round().clamp(0.0, count.saturating_sub(1) as f64) as usize
}

/// Reads findings out of `raw`, which a network of `card` gave for the tensor on `slab_grid` that
/// was made of `volume`. One finding for each kind of the card, in its order.
pub fn read_findings(
    card: &ModelCard,
    raw: &RawOutput,
    slab_grid: &Grid,
    volume: &Volume,
) -> (Vec<Finding>, FindingMap) {
    let (slabs, kinds, rows, columns) = raw.voxel_prob.dim();
    let mut marked = Array4::from_elem((kinds, slabs, rows, columns), false);
    let mut findings = Vec::with_capacity(kinds);
    let slab_prob = among_neighbours(&raw.slice_prob, card.neighbour_weight);
    let probabilities = study_probabilities(card, &slab_prob);
    let marks = marks_of_present(card, raw, &probabilities, slab_grid.voxel_volume_ml());
    for (channel, (task, marks)) in card.findings.iter().zip(marks).enumerate() {
        let probability = probabilities[channel];
        if let Some(marks) = marks {
            findings.push(present_finding(
                task,
                probability,
                &slab_prob.index_axis(Axis(1), channel),
                &marks,
                (slab_grid, volume),
            ));
            marked.index_axis_mut(Axis(0), channel).assign(&marks);
        } else {
            findings.push(absent_finding(task.kind, probability));
        }
    }
    let map = FindingMap {
        grid: *slab_grid,
        kinds: card.findings.iter().map(|task| task.kind).collect(),
        marked,
        slab_prob,
    };
    (findings, map)
}

/// Of each finding, in the card's order, what it marks if it is present. A whole is marked wherever one of its kinds is, also a kind
/// that is not named: a part is never larger than the whole, and blood of an unsure kind is blood.
fn marks_of_present(
    card: &ModelCard,
    raw: &RawOutput,
    probabilities: &[Probability],
    voxel_ml: f64,
) -> Vec<Option<Array3<bool>>> {
    let present: Vec<bool> = (0..card.findings.len())
        .map(|channel| is_present(card, probabilities, channel))
        .collect();
    if !present.contains(&true) {
        return vec![None; present.len()];
    }
    let channels = card.findings.par_iter().enumerate();
    let mut marks: Vec<Array3<bool>> = channels
        .map(|(channel, task)| {
            marks_of(task, &raw.voxel_prob.index_axis(Axis(1), channel), voxel_ml)
        })
        .collect();
    for channel in 0..marks.len() {
        if let Some(whole) = whole_of(card, channel) {
            let [all, own] = marks
                .get_disjoint_mut([whole, channel])
                .expect("two of the card's findings: none is a kind of itself");
            all.zip_mut_with(own, |all, own| *all |= own);
        }
    }
    // A kind is named by where it is: beside another kind's blood its probability alone says little.
    let named = |channel: usize, marks: &Array3<bool>| {
        card.findings[channel].kind.kind_of().is_none() || marks.iter().any(|marked| *marked)
    };
    let marks = marks.into_iter().enumerate();
    marks
        .map(|(channel, marks)| (present[channel] && named(channel, &marks)).then_some(marks))
        .collect()
}

/// In the order of the card's findings.
fn study_probabilities(card: &ModelCard, slab_prob: &Array2<f32>) -> Vec<Probability> {
    let channels = card.findings.iter().zip(slab_prob.columns());
    channels
        .map(|(task, slabs)| study_probability(card.pooled_slabs, task, &slabs))
        .collect()
}

/// A finding is present from its threshold on, and a kind only of what is present itself (and, beyond this, marked).
fn is_present(card: &ModelCard, probabilities: &[Probability], channel: usize) -> bool {
    probabilities[channel].value() >= card.findings[channel].threshold
        && whole_of(card, channel).is_none_or(|whole| is_present(card, probabilities, whole))
}

/// Where the card has the finding that this one is a kind of.
fn whole_of(card: &ModelCard, channel: usize) -> Option<usize> {
    let whole = card.findings[channel].kind.kind_of()?;
    card.findings.iter().position(|other| other.kind == whole)
}

fn absent_finding(kind: FindingKind, probability: Probability) -> Finding {
    Finding {
        kind,
        present: false,
        probability,
        volume_ml: None,
        volume_interval_ml: None,
        shift_mm: None,
        side: None,
        key_slices: Vec::new(),
    }
}

fn present_finding(
    task: &CardFinding,
    probability: Probability,
    slice_prob: &ArrayView1<'_, f32>,
    marks: &Array3<bool>,
    (slab_grid, volume): (&Grid, &Volume),
) -> Finding {
    let areas = marked_voxels_by_slab(marks);
    let voxels: usize = areas.iter().sum();
    let has_volume = task.kind.has_volume() && voxels > 0;
    let volume_ml = hundredths(voxels as f64 * slab_grid.voxel_volume_ml());
    let slabs = slabs_best_first(&areas, slice_prob);
    Finding {
        kind: task.kind,
        present: true,
        probability,
        volume_ml: has_volume.then_some(volume_ml),
        volume_interval_ml: task
            .volume_factor
            .filter(|_| has_volume)
            .map(|factor| [volume_ml / factor, volume_ml * factor].map(hundredths)),
        shift_mm: None,
        side: side_of(marks, slab_grid),
        key_slices: key_slices(&slabs, slab_grid, volume),
    }
}

/// Averages each slab's logit with its neighbours', which count `weight` each against its own 1;
/// beyond the ends the end slab counts again. Axes: slab, kind.
fn among_neighbours(slice_prob: &Array2<f32>, weight: f64) -> Array2<f32> {
    if weight <= 0.0 {
        return slice_prob.clone();
    }
    let last = slice_prob.nrows().saturating_sub(1);
    let logit_at = |slab: usize, kind: usize| logit(f64::from(slice_prob[[slab, kind]]));
    Array2::from_shape_fn(slice_prob.dim(), |(slab, kind)| {
        let beside = logit_at(slab.saturating_sub(1), kind) + logit_at((slab + 1).min(last), kind);
        let mean = (logit_at(slab, kind) + weight * beside) / (1.0 + 2.0 * weight);
        narrowed(1.0 / (1.0 + (-mean).exp()))
    })
}

/// Finite also for 0 and 1.
fn logit(probability: f64) -> f64 {
    let inside = probability.clamp(LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY);
    (inside / (1.0 - inside)).ln()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a probability keeps seven digits"
)]
fn narrowed(probability: f64) -> f32 {
    probability as f32
}

/// Pools the slabs' probabilities as the card says, calibrates the result if it can.
fn study_probability(
    pooled_slabs: usize,
    task: &CardFinding,
    slice_prob: &ArrayView1<'_, f32>,
) -> Probability {
    let mut highest_first: Vec<f64> = slice_prob.iter().copied().map(f64::from).collect();
    highest_first.sort_by(|a, b| b.total_cmp(a));
    highest_first.truncate(pooled_slabs);
    let mean = highest_first.iter().sum::<f64>() / highest_first.len() as f64;
    let pooled = Probability::new(mean).expect("the runtime gives at least one slab, all in 0-1");
    let calibrated = task
        .calibration
        .map_or(pooled, |calibration| calibration.apply(pooled));
    Probability::new(rounded(calibrated.value(), PROBABILITY_STEPS)).unwrap_or(calibrated)
}

fn hundredths(volume_ml: f64) -> f64 {
    rounded(volume_ml, 100.0)
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// Voxels at the card's threshold, without connected pieces below its minimum volume.
fn marks_of(task: &CardFinding, voxel_prob: &ArrayView3<'_, f32>, voxel_ml: f64) -> Array3<bool> {
    let mut marks = voxel_prob.map(|probability| f64::from(*probability) >= task.voxel_threshold);
    for piece in connected_pieces(&marks) {
        if (piece.len() as f64) * voxel_ml < task.minimum_volume_ml {
            for voxel in piece {
                marks[voxel] = false;
            }
        }
    }
    marks
}

/// The pieces of `marks` that hang together by faces, edges or corners, each as its voxels.
fn connected_pieces(marks: &Array3<bool>) -> Vec<Vec<[usize; 3]>> {
    let mut unvisited = marks.clone();
    let mut pieces = Vec::new();
    for (start, marked) in marks.indexed_iter() {
        let start = <[usize; 3]>::from(start);
        if *marked && unvisited[start] {
            pieces.push(piece_from(start, &mut unvisited));
        }
    }
    pieces
}

/// Floods from `start`, clearing what it visits.
fn piece_from(start: [usize; 3], unvisited: &mut Array3<bool>) -> Vec<[usize; 3]> {
    unvisited[start] = false;
    let mut piece = vec![start];
    let mut next = 0;
    while let Some(voxel) = piece.get(next).copied() {
        next += 1;
        for neighbour in neighbours(voxel, unvisited.dim().into()) {
            if unvisited[neighbour] {
                unvisited[neighbour] = false;
                piece.push(neighbour);
            }
        }
    }
    piece
}

/// The voxel and the up to 26 around it that lie inside `size`.
fn neighbours(voxel: [usize; 3], size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [slabs, rows, columns] = std::array::from_fn(|axis| {
        voxel[axis].saturating_sub(1)..(voxel[axis] + 2).min(size[axis])
    });
    slabs.flat_map(move |slab| {
        let columns = columns.clone();
        rows.clone().flat_map(move |row| {
            let columns = columns.clone();
            columns.map(move |column| [slab, row, column])
        })
    })
}

fn marked_voxels_by_slab(marks: &Array3<bool>) -> Vec<usize> {
    marks
        .outer_iter()
        .map(|slab| slab.iter().filter(|marked| **marked).count())
        .collect()
}

/// Slabs by marked area; where nothing is marked, by probability. Equals keep feet to head.
fn slabs_best_first(areas: &[usize], slice_prob: &ArrayView1<'_, f32>) -> Vec<usize> {
    let mut slabs: Vec<usize> = (0..areas.len()).collect();
    if areas.iter().all(|area| *area == 0) {
        slabs.sort_by(|a, b| slice_prob[*b].total_cmp(&slice_prob[*a]));
    } else {
        slabs.retain(|slab| areas[*slab] > 0);
        slabs.sort_by_key(|slab| Reverse(areas[*slab]));
    }
    slabs
}

/// The received slices nearest to the middle of the best slabs, best first, each once.
fn key_slices(slabs_best_first: &[usize], slab_grid: &Grid, volume: &Volume) -> Vec<Uid> {
    let mut slices: Vec<Uid> = Vec::with_capacity(KEY_SLICES_MAX);
    for slab in slabs_best_first {
        let centre = slab_grid.patient_from_voxel(slab_centre(slab_grid, *slab));
        if let Some(source) = volume.nearest_source(centre)
            && !slices.contains(&source.sop_instance_uid)
        {
            slices.push(source.sop_instance_uid.clone());
        }
        if slices.len() == KEY_SLICES_MAX {
            break;
        }
    }
    slices
}

fn slab_centre(slab_grid: &Grid, slab: usize) -> VoxelPoint {
    let [columns, rows, _] = slab_grid.size;
    let middle = |count: usize| (count as f64 - 1.0) / 2.0;
    VoxelPoint([middle(columns), middle(rows), slab as f64])
}

/// On which side `marks` lie, by the patient's x (DICOM: to the left) against the slab's middle.
///
/// Marks within [`MIDLINE_BAND_MM`] of it have no side. If less than [`LATERAL_PART_MIN`] of all
/// lies outside the band, the finding is on the midline; if at least [`BILATERAL_PART_MIN`] of
/// what does lies on the lesser side, on both sides; else on the greater.
fn side_of(marks: &Array3<bool>, slab_grid: &Grid) -> Option<Side> {
    let (mut left, mut right, mut all) = (0.0, 0.0, 0.0);
    for ((slab, row, column), _) in marks.indexed_iter().filter(|(_, marked)| **marked) {
        let voxel = VoxelPoint([column as f64, row as f64, slab as f64]);
        let middle_x = slab_grid.patient_from_voxel(slab_centre(slab_grid, slab)).0[0];
        let leftward_mm = slab_grid.patient_from_voxel(voxel).0[0] - middle_x;
        all += 1.0;
        if leftward_mm > MIDLINE_BAND_MM {
            left += 1.0;
        } else if leftward_mm < -MIDLINE_BAND_MM {
            right += 1.0;
        }
    }
    side_by_parts(left, right, all)
}

fn side_by_parts(left: f64, right: f64, all: f64) -> Option<Side> {
    let lateral = left + right;
    if all <= 0.0 {
        None
    } else if lateral < LATERAL_PART_MIN * all {
        Some(Side::Midline)
    } else if left.min(right) >= BILATERAL_PART_MIN * lateral {
        Some(Side::Bilateral)
    } else if left > right {
        Some(Side::Left)
    } else {
        Some(Side::Right)
    }
}

#[cfg(test)]
mod tests;
