//! The folders of the store: making them, and settling what the end of the last run interrupted.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::DirEntryExt;
use std::path::Path;

use pipeline::content::{ContentHash, ContentHasher};
use pipeline::header::{META_BYTES_MAX, MetaParse, parse_part10_meta};

use super::told_by_name;
use crate::private;

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes all folders at once, so that storing an object never has to.
pub(super) fn make_folders(folder: &Path, objects: &Path, incoming: &Path) -> io::Result<()> {
    private::folder(folder)?;
    private::folder(objects)?;
    private::folder(incoming)?;
    for first in 0..=u8::MAX {
        private::folder(&objects.join(format!("{first:02x}")))?;
    }
    for made in [objects, folder] {
        File::open(made)?.sync_all()?;
    }
    sync_parent(&fs::canonicalize(folder)?)
}

/// Settles the objects that were being synced when the last run ended: those that have a name in
/// both folders.
pub(super) fn settle_interrupted(objects: &Path, incoming: &Path) -> io::Result<()> {
    let interrupted = inodes(incoming)?;
    if interrupted.is_empty() {
        return Ok(());
    }
    for folder in fs::read_dir(objects)? {
        for entry in fs::read_dir(folder?.path())? {
            let entry = entry?;
            if interrupted.contains(&entry.ino()) {
                settle(&entry.path())?;
            }
        }
    }
    Ok(())
}

fn inodes(folder: &Path) -> io::Result<BTreeSet<u64>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.ino()))
        .collect()
}

/// Decides on such an object: it may have been acknowledged, or its bytes may not have reached the
/// disk.
fn settle(path: &Path) -> io::Result<()> {
    let named = told_by_name(path).map(|(_, content)| content);
    let mut file = File::open(path)?;
    if named.is_some() && content_of(&mut file)? == named {
        return file.sync_all();
    }
    tracing::warn!("removed an object that was never acknowledged and did not reach the disk");
    fs::remove_file(path)
}

/// The content of a Part 10 file; `None` if it is not one.
pub(super) fn content_of(file: &mut impl Read) -> io::Result<Option<ContentHash>> {
    let mut head = Vec::new();
    let head_bytes = u64::try_from(META_BYTES_MAX).unwrap_or(u64::MAX);
    file.by_ref().take(head_bytes).read_to_end(&mut head)?;
    let MetaParse::Meta {
        transfer_syntax,
        dataset_offset,
        ..
    } = parse_part10_meta(&head)
    else {
        return Ok(None);
    };
    let mut hasher = ContentHasher::new(transfer_syntax.as_str());
    hasher.update(&head[dataset_offset..]);
    let mut buffer = vec![0; META_BYTES_MAX];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(hasher.finish())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

pub(super) fn clear(incoming: &Path) -> io::Result<()> {
    let mut removed = 0_u32;
    for entry in fs::read_dir(incoming)? {
        fs::remove_file(entry?.path())?;
        removed += 1;
    }
    if removed > 0 {
        tracing::info!(removed, "cleared what an earlier run was receiving");
    }
    Ok(())
}
