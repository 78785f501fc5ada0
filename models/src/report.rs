//! The result of one study, as it goes over every wire and as it is kept.

use std::collections::BTreeMap;

use pipeline::reason::Reason;
use pipeline::series::SeriesVerdict;
use pipeline::uid::Uid;
use pipeline::volume::GeometryCertificate;
use serde::{Deserialize, Serialize};

use crate::findings::{Finding, Outcome};
use crate::triage::{Priority, prioritise};

/// How far the analysis came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Name on the card.
    pub name: String,
    /// Version on the card.
    pub version: String,
    /// SHA-256 of the ONNX file, hexadecimal.
    pub sha256: String,
}

/// The result of one plain scan of the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// The result of one study. Its JSON form is a contract (README, `tez triage --json`): fields may
/// be added, with a default for reports that were kept without them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    #[serde(default)]
    pub series: Vec<SeriesVerdict>,
    /// Geometry of the scan that decides; `None` when no volume could be made.
    pub geometry: Option<GeometryCertificate>,
    /// Every plain scan of the head, in the order in which they were analysed. State, reasons,
    /// findings and geometry above are those of the one that decides the priority.
    #[serde(default)]
    pub scans: Vec<ScanReport>,
    /// The network; `None` when none ran.
    pub model: Option<ModelIdentity>,
    /// Milliseconds spent, by stage. The one part that differs between runs.
    #[serde(default)]
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

/// The version of kept reports that this one writes.
pub const STORED_VERSION: u32 = 1;

/// A report as it is kept: `{"version":1,"report":{…}}`.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<Report> {
    version: u32,
    report: Report,
}

/// What of a kept text says its version; reports were kept bare before they had one.
#[derive(Deserialize)]
struct VersionOnly {
    #[serde(default)]
    version: u32,
}

/// Why a kept report cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredReportError {
    /// A later version of Tez wrote it.
    #[error("it has version {found}; up to {STORED_VERSION} can be read")]
    Later {
        /// The version that it has.
        found: u32,
    },
    /// It is no report.
    #[error("it is no report: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl StudyReport {
    /// The report as JSON to be kept, with a version; [`Self::from_stored`] reads it.
    ///
    /// # Errors
    ///
    /// Never, but for a number that JSON cannot hold.
    pub fn to_stored(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Envelope {
            version: STORED_VERSION,
            report: self,
        })
    }

    /// Reads a kept report: what [`Self::to_stored`] gave, or the bare JSON of a report, which was
    /// kept before there were versions.
    ///
    /// # Errors
    ///
    /// [`StoredReportError`] for a report of a later version, or what is none.
    pub fn from_stored(json: &str) -> Result<Self, StoredReportError> {
        let VersionOnly { version } = serde_json::from_str(json)?;
        match version {
            0 => Ok(serde_json::from_str(json)?),
            1..=STORED_VERSION => {
                let envelope: Envelope<Self> = serde_json::from_str(json)?;
                Ok(envelope.report)
            }
            found => Err(StoredReportError::Later { found }),
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

#[cfg(test)]
mod tests;
