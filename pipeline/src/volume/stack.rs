//! Headers of slices → a stack in order: one direction, one matrix, one slice a place.
//!
//! Nothing here reads pixels. Distances *along* are millimetres along the slices' normal, feet to
//! head; *beside* are millimetres along a row and down a column.

use std::cmp::Reverse;

use crate::direction::{Directions, dot};
use crate::limits::Limits;
use crate::reason::ReasonCode;
use crate::series::Slice;

use super::VolumeError;

/// Two slices nearer than this along the normal lie at the same place, mm.
const SAME_PLACE_MM: f64 = 0.05;
/// Largest angle between slices of one stack, degrees.
const ORIENTATION_TOLERANCE_DEG: f64 = 0.5;
/// Largest difference of pixel spacings in one stack, as a share.
const SPACING_TOLERANCE: f64 = 0.01;

/// The directions of a stack in patient space: unit vectors at right angles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axes {
    /// Along a row.
    pub(super) row: [f64; 3],
    /// Down a column.
    pub(super) column: [f64; 3],
    /// Across the slices, feet to head (or to the left, or to the back, if they are not axial).
    pub(super) normal: [f64; 3],
}

/// A slice and where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub(super) slice: Slice<'a>,
    pub(super) position_mm: [f64; 3],
    /// mm along the normal from the patient's origin.
    pub(super) along_mm: f64,
    /// mm along a row and down a column from the patient's origin to the first voxel.
    pub(super) beside_mm: [f64; 2],
    pub(super) thickness_mm: Option<f64>,
}

/// All slices that claim one place; the first is preferred.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub(super) claims: Vec<Placed<'a>>,
}

impl<'a> Place<'a> {
    /// The preferred slice.
    pub(super) fn first(&self) -> &Placed<'a> {
        // A place is made from its first claim.
        &self.claims[0]
    }
}

/// A stack in order, feet to head.
#[derive(Clone, Debug)]
pub(super) struct Stack<'a> {
    pub(super) axes: Axes,
    /// How far direction cosines as written were from unit length or a right angle, at most.
    pub(super) inexact_directions: f64,
    /// Between columns and between rows, mm.
    pub(super) spacing_mm: [f64; 2],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) places: Vec<Place<'a>>,
}

/// The geometry of one slice, complete and finite.
struct Geometry<'a> {
    slice: Slice<'a>,
    position_mm: [f64; 3],
    directions: Directions,
    spacing_mm: [f64; 2],
    thickness_mm: Option<f64>,
    matrix: [u32; 2],
}

impl<'a> Stack<'a> {
    /// Orders `slices` by their positions, whatever order they came in.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] if a slice lacks geometry, if slices differ in direction, matrix or pixel
    /// spacing, or if their number is outside the limits.
    pub(super) fn arrange(slices: &[Slice<'a>], limits: &Limits) -> Result<Self, VolumeError> {
        let mut slices = slices.to_vec();
        // One canonical order first: the result must not depend on the order of arrival.
        slices.sort_by(Slice::compare_names);
        let geometries = geometries(&slices)?;
        let Some(first) = geometries.first() else {
            return Err(too_few(0, limits));
        };
        let axes = axes(&first.directions);
        check_directions(&geometries, first)?;
        check_matrix(&geometries, first)?;
        let [rows, columns] = first.matrix;
        if rows.max(columns) > limits.frame_side_max || rows.min(columns) == 0 {
            return Err(VolumeError::new(
                ReasonCode::LimitExceeded,
                format!(
                    "Slices of {rows} rows × {columns} columns: a side must be 1 to {} pixels.",
                    limits.frame_side_max
                ),
            ));
        }
        let places = places(&geometries, &axes);
        check_count(places.len(), limits)?;
        let inexact = geometries
            .iter()
            .map(|geometry| geometry.directions.inexact);
        Ok(Self {
            axes,
            inexact_directions: inexact.fold(0.0, f64::max),
            spacing_mm: first.spacing_mm,
            rows: usize::try_from(rows).unwrap_or(usize::MAX),
            columns: usize::try_from(columns).unwrap_or(usize::MAX),
            places,
        })
    }

    /// The preferred slice of each place.
    pub(super) fn slices(&self) -> Vec<Slice<'a>> {
        self.places
            .iter()
            .map(|place| place.first().slice)
            .collect()
    }
}

pub(super) fn check_count(count: usize, limits: &Limits) -> Result<(), VolumeError> {
    if count < limits.slices_min.max(2) {
        return Err(too_few(count, limits));
    }
    if count > limits.slices_max {
        return Err(VolumeError::new(
            ReasonCode::TooManySlices,
            format!(
                "The series has {count} slices; the limit is {}.",
                limits.slices_max
            ),
        ));
    }
    Ok(())
}

fn too_few(count: usize, limits: &Limits) -> VolumeError {
    VolumeError::new(
        ReasonCode::TooFewSlices,
        format!(
            "The series has {count} distinct slices; a volume needs {}.",
            limits.slices_min.max(2)
        ),
    )
}

fn geometries<'a>(slices: &[Slice<'a>]) -> Result<Vec<Geometry<'a>>, VolumeError> {
    let mut complete = Vec::with_capacity(slices.len());
    let mut lacking: Option<(&Slice<'a>, &'static str)> = None;
    let mut lacking_count = 0;
    for slice in slices {
        match geometry(slice) {
            Ok(geometry) => complete.push(geometry),
            Err(what) => {
                lacking_count += 1;
                lacking.get_or_insert((slice, what));
            }
        }
    }
    let Some((slice, what)) = lacking else {
        return Ok(complete);
    };
    Err(VolumeError::new(
        ReasonCode::MissingGeometry,
        format!(
            "{lacking_count} of {} slices cannot be placed in the patient; the first, object {}, \
             has no usable {what}.",
            slices.len(),
            slice.instance.sop_instance_uid
        ),
    ))
}

/// The geometry of `slice`, or what it lacks.
fn geometry<'a>(slice: &Slice<'a>) -> Result<Geometry<'a>, &'static str> {
    let frame = slice
        .instance
        .frames
        .get(slice.frame_index)
        .ok_or("frame of that number")?;
    let pixels = slice.instance.pixels.as_ref().ok_or("image")?;
    let position_mm = frame
        .position_mm
        .filter(|position| position.iter().all(|value| value.is_finite()))
        .ok_or("Image Position (Patient) (0020,0032)")?;
    let directions = frame
        .orientation
        .and_then(Directions::of)
        .ok_or("Image Orientation (Patient) (0020,0037)")?;
    let spacing_mm = frame
        .spacing_mm
        .filter(|spacing| spacing.iter().all(|mm| mm.is_finite() && *mm > 0.0))
        .ok_or("Pixel Spacing (0028,0030)")?;
    Ok(Geometry {
        slice: *slice,
        position_mm,
        directions,
        spacing_mm,
        thickness_mm: frame.thickness_mm.filter(|mm| mm.is_finite() && *mm > 0.0),
        matrix: [pixels.rows, pixels.columns],
    })
}

/// The directions of a stack, the normal pointing to the head.
fn axes(directions: &Directions) -> Axes {
    let normal = directions.normal;
    let main = normal
        .into_iter()
        .max_by(|a, b| a.abs().total_cmp(&b.abs()))
        .unwrap_or(1.0);
    Axes {
        row: directions.row,
        column: directions.column,
        normal: normal.map(|component| component * main.signum()),
    }
}

fn check_directions(geometries: &[Geometry<'_>], first: &Geometry<'_>) -> Result<(), VolumeError> {
    let turn_deg = |other: &Geometry<'_>| first.directions.angle_deg(&other.directions);
    let turned: Vec<_> = geometries
        .iter()
        .filter(|other| turn_deg(other) > ORIENTATION_TOLERANCE_DEG)
        .collect();
    let Some(example) = turned.first() else {
        return Ok(());
    };
    Err(VolumeError::new(
        ReasonCode::MixedOrientations,
        format!(
            "{} of {} slices point another way than object {}; the first, object {}, by {:.1}°.",
            turned.len(),
            geometries.len(),
            first.slice.instance.sop_instance_uid,
            example.slice.instance.sop_instance_uid,
            turn_deg(example)
        ),
    ))
}

fn check_matrix(geometries: &[Geometry<'_>], first: &Geometry<'_>) -> Result<(), VolumeError> {
    let same_spacing = |other: &Geometry<'_>| {
        (0..2).all(|axis| {
            let mm = first.spacing_mm[axis];
            (other.spacing_mm[axis] - mm).abs() <= SPACING_TOLERANCE * mm
        })
    };
    let odd = geometries
        .iter()
        .find(|other| other.matrix != first.matrix || !same_spacing(other));
    let Some(odd) = odd else {
        return Ok(());
    };
    let describe = |geometry: &Geometry<'_>| {
        format!(
            "object {} has {} × {} pixels of {:.3} × {:.3} mm",
            geometry.slice.instance.sop_instance_uid,
            geometry.matrix[1],
            geometry.matrix[0],
            geometry.spacing_mm[0],
            geometry.spacing_mm[1]
        )
    };
    Err(VolumeError::new(
        ReasonCode::MixedMatrix,
        format!("Slices differ: {}, {}.", describe(first), describe(odd)),
    ))
}

fn places<'a>(geometries: &[Geometry<'a>], axes: &Axes) -> Vec<Place<'a>> {
    let mut placed: Vec<Placed<'a>> = geometries
        .iter()
        .map(|geometry| Placed {
            slice: geometry.slice,
            position_mm: geometry.position_mm,
            along_mm: dot(&geometry.position_mm, &axes.normal),
            beside_mm: [
                dot(&geometry.position_mm, &axes.row),
                dot(&geometry.position_mm, &axes.column),
            ],
            thickness_mm: geometry.thickness_mm,
        })
        .collect();
    // Stable: slices at one place stay in the order of their UIDs.
    placed.sort_by(|a, b| a.along_mm.total_cmp(&b.along_mm));
    let mut places: Vec<Place<'a>> = Vec::with_capacity(placed.len());
    for slice in placed {
        match places.last_mut() {
            Some(place) if slice.along_mm - place.first().along_mm < SAME_PLACE_MM => {
                place.claims.push(slice);
            }
            _ => places.push(Place {
                claims: vec![slice],
            }),
        }
    }
    for place in &mut places {
        place
            .claims
            .sort_by(|a, b| preference(a).cmp(&preference(b)));
    }
    places
}

/// Of slices at one place the later acquisition comes first (a repeat after motion), then the
/// lower UID, and of those with one UID the first received.
fn preference<'a>(placed: &Placed<'a>) -> (Reverse<Option<i64>>, &'a str, usize, usize) {
    let slice = placed.slice;
    let frame = slice.frame();
    (
        Reverse(frame.and_then(|frame| frame.acquisition_number)),
        slice.instance.sop_instance_uid.as_str(),
        slice.frame_index,
        slice.received,
    )
}
