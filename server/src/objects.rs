//! Objects on disk: verbatim, synced before they are acknowledged, found again after a crash.

use std::path::PathBuf;

use pipeline::content::ContentHash;

/// An object that is on disk and synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// What its data set is.
    pub content: ContentHash,
    /// The Part 10 file.
    pub path: PathBuf,
    /// Length of the file, bytes.
    pub bytes: u64,
}
