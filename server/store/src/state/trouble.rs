//! What is wrong with the database now, and what an administrator does about it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};

use super::StateError;

/// What keeps the database from its work. All but [`Trouble::Damaged`] pass by themselves once
/// their cause is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The disk has no room.
    Full,
    /// Another program holds it.
    Locked,
    /// The data folder, or the files of the database in it, cannot be written or opened.
    NotWritable,
    /// Its bytes are not those that were written.
    Damaged,
    /// PostgreSQL does not answer.
    Unreachable,
    /// The disk fails, or something else.
    Failing,
}

impl Trouble {
    /// What `error` says of the database as a whole; `None` where only a statement or a row is at
    /// fault.
    pub fn of(error: &StateError) -> Option<Self> {
        match error {
            StateError::Damaged(_) => Some(Self::Damaged),
            StateError::Migration { cause, .. } => match cause {
                sqlx::migrate::MigrateError::Execute(cause) => of_sqlx(cause),
                _ => None,
            },
            StateError::Database(cause) => of_sqlx(cause),
            StateError::File { .. } => Some(Self::NotWritable),
            StateError::PathNotUtf8(_) | StateError::BadRow { .. } | StateError::Json(_) => None,
        }
    }

    /// The trouble in one word, for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Locked => "locked",
            Self::NotWritable => "not_writable",
            Self::Damaged => "damaged",
            Self::Unreachable => "unreachable",
            Self::Failing => "failing",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Full => {
                "The disk is full: studies are not kept up to date and no new result is shown. \
                 Make room on the disk of the database; Tez then goes on by itself."
            }
            Self::Locked => {
                "Another program holds the database locked: studies are not kept up to \
                 date and no new result is shown. End that program; Tez then goes on by itself."
            }
            Self::NotWritable => {
                "The database cannot be written: studies are not kept up to date and no new \
                 result is shown. Give Tez's user the right to write there, and see whether the \
                 disk or the server became read-only; Tez then goes on by itself."
            }
            Self::Damaged => DAMAGED,
            Self::Unreachable => {
                "PostgreSQL (database.url) does not answer: studies are not kept up to date and no \
                 new result is shown. See whether it runs and lets Tez in; Tez then goes on by \
                 itself."
            }
            Self::Failing => {
                "The disk of the database fails: studies are not kept up to date and no new \
                 result is shown. The log says what the system says; Tez goes on by itself when \
                 it can."
            }
        })
    }
}

/// What is done about a damaged database.
pub(super) const DAMAGED: &str = "The database tez.sqlite is damaged. Every received object is safe in \
     its own file. Stop Tez, move tez.sqlite, tez.sqlite-wal and tez.sqlite-shm out of the data \
     folder, and start Tez: it makes the database again from the objects, in the order in which \
     they came, and analyses them again, the newest first.";

fn of_sqlx(error: &sqlx::Error) -> Option<Trouble> {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code()?;
            // SQLSTATE has five characters, SQLite's codes are numbers of up to four digits.
            if code.len() == 5 {
                of_sqlstate(&code)
            } else {
                of_sqlite(code.parse().ok()?)
            }
        }
        sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::PoolClosed => None,
        // SQLite reports its own as errors of the database: this is a socket.
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
            Some(Trouble::Unreachable)
        }
        _ => Some(Trouble::Failing),
    }
}

/// By the primary result code, the low byte of the extended one.
fn of_sqlite(code: u32) -> Option<Trouble> {
    match code & 0xff {
        5 | 6 => Some(Trouble::Locked),       // SQLITE_BUSY, SQLITE_LOCKED
        8 | 14 => Some(Trouble::NotWritable), // SQLITE_READONLY, SQLITE_CANTOPEN
        11 | 26 => Some(Trouble::Damaged),    // SQLITE_CORRUPT, SQLITE_NOTADB
        13 => Some(Trouble::Full),            // SQLITE_FULL
        1 | 18 | 19 | 20 | 25 => None,        // of the statement
        _ => Some(Trouble::Failing),          // SQLITE_IOERR and the rest
    }
}

/// PostgreSQL's manual, appendix A: by the class, the first two characters, but for a few.
fn of_sqlstate(code: &str) -> Option<Trouble> {
    match (code.get(..2)?, code) {
        (_, "53100") => Some(Trouble::Full), // disk_full
        (_, "25006" | "42501") => Some(Trouble::NotWritable), // read_only_sql_transaction, insufficient_privilege
        (_, "55P03") => Some(Trouble::Locked),                // lock_not_available
        // Connections, authorisation, too many of them, the end of the server, no such database.
        ("08" | "28" | "53" | "57" | "3D", _) => Some(Trouble::Unreachable),
        // Deadlocks, I/O errors, damaged files.
        ("40" | "58" | "XX", _) => Some(Trouble::Failing),
        _ => None, // of the statement
    }
}

/// What is known of the database's health. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    /// What the last write met.
    writing: Option<Trouble>,
    /// A damaged page stays one until the file is replaced, whatever else can be written.
    damaged: bool,
}

impl Condition {
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let facts = self.facts();
        if facts.damaged {
            return Some(Trouble::Damaged);
        }
        facts.writing
    }

    pub(super) fn wrote<T>(&self, result: &Result<T, StateError>) {
        let trouble = result.as_ref().err().and_then(Trouble::of);
        if result.is_ok() || trouble.is_some() {
            self.facts().writing = trouble;
        }
        self.note(trouble);
    }

    pub(super) fn read<T>(&self, result: &Result<T, StateError>) {
        self.note(result.as_ref().err().and_then(Trouble::of));
    }

    fn note(&self, trouble: Option<Trouble>) {
        if let Some(trouble) = trouble {
            counter!("tez_database_failures_total", "why" => trouble.label()).increment(1);
        }
        if trouble == Some(Trouble::Damaged) {
            self.facts().damaged = true;
        }
        gauge!("tez_database_ok").set(f64::from(u8::from(self.trouble().is_none())));
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
