//! A series' slices → one volume in Hounsfield units with its geometry certificate.
//!
//! [`stack`] puts slices in order by their positions, [`gaps`] judges the distances between them,
//! the pixels are decoded straight into the volume's memory, and [`rectify`] moves voxels only
//! where tilt or uneven gaps ask for it.

mod certificate;
mod gaps;
mod grid;
mod rectify;
mod stack;

pub use certificate::GeometryCertificate;
pub use grid::{Grid, PatientPoint, VoxelPoint};

use ndarray::{Array3, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::decode::{self, Decoding};
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::series::Slice;
use crate::uid::Uid;
use gaps::Gaps;
use rectify::{Lattice, Line};
use stack::{Place, Placed, Stack};

/// How far the header's nominal tilt may be from the measured one, degrees.
const TILT_TAG_TOLERANCE_DEG: f64 = 1.0;

/// From here on inexact direction cosines are remarked: they turn the volume by a twentieth of a
/// degree.
const INEXACT_DIRECTIONS: f64 = 0.001;

/// A head volume on an orthogonal, evenly spaced grid.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Hounsfield units, rounded; axes: slice (feet to head), row, column.
    pub hounsfield: Array3<i16>,
    /// Where the voxels lie in the patient.
    pub grid: Grid,
    /// For each slice that the volume was made of, feet to head: its SOP Instance UID and the
    /// place of its centre along the grid's slice axis, in voxels of the grid (fractions lie
    /// between).
    pub sources: Vec<SourceSlice>,
}

impl Volume {
    /// The received slice whose plane lies nearest to `point`; `None` only without slices.
    pub fn nearest_source(&self, point: PatientPoint) -> Option<&SourceSlice> {
        let VoxelPoint([_, _, place]) = self.grid.voxel_from_patient(point);
        let distance = |source: &SourceSlice| (source.slice_position - place).abs();
        self.sources
            .iter()
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }
}

/// Where a received slice lies in the volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceSlice {
    /// The object.
    pub sop_instance_uid: Uid,
    /// Zero-based frame of it.
    pub frame_index: usize,
    /// Position along the volume's slice axis, in voxels.
    pub slice_position: f64,
    /// Centre of its first voxel as received: Image Position (Patient) (0020,0032).
    pub position_mm: PatientPoint,
}

/// Why slices do not become a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", reason.text)]
pub struct VolumeError {
    /// What is wrong and where.
    pub reason: Reason,
}

impl VolumeError {
    fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self {
            reason: Reason::new(code, text),
        }
    }
}

/// Makes a volume of `slices`, in whatever order they come, and says what was found.
///
/// Slices are ordered by position. Of several at one place one is kept (the later acquisition, then
/// the lower SOP Instance UID, then the first received); with other pixels at more than a few places it is not known what
/// belongs together. A minority that cannot be decoded is left out and named. Tilt is
/// sheared out and uneven gaps are resampled; otherwise voxels are the decoded pixels themselves.
/// The result depends neither on the order of `slices` nor on the number of threads.
///
/// # Errors
///
/// [`VolumeError`] if slices lack geometry, differ in direction or matrix, are too few or too many,
/// lie over each other with other pixels, if most cannot be decoded, or if the volume would exceed the limits. Limits are checked before
/// memory is taken.
pub fn build(
    slices: &[Slice<'_>],
    decoding: Decoding<'_>,
) -> Result<(Volume, GeometryCertificate), VolumeError> {
    let limits = decoding.limits;
    let mut stack = Stack::arrange(slices, limits)?;
    Geometry::of(&stack, limits)?;
    let (stacked, mut warnings) = read_pixels(&mut stack, decoding)?;
    let geometry = Geometry::of(&stack, limits)?;
    warnings.extend(geometry.warnings(&stack));
    let hounsfield = if geometry.lattice.moves {
        rectify::resample(&stacked, &geometry.slices, &geometry.lattice)
    } else {
        stacked
    };
    let certificate = GeometryCertificate {
        slices: geometry.slices.len(),
        tilt_deg: geometry.line.tilt_deg,
        spacing_mm: stack.spacing_mm,
        gap_mm: geometry.gaps.range_mm,
        rectified: geometry.lattice.moves,
        warnings,
    };
    let volume = Volume {
        hounsfield,
        grid: geometry.lattice.grid,
        sources: geometry.sources(),
    };
    Ok((volume, certificate))
}

/// What is odd about the positions of `slices`, without reading a pixel.
///
/// # Errors
///
/// [`VolumeError`] as in [`build`], as far as the headers show it.
pub(crate) fn examine_positions(
    slices: &[Slice<'_>],
    limits: &Limits,
) -> Result<Vec<Reason>, VolumeError> {
    let stack = Stack::arrange(slices, limits)?;
    Ok(Geometry::of(&stack, limits)?.gaps.warnings)
}

/// What the positions of a stack say.
struct Geometry<'a> {
    slices: Vec<Placed<'a>>,
    line: Line,
    gaps: Gaps,
    lattice: Lattice,
}

impl<'a> Geometry<'a> {
    fn of(stack: &Stack<'a>, limits: &Limits) -> Result<Self, VolumeError> {
        let slices: Vec<Placed<'a>> = stack.places.iter().map(|place| *place.first()).collect();
        let line = Line::through(&slices);
        let gaps = gaps::examine(&slices);
        let lattice = Lattice::plan(stack, &gaps, &line, limits)?;
        Ok(Self {
            slices,
            line,
            gaps,
            lattice,
        })
    }

    fn warnings(&self, stack: &Stack<'_>) -> Vec<Reason> {
        let mut warnings = Vec::new();
        warnings.extend(instance_numbers(&self.slices));
        warnings.extend(self.tilt_warnings());
        warnings.extend(self.stagger_warning(stack));
        warnings.extend(inexact_directions(stack));
        warnings.extend(self.gaps.warnings.iter().cloned());
        warnings
    }

    fn tilt_warnings(&self) -> Vec<Reason> {
        let tilt_deg = self.line.tilt_deg;
        let mut warnings = Vec::new();
        if self.line.is_tilted() {
            warnings.push(Reason::new(
                ReasonCode::GantryTilt,
                format!("The gantry was tilted by {tilt_deg:.1}°; the shear is taken out."),
            ));
        }
        let nominal_deg = self
            .slices
            .iter()
            .find_map(|slice| slice.slice.instance.series.nominal_tilt_deg);
        if let Some(nominal_deg) = nominal_deg
            && (nominal_deg.abs() - tilt_deg).abs() > TILT_TAG_TOLERANCE_DEG
        {
            warnings.push(Reason::new(
                ReasonCode::TiltTagDisagrees,
                format!(
                    "Gantry/Detector Tilt (0018,1120) says {nominal_deg:.1}°, the slices' \
                     positions show {tilt_deg:.1}°; the positions are followed."
                ),
            ));
        }
        warnings
    }

    fn stagger_warning(&self, stack: &Stack<'_>) -> Option<Reason> {
        self.line.is_staggered(stack.spacing_mm).then(|| {
            let [x, y] = self.line.aside_mm;
            Reason::new(
                ReasonCode::UnevenSpacing,
                format!(
                    "Slices lie up to {} beside the stack's line; each is put where its position \
                     says.",
                    gaps::millimetres(x.max(y))
                ),
            )
        })
    }

    fn sources(&self) -> Vec<SourceSlice> {
        self.slices
            .iter()
            .map(|placed| SourceSlice {
                sop_instance_uid: placed.slice.instance.sop_instance_uid.clone(),
                frame_index: placed.slice.frame_index,
                slice_position: self.lattice.slice_position(placed, &self.slices[0]),
                position_mm: PatientPoint(placed.position_mm),
            })
            .collect()
    }
}

/// Says so if direction cosines are not what they should be by more than rounding of six decimals.
fn inexact_directions(stack: &Stack<'_>) -> Option<Reason> {
    (stack.inexact_directions > INEXACT_DIRECTIONS).then(|| {
        Reason::new(
            ReasonCode::InexactDirections,
            format!(
                "Image Orientation (Patient) (0020,0037) is {:.4} from unit vectors at a right angle; \
                 it was made exact.",
                stack.inexact_directions
            ),
        )
    })
}

/// Says so if instance numbers neither rise nor fall along the stack.
fn instance_numbers(slices: &[Placed<'_>]) -> Option<Reason> {
    let numbers: Vec<i64> = slices
        .iter()
        .filter_map(|placed| {
            let slice = placed.slice;
            slice
                .instance
                .frames
                .get(slice.frame_index)?
                .instance_number
        })
        .collect();
    if numbers.is_sorted() || numbers.iter().rev().is_sorted() {
        return None;
    }
    Some(Reason::new(
        ReasonCode::InstanceNumbersOutOfOrder,
        "Instance Numbers (0020,0013) do not follow the slices' positions; the positions are \
         followed.",
    ))
}

/// A slice that gave no pixels.
struct Lost {
    place: usize,
    reason: Reason,
}

/// Decodes the stack into one plane a place, settles which slice each place keeps, and takes
/// places without pixels out of `stack`.
fn read_pixels(
    stack: &mut Stack<'_>,
    decoding: Decoding<'_>,
) -> Result<(Array3<i16>, Vec<Reason>), VolumeError> {
    let count = stack.places.len();
    let mut planes = Array3::zeros((count, stack.rows, stack.columns));
    let verdicts = decode::stack_hounsfield(&stack.slices(), decoding, &mut planes);
    let outcomes: Vec<PlaceOutcome> = stack
        .places
        .par_iter_mut()
        .zip(planes.axis_iter_mut(Axis(0)))
        .zip(verdicts)
        .map(|((place, mut plane), verdict)| settle(place, &mut plane, verdict, decoding))
        .collect();
    let lost: Vec<Lost> = outcomes
        .iter()
        .enumerate()
        .filter_map(|(place, outcome)| {
            let reason = outcome.lost.clone()?;
            Some(Lost { place, reason })
        })
        .collect();
    let mut warnings = duplicate_warnings(&outcomes)?;
    if lost.is_empty() {
        return Ok((planes, warnings));
    }
    check_loss(&lost, count, decoding.limits)?;
    warnings.extend(loss_warnings(&lost, count));
    let kept: Vec<usize> = (0..count)
        .filter(|place| lost.iter().all(|lost| lost.place != *place))
        .collect();
    let planes = planes.select(Axis(0), &kept);
    let mut keep = outcomes.iter().map(|outcome| outcome.lost.is_none());
    stack.places.retain(|_| keep.next().unwrap_or(true));
    Ok((planes, warnings))
}

/// What became of a place.
struct PlaceOutcome {
    /// Why the place has no pixels.
    lost: Option<Reason>,
    /// Slices left out that have the same pixels as the one kept, or none that can be read.
    same: usize,
    /// Slices left out that have other pixels.
    other: usize,
}

/// Chooses among the slices of one place: the first by preference that can be decoded. Moves it to
/// the front of the claims and its pixels into `plane`.
fn settle(
    place: &mut Place<'_>,
    plane: &mut ndarray::ArrayViewMut2<'_, i16>,
    verdict: Result<(), Reason>,
    decoding: Decoding<'_>,
) -> PlaceOutcome {
    let mut outcome = PlaceOutcome {
        lost: verdict.err(),
        same: 0,
        other: 0,
    };
    for claim in 1..place.claims.len() {
        let decoded = decode::frame_hounsfield(&place.claims[claim].slice, decoding);
        match decoded {
            Ok(pixels) if outcome.lost.is_some() && pixels.dim() == plane.dim() => {
                plane.assign(&pixels);
                place.claims.swap(0, claim);
                outcome.lost = None;
                outcome.same += 1;
            }
            Ok(pixels) if pixels != *plane => outcome.other += 1,
            Ok(_) | Err(_) => outcome.same += 1,
        }
    }
    outcome
}

/// With other pixels at this share of places nobody knows which slices belong together.
const OVERLAPPING_SHARE_MAX: f64 = 0.1;

/// What is said of slices that lie over each other.
fn duplicate_warnings(outcomes: &[PlaceOutcome]) -> Result<Vec<Reason>, VolumeError> {
    let same: usize = outcomes.iter().map(|outcome| outcome.same).sum();
    let overlapping = outcomes.iter().filter(|outcome| outcome.other > 0).count();
    let first = |pick: fn(&PlaceOutcome) -> usize| {
        outcomes
            .iter()
            .position(|outcome| pick(outcome) > 0)
            .map_or(0, |place| place + 1)
    };
    let mut warnings = Vec::new();
    if same > 0 {
        warnings.push(Reason::new(
            ReasonCode::DuplicateSlice,
            format!(
                "{same} slices repeat another slice's place and pixels, or cannot be decoded, and \
                 are left out; the first at place {} from the feet.",
                first(|outcome| outcome.same)
            ),
        ));
    }
    if overlapping > 0 {
        let reason = Reason::new(
            ReasonCode::OverlappingSlices,
            format!(
                "At {overlapping} of {} places slices with other pixels lie over each other, the \
                 first at place {} from the feet, and nothing in their headers tells them apart.",
                outcomes.len(),
                first(|outcome| outcome.other)
            ),
        );
        if overlapping as f64 > (OVERLAPPING_SHARE_MAX * outcomes.len() as f64).max(2.0) {
            return Err(VolumeError { reason });
        }
        warnings.push(reason);
    }
    Ok(warnings)
}

/// A volume is made of what is left only if that is most of it.
fn check_loss(lost: &[Lost], count: usize, limits: &Limits) -> Result<(), VolumeError> {
    let few = 2 * lost.len() <= count;
    match lost.first() {
        Some(_) if few => stack::check_count(count - lost.len(), limits),
        Some(first) => Err(VolumeError::new(
            first.reason.code,
            format!(
                "{} of {count} slices cannot be decoded; the first, {}.",
                lost.len(),
                first.reason.text
            ),
        )),
        None => Ok(()),
    }
}

fn loss_warnings(lost: &[Lost], count: usize) -> Vec<Reason> {
    let Some(first) = lost.first() else {
        return Vec::new();
    };
    let mut warnings = vec![Reason::new(
        ReasonCode::UndecodablePixels,
        format!(
            "{} of {count} slices cannot be decoded and are left out; the first, {}.",
            lost.len(),
            first.reason.text
        ),
    )];
    // Gaps inside the stack show themselves; at its ends nothing does.
    let is_lost = |place: usize| lost.iter().any(|lost| lost.place == place);
    let at_feet = (0..count).take_while(|place| is_lost(*place)).count();
    let at_head = (0..count).rev().take_while(|place| is_lost(*place)).count();
    if at_feet + at_head > 0 {
        warnings.push(Reason::new(
            ReasonCode::MissingSlices,
            format!(
                "The stack is shorter by {at_feet} slices at its foot end and {at_head} at its \
                 head end, which cannot be decoded."
            ),
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
