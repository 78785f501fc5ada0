//! The provider's objects → the intake, and the intake's errors → statuses of responses.

use std::net::IpAddr;

use dimse::scp::{AnnouncedObject, Caller, ObjectSink, StorageService, StorageSession};
use dimse::{Failure, Status};
use store::objects::StoreError;
use store::receipt::Channel;

use super::config::ScpConfig;
use crate::intake::{Claim, Incoming, Intake, IntakeError, Session};

/// The intake behind the provider.
#[derive(Debug)]
pub(super) struct StorageEdge {
    config: ScpConfig,
    intake: Intake,
}

/// One association that brings objects.
#[derive(Debug)]
pub(super) struct StoringSession(Session);

/// An object that is being received.
#[derive(Debug)]
pub(super) struct StoringObject(Incoming);

impl StorageEdge {
    /// `intake` for those whom the allow-list of `config` admits.
    pub(super) fn new(config: ScpConfig, intake: Intake) -> Self {
        Self { config, intake }
    }
}

impl StorageService for StorageEdge {
    type Session = StoringSession;

    fn admit_address(&self, address: IpAddr) -> Result<(), &'static str> {
        if self.config.allows_address(address) {
            return Ok(());
        }
        Err("no entry of dicom.allow holds its address")
    }

    fn admits_caller(&self, calling_ae_title: &str, address: IpAddr) -> bool {
        self.config.allows(calling_ae_title, address)
    }

    fn begin(&self, caller: &Caller) -> Result<StoringSession, Failure> {
        let peer = caller.calling_ae_title.clone();
        let session = self.intake.session(Channel::Dimse, peer);
        session.map(StoringSession).map_err(|error| failure(&error))
    }
}

impl StorageSession for StoringSession {
    type Sink = StoringObject;

    fn begin_object(&self, object: AnnouncedObject) -> Result<StoringObject, Failure> {
        let claim = Claim {
            sop_class_uid: object.sop_class_uid,
            sop_instance_uid: object.sop_instance_uid,
            transfer_syntax_uid: object.transfer_syntax_uid,
        };
        let incoming = self.0.begin(claim);
        incoming.map(StoringObject).map_err(|error| failure(&error))
    }

    fn finish(self) {
        self.0.finish();
    }
}

impl ObjectSink for StoringObject {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write(bytes).map_err(|error| failure(&error))
    }

    fn commit(self) -> Result<(), Failure> {
        self.0.commit().map(drop).map_err(|error| failure(&error))
    }
}

/// What a sender hears of `error`. Paths of ours are not for a peer's eyes, and a comment has 64
/// characters.
///
/// A7xx "Refused: Out of Resources" and Cxxx "Error: Cannot Understand" are of PS3.4 table B.2-1,
/// 0110 "Processing Failure" of PS3.7 annex C.
pub(super) fn failure(error: &IntakeError) -> Failure {
    let (status, comment) = match error {
        IntakeError::Store(StoreError::Full { .. }) => {
            (Status::OUT_OF_RESOURCES, "The disk is full")
        }
        IntakeError::Store(StoreError::TooLarge { .. }) => (
            Status::OUT_OF_RESOURCES,
            "The object exceeds the size limit",
        ),
        IntakeError::Store(StoreError::Failed { .. } | StoreError::InUse { .. }) => {
            (Status::PROCESSING_FAILURE, "The disk failed")
        }
        IntakeError::Refused(refusal) => (Status::CANNOT_UNDERSTAND, refusal.reason.text.as_str()),
        IntakeError::Busy => (
            Status::OUT_OF_RESOURCES,
            "Busy: send the object again later",
        ),
        IntakeError::Closing => (
            Status::OUT_OF_RESOURCES,
            "Stopping: send the object again later",
        ),
    };
    Failure::new(status, comment)
}
