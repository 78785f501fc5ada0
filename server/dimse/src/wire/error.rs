//! Why an association ends other than by its release.

use std::io;

use dicom_ul::pdu::{AbortRQServiceProviderReason as AbortReason, AbortRQSource};
use fairness::pace::TooSlow;

/// Why an association ends other than by its release.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer hung up.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer aborted.
    #[error("the peer aborted the association")]
    Aborted,
    /// The peer was silent too long.
    #[error("the peer was silent for too long")]
    Silent,
    /// The peer brought too little in its time.
    #[error(transparent)]
    Slow(#[from] TooSlow),
    /// The service stops.
    #[error("the service stops")]
    Stopping,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// What to tell it.
        breach: Breach,
        /// What to tell people.
        what: &'static str,
    },
    /// The network failed.
    #[error("the network failed: {0}")]
    Network(#[from] io::Error),
}

/// How a peer broke the protocol, as far as an A-ABORT can say it (PS3.8 table 9-26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// A PDU of an unknown type.
    UnrecognizedPdu,
    /// A PDU, or a message, that the state of the association does not allow.
    UnexpectedPdu,
    /// Fields that contradict each other or a limit.
    InvalidParameter,
}

impl WireError {
    /// A PDU that the state of the association does not allow.
    pub(crate) fn unexpected(what: &'static str) -> Self {
        let breach = Breach::UnexpectedPdu;
        Self::Protocol { breach, what }
    }

    /// A PDU whose fields contradict each other or a limit.
    pub(crate) fn invalid(what: &'static str) -> Self {
        let breach = Breach::InvalidParameter;
        Self::Protocol { breach, what }
    }

    /// Whom and what the A-ABORT names, where one is owed to the peer.
    pub(super) fn abort(&self) -> Option<AbortRQSource> {
        let by_provider = |reason| Some(AbortRQSource::ServiceProvider(reason));
        match self {
            Self::Closed | Self::Aborted | Self::Network(_) => None,
            Self::Stopping => Some(AbortRQSource::ServiceUser),
            Self::Silent | Self::Slow(_) => by_provider(AbortReason::ReasonNotSpecified),
            Self::Protocol { breach, .. } => by_provider(match breach {
                Breach::UnrecognizedPdu => AbortReason::UnrecognizedPdu,
                Breach::UnexpectedPdu => AbortReason::UnexpectedPdu,
                Breach::InvalidParameter => AbortReason::InvalidPduParameter,
            }),
        }
    }

    /// The error in one word, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Aborted => "aborted",
            Self::Silent => "silent",
            Self::Slow(_) => "slow",
            Self::Stopping => "stopping",
            Self::Protocol { .. } => "protocol",
            Self::Network(_) => "network",
        }
    }
}
