//! What stays of each round of analysis beside its report: a file for each, synced before the
//! report names it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use pipeline::uid::Uid;

use crate::private::{self, Sync};

/// The folder of artefacts.
#[derive(Clone, Debug)]
pub struct ArtefactStore(PathBuf);

impl ArtefactStore {
    /// The artefacts in `folder`, made where absent.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        private::folder(folder)?;
        Ok(Self(folder.to_owned()))
    }

    /// Keeps the artefacts of one round of study `uid`; when this returns, they outlive a power cut.
    /// Blocking.
    ///
    /// # Errors
    ///
    /// When the disk is full or fails; nothing is kept then.
    pub fn write(&self, uid: &Uid, generation: i64, bytes: &[u8]) -> io::Result<PathBuf> {
        let folder = self.0.join(uid.as_str());
        private::folder(&folder)?;
        let path = folder.join(format!("{generation}.artefacts"));
        let part = path.with_extension("part");
        private::write_whole(&part, &path, bytes, Sync::Now)?;
        for made in [&folder, &self.0] {
            File::open(made)?.sync_all()?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_round_that_is_analysed_again_has_the_newer_artefacts() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtefactStore::open(&folder.path().join("artefacts")).unwrap();
        let uid = Uid::new("1.2").unwrap();
        for bytes in [&b"first"[..], b"again"] {
            let path = store.write(&uid, 1, bytes).unwrap();
            assert_eq!(fs::read(path).unwrap(), bytes);
        }
        let other = store.write(&uid, 2, b"next").unwrap();
        assert_eq!(fs::read_dir(other.parent().unwrap()).unwrap().count(), 2);
    }
}
