//! What the parts of the service say of themselves.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use models::report::ModelIdentity;
use pipeline::reason::Reason;

/// What the parts of the service say of themselves; the service sets it, `/readyz` reads it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Facts>>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) dicom: Option<SocketAddr>,
    pub(crate) inference: Option<Result<ModelIdentity, Reason>>,
}

impl Health {
    /// The SCP listens at `address`, or no longer does.
    pub fn set_dicom(&self, address: Option<SocketAddr>) {
        self.facts().dicom = address;
    }

    /// The model is loaded, or why it is not.
    pub fn set_inference(&self, inference: Result<ModelIdentity, Reason>) {
        self.facts().inference = Some(inference);
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
