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

impl FindingKind {
    /// Every kind, in the order in which results list them.
    pub const ALL: [Self; 9] = [
        Self::IntracranialHemorrhage,
        Self::IntraparenchymalHemorrhage,
        Self::IntraventricularHemorrhage,
        Self::SubarachnoidHemorrhage,
        Self::SubduralHemorrhage,
        Self::EpiduralHemorrhage,
        Self::IschemicChange,
        Self::MidlineShift,
        Self::MassEffect,
    ];

    /// The word used in results and as a column of `tez eval`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IntracranialHemorrhage => "intracranial_hemorrhage",
            Self::IntraparenchymalHemorrhage => "intraparenchymal_hemorrhage",
            Self::IntraventricularHemorrhage => "intraventricular_hemorrhage",
            Self::SubarachnoidHemorrhage => "subarachnoid_hemorrhage",
            Self::SubduralHemorrhage => "subdural_hemorrhage",
            Self::EpiduralHemorrhage => "epidural_hemorrhage",
            Self::IschemicChange => "ischemic_change",
            Self::MidlineShift => "midline_shift",
            Self::MassEffect => "mass_effect",
        }
    }

    /// The words for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::IntracranialHemorrhage => "intracranial hemorrhage",
            Self::IntraparenchymalHemorrhage => "intraparenchymal hemorrhage",
            Self::IntraventricularHemorrhage => "intraventricular hemorrhage",
            Self::SubarachnoidHemorrhage => "subarachnoid hemorrhage",
            Self::SubduralHemorrhage => "subdural hemorrhage",
            Self::EpiduralHemorrhage => "epidural hemorrhage",
            Self::IschemicChange => "ischemic change",
            Self::MidlineShift => "midline shift",
            Self::MassEffect => "mass effect",
        }
    }

    /// What it is a kind of: where that is not present, neither is this.
    pub fn kind_of(self) -> Option<Self> {
        match self {
            Self::IntraparenchymalHemorrhage
            | Self::IntraventricularHemorrhage
            | Self::SubarachnoidHemorrhage
            | Self::SubduralHemorrhage
            | Self::EpiduralHemorrhage => Some(Self::IntracranialHemorrhage),
            Self::IntracranialHemorrhage
            | Self::IschemicChange
            | Self::MidlineShift
            | Self::MassEffect => None,
        }
    }

    /// Whether it has a volume: tissue or blood, and not a displacement.
    pub fn has_volume(self) -> bool {
        match self {
            Self::IntracranialHemorrhage
            | Self::IntraparenchymalHemorrhage
            | Self::IntraventricularHemorrhage
            | Self::SubarachnoidHemorrhage
            | Self::SubduralHemorrhage
            | Self::EpiduralHemorrhage
            | Self::IschemicChange => true,
            Self::MidlineShift | Self::MassEffect => false,
        }
    }
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
    /// Whether the probability reaches the card's threshold; a kind of hemorrhage also has to be marked somewhere.
    pub present: bool,
    /// By the model; calibrated only if the card says so.
    pub probability: Probability,
    /// Volume of the marked voxels, mL; `None` for kinds without a volume, or not present.
    pub volume_ml: Option<f64>,
    /// Its 95 % interval, mL, if the model's card says how sure its volumes are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub volume_interval_ml: Option<[f64; 2]>,
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

impl Outcome {
    /// The answers, if any question was asked.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Analysed(findings) | Self::Partial { findings, .. } => findings,
            Self::NotAnalysed { .. } => &[],
        }
    }

    /// What is missing or went wrong.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Analysed(_) => &[],
            Self::Partial { reasons, .. } | Self::NotAnalysed { reasons } => reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_each_kind_is_the_one_on_the_wire() {
        for kind in FindingKind::ALL {
            let wire = serde_json::to_value(kind).unwrap();
            assert_eq!(wire, kind.as_str());
        }
    }

    #[test]
    fn nan_and_what_lies_outside_0_to_1_is_no_probability() {
        for value in [f64::NAN, f64::INFINITY, -0.001, 1.001] {
            assert!(Probability::new(value).is_none(), "{value}");
        }
        assert!(serde_json::from_str::<Probability>("1.5").is_err());
    }
}
