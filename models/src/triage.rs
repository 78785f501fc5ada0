//! Findings and the study's facts → a priority with its reasons. Pure, total, versioned.
//!
//! Where the bounds come from:
//! - 30 mL: from this volume an intracerebral bleed scores in the ICH score, which foretells death
//!   within 30 days (Hemphill 2001, Stroke 32:891). Above it an epidural hematoma after an injury is
//!   to be evacuated whatever the patient's state (Bullock 2006, Neurosurgery 58:S2-7). Neither
//!   speaks of subdural or subarachnoid volumes; the bound is taken for them too.
//! - 5 mm: above this midline shift an acute subdural hematoma after an injury is to be evacuated
//!   whatever the patient's state (Bullock 2006, Neurosurgery 58:S2-16). Taken for every cause.
//! - Blood in the ventricles scores in the ICH score at any volume.
#![warn(clippy::wildcard_enum_match_arm)]

use serde::{Deserialize, Serialize};

use crate::findings::{Finding, FindingKind, Outcome};

/// Version of the policy; goes up whenever any input gets another answer.
pub const POLICY_VERSION: u32 = 1;

/// From this volume a bleed is large, mL.
pub const LARGE_BLEED_ML: f64 = 30.0;
/// From this displacement the midline counts as shifted far, mm.
pub const FAR_SHIFT_MM: f64 = 5.0;

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
///
/// The most pressing finding decides; a further finding never lowers the priority. Without a
/// finding only a whole analysis that asked something is routine.
pub fn prioritise(outcome: &Outcome) -> Decision {
    let present: Vec<&Finding> = outcome
        .findings()
        .iter()
        .filter(|finding| finding.present)
        .collect();
    let (found, mut because) = place_of_findings(&present);
    let (unfound, state) = place_without_findings(outcome);
    because.extend(state);
    Decision {
        priority: found.unwrap_or(unfound),
        because,
        policy_version: POLICY_VERSION,
    }
}

/// The most pressing place that a finding gives, and a sentence for each finding.
fn place_of_findings(present: &[&Finding]) -> (Option<Priority>, Vec<String>) {
    let (mut places, because): (Vec<Priority>, Vec<String>) =
        present.iter().map(|finding| place_of(finding)).unzip();
    // Each alone is urgent; mass effect tells that the blood presses.
    if has_mass_effect(present) && present.iter().any(|finding| is_blood(finding.kind)) {
        places.push(Priority::Critical);
    }
    (places.into_iter().min(), because)
}

fn has_mass_effect(present: &[&Finding]) -> bool {
    present
        .iter()
        .any(|finding| finding.kind == FindingKind::MassEffect)
}

/// The place that one present finding gives, and why.
fn place_of(finding: &Finding) -> (Priority, String) {
    let label = finding.kind.label();
    match finding.kind {
        FindingKind::IntraventricularHemorrhage => (
            Priority::Critical,
            "suspected blood in the ventricles".to_owned(),
        ),
        FindingKind::IntracranialHemorrhage
        | FindingKind::IntraparenchymalHemorrhage
        | FindingKind::SubarachnoidHemorrhage
        | FindingKind::SubduralHemorrhage
        | FindingKind::EpiduralHemorrhage => {
            place_by(label, finding.volume_ml, LARGE_BLEED_ML, "mL")
        }
        FindingKind::MidlineShift => place_by(label, finding.shift_mm, FAR_SHIFT_MM, "mm"),
        FindingKind::IschemicChange | FindingKind::MassEffect => {
            (Priority::Urgent, format!("suspected {label}"))
        }
    }
}

/// Critical from `bound` on; urgent below it or where the size is not known.
fn place_by(label: &str, size: Option<f64>, bound: f64, unit: &str) -> (Priority, String) {
    match size {
        Some(size) if size >= bound => (
            Priority::Critical,
            format!("suspected {label} of {size:.1} {unit}, at least {bound} {unit}"),
        ),
        Some(size) => (
            Priority::Urgent,
            format!("suspected {label} of {size:.1} {unit}"),
        ),
        None => (
            Priority::Urgent,
            format!("suspected {label}, size not measured"),
        ),
    }
}

fn is_blood(kind: FindingKind) -> bool {
    match kind {
        FindingKind::IntracranialHemorrhage
        | FindingKind::IntraparenchymalHemorrhage
        | FindingKind::IntraventricularHemorrhage
        | FindingKind::SubarachnoidHemorrhage
        | FindingKind::SubduralHemorrhage
        | FindingKind::EpiduralHemorrhage => true,
        FindingKind::IschemicChange | FindingKind::MidlineShift | FindingKind::MassEffect => false,
    }
}

/// The place where nothing was found, and what the state of the analysis adds to the reasons.
fn place_without_findings(outcome: &Outcome) -> (Priority, Option<String>) {
    match outcome {
        Outcome::Analysed(findings) if findings.is_empty() => (
            Priority::Unknown,
            Some("the model answered no question".to_owned()),
        ),
        Outcome::Analysed(findings) => {
            let found = findings.iter().any(|finding| finding.present);
            let quiet = "analysed, no finding by this model; not a negative read";
            (Priority::Routine, (!found).then(|| quiet.to_owned()))
        }
        Outcome::Partial { reasons, .. } => (
            Priority::Unknown,
            Some(format!("only partly analysed{}", first_of(reasons))),
        ),
        Outcome::NotAnalysed { reasons } => (
            Priority::Unknown,
            Some(format!("not analysed{}", first_of(reasons))),
        ),
    }
}

fn first_of(reasons: &[pipeline::reason::Reason]) -> String {
    reasons
        .first()
        .map_or_else(String::new, |reason| format!(": {}", reason.text))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::{Path, PathBuf};

    use pipeline::reason::{Reason, ReasonCode};

    use super::*;
    use crate::findings::{Probability, Side};

    /// The sizes at which an answer could change, with a name for the document.
    const SIZES: [(&str, Option<f64>); 5] = [
        ("not measured", None),
        ("0", Some(0.0)),
        ("just below the bound", Some(-0.01)),
        ("the bound", Some(0.0)),
        ("far above the bound", Some(100.0)),
    ];

    #[derive(Clone, Copy, Debug)]
    enum State {
        Analysed,
        Partial,
        NotAnalysed,
    }

    const STATES: [State; 3] = [State::Analysed, State::Partial, State::NotAnalysed];

    fn size(class: usize, bound: f64) -> Option<f64> {
        let (_, offset) = SIZES[class];
        match class {
            0 => None,
            1 => Some(0.0),
            _ => offset.map(|offset| bound + offset),
        }
    }

    fn finding(kind: FindingKind, present: bool, class: usize) -> Finding {
        Finding {
            kind,
            present,
            probability: Probability::new(if present { 0.9 } else { 0.1 }).unwrap(),
            volume_ml: kind
                .has_volume()
                .then(|| size(class, LARGE_BLEED_ML))
                .flatten(),
            volume_interval_ml: None,
            shift_mm: (kind == FindingKind::MidlineShift)
                .then(|| size(class, FAR_SHIFT_MM))
                .flatten(),
            side: present.then_some(Side::Left),
            key_slices: Vec::new(),
        }
    }

    fn outcome(state: State, findings: Vec<Finding>) -> Outcome {
        let reasons = vec![Reason::new(
            ReasonCode::MissingSlices,
            "two slices are missing",
        )];
        match state {
            State::Analysed => Outcome::Analysed(findings),
            State::Partial => Outcome::Partial { findings, reasons },
            State::NotAnalysed => Outcome::NotAnalysed { reasons },
        }
    }

    fn place(state: State, findings: Vec<Finding>) -> Priority {
        let decision = prioritise(&outcome(state, findings));
        assert!(!decision.because.is_empty(), "{state:?}: no reason given");
        assert_eq!(decision.policy_version, POLICY_VERSION);
        decision.priority
    }

    /// Every finding that can be: all kinds, absent and present in all sizes.
    fn every_finding() -> Vec<Finding> {
        let mut all = Vec::new();
        for kind in FindingKind::ALL {
            all.push(finding(kind, false, 0));
            for class in 0..SIZES.len() {
                all.push(finding(kind, true, class));
            }
        }
        all
    }

    #[test]
    fn the_whole_table_of_single_findings_is_as_written_here() {
        use FindingKind as K;
        for kind in FindingKind::ALL {
            for (class, size) in SIZES.iter().enumerate() {
                let at_bound = class >= 3;
                let expected = match kind {
                    K::IntraventricularHemorrhage => Priority::Critical,
                    K::IntracranialHemorrhage
                    | K::IntraparenchymalHemorrhage
                    | K::SubarachnoidHemorrhage
                    | K::SubduralHemorrhage
                    | K::EpiduralHemorrhage
                    | K::MidlineShift
                        if at_bound =>
                    {
                        Priority::Critical
                    }
                    K::IntracranialHemorrhage
                    | K::IntraparenchymalHemorrhage
                    | K::SubarachnoidHemorrhage
                    | K::SubduralHemorrhage
                    | K::EpiduralHemorrhage
                    | K::MidlineShift
                    | K::IschemicChange
                    | K::MassEffect => Priority::Urgent,
                };
                for state in [State::Analysed, State::Partial] {
                    let found = place(state, vec![finding(kind, true, class)]);
                    assert_eq!(found, expected, "{kind:?} {size:?} {state:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_whole_analysis_that_asked_and_found_nothing_is_routine() {
        let absent = || vec![finding(FindingKind::IntracranialHemorrhage, false, 0)];
        assert_eq!(place(State::Analysed, absent()), Priority::Routine);
        assert_eq!(place(State::Analysed, Vec::new()), Priority::Unknown);
        assert_eq!(place(State::Partial, absent()), Priority::Unknown);
        assert_eq!(place(State::Partial, Vec::new()), Priority::Unknown);
        assert_eq!(place(State::NotAnalysed, Vec::new()), Priority::Unknown);
    }

    #[test]
    fn not_analysed_never_sorts_below_analysed_without_finding() {
        let quiet = place(
            State::Analysed,
            FindingKind::ALL
                .map(|kind| finding(kind, false, 0))
                .to_vec(),
        );
        assert!(place(State::NotAnalysed, Vec::new()) < quiet);
        assert!(place(State::Partial, Vec::new()) < quiet);
    }

    #[test]
    fn a_further_finding_never_lowers_the_priority() {
        for state in STATES {
            for first in every_finding() {
                let alone = place(state, vec![first.clone()]);
                for second in every_finding() {
                    let both = place(state, vec![first.clone(), second.clone()]);
                    // The derived order puts the more pressing first.
                    assert!(
                        both <= alone,
                        "{state:?} {first:?} {second:?}: {alone:?} became {both:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn blood_that_presses_is_critical_at_any_size() {
        let pair = |kind| {
            vec![
                finding(kind, true, 1),
                finding(FindingKind::MassEffect, true, 0),
            ]
        };
        let small_bleed = pair(FindingKind::IntraparenchymalHemorrhage);
        assert_eq!(place(State::Analysed, small_bleed), Priority::Critical);
        let infarct = pair(FindingKind::IschemicChange);
        assert_eq!(place(State::Analysed, infarct), Priority::Urgent);
    }

    #[test]
    fn a_partial_result_with_a_finding_says_both() {
        let because = prioritise(&outcome(
            State::Partial,
            vec![finding(FindingKind::EpiduralHemorrhage, true, 1)],
        ))
        .because;
        assert!(because[0].contains("epidural"), "{because:?}");
        assert!(because[1].contains("two slices are missing"), "{because:?}");
    }

    /// One row for each run of sizes with the same answer.
    fn rows_of(kind: FindingKind) -> Vec<(String, String)> {
        let mut rows: Vec<(String, String)> = Vec::new();
        for (class, (size, _)) in SIZES.iter().enumerate() {
            let priority = place(State::Analysed, vec![finding(kind, true, class)]);
            let priority = serde_json::to_value(priority).unwrap();
            let priority = priority.as_str().unwrap().to_owned();
            match rows.last_mut() {
                Some((sizes, last)) if *last == priority => *sizes = format!("{sizes}; {size}"),
                _ => rows.push(((*size).to_owned(), priority)),
            }
        }
        if let [(sizes, _)] = rows.as_mut_slice() {
            "any".clone_into(sizes);
        }
        rows
    }

    /// The policy as a table for people, made by asking it.
    fn policy_markdown() -> String {
        let mut text = format!(
            "# Priority policy, version {POLICY_VERSION}\n\n\
             Made from `models/src/triage.rs` by its own tests; do not edit. Worklist order: critical, \
             urgent, unknown, routine. Tez moves a study up the list and never takes one off; \
             routine is not a negative read.\n\n\
             | finding | size | priority |\n|---|---|---|\n"
        );
        for kind in FindingKind::ALL {
            for (sizes, priority) in rows_of(kind) {
                writeln!(text, "| {} | {sizes} | {priority} |", kind.label()).unwrap();
            }
        }
        write!(
            text,
            "| any blood with mass effect | any | critical |\n\
             | none, whole head analysed | | routine |\n\
             | none, only partly analysed | | unknown |\n\
             | not analysed | | unknown |\n\n\
             The bound is {LARGE_BLEED_ML} mL of blood and {FAR_SHIFT_MM} mm of midline shift. Sources: \
             the ICH score, which foretells death within 30 days (Hemphill 2001, Stroke 32:891), for 30 mL \
             of intracerebral blood and for ventricular blood; guidelines for surgery after an injury \
             (Bullock 2006, Neurosurgery 58:S2-7 and S2-16) for 30 mL of epidural blood and for 5 mm of \
             shift with subdural blood. They do not speak of subdural or subarachnoid volumes: the bound \
             is carried over; that of shift is taken for every cause. The most pressing finding decides. A partial analysis with a finding ranks by the finding; without one it is unknown, \
             which stands above routine.\n"
        )
        .unwrap();
        text
    }

    fn policy_document() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/priority-policy.md")
    }

    #[test]
    fn the_document_says_what_the_policy_does() {
        let written = fs::read_to_string(policy_document()).unwrap_or_default();
        assert!(
            written == policy_markdown(),
            "docs/priority-policy.md is out of date: run `cargo test -p models -- --ignored write_the_policy_document`"
        );
    }

    #[test]
    #[ignore = "writes docs/priority-policy.md; run it after a change of the policy"]
    fn write_the_policy_document() {
        fs::write(policy_document(), policy_markdown()).unwrap();
    }
}
