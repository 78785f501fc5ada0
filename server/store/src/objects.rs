//! Objects on disk: verbatim, synced before they are acknowledged, found again after a crash.
//!
//! An object is written to `incoming/`, linked to `objects/<2 hex>/<content hash>_<SOP Instance UID>.dcm`
//! when it is whole, and synced; only then does it count as stored, and only then its name in
//! `incoming/` goes. So one sync, in which the journal of the file system takes bytes and name
//! together, makes it outlive a power cut; what the cut interrupts still has its name in
//! `incoming/`, and the next start checks it against the hash in its other name.
//!
//! Every association syncs on its own thread. The journal takes the syncs that wait at the same
//! time into one commit, which was measured to be faster than a thread of ours that collects them
//! and syncs one after the other.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use pipeline::content::{ContentHash, ContentHasher};
use pipeline::header::{META_BYTES_MAX, MetaParse, parse_part10_meta};
use pipeline::uid::Uid;

use crate::private;

/// The free space is asked for again after so many bytes of one object.
const SPACE_CHECK_BYTES: u64 = 16 << 20;

/// What the store refuses to exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Largest object, its Part 10 head included, bytes.
    pub object_bytes_max: u64,
    /// Space that is left free on the file system for the database, logs and everyone else, bytes.
    pub free_bytes_reserve: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            object_bytes_max: 2 << 30,
            free_bytes_reserve: 1 << 30,
        }
    }
}

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

/// An object that an earlier run acknowledged, or was about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredObject {
    /// SOP instance that the sender named.
    pub sop_instance_uid: Uid,
    /// Where it is.
    pub object: StoredObject,
    /// When its file was written: what is left of the time of receipt without a database.
    pub came_at: Timestamp,
}

impl RecoveredObject {
    /// The order in which they came; of the same moment, by name.
    pub fn came_before(&self, other: &Self) -> std::cmp::Ordering {
        let by_name = || self.object.path.cmp(&other.object.path);
        self.came_at.cmp(&other.came_at).then_with(by_name)
    }
}

/// Why an object was not stored. Nothing of it remains.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or would leave less than the reserve.
    #[error(
        "the disk has {free_bytes} bytes free and {reserve_bytes} are kept in reserve: \
         free some space or move the data folder"
    )]
    Full {
        /// Free for Tez, bytes.
        free_bytes: u64,
        /// The reserve, bytes.
        reserve_bytes: u64,
    },
    /// The object is larger than the limit.
    #[error("the object is larger than the limit of {limit_bytes} bytes (object_bytes_max)")]
    TooLarge {
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// The disk failed.
    #[error("could not {step} in the data folder: {source}")]
    Failed {
        /// What was tried.
        step: Step,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works in the folder.
    #[error("{} is in use by another Tez: stop it, or choose another data folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// What the store does to the disk, in the order in which it does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make or read the folders.
    Prepare,
    /// Make the file in `incoming/`.
    Create,
    /// Write bytes to it.
    Write,
    /// Give it its name in `objects/`.
    Publish,
    /// Sync its bytes and its names.
    Sync,
}

impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Prepare => "prepare the folders",
            Self::Create => "make a file",
            Self::Write => "write a file",
            Self::Publish => "name a file",
            Self::Sync => "sync a file",
        })
    }
}

/// Stands before each step, and may fail it.
pub type Fault = Box<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// The folder of objects. Cheap to clone; blocking: call it from a blocking thread.
#[derive(Clone, Debug)]
pub struct ObjectStore(Arc<Shared>);

struct Shared {
    objects: PathBuf,
    incoming: PathBuf,
    limits: StoreLimits,
    next_name: AtomicU64,
    /// Whether syncing a file also syncs the folder entries that name it.
    sync_syncs_names: bool,
    /// Held for as long as the store lives, so that no second process clears `incoming/`.
    _lock: File,
    fault: Fault,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("objects", &self.objects)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ObjectStore {
    /// Opens the store in `folder`, made where absent, and lists the objects that are there.
    ///
    /// What an earlier run left in `incoming/` is removed: it was never acknowledged, or is whole
    /// under its other name.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Failed`] if the folders
    /// cannot be made or read.
    pub fn open(
        folder: &Path,
        limits: StoreLimits,
    ) -> Result<(Self, Vec<RecoveredObject>), StoreError> {
        let shared = Shared::open(folder, limits)?;
        let recovered =
            recover(&shared.objects, &shared.incoming).map_err(failed(Step::Prepare))?;
        Ok((Self(Arc::new(shared)), recovered))
    }

    /// A store in which `fault` may fail each step, for tests. What lies in `folder` is not looked
    /// at.
    ///
    /// # Errors
    ///
    /// As [`ObjectStore::open`].
    pub fn open_with_fault(
        folder: &Path,
        limits: StoreLimits,
        fault: Fault,
    ) -> Result<Self, StoreError> {
        let mut shared = Shared::open(folder, limits)?;
        shared.fault = fault;
        Ok(Self(Arc::new(shared)))
    }

    /// Starts an object with the bytes that stand before its data set, and are not hashed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] below the reserve, else as [`ObjectWriter::write`].
    pub fn begin(
        &self,
        head: &[u8],
        transfer_syntax_uid: &Uid,
    ) -> Result<ObjectWriter, StoreError> {
        self.0.check_space()?;
        let name = self.0.next_name.fetch_add(1, Ordering::Relaxed);
        let path = self.0.incoming.join(format!("{name}.part"));
        let file = self
            .0
            .step(Step::Create, || {
                OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(private::FILE_MODE)
                    .open(&path)
            })
            .map_err(|error| self.0.explain(Step::Create, error))?;
        let mut writer = ObjectWriter {
            store: self.clone(),
            incoming: Name { path, keep: false },
            file,
            hasher: ContentHasher::new(transfer_syntax_uid.as_str()),
            bytes: 0,
            space_checked_at: 0,
        };
        writer.append(head)?;
        Ok(writer)
    }

    /// Where the object with this content lies, once it is stored.
    pub fn path_of(&self, sop_instance_uid: &Uid, content: ContentHash) -> PathBuf {
        let hex = content.to_hex();
        self.0
            .objects
            .join(&hex[..2])
            .join(format!("{hex}_{sop_instance_uid}.dcm"))
    }

    /// The object of `content`, as it should lie on the disk if it is stored already.
    pub fn stored(&self, sop_instance_uid: &Uid, content: ContentHash) -> Option<StoredObject> {
        let path = self.path_of(sop_instance_uid, content);
        let bytes = fs::metadata(&path).ok()?.len();
        Some(StoredObject {
            content,
            path,
            bytes,
        })
    }

    /// Reads `object` from the disk again: is it what was received?
    pub fn condition(&self, object: &StoredObject) -> Condition {
        let mut file = match File::open(&object.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Condition::Missing,
            Err(error) => {
                tracing::warn!(%error, file = %object.path.display(), "a kept object does not open");
                return Condition::Damaged;
            }
        };
        match content_of(&mut file) {
            Ok(Some(content)) if content == object.content => Condition::Intact,
            Ok(_) => Condition::Damaged,
            Err(error) => {
                tracing::warn!(%error, file = %object.path.display(), "a kept object is not read");
                Condition::Damaged
            }
        }
    }

    /// The objects below `objects/<first as two hexadecimal digits>/`, by their names.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn files(&self, first: u8) -> io::Result<Vec<RecoveredObject>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.0.objects.join(format!("{first:02x}")))? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => found.extend(recovered(&entry.path(), &metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// What became of a kept file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is what was received.
    Intact,
    /// It is something else, or cannot be read.
    Damaged,
    /// It is gone.
    Missing,
}

impl Condition {
    /// The condition in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Damaged => "damaged",
            Self::Missing => "missing",
        }
    }
}

impl Shared {
    fn open(folder: &Path, limits: StoreLimits) -> Result<Self, StoreError> {
        let objects = folder.join("objects");
        let incoming = folder.join("incoming");
        make_folders(folder, &objects, &incoming).map_err(failed(Step::Prepare))?;
        let lock = File::open(&incoming).map_err(failed(Step::Prepare))?;
        lock.try_lock().map_err(|_| StoreError::InUse {
            path: folder.to_owned(),
        })?;
        let sync_syncs_names = sync_syncs_names(&lock).map_err(failed(Step::Prepare))?;
        Ok(Self {
            objects,
            incoming,
            limits,
            next_name: AtomicU64::new(0),
            sync_syncs_names,
            _lock: lock,
            fault: Box::new(|_| Ok(())),
        })
    }

    /// Does one step, unless a test has it fail.
    fn step<T>(&self, step: Step, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        (self.fault)(step)?;
        act()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::statvfs(&self.incoming)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn check_space(&self) -> Result<(), StoreError> {
        let free_bytes = self.free_bytes().map_err(failed(Step::Create))?;
        if free_bytes < self.limits.free_bytes_reserve {
            return Err(self.full(free_bytes));
        }
        Ok(())
    }

    fn full(&self, free_bytes: u64) -> StoreError {
        StoreError::Full {
            free_bytes,
            reserve_bytes: self.limits.free_bytes_reserve,
        }
    }

    /// A full disk is told from a failing one: the sender may try the first again later.
    fn explain(&self, step: Step, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                self.full(self.free_bytes().unwrap_or(0))
            }
            _ => StoreError::Failed {
                step,
                source: error,
            },
        }
    }
}

/// A name of a file; removed when dropped, unless it is to be kept.
#[derive(Debug)]
struct Name {
    path: PathBuf,
    keep: bool,
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

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
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
    incoming: Name,
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
    fn name(&self, path: &Path) -> io::Result<bool> {
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
fn sync_syncs_names(folder: &File) -> io::Result<bool> {
    const EXT4: i64 = 0xEF53;
    const XFS: i64 = 0x5846_5342;
    const BTRFS: i64 = 0x9123_683E;
    Ok([EXT4, XFS, BTRFS].contains(&rustix::fs::fstatfs(folder)?.f_type))
}

fn failed(step: Step) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Failed { step, source }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes all folders at once, so that storing an object never has to.
fn make_folders(folder: &Path, objects: &Path, incoming: &Path) -> io::Result<()> {
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

/// Lists the objects, and settles what the end of the last run interrupted.
fn recover(objects: &Path, incoming: &Path) -> io::Result<Vec<RecoveredObject>> {
    let interrupted = inodes(incoming)?;
    let mut found = Vec::new();
    for folder in fs::read_dir(objects)? {
        for entry in fs::read_dir(folder?.path())? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if interrupted.contains(&metadata.ino()) && !settle(&entry.path())? {
                continue;
            }
            if let Some(object) = recovered(&entry.path(), &metadata) {
                private::tighten(&entry.path(), &metadata, private::FILE_MODE)?;
                found.push(object);
            } else {
                tracing::warn!(
                    file = %entry.path().display(),
                    "left out a file in the object folder that Tez did not write"
                );
            }
        }
    }
    clear(incoming)?;
    found.sort_by(RecoveredObject::came_before);
    Ok(found)
}

fn inodes(folder: &Path) -> io::Result<BTreeSet<u64>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.metadata()?.ino()))
        .collect()
}

/// Decides on an object that was being synced when the last run ended: it may have been
/// acknowledged, or its bytes may not have reached the disk. `false` if it was removed.
fn settle(path: &Path) -> io::Result<bool> {
    let named = recovered(path, &fs::metadata(path)?).map(|object| object.object.content);
    let mut file = File::open(path)?;
    let whole = named.is_some() && content_of(&mut file)? == named;
    if whole {
        file.sync_all()?;
    } else {
        tracing::warn!("removed an object that was never acknowledged and did not reach the disk");
        fs::remove_file(path)?;
    }
    Ok(whole)
}

/// The content of a Part 10 file; `None` if it is not one.
fn content_of(file: &mut impl Read) -> io::Result<Option<ContentHash>> {
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

fn clear(incoming: &Path) -> io::Result<()> {
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

/// The SOP instance and the content that the name of an object's file tells; `None` for another file.
pub fn told_by_name(path: &Path) -> Option<(Uid, ContentHash)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".dcm")?;
    let (hash, uid) = name.split_once('_')?;
    Some((Uid::new(uid).ok()?, ContentHash::from_hex(hash)?))
}

/// Reads what an object is from its name.
fn recovered(path: &Path, metadata: &Metadata) -> Option<RecoveredObject> {
    let (sop_instance_uid, content) = told_by_name(path)?;
    Some(RecoveredObject {
        sop_instance_uid,
        object: StoredObject {
            content,
            path: path.to_owned(),
            bytes: metadata.len(),
        },
        came_at: Timestamp::new(metadata.mtime(), i32::try_from(metadata.mtime_nsec()).ok()?)
            .unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SYNTAX: &str = "1.2.840.10008.1.2.1";

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn limits() -> StoreLimits {
        StoreLimits {
            object_bytes_max: 1000,
            free_bytes_reserve: 0,
        }
    }

    fn write(store: &ObjectStore, body: &[u8]) -> Result<SealedObject, StoreError> {
        let mut writer = store.begin(b"head", &uid(SYNTAX))?;
        for part in body.chunks(7) {
            writer.write(part)?;
        }
        Ok(writer.seal())
    }

    fn files_in(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    /// A store in which `step` fails with `kind`.
    fn failing(folder: &Path, step: Step, kind: io::ErrorKind) -> ObjectStore {
        let fault = move |now: Step| {
            if now == step {
                return Err(io::Error::from(kind));
            }
            Ok(())
        };
        ObjectStore::open_with_fault(folder, limits(), Box::new(fault)).unwrap()
    }

    #[test]
    fn a_published_object_holds_head_and_body_verbatim_and_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, recovered) = ObjectStore::open(folder.path(), limits()).unwrap();
        assert!(recovered.is_empty());
        let stored = write(&store, b"the data set")
            .unwrap()
            .publish(&uid("1.2.3"))
            .unwrap();
        assert_eq!(fs::read(&stored.path).unwrap(), b"headthe data set");
        assert_eq!(stored.bytes, 16);
        assert_eq!(files_in(&folder.path().join("incoming")), 0);
        assert_eq!(
            store.stored(&uid("1.2.3"), stored.content).as_ref(),
            Some(&stored)
        );
        drop(store);

        let (_store, recovered) = ObjectStore::open(folder.path(), limits()).unwrap();
        assert_eq!(recovered.len(), 1);
        assert_eq!(recovered[0].sop_instance_uid, uid("1.2.3"));
        assert_eq!(recovered[0].object, stored);
    }

    #[test]
    fn the_hash_is_of_syntax_and_body_not_of_the_head() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ObjectStore::open(folder.path(), limits()).unwrap();
        let mut hasher = ContentHasher::new(SYNTAX);
        hasher.update(b"body");
        assert_eq!(write(&store, b"body").unwrap().content, hasher.finish());
    }

    #[test]
    fn what_was_not_published_is_gone_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ObjectStore::open(folder.path(), limits()).unwrap();
        // As if the process had been killed between write and rename.
        let mut sealed = write(&store, b"body").unwrap();
        sealed.incoming.keep = true;
        drop(sealed);
        assert_eq!(files_in(&folder.path().join("incoming")), 1);
        drop(store);

        let (_store, recovered) = ObjectStore::open(folder.path(), limits()).unwrap();
        assert!(recovered.is_empty());
        assert_eq!(files_in(&folder.path().join("incoming")), 0);
    }

    /// A Part 10 head and a body, linked to both folders as when the run ends within the sync.
    fn interrupt(folder: &Path, body_on_disk: &[u8]) -> PathBuf {
        let (store, _) = ObjectStore::open(folder, limits()).unwrap();
        let (class, instance) = (uid("1.2.840.10008.5.1.4.1.1.2"), uid("1.2.3"));
        let head = pipeline::header::part10_head(&class, &instance, &uid(SYNTAX));
        let mut writer = store.begin(&head, &uid(SYNTAX)).unwrap();
        writer.write(b"the whole body").unwrap();
        let mut sealed = writer.seal();
        let path = store.path_of(&instance, sealed.content);
        assert!(sealed.name(&path).unwrap());
        sealed.incoming.keep = true;
        fs::write(&path, [&head, body_on_disk].concat()).unwrap();
        path
    }

    #[test]
    fn an_object_whose_sync_was_interrupted_is_kept_if_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = interrupt(folder.path(), b"the whole body");
        let (_store, recovered) = ObjectStore::open(folder.path(), limits()).unwrap();
        assert_eq!(recovered.len(), 1);
        assert_eq!(recovered[0].object.path, path);
        assert_eq!(files_in(&folder.path().join("incoming")), 0);
    }

    #[test]
    fn an_object_whose_sync_was_interrupted_is_removed_if_it_is_torn() {
        for on_disk in [&b"the whole"[..], b"", b"the whole bod\0"] {
            let folder = tempfile::tempdir().unwrap();
            let path = interrupt(folder.path(), on_disk);
            let (_store, recovered) = ObjectStore::open(folder.path(), limits()).unwrap();
            assert!(recovered.is_empty());
            assert!(!path.try_exists().unwrap());
            assert_eq!(files_in(&folder.path().join("incoming")), 0);
        }
    }

    #[test]
    fn an_object_of_an_earlier_run_is_replaced_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ObjectStore::open(folder.path(), limits()).unwrap();
        let publish = || {
            let sealed = write(&store, b"body").unwrap();
            sealed.publish(&uid("1.2.3")).unwrap()
        };
        let first = publish();
        assert_eq!(publish(), first);
        assert_eq!(fs::read(&first.path).unwrap(), b"headbody");
        assert_eq!(files_in(&folder.path().join("incoming")), 0);
    }

    #[test]
    fn a_dropped_object_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ObjectStore::open(folder.path(), limits()).unwrap();
        drop(write(&store, b"body").unwrap());
        assert_eq!(files_in(&folder.path().join("incoming")), 0);
    }

    #[test]
    fn an_object_over_the_limit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ObjectStore::open(folder.path(), limits()).unwrap();
        assert!(write(&store, &[0; 996]).is_ok());
        let error = write(&store, &[0; 997]).unwrap_err();
        assert!(
            matches!(error, StoreError::TooLarge { limit_bytes: 1000 }),
            "{error}"
        );
    }

    #[test]
    fn below_the_reserve_nothing_is_begun() {
        let folder = tempfile::tempdir().unwrap();
        let limits = StoreLimits {
            free_bytes_reserve: u64::MAX,
            ..limits()
        };
        let (store, _) = ObjectStore::open(folder.path(), limits).unwrap();
        let error = store.begin(b"", &uid(SYNTAX)).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
    }

    #[test]
    fn a_disk_that_fills_up_is_full_at_whichever_step() {
        for step in [Step::Create, Step::Write, Step::Publish, Step::Sync] {
            let folder = tempfile::tempdir().unwrap();
            let store = failing(folder.path(), step, io::ErrorKind::StorageFull);
            let error = write(&store, b"body")
                .and_then(|sealed| sealed.publish(&uid("1.2.3")))
                .unwrap_err();
            assert!(
                matches!(error, StoreError::Full { .. }),
                "{step:?}: {error}"
            );
            assert_eq!(files_in(&folder.path().join("incoming")), 0, "{step:?}");
        }
    }

    #[test]
    fn a_failed_sync_leaves_nothing_visible() {
        for step in [Step::Publish, Step::Sync] {
            let folder = tempfile::tempdir().unwrap();
            let store = failing(folder.path(), step, io::ErrorKind::Other);
            let error = write(&store, b"body")
                .unwrap()
                .publish(&uid("1.2.3"))
                .unwrap_err();
            assert!(matches!(error, StoreError::Failed { .. }), "{error}");
            drop(store);
            let (_store, recovered) = ObjectStore::open(folder.path(), limits()).unwrap();
            assert!(recovered.is_empty(), "{step:?}");
        }
    }

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let _first = ObjectStore::open(folder.path(), limits()).unwrap();
        let error = ObjectStore::open(folder.path(), limits()).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    }

    #[test]
    fn a_foreign_file_among_the_objects_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        drop(ObjectStore::open(folder.path(), limits()).unwrap());
        fs::write(folder.path().join("objects/ab/notes.txt"), "x").unwrap();
        let (_store, recovered) = ObjectStore::open(folder.path(), limits()).unwrap();
        assert!(recovered.is_empty());
    }

    #[test]
    fn folders_and_files_are_the_users_own_also_those_of_an_earlier_version() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (store, _) = ObjectStore::open(&data, limits()).unwrap();
        let path = write(&store, b"body")
            .unwrap()
            .publish(&uid("1.2.3"))
            .unwrap()
            .path;
        drop(store);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let folders = [
            data.clone(),
            data.join("objects"),
            data.join("incoming"),
            path.parent().unwrap().to_owned(),
        ];
        for _ in 0..2 {
            assert_eq!(mode(&path), 0o600);
            for folder in &folders {
                assert_eq!(mode(folder), 0o700, "{}", folder.display());
            }
            let open_to_all = fs::Permissions::from_mode(0o755);
            for path in folders.iter().chain([&path]) {
                fs::set_permissions(path, open_to_all.clone()).unwrap();
            }
            drop(ObjectStore::open(&data, limits()).unwrap());
        }
    }

    #[test]
    fn a_damaged_and_a_lost_file_are_told_from_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = interrupt(folder.path(), b"the whole body");
        let (store, found) = ObjectStore::open(folder.path(), limits()).unwrap();
        let object = &found[0].object;
        assert_eq!(store.condition(object), Condition::Intact);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.condition(object), Condition::Damaged);
        fs::write(&path, b"").unwrap();
        assert_eq!(store.condition(object), Condition::Damaged);
        fs::remove_file(&path).unwrap();
        assert_eq!(store.condition(object), Condition::Missing);
    }
}
