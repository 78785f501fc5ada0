//! Which series of a study are analysed, and why the others are not.
//!
//! Asked of the header only; that a stack is a head is asked of its pixels later
//! ([`crate::study`]). A series' frames are sorted into stacks, one for each pass over the head;
//! stacks that are reconstructions of one scan count once ([`scans_of`]).

mod distinct;
mod header;
mod kernel;
mod passes;
mod scans;
pub(crate) mod stacks;
mod words;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::instance::{FrameHeader, Instance};
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::uid::Uid;

pub(crate) use distinct::Object;
use distinct::{Distinct, distinct};
use header::HeaderVerdict;
use kernel::Sharpness;
use stacks::{FrameStack, SeriesStacks, stacks_of};

pub use scans::{Scan, is_part_of_another_scan, scans_of};

/// What was decided about one series. Goes into the result as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesVerdict {
    /// Series Instance UID.
    pub uid: Uid,
    /// Whether this series was analysed.
    pub chosen: bool,
    /// Why, or why not; never empty.
    pub reasons: Vec<Reason>,
}

/// One frame of an instance: the unit of which a series' stack is made.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The object that holds the frame.
    pub instance: &'a Instance,
    /// Zero-based frame of it.
    pub frame_index: usize,
    /// The object's place in the order of receipt. It counts only among objects of one SOP Instance
    /// UID that lie at one place.
    pub(crate) received: usize,
}

impl<'a> Slice<'a> {
    /// A frame of an object whose time of receipt does not matter.
    pub fn of(instance: &'a Instance, frame_index: usize) -> Self {
        Self {
            instance,
            frame_index,
            received: 0,
        }
    }

    /// The frame's header; `None` only for a frame that the object does not have.
    pub(crate) fn frame(&self) -> Option<&'a FrameHeader> {
        self.instance.frames.get(self.frame_index)
    }

    /// Image Type (0008,0008) of the frame, or else of its object.
    pub(crate) fn image_type(&self) -> &'a [String] {
        match self.frame() {
            Some(frame) if !frame.image_type.is_empty() => &frame.image_type,
            Some(_) | None => &self.instance.series.image_type,
        }
    }

    /// Convolution Kernel (0018,1210) of the frame, or else of its object.
    pub(crate) fn kernel(&self) -> &'a str {
        match self.frame() {
            Some(frame) if !frame.kernel.is_empty() => &frame.kernel,
            Some(_) | None => &self.instance.series.kernel,
        }
    }

    /// An order by names: it depends on which object was received first only where two have one SOP
    /// Instance UID and lie at one place.
    pub(crate) fn compare_names(&self, other: &Self) -> Ordering {
        let name = |slice: &Self| (slice.instance.sop_instance_uid.as_str(), slice.frame_index);
        let place = |slice: &Self| {
            let frame = slice.frame();
            let corner = frame
                .and_then(|frame| frame.position_mm)
                .unwrap_or_default();
            let [row, column] = frame
                .and_then(|frame| frame.orientation)
                .unwrap_or_default();
            [corner, row, column].concat()
        };
        name(self)
            .cmp(&name(other))
            .then_with(|| {
                let places = place(self).into_iter().zip(place(other));
                places.fold(Ordering::Equal, |order, (a, b)| order.then(a.total_cmp(&b)))
            })
            .then_with(|| self.received.cmp(&other.received))
    }
}

/// One stack of a series, with what its header says for and against it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Series Instance UID.
    pub series_uid: &'a Uid,
    /// Its slices, feet to head; empty for objects without images or without geometry.
    pub slices: Vec<Slice<'a>>,
    /// Why it cannot be analysed; empty if it can, as far as the header goes.
    pub refusals: Vec<Reason>,
    /// What is odd about it but allowed.
    pub remarks: Vec<Reason>,
    /// How it was parted from other slices of its series.
    pub notes: Vec<Reason>,
    /// Slices of the series that had to be left out: the result will be partial.
    pub incomplete: Vec<Reason>,
    rank: Rank,
}

impl Candidate<'_> {
    /// Whether the header has nothing against it.
    pub fn usable(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// Order of preference; less is better. Lengths are in whole tenths of a millimetre, so that equal
/// headers rank equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    refused: bool,
    sharpness: Sharpness,
    /// What is lacking to the height of a head; a long one is no better than a sufficient one.
    uncovered_mm: u64,
    outside_liked_thickness: u64,
    remarks: usize,
    /// Of two that cover the same, the thicker decodes sooner and averages to the same slabs.
    places: usize,
    series_number: i64,
    series_uid: String,
    stack: usize,
}

/// A stack this high shows a head from vertex to base, mm.
const HEAD_HEIGHT_MM: f64 = 130.0;
/// Slices that the models are made for, mm.
const LIKED_THICKNESS_MM: std::ops::RangeInclusive<f64> = 0.5..=5.0;

/// The stacks of a study, with what was odd about its objects.
#[derive(Debug)]
pub struct Candidates<'a> {
    /// Best first; those that cannot be used come last.
    pub list: Vec<Candidate<'a>>,
    /// By series: objects that came more than once, or under another one's UID.
    pub repeated: BTreeMap<&'a Uid, Vec<Reason>>,
}

/// The stacks of a study's series. `instances` come in the order of receipt, which matters only
/// where two objects of one SOP Instance UID and other content lie at one place.
///
/// Objects with the same SOP Instance UID and the same content count once.
pub fn candidates<'a>(instances: &'a [Instance], limits: &Limits) -> Candidates<'a> {
    let Distinct {
        kept,
        mut repeated,
        shared,
    } = distinct(instances);
    let mut series: BTreeMap<&Uid, Vec<Object<'_>>> = BTreeMap::new();
    for object in kept {
        series
            .entry(&object.instance.series_uid)
            .or_default()
            .push(object);
    }
    let mut list: Vec<Candidate<'a>> = series
        .into_iter()
        .flat_map(|(uid, objects)| candidates_of_series(uid, &objects, limits))
        .collect();
    for (series_uid, reason) in shared {
        for candidate in list.iter_mut().filter(|one| one.series_uid == series_uid) {
            candidate.incomplete.push(reason.clone());
        }
        repeated.entry(series_uid).or_default().push(reason);
    }
    list.sort_by(|a, b| a.rank.cmp(&b.rank));
    Candidates { list, repeated }
}

fn candidates_of_series<'a>(
    uid: &'a Uid,
    objects: &[Object<'a>],
    limits: &Limits,
) -> Vec<Candidate<'a>> {
    let SeriesStacks {
        stacks,
        without_geometry,
    } = stacks_of(objects);
    let mut candidates: Vec<Candidate<'a>> = stacks
        .iter()
        .enumerate()
        .map(|(index, stack)| {
            let verdict = HeaderVerdict::of_stack(stack, limits);
            candidate(uid, index, Some(stack), verdict)
        })
        .collect();
    if candidates.is_empty() {
        let verdict = HeaderVerdict::without_stack(objects);
        candidates.push(candidate(uid, 0, None, verdict));
    } else if let Some(reason) = missing_geometry(&without_geometry, objects) {
        for candidate in &mut candidates {
            candidate.incomplete.push(reason.clone());
        }
    }
    candidates
}

fn candidate<'a>(
    series_uid: &'a Uid,
    index: usize,
    stack: Option<&FrameStack<'a>>,
    verdict: HeaderVerdict,
) -> Candidate<'a> {
    let slices: Vec<Slice<'a>> = stack
        .map(|stack| stack.slices.iter().map(|placed| placed.slice).collect())
        .unwrap_or_default();
    let (incomplete, notes) = stack
        .map(|stack| stack.notes.clone())
        .unwrap_or_default()
        .into_iter()
        .partition(|note| note.code == ReasonCode::OverlappingSlices);
    let thickness_mm = stack.and_then(FrameStack::thickness_mm).unwrap_or(0.0);
    let liked = thickness_mm.clamp(*LIKED_THICKNESS_MM.start(), *LIKED_THICKNESS_MM.end());
    Candidate {
        series_uid,
        rank: Rank {
            refused: !verdict.refusals.is_empty(),
            sharpness: verdict.sharpness,
            uncovered_mm: tenths(HEAD_HEIGHT_MM - stack.map_or(0.0, FrameStack::span_mm)) / 10,
            outside_liked_thickness: tenths((thickness_mm - liked).abs()),
            remarks: verdict.remarks.len(),
            places: stack.map_or(0, FrameStack::places),
            series_number: slices
                .first()
                .and_then(|slice| slice.instance.series.series_number)
                .unwrap_or(i64::MAX),
            series_uid: series_uid.to_string(),
            stack: index,
        },
        slices,
        refusals: verdict.refusals,
        remarks: verdict.remarks,
        notes,
        incomplete,
    }
}

/// `length_mm` in tenths of a millimetre, zero for what is below zero.
fn tenths(length_mm: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to a small range first; a NaN becomes zero"
    )]
    let tenths = (length_mm * 10.0).round().clamp(0.0, 1e6) as u64;
    tenths
}

fn missing_geometry(without: &[Slice<'_>], objects: &[Object<'_>]) -> Option<Reason> {
    let first = without.first()?;
    let frames: usize = objects
        .iter()
        .map(|object| object.instance.frames.len())
        .sum();
    Some(Reason::new(
        ReasonCode::MissingGeometry,
        format!(
            "{} of {frames} slices were left out: they lack a usable position, orientation or \
             pixel spacing; the first is object {}.",
            without.len(),
            first.instance.sop_instance_uid
        ),
    ))
}

#[cfg(test)]
mod descriptions;
#[cfg(test)]
pub(crate) mod tests;
