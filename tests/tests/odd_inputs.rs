//! Every odd input, sent to the running service by both roads, ends in its named state.
#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::collections::BTreeSet;
use std::path::Path;

use fixtures::faults::{self, Fault, FaultExpected};
use serde_json::Value;
use tests::sender::{Outgoing, SUCCESS, Sender};
use tests::service::Tez;

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
const BOUNDARY: &str = "odd-inputs";
/// Statuses of PS3.4 table B.2-1 that say "Error: Cannot Understand".
const CANNOT_UNDERSTAND: std::ops::RangeInclusive<u16> = 0xC000..=0xCFFF;

fn start(dir: &Path) -> Tez {
    // Few of these studies can be shown to be whole: the test waits for most quiet times.
    Tez::start(Path::new(TEZ), dir, "[assembly]\nquiet_seconds = 2").expect("tez starts")
}

/// The files of a fault as one form.
fn form(fault: &Fault) -> Vec<u8> {
    let mut body = Vec::new();
    for file in &fault.files {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            file.name
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&file.bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// Uploads the fault; returns the status and the answer.
fn upload(tez: &Tez, fault: &Fault) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer = agent
        .post(format!("{}/api/v1/uploads", tez.http))
        .header(
            "Content-Type",
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .send(&form(fault)[..])
        .unwrap_or_else(|error| panic!("{}: {error}", fault.name));
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().expect("text");
    (
        status,
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}: {text}", fault.name)),
    )
}

fn verdicts(answer: &Value) -> BTreeSet<&str> {
    answer["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|file| file["verdict"].as_str())
        .collect()
}

/// Every refused file has one of `codes` and a sentence of its own.
fn check_refused(name: &str, answer: &Value, codes: &[&str]) {
    assert_eq!(
        verdicts(answer),
        BTreeSet::from(["refused"]),
        "{name}: {answer}"
    );
    for file in answer["files"].as_array().expect("verdicts") {
        let code = file["reason"]["code"].as_str().expect("a code");
        assert!(codes.contains(&code), "{name}: {file}");
        assert!(
            file["reason"]["text"]
                .as_str()
                .is_some_and(|text| text.len() > 15),
            "{name}: {file}"
        );
    }
}

/// The one study of the answer ends in `state`; for what is not analysed, a series names `code`.
fn check_study(tez: &Tez, name: &str, answer: &Value, state: &str, code: Option<&str>) {
    let uid = answer["studies"][0]["study_uid"]
        .as_str()
        .unwrap_or_else(|| panic!("{name}: {answer}"));
    let study = tez
        .report(uid, 60)
        .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    assert_eq!(study["state"], state, "{name}: {study}");
    let Some(code) = code else { return };
    assert_eq!(study["priority"], "unknown", "{name}: {study}");
    let report = &study["report"];
    assert_eq!(report["findings"], serde_json::json!([]), "{name}: {study}");
    let said = format!("{} {}", report["reasons"], report["series"]);
    assert!(
        said.contains(&format!("\"{code}\"")),
        "{name}: {code} is not in {said}"
    );
}

#[test]
fn uploads_of_odd_input_end_in_their_named_states() {
    for fault in faults::all().expect("faults") {
        // A service for each: the faults are made of one study and share its UIDs.
        let dir = tempfile::tempdir().expect("a scratch folder");
        let tez = start(dir.path());
        let (status, answer) = upload(&tez, &fault);
        match fault.expected {
            FaultExpected::Refused(codes) => {
                assert!(
                    (400..500).contains(&status),
                    "{}: {status} {answer}",
                    fault.name
                );
                check_refused(fault.name, &answer, codes);
            }
            FaultExpected::ArchiveRefused => {
                assert!(
                    (400..500).contains(&status),
                    "{}: {status} {answer}",
                    fault.name
                );
                assert!(
                    answer["detail"]
                        .as_str()
                        .is_some_and(|text| text.len() > 15),
                    "{}: {answer}",
                    fault.name
                );
                assert!(
                    !verdicts(&answer).contains("stored"),
                    "{}: {answer}",
                    fault.name
                );
            }
            FaultExpected::NotAnalysed(code) => {
                assert_eq!(status, 202, "{}: {answer}", fault.name);
                check_study(&tez, fault.name, &answer, "not_analysed", Some(code));
            }
            FaultExpected::Analysed => {
                assert_eq!(status, 202, "{}: {answer}", fault.name);
                check_study(&tez, fault.name, &answer, "analysed", None);
            }
        }
        let outside = dir
            .path()
            .join("outside.dcm")
            .try_exists()
            .expect("the folder can be read");
        assert!(!outside, "a zip wrote outside its folder");
        finish(tez);
    }
}

#[test]
fn objects_that_cannot_be_read_are_kept_when_they_come_by_c_store() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let tez = start(dir.path());
    let mut sent = BTreeSet::new();
    for fault in faults::all().expect("faults") {
        let FaultExpected::Refused(_) = fault.expected else {
            continue;
        };
        // C-STORE carries a bare data set: only what has a whole file meta group can be sent.
        let path = dir.path().join("fault.dcm");
        std::fs::write(&path, &fault.files[0].bytes).expect("written");
        let Ok(mut object) = Outgoing::read(&path) else {
            continue;
        };
        // All faults are made of one object; each gets a name of its own.
        object.sop_instance_uid = format!("2.25.{}", 1000 + sent.len());
        let mut sender =
            Sender::connect(&tez.dicom, "ODD", std::slice::from_ref(&object)).expect("accepted");
        let status = sender
            .store(&object)
            .unwrap_or_else(|error| panic!("{}: {error:#}", fault.name));
        assert!(
            status == SUCCESS || CANNOT_UNDERSTAND.contains(&status),
            "{}: {status:04X}",
            fault.name
        );
        sender.release().expect("released");
        if status == SUCCESS {
            sent.insert(object.sop_instance_uid);
        }
    }
    assert!(sent.len() >= 3, "{sent:?}");
    let named = || -> BTreeSet<String> {
        let list = tez.get("/api/v1/objects/unreadable").expect("a list");
        let rows = list.as_array().expect("a list").iter();
        rows.filter_map(|row| row["sop_instance_uid"].as_str().map(str::to_owned))
            .collect()
    };
    for _ in 0..100 {
        if named() == sent {
            break;
        }
        tests::service::pause(std::time::Duration::from_millis(50));
    }
    assert_eq!(named(), sent, "acknowledged, so kept and named");
    finish(tez);
}

/// It is alive, nothing panicked, and it stops when asked.
fn finish(tez: Tez) {
    tez.get_text("/healthz").expect("alive");
    assert!(!tez.log().contains("panicked"), "{}", tez.log());
    tez.stop().expect("tez stops");
}
