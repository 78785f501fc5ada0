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
    /// Where the findings were read from; `None` when no network ran.
    pub map: Option<FindingMap>,
    /// The volume of the scan that decides, or one that could have been analysed; `None` when none
    /// could be made.
    pub volume: Option<Volume>,
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
    /// Of the scan that decides among those that were analysed.
    kept: Option<Kept>,
}

/// What a scan was analysed with: too large to be kept of each.
struct Kept {
    /// The scan's place in [`Course::scans`].
    index: usize,
    volume: Option<Volume>,
    answer: Option<(FindingMap, ModelIdentity)>,
}

/// What came of one scan.
struct ScanResult {
    outcome: Outcome,
    geometry: Option<GeometryCertificate>,
    volume: Option<Volume>,
    answer: Option<(FindingMap, ModelIdentity)>,
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
            let answered = result.answer.is_none().cmp(&kept.answer.is_none());
            answered
                .then_with(|| self.by_urgency(index, kept.index))
                .is_lt()
        });
        if better {
            self.kept = Some(Kept {
                index,
                volume: result.volume,
                answer: result.answer,
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
        let answered = self.kept.as_ref().filter(|kept| kept.answer.is_some());
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
        let (volume, answer) = kept.map_or((None, None), |kept| (kept.volume, kept.answer));
        let (map, model) = answer.unzip();
        Analysis {
            report: StudyReport {
                series: self.series,
                scans: self.scans,
                model,
                timing_ms,
                ..report
            },
            map,
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
            report: StudyReport {
                series: self.series,
                timing_ms,
                ..report
            },
            map: None,
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
            };
        }
    };
    let answer = network
        .map_err(Clone::clone)
        .and_then(|network| ask(network, &head.volume, head.facts.centre_mm, stages));
    let (outcome, answer) = match answer {
        Err(reason) => {
            let reasons = iter::once(reason).chain(scan.incomplete).collect();
            (Outcome::NotAnalysed { reasons }, None)
        }
        Ok(answer) => (
            outcome(answer.findings, scan.incomplete),
            Some((answer.map, answer.model)),
        ),
    };
    ScanResult {
        outcome,
        geometry: Some(head.certificate),
        volume: Some(head.volume),
        answer,
    }
}

/// What a network said of one head.
struct Answer {
    findings: Vec<Finding>,
    map: FindingMap,
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
    let (findings, map) = stages.run(Stage::Findings, || {
        read_findings(network.card(), &raw, &input.grid, volume)
    });
    Ok(Answer {
        findings,
        map,
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
mod tests {
    use std::path::Path;

    use pipeline::header::read_instance;
    use pipeline::instance::Instance;
    use pipeline::limits::Limits;

    use super::*;
    use crate::findings::{FindingKind, Side};
    use crate::report::ReportState;
    use crate::runtime::Library;
    use crate::triage::Priority;

    /// The instances of the fixture `name`, in order. Their files live until the end of
    /// the test, in the folder that is given with them.
    fn study(name: &str) -> (tempfile::TempDir, Vec<Instance>) {
        let folder = tempfile::tempdir().unwrap();
        let paths = fixtures::make(name, folder.path()).unwrap();
        let limits = Limits::default();
        let read = |path| read_instance(path, &limits).unwrap();
        let instances = paths.iter().map(|path| read(path)).collect();
        (folder, instances)
    }

    fn network(threads: usize) -> Network {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/onnxruntime/libonnxruntime.so");
        let library = Library::load(&path)
            .expect("these tests need ONNX Runtime: run `cargo xtask setup` first");
        Network::built_in(&library, threads).unwrap()
    }

    fn run(instances: &[Instance], network: Result<&mut Network, &Reason>) -> Analysis {
        run_told(instances, network, &|_| {})
    }

    fn run_told(
        instances: &[Instance],
        network: Result<&mut Network, &Reason>,
        entered: &(dyn Fn(Stage) + Sync),
    ) -> Analysis {
        let uid = instances.first().map_or_else(
            || Uid::new("1.2.3").unwrap(),
            |instance| instance.study_uid.clone(),
        );
        let watch = Watch {
            elapsed_ms: &|| 0.0,
            entered,
        };
        let study = StudyObjects {
            study_uid: &uid,
            received: Received::from(instances),
            doubts: &[],
        };
        analyse(study, network, Decoding::afresh(&Limits::default()), watch)
    }

    #[test]
    fn a_bleed_on_the_left_is_found_there_and_the_map_holds_its_volume() {
        let (_folder, instances) = study("bleed_intraparenchymal_left");
        let analysis = run(&instances, Ok(&mut network(1)));
        let report = &analysis.report;
        assert_eq!(report.state, ReportState::Analysed, "{:?}", report.reasons);
        assert!(report.priority <= Priority::Urgent, "{:?}", report.priority);
        let finding = &report.findings[0];
        assert_eq!(finding.kind, FindingKind::IntracranialHemorrhage);
        assert_eq!((finding.present, finding.side), (true, Some(Side::Left)));
        let volume_ml = finding.volume_ml.unwrap();
        // 30 mL are there; the network leaves out the blurred rim.
        assert!((18.0..33.0).contains(&volume_ml), "{volume_ml} mL");
        assert_eq!(finding.key_slices.len(), 3);
        let map = analysis.map.unwrap();
        // The first kind is any haemorrhage; the others mark the same blood again.
        let any = map.marked.index_axis(ndarray::Axis(0), 0);
        let marked = any.iter().filter(|marked| **marked).count();
        let counted_ml = marked as f64 * map.grid.voxel_volume_ml();
        assert!(
            (counted_ml - volume_ml).abs() < 0.01,
            "{counted_ml} and {volume_ml} mL"
        );
    }

    #[test]
    fn a_healthy_head_is_routine_and_says_which_model_answered() {
        let (_folder, instances) = study("head");
        let mut network = network(1);
        let report = run(&instances, Ok(&mut network)).report;
        assert_eq!(
            (report.state, report.priority),
            (ReportState::Analysed, Priority::Routine)
        );
        assert_eq!(report.model, Some(network.identity()));
        let stages: Vec<&str> = report.timing_ms.keys().map(String::as_str).collect();
        assert_eq!(
            stages,
            ["findings", "inference", "prepare", "total", "volume"]
        );
    }

    #[test]
    fn neither_threads_nor_the_order_of_arrival_change_a_byte_of_the_result() {
        let (_folder, mut instances) = study("bleed_intraparenchymal_left");
        let mut json = |session_threads, pool_threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(pool_threads)
                .build()
                .unwrap();
            let mut network = network(session_threads);
            let report = pool.install(|| run(&instances, Ok(&mut network)).report);
            instances.reverse();
            serde_json::to_string(&report).unwrap()
        };
        let alone = json(1, 1);
        assert_eq!(json(1, 2), alone);
        assert_eq!(json(2, 2), alone);
    }

    #[test]
    fn without_a_model_the_study_is_not_analysed_and_keeps_its_geometry() {
        let (_folder, instances) = study("head");
        let missing = Reason::new(ReasonCode::InferenceLibraryMissing, "no library");
        let analysis = run(&instances, Err(&missing));
        let report = analysis.report;
        assert_eq!(
            (report.state, report.priority),
            (ReportState::NotAnalysed, Priority::Unknown)
        );
        assert_eq!(report.reasons, [missing]);
        assert_eq!(report.geometry.unwrap().slices, 32);
        assert!(report.series[0].chosen);
        assert!(report.findings.is_empty() && report.model.is_none() && analysis.map.is_none());
        assert!(analysis.volume.is_some());
    }

    #[test]
    fn a_missing_slice_makes_the_result_partial_with_the_reason() {
        let (_folder, instances) = study("missing_slice");
        let report = run(&instances, Ok(&mut network(1))).report;
        assert_eq!(report.state, ReportState::Partial);
        assert_eq!(report.reasons[0].code, ReasonCode::MissingSlices);
        assert!(!report.findings.is_empty());
    }

    #[test]
    fn a_slice_that_cannot_be_read_makes_the_result_partial_wherever_it_lay() {
        let (_folder, instances) = study("head");
        let mut network = network(1);
        for cut in [0, 16, 31] {
            let mut read = instances.clone();
            let lost = read.remove(cut);
            let bytes = std::fs::read(&lost.path).unwrap();
            let path = lost.path.with_extension("cut");
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            let limits = Limits::default();
            let unread = [*pipeline::header::read_object(&path, &limits).unwrap_err()];
            assert_eq!(unread[0].study_uid.as_ref(), Some(&lost.study_uid));
            let received = Received {
                instances: &read,
                unread: &unread,
            };
            let watch = Watch {
                elapsed_ms: &|| 0.0,
                entered: &|_| {},
            };
            let network = Ok(&mut network);
            let study = StudyObjects {
                study_uid: &lost.study_uid,
                received,
                doubts: &[],
            };
            let report = analyse(study, network, Decoding::afresh(&limits), watch).report;
            assert_eq!(report.state, ReportState::Partial, "{cut}");
            assert_ne!(report.priority, Priority::Routine, "{cut}");
            let codes: Vec<_> = report.reasons.iter().map(|one| one.code).collect();
            assert!(codes.contains(&ReasonCode::UnreadObjects), "{codes:?}");
        }
    }

    #[test]
    fn a_study_none_of_whose_objects_can_be_read_is_not_analysed_and_says_so() {
        let cut = Reason::new(ReasonCode::Truncated, "It is cut.");
        let unread = [pipeline::unread::UnreadObject::unknown("x".into(), cut)];
        let received = Received {
            instances: &[],
            unread: &unread,
        };
        let watch = Watch {
            elapsed_ms: &|| 0.0,
            entered: &|_| {},
        };
        let uid = Uid::new("1.2.3").unwrap();
        let network = Ok(&mut network(1));
        let study = StudyObjects {
            study_uid: &uid,
            received,
            doubts: &[],
        };
        let report = analyse(study, network, Decoding::afresh(&Limits::default()), watch).report;
        assert_eq!(report.state, ReportState::NotAnalysed);
        let last = report.reasons.last().unwrap();
        assert_eq!(last.code, ReasonCode::UnreadObjects);
    }

    /// `instances` again, two hours later in another series.
    fn later(instances: &[Instance]) -> Vec<Instance> {
        let mut again = instances.to_vec();
        for (index, instance) in again.iter_mut().enumerate() {
            instance.sop_instance_uid = Uid::new(&format!("1.2.826.{index}")).unwrap();
            instance.series_uid = Uid::new("1.2.826").unwrap();
            instance.series.series_number = Some(99);
            let acquired = &mut instance.frames[0].acquired;
            *acquired = acquired.map(|at| at.with().hour(at.hour() + 2).build().unwrap());
        }
        again
    }

    #[test]
    fn the_worst_scan_of_a_study_decides_and_one_that_is_left_out_makes_it_partial() {
        let (_head, mut instances) = study("head");
        let (_bleed, bleed) = study("bleed_intraparenchymal_left");
        instances.extend(later(&bleed));
        let mut network = network(1);
        let report = run(&instances, Ok(&mut network)).report;
        assert_eq!(
            (report.state, report.scans.len()),
            (ReportState::Analysed, 2)
        );
        assert_eq!(report.priority, Priority::Critical);
        let deciding = &report.scans[1];
        assert_eq!(report.scans[0].priority, Priority::Routine);
        assert_eq!(report.findings, deciding.findings);
        assert_eq!(report.geometry, deciding.geometry);
        assert_eq!(deciding.acquired.as_deref(), Some("2026-01-15T10:00:10"));
        assert!(report.series.iter().all(|series| series.chosen));

        // Of two that are as urgent the larger bleed is shown, whichever was scanned first.
        let (_larger, larger) = study("bleed_intraparenchymal_lobar");
        for both in [
            [bleed.clone(), later(&larger)].concat(),
            [larger.clone(), later(&bleed)].concat(),
        ] {
            let report = run(&both, Ok(&mut network)).report;
            let volume_ml = |findings: &[Finding]| findings[0].volume_ml.unwrap();
            assert!(volume_ml(&report.findings) > 40.0, "{:?}", report.findings);
            assert_eq!(report.scans.len(), 2);
        }

        let limits = Limits {
            scans_max: 1,
            ..Limits::default()
        };
        let watch = Watch {
            elapsed_ms: &|| 0.0,
            entered: &|_| {},
        };
        for (instances, priority) in [
            (&instances, Priority::Unknown),
            (&[bleed.clone(), later(&bleed)].concat(), Priority::Critical),
        ] {
            let study = StudyObjects {
                study_uid: &instances[0].study_uid,
                received: instances.into(),
                doubts: &[],
            };
            let report = analyse(study, Ok(&mut network), Decoding::afresh(&limits), watch).report;
            assert_eq!(report.state, ReportState::Partial);
            assert_eq!(report.priority, priority);
            assert_eq!(report.reasons[0].code, ReasonCode::LimitExceeded);
            assert!(!report.findings.is_empty());
        }
    }

    #[test]
    fn a_study_without_objects_is_not_analysed() {
        let report = run(&[], Ok(&mut network(1))).report;
        assert_eq!(report.state, ReportState::NotAnalysed);
        assert_eq!(report.reasons[0].code, ReasonCode::NoUsableSeries);
    }

    #[test]
    fn a_panic_inside_becomes_an_internal_fault_and_never_a_normal() {
        let (_folder, instances) = study("head");
        let mut network = network(1);
        for at in [Stage::Volume, Stage::Inference, Stage::Findings] {
            let report = run_told(&instances, Ok(&mut network), &|stage| {
                assert!(stage != at, "planted");
            })
            .report;
            assert_eq!(report.state, ReportState::NotAnalysed);
            assert_eq!(report.reasons[0].code, ReasonCode::InternalFault);
            assert!(report.findings.is_empty() && report.model.is_none());
        }
        assert_eq!(
            run(&instances, Ok(&mut network)).report.state,
            ReportState::Analysed
        );
    }
}
