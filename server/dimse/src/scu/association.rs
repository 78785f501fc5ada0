//! One association that we ask for, and the objects that go over it.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use dicom_ul::pdu::{AssociationRJ, AssociationRJResult, Pdu};
use pipeline::uid::Uid;

use super::{Destination, Proposal};
use crate::command::{CommandField, Request, Response};
use crate::limits::WireLimits;
use crate::message::{
    Route, SendError, malformed_command, read_command, send_with_data_set, skip_data_set,
};
use crate::negotiation::requestor::{Granted, Proposed, Titles};
use crate::pdu::{Fragment, encode, fragment_bytes_max};
use crate::status::Status;
use crate::wire::{Next, Wire, WireError};

/// How long to wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long to wait for the peer to take or send bytes; a peer may sync to a slow disk first.
const SILENCE_TIME_MAX: Duration = Duration::from_mins(1);
/// Limits of what the peer sends: short answers, each expected soon.
const LIMITS: WireLimits = WireLimits {
    pdu_bytes_max: 16 << 10,
    command_bytes_max: 64 << 10,
    establish_time_max: SILENCE_TIME_MAX,
    idle_time_max: SILENCE_TIME_MAX,
    data_set_bytes_per_second_min: 0,
    stop_time_max: Duration::ZERO,
};

/// What a C-STORE request says of its object (PS3.7 section 9.1.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Its SOP class, and the transfer syntax of its data set.
    pub proposal: Proposal,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
}

/// What a peer answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status; see [`Status::means_stored`].
    pub status: Status,
    /// The peer's own words, if it sent any.
    pub comment: String,
}

/// Why there is no association.
#[derive(Debug, thiserror::Error)]
pub enum AssociateError {
    /// No connection.
    #[error("no connection: {0}")]
    Unreachable(#[source] io::Error),
    /// The peer rejected it (PS3.8 section 9.3.4).
    #[error("rejected{}: {reason}", if *.is_permanent { "" } else { " for now" })]
    Rejected {
        /// Whether the same request would be rejected again.
        is_permanent: bool,
        /// The peer's reason.
        reason: String,
    },
    /// The peer takes no SOP class in the transfer syntax that was proposed with it.
    #[error("the peer accepted no presentation context")]
    NothingAccepted,
    /// It broke off before it was established.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Why the fate of an object is unknown. The association must be given to
/// [`ScuAssociation::abort`] then.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The association broke off.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The data set could not be read to its end.
    #[error("the data set cannot be read: {0}")]
    Source(#[source] io::Error),
    /// No presentation context was accepted for it: see [`ScuAssociation::takes`].
    #[error("the peer takes no such object")]
    NotNegotiated,
    /// The peer asked for the release instead of answering.
    #[error("the peer wants to release without answering")]
    Unanswered,
    /// The peer answered something else (PS3.7 section 9.3.1.2).
    #[error("message {message_id} was answered by command {field:#06x} for message {answered}")]
    Mismatched {
        /// Message ID of the request.
        message_id: u16,
        /// Command Field of the answer.
        field: u16,
        /// Message ID Being Responded To of the answer.
        answered: u16,
    },
}

impl From<SendError> for ExchangeError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Wire(error) => Self::Wire(error),
            SendError::Source(error) => Self::Source(error),
        }
    }
}

/// An association that we asked for. Dropped, its connection is closed without a word.
#[derive(Debug)]
pub struct ScuAssociation {
    wire: Wire,
    granted: Granted,
    last_message_id: u16,
}

impl ScuAssociation {
    /// Asks the peer for an association in which objects of `proposals` may be sent: no more than
    /// [`CONTEXTS_MAX`](super::CONTEXTS_MAX); the rest of them is not proposed.
    ///
    /// # Errors
    ///
    /// [`AssociateError`]: no connection within 10 seconds, no answer within 60, a rejection, or an
    /// answer that accepts nothing.
    pub fn open(to: &Destination, proposals: &BTreeSet<Proposal>) -> Result<Self, AssociateError> {
        let stream = connect(&to.address).map_err(AssociateError::Unreachable)?;
        let mut wire = Wire::new(stream, LIMITS, None).map_err(AssociateError::Unreachable)?;
        match agree(&mut wire, to, proposals) {
            Ok(granted) => Ok(Self {
                wire,
                granted,
                last_message_id: 0,
            }),
            Err(error) => {
                match &error {
                    AssociateError::NothingAccepted => wire.abort_by_user(),
                    AssociateError::Wire(error) => wire.abort(error),
                    AssociateError::Unreachable(_) | AssociateError::Rejected { .. } => {}
                }
                Err(error)
            }
        }
    }

    /// Whether the peer accepted `proposal`.
    pub fn takes(&self, proposal: &Proposal) -> bool {
        self.granted.contexts.contains_key(proposal)
    }

    /// Sends an object and waits for the answer. `data_set` goes out byte for byte.
    ///
    /// # Errors
    ///
    /// [`ExchangeError`]. An object that the peer refuses is no error here: see [`Answer`].
    pub fn store(
        &mut self,
        head: &ObjectHead,
        data_set: impl Read,
    ) -> Result<Answer, ExchangeError> {
        let context_id = *self
            .granted
            .contexts
            .get(&head.proposal)
            .ok_or(ExchangeError::NotNegotiated)?;
        self.last_message_id = self.last_message_id.checked_add(1).unwrap_or(1);
        let request = Request {
            field: CommandField::C_STORE_RQ,
            message_id: self.last_message_id,
            sop_class_uid: head.proposal.sop_class_uid.to_string(),
            sop_instance_uid: head.sop_instance_uid.to_string(),
            has_data_set: true,
        };
        let route = Route {
            context_id,
            fragment_bytes_max: fragment_bytes_max(self.granted.peer_pdu_bytes_max),
        };
        send_with_data_set(&mut self.wire, route, &request.set(), data_set)?;
        match self.wire.next_message()? {
            Next::Fragment(first) => self.answer(first, &request),
            Next::ReleaseRequest => Err(ExchangeError::Unanswered),
            Next::ReleaseResponse => Err(WireError::unexpected("a PDU of another state").into()),
        }
    }

    fn answer(&mut self, first: Fragment, request: &Request) -> Result<Answer, ExchangeError> {
        let set = read_command(&mut self.wire, first)?;
        if set.has_data_set() == Some(true) {
            skip_data_set(&mut self.wire, first.context_id)?;
        }
        let response = Response::read(&set).ok_or_else(malformed_command)?;
        answer_to(request, response)
    }

    /// Releases the association (PS3.8 section 7.2).
    ///
    /// # Errors
    ///
    /// A [`WireError`] if the peer does not release it. What it has answered stands all the same.
    pub fn release(mut self) -> Result<(), WireError> {
        self.wire.send(&encode(&Pdu::ReleaseRQ))?;
        match self.wire.next_message()? {
            Next::ReleaseResponse => Ok(()),
            Next::ReleaseRequest => Err(WireError::unexpected("both sides asked for the release")),
            Next::Fragment(_) => Err(WireError::unexpected("a message to nothing that was asked")),
        }
    }

    /// Ends the association because of `error`, with an A-ABORT where one is owed to the peer
    /// (PS3.8 section 7.3): an object that was sent in part must not pass for whole.
    pub fn abort(self, error: &ExchangeError) {
        match error {
            ExchangeError::Wire(error) => self.wire.abort(error),
            ExchangeError::Source(_)
            | ExchangeError::NotNegotiated
            | ExchangeError::Unanswered
            | ExchangeError::Mismatched { .. } => self.wire.abort_by_user(),
        }
    }
}

/// The first address of `host_and_port` that takes a connection.
fn connect(host_and_port: &str) -> io::Result<TcpStream> {
    let mut last_error = io::Error::other("the name has no address");
    for address in host_and_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIME_MAX) {
            Ok(stream) => return Ok(stream),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn agree(
    wire: &mut Wire,
    to: &Destination,
    proposals: &BTreeSet<Proposal>,
) -> Result<Granted, AssociateError> {
    let proposed = Proposed::new(proposals);
    let titles = Titles {
        calling: &to.calling_ae,
        called: &to.called_ae,
    };
    let request = proposed.request(titles, LIMITS.pdu_bytes_max);
    wire.send(&encode(&Pdu::AssociationRQ(request)))?;
    match wire.association_answer()? {
        Pdu::AssociationAC(acceptance) => {
            let granted = proposed.granted(&acceptance);
            if granted.contexts.is_empty() {
                return Err(AssociateError::NothingAccepted);
            }
            Ok(granted)
        }
        Pdu::AssociationRJ(AssociationRJ { result, source }) => Err(AssociateError::Rejected {
            is_permanent: result == AssociationRJResult::Permanent,
            reason: source.to_string(),
        }),
        _ => Err(WireError::unexpected("no answer to the request came first").into()),
    }
}

/// What `response` says, if it answers `request`.
fn answer_to(request: &Request, response: Response) -> Result<Answer, ExchangeError> {
    if response.field != request.field.response() || response.message_id != request.message_id {
        return Err(ExchangeError::Mismatched {
            message_id: request.message_id,
            field: response.field.code(),
            answered: response.message_id,
        });
    }
    Ok(Answer {
        status: response.status,
        comment: response.comment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(field: CommandField, message_id: u16) -> Request {
        Request {
            field,
            message_id,
            sop_class_uid: "1.2.3".to_owned(),
            sop_instance_uid: "2.25.7".to_owned(),
            has_data_set: true,
        }
    }

    #[test]
    fn an_answer_to_another_message_is_none() {
        let asked = request(CommandField::C_STORE_RQ, 3);
        let answer = |field, message_id| {
            let set = request(field, message_id).response(&Ok(()));
            answer_to(&asked, Response::read(&set).unwrap())
        };
        assert!(answer(CommandField::C_STORE_RQ, 3).is_ok());
        answer(CommandField::C_STORE_RQ, 4).expect_err("another message");
        answer(CommandField::C_ECHO_RQ, 3).expect_err("another command");
    }
}
