//! The kept objects: where each lies and what its header says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pipeline::content::ContentHash;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use sqlx::any::AnyRow;

use super::columns::{bad_row, integer, reason, text, text_if_any, time, uid, uid_if_any};
use super::problems::Problem;
use super::record::{OnConflict, Record};
use super::{LIST_ROWS_MAX, Scope, State, StateError, Transaction};
use crate::receipt::{Channel, Receipt};

/// One acknowledged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// The Part 10 file.
    pub path: PathBuf,
    /// What its data set is.
    pub content: ContentHash,
    /// SOP instance, by the sender.
    pub sop_instance_uid: Uid,
    /// SOP class; `None` if it was found on disk and its header cannot be read.
    pub sop_class_uid: Option<Uid>,
    /// Encoding of the stored bytes; `None` if it was found on disk and its header cannot be read.
    pub transfer_syntax_uid: Option<Uid>,
    /// Its study, or one that was made for objects that do not say theirs.
    pub study_uid: Option<Uid>,
    /// Its series; `None` if it does not say.
    pub series_uid: Option<Uid>,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// When Tez learned of it.
    pub received_at: Timestamp,
    /// Grows with every object: the order in which they came.
    pub arrival: i64,
    /// Its road; `None` if it was found on disk after a crash.
    pub channel: Option<Channel>,
    /// Who sent it; empty if it was found on disk after a crash.
    pub peer: String,
    /// New or in conflict (a duplicate has no row of its own).
    pub receipt: Receipt,
    /// Why it cannot be read.
    pub refusal: Option<Reason>,
}

/// What the reading of kept files has to know of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownObject {
    /// SOP instance, by the sender.
    pub sop_instance_uid: Uid,
    /// Its study; `None` if its header cannot be read.
    pub study_uid: Option<Uid>,
    /// It was found damaged or gone before.
    pub is_damaged: bool,
}

/// A kept object that cannot be read: its study lacks it, but it is not lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableObject {
    /// What its sender called it.
    pub sop_instance_uid: Uid,
    /// The study under which it stands in the worklist: its own, or one made for objects that do
    /// not say theirs.
    pub study_uid: Option<Uid>,
    /// Where its bytes are kept, inside the data folder.
    pub path: PathBuf,
    /// Hash of its data set.
    pub content: ContentHash,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// When it came.
    pub received_at: Timestamp,
    /// Who sent it.
    pub peer: String,
    /// Why it cannot be read.
    pub reason: Reason,
}

/// A file that a start found and no row names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Where it lies.
    pub path: PathBuf,
    /// When it was written.
    pub came_at: Timestamp,
}

/// The objects, for reading.
#[derive(Clone, Copy, Debug)]
pub struct Objects<'a>(pub(super) &'a State);

impl Objects<'_> {
    /// The newest kept objects that cannot be read, newest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn unreadable(self, scope: Scope) -> Result<Vec<UnreadableObject>, StateError> {
        let query = scope.of(
            "SELECT * FROM objects WHERE refusal IS NOT NULL ORDER BY received_at DESC LIMIT $1",
        );
        let rows = self.0.rows(sqlx::query(query).bind(LIST_ROWS_MAX)).await?;
        State::readable(&rows, unreadable_object)
    }

    /// How many kept objects cannot be read.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn unreadable_count(self, scope: Scope) -> Result<i64, StateError> {
        let query = scope.of("SELECT COUNT(*) FROM objects WHERE refusal IS NOT NULL");
        self.0.count(query).await
    }

    /// The contents that are kept under SOP Instance UID `uid`, the first that came first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn contents_of(self, uid: &Uid) -> Result<Vec<ContentHash>, StateError> {
        let query = sqlx::query(
            "SELECT content FROM objects WHERE sop_instance_uid = $1 ORDER BY arrival, path",
        )
        .bind(uid.as_str());
        let rows = self.0.rows(query).await?;
        State::readable(&rows, content)
    }

    /// The files of a study's objects, in the order in which they came.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn paths_of(self, uid: &Uid) -> Result<Vec<PathBuf>, StateError> {
        let query =
            sqlx::query("SELECT path FROM objects WHERE study_uid = $1 ORDER BY arrival, path")
                .bind(uid.as_str());
        let rows = self.0.rows(query).await?;
        rows.iter().map(|row| self.path(row)).collect()
    }

    /// How many kept files are known to be damaged or gone.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn damages(self) -> Result<i64, StateError> {
        self.0.count("SELECT COUNT(*) FROM damages").await
    }

    /// The objects below `objects/<first as two hexadecimal digits>/`, by their files.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn in_folder(self, first: u8) -> Result<BTreeMap<PathBuf, KnownObject>, StateError> {
        let query = sqlx::query(
            "SELECT objects.path, objects.sop_instance_uid, objects.study_uid, damages.kind
             FROM objects LEFT JOIN damages ON damages.path = objects.path
             WHERE objects.folder = $1",
        )
        .bind(folder_name(first));
        let known = |row: &AnyRow| {
            let object = KnownObject {
                sop_instance_uid: uid(row, "sop_instance_uid")?,
                study_uid: uid_if_any(row, "study_uid")?,
                is_damaged: text_if_any(row, "kind")?.is_some(),
            };
            Ok((self.path(row)?, object))
        };
        let rows = self.0.rows(query).await?;
        Ok(State::readable(&rows, known)?.into_iter().collect())
    }

    /// The files below the same folder whose objects have a row and a study. Others were unreadable
    /// for an older Tez.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn files_in_folder(self, first: u8) -> Result<BTreeSet<PathBuf>, StateError> {
        let query =
            sqlx::query("SELECT path FROM objects WHERE folder = $1 AND study_uid IS NOT NULL")
                .bind(folder_name(first));
        let rows = self.0.rows(query).await?;
        rows.iter().map(|row| self.path(row)).collect()
    }

    /// Whether there is a row of any object.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn are_known(self) -> Result<bool, StateError> {
        let known = self
            .0
            .count("SELECT COUNT(*) FROM (SELECT path FROM objects LIMIT 1) AS first");
        Ok(known.await? > 0)
    }

    /// The first files that were found and not read yet, in the order in which they were written.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn found(self, files_max: i64) -> Result<Vec<FoundFile>, StateError> {
        let query = sqlx::query("SELECT * FROM found_files ORDER BY came_at, path LIMIT $1")
            .bind(files_max);
        let found = |row: &AnyRow| {
            Ok(FoundFile {
                path: self.path(row)?,
                came_at: time(row, "came_at")?,
            })
        };
        self.0.rows(query).await?.iter().map(found).collect()
    }

    fn path(self, row: &AnyRow) -> Result<PathBuf, StateError> {
        Ok(self.0.data_dir.join(text(row, "path")?))
    }
}

impl State {
    /// The files at `paths` are whole again.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn mended(&self, paths: &[PathBuf]) -> Result<(), StateError> {
        let changes = super::Changes {
            mended: paths.to_vec(),
            ..super::Changes::default()
        };
        self.write(&changes).await
    }
}

impl Transaction {
    /// Adds an object. One whose path is known is left as it is, unless it has no study yet.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn add_object(&mut self, object: &ObjectRow) -> Result<(), StateError> {
        let refusal = object.refusal.as_ref().map(serde_json::to_string);
        let path = self.stored_path(&object.path);
        Record::of("objects")
            .set("folder", path.get(8..10).unwrap_or_default())
            .set("path", path)
            .set("content", object.content.to_hex())
            .set("sop_instance_uid", &object.sop_instance_uid)
            .set("sop_class_uid", object.sop_class_uid.as_ref())
            .set("transfer_syntax_uid", object.transfer_syntax_uid.as_ref())
            .set("study_uid", object.study_uid.as_ref())
            .set("series_uid", object.series_uid.as_ref())
            .set("bytes", i64::try_from(object.bytes).unwrap_or(i64::MAX))
            .set("received_at", object.received_at)
            .set("arrival", object.arrival)
            .set("channel", object.channel.map(Channel::as_str))
            .set("peer", object.peer.as_str())
            .set("receipt", object.receipt.as_str())
            .set("refusal", refusal.transpose()?)
            .write(self, OnConflict::Otherwise(COMPLETE_OBJECT))
            .await?;
        self.forget_found(&object.path).await
    }

    /// Remembers files that a start found, to be read in their turn.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn add_found(&mut self, file: &FoundFile) -> Result<(), StateError> {
        Record::of("found_files")
            .set("path", self.stored_path(&file.path))
            .set("came_at", file.came_at)
            .write(self, OnConflict::Replace(&["path"]))
            .await?;
        Ok(())
    }

    /// The file at `path` was found and is gone again, or was read.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn forget_found(&mut self, path: &Path) -> Result<(), StateError> {
        let query = sqlx::query("DELETE FROM found_files WHERE path = $1");
        self.run(query.bind(self.stored_path(path))).await?;
        Ok(())
    }

    /// The file at `path` is whole again.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn mend(&mut self, path: &Path) -> Result<(), StateError> {
        let query = sqlx::query("DELETE FROM damages WHERE path = $1");
        self.run(query.bind(self.stored_path(path))).await?;
        Ok(())
    }

    /// A kept file is damaged or gone, as `problem` says in words and `kind` in one.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn add_damage(&mut self, problem: &Problem, kind: &str) -> Result<(), StateError> {
        let path = problem.path.as_deref().unwrap_or(Path::new(""));
        Record::of("damages")
            .set("path", self.stored_path(path))
            .set("study_uid", problem.study_uid.as_ref())
            .set("kind", kind)
            .set("found_at", problem.at)
            .write(self, OnConflict::Otherwise("ON CONFLICT (path) DO NOTHING"))
            .await?;
        self.add_problem(problem).await
    }
}

const COMPLETE_OBJECT: &str = "ON CONFLICT (path) DO UPDATE SET
        sop_class_uid = excluded.sop_class_uid,
        transfer_syntax_uid = excluded.transfer_syntax_uid,
        study_uid = excluded.study_uid, series_uid = excluded.series_uid,
        refusal = excluded.refusal
    WHERE objects.study_uid IS NULL";

fn folder_name(first: u8) -> String {
    format!("{first:02x}")
}

fn content(row: &AnyRow) -> Result<ContentHash, StateError> {
    let hex = text(row, "content")?;
    ContentHash::from_hex(&hex).ok_or_else(|| bad_row("content", &hex))
}

fn unreadable_object(row: &AnyRow) -> Result<UnreadableObject, StateError> {
    Ok(UnreadableObject {
        sop_instance_uid: uid(row, "sop_instance_uid")?,
        study_uid: uid_if_any(row, "study_uid")?,
        path: text(row, "path")?.into(),
        content: content(row)?,
        bytes: u64::try_from(integer(row, "bytes")?).unwrap_or(0),
        received_at: time(row, "received_at")?,
        peer: text(row, "peer")?,
        reason: reason(row, "refusal")?,
    })
}
