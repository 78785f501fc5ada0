//! The user: sends objects to another application entity by C-STORE, as they are (PS3.4 annex B).
//!
//! [`ScuAssociation`] is one association, for whoever has data sets; [`send_files`] sends Part 10
//! files. Both block: a caller on the async edge gives them a thread of their own.

mod association;
mod files;

pub use association::{Answer, AssociateError, ExchangeError, ObjectHead, ScuAssociation};
pub use files::{ScuError, Sent, send_files};

pub use crate::negotiation::requestor::{CONTEXTS_MAX, Proposal};

/// Where to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and port, such as `127.0.0.1:11112`.
    pub address: String,
    /// The peer's AE title.
    pub called_ae: String,
    /// Our AE title.
    pub calling_ae: String,
}
