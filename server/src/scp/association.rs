//! One association, from its request to its end: verification and storage.

use std::net::{IpAddr, TcpStream};

use dicom_ul::pdu::Pdu;
use metrics::counter;
use pipeline::uid::Uid;
use tokio::sync::watch;

use super::command::{C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, Command};
use super::config::ScpConfig;
use super::negotiation::{Agreement, Context, Rejection, negotiate};
use super::wire::{Fragment, Next, Wire, WireError};
use super::{Seat, Seats};
use crate::intake::{Accepted, Claim, Incoming, Intake, IntakeError, Session};
use fairness::places::Places;
use store::objects::StoreError;
use store::receipt::Channel;

// Statuses of responses (PS3.7 annex C); those of storage are of PS3.4 table B.2-1.
const SUCCESS: u16 = 0x0000;
const INVALID_SOP_INSTANCE: u16 = 0x0117;
const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
const UNRECOGNIZED_OPERATION: u16 = 0x0211;
const CANNOT_UNDERSTAND: u16 = 0xC000;
/// A refused data set is read to its end, to keep the association; but not for ever.
const PASSED_OVER_BYTES_MAX: u64 = 4 << 30;
/// Shortest P-DATA-TF that we cut responses into, whatever the peer asks for, bytes.
const PEER_PDU_BYTES_MIN: usize = 128;
/// Head of a presentation data value, bytes.
const PDV_HEADER_BYTES: usize = 6;

/// Receives what `stream` brings until it ends. Blocks.
pub(super) fn serve(
    stream: TcpStream,
    address: IpAddr,
    door: &Door,
    shutdown: watch::Receiver<bool>,
) {
    let mut wire = match Wire::new(stream, &door.config, shutdown) {
        Ok(wire) => wire,
        Err(error) => return tracing::warn!(%error, "could not set up a DICOM connection"),
    };
    let address = address.to_canonical();
    match establish(&mut wire, address, door) {
        Ok(Ok(association)) => association.run(wire, address),
        Ok(Err(rejection)) => reject(wire, rejection),
        Err(error) => {
            counter!("tez_dicom_rejections_total", "reason" => error.label()).increment(1);
            tracing::info!(%address, %error, "a DICOM connection did not become an association");
            abort(wire, &error);
        }
    }
}

/// What every association needs.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) config: ScpConfig,
    pub(super) intake: Intake,
    pub(super) seats: Seats,
    /// Connections by address, those counted that have not become an association.
    pub(super) connections: Places,
}

#[derive(Debug)]
struct Association {
    exchange: Exchange,
    /// Held until the end: one of the associations that may be at once.
    _seat: Seat,
}

/// Waits for a request and decides on it. An acceptance is sent at once.
fn establish(
    wire: &mut Wire,
    address: IpAddr,
    door: &Door,
) -> Result<Result<Association, Rejection>, WireError> {
    let request = wire.association_request()?;
    let agreed = negotiate(&request, address, &door.config)
        .and_then(|agreement| Ok((agreement, door.seats.take(address)?)));
    let (agreement, seat) = match agreed {
        Ok(agreed) => agreed,
        Err(rejection) => {
            let calling_ae_title = shown(&request.calling_ae_title);
            let called_ae_title = shown(&request.called_ae_title);
            let reason = rejection.label;
            tracing::warn!(
                %address, calling_ae_title, called_ae_title, reason,
                "rejected a DICOM association"
            );
            return Ok(Err(rejection));
        }
    };
    wire.send(&encode(&Pdu::AssociationAC(agreement.acceptance.clone())))?;
    counter!("tez_dicom_associations_total").increment(1);
    Ok(Ok(Association {
        exchange: Exchange::new(agreement, door, (address, shown(&request.called_ae_title))),
        _seat: seat,
    }))
}

fn reject(wire: Wire, rejection: Rejection) {
    counter!("tez_dicom_rejections_total", "reason" => rejection.label).increment(1);
    if let Err(error) = wire.send_last(&encode(&Pdu::AssociationRJ(rejection.pdu))) {
        tracing::debug!(%error, "could not send the rejection");
    }
}

fn abort(wire: Wire, error: &WireError) {
    if let Some(source) = error.abort()
        && let Err(error) = wire.send_last(&encode(&Pdu::AbortRQ { source }))
    {
        tracing::debug!(%error, "could not send the abort");
    }
}

impl Association {
    fn run(mut self, mut wire: Wire, address: IpAddr) {
        let end = self.exchange.run(&mut wire);
        let calling_ae_title = self.exchange.peer.as_str();
        let (stored, refused) = (self.exchange.stored, self.exchange.refused);
        match end {
            Ok(()) => {
                tracing::info!(%address, calling_ae_title, stored, refused, "association released");
                // All objects are in: said to the assembly before the peer hears of it.
                if let Some(session) = self.exchange.session.take() {
                    session.finish();
                }
                if let Err(error) = wire.send_last(&encode(&Pdu::ReleaseRP)) {
                    tracing::debug!(%address, %error, "could not answer the release");
                }
            }
            Err(error) => {
                counter!("tez_dicom_aborts_total", "reason" => error.label()).increment(1);
                tracing::warn!(%address, calling_ae_title, stored, refused, %error, "association broke off");
                drop(self.exchange.session.take());
                abort(wire, &error);
            }
        }
    }
}

/// The messages of one association.
#[derive(Debug)]
struct Exchange {
    peer: String,
    /// For the log: whence, and whom it called.
    address: IpAddr,
    called_ae_title: String,
    agreement: Agreement,
    command_bytes_max: usize,
    intake: Intake,
    /// Opened with the first object: a verification is nothing that the assembly waits for.
    session: Option<Session>,
    stored: u64,
    refused: u64,
}

/// A status other than success, and a comment for the people at the other end.
struct Failure {
    status: u16,
    comment: String,
}

impl Failure {
    fn new(status: u16, comment: &str) -> Self {
        let comment = comment.to_owned();
        Self { status, comment }
    }
}

impl From<IntakeError> for Failure {
    fn from(error: IntakeError) -> Self {
        // The comment has 64 characters, and paths of ours are not for a peer's eyes.
        let comment = match &error {
            IntakeError::Store(StoreError::Full { .. }) => "The disk is full",
            IntakeError::Store(StoreError::TooLarge { .. }) => "The object exceeds the size limit",
            IntakeError::Store(_) => "The disk failed",
            IntakeError::Refused(refusal) => refusal.reason.text.as_str(),
            IntakeError::Busy => "Busy: send the object again later",
            IntakeError::Closing => "Stopping: send the object again later",
        };
        Self::new(error.dimse_status(), comment)
    }
}

impl Exchange {
    fn new(
        agreement: Agreement,
        door: &Door,
        (address, called_ae_title): (IpAddr, String),
    ) -> Self {
        Self {
            peer: agreement.calling_ae_title.clone(),
            address,
            called_ae_title,
            agreement,
            command_bytes_max: door.config.command_bytes_max,
            intake: door.intake.clone(),
            session: None,
            stored: 0,
            refused: 0,
        }
    }

    /// Answers messages until the peer asks for the release.
    fn run(&mut self, wire: &mut Wire) -> Result<(), WireError> {
        loop {
            match wire.next_message()? {
                Next::Release => return Ok(()),
                Next::Fragment(fragment) => self.message(wire, fragment)?,
            }
        }
    }

    fn message(&mut self, wire: &mut Wire, first: Fragment) -> Result<(), WireError> {
        let Some(context) = self.agreement.contexts.get(&first.context).cloned() else {
            return Err(WireError::invalid(
                "a presentation context that was not accepted",
            ));
        };
        let command = self.read_command(wire, first)?;
        let outcome = match command.field {
            C_CANCEL_RQ => return Ok(()),
            C_ECHO_RQ => {
                skip_data_set(wire, first.context, &command)?;
                Ok(())
            }
            C_STORE_RQ => self.store(wire, first.context, &context, &command)?,
            _ if command.is_response() => {
                return Err(WireError::unexpected(
                    "a response to nothing that was asked",
                ));
            }
            _ => {
                skip_data_set(wire, first.context, &command)?;
                let comment = "Only C-ECHO and C-STORE are provided";
                Err(Failure::new(UNRECOGNIZED_OPERATION, comment))
            }
        };
        self.answer(wire, first.context, &command, &outcome)
    }

    /// Joins a command set, which may come in several fragments.
    fn read_command(&self, wire: &mut Wire, first: Fragment) -> Result<Command, WireError> {
        let mut set = Vec::new();
        let mut fragment = first;
        loop {
            if !fragment.is_command || fragment.context != first.context {
                return Err(WireError::unexpected(
                    "something else came within a command",
                ));
            }
            while let Some(bytes) = wire.fragment_bytes()? {
                if set.len() + bytes.len() > self.command_bytes_max {
                    return Err(WireError::invalid("a command set is too long"));
                }
                set.extend_from_slice(bytes);
            }
            if fragment.is_last {
                wire.command_is_whole();
                return Command::read(&set).ok_or(WireError::invalid("a command set is malformed"));
            }
            fragment = wire.next_fragment()?;
        }
    }

    fn store(
        &mut self,
        wire: &mut Wire,
        context_id: u8,
        context: &Context,
        command: &Command,
    ) -> Result<Result<(), Failure>, WireError> {
        let begun = self.begin(context, command);
        if !command.has_data_set {
            let failure = Failure::new(CANNOT_UNDERSTAND, "C-STORE without a data set");
            let failure = begun.err().unwrap_or(failure);
            self.refused += 1;
            self.log_refusal(command, &failure);
            return Ok(Err(failure));
        }
        let mut arriving = Arriving::new(begun);
        read_data_set(wire, context_id, &mut arriving)?;
        match arriving.commit() {
            Ok(_accepted) => {
                self.stored += 1;
                Ok(Ok(()))
            }
            Err(failure) => {
                self.refused += 1;
                self.log_refusal(command, &failure);
                Ok(Err(failure))
            }
        }
    }

    fn log_refusal(&self, command: &Command, failure: &Failure) {
        tracing::warn!(
            address = %self.address,
            calling_ae_title = shown(&self.peer),
            called_ae_title = self.called_ae_title,
            sop_instance_uid = shown(&command.sop_instance_uid),
            status = format!("{:04x}", failure.status),
            comment = failure.comment,
            "refused an object"
        );
    }

    fn begin(&mut self, context: &Context, command: &Command) -> Result<Incoming, Failure> {
        if !context.is_storage {
            let comment = "C-STORE in a verification context";
            return Err(Failure::new(SOP_CLASS_NOT_SUPPORTED, comment));
        }
        let uid =
            |text: &str, status, comment| Uid::new(text).map_err(|_| Failure::new(status, comment));
        let claim = Claim {
            sop_class_uid: uid(
                &command.sop_class_uid,
                SOP_CLASS_NOT_SUPPORTED,
                "Affected SOP Class UID is missing or is not a UID",
            )?,
            sop_instance_uid: uid(
                &command.sop_instance_uid,
                INVALID_SOP_INSTANCE,
                "Affected SOP Instance UID is missing or is not a UID",
            )?,
            transfer_syntax_uid: context.transfer_syntax_uid.clone(),
        };
        Ok(self.session()?.begin(claim)?)
    }

    fn session(&mut self) -> Result<&Session, IntakeError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.intake.session(Channel::Dimse, self.peer.clone())?,
        };
        Ok(self.session.insert(session))
    }

    fn answer(
        &self,
        wire: &mut Wire,
        context: u8,
        command: &Command,
        outcome: &Result<(), Failure>,
    ) -> Result<(), WireError> {
        let set = match outcome {
            Ok(()) => command.response(SUCCESS, None),
            Err(failure) => command.response(failure.status, Some(&failure.comment)),
        };
        let peer_pdu_bytes_max = usize::try_from(self.agreement.peer_pdu_bytes_max)
            .ok()
            .filter(|bytes| *bytes != 0)
            .unwrap_or(usize::MAX);
        wire.send(&pdata(context, &set, peer_pdu_bytes_max))
    }
}

/// A title or UID from outside, fit for a log line.
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

/// An object as it arrives; once refused, its bytes are passed over.
struct Arriving {
    object: Result<Incoming, Failure>,
    passed_over_bytes: u64,
}

impl Arriving {
    fn new(object: Result<Incoming, Failure>) -> Self {
        Self {
            object,
            passed_over_bytes: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        match &mut self.object {
            Ok(incoming) => {
                if let Err(error) = incoming.write(bytes) {
                    self.object = Err(error.into());
                }
            }
            Err(_) => self.passed_over_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }
        if self.passed_over_bytes > PASSED_OVER_BYTES_MAX {
            return Err(WireError::invalid(
                "a data set that was refused does not end",
            ));
        }
        Ok(())
    }

    fn commit(self) -> Result<Accepted, Failure> {
        Ok(self.object?.commit()?)
    }
}

/// Reads a data set, which may come in many fragments, to its end.
fn read_data_set(wire: &mut Wire, context: u8, object: &mut Arriving) -> Result<(), WireError> {
    loop {
        let fragment = wire.next_fragment()?;
        if fragment.is_command || fragment.context != context {
            return Err(WireError::unexpected(
                "something else came within a data set",
            ));
        }
        while let Some(bytes) = wire.fragment_bytes()? {
            object.take(bytes)?;
        }
        if fragment.is_last {
            return Ok(());
        }
    }
}

/// Passes over the data set of a message that needs none.
fn skip_data_set(wire: &mut Wire, context: u8, command: &Command) -> Result<(), WireError> {
    if !command.has_data_set {
        return Ok(());
    }
    let nothing = Err(Failure::new(UNRECOGNIZED_OPERATION, ""));
    read_data_set(wire, context, &mut Arriving::new(nothing))
}

/// The PDU as bytes. One that cannot be encoded becomes an abort, which always can.
fn encode(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = dicom_ul::write_pdu(&mut bytes, pdu) {
        tracing::error!(%error, "could not encode a PDU");
        bytes = vec![0x07, 0, 0, 0, 0, 4, 0, 0, 2, 0];
    }
    bytes
}

/// A command set as one P-DATA-TF, or several where the peer takes only short ones; to be sent in
/// one write, lest Nagle's algorithm hold the second half of it back.
fn pdata(context: u8, set: &[u8], peer_pdu_bytes_max: usize) -> Vec<u8> {
    let room = peer_pdu_bytes_max.max(PEER_PDU_BYTES_MIN) - PDV_HEADER_BYTES;
    let mut bytes = Vec::with_capacity(set.len() + 16);
    let mut pieces = set.chunks(room).peekable();
    while let Some(piece) = pieces.next() {
        let item_length = u32::try_from(piece.len() + 2).unwrap_or(u32::MAX); // a short command
        let control = if pieces.peek().is_none() { 0x03 } else { 0x01 };
        bytes.extend_from_slice(&[0x04, 0]);
        bytes.extend_from_slice(&(item_length + 4).to_be_bytes());
        bytes.extend_from_slice(&item_length.to_be_bytes());
        bytes.extend_from_slice(&[context, control]);
        bytes.extend_from_slice(piece);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::{AbortRQSource, AssociationAC, PDataValueType};

    use super::*;

    #[test]
    fn a_response_is_cut_to_what_the_peer_takes_and_joins_again() {
        let set: Vec<u8> = (0..=255).collect();
        let bytes = pdata(5, &set, 134);
        let mut rest = bytes.as_slice();
        let mut joined = Vec::new();
        while let Some(Pdu::PData { data }) = dicom_ul::read_pdu(&mut rest, 1024, true).unwrap() {
            for value in data {
                assert_eq!(value.presentation_context_id, 5);
                assert_eq!(value.value_type, PDataValueType::Command);
                assert!(value.data.len() <= 128);
                joined.extend_from_slice(&value.data);
                assert_eq!(value.is_last, joined.len() == set.len());
            }
        }
        assert_eq!(joined, set);
    }

    #[test]
    fn the_fallback_of_the_encoder_is_an_abort() {
        let long = "TITLE OF MORE THAN SIXTEEN".to_owned();
        let unencodable = Pdu::AssociationAC(AssociationAC {
            protocol_version: 1,
            calling_ae_title: long.clone(),
            called_ae_title: long,
            application_context_name: String::new(),
            presentation_contexts: Vec::new(),
            user_variables: Vec::new(),
        });
        let bytes = encode(&unencodable);
        let pdu = dicom_ul::read_pdu(bytes.as_slice(), 1024, true).unwrap();
        assert!(matches!(
            pdu,
            Some(Pdu::AbortRQ {
                source: AbortRQSource::ServiceProvider(_)
            })
        ));
    }
}
