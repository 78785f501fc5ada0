//! What stands behind a storage provider.

use std::net::IpAddr;

use pipeline::uid::Uid;

use crate::status::Failure;

/// Who opened an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whence; an IPv4 address written as IPv6 is IPv4 here.
    pub address: IpAddr,
    /// Its calling AE title, without padding; may be empty.
    pub calling_ae_title: String,
    /// The AE title that it called, without padding.
    pub called_ae_title: String,
}

/// What a C-STORE request says of its object before the data set comes (PS3.7 section 9.1.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedObject {
    /// Affected SOP Class UID.
    pub sop_class_uid: Uid,
    /// Affected SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Transfer syntax of the data set: the one that its presentation context was accepted with.
    pub transfer_syntax_uid: Uid,
}

/// A service that admits callers and takes their objects.
///
/// Its methods, and those of what they return, are called on blocking threads, one for each
/// association.
pub trait StorageService: Send + Sync + 'static {
    /// See [`StorageSession`].
    type Session: StorageSession;

    /// Whether anybody may send from `address`. Asked before a byte of the connection is read.
    ///
    /// # Errors
    ///
    /// A sentence for the log that says why not.
    fn admit_address(&self, address: IpAddr) -> Result<(), &'static str>;

    /// Whether `calling_ae_title`, as of [`Caller`], may send from `address`.
    fn admits_caller(&self, calling_ae_title: &str, address: IpAddr) -> bool;

    /// The first object of an association is announced. A verification begins nothing.
    ///
    /// # Errors
    ///
    /// What the object is answered with; the next one of the association asks again.
    fn begin(&self, caller: &Caller) -> Result<Self::Session, Failure>;
}

/// One association that brings objects. Dropped without [`StorageSession::finish`], it broke off.
pub trait StorageSession {
    /// See [`ObjectSink`].
    type Sink: ObjectSink;

    /// The next object is announced; its data set follows.
    ///
    /// # Errors
    ///
    /// What the object is answered with. Its data set is passed over.
    fn begin_object(&self, object: AnnouncedObject) -> Result<Self::Sink, Failure>;

    /// The association is released: its sender says that there is no more. The release is
    /// answered after this returns.
    fn finish(self);
}

/// An object that is being received. Dropped without [`ObjectSink::commit`], it must leave nothing
/// behind: its sender was told so, or is gone.
pub trait ObjectSink {
    /// Takes the next bytes of the data set.
    ///
    /// # Errors
    ///
    /// What the object is answered with. The sink is dropped then, and what still comes of the
    /// data set is passed over.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure>;

    /// The data set is whole. The object is acknowledged as soon as this returns, so it must be
    /// where no crash can take it.
    ///
    /// # Errors
    ///
    /// What the object is answered with instead.
    fn commit(self) -> Result<(), Failure>;
}
