//! The messages of one association: verification and storage.

use pipeline::uid::Uid;

use super::{AnnouncedObject, Caller, ObjectSink, StorageService, StorageSession};
use crate::command::{CommandField, Request};
use crate::message::{self, PassedOver, Route, read_command, read_data_set, skip_data_set};
use crate::negotiation::acceptor::{AcceptedContext, Agreement, Purpose};
use crate::pdu::{Fragment, fragment_bytes_max};
use crate::shown;
use crate::status::{Failure, Status};
use crate::wire::{Next, Wire, WireError};

type Sink<S> = <<S as StorageService>::Session as StorageSession>::Sink;

/// The messages of one association.
pub(super) struct Exchange<'a, S: StorageService> {
    agreement: Agreement,
    service: &'a S,
    caller: Caller,
    /// Opened with the first object: a verification is nothing that the service waits for.
    session: Option<S::Session>,
    stored: u64,
    refused: u64,
}

impl<'a, S: StorageService> Exchange<'a, S> {
    pub(super) fn new(agreement: Agreement, service: &'a S, caller: Caller) -> Self {
        Self {
            agreement,
            service,
            caller,
            session: None,
            stored: 0,
            refused: 0,
        }
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// How many objects were acknowledged.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// How many objects were answered with a failure.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// The association is released.
    pub(super) fn finish(&mut self) {
        if let Some(session) = self.session.take() {
            session.finish();
        }
    }

    /// The association ended otherwise.
    pub(super) fn break_off(&mut self) {
        drop(self.session.take());
    }

    /// Answers messages until the peer asks for the release.
    pub(super) fn run(&mut self, wire: &mut Wire) -> Result<(), WireError> {
        loop {
            match wire.next_message()? {
                Next::ReleaseRequest => return Ok(()),
                Next::ReleaseResponse => {
                    return Err(WireError::unexpected("a PDU of another state"));
                }
                Next::Fragment(fragment) => self.message(wire, fragment)?,
            }
        }
    }

    fn message(&mut self, wire: &mut Wire, first: Fragment) -> Result<(), WireError> {
        let context_id = first.context_id;
        let Some(context) = self.agreement.contexts.get(&context_id).cloned() else {
            let what = "a presentation context that was not accepted";
            return Err(WireError::invalid(what));
        };
        let set = read_command(wire, first)?;
        if set.field().is_some_and(CommandField::is_response) {
            let what = "a response to nothing that was asked";
            return Err(WireError::unexpected(what));
        }
        let request = Request::read(&set).ok_or_else(message::malformed_command)?;
        let outcome = match request.field {
            CommandField::C_CANCEL_RQ => return Ok(()),
            CommandField::C_STORE_RQ => self.store(wire, context_id, &context, &request)?,
            CommandField::C_ECHO_RQ => {
                skip_data_set_of(&request, wire, context_id)?;
                Ok(())
            }
            _ => {
                skip_data_set_of(&request, wire, context_id)?;
                let comment = "Only C-ECHO and C-STORE are provided";
                Err(Failure::new(Status::UNRECOGNIZED_OPERATION, comment))
            }
        };
        let route = Route {
            context_id,
            fragment_bytes_max: fragment_bytes_max(self.agreement.peer_pdu_bytes_max),
        };
        message::send(wire, route, &request.response(&outcome))
    }

    /// Takes the object of a C-STORE request and counts what became of it.
    fn store(
        &mut self,
        wire: &mut Wire,
        context_id: u8,
        context: &AcceptedContext,
        request: &Request,
    ) -> Result<Result<(), Failure>, WireError> {
        let outcome = self.receive(wire, context_id, context, request)?;
        match &outcome {
            Ok(()) => self.stored += 1,
            Err(failure) => {
                self.refused += 1;
                self.log_refusal(request, failure);
            }
        }
        Ok(outcome)
    }

    fn receive(
        &mut self,
        wire: &mut Wire,
        context_id: u8,
        context: &AcceptedContext,
        request: &Request,
    ) -> Result<Result<(), Failure>, WireError> {
        let begun = self.begin_object(context, request);
        if !request.has_data_set {
            let failure = Failure::new(Status::CANNOT_UNDERSTAND, "C-STORE without a data set");
            return Ok(Err(begun.err().unwrap_or(failure)));
        }
        let mut arriving = Arriving::new(begun);
        read_data_set(wire, context_id, |bytes| arriving.take(bytes))?;
        Ok(arriving.commit())
    }

    fn log_refusal(&self, request: &Request, failure: &Failure) {
        tracing::warn!(
            address = %self.caller.address,
            calling_ae_title = shown(&self.caller.calling_ae_title),
            called_ae_title = shown(&self.caller.called_ae_title),
            sop_instance_uid = shown(&request.sop_instance_uid),
            status = format!("{:04x}", failure.status.code()),
            comment = failure.comment,
            "refused an object"
        );
    }

    fn begin_object(
        &mut self,
        context: &AcceptedContext,
        request: &Request,
    ) -> Result<Sink<S>, Failure> {
        if context.purpose != Purpose::Storage {
            let comment = "C-STORE in a verification context";
            return Err(Failure::new(Status::SOP_CLASS_NOT_SUPPORTED, comment));
        }
        let uid =
            |text: &str, status, comment| Uid::new(text).map_err(|_| Failure::new(status, comment));
        let object = AnnouncedObject {
            sop_class_uid: uid(
                &request.sop_class_uid,
                Status::SOP_CLASS_NOT_SUPPORTED,
                "Affected SOP Class UID is missing or is not a UID",
            )?,
            sop_instance_uid: uid(
                &request.sop_instance_uid,
                Status::INVALID_SOP_INSTANCE,
                "Affected SOP Instance UID is missing or is not a UID",
            )?,
            transfer_syntax_uid: context.transfer_syntax_uid.clone(),
        };
        self.session()?.begin_object(object)
    }

    fn session(&mut self) -> Result<&S::Session, Failure> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.service.begin(&self.caller)?,
        };
        Ok(self.session.insert(session))
    }
}

/// Passes over the data set of a request that needs none.
fn skip_data_set_of(request: &Request, wire: &mut Wire, context_id: u8) -> Result<(), WireError> {
    if request.has_data_set {
        skip_data_set(wire, context_id)?;
    }
    Ok(())
}

/// An object as it arrives; once refused, its bytes are passed over.
struct Arriving<K> {
    sink: Result<K, Failure>,
    passed_over: PassedOver,
}

impl<K: ObjectSink> Arriving<K> {
    fn new(sink: Result<K, Failure>) -> Self {
        Self {
            sink,
            passed_over: PassedOver::default(),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        match &mut self.sink {
            Ok(sink) => {
                if let Err(failure) = sink.write(bytes) {
                    self.sink = Err(failure);
                }
                Ok(())
            }
            Err(_) => self.passed_over.add(bytes),
        }
    }

    fn commit(self) -> Result<(), Failure> {
        self.sink?.commit()
    }
}
