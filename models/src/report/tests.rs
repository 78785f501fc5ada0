//! Whether reports read back as they were written.

use fixtures::catalogue;
use pipeline::reason::{Reason, ReasonCode};

use super::*;
use crate::testing::{later, network, run, study};

/// Writes `report`, reads it, and writes it again, bare and as it is kept.
fn assert_reads_back(report: &StudyReport) {
    let json = serde_json::to_string(report).unwrap();
    let stored = report.to_stored().unwrap();
    for kept in [&json, &stored] {
        let back = StudyReport::from_stored(kept).unwrap();
        assert_eq!(&back, report);
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
    }
}

#[test]
fn reports_of_the_catalogue_read_back() {
    let missing = Reason::new(ReasonCode::InferenceLibraryMissing, "no library");
    let entries = catalogue::all().into_iter();
    let mut count = 0;
    // Whole-system tests do the same with every report that they look at (`tests::shipped`).
    for entry in entries.filter(|entry| !entry.is_for_benches).step_by(6) {
        let (_folder, instances) = study(entry.name);
        assert_reads_back(&run(&instances, Err(&missing)).report);
        count += 1;
    }
    assert!(count > 8, "{count} studies");
}

#[test]
fn a_report_with_findings_and_scans_reads_back() {
    let mut network = network(1);
    for name in ["bleed_intraparenchymal_left", "missing_slice"] {
        let (_folder, mut instances) = study(name);
        instances.extend(later(&instances));
        let mut report = run(&instances, Ok(&mut network)).report;
        report
            .timing_ms
            .insert("total".to_owned(), 1_234.567_890_123_456_7);
        assert_eq!(report.scans.len(), 2);
        assert_reads_back(&report);
    }
}

#[test]
fn a_report_that_lacks_what_came_later_is_read() {
    let json = r#"{"study_uid":"1.2.3","state":"not_analysed","reasons":[{"code":"not_ct",
        "text":"It is none."}],"priority":"unknown","priority_because":["x"],"policy_version":1,
        "findings":[],"geometry":null,"model":null}"#;
    let report = StudyReport::from_stored(json).unwrap();
    assert_eq!(report.state, ReportState::NotAnalysed);
    assert!(report.scans.is_empty() && report.series.is_empty());
}

#[test]
fn a_report_of_a_later_version_and_what_is_none_are_refused() {
    let later = r#"{"version":2,"report":{}}"#;
    assert!(matches!(
        StudyReport::from_stored(later),
        Err(StoredReportError::Later { found: 2 })
    ));
    for other in ["", "{}", "[1]", r#"{"version":1}"#] {
        assert!(StudyReport::from_stored(other).is_err(), "{other}");
    }
}
