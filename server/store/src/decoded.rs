//! Decoded slices on disk: a cache, bounded in bytes, which may be deleted at any time.
//!
//! Each object's Hounsfield units are one file, named by the object's content and sealed
//! ([`pipeline::sealed`]): what is torn or foreign is not taken. Several processes share the folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use pipeline::content::ContentHash;
use pipeline::decode::{DecodedObject, DecodedSlices};

use crate::private::{self, Sync};

/// The folder is looked through after so many bytes written, as a part of what may be in it.
const LOOK_EVERY_PART: u64 = 8;
/// What is left when room is made: this many eighths of what may be kept.
const KEPT_EIGHTHS: u64 = 6;

/// The cache.
#[derive(Debug)]
pub struct DecodedCache {
    folder: PathBuf,
    bytes_max: u64,
    /// Since the folder was looked through.
    written_bytes: AtomicU64,
    next_name: AtomicU64,
}

impl DecodedCache {
    /// Opens the cache in `folder`, made where absent, for at most `bytes_max` bytes; 0: nothing is
    /// kept.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        private::folder(folder)?;
        let cache = Self {
            folder: folder.to_owned(),
            bytes_max,
            written_bytes: AtomicU64::new(0),
            next_name: AtomicU64::new(0),
        };
        cache.make_room();
        Ok(cache)
    }

    /// Whether something is kept under `content`.
    pub fn has(&self, content: ContentHash) -> bool {
        fs::metadata(self.path(content)).is_ok()
    }

    /// Whether an object of `bytes` is kept at all: not one that would take much of the room.
    pub fn takes(&self, bytes: u64) -> bool {
        bytes <= self.bytes_max / LOOK_EVERY_PART
    }

    /// Keeps `decoded`, if there is room for it. A fault is logged: it costs only time later.
    pub fn put(&self, content: ContentHash, decoded: &DecodedObject) {
        let bytes = decoded.to_bytes();
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if !self.takes(length) {
            return;
        }
        if let Err(error) = self.write(content, &bytes) {
            tracing::warn!(%error, "a decoded slice is not kept");
        }
        let written = self.written_bytes.fetch_add(length, Ordering::Relaxed) + length;
        if written > self.bytes_max / LOOK_EVERY_PART {
            self.written_bytes.store(0, Ordering::Relaxed);
            self.make_room();
        }
    }

    /// Not synced: what a power cut tears is seen to be torn.
    fn write(&self, content: ContentHash, bytes: &[u8]) -> io::Result<()> {
        let number = self.next_name.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let part = self.folder.join(format!("{process}-{number}.part"));
        private::write_whole(&part, &self.path(content), bytes, Sync::Never)
    }

    fn path(&self, content: ContentHash) -> PathBuf {
        self.folder.join(format!("{}.hu", content.to_hex()))
    }

    /// Removes the oldest until there is room again.
    fn make_room(&self) {
        let mut files = self.files();
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        if bytes <= self.bytes_max / 8 * (KEPT_EIGHTHS + 1) {
            return;
        }
        files.sort();
        for (_, length, path) in files {
            if bytes <= self.bytes_max / 8 * KEPT_EIGHTHS {
                break;
            }
            // Another process may have removed it.
            drop(fs::remove_file(path));
            bytes -= length;
        }
    }

    fn files(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let file = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        };
        entries.filter_map(file).collect()
    }
}

impl DecodedSlices for DecodedCache {
    fn get(&self, content: ContentHash) -> Option<Arc<DecodedObject>> {
        let bytes = fs::read(self.path(content)).ok()?;
        match DecodedObject::from_bytes(&bytes) {
            Ok(decoded) => Some(Arc::new(decoded)),
            Err(error) => {
                tracing::debug!(%error, "a kept decoded slice is not taken");
                None
            }
        }
    }
}
