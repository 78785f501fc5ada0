//! Zips on their way in: files without a name, which vanish with the process.
//!
//! A zip's table of contents stands at its end, so it must be there as a whole before it can be
//! read. It is spooled to a file that has no name from the start (`O_TMPFILE`, where the file
//! system can): whatever happens, nothing is left behind.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::problem::Problem;

/// The free space is asked for again after so many bytes.
const SPACE_CHECK_BYTES: u64 = 16 << 20;

/// Written to find out whether the disk takes anything.
const TRIED_BYTES: usize = 4_096;

/// Why a file cannot be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Too little space is left.
    #[error(
        "the disk is full: {free_bytes} bytes are free, and {reserve_bytes} are kept in reserve"
    )]
    Full {
        /// Free for Tez, bytes.
        free_bytes: u64,
        /// The reserve, bytes.
        reserve_bytes: u64,
    },
    /// The disk failed.
    #[error("the data folder cannot be written")]
    Failed(#[source] io::Error),
}

impl From<SpoolError> for Problem {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Full { .. } => {
                Self::disk_full(format!("No space for the upload: {error}."))
            }
            SpoolError::Failed(_) => Self::internal(&error),
        }
    }
}

/// The folder in which zips are spooled.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: PathBuf,
    free_bytes_reserve: u64,
}

impl Spool {
    /// Opens the spool inside `data_dir`, made where absent; `free_bytes_reserve` stays free.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn open(data_dir: &Path, free_bytes_reserve: u64) -> io::Result<Self> {
        let folder = data_dir.join("spool");
        store::private::folder(&folder)?;
        Ok(Self {
            folder,
            free_bytes_reserve,
        })
    }

    /// A new, empty file. Blocking.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn create(&self) -> Result<SpoolFile, SpoolError> {
        self.check_space()?;
        let file = tempfile::tempfile_in(&self.folder).map_err(SpoolError::Failed)?;
        Ok(SpoolFile {
            spool: self.clone(),
            file,
            unchecked_bytes: 0,
        })
    }

    /// Writes a little to a file that then vanishes. Blocking.
    ///
    /// # Errors
    ///
    /// [`SpoolError`]: an object could not be written now either.
    pub fn try_writing(&self) -> Result<(), SpoolError> {
        self.create()?.write(&[0; TRIED_BYTES])
    }

    /// Whether there is room beyond the reserve. Blocking, but short.
    ///
    /// # Errors
    ///
    /// [`SpoolError`].
    pub fn check_space(&self) -> Result<(), SpoolError> {
        let space =
            rustix::fs::statvfs(&self.folder).map_err(|error| SpoolError::Failed(error.into()))?;
        let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        if free_bytes < self.free_bytes_reserve.max(1) {
            return Err(self.full(free_bytes));
        }
        Ok(())
    }

    fn full(&self, free_bytes: u64) -> SpoolError {
        SpoolError::Full {
            free_bytes,
            reserve_bytes: self.free_bytes_reserve,
        }
    }
}

/// A file that is being spooled.
#[derive(Debug)]
pub struct SpoolFile {
    spool: Spool,
    file: File,
    unchecked_bytes: u64,
}

impl SpoolFile {
    /// Appends `bytes`. Blocking.
    ///
    /// # Errors
    ///
    /// [`SpoolError`]; the file is then of no more use.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.unchecked_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.unchecked_bytes > SPACE_CHECK_BYTES {
            self.spool.check_space()?;
            self.unchecked_bytes = 0;
        }
        self.file
            .write_all(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.spool.full(0),
                _ => SpoolError::Failed(error),
            })
    }

    /// The file, for reading.
    pub fn into_file(self) -> File {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_spooled_file_has_no_name_and_holds_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), 0).unwrap();
        let mut file = spool.create().unwrap();
        file.write(b"abc").unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path().join("spool"))
                .unwrap()
                .count(),
            0
        );
        let (mut file, mut text) = (file.into_file(), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn below_the_reserve_nothing_is_spooled() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), u64::MAX).unwrap();
        assert!(matches!(spool.create(), Err(SpoolError::Full { .. })));
    }
}
