//! Instances of one study → its report: the straight way through all stages.

use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::civil::DateTime;
use pipeline::decode::Decoding;
use pipeline::prepare::prepare_centred;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::series::SeriesVerdict;
use pipeline::study::{ScanVolume, StudyScans};
use pipeline::uid::Uid;
use pipeline::unread::Received;
use pipeline::volume::{GeometryCertificate, PatientPoint, Volume};
use serde::{Deserialize, Serialize};

use crate::artefacts::{ScanAnswer, ScanArtefacts, StudyArtefacts, VolumeGeometry};
use crate::findings::{Finding, Outcome};
use crate::output::{FindingMap, read_findings};
use crate::report::{ModelIdentity, ScanReport, StudyReport, parts_of};
use crate::runtime::Network;
use crate::triage::prioritise;

/// The key in `timing_ms` for all stages together.
const TOTAL: &str = "total";

/// A stage of the analysis, in order. Its word is the key in `timing_ms`, beside `total`; a stage
/// that was not reached has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Series chosen, pixels decoded, geometry checked and rectified, head looked for.
    Volume,
    /// The model's tensor made.
    Prepare,
    /// The network run.
    Inference,
    /// Findings read from its output, priority decided.
    Findings,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 4] = [Self::Volume, Self::Prepare, Self::Inference, Self::Findings];

    /// The key in `timing_ms`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Prepare => "prepare",
            Self::Inference => "inference",
            Self::Findings => "findings",
        }
    }
}

/// How the caller follows an analysis. This crate reads no clock.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Milliseconds since any fixed moment, never going back.
    pub elapsed_ms: &'a (dyn Fn() -> f64 + Sync),
    /// Called when a stage begins.
    pub entered: &'a (dyn Fn(Stage) + Sync),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Watch")
    }
}

/// The objects of one study of one patient.
#[derive(Clone, Copy, Debug)]
pub struct StudyObjects<'a> {
    /// Study Instance UID.
    pub study_uid: &'a Uid,
    /// Those that can be read, in any order, and those that cannot.
    pub received: Received<'a>,
    /// What is known to be doubtful or lacking besides: with any of these the study is not whole,
    /// whatever its scans show.
    pub doubts: &'a [Reason],
}

/// What came of one study.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The result, as it goes over every wire.
    pub report: StudyReport,
    /// What stays of it beside the report: masks, scores and geometry of every scan.
    pub artefacts: StudyArtefacts,
    /// The volume of the scan that decides, or one that could have been analysed; `None` when none
    /// could be made.
    pub volume: Option<Volume>,
}

impl Analysis {
    /// Where the findings of the scan that decides were read from; `None` when no network ran.
    pub fn map(&self) -> Option<FindingMap> {
        self.artefacts.deciding_answer().map(ScanAnswer::to_map)
    }
}

/// Analyses the plain head scans of a study, one after the other; the worst decides. With objects
/// that could not be read, and may hold slices, none of them ends as analysed.
///
/// `network` may be the reason why there is none: the report then has the study's series and
/// geometry, and ends as not analysed. `decoding` may bring slices that were decoded while others
/// were still to come. Never panics: a fault inside becomes
/// [`ReasonCode::InternalFault`].
pub fn analyse(
    study: StudyObjects<'_>,
    network: Result<&mut Network, &Reason>,
    decoding: Decoding<'_>,
    watch: Watch<'_>,
) -> Analysis {
    let mut course = Course::default();
    let mut stages = Stages {
        watch,
        timing_ms: BTreeMap::new(),
    };
    let started_ms = (watch.elapsed_ms)();
    // What a panic leaves behind is not used: `course` holds only finished scans, and a session
    // of ONNX Runtime keeps nothing between runs.
    let attempt = AssertUnwindSafe(|| course.through(study, network, decoding, &mut stages));
    let end = catch_unwind(attempt).unwrap_or_else(|panic| Err(internal_fault(panic.as_ref())));
    let mut timing_ms = stages.timing_ms;
    timing_ms.insert(TOTAL.to_owned(), (watch.elapsed_ms)() - started_ms);
    course.finish(study.study_uid, end, timing_ms)
}

fn internal_fault(panic: &(dyn Any + Send)) -> Vec<Reason> {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(message, "the analysis panicked");
    let text = "The analysis failed by a fault of Tez; the log has more. Please report it.";
    vec![Reason::new(ReasonCode::InternalFault, text)]
}

/// One study on its way: what the finished scans gave.
#[derive(Default)]
struct Course {
    series: Vec<SeriesVerdict>,
    scans: Vec<ScanReport>,
    outcomes: Vec<Outcome>,
    artefacts: Vec<ScanArtefacts>,
    /// Of the scan that decides among those that were analysed.
    kept: Option<Kept>,
}

/// What a scan was analysed with: too large to be kept of each.
struct Kept {
    /// The scan's place in [`Course::scans`].
    index: usize,
    volume: Option<Volume>,
    /// The network that answered.
    model: Option<ModelIdentity>,
}

/// What came of one scan.
struct ScanResult {
    outcome: Outcome,
    geometry: Option<GeometryCertificate>,
    volume: Option<Volume>,
    answer: Option<ScanAnswer>,
    model: Option<ModelIdentity>,
}

impl Course {
    /// Goes through all scans; gives the reasons if there is none.
    fn through(
        &mut self,
        study: StudyObjects<'_>,
        mut network: Result<&mut Network, &Reason>,
        decoding: Decoding<'_>,
        stages: &mut Stages<'_>,
    ) -> Result<(), Vec<Reason>> {
        let instances = study.received.instances;
        let missing = study.received.missing_reason();
        let doubts: Vec<Reason> = missing.iter().chain(study.doubts).cloned().collect();
        let mut scans = stages.run(Stage::Volume, || StudyScans::of(instances, decoding));
        while let Some(mut scan) = stages.run(Stage::Volume, || scans.next_scan()) {
            scan.incomplete.extend(doubts.iter().cloned());
            let (series_uids, acquired) = (scan.series_uids.clone(), scan.acquired);
            let result = match &mut network {
                Ok(network) => one_scan(scan, Ok(network), stages),
                Err(reason) => one_scan(scan, Err(reason), stages),
            };
            self.add(series_uids, acquired, result);
        }
        self.series = scans.verdicts();
        if self.scans.is_empty() {
            return Err(scans.no_usable_series().into_iter().chain(doubts).collect());
        }
        Ok(())
    }

    fn add(&mut self, series_uids: Vec<Uid>, acquired: Option<DateTime>, result: ScanResult) {
        let index = self.scans.len();
        let (state, reasons, findings) = parts_of(result.outcome.clone());
        self.artefacts.push(ScanArtefacts {
            series_uids: series_uids.clone(),
            volume: result.volume.as_ref().map(VolumeGeometry::of),
            answer: result.answer,
        });
        self.scans.push(ScanReport {
            series_uids,
            acquired: acquired.map(|at| at.to_string()),
            state,
            reasons,
            priority: prioritise(&result.outcome).priority,
            findings,
            geometry: result.geometry,
        });
        self.outcomes.push(result.outcome);
        let better = self.kept.as_ref().is_none_or(|kept| {
            let answered = result.model.is_none().cmp(&kept.model.is_none());
            answered
                .then_with(|| self.by_urgency(index, kept.index))
                .is_lt()
        });
        if better {
            self.kept = Some(Kept {
                index,
                volume: result.volume,
                model: result.model,
            });
        }
    }

    /// The more urgent scan is less. Of two with one priority it is that with more blood, then that
    /// with the surer finding: what the list shows must be the worst.
    fn by_urgency(&self, one: usize, other: usize) -> Ordering {
        let largest = |scan: &ScanReport, value: fn(&Finding) -> Option<f64>| {
            let present = scan.findings.iter().filter(|finding| finding.present);
            present.filter_map(value).fold(0.0, f64::max)
        };
        let (one, other) = (&self.scans[one], &self.scans[other]);
        let more = |value: fn(&Finding) -> Option<f64>| {
            largest(other, value).total_cmp(&largest(one, value))
        };
        one.priority
            .cmp(&other.priority)
            .then_with(|| more(|finding| finding.volume_ml))
            .then_with(|| more(|finding| Some(finding.probability.value())))
    }

    /// The scan that decides, and the study's outcome. Where one scan could not be analysed and
    /// another one could, the study is analysed in part, with the findings of that other.
    fn decided(&self) -> Option<(usize, Outcome)> {
        let deciding = (0..self.scans.len()).min_by(|a, b| self.by_urgency(*a, *b))?;
        let answered = self.kept.as_ref().filter(|kept| kept.model.is_some());
        match (&self.outcomes[deciding], answered) {
            (Outcome::NotAnalysed { reasons }, Some(kept)) => {
                let other = &self.outcomes[kept.index];
                let outcome = Outcome::Partial {
                    findings: other.findings().to_vec(),
                    reasons: reasons.iter().chain(other.reasons()).cloned().collect(),
                };
                Some((kept.index, outcome))
            }
            (Outcome::Analysed(findings), _) => {
                let reasons = self.reasons_of_scans_left();
                Some((deciding, outcome(findings.clone(), reasons)))
            }
            (outcome, _) => Some((deciding, outcome.clone())),
        }
    }

    /// Why scans of the study were not analysed.
    fn reasons_of_scans_left(&self) -> Vec<Reason> {
        let left = self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::NotAnalysed { reasons } => Some(reasons),
            Outcome::Analysed(_) | Outcome::Partial { .. } => None,
        });
        left.flatten().cloned().collect()
    }

    fn finish(
        self,
        study_uid: &Uid,
        end: Result<(), Vec<Reason>>,
        timing_ms: BTreeMap<String, f64>,
    ) -> Analysis {
        let decided = end.map(|()| self.decided());
        // After a fault nothing that came before it stands for the study.
        let Ok(Some((index, outcome))) = decided else {
            return self.without_result(study_uid, decided.err(), timing_ms);
        };
        let scan = &self.scans[index];
        let mut report = StudyReport::of_outcome(study_uid, outcome);
        report.geometry.clone_from(&scan.geometry);
        if self.scans.len() > 1 {
            report.priority_because.push(which_scan(scan));
        }
        let kept = self.kept.filter(|kept| kept.index == index);
        let (volume, model) = kept.map_or((None, None), |kept| (kept.volume, kept.model));
        let artefacts = StudyArtefacts {
            study_uid: study_uid.clone(),
            model: model.clone(),
            series: self.series.clone(),
            deciding: Some(index),
            scans: self.artefacts,
        };
        Analysis {
            report: StudyReport {
                series: self.series,
                scans: self.scans,
                model,
                timing_ms,
                ..report
            },
            artefacts,
            volume,
        }
    }

    fn without_result(
        self,
        study_uid: &Uid,
        reasons: Option<Vec<Reason>>,
        timing_ms: BTreeMap<String, f64>,
    ) -> Analysis {
        let reasons = reasons.unwrap_or_default();
        let report = StudyReport::of_outcome(study_uid, Outcome::NotAnalysed { reasons });
        Analysis {
            artefacts: StudyArtefacts::without_scans(study_uid, self.series.clone()),
            report: StudyReport {
                series: self.series,
                timing_ms,
                ..report
            },
            volume: None,
        }
    }
}

fn which_scan(scan: &ScanReport) -> String {
    let when = scan
        .acquired
        .as_ref()
        .map_or_else(String::new, |at| format!(", acquired {at}"));
    let series = scan.series_uids.first().map_or("", Uid::as_str);
    format!("of several scans of the head this one decides: series {series}{when}")
}

/// Asks `network` about one scan.
fn one_scan(
    scan: ScanVolume,
    network: Result<&mut Network, &Reason>,
    stages: &mut Stages<'_>,
) -> ScanResult {
    let head = match scan.volume {
        Ok(head) => head,
        Err(reasons) => {
            let reasons = reasons.into_iter().chain(scan.incomplete).collect();
            return ScanResult {
                outcome: Outcome::NotAnalysed { reasons },
                geometry: None,
                volume: None,
                answer: None,
                model: None,
            };
        }
    };
    let answer = network
        .map_err(Clone::clone)
        .and_then(|network| ask(network, &head.volume, head.facts.centre_mm, stages));
    let (outcome, answer, model) = match answer {
        Err(reason) => {
            let reasons = iter::once(reason).chain(scan.incomplete).collect();
            (Outcome::NotAnalysed { reasons }, None, None)
        }
        Ok(answer) => (
            outcome(answer.findings, scan.incomplete),
            Some(answer.kept),
            Some(answer.model),
        ),
    };
    ScanResult {
        outcome,
        geometry: Some(head.certificate),
        volume: Some(head.volume),
        answer,
        model,
    }
}

/// What a network said of one head.
struct Answer {
    findings: Vec<Finding>,
    kept: ScanAnswer,
    model: ModelIdentity,
}

/// Asks `network` about the head in `volume` whose skull is centred on `centre`.
fn ask(
    network: &mut Network,
    volume: &Volume,
    centre: PatientPoint,
    stages: &mut Stages<'_>,
) -> Result<Answer, Reason> {
    let input = stages.run(Stage::Prepare, || {
        prepare_centred(volume, &network.card().input.contract, centre)
    })?;
    let raw = stages
        .run(Stage::Inference, || network.run(&input))
        .map_err(|error| error.reason())?;
    let (findings, kept) = stages.run(Stage::Findings, || {
        let (findings, map) = read_findings(network.card(), &raw, &input.grid, volume);
        let kept = ScanAnswer::of(&findings, &map);
        (findings, kept)
    });
    Ok(Answer {
        findings,
        kept,
        model: network.identity(),
    })
}

fn outcome(findings: Vec<Finding>, incomplete: Vec<Reason>) -> Outcome {
    if incomplete.is_empty() {
        Outcome::Analysed(findings)
    } else {
        Outcome::Partial {
            findings,
            reasons: incomplete,
        }
    }
}

/// Runs stages, tells of them and takes their time.
struct Stages<'a> {
    watch: Watch<'a>,
    timing_ms: BTreeMap<String, f64>,
}

impl Stages<'_> {
    fn run<T>(&mut self, stage: Stage, work: impl FnOnce() -> T) -> T {
        (self.watch.entered)(stage);
        let started_ms = (self.watch.elapsed_ms)();
        let result = work();
        let spent_ms = (self.watch.elapsed_ms)() - started_ms;
        *self.timing_ms.entry(stage.as_str().to_owned()).or_default() += spent_ms;
        result
    }
}

#[cfg(test)]
mod tests;
