//! Stacks → scans: which stacks are reconstructions of one scan, and which show the head at another
//! time.
//!
//! Only what is shown to be one scan counts once: the same run of the tube, or the same time of
//! acquisition, over the same part of the body. Where headers say too little, each stack is a scan
//! of its own, and one is looked at too many rather than one too few.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use jiff::civil::DateTime;

use crate::header::moment::has_date;
use crate::instance::FrameHeader;

use super::stacks::{median, placed, span_mm};
use super::{Candidate, Slice};

/// Scanners round times of acquisition to a second.
const SAME_TIME: SignedDuration = SignedDuration::from_secs(1);
/// From here on it is another scan for sure.
const ANOTHER_TIME: SignedDuration = SignedDuration::from_mins(2);
/// Tube voltages further apart than this are two scans, kV.
const SAME_VOLTAGE_KV: f64 = 0.5;
/// Reconstructions of one scan share this share of the shorter one's height.
const SHARED_HEIGHT: f64 = 0.5;
/// Scans of heads show no wider field, mm.
const HEAD_FIELD_MM_MAX: f64 = 350.0;
/// Thicknesses and spacings that differ by less than this are the same, mm.
const SAME_LENGTH_MM: f64 = 0.01;

/// One time that the head was scanned: reconstructions of it, as places in the list of candidates,
/// best first; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Places in the list of candidates.
    pub reconstructions: Vec<usize>,
    /// When its first slice was acquired, by the scanner's clock, if that is stated with a date.
    pub acquired: Option<DateTime>,
}

/// The scans among `candidates` that can be used by their headers, in the order of the best
/// reconstruction of each.
pub fn scans_of(candidates: &[Candidate<'_>]) -> Vec<Scan> {
    Comparison::of(candidates).scans(candidates)
}

/// What the headers of candidates say of the scan that each is of, taken together once.
#[derive(Debug)]
pub(crate) struct Comparison(Vec<Facts>);

impl Comparison {
    /// Of `candidates`, in their order.
    pub(crate) fn of(candidates: &[Candidate<'_>]) -> Self {
        Self(candidates.iter().map(Facts::of).collect())
    }

    /// As [`scans_of`], for the same `candidates`.
    pub(crate) fn scans(&self, candidates: &[Candidate<'_>]) -> Vec<Scan> {
        let Self(facts) = self;
        let mut scans: Vec<Scan> = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            if !candidate.usable() {
                continue;
            }
            let known = scans.iter_mut().find(|scan| {
                let mut members = scan.reconstructions.iter();
                members.all(|member| facts[*member].is_one_scan_with(&facts[index]))
            });
            match known {
                Some(scan) => scan.reconstructions.push(index),
                None => scans.push(Scan {
                    reconstructions: vec![index],
                    acquired: facts[index]
                        .acquired
                        .map(|[first, _]| first)
                        .filter(|at| has_date(*at)),
                }),
            }
        }
        scans
    }

    /// Whether candidate `few` is what came of another scan than candidate `whole`, over the part of
    /// the body that `whole` shows. With `proven`, only where both say when they were scanned, and
    /// that is minutes apart.
    pub(crate) fn is_part_of_another_scan(&self, few: usize, whole: usize, proven: bool) -> bool {
        let (few, whole) = (&self.0[few], &self.0[whole]);
        few.is_head_wide
            && few.lies_within(whole)
            && !(few.could_be_one_scan_with(whole) && few.was_scanned_with(whole))
            && (!proven
                || few
                    .apart_from(whole)
                    .is_some_and(|apart| apart >= ANOTHER_TIME))
    }
}

/// What tells one scan from another.
#[derive(Debug)]
struct Facts {
    frame_of_reference_uid: String,
    irradiation_event_uids: BTreeSet<String>,
    acquisition_numbers: BTreeSet<i64>,
    /// First and last.
    acquired: Option<[DateTime; 2]>,
    tube_voltage_kv: Option<f64>,
    kernel: String,
    thickness_mm: Option<f64>,
    spacing_mm: Option<[f64; 2]>,
    /// In order.
    places_mm: Vec<f64>,
    height_mm: f64,
    /// Whether the field is no wider than that of a head, or of a width that is not stated.
    is_head_wide: bool,
}

impl Facts {
    fn of(candidate: &Candidate<'_>) -> Self {
        let slices = &candidate.slices;
        let frames = || slices.iter().filter_map(Slice::frame);
        let first = slices.first();
        let series = || slices.iter().map(|slice| &slice.instance.series);
        let number =
            |pick: fn(&FrameHeader) -> Option<f64>| median(frames().filter_map(pick).collect());
        let placed = placed(slices).unwrap_or_default();
        let times = || frames().filter_map(|frame| frame.acquired);
        let is_head_wide = first.is_some_and(|slice| {
            let columns = slice.instance.pixels.as_ref().map(|pixels| pixels.columns);
            let spacing_mm = slice.frame().and_then(|frame| frame.spacing_mm);
            columns
                .zip(spacing_mm)
                .is_none_or(|(columns, mm)| f64::from(columns) * mm[1] <= HEAD_FIELD_MM_MAX)
        });
        Self {
            is_head_wide,
            frame_of_reference_uid: series()
                .map(|series| series.frame_of_reference_uid.clone())
                .next()
                .unwrap_or_default(),
            irradiation_event_uids: series()
                .map(|series| series.irradiation_event_uid.clone())
                .filter(|uid| !uid.is_empty())
                .collect(),
            acquisition_numbers: frames()
                .filter_map(|frame| frame.acquisition_number)
                .collect(),
            acquired: times()
                .min()
                .zip(times().max())
                .map(|(low, high)| [low, high]),
            tube_voltage_kv: number(|frame| frame.tube_voltage_kv),
            kernel: first
                .map(|slice| slice.kernel().to_owned())
                .unwrap_or_default(),
            thickness_mm: number(|frame| frame.thickness_mm),
            spacing_mm: first.and_then(|slice| slice.frame()?.spacing_mm),
            height_mm: span_mm(&placed),
            places_mm: placed.iter().map(|placed| placed.along_mm).collect(),
        }
    }

    fn is_one_scan_with(&self, other: &Self) -> bool {
        self.could_be_one_scan_with(other)
            && self.shows_the_same_part_as(other)
            && !self.is_the_same_reconstruction_as(other)
            && self.was_scanned_with(other)
    }

    /// Whether nothing that headers state speaks against it.
    fn could_be_one_scan_with(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.frame_of_reference_uid, &other.frame_of_reference_uid);
        let frame_differs = !ours.is_empty() && !theirs.is_empty() && ours != theirs;
        let voltage_differs = self
            .tube_voltage_kv
            .zip(other.tube_voltage_kv)
            .is_some_and(|(a, b)| (a - b).abs() > SAME_VOLTAGE_KV);
        let numbers_differ = !self.acquisition_numbers.is_empty()
            && !other.acquisition_numbers.is_empty()
            && self
                .acquisition_numbers
                .is_disjoint(&other.acquisition_numbers);
        !(frame_differs || voltage_differs || numbers_differ)
    }

    fn shows_the_same_part_as(&self, other: &Self) -> bool {
        let ends = |facts: &Self| {
            facts
                .places_mm
                .first()
                .copied()
                .zip(facts.places_mm.last().copied())
        };
        let Some(((a_low, a_high), (b_low, b_high))) = ends(self).zip(ends(other)) else {
            return false;
        };
        let shared_mm = a_high.min(b_high) - a_low.max(b_low);
        shared_mm >= SHARED_HEIGHT * self.height_mm.min(other.height_mm)
    }

    /// Whether each of its slices lies between the other's ends.
    fn lies_within(&self, other: &Self) -> bool {
        let ends = other.places_mm.first().zip(other.places_mm.last());
        !self.places_mm.is_empty()
            && ends.is_some_and(|(low, high)| {
                let between = (low - SAME_LENGTH_MM)..=(high + SAME_LENGTH_MM);
                self.places_mm.iter().all(|place| between.contains(place))
            })
    }

    /// The same kernel, thickness and pixels twice: a scanner does not reconstruct that again, so
    /// the head, or a part of it, was scanned again.
    fn is_the_same_reconstruction_as(&self, other: &Self) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() < SAME_LENGTH_MM;
        let same_thickness = match (self.thickness_mm, other.thickness_mm) {
            (Some(a), Some(b)) => near(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let same_spacing = self
            .spacing_mm
            .zip(other.spacing_mm)
            .is_none_or(|(a, b)| near(a[0], b[0]) && near(a[1], b[1]));
        self.kernel == other.kernel && same_thickness && same_spacing
    }

    /// Whether headers show that both are of one run of the tube.
    fn was_scanned_with(&self, other: &Self) -> bool {
        let apart = self.apart_from(other);
        if !self.irradiation_event_uids.is_empty() && !other.irradiation_event_uids.is_empty() {
            // Whoever removes names may give all events one UID.
            return apart.is_none_or(|apart| apart < ANOTHER_TIME)
                && !self
                    .irradiation_event_uids
                    .is_disjoint(&other.irradiation_event_uids);
        }
        apart.is_some_and(|apart| apart <= SAME_TIME)
    }

    /// Between the end of the one and the start of the other; negative where they overlap. `None`
    /// where a time is not stated, or all are midnight, which is what is written for a removed one.
    fn apart_from(&self, other: &Self) -> Option<SignedDuration> {
        let (a, b) = self.acquired.zip(other.acquired)?;
        let is_midnight = |[first, last]: [DateTime; 2]| {
            first == last && first.time() == jiff::civil::Time::midnight()
        };
        (!(is_midnight(a) && is_midnight(b))).then(|| a[0].max(b[0]).duration_since(a[1].min(b[1])))
    }
}
