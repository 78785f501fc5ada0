//! Headers of odd forms are read as pydicom reads them; what cannot be read is in its study's result.
#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::path::Path;
use std::process::Command;

use pipeline::header::{read_instance, read_object};
use pipeline::limits::Limits;
use serde_json::Value;
use tests::peers;
use tests::sender::{Outgoing, SUCCESS, Sender};
use tests::service::{Tez, workspace_root};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
/// Quiet times that a test waits for are short.
const SETTINGS: &str = "[assembly]\nquiet_seconds = 0.5";

#[test]
fn odd_headers_are_read_as_pydicom_reads_them() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let plain = scratch.path().join("plain");
    fixtures::make("small_head", &plain).expect("a fixture");
    let output = peers::run(
        Command::new(peers::python().expect("python"))
            .arg(workspace_root().join("tests/peers/odd_headers.py"))
            .arg(&plain)
            .arg(scratch.path().join("odd")),
    )
    .expect("slices in odd forms");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(lines.lines().count(), 3 * 8, "{lines}");
    for line in lines.lines() {
        let says: Value = serde_json::from_str(line).expect("JSON");
        check_reading(&says);
    }
}

/// Reads the file of `says` and compares.
fn check_reading(says: &Value) {
    let path = Path::new(says["file"].as_str().expect("a file"));
    let instance = read_instance(path, &Limits::default())
        .unwrap_or_else(|refusal| panic!("{}: {refusal}", says["form"]));
    let pixels = instance.pixels.expect("an image");
    let uids = [
        ("sop", instance.sop_instance_uid),
        ("study", instance.study_uid),
        ("series", instance.series_uid),
    ];
    for (name, uid) in uids {
        assert_eq!(says[name], uid.as_str(), "{says}");
    }
    assert_eq!(says["rows"], pixels.rows, "{says}");
    assert_eq!(says["name"], instance.study.patient_name, "{says}");
    let position = instance.frames[0].position_mm.map(Vec::from);
    let expected: Option<Vec<f64>> = serde_json::from_value(says["position"].clone()).ok();
    assert_eq!(position, expected, "{says}");

    let bytes = std::fs::read(path).expect("the file");
    let offset = usize::try_from(pixels.native_offset.expect("native pixels")).expect("an offset");
    let raw = std::fs::read(path.with_extension("raw")).expect("pydicom's pixels");
    let length = usize::try_from(pixels.native_length.expect("native pixels")).expect("a length");
    assert!(
        bytes[offset..offset + length] == raw,
        "other pixels: {says}"
    );
}

/// The objects of the fixture `name`, in order of their heights.
fn objects_of(name: &str, scratch: &Path) -> Vec<Outgoing> {
    let folder = scratch.join(name);
    let mut paths = fixtures::make(name, &folder).expect("a fixture");
    paths.sort_by_key(|path| {
        let instance = read_instance(path, &Limits::default()).expect("a readable object");
        #[expect(clippy::cast_possible_truncation, reason = "a height within a head")]
        let height_um = (instance.frames[0].position_mm.expect("a place")[2] * 1000.0) as i64;
        height_um
    });
    let read = |path: &std::path::PathBuf| Outgoing::read(path).expect("a whole file");
    paths.iter().map(read).collect()
}

fn send(tez: &Tez, objects: &[Outgoing]) {
    let mut sender = Sender::connect(&tez.dicom, "CT1", objects).expect("an association");
    for object in objects {
        assert_eq!(sender.store(object).expect("an answer"), SUCCESS);
    }
    sender.release().expect("a release");
}

fn cut(object: &mut Outgoing, keep: usize) {
    object.data_set.truncate(keep);
}

/// The rows of the worklist once there are `count` and all are at their end.
fn worklist(tez: &Tez, count: usize) -> Vec<Value> {
    for _ in 0..600 {
        let list = tez.get("/api/v1/worklist").expect("a worklist");
        let rows = list["studies"].as_array().cloned().unwrap_or_default();
        if rows.len() == count && rows.iter().all(tests::service::is_terminal) {
            return rows;
        }
        tests::service::pause(std::time::Duration::from_millis(50));
    }
    panic!("the worklist: {:?}", tez.get("/api/v1/worklist"));
}

fn codes(row: &Value) -> Vec<&str> {
    let reasons = row["reasons"].as_array().expect("reasons");
    reasons
        .iter()
        .filter_map(|one| one["code"].as_str())
        .collect()
}

#[test]
fn one_cut_slice_makes_a_study_partial_wherever_it_lies_and_a_whole_copy_mends_it() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let whole = objects_of("small_head", scratch.path());
    for index in [0, whole.len() / 2, whole.len() - 1] {
        let dir = tempfile::tempdir().expect("a scratch folder");
        let tez = Tez::start(Path::new(TEZ), dir.path(), SETTINGS).expect("tez starts");
        let mut objects = whole.clone();
        let half = objects[index].data_set.len() / 2;
        cut(&mut objects[index], half);
        send(&tez, &objects);
        let rows = worklist(&tez, 1);
        assert_eq!(rows[0]["state"], "partial", "slice {index}: {}", rows[0]);
        assert_ne!(rows[0]["priority"], "routine", "slice {index}: {}", rows[0]);
        assert!(codes(&rows[0]).contains(&"unread_objects"), "{}", rows[0]);
        assert_eq!(rows[0]["counts"]["objects"], 32, "{}", rows[0]);

        send(&tez, &whole[index..=index]);
        let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
        let mended = loop {
            let row = worklist(&tez, 1).remove(0);
            if row["state"] == "analysed" || std::time::Instant::now() > end {
                break row;
            }
        };
        assert_eq!(mended["state"], "analysed", "slice {index}: {mended}");
        tez.stop().expect("tez stops");
    }
}

#[test]
fn a_study_none_of_whose_objects_can_be_read_is_on_the_worklist_also_after_a_rebuild() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let dir = tempfile::tempdir().expect("a scratch folder");
    let tez = Tez::start(Path::new(TEZ), dir.path(), SETTINGS).expect("tez starts");
    let mut half = objects_of("small_head", scratch.path());
    for object in &mut half {
        let keep = object.data_set.len() / 2;
        cut(object, keep);
    }
    send(&tez, &half);
    // So short that they do not say which study they are of.
    let mut stumps = objects_of("head", scratch.path());
    for object in &mut stumps {
        cut(object, 80);
    }
    send(&tez, &stumps);
    check_unread_rows(&worklist(&tez, 2));
    tez.stop().expect("tez stops");

    for name in ["tez.sqlite", "tez.sqlite-wal", "tez.sqlite-shm"] {
        let path = dir.path().join("data").join(name);
        if path.try_exists().expect("the folder can be read") {
            std::fs::remove_file(path).expect("removed");
        }
    }
    let tez = Tez::start(Path::new(TEZ), dir.path(), SETTINGS).expect("tez starts");
    check_unread_rows(&worklist(&tez, 2));
    tez.stop().expect("tez stops");
}

fn check_unread_rows(rows: &[Value]) {
    for row in rows {
        assert_eq!(row["state"], "not_analysed", "{row}");
        assert_eq!(row["priority"], "unknown", "{row}");
        assert!(codes(row).contains(&"unread_objects"), "{row}");
        assert_eq!(row["counts"]["objects"], 32, "{row}");
    }
}

#[test]
fn triage_counts_what_it_cannot_read() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path().join("study");
    let paths = fixtures::make("small_head", &folder).expect("a fixture");
    let last = std::fs::read(&paths[31]).expect("a file");
    std::fs::write(&paths[31], &last[..last.len() / 2]).expect("written");
    // What is on many discs, and no object of a study.
    std::fs::write(folder.join("README.TXT"), "Open the viewer.").expect("written");
    std::fs::write(folder.join("AUTORUN.INF"), "").expect("written");
    let (status, reports) = triage(&folder);
    assert_eq!((status, reports.len()), (0, 1));
    assert_eq!(reports[0]["state"], "partial", "{}", reports[0]);
    assert!(
        codes(&reports[0]).contains(&"unread_objects"),
        "{}",
        reports[0]
    );

    for path in &paths {
        let bytes = std::fs::read(path).expect("a file");
        std::fs::write(path, &bytes[..400]).expect("written");
        let unread = read_object(path, &Limits::default()).expect_err("a cut file");
        assert_eq!(unread.study_uid, None);
    }
    let (status, reports) = triage(&folder);
    assert_eq!((status, reports.len()), (3, 1));
    assert_eq!(reports[0]["state"], "not_analysed", "{}", reports[0]);
    let text = reports[0]["reasons"].to_string();
    assert!(text.contains("32 of 32 objects"), "{text}");
}

/// The exit status and the studies' reports.
fn triage(folder: &Path) -> (i32, Vec<Value>) {
    let output = Command::new(TEZ)
        .args(["triage", "--json"])
        .arg(folder)
        .current_dir(workspace_root())
        .output()
        .expect("tez triage");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let report = |line| serde_json::from_str(line).expect("JSON");
    (
        output.status.code().expect("a status"),
        text.lines().map(report).collect(),
    )
}
