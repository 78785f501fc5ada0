//! Instances of one study → its report: the straight way through all stages.

use std::collections::BTreeMap;

use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::volume::Volume;
use serde::{Deserialize, Serialize};

use crate::findings::Outcome;
use crate::report::{ReportState, StudyReport};
use crate::runtime::Network;
use crate::tasks::FindingMap;
use crate::triage::prioritise;

/// A stage of the analysis, in order. Its word is the key in `timing_ms`.
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

/// Analyses the instances of the study `study_uid`.
///
/// `network` may be the reason why there is none: the report then has the study's series and
/// geometry, and ends as not analysed. Never panics: a fault inside becomes
/// [`ReasonCode::InternalFault`].
pub fn analyse(
    study_uid: &Uid,
    instances: &[Instance],
    network: Result<&mut Network, &Reason>,
    limits: &Limits,
    watch: Watch<'_>,
) -> Analysis {
    let _ = (instances, network, limits, watch);
    let outcome = Outcome::NotAnalysed {
        reasons: vec![Reason::new(ReasonCode::InternalFault, "not written yet")],
    };
    let decision = prioritise(&outcome);
    Analysis {
        report: StudyReport {
            study_uid: study_uid.clone(),
            state: ReportState::NotAnalysed,
            reasons: outcome.reasons().to_vec(),
            priority: decision.priority,
            priority_because: decision.because,
            policy_version: decision.policy_version,
            findings: Vec::new(),
            series: Vec::new(),
            geometry: None,
            model: None,
            timing_ms: BTreeMap::new(),
        },
        map: None,
        volume: None,
    }
}
