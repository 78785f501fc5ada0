//! The one door for objects, whatever road they come by.
//!
//! An association, an upload or a request opens a [`Session`]; each object of it is [`Incoming`]
//! until [`Incoming::commit`] returns. Then it is on disk, synced, announced to the assembly as an
//! [`IntakeEvent`], and may be acknowledged. Whatever ends before leaves nothing.
//!
//! Everything here blocks on the disk: async callers go through `tokio::task::spawn_blocking`.

mod known;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::counter;
use pipeline::header::{
    MetaParse, Refusal, cut_short, parse_part10_meta, part10_head, read_object,
};
use pipeline::limits::Limits;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{OwnedPermit, Sender, error::TrySendError};

use store::objects::{ObjectStore, ObjectWriter, SealedObject, StoreError, StoredObject};
use store::receipt::{Channel, Receipt};
use store::state::State;

pub use known::Announced;
use known::Known;

/// What a sender says of an object before its bytes come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// SOP class.
    pub sop_class_uid: Uid,
    /// SOP instance.
    pub sop_instance_uid: Uid,
    /// Transfer syntax of the bytes.
    pub transfer_syntax_uid: Uid,
}

/// What the intake tells the assembly, in order, through one channel.
#[derive(Debug)]
pub enum IntakeEvent {
    /// An object was acknowledged.
    Stored {
        /// Which association or upload brought it. Unique within one run of the service.
        session: u64,
        /// Its road.
        channel: Channel,
        /// Calling AE title, or the address of an upload or request.
        peer: String,
        /// What the sender said of it.
        claim: Claim,
        /// Where it is.
        object: StoredObject,
        /// New, doubled or in conflict.
        receipt: Receipt,
        /// Kept until the object has its row, by which a second copy is recognised from then on.
        announced: Announced,
    },
    /// An object was not taken, and its sender told so; but it says which study now lacks it.
    Refused {
        /// Which association or upload brought it.
        session: u64,
        /// Calling AE title, or the address of an upload or request.
        peer: String,
        /// What is known of it, with the reason.
        object: Box<UnreadObject>,
    },
    /// The association was released or the upload finished: the sender says there is no more.
    SessionFinished {
        /// Which.
        session: u64,
    },
    /// The association was aborted or the upload broke off: more may come, or not.
    SessionBroken {
        /// Which.
        session: u64,
    },
}

/// An object that was stored, and may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// New, doubled or in conflict.
    pub receipt: Receipt,
    /// What the sender said of it.
    pub claim: Claim,
    /// Where it is.
    pub object: StoredObject,
}

/// Why an object was not taken. Nothing of it remains, and the sender must be told.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its bytes are not a DICOM object.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The assembly has not caught up; the same object may be sent again later.
    #[error("the service is busy: send the object again later")]
    Busy,
    /// The service is stopping.
    #[error("the service is stopping: send the object again later")]
    Closing,
}

impl IntakeError {
    /// The error in one word, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Store(StoreError::Full { .. }) => "full",
            Self::Store(StoreError::TooLarge { .. }) => "too_large",
            Self::Store(StoreError::Failed { .. } | StoreError::InUse { .. }) => "disk_failed",
            Self::Refused(_) => "not_dicom",
            Self::Busy => "busy",
            Self::Closing => "closing",
        }
    }
}

/// The intake. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: ObjectStore,
    known: Known,
    events: Sender<IntakeEvent>,
    queue_wait: Duration,
    runtime: Handle,
    next_session: AtomicU64,
}

impl Intake {
    /// Joins the store to the assembly, which reads `events`.
    ///
    /// A full queue is waited for up to `queue_wait`; then the sender hears
    /// [`IntakeError::Busy`]. Every open session holds one place in the queue, so the queue must
    /// be longer than the most sessions at once.
    ///
    /// Call it within a tokio runtime that has a timer.
    pub fn new(
        store: ObjectStore,
        state: State,
        events: Sender<IntakeEvent>,
        queue_wait: Duration,
    ) -> Self {
        Self(Arc::new(Shared {
            store,
            known: Known::new(state),
            events,
            queue_wait,
            runtime: Handle::current(),
            next_session: AtomicU64::new(1),
        }))
    }

    /// Opens the session of one association, upload or request.
    ///
    /// # Errors
    ///
    /// [`IntakeError::Busy`] or [`IntakeError::Closing`]: its end could not be announced.
    pub fn session(&self, channel: Channel, peer: String) -> Result<Session, IntakeError> {
        let end = self.0.place_in_queue()?;
        Ok(Session(Arc::new(SessionCore {
            intake: self.clone(),
            id: self.0.next_session.fetch_add(1, Ordering::Relaxed),
            channel,
            peer,
            finished: AtomicBool::new(false),
            end: Some(end),
        })))
    }
}

impl Shared {
    /// Waits for a place in the queue of events. Taken before an object is stored, so that nothing
    /// is stored which cannot be announced.
    fn place_in_queue(&self) -> Result<OwnedPermit<IntakeEvent>, IntakeError> {
        match self.events.clone().try_reserve_owned() {
            Ok(place) => Ok(place),
            Err(TrySendError::Closed(_)) => Err(IntakeError::Closing),
            Err(TrySendError::Full(events)) => self.runtime.block_on(async {
                tokio::time::timeout(self.queue_wait, events.reserve_owned())
                    .await
                    .map_err(|_elapsed| IntakeError::Busy)?
                    .map_err(|_closed| IntakeError::Closing)
            }),
        }
    }
}

/// One association, upload or request.
///
/// Its end is announced when it and all its objects are gone: as finished after
/// [`Session::finish`], else as broken.
#[derive(Debug)]
pub struct Session(Arc<SessionCore>);

#[derive(Debug)]
struct SessionCore {
    intake: Intake,
    id: u64,
    channel: Channel,
    peer: String,
    finished: AtomicBool,
    end: Option<OwnedPermit<IntakeEvent>>,
}

impl Drop for SessionCore {
    fn drop(&mut self) {
        let session = self.id;
        let event = if self.finished.load(Ordering::Acquire) {
            IntakeEvent::SessionFinished { session }
        } else {
            IntakeEvent::SessionBroken { session }
        };
        if let Some(place) = self.end.take() {
            drop(place.send(event));
        }
    }
}

impl Session {
    /// Its number, unique within one run of the service.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Starts an object whose data set comes without a Part 10 head, as in C-STORE.
    ///
    /// # Errors
    ///
    /// [`IntakeError::Store`] if the disk is full or fails.
    pub fn begin(&self, claim: Claim) -> Result<Incoming, IntakeError> {
        let head = part10_head(
            &claim.sop_class_uid,
            &claim.sop_instance_uid,
            &claim.transfer_syntax_uid,
        );
        let writer = self.store().begin(&head, &claim.transfer_syntax_uid)?;
        Ok(self.incoming(Stage::body(claim, writer)))
    }

    /// Starts an object that comes as a Part 10 file. It is kept byte for byte.
    pub fn begin_part10(&self) -> Incoming {
        self.incoming(Stage::Head(Vec::new()))
    }

    /// The sender says that there is no more.
    pub fn finish(self) {
        self.0.finished.store(true, Ordering::Release);
    }

    fn store(&self) -> &ObjectStore {
        &self.0.intake.0.store
    }

    fn incoming(&self, stage: Stage) -> Incoming {
        Incoming {
            session: Arc::clone(&self.0),
            stage,
        }
    }
}

/// An object that is being received. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    session: Arc<SessionCore>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The bytes of a Part 10 file so far: its file meta group is not whole yet.
    Head(Vec<u8>),
    /// The data set streams by.
    Body(Box<Body>),
}

#[derive(Debug)]
struct Body {
    claim: Claim,
    writer: ObjectWriter,
    data_set_is_empty: bool,
}

impl Stage {
    fn body(claim: Claim, writer: ObjectWriter) -> Self {
        Self::Body(Box::new(Body {
            claim,
            writer,
            data_set_is_empty: true,
        }))
    }
}

impl Body {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.data_set_is_empty &= bytes.is_empty();
        self.writer.write(bytes)
    }
}

impl Incoming {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// [`IntakeError::Refused`] if they are no Part 10 file, [`IntakeError::Store`] if the disk is
    /// full or fails, or the object is too large. The object is lost then: drop it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), IntakeError> {
        match &mut self.stage {
            Stage::Body(body) => {
                if let Err(error) = body.write(bytes) {
                    self.refuse(&error.to_string());
                    return Err(error.into());
                }
            }
            Stage::Head(head) => {
                head.extend_from_slice(bytes);
                let head = std::mem::take(head);
                self.stage = self.read_head(head)?;
            }
        }
        Ok(())
    }

    /// What the object says it is and where its bytes lie for now, once its head is read: for
    /// senders that can be answered about its header before it is committed.
    pub fn staged(&self) -> Option<(&Claim, &Path)> {
        match &self.stage {
            Stage::Head(_) => None,
            Stage::Body(body) => Some((&body.claim, body.writer.path())),
        }
    }

    /// Tells the assembly that this object is not taken, and `why`, where its header says which
    /// study lacks it. The sender must still be told.
    pub fn refuse(&self, why: &str) {
        let Stage::Body(body) = &self.stage else {
            return;
        };
        self.session
            .tell_refused(&body.claim, body.writer.path(), why);
    }

    /// Ends the object and stores it. When this returns, it may be acknowledged.
    ///
    /// # Errors
    ///
    /// [`IntakeError::Refused`] if it has no data set, [`IntakeError::Busy`] while the assembly is
    /// behind, [`IntakeError::Store`] if the disk is full or fails. Nothing is stored then.
    pub fn commit(self) -> Result<Accepted, IntakeError> {
        let Self { session, stage } = self;
        let result = match stage {
            Stage::Head(head) => {
                Err(cut_short(u64::try_from(head.len()).unwrap_or(u64::MAX)).into())
            }
            Stage::Body(body) if body.data_set_is_empty => Err(no_data_set().into()),
            Stage::Body(body) => session.commit(body.claim, body.writer.seal()),
        };
        count(session.channel, &result);
        result
    }

    fn read_head(&self, head: Vec<u8>) -> Result<Stage, IntakeError> {
        match parse_part10_meta(&head) {
            MetaParse::NeedMore => Ok(Stage::Head(head)),
            MetaParse::Refusal(refusal) => Err(refusal.into()),
            MetaParse::Meta {
                transfer_syntax,
                sop_class,
                sop_instance,
                dataset_offset,
            } => {
                let (head, data_set) = head.split_at(dataset_offset);
                let store = &self.session.intake.0.store;
                let writer = store.begin(head, &transfer_syntax)?;
                let claim = Claim {
                    sop_class_uid: sop_class,
                    sop_instance_uid: sop_instance,
                    transfer_syntax_uid: transfer_syntax,
                };
                let mut stage = Stage::body(claim, writer);
                if let Stage::Body(body) = &mut stage {
                    body.write(data_set)?;
                }
                Ok(stage)
            }
        }
    }
}

impl SessionCore {
    /// Stores a sealed object unless it is here already, and announces it.
    fn commit(&self, claim: Claim, sealed: SealedObject) -> Result<Accepted, IntakeError> {
        let shared = &self.intake.0;
        let place = shared.place_in_queue()?;
        let turn = shared.known.take_turn(&claim.sop_instance_uid);
        let stored = turn.store(&shared.store, &shared.runtime, sealed)?;
        let accepted = Accepted {
            receipt: stored.receipt,
            claim,
            object: stored.object,
        };
        // Announced before the turn ends, so that no duplicate is announced before its original.
        drop(place.send(self.stored(&accepted, stored.announced)));
        drop(turn);
        Ok(accepted)
    }

    fn tell_refused(&self, claim: &Claim, path: &Path, why: &str) {
        let mut object = match read_object(path, &Limits::default()) {
            Ok(instance) => Box::new(UnreadObject::refused(&instance)),
            Err(unread) => unread,
        };
        let named = || claim.sop_instance_uid.clone();
        object.sop_instance_uid.get_or_insert_with(named);
        object.reason = Reason::new(
            ReasonCode::UnreadObjects,
            format!("It was not taken: {why}"),
        );
        if object.study_uid.is_none() || !object.may_hold_slices() {
            return;
        }
        // Without waiting: the sender has its answer in any case.
        if let Ok(place) = self.intake.0.events.clone().try_reserve_owned() {
            drop(place.send(IntakeEvent::Refused {
                session: self.id,
                peer: self.peer.clone(),
                object,
            }));
        }
    }

    fn stored(&self, accepted: &Accepted, announced: Announced) -> IntakeEvent {
        IntakeEvent::Stored {
            session: self.id,
            channel: self.channel,
            peer: self.peer.clone(),
            claim: accepted.claim.clone(),
            object: accepted.object.clone(),
            receipt: accepted.receipt,
            announced,
        }
    }
}

fn no_data_set() -> Refusal {
    Refusal::new(
        ReasonCode::NotDicom,
        "The object has no data set: nothing but a head came.",
    )
}

fn count(channel: Channel, result: &Result<Accepted, IntakeError>) {
    let channel = channel.as_str();
    match result {
        Ok(accepted) => {
            let receipt = accepted.receipt.as_str();
            counter!("tez_intake_objects_total", "channel" => channel, "receipt" => receipt)
                .increment(1);
            counter!("tez_intake_bytes_total", "channel" => channel)
                .increment(accepted.object.bytes);
        }
        Err(error) => {
            counter!("tez_intake_refusals_total", "channel" => channel, "reason" => error.label())
                .increment(1);
        }
    }
}

#[cfg(test)]
mod tests;
