//! What tests of several modules need.

use std::path::Path;

use fixtures::scratch_database;
use store::state::{Database, State};

/// The state of a test with the data folder `folder`.
pub(crate) async fn open_state(folder: &Path) -> State {
    let database = scratch_database::url(folder).map_or(Database::Embedded, Database::Postgres);
    State::open(&database, folder).await.unwrap()
}
