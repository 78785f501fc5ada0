//! DICOM bytes → a head volume that a model can read.
//!
//! Blocking and deterministic: no network, no clock, no environment. The modules stand in the
//! order in which the data passes through them: [`header`] → [`assembly`] → [`series`] →
//! [`decode`] → [`volume`] → [`head`] → [`prepare`]; [`study`] leads it through.

pub mod assembly;
pub mod content;
pub mod decode;
mod direction;
pub mod head;
pub mod header;
pub mod instance;
pub mod limits;
pub mod patient;
pub mod prepare;
pub mod reason;
pub mod sealed;
pub mod series;
pub mod study;
pub mod uid;
pub mod unread;
pub mod volume;

#[cfg(test)]
pub(crate) mod testing;
