//! Files and folders that only the service's user may read: they hold patients' data.

use std::fs::{self, DirBuilder, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Of files.
pub const FILE_MODE: u32 = 0o600;
/// Of folders.
const FOLDER_MODE: u32 = 0o700;
/// Everybody may write into the folder, and only remove what is theirs: `/tmp`.
const STICKY: u32 = 0o1000;

/// Makes the folder, or closes one that an earlier version left open.
///
/// # Errors
///
/// When it cannot be made or closed.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)?;
    tighten(path, &fs::metadata(path)?, FOLDER_MODE)
}

/// How sure a file must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// It outlives a power cut, once its folder is synced as well.
    Now,
    /// Its loss costs nothing but time.
    Never,
}

/// Writes the file at `path`, new or in the place of an older one: under the name `part` until it is
/// whole. Nothing is left of a file that could not be written.
pub(crate) fn write_whole(part: &Path, path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = options.mode(FILE_MODE).open(part)?;
        file.write_all(bytes)?;
        match sync {
            Sync::Now => file.sync_all()?,
            Sync::Never => {}
        }
        fs::rename(part, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(part)))
}

/// Takes the rights of others away from the file at `path`, if it is there.
///
/// # Errors
///
/// When its rights cannot be read or set.
pub fn file_if_any(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) => tighten(path, &metadata, FILE_MODE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes what is not in `mode` away from the rights of `path`. What belongs to somebody else, or to
/// everybody, is left as it is, and said.
///
/// # Errors
///
/// When the rights cannot be set.
pub fn tighten(path: &Path, metadata: &Metadata, mode: u32) -> io::Result<()> {
    let has = metadata.mode();
    if has & 0o777 & !mode == 0 {
        return Ok(());
    }
    if has & STICKY != 0 {
        let path = path.display();
        tracing::warn!(%path, "is shared with others and left open: choose a folder for Tez alone");
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(has & mode)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let path = path.display();
            tracing::warn!(%path, "belongs to another user and can be read by others: close it");
            Ok(())
        }
        done => done,
    }
}
