//! The one door for objects, whatever road they come by.

use pipeline::uid::Uid;

use crate::objects::StoredObject;

/// The road by which an object came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// C-STORE.
    Dimse,
    /// STOW-RS.
    Stow,
    /// `POST /api/v1/uploads`.
    Upload,
}

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

/// What became of an acknowledged object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is new.
    New,
    /// Its UID and content were here already; nothing was written twice.
    Duplicate,
    /// Its UID was here with other content; kept apart and reported.
    Conflict,
}

/// What the intake tells the assembly, in order, through one channel.
#[derive(Clone, Debug)]
pub enum IntakeEvent {
    /// An object was acknowledged.
    Stored {
        /// Which association or upload brought it.
        session: u64,
        /// Its road.
        channel: Channel,
        /// Calling AE title, or the upload's or request's id.
        peer: String,
        /// What the sender said of it.
        claim: Claim,
        /// Where it is.
        object: StoredObject,
        /// New, doubled or in conflict.
        receipt: Receipt,
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
