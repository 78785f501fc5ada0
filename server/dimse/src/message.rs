//! Messages: a command set, and a data set where it says so, in fragments (PS3.7 section 6.3 and
//! PS3.8 annex E).

use std::io::{self, BufRead, BufReader, Read};

use crate::command::CommandSet;
use crate::pdu::{Fragment, command_pdus, push_fragment};
use crate::wire::{Wire, WireError};

/// A data set that nobody takes is read to its end, to keep the association; but not for ever.
const PASSED_OVER_BYTES_MAX: u64 = 4 << 30;
/// What is read ahead of a data set that is being sent, bytes.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Where and how a message goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Presentation context.
    pub(crate) context_id: u8,
    /// Longest fragment that the peer takes, bytes.
    pub(crate) fragment_bytes_max: usize,
}

/// Why a message did not go out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The association broke off.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The data set could not be read to its end.
    #[error("the data set cannot be read: {0}")]
    Source(io::Error),
}

/// Joins a command set whose first fragment has come.
///
/// # Errors
///
/// A [`WireError`]: also where something else comes within it, where it is longer than
/// `command_bytes_max`, and where it is malformed.
pub(crate) fn read_command(wire: &mut Wire, first: Fragment) -> Result<CommandSet, WireError> {
    let bytes_max = wire.limits().command_bytes_max;
    let mut set = Vec::new();
    let mut fragment = first;
    loop {
        if !fragment.is_command || fragment.context_id != first.context_id {
            let what = "something else came within a command";
            return Err(WireError::unexpected(what));
        }
        while let Some(bytes) = wire.fragment_bytes()? {
            if set.len() + bytes.len() > bytes_max {
                return Err(WireError::invalid("a command set is too long"));
            }
            set.extend_from_slice(bytes);
        }
        if fragment.is_last {
            wire.command_is_whole();
            return CommandSet::decode(&set).ok_or_else(malformed_command);
        }
        fragment = wire.next_fragment()?;
    }
}

/// The command set lacks what it must say, or cannot be read.
pub(crate) fn malformed_command() -> WireError {
    WireError::invalid("a command set is malformed")
}

/// Reads a data set to its end and gives its bytes to `take` as they come.
///
/// # Errors
///
/// A [`WireError`]: also what `take` says, and where something else comes within it.
pub(crate) fn read_data_set(
    wire: &mut Wire,
    context_id: u8,
    mut take: impl FnMut(&[u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    loop {
        let fragment = wire.next_fragment()?;
        if fragment.is_command || fragment.context_id != context_id {
            let what = "something else came within a data set";
            return Err(WireError::unexpected(what));
        }
        while let Some(bytes) = wire.fragment_bytes()? {
            take(bytes)?;
        }
        if fragment.is_last {
            return Ok(());
        }
    }
}

/// Bytes of a data set that nobody takes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PassedOver {
    bytes: u64,
}

impl PassedOver {
    /// Passes over some more.
    ///
    /// # Errors
    ///
    /// A [`WireError`] if there is no end of them.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > PASSED_OVER_BYTES_MAX {
            let what = "a data set that was refused does not end";
            return Err(WireError::invalid(what));
        }
        Ok(())
    }
}

/// Passes over the data set of a message that needs none.
pub(crate) fn skip_data_set(wire: &mut Wire, context_id: u8) -> Result<(), WireError> {
    let mut passed_over = PassedOver::default();
    read_data_set(wire, context_id, |bytes| passed_over.add(bytes))
}

/// Sends a message without a data set.
pub(crate) fn send(wire: &mut Wire, route: Route, set: &CommandSet) -> Result<(), WireError> {
    let pdus = command_pdus(route.context_id, &set.encode(), route.fragment_bytes_max);
    wire.send(&pdus)
}

/// Sends a message with the data set that `source` holds, as it is.
///
/// # Errors
///
/// [`SendError::Source`] leaves the message unfinished: the association must be aborted then.
pub(crate) fn send_with_data_set(
    wire: &mut Wire,
    route: Route,
    set: &CommandSet,
    source: impl Read,
) -> Result<(), SendError> {
    let mut source = BufReader::with_capacity(READ_AHEAD_BYTES, source);
    // The command goes out in one write with the first piece of the data set.
    let mut pdus = command_pdus(route.context_id, &set.encode(), route.fragment_bytes_max);
    let mut piece = Vec::with_capacity(route.fragment_bytes_max);
    loop {
        piece.clear();
        let taken = source.by_ref().take(route.fragment_bytes_max as u64);
        read_whole(taken, &mut piece)?;
        let fragment = Fragment {
            context_id: route.context_id,
            is_command: false,
            is_last: source.fill_buf().map_err(SendError::Source)?.is_empty(),
        };
        push_fragment(&mut pdus, fragment, &piece);
        wire.send(&pdus)?;
        pdus.clear();
        if fragment.is_last {
            return Ok(());
        }
    }
}

fn read_whole(mut source: impl Read, piece: &mut Vec<u8>) -> Result<(), SendError> {
    source.read_to_end(piece).map_err(SendError::Source)?;
    Ok(())
}
