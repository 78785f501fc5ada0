//! No file of the crates below is too long to be read in one go.

use crate::tree::{TreeFile, file, tree};
use crate::{check, is_rust};

/// Crates that keep to it.
const CRATES: &[&str] = &[
    "pipeline/",
    "models/",
    "fixtures/",
    "benches/",
    "xtask/",
    "tests/",
];
const LINES_MAX: usize = 600;

fn length_faults(files: &[TreeFile]) -> Vec<String> {
    let is_held = |file: &&TreeFile| CRATES.iter().any(|at| file.path.starts_with(at));
    let rust = files.iter().filter(is_rust).filter(is_held);
    rust.map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| {
            format!(
                "{}: {lines} lines, more than {LINES_MAX}: split it by theme",
                file.path
            )
        })
        .collect()
}

#[test]
fn no_file_is_too_long_to_be_read_in_one_go() {
    check(&length_faults(&tree()));
}

#[test]
fn a_long_file_is_found() {
    let long = |path: &str, lines: usize| file(path, &"\n".repeat(lines));
    let faults = length_faults(&[
        long("pipeline/src/series/mod.rs", LINES_MAX + 1),
        long("tests/tests/kill.rs", LINES_MAX + 1),
        long("pipeline/src/head.rs", LINES_MAX),
        long("models/training/train.py", LINES_MAX + 1),
    ]);
    assert_eq!(faults.len(), 2, "{faults:?}");
}
