//! Links between documents, the top of the tree, and what documents must say.

use std::collections::BTreeSet;

use crate::tree::{TreeFile, file, tree};
use crate::{TOP, check};

// Links

fn link_faults(files: &[TreeFile]) -> Vec<String> {
    let known: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for target in link_targets(&file.text) {
            let path = resolve(&file.path, target);
            let is_folder = known
                .iter()
                .any(|known| known.starts_with(&format!("{path}/")));
            if !known.contains(path.as_str()) && !is_folder {
                faults.push(format!("{}: the link to {target} leads nowhere", file.path));
            }
        }
    }
    faults
}

/// Targets of `[text](target)` that are paths, without their anchors.
fn link_targets(markdown: &str) -> impl Iterator<Item = &str> {
    let targets = markdown
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    local
        .filter_map(|target| target.split('#').next())
        .filter(|path| !path.is_empty())
}

/// `target` as seen from the file at `from`, as a path from the top.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_between_files_leads_somewhere() {
    check(&link_faults(&tree()));
}

#[test]
fn a_dead_link_is_found_and_a_live_one_is_not() {
    let tree = |text: &str| [file("docs/a.md", text), file("xtask/src/main.rs", "")];
    assert_eq!(link_faults(&tree("see [b](b.md)")).len(), 1);
    assert_eq!(link_faults(&tree("see [b](../server/)")).len(), 1);
    check(&link_faults(&tree(
        "[x](../xtask/src/main.rs#L1), [y](../xtask), [z](https://a.b/c)",
    )));
}

// Names

fn top_faults(files: &[TreeFile]) -> Vec<String> {
    let names = files.iter().filter_map(|file| file.path.split('/').next());
    let names: BTreeSet<&str> = names.collect();
    let mut faults: Vec<String> = names
        .iter()
        .filter(|name| !TOP.contains(name))
        .map(|name| format!("{name}: not agreed for the top of the tree"))
        .collect();
    faults.extend(
        TOP.iter()
            .filter(|name| !names.contains(*name))
            .map(|name| format!("{name}: missing")),
    );
    faults
}

#[test]
fn the_top_of_the_tree_holds_what_was_agreed() {
    check(&top_faults(&tree()));
}

#[test]
fn a_stray_name_at_the_top_and_a_missing_one_are_found() {
    let mut files: Vec<TreeFile> = TOP.iter().map(|name| file(name, "")).collect();
    check(&top_faults(&files));
    files.push(file("notes/x.md", ""));
    files.remove(0);
    assert_eq!(top_faults(&files).len(), 2);
}

// Documents

fn document_faults(files: &[TreeFile]) -> Vec<String> {
    let text = |path: &str| {
        files
            .iter()
            .find(|file| file.path == path)
            .map_or("", |file| file.text.as_str())
    };
    let required = [
        ("CHANGELOG.md", "\n## Unreleased\n"),
        ("README.md", "not a medical device"),
        ("README.md", "cargo xtask demo"),
        ("README.md", "cargo xtask test"),
        ("LICENSE", "Apache License"),
    ];
    let missing = required
        .iter()
        .filter(|(path, words)| !text(path).contains(words));
    let mut faults: Vec<String> = missing
        .map(|(path, words)| format!("{path}: does not say {:?}", words.trim()))
        .collect();
    faults.extend(decision_faults(files));
    faults
}

/// Records of decisions are numbered without a gap, and each says what was decided and why.
fn decision_faults(files: &[TreeFile]) -> Vec<String> {
    let records = files
        .iter()
        .filter(|file| file.path.starts_with("docs/decisions/"));
    let mut faults = Vec::new();
    for (index, record) in records.enumerate() {
        let prefix = format!("docs/decisions/{:04}-", index + 1);
        if !record.path.starts_with(&prefix) {
            faults.push(format!("{}: expected {prefix}…", record.path));
        }
        for heading in ["## Decision", "## Why"] {
            if !record.text.contains(heading) {
                faults.push(format!("{}: has no \"{heading}\"", record.path));
            }
        }
    }
    faults
}

#[test]
fn the_documents_say_what_they_must() {
    check(&document_faults(&tree()));
}

#[test]
fn a_document_that_does_not_say_what_it_must_is_found() {
    assert_eq!(document_faults(&[]).len(), 5);
    let record = |path: &str, text: &str| decision_faults(&[file(path, text)]).len();
    assert_eq!(
        record("docs/decisions/0002-x.md", "## Decision\n## Why\n"),
        1
    );
    assert_eq!(record("docs/decisions/0001-x.md", "because"), 2);
}
