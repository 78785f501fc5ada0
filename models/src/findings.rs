//! What was found, or why nothing was looked for: two types that cannot be mistaken for another.
#![warn(clippy::wildcard_enum_match_arm)]

use pipeline::reason::Reason;
use pipeline::uid::Uid;
use serde::{Deserialize, Serialize};

/// What a model can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Any blood inside the skull.
    IntracranialHemorrhage,
    /// Blood in the brain's tissue.
    IntraparenchymalHemorrhage,
    /// Blood in the ventricles.
    IntraventricularHemorrhage,
    /// Blood in the subarachnoid space.
    SubarachnoidHemorrhage,
    /// Blood between dura and arachnoid.
    SubduralHemorrhage,
    /// Blood between skull and dura.
    EpiduralHemorrhage,
    /// Early or established ischaemia.
    IschemicChange,
    /// Displacement of the midline.
    MidlineShift,
    /// Compression of ventricles or cisterns.
    MassEffect,
}

/// On which side of the patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The patient's left.
    Left,
    /// The patient's right.
    Right,
    /// Both sides.
    Bilateral,
    /// On the midline.
    Midline,
}

/// A number between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Probability(f64);

impl Probability {
    /// `None` unless `value` lies in 0–1 (NaN does not).
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value))
    }

    /// The number.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Probability {
    type Error = String;
    fn try_from(value: f64) -> Result<Self, String> {
        Self::new(value).ok_or_else(|| format!("{value} is not a probability"))
    }
}

impl From<Probability> for f64 {
    fn from(probability: Probability) -> Self {
        probability.0
    }
}

/// The answer to one question. A model's result holds one for each kind that its card names, and
/// none for a kind that it was not made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The question.
    pub kind: FindingKind,
    /// Whether the probability reaches the card's threshold.
    pub present: bool,
    /// By the model; calibrated only if the card says so.
    pub probability: Probability,
    /// Volume of the marked voxels, mL; `None` for kinds without a volume, or not present.
    pub volume_ml: Option<f64>,
    /// Displacement, mm; only for [`FindingKind::MidlineShift`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shift_mm: Option<f64>,
    /// Side; `None` where not present.
    pub side: Option<Side>,
    /// SOP Instance UIDs of the slices that show it best, best first; empty where not present.
    pub key_slices: Vec<Uid>,
}

/// How the analysis of one study ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The whole head was analysed.
    Analysed(Vec<Finding>),
    /// Part of the head was analysed: a finding counts, its absence does not.
    Partial {
        /// What the part shows.
        findings: Vec<Finding>,
        /// What is missing; never empty.
        reasons: Vec<Reason>,
    },
    /// Nothing was analysed. Never a normal.
    NotAnalysed {
        /// Why; never empty.
        reasons: Vec<Reason>,
    },
}
