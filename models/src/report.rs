//! The result of one study, as it goes over every wire.

use std::collections::BTreeMap;

use pipeline::reason::Reason;
use pipeline::series::SeriesVerdict;
use pipeline::uid::Uid;
use pipeline::volume::GeometryCertificate;
use serde::Serialize;

use crate::findings::Finding;
use crate::triage::Priority;

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
    /// Geometry of the chosen series; `None` when no volume could be made.
    pub geometry: Option<GeometryCertificate>,
    /// The network; `None` when none ran.
    pub model: Option<ModelIdentity>,
    /// Milliseconds spent, by stage. The one part that differs between runs.
    pub timing_ms: BTreeMap<String, f64>,
}
