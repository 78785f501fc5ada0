//! Runs the service as a stranger would: the real binary, real ports, a folder of its own.
//!
//! The tests below `tests/tests/` speak to it only from outside: DICOM, HTTP, signals, files.

pub mod peers;
pub mod sender;
pub mod service;
