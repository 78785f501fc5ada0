//! The answer does not depend on how the pixels were packed.
#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::Array2;
use pipeline::decode::frame_hounsfield;
use pipeline::intake::read_instance;
use pipeline::limits::Limits;
use pipeline::series::Slice;
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

/// Lets the script pack the study at `plain` in every way it knows.
fn pack(plain: &Path, out: &Path) -> Vec<Packed> {
    let output = peers::run(
        Command::new(peers::python().expect("python"))
            .arg(workspace_root().join("tests/peers/encode_study.py"))
            .arg(plain)
            .arg(out),
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
            let slice = Slice {
                instance: &instance,
                frame_index,
            };
            frame_hounsfield(&slice, &limits).expect("pixels")
        })
        .collect()
}

/// Compares each object of `folder` with that of the same name in `reference`.
fn assert_voxels(folder: &Path, reference: &Path, difference_max: i16) {
    let reference = files(reference);
    let packed = files(folder);
    assert!(packed.len() >= 8, "{}", folder.display());
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

#[test]
fn every_row_of_the_conformance_statement_is_decoded_as_it_says() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let plain = scratch.path().join("plain");
    // Stored pixels start at zero: HTJ2K's encoder here takes unsigned pixels only.
    fixtures::make("small_head", &plain).expect("a fixture");
    let encoded = scratch.path().join("encoded");
    let ways = pack(&plain, &encoded);
    assert!(ways.len() > 50, "{} ways", ways.len());

    let expected = triage(&plain);
    assert_eq!(expected["state"], "analysed", "{expected}");
    assert!(!mentions_loss(&expected));
    let slices = files(&plain).len();
    let (mut decoded, mut kept) = (BTreeSet::new(), BTreeSet::new());
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
            let row = packed.transfer_syntax.clone();
            match packed.loss {
                Loss::None | Loss::Within(_) => decoded.insert(row),
                Loss::Undecodable => kept.insert(row),
            };
        }
    }
    let rows = |yes: bool| -> BTreeSet<String> {
        let rows = stated().into_iter().filter(|(_, decoded)| *decoded == yes);
        rows.map(|(uid, _)| uid).collect()
    };
    assert_eq!(decoded, rows(true));
    assert_eq!(kept, rows(false));
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
