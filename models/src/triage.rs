//! Findings and the study's facts → a priority with its reasons. Pure, total, versioned.
#![warn(clippy::wildcard_enum_match_arm)]

use serde::{Deserialize, Serialize};

use crate::findings::Outcome;

/// Version of the policy; goes up whenever any input gets another answer.
pub const POLICY_VERSION: u32 = 1;

/// Where a study stands in the list. Declared in worklist order: first is read first.
///
/// `Unknown` (not analysed, or partly without a finding) stands above `Routine`: what was not
/// looked at may hide anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A bleed that is large, or with shift or ventricular blood.
    Critical,
    /// A suspected finding.
    Urgent,
    /// Not analysed, or only partly and nothing found.
    Unknown,
    /// Analysed, no finding by this model. Not a negative read.
    Routine,
}

/// A priority and why, in sentences for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The place.
    pub priority: Priority,
    /// Why; never empty.
    pub because: Vec<String>,
    /// [`POLICY_VERSION`] at the time.
    pub policy_version: u32,
}

/// Decides the priority.
pub fn prioritise(outcome: &Outcome) -> Decision {
    let _ = outcome;
    Decision {
        priority: Priority::Unknown,
        because: vec!["not written yet".to_owned()],
        policy_version: POLICY_VERSION,
    }
}
