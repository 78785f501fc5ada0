//! Whole studies of the catalogue: what is found, what is not, and what is said then.

use std::sync::Arc;

use pipeline::content::ContentHash;
use pipeline::decode::{DecodedObject, DecodedSlices, decode_object};
use pipeline::instance::Instance;
use pipeline::limits::Limits;

use super::*;
use crate::findings::{FindingKind, Side};
use crate::report::ReportState;
use crate::testing::{later, network, run, run_with, study};
use crate::triage::Priority;

#[test]
fn a_bleed_on_the_left_is_found_there_and_the_map_holds_its_volume() {
    let (_folder, instances) = study("bleed_intraparenchymal_left");
    let analysis = run(&instances, Ok(&mut network(1)));
    let report = &analysis.report;
    assert_eq!(report.state, ReportState::Analysed, "{:?}", report.reasons);
    assert!(report.priority <= Priority::Urgent, "{:?}", report.priority);
    let finding = &report.findings[0];
    assert_eq!(finding.kind, FindingKind::IntracranialHemorrhage);
    assert_eq!((finding.present, finding.side), (true, Some(Side::Left)));
    let volume_ml = finding.volume_ml.unwrap();
    // 30 mL are there; the network leaves out the blurred rim.
    assert!((18.0..33.0).contains(&volume_ml), "{volume_ml} mL");
    assert_eq!(finding.key_slices.len(), 3);
    let map = analysis.map().unwrap();
    // The first kind is any haemorrhage; the others mark the same blood again.
    let any = map.marked.index_axis(ndarray::Axis(0), 0);
    let marked = any.iter().filter(|marked| **marked).count();
    let counted_ml = marked as f64 * map.grid.voxel_volume_ml();
    assert!(
        (counted_ml - volume_ml).abs() < 0.01,
        "{counted_ml} and {volume_ml} mL"
    );
}

#[test]
fn a_healthy_head_is_routine_and_says_which_model_answered() {
    let (_folder, instances) = study("head");
    let mut network = network(1);
    let report = run(&instances, Ok(&mut network)).report;
    assert_eq!(
        (report.state, report.priority),
        (ReportState::Analysed, Priority::Routine)
    );
    assert_eq!(report.model, Some(network.identity()));
    let stages: Vec<&str> = report.timing_ms.keys().map(String::as_str).collect();
    assert_eq!(
        stages,
        ["findings", "inference", "prepare", "total", "volume"]
    );
}

#[test]
fn neither_threads_nor_the_order_of_arrival_change_a_byte_of_the_result() {
    let (_folder, mut instances) = study("bleed_intraparenchymal_left");
    let mut json = |session_threads, pool_threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(pool_threads)
            .build()
            .unwrap();
        let mut network = network(session_threads);
        let report = pool.install(|| run(&instances, Ok(&mut network)).report);
        instances.reverse();
        serde_json::to_string(&report).unwrap()
    };
    let alone = json(1, 1);
    assert_eq!(json(1, 2), alone);
    assert_eq!(json(2, 2), alone);
}

#[test]
fn without_a_model_the_study_is_not_analysed_and_keeps_its_geometry() {
    let (_folder, instances) = study("head");
    let missing = Reason::new(ReasonCode::InferenceLibraryMissing, "no library");
    let analysis = run(&instances, Err(&missing));
    let report = &analysis.report;
    assert_eq!(
        (report.state, report.priority),
        (ReportState::NotAnalysed, Priority::Unknown)
    );
    assert_eq!(report.reasons, [missing]);
    assert_eq!(report.geometry.as_ref().unwrap().slices, 32);
    assert!(report.series[0].chosen);
    assert!(report.findings.is_empty() && report.model.is_none() && analysis.map().is_none());
    assert!(analysis.volume.is_some());
}

#[test]
fn a_missing_slice_makes_the_result_partial_with_the_reason() {
    let (_folder, instances) = study("missing_slice");
    let report = run(&instances, Ok(&mut network(1))).report;
    assert_eq!(report.state, ReportState::Partial);
    assert_eq!(report.reasons[0].code, ReasonCode::MissingSlices);
    assert!(!report.findings.is_empty());
}

#[test]
fn a_slice_that_cannot_be_read_makes_the_result_partial_wherever_it_lay() {
    let (_folder, instances) = study("head");
    let mut network = network(1);
    for cut in [0, 16, 31] {
        let mut read = instances.clone();
        let lost = read.remove(cut);
        let bytes = std::fs::read(&lost.path).unwrap();
        let path = lost.path.with_extension("cut");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let limits = Limits::default();
        let unread = [*pipeline::header::read_object(&path, &limits).unwrap_err()];
        assert_eq!(unread[0].study_uid.as_ref(), Some(&lost.study_uid));
        let received = Received {
            instances: &read,
            unread: &unread,
        };
        let watch = Watch {
            elapsed_ms: &|| 0.0,
            entered: &|_| {},
        };
        let network = Ok(&mut network);
        let study = StudyObjects {
            study_uid: &lost.study_uid,
            received,
            doubts: &[],
        };
        let report = analyse(study, network, Decoding::afresh(&limits), watch).report;
        assert_eq!(report.state, ReportState::Partial, "{cut}");
        assert_ne!(report.priority, Priority::Routine, "{cut}");
        let codes: Vec<_> = report.reasons.iter().map(|one| one.code).collect();
        assert!(codes.contains(&ReasonCode::UnreadObjects), "{codes:?}");
    }
}

#[test]
fn a_study_none_of_whose_objects_can_be_read_is_not_analysed_and_says_so() {
    let cut = Reason::new(ReasonCode::Truncated, "It is cut.");
    let unread = [pipeline::unread::UnreadObject::unknown("x".into(), cut)];
    let received = Received {
        instances: &[],
        unread: &unread,
    };
    let watch = Watch {
        elapsed_ms: &|| 0.0,
        entered: &|_| {},
    };
    let uid = Uid::new("1.2.3").unwrap();
    let network = Ok(&mut network(1));
    let study = StudyObjects {
        study_uid: &uid,
        received,
        doubts: &[],
    };
    let report = analyse(study, network, Decoding::afresh(&Limits::default()), watch).report;
    assert_eq!(report.state, ReportState::NotAnalysed);
    let last = report.reasons.last().unwrap();
    assert_eq!(last.code, ReasonCode::UnreadObjects);
}

#[test]
fn the_worst_scan_of_a_study_decides_and_one_that_is_left_out_makes_it_partial() {
    let (_head, mut instances) = study("head");
    let (_bleed, bleed) = study("bleed_intraparenchymal_left");
    instances.extend(later(&bleed));
    let mut network = network(1);
    let report = run(&instances, Ok(&mut network)).report;
    assert_eq!(
        (report.state, report.scans.len()),
        (ReportState::Analysed, 2)
    );
    assert_eq!(report.priority, Priority::Critical);
    let deciding = &report.scans[1];
    assert_eq!(report.scans[0].priority, Priority::Routine);
    assert_eq!(report.findings, deciding.findings);
    assert_eq!(report.geometry, deciding.geometry);
    assert_eq!(deciding.acquired.as_deref(), Some("2026-01-15T10:00:10"));
    assert!(report.series.iter().all(|series| series.chosen));

    // Of two that are as urgent the larger bleed is shown, whichever was scanned first.
    let (_larger, larger) = study("bleed_intraparenchymal_lobar");
    for both in [
        [bleed.clone(), later(&larger)].concat(),
        [larger.clone(), later(&bleed)].concat(),
    ] {
        let report = run(&both, Ok(&mut network)).report;
        let volume_ml = |findings: &[Finding]| findings[0].volume_ml.unwrap();
        assert!(volume_ml(&report.findings) > 40.0, "{:?}", report.findings);
        assert_eq!(report.scans.len(), 2);
    }

    let limits = Limits {
        scans_max: 1,
        ..Limits::default()
    };
    let watch = Watch {
        elapsed_ms: &|| 0.0,
        entered: &|_| {},
    };
    for (instances, priority) in [
        (&instances, Priority::Unknown),
        (&[bleed.clone(), later(&bleed)].concat(), Priority::Critical),
    ] {
        let study = StudyObjects {
            study_uid: &instances[0].study_uid,
            received: instances.into(),
            doubts: &[],
        };
        let report = analyse(study, Ok(&mut network), Decoding::afresh(&limits), watch).report;
        assert_eq!(report.state, ReportState::Partial);
        assert_eq!(report.priority, priority);
        assert_eq!(report.reasons[0].code, ReasonCode::LimitExceeded);
        assert!(!report.findings.is_empty());
    }
}

#[test]
fn a_study_without_objects_is_not_analysed() {
    let report = run(&[], Ok(&mut network(1))).report;
    assert_eq!(report.state, ReportState::NotAnalysed);
    assert_eq!(report.reasons[0].code, ReasonCode::NoUsableSeries);
}

#[test]
fn a_panic_inside_becomes_an_internal_fault_and_never_a_normal() {
    let limits = Limits::default();
    let (_folder, instances) = study("head");
    let mut network = network(1);
    for at in [Stage::Volume, Stage::Inference, Stage::Findings] {
        let entered = |stage| assert!(stage != at, "planted");
        let decoding = Decoding::afresh(&limits);
        let report = run_with(&instances, Ok(&mut network), decoding, &entered).report;
        assert_eq!(report.state, ReportState::NotAnalysed);
        assert_eq!(report.reasons[0].code, ReasonCode::InternalFault);
        assert!(report.findings.is_empty() && report.model.is_none());
    }
    assert_eq!(
        run(&instances, Ok(&mut network)).report.state,
        ReportState::Analysed
    );
}

/// Every object of a study, decoded before.
struct Decoded(BTreeMap<ContentHash, Arc<DecodedObject>>);

impl DecodedSlices for Decoded {
    fn get(&self, content: ContentHash) -> Option<Arc<DecodedObject>> {
        self.0.get(&content).map(Arc::clone)
    }
}

#[test]
fn a_result_is_the_same_to_the_byte_when_slices_were_decoded_before() {
    let mut network = network(1);
    let limits = Limits::default();
    for name in [
        "bleed_intraparenchymal_left",
        "enhanced_ct",
        "deflated",
        "missing_slice",
    ] {
        let (_folder, mut instances) = study(name);
        for (number, instance) in (1_u64..).zip(&mut instances) {
            instance.content = ContentHash::from_hex(&format!("{number:064x}"));
        }
        let afresh = run(&instances, Ok(&mut network));
        let half = instances.iter().step_by(instances.len().min(2));
        let decode = |one: &Instance| (one.content.unwrap(), decode_object(one, &limits).into());
        let decoded = Decoded(half.map(decode).collect());
        assert!(!decoded.0.is_empty());
        instances.reverse();
        let decoding = Decoding {
            limits: &limits,
            decoded: &decoded,
        };
        let with_them = run_with(&instances, Ok(&mut network), decoding, &|_| {});
        let json = |analysis: &Analysis| serde_json::to_string(&analysis.report).unwrap();
        assert_eq!(json(&with_them), json(&afresh), "{name}");
        assert_eq!(with_them.artefacts, afresh.artefacts, "{name}");
        let voxels = |analysis: Analysis| analysis.volume.unwrap().hounsfield;
        assert!(voxels(with_them) == voxels(afresh), "{name}");
    }
}
