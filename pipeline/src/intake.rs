//! Bytes → [`Instance`]: the header of a stored object, read within limits.

use std::path::Path;

use crate::instance::Instance;
use crate::limits::Limits;
use crate::reason::Reason;

/// Why an object is kept but cannot be used, or is not taken at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", reason.text)]
pub struct Refusal {
    /// What is wrong, where, and what to do.
    pub reason: Reason,
}

/// Reads the header of the Part 10 file at `path`, up to the pixel data.
///
/// # Errors
///
/// [`Refusal`] for bytes that are not DICOM, end too soon, nest too deep or lack identifiers.
pub fn read_instance(path: &Path, limits: &Limits) -> Result<Instance, Refusal> {
    let _ = (path, limits);
    Err(Refusal {
        reason: Reason::new(crate::reason::ReasonCode::NotDicom, "not written yet"),
    })
}
