//! DICOM's network protocol: associations (PS3.8) and the messages within them (PS3.7).
//!
//! Two roles stand on one protocol. [`scp`] waits for associations and hands what they bring to a
//! service; [`scu`] asks for an association and sends. Both read and write PDUs through `wire`,
//! command sets through `command`, whole messages through `message`, and agree on presentation
//! contexts in `negotiation`; no other place does any of these.
//!
//! Everything within an association blocks: it is one long read from a socket and one long write
//! to a file, with few system calls. Only the listener of [`scp::serve`] is async.
//!
//! This crate does not know where objects go, nor where its limits come from: see
//! [`scp::StorageService`] and [`WireLimits`].

mod command;
mod limits;
mod message;
mod negotiation;
mod pdu;
pub mod scp;
pub mod scu;
mod status;
mod wire;

pub use limits::WireLimits;
pub use status::{Failure, Status};
pub use wire::{Breach, WireError};

/// A title or UID from outside, fit for a log line: no control characters, 64 characters at most.
fn shown(text: &str) -> String {
    let legible = |character: char| {
        if character.is_control() {
            '\u{fffd}'
        } else {
            character
        }
    };
    text.trim_end_matches(['\0', ' '])
        .chars()
        .map(legible)
        .take(64)
        .collect()
}
