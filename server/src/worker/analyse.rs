//! One study after the other, in a worker's process: its model, and what becomes of a fault.

use std::panic::{AssertUnwindSafe, catch_unwind};

use models::analysis::{Analysis, StudyObjects, Watch, analyse};
use models::artefacts::StudyArtefacts;
use models::findings::Outcome;
use models::report::{ModelIdentity, StudyReport};
use models::runtime::Network;
use pipeline::assembly::{Completeness, study_completeness};
use pipeline::decode::Decoding;
use pipeline::limits::Limits;
use pipeline::patient::shared_study;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;

use super::Headers;
use super::protocol::Task;
use crate::clock::Clock;
use crate::config::ModelConfig;
use crate::inference::load_network;

/// Analyses one study after the other; blocking.
pub trait Analyse: Send {
    /// Analyses `study`.
    fn analyse(&mut self, study: StudyObjects<'_>, decoding: Decoding<'_>) -> Answer;

    /// Which model runs; told after the start and after each study.
    ///
    /// # Errors
    ///
    /// Why none does.
    fn model(&self) -> Result<ModelIdentity, Reason>;
}

/// What an analysis gives.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The result.
    pub report: StudyReport,
    /// What stays of it beside the report; `None` where nothing was analysed.
    pub artefacts: Option<StudyArtefacts>,
}

/// A result without anything beside it.
impl From<StudyReport> for Answer {
    fn from(report: StudyReport) -> Self {
        Self {
            report,
            artefacts: None,
        }
    }
}

/// The analysis that `tez worker` does: models by ONNX Runtime.
#[derive(Debug)]
pub struct Inference {
    model: ModelConfig,
    clock: Clock,
    network: Result<Network, Reason>,
}

impl Inference {
    /// Loads the model; where that fails, it is tried again with every study, so that a cured library
    /// or model needs no restart.
    pub fn new(model: ModelConfig, clock: Clock) -> Self {
        Self {
            network: load(&model),
            model,
            clock,
        }
    }
}

fn load(model: &ModelConfig) -> Result<Network, Reason> {
    load_network(model).map_err(|error| {
        tracing::error!(%error, "no model: studies end as not analysed");
        error.reason()
    })
}

impl Analyse for Inference {
    fn analyse(&mut self, study: StudyObjects<'_>, decoding: Decoding<'_>) -> Answer {
        if self.network.is_err() {
            self.network = load(&self.model);
        }
        let elapsed_ms = || self.clock.monotonic().as_secs_f64() * 1_000.0;
        let watch = Watch {
            elapsed_ms: &elapsed_ms,
            entered: &|stage| tracing::debug!(stage = stage.as_str(), "analysis"),
        };
        let network = self.network.as_mut().map_err(|reason| &*reason);
        let Analysis {
            report, artefacts, ..
        } = analyse(study, network, decoding, watch);
        Answer {
            report,
            artefacts: Some(artefacts),
        }
    }

    fn model(&self) -> Result<ModelIdentity, Reason> {
        let network = self.network.as_ref();
        network.map(Network::identity).map_err(Reason::clone)
    }
}

/// The answer to `task`; a panic becomes a report too.
pub(super) fn answer(task: Task, analyse: &mut dyn Analyse, decoding: Decoding<'_>) -> Answer {
    let study = task.study.internal_id;
    let shared = task.shared_study_uid.clone();
    let uid = shared
        .clone()
        .unwrap_or_else(|| task.study.study_uid.clone());
    let attempt = AssertUnwindSafe(|| {
        let broken_off = task.broken_off;
        let headers = task.into_headers();
        let mut doubts: Vec<Reason> = shared.as_ref().map(shared_study).into_iter().collect();
        if broken_off {
            doubts.extend(broken_off_doubt(&headers, decoding.limits));
        }
        let study = StudyObjects {
            study_uid: &uid,
            received: headers.received(),
            doubts: &doubts,
        };
        analyse.analyse(study, decoding)
    });
    catch_unwind(attempt).unwrap_or_else(|_| {
        tracing::error!(study, "the analysis panicked");
        let text = "The analysis failed by a fault of Tez; the log has more.";
        not_analysed(&uid, vec![Reason::new(ReasonCode::InternalFault, text)]).into()
    })
}

/// The report of a study of which nothing was analysed.
pub fn not_analysed(study_uid: &Uid, reasons: Vec<Reason>) -> StudyReport {
    StudyReport::of_outcome(study_uid, Outcome::NotAnalysed { reasons })
}

/// What is doubtful about a study whose sender broke off: nothing, if it is whole all the same.
fn broken_off_doubt(headers: &Headers, limits: &Limits) -> Option<Reason> {
    match study_completeness(&headers.instances, limits) {
        Completeness::Whole => None,
        Completeness::NotProven(reasons) => {
            let why = reasons.first().map_or("", |reason| reason.text.as_str());
            let text = format!(
                "The sender broke off, and what it sent cannot be shown to be all. {why} Send the \
                 study again."
            );
            Some(Reason::new(ReasonCode::SenderBrokeOff, text))
        }
    }
}
