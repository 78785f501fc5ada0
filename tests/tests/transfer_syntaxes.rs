//! The answer does not depend on how the pixels were packed.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::peers;
use tests::service::workspace_root;

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");

/// What `tez triage` says, but for its timing and the names of its reasons' files.
fn triage(folder: &Path) -> Value {
    let output = peers::run(
        Command::new(TEZ)
            .args(["triage", "--json"])
            .arg(folder)
            .current_dir(workspace_root()),
    )
    .expect("tez triage");
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("one study in JSON");
    report
        .as_object_mut()
        .expect("an object")
        .remove("timing_ms");
    report
}

#[test]
fn every_lossless_transfer_syntax_gives_the_same_result() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let plain = scratch.path().join("plain");
    // Stored pixels start at zero: HTJ2K's encoder here takes unsigned pixels only.
    fixtures::make("small_head", &plain).expect("a fixture");
    let script = workspace_root().join("tests/peers/encode_study.py");
    let encoded = scratch.path().join("encoded");
    let output = peers::run(
        Command::new(peers::python().expect("python"))
            .arg(script)
            .arg(&plain)
            .arg(&encoded),
    )
    .expect("the study in every syntax");
    let expected = triage(&plain);
    assert_eq!(expected["state"], "analysed", "{expected}");
    let names = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(names.lines().count(), 12, "{names}");
    for name in names.lines() {
        assert_eq!(triage(&encoded.join(name)), expected, "{name}");
    }
}
