//! A series' frames → stacks: one direction, one matrix, one kernel, one kind by its header, one
//! pass over the head. Reads headers only.

use crate::direction::{Directions, dot};
use crate::instance::{FrameHeader, PixelHeader};
use crate::reason::{Reason, ReasonCode};

use super::header::{HeaderKinds, SliceVerdict};
use super::passes::{Pass, by_place, passes};
use super::{Object, Slice};

/// Directions further apart than this are not one stack, degrees; a little wider than what
/// `volume` takes.
const SAME_DIRECTION_DEG: f64 = 0.8;
/// Pixel spacings further apart than this are not one stack, mm.
const SAME_SPACING_MM: f64 = 0.002;
/// Slices nearer than this lie at the same place, mm.
pub(crate) const SAME_PLACE_MM: f64 = 0.05;

/// A slice and its distance along the stack's normal, mm, growing towards the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlacedSlice<'a> {
    pub(crate) slice: Slice<'a>,
    pub(crate) along_mm: f64,
}

/// Frames that could be one volume, feet to head.
#[derive(Clone, Debug)]
pub(crate) struct FrameStack<'a> {
    pub(crate) slices: Vec<PlacedSlice<'a>>,
    /// Unit normal, pointing to the head where the stack is axial.
    pub(crate) normal: [f64; 3],
    /// What the header says of each of its slices.
    pub(super) verdict: SliceVerdict,
    /// How it was parted from other slices of its series.
    pub(super) notes: Vec<Reason>,
}

/// The stacks of one series and the frames that lack what a place in the patient needs.
#[derive(Debug, Default)]
pub(crate) struct SeriesStacks<'a> {
    pub(crate) stacks: Vec<FrameStack<'a>>,
    pub(crate) without_geometry: Vec<Slice<'a>>,
}

/// A frame with all that a place in the patient needs.
#[derive(Clone, Debug)]
pub(super) struct Geometry<'a> {
    pub(super) slice: Slice<'a>,
    pub(super) frame: &'a FrameHeader,
    /// Distance along the normal of the group's first slice, mm.
    pub(super) along_mm: f64,
    pixels: &'a PixelHeader,
    position_mm: [f64; 3],
    directions: Directions,
    spacing_mm: [f64; 2],
}

impl<'a> Geometry<'a> {
    fn of(slice: Slice<'a>) -> Option<Self> {
        let frame = slice.frame()?;
        let finite = |position: &[f64; 3]| position.iter().all(|mm| mm.is_finite());
        let directions = Directions::of(frame.orientation?)?;
        let position_mm = frame.position_mm.filter(finite)?;
        Some(Self {
            slice,
            frame,
            along_mm: dot(&position_mm, &headward(directions.normal)),
            pixels: slice.instance.pixels.as_ref()?,
            position_mm,
            directions,
            spacing_mm: frame.spacing_mm?,
        })
    }

    /// Whether both belong to one stack by all but when they were scanned.
    fn alike(&self, other: &Self) -> bool {
        let same_spacing =
            |axis: usize| (self.spacing_mm[axis] - other.spacing_mm[axis]).abs() < SAME_SPACING_MM;
        self.directions.angle_deg(&other.directions) < SAME_DIRECTION_DEG
            && (same_spacing(0) && same_spacing(1))
            && (self.pixels.rows, self.pixels.columns) == (other.pixels.rows, other.pixels.columns)
            && self.slice.kernel() == other.slice.kernel()
            && self.image_kind() == other.image_kind()
    }

    /// AXIAL, LOCALIZER … (PS3.3 C.8.2.1.1.1); a localiser may share a series with its slices.
    fn image_kind(&self) -> Option<&str> {
        self.image_type().get(2).map(String::as_str)
    }

    pub(super) fn image_type(&self) -> &'a [String] {
        self.slice.image_type()
    }
}

/// Frames that are alike, and what the header says of each of them.
struct Group<'a> {
    verdict: SliceVerdict,
    frame_of_reference: Option<&'a str>,
    slices: Vec<Geometry<'a>>,
}

/// Sorts the frames of `objects`, all of one series, into stacks; largest first.
pub(crate) fn stacks_of<'a>(objects: &[Object<'a>]) -> SeriesStacks<'a> {
    let mut result = SeriesStacks::default();
    let mut kinds = HeaderKinds::default();
    let mut groups: Vec<Group<'a>> = Vec::new();
    let compares_frames = has_frames_of_reference(objects);
    for slice in objects.iter().flat_map(Object::slices) {
        let Some(geometry) = Geometry::of(slice) else {
            result.without_geometry.push(slice);
            continue;
        };
        let verdict = kinds.verdict(slice);
        let frame_of_reference =
            compares_frames.then_some(slice.instance.series.frame_of_reference_uid.as_str());
        let belongs = |group: &&mut Group<'a>| {
            group.verdict.same_refusals(verdict)
                && group.frame_of_reference == frame_of_reference
                && group.slices[0].alike(&geometry)
        };
        match groups.iter_mut().find(belongs) {
            Some(group) => group.slices.push(geometry),
            None => groups.push(Group {
                verdict: verdict.clone(),
                frame_of_reference,
                slices: vec![geometry],
            }),
        }
    }
    result.stacks = groups.into_iter().flat_map(Group::into_stacks).collect();
    // A stable sort: equals keep the order of their SOP Instance UIDs.
    result
        .stacks
        .sort_by_key(|stack| std::cmp::Reverse(stack.slices.len()));
    result
}

/// Whether Frame of Reference UIDs mean something: a writer that gives nearly each object one of
/// its own means nothing by them.
fn has_frames_of_reference(objects: &[Object<'_>]) -> bool {
    let mut uids: Vec<&str> = objects
        .iter()
        .map(|object| object.instance.series.frame_of_reference_uid.as_str())
        .collect();
    uids.sort_unstable();
    uids.dedup();
    2 * uids.len() <= objects.len()
}

impl<'a> Group<'a> {
    fn into_stacks(mut self) -> Vec<FrameStack<'a>> {
        // A group is made from its first member.
        let normal = headward(self.slices[0].directions.normal);
        measure_along(&mut self.slices, normal);
        let verdict = self.verdict;
        passes(self.slices)
            .into_iter()
            .map(|pass| FrameStack {
                notes: notes(&pass),
                slices: in_order(pass.slices),
                normal,
                verdict: verdict.clone(),
            })
            .collect()
    }
}

/// A rotation or two that were scanned again bring so many slices. More of them are a part of
/// another scan, of which only what was taken is seen.
const SCANNED_AGAIN_MAX: usize = 5;

fn notes(pass: &Pass<'_>) -> Vec<Reason> {
    let mut notes = Vec::new();
    if !pass.told_by.is_empty() {
        notes.push(Reason::new(
            ReasonCode::PartedByHeader,
            format!(
                "Other slices of the series lie over these; they were told apart by {}.",
                pass.told_by.join(" and ")
            ),
        ));
    }
    if pass.replaced > 0 {
        let code = if pass.replaced > SCANNED_AGAIN_MAX {
            ReasonCode::OverlappingSlices
        } else {
            ReasonCode::DuplicateSlice
        };
        notes.push(Reason::new(
            code,
            format!(
                "{} slices were scanned again; one of each two is taken here.",
                pass.replaced
            ),
        ));
    }
    notes
}

/// `slices` in order; `None` if there are none or one lacks a place in the patient.
pub(crate) fn placed<'a>(slices: &[Slice<'a>]) -> Option<Vec<PlacedSlice<'a>>> {
    let mut group: Vec<Geometry<'a>> = slices
        .iter()
        .map(|slice| Geometry::of(*slice))
        .collect::<Option<_>>()?;
    let normal = headward(group.first()?.directions.normal);
    measure_along(&mut group, normal);
    Some(in_order(group))
}

fn measure_along(group: &mut [Geometry<'_>], normal: [f64; 3]) {
    for slice in group {
        slice.along_mm = dot(&slice.position_mm, &normal);
    }
}

fn in_order(mut group: Vec<Geometry<'_>>) -> Vec<PlacedSlice<'_>> {
    group.sort_by(by_place);
    group
        .iter()
        .map(|geometry| PlacedSlice {
            slice: geometry.slice,
            along_mm: geometry.along_mm,
        })
        .collect()
}

/// The slices' normal, turned towards the head (PS3.3 C.7.6.2.1.1: z grows that way).
fn headward(normal: [f64; 3]) -> [f64; 3] {
    if normal[2] < 0.0 {
        normal.map(|component| -component)
    } else {
        normal
    }
}

/// From the first of `slices`, in order, to the last, mm along the normal.
pub(crate) fn span_mm(slices: &[PlacedSlice<'_>]) -> f64 {
    match (slices.first(), slices.last()) {
        (Some(first), Some(last)) => last.along_mm - first.along_mm,
        (None, _) | (_, None) => 0.0,
    }
}

impl FrameStack<'_> {
    /// From the first slice's centre to the last one's, mm along the normal.
    pub(crate) fn span_mm(&self) -> f64 {
        span_mm(&self.slices)
    }

    /// Slices at different places.
    pub(crate) fn places(&self) -> usize {
        let steps = self.slices.windows(2);
        let apart = steps.filter(|pair| pair[1].along_mm - pair[0].along_mm >= SAME_PLACE_MM);
        apart.count() + usize::from(!self.slices.is_empty())
    }

    /// The middle one of the slices' thicknesses; where none states it, of their gaps. mm.
    pub(crate) fn thickness_mm(&self) -> Option<f64> {
        let stated = self
            .slices
            .iter()
            .filter_map(|placed| placed.slice.frame()?.thickness_mm);
        median(stated.collect()).or_else(|| {
            let gaps = self
                .slices
                .windows(2)
                .map(|pair| pair[1].along_mm - pair[0].along_mm);
            median(gaps.filter(|gap| *gap >= SAME_PLACE_MM).collect())
        })
    }
}

/// The middle one of `numbers`; `None` without any.
pub(super) fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}
