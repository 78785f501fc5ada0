//! Instances of one study → the volume of each scan that is analysed, with a verdict for every
//! series.
//!
//! The header ranks the reconstructions of a scan; the pixels decide. The first one that becomes a
//! volume and is a head stands for its scan.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::DateTime;

use crate::decode::plausible;
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
    limits: &'a Limits,
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
    /// Looks at the headers of `instances`, one patient's. Their order does not matter.
    pub fn of(instances: &'a [Instance], limits: &'a Limits) -> Self {
        let refused = too_many(instances, limits);
        let considered = if refused.is_none() { instances } else { &[] };
        let candidates = candidates(considered, limits);
        Self {
            limits,
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
            if self.heads >= self.limits.scans_max || self.strangers >= STRANGERS_MAX {
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
            match head_volume(&self.candidates.list[*index], self.limits) {
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
            if self.heads >= self.limits.scans_max {
                format!(
                    "The study has {} further scans; {} are analysed (limits.scans_max).",
                    left.len(),
                    self.limits.scans_max
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

fn head_volume(candidate: &Candidate<'_>, limits: &Limits) -> Result<HeadVolume, Reason> {
    let (volume, certificate) = build(&candidate.slices, limits).map_err(|error| error.reason)?;
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
pub(crate) mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::header::read_instance;

    /// The instances of a study of the catalogue, in order.
    pub(crate) fn fixture(name: &str) -> (TempDir, Vec<Instance>) {
        let folder = TempDir::new().unwrap();
        let paths = fixtures::make(name, folder.path()).unwrap();
        assert!(!paths.is_empty(), "{name} has no objects");
        let limits = Limits::default();
        let instances = paths
            .iter()
            .map(|path| read_instance(path, &limits).unwrap())
            .collect();
        (folder, instances)
    }

    fn codes(reasons: &[Reason]) -> Vec<ReasonCode> {
        reasons.iter().map(|reason| reason.code).collect()
    }

    /// All scans, and the verdicts.
    fn scans(instances: &[Instance], limits: &Limits) -> (Vec<ScanVolume>, Vec<SeriesVerdict>) {
        let mut study = StudyScans::of(instances, limits);
        let scans = std::iter::from_fn(|| study.next_scan()).collect();
        (scans, study.verdicts())
    }

    /// The one scan of a study, and the verdicts.
    fn only_scan(instances: &[Instance]) -> (ScanVolume, Vec<SeriesVerdict>) {
        let (mut scans, verdicts) = scans(instances, &Limits::default());
        assert_eq!(scans.len(), 1);
        (scans.remove(0), verdicts)
    }

    fn no_scan(instances: &[Instance], limits: &Limits) -> Vec<Reason> {
        let mut study = StudyScans::of(instances, limits);
        assert!(study.next_scan().is_none());
        study.no_usable_series()
    }

    #[test]
    fn a_whole_head_is_chosen_and_nothing_is_missing() {
        let (_folder, instances) = fixture("small_head");
        let (scan, verdicts) = only_scan(&instances);
        assert_eq!(scan.incomplete, []);
        assert_eq!(scan.volume.unwrap().certificate.slices, instances.len());
        assert_eq!(scan.series_uids, [instances[0].series_uid.clone()]);
        assert_eq!(scan.acquired.unwrap().to_string(), "2026-01-15T08:00:10");
        assert_eq!(verdicts.len(), 1);
        assert!(verdicts[0].chosen);
        assert_eq!(verdicts[0].reasons[0].code, ReasonCode::Chosen);
    }

    #[test]
    fn a_missing_slice_makes_the_result_partial() {
        let (_folder, mut instances) = fixture("small_head");
        instances.remove(12);
        let (scan, _) = only_scan(&instances);
        assert!(scan.volume.is_ok());
        assert_eq!(codes(&scan.incomplete), [ReasonCode::MissingSlices]);
    }

    #[test]
    fn a_child_is_outside_the_models_use() {
        let (_folder, mut instances) = fixture("small_head");
        for instance in &mut instances {
            instance.study.patient_age = "011Y".to_owned();
        }
        let (scan, _) = only_scan(&instances);
        assert_eq!(codes(&scan.incomplete), [ReasonCode::OutsideModelContract]);
        assert!(scan.incomplete[0].text.contains("11 years"));
    }

    #[test]
    fn the_order_of_arrival_does_not_change_the_voxels() {
        let (_folder, mut instances) = fixture("small_head");
        let (forward, verdicts) = only_scan(&instances);
        instances.reverse();
        let (backward, reversed) = only_scan(&instances);
        assert_eq!(verdicts, reversed);
        let (forward, backward) = (forward.volume.unwrap(), backward.volume.unwrap());
        assert_eq!(forward.volume.hounsfield, backward.volume.hounsfield);
    }

    #[test]
    fn what_comes_twice_is_counted_once_and_what_conflicts_is_named() {
        let (folder, mut instances) = fixture("small_head");
        let count = instances.len();
        instances.push(instances[3].clone());
        let (scan, verdicts) = only_scan(&instances);
        assert_eq!(scan.volume.unwrap().certificate.slices, count);
        assert_eq!(scan.incomplete, []);
        assert!(codes(&verdicts[0].reasons).contains(&ReasonCode::Duplicate));

        let mut bytes = std::fs::read(&instances[3].path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let path = folder.path().join("other.bin");
        std::fs::write(&path, bytes).unwrap();
        instances[count].path = path;
        let (scan, forward) = only_scan(&instances);
        assert!(codes(&forward[0].reasons).contains(&ReasonCode::ConflictingDuplicate));
        assert_eq!(codes(&scan.incomplete), [ReasonCode::OverlappingSlices]);
        let warnings = scan.volume.unwrap().certificate.warnings;
        assert!(codes(&warnings).contains(&ReasonCode::ConflictingDuplicate));
        instances.reverse();
        assert_eq!(only_scan(&instances).1, forward);
    }

    #[test]
    fn different_slices_under_one_uid_are_all_used_and_the_result_is_partial() {
        let (_folder, mut instances) = fixture("small_head");
        let count = instances.len();
        for pair in instances.chunks_mut(2) {
            let uid = pair[0].sop_instance_uid.clone();
            for instance in pair {
                instance.sop_instance_uid = uid.clone();
            }
        }
        let (scan, _) = only_scan(&instances);
        assert_eq!(scan.volume.unwrap().certificate.slices, count);
        let found = codes(&scan.incomplete);
        assert!(
            found.contains(&ReasonCode::ConflictingDuplicate),
            "{found:?}"
        );
    }

    #[test]
    fn without_a_usable_series_each_series_says_why() {
        let (_folder, mut instances) = fixture("small_head");
        for instance in &mut instances {
            instance.series.kernel = "BONE".into();
            instance.frames[0].kernel = "BONE".into();
        }
        let reasons = no_scan(&instances, &Limits::default());
        assert_eq!(
            codes(&reasons),
            [ReasonCode::NoUsableSeries, ReasonCode::BoneKernel]
        );
    }

    #[test]
    fn an_empty_study_and_one_beyond_the_limit_have_reasons_and_no_volume() {
        let limits = Limits::default();
        assert_eq!(codes(&no_scan(&[], &limits)), [ReasonCode::NoUsableSeries]);
        let many = crate::series::tests::head_series(1, 5);
        let limits = Limits {
            study_instances_max: 4,
            ..limits
        };
        assert_eq!(codes(&no_scan(&many, &limits)), [ReasonCode::LimitExceeded]);
        let mut one = many[0].clone();
        one.frames = vec![one.frames[0].clone(); 5];
        assert_eq!(
            codes(&no_scan(&[one], &limits)),
            [ReasonCode::LimitExceeded]
        );
    }

    #[test]
    fn what_is_no_head_by_its_pixels_is_no_scan_of_one() {
        let (_folder, head) = fixture("small_head");
        let (_other, mut not_head) = fixture("chest_called_head");
        for instance in &mut not_head {
            // Ranked first, by its series number.
            instance.series = head[0].series.clone();
            instance.series.series_number = Some(0);
        }
        let expected = head[0].series_uid.clone();
        let instances = [head, not_head].concat();
        let (scan, verdicts) = only_scan(&instances);
        assert!(scan.volume.is_ok());
        for verdict in &verdicts {
            assert_eq!(verdict.chosen, verdict.uid == expected);
            let says_not_head = codes(&verdict.reasons).contains(&ReasonCode::NotHead);
            assert_eq!(says_not_head, !verdict.chosen, "{:?}", verdict.reasons);
        }
    }

    /// The same head again `later` hours later, as another series.
    fn repeated(instances: &[Instance], later: i8) -> Vec<Instance> {
        let mut again = instances.to_vec();
        for instance in &mut again {
            let number = later.to_string();
            instance.sop_instance_uid = renamed(&instance.sop_instance_uid, &number);
            instance.series_uid = renamed(&instance.series_uid, &number);
            let acquired = &mut instance.frames[0].acquired;
            *acquired = acquired.map(|at| at.with().hour(at.hour() + later).build().unwrap());
        }
        again
    }

    fn renamed(uid: &Uid, number: &str) -> Uid {
        Uid::new(&format!(
            "2.25.{}{number}",
            &uid.as_str()[uid.as_str().len() - 20..].replace('.', "")
        ))
        .unwrap()
    }

    #[test]
    fn a_repeat_hours_later_is_a_scan_of_its_own() {
        let (_folder, instances) = fixture("small_head");
        let both = [instances.clone(), repeated(&instances, 4)].concat();
        let (scans, verdicts) = scans(&both, &Limits::default());
        assert_eq!(scans.len(), 2);
        let mut times: Vec<String> = scans
            .iter()
            .map(|scan| scan.acquired.unwrap().to_string())
            .collect();
        times.sort();
        assert_eq!(times, ["2026-01-15T08:00:10", "2026-01-15T12:00:10"]);
        assert!(scans.iter().all(|scan| scan.volume.is_ok()));
        assert!(verdicts.iter().all(|verdict| verdict.chosen));
    }

    #[test]
    fn scans_beyond_the_limit_are_said_and_not_analysed() {
        let (_folder, instances) = fixture("small_head");
        let study: Vec<Instance> = (0..5)
            .flat_map(|later| repeated(&instances, later))
            .collect();
        let limits = Limits {
            scans_max: 3,
            ..Limits::default()
        };
        let (scans, _) = scans(&study, &limits);
        assert_eq!(scans.len(), 4);
        assert!(scans[..3].iter().all(|scan| scan.volume.is_ok()));
        let reasons = scans[3].volume.as_ref().unwrap_err();
        assert_eq!(codes(reasons), [ReasonCode::LimitExceeded]);
        assert!(
            reasons[0].text.contains("2 further scans"),
            "{}",
            reasons[0].text
        );
        assert_eq!(scans[3].series_uids.len(), 2);
    }

    #[test]
    fn what_came_of_a_further_scan_is_told_however_little_it_is() {
        let (_folder, instances) = fixture("small_head");
        // A few slices in the middle, and the vertex, which is no head by its pixels.
        for kept in [12..14, 24..32] {
            let again: Vec<Instance> = repeated(&instances, 4)
                .into_iter()
                .enumerate()
                .filter(|(index, _)| kept.contains(index))
                .map(|(_, instance)| instance)
                .collect();
            let slices = again.len();
            let (scans, _) = scans(&[instances.clone(), again].concat(), &Limits::default());
            assert_eq!(scans.len(), 2, "{slices}");
            assert!(scans[0].volume.is_ok());
            assert!(scans[1].volume.is_err() || !scans[1].incomplete.is_empty());
        }
        // All of it with a bone kernel: hours later it is another scan, else one that was read.
        for (later, expected) in [(4, 2), (0, 1)] {
            let mut sharp = repeated(&instances, later);
            for one in &mut sharp {
                "H60s".clone_into(&mut one.series.kernel);
                one.frames[0].kernel.clear();
            }
            let (scans, _) = scans(&[instances.clone(), sharp].concat(), &Limits::default());
            assert_eq!(scans.len(), expected);
        }
        // A slice at the neck, below the head: as before contrast comes.
        let mut below = repeated(&instances[..1], 4);
        let frame = &mut below[0].frames[0];
        frame.position_mm = frame.position_mm.map(|[x, y, z]| [x, y, z - 80.0]);
        let (scans, _) = scans(&[instances, below].concat(), &Limits::default());
        assert_eq!(scans.len(), 1);
    }
}
