//! A head volume → findings → an order.
//!
//! The only crate that names `ort`, and only in [`runtime`]. Deterministic: the same bytes, model
//! hash and settings give the same findings, whatever the number of threads.

pub mod analysis;
pub mod artefacts;
pub mod card;
pub mod findings;
pub mod output;
pub mod report;
pub mod runtime;
pub mod triage;

#[cfg(test)]
pub(crate) mod testing;
