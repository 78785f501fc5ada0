//! What tests of several modules need.

use std::path::Path;

use pipeline::content::ContentHasher;
use store::state::{Database, State};

/// A URL with the word `DATABASE` for the database's name; `cargo xtask test` sets it to run the
/// tests on PostgreSQL.
const POSTGRES_VARIABLE: &str = "TEST_POSTGRES_URL";

/// Where a test with this data folder keeps its state, as `database.url` has it: in the folder, or
/// in a database of its own on the server that the environment names.
#[expect(clippy::disallowed_methods, reason = "a test, not the program")]
pub(crate) fn database_url(folder: &Path) -> Option<String> {
    let url = std::env::var(POSTGRES_VARIABLE).ok()?;
    let folder = folder.display().to_string();
    let name = ContentHasher::new(&folder).finish().to_hex();
    Some(url.replace("DATABASE", &format!("test_{}", &name[..16])))
}

pub(crate) async fn open_state(folder: &Path) -> State {
    let database = database_url(folder).map_or(Database::Embedded, Database::Postgres);
    State::open(&database, folder).await.unwrap()
}
