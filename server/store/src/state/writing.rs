//! A transaction whose failure costs its connection.
//!
//! SQLite rolls some failed statements back by itself and others not (a full disk, an I/O error;
//! <https://sqlite.org/lang_transaction.html>, section 3), so that a connection may be left within a
//! transaction, holding the one lock for writing, while the pool believes it to be free. Nobody else
//! could write then until Tez ends. So a connection goes back to the pool only after a commit that
//! succeeded; any other is closed, which rolls back and lets go of every lock.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool};

use super::{State, StateError, try_connecting};

/// A transaction. Dropped before [`Writing::commit`], nothing of it was written.
pub(super) struct Writing {
    /// Taken when the transaction has ended well.
    connection: Option<PoolConnection<Any>>,
}

const HELD: &str = "held until the transaction ends";

impl Writing {
    /// Begins on a connection of `pool`, one of those of `state`.
    pub(super) async fn begin(state: &State, pool: &AnyPool) -> Result<Self, StateError> {
        let connection = match pool.acquire().await {
            Err(sqlx::Error::PoolTimedOut) => {
                try_connecting(&state.url).await?;
                return Err(sqlx::Error::PoolTimedOut.into());
            }
            acquired => acquired?,
        };
        let mut writing = Self {
            connection: Some(connection),
        };
        sqlx::raw_sql("BEGIN").execute(&mut *writing).await?;
        Ok(writing)
    }

    /// Ends it; only now its connection is used again.
    pub(super) async fn commit(mut self) -> Result<(), StateError> {
        sqlx::raw_sql("COMMIT").execute(&mut *self).await?;
        drop(self.connection.take());
        Ok(())
    }
}

impl Deref for Writing {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        self.connection.as_ref().expect(HELD)
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect(HELD)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.close_on_drop();
        }
    }
}
