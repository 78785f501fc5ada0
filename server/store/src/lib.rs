//! What must outlive a restart: received objects as files ([`objects`]), and everything else in a
//! database ([`state`]), the only place with SQL.
//!
//! The files are the truth: what the database lacks is read again from them.

pub mod artefacts;
pub mod decoded;
pub mod objects;
pub mod private;
pub mod receipt;
pub mod state;
