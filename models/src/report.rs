//! The result of one study, as it goes over every wire.

use std::collections::BTreeMap;

use pipeline::reason::Reason;
use pipeline::series::SeriesVerdict;
use pipeline::uid::Uid;
use pipeline::volume::GeometryCertificate;
use serde::Serialize;

use crate::findings::{Finding, Outcome};
use crate::triage::{Priority, prioritise};

/// How far the analysis came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// The whole head.
    Analysed,
    /// Part of it.
    Partial,
    /// Nothing; see the reasons.
    NotAnalysed,
}

/// Which network answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelIdentity {
    /// Name on the card.
    pub name: String,
    /// Version on the card.
    pub version: String,
    /// SHA-256 of the ONNX file, hexadecimal.
    pub sha256: String,
}

/// The result of one plain scan of the head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScanReport {
    /// Series of its reconstructions, the one that was analysed first.
    pub series_uids: Vec<Uid>,
    /// When it was acquired, by the scanner's clock (`2026-01-15T08:00:10`); `None` where that is
    /// not stated.
    pub acquired: Option<String>,
    /// How far the analysis came.
    pub state: ReportState,
    /// What is missing or went wrong; empty only for [`ReportState::Analysed`].
    pub reasons: Vec<Reason>,
    /// Where a study with this scan alone would belong in the list.
    pub priority: Priority,
    /// One for each kind that the model was made for; empty when not analysed.
    pub findings: Vec<Finding>,
    /// Geometry of the reconstruction that was analysed; `None` when no volume could be made.
    pub geometry: Option<GeometryCertificate>,
}

/// The result of one study. Its JSON form is a contract (README, `tez triage --json`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StudyReport {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// How far the analysis came.
    pub state: ReportState,
    /// What is missing or went wrong; empty only for [`ReportState::Analysed`].
    pub reasons: Vec<Reason>,
    /// Where the study belongs in the list.
    pub priority: Priority,
    /// Why it belongs there.
    pub priority_because: Vec<String>,
    /// Version of the priority policy.
    pub policy_version: u32,
    /// One for each kind that the model was made for; empty when not analysed.
    pub findings: Vec<Finding>,
    /// A verdict for each series, in order of UID.
    pub series: Vec<SeriesVerdict>,
    /// Geometry of the scan that decides; `None` when no volume could be made.
    pub geometry: Option<GeometryCertificate>,
    /// Every plain scan of the head, in the order in which they were analysed. State, reasons,
    /// findings and geometry above are those of the one that decides the priority.
    pub scans: Vec<ScanReport>,
    /// The network; `None` when none ran.
    pub model: Option<ModelIdentity>,
    /// Milliseconds spent, by stage. The one part that differs between runs.
    pub timing_ms: BTreeMap<String, f64>,
}

impl StudyReport {
    /// The report of a study that ended in `outcome`: state, reasons, findings and priority; the
    /// rest is empty, to be filled by whoever knows it.
    pub fn of_outcome(study_uid: &Uid, outcome: Outcome) -> Self {
        let decision = prioritise(&outcome);
        let (state, reasons, findings) = parts_of(outcome);
        Self {
            study_uid: study_uid.clone(),
            state,
            reasons,
            priority: decision.priority,
            priority_because: decision.because,
            policy_version: decision.policy_version,
            findings,
            series: Vec::new(),
            geometry: None,
            scans: Vec::new(),
            model: None,
            timing_ms: BTreeMap::new(),
        }
    }
}

/// How far, why no further, and what was found.
pub(crate) fn parts_of(outcome: Outcome) -> (ReportState, Vec<Reason>, Vec<Finding>) {
    match outcome {
        Outcome::Analysed(findings) => (ReportState::Analysed, Vec::new(), findings),
        Outcome::Partial { findings, reasons } => (ReportState::Partial, reasons, findings),
        Outcome::NotAnalysed { reasons } => (ReportState::NotAnalysed, reasons, Vec::new()),
    }
}
