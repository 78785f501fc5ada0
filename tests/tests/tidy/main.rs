//! The rules of the tree that no compiler holds: layers, pins, links, sizes, names.
//!
//! Each rule is a function from files to faults, with two tests: the tree keeps it, and it finds a
//! planted fault. Only the standard library is used, so that nothing can switch the rules off.
#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "the names of this tree are in lower case"
)]

mod documents;
mod length;
mod tree;

use tree::{TreeFile, file, tree};

/// Where faults are planted.
const THIS: &str = "tests/tests/tidy/";

/// Crate, paths that may name it, why.
const LAYERS: &[(&str, &[&str], &str)] = &[
    (
        "ort",
        &["models/src/runtime.rs"],
        "one file speaks to ONNX Runtime",
    ),
    (
        "dicom_ul",
        &["server/dimse/", "tests/"],
        "PDUs are read and written in one crate",
    ),
    (
        "dimse",
        &["server/dimse/", "server/src/scp/", "server/src/cli/send.rs"],
        "objects come over DIMSE by one door, and go by one command",
    ),
    ("axum", &["server/src/http/"], "HTTP is the server's edge"),
    ("hyper", &["server/src/http/"], "HTTP is the server's edge"),
    (
        "sqlx",
        &["server/store/src/state/"],
        "SQL stands behind one narrow port",
    ),
    (
        "store",
        &["server/store/", "server/src/", "tests/", "benches/"],
        "only the service keeps anything",
    ),
    (
        "utoipa",
        &["server/src/http/", "server/src/events.rs"],
        "what goes over the wire is described where it goes, and no row is",
    ),
    (
        "tokio",
        &["server/src/", "server/dimse/", "server/store/", "tests/"],
        "pipeline and models are blocking and deterministic, and so is measuring a model",
    ),
    (
        "clap",
        &["server/src/cli/", "fixtures/", "benches/", "xtask/"],
        "only commands read a command line",
    ),
    (
        "eval",
        &["server/eval/", "server/src/cli/"],
        "the service measures no model",
    ),
    (
        "fairness",
        &["server/"],
        "only a listener has senders to be fair to",
    ),
    (
        "pipeline",
        &["pipeline/", "models/", "server/", "tests/", "benches/"],
        "fixtures stand alone",
    ),
    (
        "models",
        &[
            "models/",
            "server/src/",
            "server/eval/",
            "server/store/",
            "tests/",
            "benches/",
        ],
        "neither the pipeline nor a protocol knows models",
    ),
    (
        "server",
        &["server/src/", "tests/", "benches/"],
        "the centre knows no server, and no part of the server the whole",
    ),
];

/// Fields that say who the patient is.
const PATIENT_FIELDS: &[&str] = &["patient_name", "patient_id", "patient_birth_date"];

/// Where such fields may be named: they are read, kept in the database, and shown from there.
const PATIENT_PLACES: &[&str] = &[
    "pipeline/src/instance",
    "pipeline/src/header/",
    "pipeline/src/patient.rs",
    "server/store/src/state/",
    "server/src/studies/",
    "server/src/http/tests/",
    "fixtures/",
    "tests/",
];

/// What may stand at the top of the tree.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "clippy.toml",
    "deny.toml",
    "docs",
    "fixtures",
    "models",
    "pipeline",
    "server",
    "tests",
    "xtask",
];

/// Path prefix, most kilobytes of a file below it; the first that fits counts.
const SIZES_KB: &[(&str, usize)] = &[
    ("models/weights/", 20_000),
    ("docs/openapi.json", 500),
    ("", 200),
];

/// Text that must not stand in the tree, in halves so that this file does not hold it, and why.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("/ho", "me/", "a path of one machine"),
    ("index.crates", ".io/", "a registry's host"),
    ("static.crates", ".io", "a registry's host"),
    ("pypi", ".org", "a registry's host"),
    ("pythonhosted", ".org", "a registry's host"),
    ("registry.npmjs", ".org", "a registry's host"),
    ("deb.debian", ".org", "a registry's host"),
];

/// Marks of unfinished work, in halves as above.
const UNFINISHED: &[(&str, &str)] = &[
    ("TO", "DO"),
    ("FIX", "ME"),
    ("todo", "!("),
    ("unimplemented", "!("),
    ("#[ig", "nore"),
];

fn check(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "`filter` gives a reference to its item"
)]
fn is_rust(file: &&TreeFile) -> bool {
    file.path.ends_with(".rs")
}

// Layers

fn layer_faults(files: &[TreeFile]) -> Vec<String> {
    let mut faults = Vec::new();
    // This file plants faults of that kind in strings.
    let others = files.iter().filter(|file| !file.path.starts_with(THIS));
    for file in others.filter(is_rust) {
        for (number, line) in file.text.lines().enumerate() {
            for (name, places, why) in LAYERS {
                if names_crate(line, name) && !places.iter().any(|at| file.path.starts_with(at)) {
                    faults.push(format!("{}:{}: names {name}: {why}", file.path, number + 1));
                }
            }
        }
    }
    faults
}

/// Whether a line of code has a path that begins with the crate `name`.
fn names_crate(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let starts_a_path = |at: usize| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && !"_:\".".contains(letter))
    };
    let is_imported = code.trim_start().trim_start_matches("pub ") == format!("use {name};");
    is_imported
        || code
            .match_indices(&format!("{name}::"))
            .any(|(position, _)| starts_a_path(position))
}

#[test]
fn each_layer_names_only_what_it_may() {
    check(&layer_faults(&tree()));
}

#[test]
fn a_layer_that_names_another_is_found() {
    for (path, line) in [
        ("models/src/output.rs", "use ort::session::Session;"),
        ("pipeline/src/lib.rs", "    let x = tokio::spawn(y);"),
        ("pipeline/src/head.rs", "pub use models;"),
        (
            "server/src/http/worklist.rs",
            "fn f(pool: &sqlx::AnyPool) {}",
        ),
        ("server/src/studies.rs", "use axum::Json;"),
        ("server/src/worker.rs", "type A = Vec<dicom_ul::Pdu>;"),
        ("server/src/scp/storage.rs", "use dicom_ul::Pdu;"),
        ("server/src/cli/send.rs", "use dicom_ul::Pdu;"),
        ("server/src/intake.rs", "fn f() -> dimse::Status {"),
        ("server/src/http/receive.rs", "use dimse::Status;"),
        ("server/store/src/objects.rs", "use dimse::Failure;"),
        (
            "server/dimse/src/scp/mod.rs",
            "use store::objects::ObjectStore;",
        ),
        ("server/dimse/src/scp/mod.rs", "use sqlx::AnyPool;"),
        ("server/dimse/src/scp/mod.rs", "use axum::Json;"),
        ("server/dimse/src/limits.rs", "use clap::Args;"),
        ("server/dimse/src/scp/service.rs", "use server::studies;"),
        (
            "server/dimse/src/scp/service.rs",
            "use models::report::StudyReport;",
        ),
        ("server/eval/src/lib.rs", "use tokio::fs;"),
        ("server/eval/src/lib.rs", "use store::objects::ObjectStore;"),
        ("server/store/src/objects.rs", "use axum::Json;"),
        ("server/store/src/objects.rs", "use dicom_ul::Pdu;"),
        ("server/store/src/state/rows.rs", "use utoipa::ToSchema;"),
        ("server/store/src/state/read.rs", "use clap::Args;"),
        ("server/store/src/state/read.rs", "use server::studies;"),
        ("server/eval/src/labels.rs", "use clap::Args;"),
        ("server/eval/src/slabs.rs", "use server::config::Config;"),
        ("server/src/worker.rs", "fn f() -> eval::Evaluated {"),
        ("server/fairness/src/pace.rs", "use tokio::time::sleep;"),
        ("server/fairness/src/places.rs", "use server::config;"),
        ("models/src/runtime.rs", "use fairness::pace::Pace;"),
    ] {
        assert_eq!(layer_faults(&[file(path, line)]).len(), 1, "{path}: {line}");
    }
}

#[test]
fn comments_and_paths_inside_a_crate_name_no_layer() {
    for line in [
        "// see ort::Session",
        "use crate::models::Card;",
        "use report::ort_name;",
    ] {
        check(&layer_faults(&[file("pipeline/src/lib.rs", line)]));
    }
}

/// Crates that are shipped depend on none that is for tests, except for their own tests.
fn shipped_faults(files: &[TreeFile]) -> Vec<String> {
    let shipped = [
        "pipeline/Cargo.toml",
        "models/Cargo.toml",
        "server/Cargo.toml",
        "server/dimse/Cargo.toml",
        "server/eval/Cargo.toml",
        "server/fairness/Cargo.toml",
        "server/store/Cargo.toml",
    ];
    let mut faults = Vec::new();
    for file in files
        .iter()
        .filter(|file| shipped.contains(&file.path.as_str()))
    {
        let needed = section(&file.text, "dependencies");
        let name = |line: &str| {
            line.split(['.', ' ', '='])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let names = needed.map(name);
        let wrong = names.filter(|name| ["fixtures", "tests", "benches"].contains(&name.as_str()));
        faults.extend(wrong.map(|name| format!("{}: depends on {name}", file.path)));
    }
    faults
}

#[test]
fn what_is_shipped_depends_on_nothing_that_is_for_tests() {
    check(&shipped_faults(&tree()));
}

#[test]
fn a_shipped_crate_that_depends_on_fixtures_is_found() {
    let manifest = |section: &str| {
        file(
            "models/Cargo.toml",
            &format!("[{section}]\nfixtures.workspace = true\n"),
        )
    };
    assert_eq!(shipped_faults(&[manifest("dependencies")]).len(), 1);
    check(&shipped_faults(&[manifest("dev-dependencies")]));
}

// Patients

/// Code that names a patient's field elsewhere, or beside a log line or a metric.
fn patient_faults(files: &[TreeFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files.iter().filter(is_rust) {
        let may = PATIENT_PLACES
            .iter()
            .any(|place| file.path.starts_with(place));
        for (number, line) in file.text.lines().enumerate() {
            let names = PATIENT_FIELDS.iter().any(|field| line.contains(field));
            let tells = ["tracing::", "counter!", "gauge!", "histogram!"];
            if names && (!may || tells.iter().any(|word| line.contains(word))) {
                faults.push(format!(
                    "{}:{}: names a patient's field",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    faults.retain(|fault| !fault.starts_with(THIS));
    faults
}

#[test]
fn a_patients_name_goes_from_the_header_to_the_database_and_nowhere_else() {
    check(&patient_faults(&tree()));
}

#[test]
fn a_patients_name_in_a_model_or_a_log_line_is_found() {
    for (path, line) in [
        (
            "models/src/analysis.rs",
            "let who = &instance.study.patient_name;",
        ),
        (
            "server/src/studies/study.rs",
            "tracing::info!(study.patient_id);",
        ),
    ] {
        assert_eq!(patient_faults(&[file(path, line)]).len(), 1, "{path}");
    }
    check(&patient_faults(&[file(
        "server/store/src/state/rows.rs",
        "patient_name: String,",
    )]));
}

// Pins

fn pin_faults(files: &[TreeFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        let is_python = file.path.ends_with(".txt") && file.path.contains("requirements");
        if file.path == "Cargo.toml" {
            faults.extend(workspace_pin_faults(&file.text));
        } else if file.path.ends_with("Cargo.toml") {
            faults.extend(member_pin_faults(file));
        } else if is_python {
            let lines = file.text.lines().map(str::trim);
            let loose = lines.filter(|line| {
                !line.is_empty() && !line.starts_with(['#', '-']) && !line.contains("==")
            });
            faults.extend(loose.map(|line| format!("{}: {line}: not pinned", file.path)));
        }
    }
    faults
}

fn section<'a>(toml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let heading = format!("[{name}]");
    let lines = toml
        .lines()
        .skip_while(move |line| line.trim() != heading)
        .skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter(|line| line.contains('=') && !line.starts_with('#'))
}

fn workspace_pin_faults(toml: &str) -> Vec<String> {
    let foreign = section(toml, "workspace.dependencies").filter(|line| !line.contains("path ="));
    let mut faults = Vec::new();
    for line in foreign {
        if !line.contains("\"=") {
            faults.push(format!("Cargo.toml: {line}: not pinned with \"=…\""));
        }
        if line
            .split_once(" # ")
            .is_none_or(|(_, reason)| reason.trim().is_empty())
        {
            faults.push(format!("Cargo.toml: {line}: no reason behind it"));
        }
    }
    faults
}

fn member_pin_faults(file: &TreeFile) -> Vec<String> {
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let lines = sections.iter().flat_map(|name| section(&file.text, name));
    let own = lines.filter(|line| !line.contains("workspace = true"));
    own.map(|line| format!("{}: {line}: versions stand in the workspace", file.path))
        .collect()
}

#[test]
fn every_dependency_is_pinned_and_has_a_reason() {
    check(&pin_faults(&tree()));
}

#[test]
fn a_loose_or_unexplained_dependency_is_found() {
    for (path, text) in [
        (
            "Cargo.toml",
            "[workspace.dependencies]\nserde = \"1\" # wire types\n",
        ),
        (
            "Cargo.toml",
            "[workspace.dependencies]\nserde = \"=1.0.0\"\n",
        ),
        ("server/Cargo.toml", "[dependencies]\nserde = \"=1.0.0\"\n"),
        (
            "server/Cargo.toml",
            "[dev-dependencies]\nserde = { version = \"1\" }\n",
        ),
        ("tests/requirements.txt", "pydicom>=3\n"),
    ] {
        assert_eq!(pin_faults(&[file(path, text)]).len(), 1, "{text}");
    }
}

// Forbidden text

fn text_faults(files: &[TreeFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.path != "Cargo.lock") {
        let marks = UNFINISHED.iter().filter(|_| file.path.ends_with(".rs"));
        let marks = marks.map(|(head, tail)| (format!("{head}{tail}"), "unfinished work"));
        let words = FORBIDDEN
            .iter()
            .map(|(head, tail, why)| (format!("{head}{tail}"), *why));
        for (word, why) in words.chain(marks) {
            let found = |line: &str| line.contains(&word) && !is_generator(line);
            if let Some(number) = file.text.lines().position(found) {
                faults.push(format!("{}:{}: {word}: {why}", file.path, number + 1));
            }
        }
    }
    faults
}

/// A test that is started by hand because it writes a generated file; another one compares it.
fn is_generator(line: &str) -> bool {
    let rest = line.trim_start().strip_prefix("#[ig");
    rest.is_some_and(|rest| rest.starts_with("nore = \"writes "))
}

#[test]
fn the_tree_names_no_machine_and_no_registry_and_holds_no_unfinished_work() {
    check(&text_faults(&tree()));
}

#[test]
fn a_machine_a_registry_and_unfinished_work_are_found() {
    for text in [
        format!("/{}/main", "work"),
        format!("https://{}.org/simple", "pypi"),
        format!("// TO{}: later", "DO"),
        format!("#[ig{}]", "nore"),
    ] {
        assert_eq!(
            text_faults(&[file("server/src/lib.rs", &text)]).len(),
            1,
            "{text}"
        );
    }
}

// Sizes

fn size_faults(files: &[TreeFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        let limit = SIZES_KB.iter().find(|(at, _)| file.path.starts_with(at));
        let (_, kb_max) = limit.expect("the last prefix fits every path");
        if file.bytes > kb_max * 1000 {
            faults.push(format!(
                "{}: {} bytes, more than {kb_max} kB",
                file.path, file.bytes
            ));
        }
    }
    faults
}

#[test]
fn no_file_is_too_large_for_a_clone_over_a_weak_link() {
    check(&size_faults(&tree()));
}

#[test]
fn a_large_file_is_found() {
    let large = file("docs/picture.svg", &"x".repeat(200_001));
    assert_eq!(size_faults(&[large]).len(), 1);
    let weights = file("models/weights/net.onnx", &"x".repeat(200_001));
    check(&size_faults(&[weights]));
}
