//! The shipped path in this process: DICOM files in, a report out, by the model inside the program.

use std::path::{Path, PathBuf};

use fixtures::phantom::Side as TrueSide;
use models::analysis::{StudyObjects, Watch, analyse};
use models::findings::Side;
use models::report::StudyReport;
use models::runtime::{Library, Network};
use pipeline::decode::Decoding;
use pipeline::header::read_instance;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::patient::{by_patient, shared_study};
use pipeline::reason::Reason;
use pipeline::unread::Received;

use crate::service::workspace_root;

/// The model inside the program.
///
/// # Panics
///
/// If ONNX Runtime is not set up.
pub fn network(threads: usize) -> Network {
    let path = workspace_root().join(".cache/onnxruntime/libonnxruntime.so");
    let library = Library::load(&path).expect("ONNX Runtime: run `cargo xtask setup` first");
    Network::built_in(&library, threads).expect("the network in the binary")
}

/// The files of `folder`, by name.
///
/// # Panics
///
/// If it cannot be read.
pub fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

/// What `network` says of the one study in `folder`.
///
/// # Panics
///
/// If a file is no readable object.
pub fn report_of(folder: &Path, network: &mut Network) -> StudyReport {
    let mut reports = reports_of(instances_of(folder), network);
    assert_eq!(reports.len(), 1, "one patient");
    reports.remove(0)
}

/// The objects in `folder`, by the names of their files.
///
/// # Panics
///
/// If a file is no readable object.
pub fn instances_of(folder: &Path) -> Vec<Instance> {
    let limits = Limits::default();
    files_of(folder)
        .iter()
        .map(|path| read_instance(path, &limits).expect("a readable object"))
        .collect()
}

/// What `network` says of the one study of `instances`, for each patient in it.
///
/// # Panics
///
/// If there are none.
pub fn reports_of(instances: Vec<Instance>, network: &mut Network) -> Vec<StudyReport> {
    let study_uid = instances[0].study_uid.clone();
    let patients = by_patient(instances, Vec::new());
    let doubts: Vec<Reason> = (patients.len() > 1)
        .then(|| shared_study(&study_uid))
        .into_iter()
        .collect();
    let limits = Limits::default();
    let watch = Watch {
        elapsed_ms: &|| 0.0,
        entered: &|_| (),
    };
    patients
        .iter()
        .map(|patient| {
            let study = StudyObjects {
                study_uid: &study_uid,
                received: Received::from(&patient.instances),
                doubts: &doubts,
            };
            let decoding = Decoding::afresh(&limits);
            let report = analyse(study, Ok(network), decoding, watch).report;
            let stored = report.to_stored().expect("JSON");
            let back = StudyReport::from_stored(&stored).expect("a report");
            assert_eq!(back, report, "a kept report reads back");
            report
        })
        .collect()
}

/// The side that Tez must name for blood on the side `truth`, in a head that may be mirrored.
#[must_use]
pub fn side_of(truth: TrueSide, mirrored: bool) -> Side {
    match (truth, mirrored) {
        (TrueSide::Left, false) | (TrueSide::Right, true) => Side::Left,
        (TrueSide::Right, false) | (TrueSide::Left, true) => Side::Right,
        (TrueSide::Bilateral, _) => Side::Bilateral,
    }
}
