//! The DICOM storage provider: C-ECHO and C-STORE.
//!
//! [`serve`] accepts connections on the async edge and gives each a blocking thread: an association
//! is one long read from a socket and one long write to a file, with a sync between, and takes the
//! fewest system calls that way. Peers are admitted by the allow-list of [`ScpConfig`]; what they
//! send goes through [`crate::intake`] and is answered once it is on disk.

mod address;
mod association;
mod command;
mod config;
mod negotiation;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

pub use address::{AddressError, AddressRange};
pub(crate) use config::check_ae_title;
pub use config::{AllowedPeer, ScpConfig};

use crate::intake::Intake;
use association::Door;
use fairness::places::{Place, Places};
use negotiation::Rejection;

/// Connections beyond the most associations at once, so that their requests can be rejected with
/// the right reason. Further ones are closed unheard.
const REJECTED_CONNECTIONS_MAX: usize = 16;
/// The same of one address.
const REJECTED_CONNECTIONS_PER_ADDRESS_MAX: usize = 4;
/// Pause after the system could not accept a connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves DICOM associations on `listener` until `shutdown` says true.
///
/// Then no new connection is taken, an object in flight may end within `stop_seconds_max`, and what
/// remains is aborted. Returns when the last association has ended.
///
/// # Errors
///
/// The sentence of [`ScpConfig::check`], as [`io::ErrorKind::InvalidInput`].
pub async fn serve(
    listener: TcpListener,
    config: ScpConfig,
    intake: Intake,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    config
        .check()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let door = Arc::new(Door {
        seats: Seats::new(config.associations_max, config.associations_per_address_max),
        connections: Places::new(
            config
                .associations_per_address_max
                .saturating_add(REJECTED_CONNECTIONS_PER_ADDRESS_MAX),
        ),
        config,
        intake,
    });
    let mut connections = JoinSet::new();
    let stopping = shutdown.clone();
    loop {
        tokio::select! {
            // A sender that is gone stops the service as well.
            () = async { drop(shutdown.wait_for(|stop| *stop).await) } => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(stream, peer, &door, &stopping, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a DICOM connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    Ok(())
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    door: &Arc<Door>,
    shutdown: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let place = match place(peer, door, connections.len()) {
        Ok(place) => place,
        Err((reason, why)) => {
            counter!("tez_dicom_rejections_total", "reason" => reason).increment(1);
            tracing::warn!(%peer, "closed a DICOM connection: {why}");
            return;
        }
    };
    match stream.into_std() {
        Ok(stream) => {
            let (door, shutdown) = (Arc::clone(door), shutdown.clone());
            connections.spawn_blocking(move || {
                association::serve(stream, peer.ip(), &door, shutdown);
                drop(place);
            });
        }
        Err(error) => tracing::warn!(%peer, %error, "could not take over a DICOM connection"),
    }
}

/// A place for a connection from `peer`, decided before a byte of it is read; else the reason in a
/// word and in a sentence.
fn place(
    peer: SocketAddr,
    door: &Door,
    connections: usize,
) -> Result<Place, (&'static str, &'static str)> {
    if !door.config.allows_address(peer.ip()) {
        let why = "no entry of dicom.allow holds its address";
        return Err(("address", why));
    }
    if connections >= door.config.associations_max + REJECTED_CONNECTIONS_MAX {
        return Err(("connections", "there are too many"));
    }
    let why = "its address has too many (dicom.associations_per_address_max)";
    door.connections
        .take(peer.ip())
        .ok_or(("connections_per_address", why))
}

/// A panic costs its own association, whose session then counts as broken; it is never silent.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an association ended by a fault in Tez: please report it");
    }
}

/// The associations that may be at once, in all and from one address.
#[derive(Debug)]
struct Seats {
    all: Arc<Semaphore>,
    by_address: Places,
}

/// One of them; given back when dropped.
#[derive(Debug)]
struct Seat {
    #[expect(dead_code, reason = "held for its drop")]
    permit: OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held for its drop")]
    place: Place,
}

impl Seats {
    fn new(count: usize, per_address_max: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            by_address: Places::new(per_address_max),
        }
    }

    fn take(&self, address: IpAddr) -> Result<Seat, Rejection> {
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
