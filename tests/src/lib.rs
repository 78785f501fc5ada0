//! Runs the service as a stranger would: the real binary, real ports, a folder of its own.
//!
//! Most tests below `tests/tests/` speak to it only from outside: DICOM, HTTP, signals, files. Where many
//! studies are read, the same path runs in the test's process ([`shipped`]).

pub mod mishaps;
pub mod peers;
pub mod random;
pub mod sender;
pub mod service;
pub mod shipped;
