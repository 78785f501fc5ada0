//! Instances of one study → the volume that is analysed, with a verdict for every series.
//!
//! The header ranks the candidates; the pixels decide. The first candidate that becomes a volume
//! and is a head is chosen.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use crate::content::{ContentHash, ContentHasher};
use crate::decode::plausible;
use crate::head::{HeadFacts, examine};
use crate::instance::Instance;
use crate::intake::{META_BYTES_MAX, MetaParse, parse_part10_meta};
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::series::{Candidate, SeriesVerdict, candidates_of};
use crate::uid::Uid;
use crate::volume::{GeometryCertificate, Volume, build};

/// Most candidates whose pixels are looked at. A study whose first six stacks are no heads by their
/// pixels holds none.
const CANDIDATES_DECODED_MAX: usize = 6;

/// What can be analysed of a study.
#[derive(Debug)]
pub struct StudyVolume {
    /// A verdict for each series, in order of UID.
    pub verdicts: Vec<SeriesVerdict>,
    /// The head, or why there is none.
    pub volume: Result<HeadVolume, Vec<Reason>>,
    /// What is missing from the head: with any of these the result is a partial one.
    pub incomplete: Vec<Reason>,
}

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

/// Chooses the series of a study that is analysed, and makes its volume.
///
/// The order of `instances` does not matter. Never fails: a study without a usable series has
/// reasons instead of a volume.
pub fn volume_of_study(instances: &[Instance], limits: &Limits) -> StudyVolume {
    let counted: usize = instances.iter().map(Instance::counted).sum();
    if counted > limits.study_instances_max {
        return StudyVolume::without(vec![Reason::new(
            ReasonCode::LimitExceeded,
            format!(
                "The study has {counted} images or more; {} are analysed \
                 (limits.study_instances_max).",
                limits.study_instances_max
            ),
        )]);
    }
    let distinct = distinct_objects(instances);
    let candidates = candidates_of(distinct.kept.into_iter(), limits);
    let mut choice = Choice::default();
    for (index, candidate) in candidates
        .iter()
        .enumerate()
        .filter(|(_, one)| one.usable())
    {
        choice.consider(index, candidate, limits);
    }
    choice.conclude(&candidates, &distinct.reasons)
}

impl StudyVolume {
    fn without(reasons: Vec<Reason>) -> Self {
        Self {
            verdicts: Vec::new(),
            volume: Err(reasons),
            incomplete: Vec::new(),
        }
    }
}

/// The candidates that were looked at, by their place in the list.
#[derive(Default)]
struct Choice {
    chosen: Option<(usize, HeadVolume)>,
    failed: BTreeMap<usize, Reason>,
}

impl Choice {
    fn consider(&mut self, index: usize, candidate: &Candidate<'_>, limits: &Limits) {
        if self.chosen.is_some() {
            return;
        }
        if self.failed.len() >= CANDIDATES_DECODED_MAX {
            let text =
                format!("Not looked at: {CANDIDATES_DECODED_MAX} series before it were none.");
            self.failed
                .insert(index, Reason::new(ReasonCode::LimitExceeded, text));
            return;
        }
        match head_volume(candidate, limits) {
            Ok(head) => self.chosen = Some((index, head)),
            Err(reason) => {
                self.failed.insert(index, reason);
            }
        }
    }

    fn conclude(
        self,
        candidates: &[Candidate<'_>],
        conflicts: &BTreeMap<&Uid, Vec<Reason>>,
    ) -> StudyVolume {
        let chosen = self.chosen.as_ref().map(|(index, _)| *index);
        let verdicts = verdicts(candidates, chosen, &self.failed, conflicts);
        match self.chosen {
            None => StudyVolume {
                volume: Err(no_usable_series(&verdicts)),
                verdicts,
                incomplete: Vec::new(),
            },
            Some((index, mut head)) => {
                let conflicts = conflicts.get(candidates[index].series_uid);
                let conflicts = conflicts.into_iter().flatten();
                let serious = conflicts.filter(|one| one.code == ReasonCode::ConflictingDuplicate);
                head.certificate.warnings.extend(serious.cloned());
                head.certificate
                    .warnings
                    .extend(head.facts.remarks.iter().cloned());
                StudyVolume {
                    incomplete: incomplete(&candidates[index], &head),
                    verdicts,
                    volume: Ok(head),
                }
            }
        }
    }
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
fn incomplete(candidate: &Candidate<'_>, head: &HeadVolume) -> Vec<Reason> {
    let left_out = |reason: &&Reason| {
        matches!(
            reason.code,
            ReasonCode::MissingSlices
                | ReasonCode::MissingGeometry
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

fn no_usable_series(verdicts: &[SeriesVerdict]) -> Vec<Reason> {
    let summary = match verdicts.len() {
        0 => "The study has no images.".to_owned(),
        1 => "The study's one series cannot be analysed.".to_owned(),
        count => format!("None of the study's {count} series can be analysed."),
    };
    let mut reasons = vec![Reason::new(ReasonCode::NoUsableSeries, summary)];
    for verdict in verdicts {
        for reason in &verdict.reasons {
            let text = format!("Series {}: {}", verdict.uid, reason.text);
            reasons.push(Reason::new(reason.code, text));
        }
    }
    reasons
}

/// One verdict for each series, gathered from its stacks.
fn verdicts(
    candidates: &[Candidate<'_>],
    chosen: Option<usize>,
    failed: &BTreeMap<usize, Reason>,
    conflicts: &BTreeMap<&Uid, Vec<Reason>>,
) -> Vec<SeriesVerdict> {
    let chosen_series = chosen.map(|index| candidates[index].series_uid);
    let mut verdicts: BTreeMap<&Uid, SeriesVerdict> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let uid = candidate.series_uid;
        let verdict = verdicts.entry(uid).or_insert_with(|| SeriesVerdict {
            uid: uid.clone(),
            chosen: chosen_series == Some(uid),
            reasons: Vec::new(),
        });
        let reasons = if chosen == Some(index) {
            chosen_reasons(candidate)
        } else {
            set_aside_reasons(candidate, failed.get(&index), chosen_series)
        };
        for reason in reasons {
            if !verdict.reasons.contains(&reason) {
                verdict.reasons.push(reason);
            }
        }
    }
    for (uid, reasons) in conflicts {
        if let Some(verdict) = verdicts.get_mut(uid) {
            verdict.reasons.extend(reasons.iter().cloned());
        }
    }
    verdicts.into_values().collect()
}

fn chosen_reasons(candidate: &Candidate<'_>) -> Vec<Reason> {
    let text = format!("Analysed: {} slices.", candidate.slices.len());
    let mut reasons = vec![Reason::new(ReasonCode::Chosen, text)];
    reasons.extend(candidate.remarks.iter().cloned());
    reasons.extend(candidate.incomplete.iter().cloned());
    reasons
}

fn set_aside_reasons(
    candidate: &Candidate<'_>,
    failed: Option<&Reason>,
    chosen: Option<&Uid>,
) -> Vec<Reason> {
    if !candidate.usable() {
        return candidate.refusals.clone();
    }
    match (failed, chosen) {
        (Some(reason), _) => vec![reason.clone()],
        (None, Some(chosen)) if chosen == candidate.series_uid => vec![Reason::new(
            ReasonCode::AnotherSeriesPreferred,
            format!(
                "{} slices of another stack of it were set aside.",
                candidate.slices.len()
            ),
        )],
        (None, Some(chosen)) => vec![Reason::new(
            ReasonCode::AnotherSeriesPreferred,
            format!("Usable, but series {chosen} suits better."),
        )],
        (None, None) => Vec::new(),
    }
}

/// A study's objects, one for each SOP Instance UID.
struct Distinct<'a> {
    /// In order of UID.
    kept: Vec<&'a Instance>,
    /// By series: what came more than once.
    reasons: BTreeMap<&'a Uid, Vec<Reason>>,
}

/// Of objects that share a SOP Instance UID the one with the lowest content hash is kept, so that
/// the choice does not depend on which came first.
fn distinct_objects(instances: &[Instance]) -> Distinct<'_> {
    let mut by_uid: BTreeMap<&Uid, Vec<&Instance>> = BTreeMap::new();
    for instance in instances {
        by_uid
            .entry(&instance.sop_instance_uid)
            .or_default()
            .push(instance);
    }
    let mut distinct = Distinct {
        kept: Vec::with_capacity(by_uid.len()),
        reasons: BTreeMap::new(),
    };
    for (uid, mut same) in by_uid {
        let mut reason = None;
        if same.len() > 1 {
            let mut hashed: Vec<_> = same.iter().map(|one| (content_of(one), *one)).collect();
            hashed.sort_by_key(|(hash, one)| (*hash, &one.path));
            reason = Some(repeated(uid, &hashed));
            same = hashed.into_iter().map(|(_, one)| one).collect();
        }
        let kept = same[0];
        distinct.kept.push(kept);
        if let Some(reason) = reason {
            distinct
                .reasons
                .entry(&kept.series_uid)
                .or_default()
                .push(reason);
        }
    }
    distinct
}

fn repeated(uid: &Uid, hashed: &[(Option<ContentHash>, &Instance)]) -> Reason {
    let first = hashed.first().and_then(|(hash, _)| *hash);
    if first.is_some() && hashed.iter().all(|(hash, _)| *hash == first) {
        let text = format!(
            "Object {uid} came {} times with the same content.",
            hashed.len()
        );
        return Reason::new(ReasonCode::Duplicate, text);
    }
    let kept = first.map_or_else(String::new, |hash| {
        format!(
            " The one with the content hash {}… was used.",
            &hash.to_hex()[..12]
        )
    });
    Reason::new(
        ReasonCode::ConflictingDuplicate,
        format!(
            "Object {uid} came {} times with different content.{kept}",
            hashed.len()
        ),
    )
}

/// The content hash that is known, or that of the file; `None` if the file cannot be read.
fn content_of(instance: &Instance) -> Option<ContentHash> {
    instance.content.or_else(|| {
        let mut file = File::open(&instance.path).ok()?;
        let mut bytes = Vec::with_capacity(META_BYTES_MAX);
        (&mut file)
            .take(META_BYTES_MAX as u64)
            .read_to_end(&mut bytes)
            .ok()?;
        let MetaParse::Meta { dataset_offset, .. } = parse_part10_meta(&bytes) else {
            return None;
        };
        let mut hasher = ContentHasher::new(instance.transfer_syntax_uid.as_str());
        hasher.update(&bytes[dataset_offset..]);
        loop {
            bytes.clear();
            if (&mut file)
                .take(META_BYTES_MAX as u64)
                .read_to_end(&mut bytes)
                .ok()?
                == 0
            {
                return Some(hasher.finish());
            }
            hasher.update(&bytes);
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::intake::read_instance;

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

    #[test]
    fn a_whole_head_is_chosen_and_nothing_is_missing() {
        let (_folder, instances) = fixture("small_head");
        let study = volume_of_study(&instances, &Limits::default());
        let head = study.volume.unwrap();
        assert_eq!(study.incomplete, []);
        assert_eq!(head.certificate.slices, instances.len());
        assert_eq!(study.verdicts.len(), 1);
        assert!(study.verdicts[0].chosen);
        assert_eq!(study.verdicts[0].reasons[0].code, ReasonCode::Chosen);
    }

    #[test]
    fn a_missing_slice_makes_the_result_partial() {
        let (_folder, mut instances) = fixture("small_head");
        instances.remove(12);
        let study = volume_of_study(&instances, &Limits::default());
        assert!(study.volume.is_ok());
        assert_eq!(codes(&study.incomplete), [ReasonCode::MissingSlices]);
    }

    #[test]
    fn the_order_of_arrival_does_not_change_the_voxels() {
        let (_folder, mut instances) = fixture("small_head");
        let forward = volume_of_study(&instances, &Limits::default());
        instances.reverse();
        let backward = volume_of_study(&instances, &Limits::default());
        assert_eq!(forward.verdicts, backward.verdicts);
        let (forward, backward) = (forward.volume.unwrap(), backward.volume.unwrap());
        assert_eq!(forward.volume.hounsfield, backward.volume.hounsfield);
    }

    #[test]
    fn what_comes_twice_is_counted_once_and_what_conflicts_is_named() {
        let (folder, mut instances) = fixture("small_head");
        let count = instances.len();
        instances.push(instances[3].clone());
        let study = volume_of_study(&instances, &Limits::default());
        assert_eq!(study.volume.unwrap().certificate.slices, count);
        assert!(codes(&study.verdicts[0].reasons).contains(&ReasonCode::Duplicate));

        let mut bytes = std::fs::read(&instances[3].path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let path = folder.path().join("other.bin");
        std::fs::write(&path, bytes).unwrap();
        instances[count].path = path;
        let study = volume_of_study(&instances, &Limits::default());
        let forward = study.verdicts.clone();
        assert!(codes(&forward[0].reasons).contains(&ReasonCode::ConflictingDuplicate));
        let warnings = study.volume.unwrap().certificate.warnings;
        assert!(codes(&warnings).contains(&ReasonCode::ConflictingDuplicate));
        instances.reverse();
        assert_eq!(
            volume_of_study(&instances, &Limits::default()).verdicts,
            forward
        );
    }

    #[test]
    fn without_a_usable_series_each_series_says_why() {
        let (_folder, mut instances) = fixture("small_head");
        for instance in &mut instances {
            instance.series.kernel = "BONE".into();
        }
        let study = volume_of_study(&instances, &Limits::default());
        let reasons = study.volume.unwrap_err();
        assert_eq!(
            codes(&reasons),
            [ReasonCode::NoUsableSeries, ReasonCode::BoneKernel]
        );
        assert!(!study.verdicts[0].chosen);
    }

    #[test]
    fn an_empty_study_and_one_beyond_the_limit_have_reasons_and_no_volume() {
        let limits = Limits::default();
        let empty = volume_of_study(&[], &limits).volume.unwrap_err();
        assert_eq!(codes(&empty), [ReasonCode::NoUsableSeries]);
        let many = crate::series::tests::head_series(1, 5);
        let limits = Limits {
            study_instances_max: 4,
            ..limits
        };
        let beyond = volume_of_study(&many, &limits).volume.unwrap_err();
        assert_eq!(codes(&beyond), [ReasonCode::LimitExceeded]);
        let mut one = many[0].clone();
        one.frames = vec![one.frames[0].clone(); 5];
        let beyond = volume_of_study(&[one], &limits).volume.unwrap_err();
        assert_eq!(codes(&beyond), [ReasonCode::LimitExceeded]);
    }

    #[test]
    fn the_next_candidate_is_taken_where_the_first_is_no_head_by_its_pixels() {
        let (_folder, head) = fixture("small_head");
        let (_other, mut not_head) = fixture("chest_called_head");
        for instance in &mut not_head {
            // Ranked first, by its series number.
            instance.series = head[0].series.clone();
            instance.series.series_number = Some(0);
        }
        let expected = head[0].series_uid.clone();
        let instances = [head, not_head].concat();
        let study = volume_of_study(&instances, &Limits::default());
        assert!(study.volume.is_ok());
        for verdict in &study.verdicts {
            assert_eq!(verdict.chosen, verdict.uid == expected);
            let says_not_head = codes(&verdict.reasons).contains(&ReasonCode::NotHead);
            assert_eq!(says_not_head, !verdict.chosen, "{:?}", verdict.reasons);
        }
    }
}
