//! Tez's edge: DICOM and HTTP in, worklist and results out.
//!
//! The way of an object: [`scp`] or [`http`] → [`intake`] (bytes on disk, synced, acknowledged) →
//! [`studies`] (header read, study assembled) → [`worker`] (analysed) → [`store::state`] → [`http`]
//! (worklist, events).

pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod events;
pub mod health;
pub mod http;
pub mod inference;
pub mod intake;
pub mod scp;
pub mod scrub;
pub mod service;
pub mod studies;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod worker;
