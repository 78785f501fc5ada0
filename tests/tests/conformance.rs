//! The conformance statement's tables, asked of the running service row by row.
#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::path::Path;

use dicom_ul::association::client::ClientAssociationOptions;
use dicom_ul::pdu::PresentationContextResultReason;
use tests::service::{Tez, workspace_root};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// A syntax that is taken and cannot be decoded.
const MPEG2: &str = "1.2.840.10008.1.2.4.100";

/// The cells of the rows of the table under `heading`, without its two head rows.
fn table(statement: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, after) = statement.split_once(heading).expect("the heading is there");
    let rows = after.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

/// The transfer syntax in which the service takes `sop_class`; `None` if it does not.
fn taken(tez: &Tez, sop_class: &str, offered: &[&str]) -> Option<String> {
    let association = ClientAssociationOptions::new()
        .calling_ae_title("TEST")
        .called_ae_title("TEZ")
        .with_presentation_context(sop_class, offered.to_vec())
        // Verification is always taken, so that a refused class is no rejected association.
        .with_abstract_syntax("1.2.840.10008.1.1")
        .establish(tez.dicom.as_str())
        .expect("an association");
    let contexts = association.presentation_contexts();
    let accepted = contexts.iter().find(|context| {
        context.id == 1 && context.reason == PresentationContextResultReason::Acceptance
    });
    let syntax = accepted.map(|context| context.transfer_syntax.clone());
    association.release().expect("a release");
    syntax
}

fn says(cell: &str) -> bool {
    match cell {
        "yes" => true,
        "no" => false,
        other => panic!("{other:?} is neither yes nor no"),
    }
}

#[test]
fn the_service_takes_what_the_conformance_statement_says_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let tez = Tez::start(Path::new(TEZ), folder.path(), "").expect("the service");
    let statement = std::fs::read_to_string(workspace_root().join("docs/dicom-conformance.md"))
        .expect("the statement");

    let classes = table(&statement, "### Table 1");
    assert!(classes.len() > 8, "{classes:?}");
    for row in classes {
        let taken = taken(&tez, &row[1], &[EXPLICIT]).is_some();
        assert_eq!(taken, says(&row[2]), "{row:?}");
    }

    let syntaxes = table(&statement, "### Table 2");
    assert!(syntaxes.len() > 15, "{syntaxes:?}");
    for row in syntaxes {
        let uid = row[1].as_str();
        assert_eq!(
            taken(&tez, CT, &[uid]).as_deref() == Some(uid),
            says(&row[2]),
            "{row:?}"
        );
        // Of two, the one that can be decoded is preferred.
        let preferred = if says(&row[3]) {
            taken(&tez, CT, &[MPEG2, uid])
        } else {
            taken(&tez, CT, &[uid, EXPLICIT])
        };
        let expected = if says(&row[3]) { uid } else { EXPLICIT };
        assert_eq!(preferred.as_deref(), Some(expected), "{row:?}");
    }
    tez.stop().expect("a clean end");
}
