//! The files of the tree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the tree: its path from the top, and its text (empty for what is not UTF-8).
pub(crate) struct TreeFile {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) bytes: usize,
}

fn root() -> PathBuf {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    parent.expect("tests/ lies in the checkout").to_path_buf()
}

/// Every file that git has or would take.
pub(crate) fn tree() -> Vec<TreeFile> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git can be started");
    assert!(listed.status.success(), "this is a git checkout");
    let names = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let names: BTreeSet<&str> = names.split_terminator('\0').collect();
    let files: Vec<TreeFile> = names.into_iter().filter_map(read).collect();
    assert!(files.len() > 50, "git listed {} files", files.len());
    files
}

/// `None` for a file that git still lists but that has just been removed.
fn read(path: &str) -> Option<TreeFile> {
    let bytes = std::fs::read(root().join(path)).ok()?;
    Some(TreeFile {
        path: path.to_owned(),
        bytes: bytes.len(),
        text: String::from_utf8(bytes).unwrap_or_default(),
    })
}

pub(crate) fn file(path: &str, text: &str) -> TreeFile {
    TreeFile {
        path: path.to_owned(),
        text: text.to_owned(),
        bytes: text.len(),
    }
}
