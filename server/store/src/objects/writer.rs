//! An object from its first byte until it outlives a power cut.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pipeline::content::{ContentHash, ContentHasher};
use pipeline::uid::Uid;

use super::folders::sync_parent;
use super::{ObjectStore, Step, StoreError, StoredObject};

/// The free space is asked for again after so many bytes of one object.
const SPACE_CHECK_BYTES: u64 = 16 << 20;

/// A name of a file; removed when dropped, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) path: PathBuf,
    pub(super) keep: bool,
}

impl Drop for Name {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, "could not remove an unfinished object; the next start will");
        }
    }
}

/// An object that is being received. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct ObjectWriter {
    store: ObjectStore,
    incoming: Name,
    file: File,
    hasher: ContentHasher,
    bytes: u64,
    space_checked_at: u64,
}

impl ObjectWriter {
    pub(super) fn new(
        store: ObjectStore,
        incoming: Name,
        file: File,
        transfer_syntax_uid: &Uid,
    ) -> Self {
        Self {
            store,
            incoming,
            file,
            hasher: ContentHasher::new(transfer_syntax_uid.as_str()),
            bytes: 0,
            space_checked_at: 0,
        }
    }

    /// Takes the next bytes of the data set.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] beyond the limit, [`StoreError::Full`] without space,
    /// [`StoreError::Failed`] if the disk fails. The object is lost then: drop it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.append(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// The unfinished file, for reading what was written so far.
    pub fn path(&self) -> &Path {
        &self.incoming.path
    }

    /// Ends the data set: now it is known what the object is.
    pub fn seal(self) -> SealedObject {
        SealedObject {
            content: self.hasher.finish(),
            store: self.store,
            incoming: self.incoming,
            file: self.file,
            bytes: self.bytes,
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let store = &self.store.0;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > store.limits.object_bytes_max {
            return Err(StoreError::TooLarge {
                limit_bytes: store.limits.object_bytes_max,
            });
        }
        if self.bytes - self.space_checked_at > SPACE_CHECK_BYTES {
            store.check_space()?;
            self.space_checked_at = self.bytes;
        }
        store
            .step(Step::Write, || self.file.write_all(bytes))
            .map_err(|error| store.explain(Step::Write, error))
    }
}

/// An object that is whole and hashed, but not yet on disk for good.
#[derive(Debug)]
pub struct SealedObject {
    /// What its data set is.
    pub content: ContentHash,
    store: ObjectStore,
    pub(super) incoming: Name,
    file: File,
    bytes: u64,
}

impl SealedObject {
    /// Names the object and syncs it; when this returns, it outlives a power cut.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] or [`StoreError::Failed`]; the object is not visible then. A failed
    /// sync is not tried again on the same file: the system may have dropped the pages.
    pub fn publish(self, sop_instance_uid: &Uid) -> Result<StoredObject, StoreError> {
        let shared = &self.store.0;
        let path = self.store.path_of(sop_instance_uid, self.content);
        let is_new = self
            .name(&path)
            .map_err(|error| shared.explain(Step::Publish, error))?;
        let mut name = Name {
            path: path.clone(),
            keep: !is_new,
        };
        shared
            .step(Step::Sync, || self.sync(&path))
            .map_err(|error| shared.explain(Step::Sync, error))?;
        name.keep = true;
        Ok(StoredObject {
            content: self.content,
            path,
            bytes: self.bytes,
        })
    }

    /// Gives the file its name. `false` if it replaced a file of that name, from an earlier run
    /// that this one was not told of: then it is synced before, so that there is always one.
    pub(super) fn name(&self, path: &Path) -> io::Result<bool> {
        let incoming = &self.incoming.path;
        match self
            .store
            .0
            .step(Step::Publish, || fs::hard_link(incoming, path))
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // It came when the other came: see `RecoveredObject::came_at`.
                self.file.set_modified(fs::metadata(path)?.modified()?)?;
                self.file.sync_all()?;
                let second = incoming.with_extension("new");
                fs::hard_link(incoming, &second)?;
                fs::rename(second, path).map(|()| false)
            }
            named => named.map(|()| true),
        }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if self.store.0.sync_syncs_names {
            return Ok(());
        }
        sync_parent(path)
    }
}

/// Whether a sync of a file on this file system also makes the links to it durable.
///
/// fsync(2) promises nothing of the kind. But ext4, XFS and Btrfs write the change of an inode's
/// link count and the folder entry in one transaction, and a sync of the inode waits for it: a
/// second sync, of the folder, would only cost a second flush of the disk's cache.
pub(super) fn sync_syncs_names(folder: &File) -> io::Result<bool> {
    const EXT4: i64 = 0xEF53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683E;
    Ok([EXT4, XFS, BTRFS].contains(&rustix::fs::fstatfs(folder)?.f_type))
}
