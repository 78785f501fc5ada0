//! Instances of one study → its report: the straight way through all stages.

use std::any::Any;
use std::collections::BTreeMap;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::prepare::prepare_centred;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::series::SeriesVerdict;
use pipeline::study::volume_of_study;
use pipeline::uid::Uid;
use pipeline::unread::Received;
use pipeline::volume::{GeometryCertificate, PatientPoint, Volume};
use serde::{Deserialize, Serialize};

use crate::findings::{Finding, Outcome};
use crate::report::{ModelIdentity, StudyReport};
use crate::runtime::Network;
use crate::tasks::{FindingMap, read_findings};

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

/// What came of one study.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The result, as it goes over every wire.
    pub report: StudyReport,
    /// Where the findings were read from; `None` when no network ran.
    pub map: Option<FindingMap>,
    /// The volume that was analysed, or could have been; `None` when none could be made.
    pub volume: Option<Volume>,
}

/// Analyses the objects of the study `study_uid`. With objects that could not be read, and may hold
/// slices, it never ends as analysed.
///
/// `network` may be the reason why there is none: the report then has the study's series and
/// geometry, and ends as not analysed. Never panics: a fault inside becomes
/// [`ReasonCode::InternalFault`].
pub fn analyse<'a>(
    study_uid: &Uid,
    received: impl Into<Received<'a>>,
    network: Result<&mut Network, &Reason>,
    limits: &Limits,
    watch: Watch<'_>,
) -> Analysis {
    let received = received.into();
    let instances = received.instances;
    let mut course = Course::default();
    let mut stages = Stages {
        watch,
        timing_ms: BTreeMap::new(),
    };
    let started_ms = (watch.elapsed_ms)();
    // What a panic leaves behind is not used: `course` holds only finished stages, and a session
    // of ONNX Runtime keeps nothing between runs.
    let attempt = AssertUnwindSafe(|| course.through(instances, network, limits, &mut stages));
    let outcome = catch_unwind(attempt).unwrap_or_else(|panic| internal_fault(panic.as_ref()));
    let outcome = with_missing(outcome, received.missing_reason());
    let mut timing_ms = stages.timing_ms;
    timing_ms.insert(TOTAL.to_owned(), (watch.elapsed_ms)() - started_ms);
    course.finish(study_uid, outcome, timing_ms)
}

/// Slices may be missing, for `reason`: what was analysed is a part then.
fn with_missing(outcome: Outcome, reason: Option<Reason>) -> Outcome {
    let Some(reason) = reason else {
        return outcome;
    };
    match outcome {
        Outcome::Analysed(findings) => Outcome::Partial {
            findings,
            reasons: vec![reason],
        },
        Outcome::Partial {
            findings,
            mut reasons,
        } => {
            reasons.push(reason);
            Outcome::Partial { findings, reasons }
        }
        Outcome::NotAnalysed { mut reasons } => {
            reasons.push(reason);
            Outcome::NotAnalysed { reasons }
        }
    }
}

fn internal_fault(panic: &(dyn Any + Send)) -> Outcome {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(message, "the analysis panicked");
    let text = "The analysis failed by a fault of Tez; the log has more. Please report it.";
    Outcome::NotAnalysed {
        reasons: vec![Reason::new(ReasonCode::InternalFault, text)],
    }
}

/// One study on its way: what the finished stages gave.
#[derive(Default)]
struct Course {
    series: Vec<SeriesVerdict>,
    geometry: Option<GeometryCertificate>,
    volume: Option<Volume>,
    model: Option<ModelIdentity>,
    map: Option<FindingMap>,
}

impl Course {
    fn through(
        &mut self,
        instances: &[Instance],
        network: Result<&mut Network, &Reason>,
        limits: &Limits,
        stages: &mut Stages<'_>,
    ) -> Outcome {
        let study = stages.run(Stage::Volume, || volume_of_study(instances, limits));
        self.series = study.verdicts;
        let head = match study.volume {
            Ok(head) => head,
            Err(reasons) => return Outcome::NotAnalysed { reasons },
        };
        self.geometry = Some(head.certificate);
        let volume = self.volume.insert(head.volume);
        let answer = network
            .map_err(Clone::clone)
            .and_then(|network| ask(network, volume, head.facts.centre_mm, stages));
        match answer {
            Err(reason) => Outcome::NotAnalysed {
                reasons: iter::once(reason).chain(study.incomplete).collect(),
            },
            Ok(answer) => {
                self.model = Some(answer.model);
                self.map = Some(answer.map);
                outcome(answer.findings, study.incomplete)
            }
        }
    }

    fn finish(
        self,
        study_uid: &Uid,
        outcome: Outcome,
        timing_ms: BTreeMap<String, f64>,
    ) -> Analysis {
        // A fault after the network ran leaves a model and a map that no finding stands for.
        let analysed = !matches!(outcome, Outcome::NotAnalysed { .. });
        let report = StudyReport {
            series: self.series,
            geometry: self.geometry,
            model: self.model.filter(|_| analysed),
            timing_ms,
            ..StudyReport::of_outcome(study_uid, outcome)
        };
        Analysis {
            report,
            map: self.map.filter(|_| analysed),
            volume: self.volume,
        }
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
        self.timing_ms.insert(stage.as_str().to_owned(), spent_ms);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pipeline::intake::read_instance;

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
        analyse(&uid, instances, network, &Limits::default(), watch)
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
            let unread = [*pipeline::intake::read_object(&path, &limits).unwrap_err()];
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
            let report = analyse(&lost.study_uid, received, network, &limits, watch).report;
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
        let report = analyse(&uid, received, network, &Limits::default(), watch).report;
        assert_eq!(report.state, ReportState::NotAnalysed);
        let last = report.reasons.last().unwrap();
        assert_eq!(last.code, ReasonCode::UnreadObjects);
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
