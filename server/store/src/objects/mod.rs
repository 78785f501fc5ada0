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

mod folders;
mod writer;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use pipeline::content::ContentHash;
use pipeline::uid::Uid;

pub use writer::{ObjectWriter, SealedObject};

use crate::private;
use folders::{clear, content_of, make_folders, settle_interrupted};
use writer::{Name, sync_syncs_names};

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
    /// Opens the store in `folder`, made where absent.
    ///
    /// What an earlier run left in `incoming/` is removed: it was never acknowledged, or is whole
    /// under its other name.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Failed`] if the folders
    /// cannot be made or read.
    pub fn open(folder: &Path, limits: StoreLimits) -> Result<Self, StoreError> {
        let shared = Shared::open(folder, limits)?;
        settle_interrupted(&shared.objects, &shared.incoming).map_err(failed(Step::Prepare))?;
        clear(&shared.incoming).map_err(failed(Step::Prepare))?;
        Ok(Self(Arc::new(shared)))
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
        let name = Name { path, keep: false };
        let mut writer = ObjectWriter::new(self.clone(), name, file, transfer_syntax_uid);
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

    /// The files of objects below `objects/<first as two hexadecimal digits>/`, by their names alone.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn files(&self, first: u8) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.0.objects.join(format!("{first:02x}")))? {
            let path = entry?.path();
            if told_by_name(&path).is_some() {
                found.push(path);
            } else {
                tracing::warn!(
                    file = %path.display(),
                    "left out a file in the object folder that Tez did not write"
                );
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

fn failed(step: Step) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Failed { step, source }
}

/// The SOP instance and the content that the name of an object's file tells; `None` for another file.
pub fn told_by_name(path: &Path) -> Option<(Uid, ContentHash)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".dcm")?;
    let (hash, uid) = name.split_once('_')?;
    Some((Uid::new(uid).ok()?, ContentHash::from_hex(hash)?))
}

impl RecoveredObject {
    /// What the file at `path` tells by its name, its length and its time; `None` if it is not an
    /// object's, or is gone.
    ///
    /// # Errors
    ///
    /// When the disk does not tell.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let Some((sop_instance_uid, content)) = told_by_name(path) else {
            return Ok(None);
        };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            sop_instance_uid,
            object: StoredObject {
                content,
                path: path.to_owned(),
                bytes: metadata.len(),
            },
            came_at: written_at(&metadata),
        }))
    }
}

fn written_at(metadata: &Metadata) -> Timestamp {
    let nanosecond = i32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    Timestamp::new(metadata.mtime(), nanosecond).unwrap_or_default()
}

#[cfg(test)]
mod tests;
