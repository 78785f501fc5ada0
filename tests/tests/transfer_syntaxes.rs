//! The answer does not depend on how the pixels were packed.
#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::Array2;
use pipeline::decode::{Decoding, frame_hounsfield};
use pipeline::header::read_instance;
use pipeline::limits::Limits;
use pipeline::series::Slice;
use serde_json::Value;
use tests::peers;
use tests::service::workspace_root;

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");

/// What `tez triage` says, but for its timing and the names of its reasons' files.
fn triage(folder: &Path) -> Value {
    // It ends with another status where a study was not analysed.
    let output = Command::new(TEZ)
        .args(["triage", "--json"])
        .arg(folder)
        .current_dir(workspace_root())
        .output()
        .expect("tez triage");
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("one study in JSON");
    report
        .as_object_mut()
        .expect("an object")
        .remove("timing_ms");
    report
}

/// The groups of ways that `encode_study.py` knows, and the transfer syntaxes of each.
const NATIVE: &[&str] = &[
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.98",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
];
const JPEG_LOSSLESS: &[&str] = &["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"];
const JPEG_LOSSLESS_PREDICTORS: &[&str] = &["1.2.840.10008.1.2.4.57"];
const JPEG_LS: &[&str] = &["1.2.840.10008.1.2.4.80"];
const JPEG_2000: &[&str] = &[
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
];
const LOSSY_JPEG: &[&str] = &["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"];
const LOSSY: &[&str] = &[
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.91",
];
const UNDECODABLE: &[&str] = &["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.110"];

/// What packing does to the voxels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    /// Two decoders may part by so much, HU.
    Within(i16),
    /// Nobody shall decode it.
    Undecodable,
}

/// The study, packed in one way.
struct Packed {
    name: String,
    transfer_syntax: String,
    loss: Loss,
}

/// Lets the script pack the study at `plain` in every way of a group.
fn pack(plain: &Path, out: &Path, group: &str) -> Vec<Packed> {
    let output = peers::run(
        Command::new(peers::python().expect("python"))
            .arg(workspace_root().join("tests/peers/encode_study.py"))
            .arg(plain)
            .arg(out)
            .arg(group),
    )
    .expect("the study in every syntax");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, transfer_syntax, loss] = words[..] else {
                panic!("{line:?} is no way of packing");
            };
            Packed {
                name: name.to_owned(),
                transfer_syntax: transfer_syntax.to_owned(),
                loss: match loss {
                    "same" => Loss::None,
                    "undecodable" => Loss::Undecodable,
                    units => Loss::Within(units.parse().expect("Hounsfield units")),
                },
            }
        })
        .collect()
}

/// Files of a folder by their names.
fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, entry.path())
        })
        .collect()
}

/// Every frame of an object.
fn voxels(path: &Path) -> Vec<Array2<i16>> {
    let limits = Limits::default();
    let instance = read_instance(path, &limits).expect("an instance");
    let frames = 0..instance.frames.len();
    frames
        .map(|frame_index| {
            let slice = Slice::of(&instance, frame_index);
            frame_hounsfield(&slice, Decoding::afresh(&limits)).expect("pixels")
        })
        .collect()
}

/// Compares each object of `folder` with that of the same name in `reference`.
fn assert_voxels(folder: &Path, reference: &Path, difference_max: i16) {
    let reference = files(reference);
    let packed = files(folder);
    assert!(packed.len() >= 4, "{}", folder.display());
    for (name, path) in packed {
        let (ours, theirs) = (voxels(&path), voxels(&reference[&name]));
        assert_eq!(ours.len(), theirs.len());
        for (one, other) in ours.iter().flatten().zip(theirs.iter().flatten()) {
            let difference = one.saturating_sub(*other).saturating_abs();
            assert!(
                difference <= difference_max,
                "{}: {one} and {other} HU",
                path.display()
            );
        }
    }
}

/// Transfer syntaxes of table 2 of the conformance statement, and whether they are decoded.
fn stated() -> BTreeMap<String, bool> {
    let statement = std::fs::read_to_string(workspace_root().join("docs/dicom-conformance.md"))
        .expect("the statement");
    let (_, table) = statement.split_once("### Table 2").expect("the table");
    let rows = table.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[2].to_owned(), cells[4] == "yes")
    })
    .collect()
}

fn mentions_loss(report: &Value) -> bool {
    report["series"].to_string().contains("Lossy compression")
}

/// Checks the whole answer about `folder`, given that about the study itself.
fn assert_answer(folder: &Path, packed: &Packed, plain: &Value) {
    let report = triage(folder);
    let name = &packed.name;
    match packed.loss {
        Loss::None => assert_eq!(&report, plain, "{name}"),
        Loss::Within(_) => {
            assert_eq!(report["state"], "analysed", "{name}: {report}");
            assert!(mentions_loss(&report), "{name}: {report}");
        }
        Loss::Undecodable => {
            assert_eq!(report["state"], "not_analysed", "{name}: {report}");
            let reasons = report["reasons"].to_string();
            assert!(reasons.contains("unsupported_transfer_syntax"), "{reasons}");
        }
    }
}

/// Packs a study in every way of a group and checks each: its voxels, and for each transfer syntax
/// the whole answer.
fn check_group(group: &str, transfer_syntaxes: &[&str]) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let plain = scratch.path().join("plain");
    // Stored pixels start at zero: HTJ2K's encoder here takes unsigned pixels only.
    fixtures::make("small_head", &plain).expect("a fixture");
    let encoded = scratch.path().join("encoded");
    let ways = pack(&plain, &encoded, group);
    let expected = triage(&plain);
    assert_eq!(expected["state"], "analysed", "{expected}");
    assert!(!mentions_loss(&expected));
    let slices = files(&plain).len();
    let mut answered = BTreeSet::new();
    for packed in &ways {
        let folder = encoded.join(&packed.name);
        match packed.loss {
            Loss::None => assert_voxels(&folder, &plain, 0),
            Loss::Within(units) => {
                let other = encoded.join(format!("{}.decoded", packed.name));
                assert_voxels(&folder, &other, units);
            }
            Loss::Undecodable => {}
        }
        if files(&folder).len() == slices {
            assert_answer(&folder, packed, &expected);
            answered.insert(packed.transfer_syntax.as_str());
        }
    }
    assert_eq!(answered, transfer_syntaxes.iter().copied().collect());
}

#[test]
fn uncompressed_and_run_length_coded_pixels_read_alike() {
    check_group("native", NATIVE);
}

#[test]
fn lossless_jpeg_reads_as_it_was_with_restarts_in_fragments_and_signed() {
    check_group("jpeg_lossless", JPEG_LOSSLESS);
}

#[test]
fn lossless_jpeg_reads_as_it_was_by_each_predictor() {
    check_group("jpeg_lossless_predictors", JPEG_LOSSLESS_PREDICTORS);
}

#[test]
fn jpeg_ls_reads_as_it_was() {
    check_group("jpeg_ls", JPEG_LS);
}

#[test]
fn lossless_jpeg_2000_reads_as_it_was() {
    check_group("jpeg_2000", JPEG_2000);
}

#[test]
fn lossy_jpeg_reads_within_one_step_of_dcmtk_and_the_loss_is_said() {
    check_group("lossy_jpeg", LOSSY_JPEG);
}

#[test]
fn other_lossy_pixels_read_as_another_decoder_reads_them_and_the_loss_is_said() {
    check_group("lossy", LOSSY);
}

#[test]
fn what_cannot_be_decoded_is_not_analysed_with_its_reason() {
    check_group("undecodable", UNDECODABLE);
}

#[test]
fn every_row_of_the_conformance_statement_is_one_that_is_tested_here() {
    let rows = stated();
    assert!(rows.len() > 15, "{rows:?}");
    let groups = [NATIVE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000, LOSSY_JPEG, LOSSY];
    let decoded: BTreeSet<&str> = groups.into_iter().flatten().copied().collect();
    let says = |yes: bool| {
        let rows = rows.iter().filter(move |(_, decoded)| **decoded == yes);
        rows.map(|(uid, _)| uid.as_str()).collect::<BTreeSet<_>>()
    };
    assert_eq!(decoded, says(true));
    assert_eq!(
        UNDECODABLE.iter().copied().collect::<BTreeSet<_>>(),
        says(false)
    );
}

#[test]
fn frames_in_fragments_are_decoded_as_the_frames_were() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let plain = scratch.path().join("plain");
    fixtures::make("enhanced_ct", &plain).expect("a fixture");
    let (name, path) = files(&plain).into_iter().next().expect("an object");
    let expected = voxels(&path);
    assert_eq!(expected.len(), 32);
    for (program, options) in [
        ("dcmcjpeg", &["+e1"][..]),
        ("dcmcjpeg", &["+el", "+sv", "4", "+fs", "4"]),
        ("dcmcjpls", &["+fs", "4"]),
        ("dcmcrle", &[]),
    ] {
        let packed = scratch.path().join(format!("{program}-{name}"));
        let mut command = Command::new(program);
        peers::run(command.args(options).arg(&path).arg(&packed)).expect("a packed object");
        assert_eq!(voxels(&packed), expected, "{program} {options:?}");
    }
}
