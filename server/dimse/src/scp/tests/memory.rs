//! A service that keeps nothing, and tells what it is asked.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use crate::scp::{AnnouncedObject, Caller, ObjectSink, StorageService, StorageSession};
use crate::status::{Failure, Status};

/// Longest object that it takes, bytes.
const OBJECT_BYTES_MAX: usize = 1 << 20;

/// What the service is asked, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The first object of an association is announced.
    Session(Caller),
    /// An object is announced.
    Begun(AnnouncedObject),
    /// It is whole, and about to be stored.
    Whole,
    /// It was stored.
    Stored {
        object: AnnouncedObject,
        data_set: Vec<u8>,
    },
    /// It was given up.
    GivenUp,
    /// An association was released.
    Finished,
    /// An association broke off.
    Broken,
}

/// The service.
#[derive(Debug)]
pub(super) struct Memory {
    teller: Sender<Told>,
    /// The one calling AE title that is admitted; `None`: any.
    pub(super) admitted_title: Option<String>,
    /// The one address that may send; `None`: any.
    pub(super) admitted_address: Option<IpAddr>,
    /// What each object waits for before it is stored, if anything.
    pub(super) gate: Option<Mutex<Receiver<()>>>,
}

impl Memory {
    pub(super) fn new(teller: Sender<Told>) -> Self {
        Self {
            teller,
            admitted_title: None,
            admitted_address: None,
            gate: None,
        }
    }
}

impl StorageService for Arc<Memory> {
    type Session = MemorySession;

    fn admit_address(&self, address: IpAddr) -> Result<(), &'static str> {
        if self
            .admitted_address
            .is_none_or(|admitted| admitted == address)
        {
            return Ok(());
        }
        Err("it is not the one")
    }

    fn admits_caller(&self, calling_ae_title: &str, _address: IpAddr) -> bool {
        let admitted = self.admitted_title.as_deref();
        admitted.is_none_or(|title| title == calling_ae_title)
    }

    fn begin(&self, caller: &Caller) -> Result<MemorySession, Failure> {
        tell(&self.teller, Told::Session(caller.clone()));
        Ok(MemorySession {
            memory: Self::clone(self),
            finished: false,
        })
    }
}

fn tell(teller: &Sender<Told>, told: Told) {
    // A test that has ended listens no more.
    drop(teller.send(told));
}

#[derive(Debug)]
pub(super) struct MemorySession {
    memory: Arc<Memory>,
    finished: bool,
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        let told = if self.finished {
            Told::Finished
        } else {
            Told::Broken
        };
        tell(&self.memory.teller, told);
    }
}

impl StorageSession for MemorySession {
    type Sink = MemorySink;

    fn begin_object(&self, object: AnnouncedObject) -> Result<MemorySink, Failure> {
        tell(&self.memory.teller, Told::Begun(object.clone()));
        Ok(MemorySink {
            memory: Arc::clone(&self.memory),
            object: Some(object),
            data_set: Vec::new(),
        })
    }

    fn finish(mut self) {
        self.finished = true;
    }
}

#[derive(Debug)]
pub(super) struct MemorySink {
    memory: Arc<Memory>,
    /// Gone once it is stored.
    object: Option<AnnouncedObject>,
    data_set: Vec<u8>,
}

impl Drop for MemorySink {
    fn drop(&mut self) {
        if self.object.is_some() {
            tell(&self.memory.teller, Told::GivenUp);
        }
    }
}

impl ObjectSink for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.data_set.extend_from_slice(bytes);
        if self.data_set.len() > OBJECT_BYTES_MAX {
            return Err(Failure::new(Status::OUT_OF_RESOURCES, "too large"));
        }
        Ok(())
    }

    fn commit(mut self) -> Result<(), Failure> {
        if self.data_set.is_empty() {
            return Err(Failure::new(Status::CANNOT_UNDERSTAND, "empty"));
        }
        tell(&self.memory.teller, Told::Whole);
        if let Some(gate) = &self.memory.gate {
            gate.lock().unwrap().recv().unwrap();
        }
        if let Some(object) = self.object.take() {
            let data_set = std::mem::take(&mut self.data_set);
            tell(&self.memory.teller, Told::Stored { object, data_set });
        }
        Ok(())
    }
}
