//! Instances of one study → the volume of each scan that is analysed, with a verdict for every
//! series.
//!
//! The header ranks the reconstructions of a scan; the pixels decide. The first one that becomes a
//! volume and is a head stands for its scan.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;

use crate::decode::{Decoding, plausible};
use crate::head::{HeadFacts, examine};
use crate::instance::Instance;
use crate::limits::Limits;
use crate::patient::age_years;
use crate::reason::{Reason, ReasonCode};
use crate::series::{
    Candidate, Candidates, Scan, SeriesVerdict, candidates, is_part_of_another_scan, scans_of,
};
use crate::uid::Uid;
use crate::volume::{GeometryCertificate, Volume, build};

/// Most stacks whose pixels are looked at and are none of a head. A study with more of them than
/// this is not of a head.
const STRANGERS_MAX: usize = 24;
/// The model was made for adults.
const ADULT_YEARS: f64 = 18.0;

/// A volume that is a head, and how it was come by.
#[derive(Debug)]
pub struct HeadVolume {
    /// The voxels.
    pub volume: Volume,
    /// What was found out about the slices, and done about it.
    pub certificate: GeometryCertificate,
    /// What the pixels say.
    pub facts: HeadFacts,
}

/// One plain scan of the head.
#[derive(Debug)]
pub struct ScanVolume {
    /// Series of its reconstructions, the one that stands for it first.
    pub series_uids: Vec<Uid>,
    /// When its first slice was acquired, by the scanner's clock, if that is stated.
    pub acquired: Option<DateTime>,
    /// The head, or why it cannot be analysed.
    pub volume: Result<HeadVolume, Vec<Reason>>,
    /// What is missing from the head: with any of these the result is a partial one.
    pub incomplete: Vec<Reason>,
}

/// What a stack may be that lies over a head and was not analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fragment {
    /// Too little of a scan to be told as one of a head.
    Small,
    /// All there is of a scan, but not what a model can read: many studies have such a stack of the
    /// scan that was analysed too.
    Unsuitable,
}

/// The plain head scans of one study of one patient, one after the other.
#[derive(Debug)]
pub struct StudyScans<'a> {
    decoding: Decoding<'a>,
    refused: Option<Reason>,
    candidates: Candidates<'a>,
    scans: Vec<Scan>,
    next: usize,
    heads: usize,
    strangers: usize,
    /// Reasons that hold for every scan.
    of_patient: Vec<Reason>,
    /// Candidates that stand for a scan.
    chosen: BTreeSet<usize>,
    /// Candidates that were looked at and cannot.
    failed: BTreeMap<usize, Reason>,
}

impl<'a> StudyScans<'a> {
    /// Looks at the headers of `instances`, one patient's, in the order of receipt. It matters only
    /// where two objects of one SOP Instance UID and other content lie at one place: the first is
    /// preferred.
    pub fn of(instances: &'a [Instance], decoding: Decoding<'a>) -> Self {
        let limits = decoding.limits;
        let refused = too_many(instances, limits);
        let considered = if refused.is_none() { instances } else { &[] };
        let candidates = candidates(considered, limits);
        Self {
            decoding,
            refused,
            scans: scans_of(&candidates.list),
            candidates,
            next: 0,
            heads: 0,
            strangers: 0,
            of_patient: child(instances).into_iter().collect(),
            chosen: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// The next plain scan of the head, the best first; `None` after the last. What the pixels show
    /// to be no head, or one with contrast, is passed over; but slices of a further scan over a head
    /// that was analysed count as one that could not be.
    pub fn next_scan(&mut self) -> Option<ScanVolume> {
        while self.next < self.scans.len() {
            if self.heads >= self.decoding.limits.scans_max || self.strangers >= STRANGERS_MAX {
                return Some(self.beyond_the_limit());
            }
            let scan = self.scans[self.next].clone();
            self.next += 1;
            if let Some(volume) = self.volume_of(&scan) {
                self.heads += 1;
                return Some(volume);
            }
        }
        self.next_fragment()
    }

    /// What came of further scans, each too small a part of one to be told as a head.
    fn next_fragment(&mut self) -> Option<ScanVolume> {
        let list = &self.candidates.list;
        let lies_over_a_head = |few: usize, proven: bool| {
            let mut heads = self.chosen.iter();
            heads.any(|whole| is_part_of_another_scan(&list[few], &list[*whole], proven))
        };
        let fragments: Vec<usize> = (0..list.len())
            .filter(|index| {
                self.fragment(*index)
                    .is_some_and(|kind| lies_over_a_head(*index, kind == Fragment::Unsuitable))
            })
            .collect();
        let slices: usize = fragments.iter().map(|few| list[*few].slices.len()).sum();
        let reason = Reason::new(
            ReasonCode::MissingSlices,
            format!(
                "{slices} slices of another scan lie where the head was analysed, and cannot be \
                 analysed: what that scan shows was not seen. If it has more, send it again."
            ),
        );
        (slices > 0).then(|| self.left_out(fragments, None, reason))
    }

    /// `candidates` as one scan that is not analysed, for `reason`.
    fn left_out(
        &mut self,
        candidates: Vec<usize>,
        acquired: Option<DateTime>,
        reason: Reason,
    ) -> ScanVolume {
        let series_uids = self.series_of(candidates.iter().copied());
        for index in candidates {
            self.failed.insert(index, reason.clone());
        }
        ScanVolume {
            series_uids,
            acquired,
            volume: Err(vec![reason]),
            incomplete: Vec::new(),
        }
    }

    /// Whether candidate `index` could be of a scan of the head that was not analysed: by its
    /// header, or by pixels that make no head.
    fn fragment(&self, index: usize) -> Option<Fragment> {
        let of = |reason: &Reason| match reason.code {
            ReasonCode::TooFewSlices | ReasonCode::NotHead => Some(Fragment::Small),
            ReasonCode::BoneKernel
            | ReasonCode::SliceThicknessOutOfRange
            | ReasonCode::OtherBodyPart => Some(Fragment::Unsuitable),
            _ => None,
        };
        if let Some(reason) = self.failed.get(&index) {
            return of(reason);
        }
        let refusals = self.candidates.list[index].refusals.iter();
        let kinds: Option<Vec<Fragment>> = refusals.map(of).collect();
        kinds?.into_iter().max()
    }

    /// A verdict for each series, in order of UID. Asked for after the last scan.
    pub fn verdicts(&self) -> Vec<SeriesVerdict> {
        let chosen_series: BTreeSet<&Uid> = self
            .chosen
            .iter()
            .map(|index| self.candidates.list[*index].series_uid)
            .collect();
        let mut verdicts: BTreeMap<&Uid, SeriesVerdict> = BTreeMap::new();
        for (index, candidate) in self.candidates.list.iter().enumerate() {
            let uid = candidate.series_uid;
            let verdict = verdicts.entry(uid).or_insert_with(|| SeriesVerdict {
                uid: uid.clone(),
                chosen: chosen_series.contains(uid),
                reasons: Vec::new(),
            });
            verdict.reasons.extend(self.reasons_of(index, candidate));
            let repeated = self.candidates.repeated.get(uid);
            verdict
                .reasons
                .extend(repeated.into_iter().flatten().cloned());
        }
        verdicts.into_values().map(said_once).collect()
    }

    /// Why there is no plain head scan in the study.
    pub fn no_usable_series(&self) -> Vec<Reason> {
        if let Some(reason) = &self.refused {
            return vec![reason.clone()];
        }
        let verdicts = self.verdicts();
        let summary = match verdicts.len() {
            0 => "The study has no images.".to_owned(),
            1 => "The study's one series cannot be analysed.".to_owned(),
            count => format!("None of the study's {count} series can be analysed."),
        };
        let mut reasons = vec![Reason::new(ReasonCode::NoUsableSeries, summary)];
        for verdict in &verdicts {
            for reason in &verdict.reasons {
                let text = format!("Series {}: {}", verdict.uid, reason.text);
                reasons.push(Reason::new(reason.code, text));
            }
        }
        reasons.extend(self.of_patient.iter().cloned());
        reasons
    }

    /// The first reconstruction of `scan` that is a head. `None` where the pixels of each show that
    /// it is no plain scan of one.
    fn volume_of(&mut self, scan: &Scan) -> Option<ScanVolume> {
        let mut unreadable: Vec<Reason> = Vec::new();
        for index in &scan.reconstructions {
            match head_volume(&self.candidates.list[*index], self.decoding) {
                Ok(head) => {
                    self.chosen.insert(*index);
                    return Some(self.scan_volume(scan, *index, Ok(head)));
                }
                Err(reason) => {
                    if !is_no_plain_head(reason.code) {
                        unreadable.push(reason.clone());
                    }
                    self.failed.insert(*index, reason);
                }
            }
        }
        if unreadable.is_empty() {
            self.strangers += 1;
            return None;
        }
        let first = *scan.reconstructions.first()?;
        Some(self.scan_volume(scan, first, Err(unreadable)))
    }

    fn scan_volume(
        &self,
        scan: &Scan,
        index: usize,
        volume: Result<HeadVolume, Vec<Reason>>,
    ) -> ScanVolume {
        let candidate = &self.candidates.list[index];
        let mut incomplete = self.of_patient.clone();
        let volume = volume.map(|mut head| {
            let repeated = self.candidates.repeated.get(candidate.series_uid);
            let conflicts = repeated
                .into_iter()
                .flatten()
                .filter(|reason| reason.code == ReasonCode::ConflictingDuplicate);
            let scanned_again = candidate
                .notes
                .iter()
                .filter(|reason| reason.code == ReasonCode::DuplicateSlice);
            let remarks = head.facts.remarks.iter();
            head.certificate
                .warnings
                .extend(scanned_again.chain(conflicts).chain(remarks).cloned());
            incomplete.splice(0..0, missing_from(candidate, &head));
            head
        });
        let others = scan.reconstructions.iter().copied();
        ScanVolume {
            series_uids: self.series_of(std::iter::once(index).chain(others)),
            acquired: scan.acquired,
            volume,
            incomplete,
        }
    }

    /// The series of `candidates`, each once, in their order.
    fn series_of(&self, candidates: impl Iterator<Item = usize>) -> Vec<Uid> {
        let mut uids: Vec<Uid> = Vec::new();
        for index in candidates {
            let uid = self.candidates.list[index].series_uid;
            if !uids.contains(uid) {
                uids.push(uid.clone());
            }
        }
        uids
    }

    /// All scans from here on, as one that is not analysed.
    fn beyond_the_limit(&mut self) -> ScanVolume {
        let left = self.scans.split_off(self.next);
        let reason = Reason::new(
            ReasonCode::LimitExceeded,
            if self.heads >= self.decoding.limits.scans_max {
                format!(
                    "The study has {} further scans; {} are analysed (limits.scans_max).",
                    left.len(),
                    self.decoding.limits.scans_max
                )
            } else {
                format!(
                    "{} further stacks were not looked at: {STRANGERS_MAX} before them were no \
                     plain scans of a head.",
                    left.len()
                )
            },
        );
        let acquired = left.first().and_then(|scan| scan.acquired);
        let candidates = left.into_iter().flat_map(|scan| scan.reconstructions);
        self.left_out(candidates.collect(), acquired, reason)
    }

    fn reasons_of(&self, index: usize, candidate: &Candidate<'_>) -> Vec<Reason> {
        if self.chosen.contains(&index) {
            return chosen_reasons(candidate);
        }
        if !candidate.usable() {
            return candidate.refusals.clone();
        }
        if let Some(reason) = self.failed.get(&index) {
            return vec![reason.clone()];
        }
        let scan = self
            .scans
            .iter()
            .find(|scan| scan.reconstructions.contains(&index));
        let chosen = scan
            .into_iter()
            .flat_map(|scan| &scan.reconstructions)
            .find(|other| self.chosen.contains(other));
        chosen.map_or_else(Vec::new, |chosen| {
            vec![better(candidate, &self.candidates.list[*chosen])]
        })
    }
}

/// `verdict` with each reason once: stacks of one series share many.
fn said_once(mut verdict: SeriesVerdict) -> SeriesVerdict {
    let mut once: Vec<Reason> = Vec::new();
    for reason in verdict.reasons {
        if !once.contains(&reason) {
            once.push(reason);
        }
    }
    verdict.reasons = once;
    verdict
}

fn too_many(instances: &[Instance], limits: &Limits) -> Option<Reason> {
    let counted: usize = instances.iter().map(Instance::counted).sum();
    (counted > limits.study_instances_max).then(|| {
        Reason::new(
            ReasonCode::LimitExceeded,
            format!(
                "The study has {counted} images or more; {} are analysed \
                 (limits.study_instances_max).",
                limits.study_instances_max
            ),
        )
    })
}

fn child(instances: &[Instance]) -> Option<Reason> {
    let ages = instances.iter().filter_map(|one| age_years(&one.study));
    let years = ages.min_by(f64::total_cmp)?;
    (years < ADULT_YEARS).then(|| {
        Reason::new(
            ReasonCode::OutsideModelContract,
            format!(
                "By the header the patient is {years:.0} years old. The model was made for adults: \
                 what it does not find says nothing."
            ),
        )
    })
}

/// Whether a stack that failed for this is no plain scan of a head; with any other reason it may be
/// one that could not be read.
fn is_no_plain_head(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::NotHead | ReasonCode::Contrast | ReasonCode::TooFewSlices
    )
}

fn head_volume(candidate: &Candidate<'_>, decoding: Decoding<'_>) -> Result<HeadVolume, Reason> {
    let (volume, certificate) = build(&candidate.slices, decoding).map_err(|error| error.reason)?;
    let doubts = plausible::check(&volume.hounsfield)?;
    let mut facts = examine(&volume);
    facts.is_head.clone()?;
    facts.readable.clone()?;
    facts.warnings.extend(doubts);
    Ok(HeadVolume {
        volume,
        certificate,
        facts,
    })
}

/// What makes a result partial: slices that are missing or were left out, a head that is cut or
/// partly hidden.
fn missing_from(candidate: &Candidate<'_>, head: &HeadVolume) -> Vec<Reason> {
    let left_out = |reason: &&Reason| {
        matches!(
            reason.code,
            ReasonCode::MissingSlices
                | ReasonCode::MissingGeometry
                | ReasonCode::OverlappingSlices
                | ReasonCode::UndecodablePixels
                | ReasonCode::WrongPixelSize
                | ReasonCode::Truncated
        )
    };
    let of_stack = candidate.incomplete.iter();
    let of_slices = head.certificate.warnings.iter().filter(left_out);
    let of_head = head.facts.warnings.iter();
    of_stack.chain(of_slices).chain(of_head).cloned().collect()
}

fn chosen_reasons(candidate: &Candidate<'_>) -> Vec<Reason> {
    let text = format!("Analysed: {} slices.", candidate.slices.len());
    let mut reasons = vec![Reason::new(ReasonCode::Chosen, text)];
    reasons.extend(candidate.notes.iter().cloned());
    reasons.extend(candidate.remarks.iter().cloned());
    reasons.extend(candidate.incomplete.iter().cloned());
    reasons
}

/// Why `candidate` does not stand for its scan, but `chosen`.
fn better(candidate: &Candidate<'_>, chosen: &Candidate<'_>) -> Reason {
    let text = if candidate.series_uid == chosen.series_uid {
        format!(
            "{} slices of another stack of it are a further reconstruction of the same scan.",
            candidate.slices.len()
        )
    } else {
        format!(
            "A further reconstruction of the same scan; series {} suits better.",
            chosen.series_uid
        )
    };
    Reason::new(ReasonCode::AnotherSeriesPreferred, text)
}

#[cfg(test)]
pub(crate) mod tests;
