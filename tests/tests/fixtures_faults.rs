//! Every synthetic study and every broken byte ends in the state that the catalogue names.

use std::path::Path;

use fixtures::catalogue::{self, Entry};
use fixtures::faults::{self, Fault, FaultExpected};
use fixtures::manifest::{Manifest, RECORDED, Record};
use fixtures::phantom::{BleedKind, Subject, Truth};
use fixtures::study::{Studio, write_files};
use models::report::StudyReport;
use models::runtime::Network;
use pipeline::header::read_instance;
use pipeline::limits::Limits;
use pipeline::reason::{Reason, ReasonCode};
use serde_json::Value;
use tests::shipped::{files_of, network, report_of, side_of};

/// What the network is held to whatever is odd about a study: bleeds in the tissue of at least this size.
const PLAIN_BLEED_ML: f64 = 20.0;

#[test]
fn healthy_heads_are_analysed_and_nothing_is_found() {
    check(&catalogue::healthy());
}

#[test]
fn bleeds_in_the_brain_are_analysed_with_their_side_and_volume() {
    check(&catalogue::bleeds_in_brain());
}

#[test]
fn bleeds_around_the_brain_are_analysed() {
    check(&catalogue::bleeds_around_brain());
}

#[test]
fn lookalikes_are_analysed() {
    check(&catalogue::lookalikes());
}

#[test]
fn tilts_are_rectified_and_gaps_resampled_and_both_are_named() {
    check(&catalogue::tilts_and_gaps());
}

#[test]
fn odd_numbers_and_copies_change_nothing_and_are_named() {
    check(&catalogue::numbering());
}

#[test]
fn a_bleed_stays_on_its_side_whatever_way_images_and_head_lie() {
    check(&catalogue::orientation());
}

#[test]
fn incomplete_stacks_say_what_is_missing() {
    check(&catalogue::incomplete());
}

#[test]
fn the_right_series_is_chosen_and_the_others_say_why_not() {
    check(&catalogue::series_choice());
}

#[test]
fn a_study_without_a_usable_series_is_not_analysed_and_says_why() {
    check(&catalogue::unusable_series());
}

#[test]
fn every_encoding_is_analysed_alike() {
    check(&catalogue::encodings());
}

/// Holds every study of `entries` against what its entry names, and its bytes against the manifest.
fn check(entries: &[Entry]) {
    let (studio, mut network) = (Studio::default(), network(2));
    let recorded = Manifest::parse(RECORDED).expect("the manifest");
    let mut faults = Vec::new();
    for entry in entries {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let study = studio.make(&entry.plan).expect("a study");
        study.write(folder.path()).expect("written");
        let report = report_of(folder.path(), &mut network);
        assert_eq!(
            Record::of(entry, &study),
            recorded.study[entry.name],
            "{}",
            entry.name
        );
        let found = disagreements(entry, &study.truth, &report);
        faults.extend(
            found
                .into_iter()
                .map(|what| format!("{}: {what}", entry.name)),
        );
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_broken_byte_ends_in_a_clear_refusal() {
    let mut network = network(2);
    let faults: Vec<String> = faults::all()
        .expect("the faults")
        .iter()
        .filter_map(|fault| {
            Some(format!(
                "{}: {}",
                fault.name,
                wrong_with(fault, &mut network)?
            ))
        })
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// What differs between the catalogue and a result, in words.
fn disagreements(entry: &Entry, truth: &Truth, report: &StudyReport) -> Vec<String> {
    let expected = &entry.expected;
    let mut found = Vec::new();
    let state = word(&report.state);
    if state != expected.state.as_str() {
        found.push(format!(
            "ended {state}, not {}: {:?}",
            expected.state.as_str(),
            report.reasons
        ));
    }
    for code in expected
        .reasons
        .iter()
        .filter(|code| !has(&report.reasons, code))
    {
        found.push(format!("no reason {code} in {:?}", report.reasons));
    }
    found.extend(series_disagreements(entry, report));
    found.extend(geometry_disagreements(entry, report));
    found.extend(truth_disagreements(truth, report));
    // Whatever else there is: calcium, a dense falx, a clip, an infarct.
    let is_bloodless = matches!(&entry.plan.subject, Subject::Head(plan) if plan.bleeds.is_empty());
    if is_bloodless && report.findings.iter().any(|finding| finding.present) {
        found.push(format!("alarms: {:?}", report.findings));
    }
    if report
        .reasons
        .iter()
        .any(|reason| reason.code == ReasonCode::InternalFault)
    {
        found.push("an internal fault".to_owned());
    }
    found
}

fn series_disagreements(entry: &Entry, report: &StudyReport) -> Vec<String> {
    let mut found = Vec::new();
    let chosen: Vec<_> = report
        .series
        .iter()
        .filter(|verdict| verdict.chosen)
        .collect();
    if chosen.len() != usize::from(entry.expected.chosen.is_some()) {
        found.push(format!(
            "{} series chosen: {:?}",
            chosen.len(),
            report.series
        ));
    }
    for (number, code) in &entry.expected.set_aside {
        let said = report
            .series
            .iter()
            .any(|verdict| !verdict.chosen && has(&verdict.reasons, code));
        if !said {
            found.push(format!(
                "series {number} is not set aside for {code}: {:?}",
                report.series
            ));
        }
    }
    found
}

fn geometry_disagreements(entry: &Entry, report: &StudyReport) -> Vec<String> {
    let expected = &entry.expected;
    let Some(geometry) = &report.geometry else {
        return expected
            .slices
            .map(|_| "no geometry".to_owned())
            .into_iter()
            .collect();
    };
    let mut found = Vec::new();
    if expected
        .slices
        .is_some_and(|slices| slices != geometry.slices)
    {
        found.push(format!(
            "{} slices, not {:?}",
            geometry.slices, expected.slices
        ));
    }
    if (geometry.tilt_deg - expected.tilt_deg).abs() > 0.05 {
        found.push(format!(
            "tilt {}°, not {}°",
            geometry.tilt_deg, expected.tilt_deg
        ));
    }
    for code in expected
        .warnings
        .iter()
        .filter(|code| !has(&geometry.warnings, code))
    {
        found.push(format!("no warning {code} in {:?}", geometry.warnings));
    }
    if expected.warnings.is_empty() && expected.reasons.is_empty() && !geometry.warnings.is_empty()
    {
        found.push(format!("warnings for nothing: {:?}", geometry.warnings));
    }
    found
}

/// Presence, side and rough volume of a plain bleed in the tissue; other blood is measured in `synthetic_truth`.
fn truth_disagreements(truth: &Truth, report: &StudyReport) -> Vec<String> {
    let [bleed] = truth.bleeds.as_slice() else {
        return Vec::new();
    };
    let Some(finding) = report.findings.first() else {
        return Vec::new();
    };
    if bleed.kind != BleedKind::Intraparenchymal || bleed.volume_ml < PLAIN_BLEED_ML {
        return Vec::new();
    }
    let side = side_of(bleed.side, false);
    let volume_ml = finding.volume_ml.unwrap_or(0.0);
    let is_near = (0.85..1.15).contains(&(volume_ml / bleed.volume_ml));
    let is_right = finding.present && finding.side == Some(side) && is_near;
    let told = format!("{bleed:?} became {finding:?}");
    (!is_right).then_some(told).into_iter().collect()
}

fn has(reasons: &[Reason], code: &str) -> bool {
    reasons.iter().any(|reason| word(&reason.code) == code)
}

/// A value's word on the wire.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value).expect("a word") {
        Value::String(word) => word,
        other => other.to_string(),
    }
}

/// What is wrong with how a fault ended; `None` when it ended as it must.
fn wrong_with(fault: &Fault, network: &mut Network) -> Option<String> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    write_files(&fault.files, folder.path()).expect("written");
    match fault.expected {
        FaultExpected::Refused(codes) => wrong_refusal(folder.path(), codes),
        // Archives are taken in by the server: its own tests open them.
        FaultExpected::ArchiveRefused => None,
        FaultExpected::NotAnalysed(code) => {
            let report = report_of(folder.path(), network);
            let said = report
                .series
                .iter()
                .any(|verdict| has(&verdict.reasons, code));
            let is_right = word(&report.state) == "not_analysed" && report.findings.is_empty();
            (!said || !is_right).then(|| format!("no {code} in {report:?}"))
        }
        FaultExpected::Analysed => {
            let report = report_of(folder.path(), network);
            (word(&report.state) != "analysed").then(|| format!("{report:?}"))
        }
    }
}

fn wrong_refusal(folder: &Path, codes: &[&str]) -> Option<String> {
    files_of(folder)
        .iter()
        .find_map(|path| match read_instance(path, &Limits::default()) {
            Ok(instance) => Some(format!("was taken as {}", instance.sop_instance_uid)),
            Err(refusal) => {
                let code = word(&refusal.reason.code);
                let is_clear = codes.contains(&code.as_str()) && refusal.reason.text.len() > 10;
                (!is_clear).then(|| format!("refused as {code}: {}", refusal.reason.text))
            }
        })
}
