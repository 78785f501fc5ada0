//! A transaction: everything that is written is written in one, all of it or nothing.
//!
//! One that fails costs its connection. SQLite rolls some failed statements back by itself and
//! others not (a full disk, an I/O error; <https://sqlite.org/lang_transaction.html>, section 3), so
//! that a connection may be left within a transaction, holding the one lock for writing, while the
//! pool believes it to be free. Nobody else could write then until Tez ends. So a connection goes
//! back to the pool only after a commit that succeeded; any other is closed, which rolls back and
//! lets go of every lock.

use std::path::{Path, PathBuf};

use sqlx::any::AnyArguments;
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection};

use super::trouble::Condition;
use super::{State, StateError, stored_path};

/// What a transaction survives once it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process. A power cut may take the last ones: what they hold is read again from
    /// the object files.
    Process,
    /// A power cut.
    PowerCut,
}

/// Statements that are written together. Dropped before [`Transaction::commit`], none of them is.
#[derive(Debug)]
pub struct Transaction {
    /// Taken when the transaction has ended well.
    connection: Option<PoolConnection<Any>>,
    condition: Condition,
    data_dir: PathBuf,
}

const HELD: &str = "held until the transaction ends";

impl State {
    /// Begins a transaction. One at a time for each durability: others wait.
    ///
    /// # Errors
    ///
    /// [`StateError`]: the database does not answer, or is held by another program.
    pub async fn begin(&self, durability: Durability) -> Result<Transaction, StateError> {
        let begun = self.try_to_begin(durability).await;
        if begun.is_err() {
            self.condition.wrote(&begun);
        }
        begun
    }

    async fn try_to_begin(&self, durability: Durability) -> Result<Transaction, StateError> {
        let pool = match durability {
            Durability::Process => &self.writer,
            Durability::PowerCut => &self.result_writer,
        };
        let connection = match pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) => {
                self.database.try_connecting().await?;
                return Err(sqlx::Error::PoolTimedOut.into());
            }
            acquired => acquired?,
        };
        let mut transaction = Transaction {
            connection: Some(connection),
            condition: self.condition.clone(),
            data_dir: self.data_dir.clone(),
        };
        sqlx::raw_sql("BEGIN")
            .execute(transaction.connection())
            .await?;
        Ok(transaction)
    }
}

impl Transaction {
    /// Ends it; only now its connection is used again.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing of it was written.
    pub async fn commit(mut self) -> Result<(), StateError> {
        let ended = sqlx::raw_sql("COMMIT").execute(self.connection()).await;
        let ended = ended.map(drop).map_err(StateError::from);
        self.condition.wrote(&ended);
        ended?;
        drop(self.connection.take());
        Ok(())
    }

    /// How many rows `query` wrote.
    pub(super) async fn run(
        &mut self,
        query: Query<'_, Any, AnyArguments>,
    ) -> Result<u64, StateError> {
        let done = query.execute(self.connection()).await;
        let done = done.map_err(StateError::from);
        if done.is_err() {
            self.condition.wrote(&done);
        }
        Ok(done?.rows_affected())
    }

    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect(HELD)
    }

    /// See [`stored_path`].
    pub(super) fn stored_path(&self, path: &Path) -> String {
        stored_path(&self.data_dir, path)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close_on_drop();
        }
    }
}
