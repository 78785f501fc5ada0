//! The associations that may be at once, in all and from one address.

use std::net::IpAddr;
use std::sync::Arc;

use fairness::places::{Place, Places};
use metrics::gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::negotiation::acceptor::Rejection;

#[derive(Debug)]
pub(super) struct Seats {
    all: Arc<Semaphore>,
    by_address: Places,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    #[expect(dead_code, reason = "held for its drop")]
    permit: OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held for its drop")]
    place: Place,
}

impl Seats {
    pub(super) fn new(count: usize, per_address_max: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            by_address: Places::new(per_address_max),
        }
    }

    /// A seat for an association from `address`, else the rejection that says that there is none.
    pub(super) fn take(&self, address: IpAddr) -> Result<Seat, Rejection> {
        let place = self.by_address.take(address).ok_or(Rejection {
            label: "associations_per_address",
            ..Rejection::local_limit_exceeded()
        })?;
        let permit = Arc::clone(&self.all)
            .try_acquire_owned()
            .map_err(|_| Rejection::local_limit_exceeded())?;
        gauge!("tez_dicom_associations_open").increment(1);
        Ok(Seat { permit, place })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        gauge!("tez_dicom_associations_open").decrement(1);
    }
}
