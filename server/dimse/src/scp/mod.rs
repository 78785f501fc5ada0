//! The provider: C-ECHO and C-STORE (PS3.4 annexes A and B).
//!
//! [`serve`] accepts connections on the async edge and gives each a blocking thread. A
//! [`StorageService`] says who may send and takes the objects; one is acknowledged only after
//! [`ObjectSink::commit`] has returned.

mod association;
mod exchange;
mod seats;
mod service;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

pub use service::{AnnouncedObject, Caller, ObjectSink, StorageService, StorageSession};

use crate::limits::WireLimits;
use association::Door;
use fairness::places::{Place, Places};
use seats::Seats;

/// Connections beyond the most associations at once, so that their requests can be rejected with
/// the right reason. Further ones are closed unheard.
const REJECTED_CONNECTIONS_MAX: usize = 16;
/// The same of one address.
const REJECTED_CONNECTIONS_PER_ADDRESS_MAX: usize = 4;
/// Pause after the system could not accept a connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a provider behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScpOptions {
    /// The AE title that callers must call; `None`: any.
    pub called_ae_title: Option<String>,
    /// Most associations at once. Each has a thread of the runtime's blocking pool.
    pub associations_max: usize,
    /// Most associations at once from one address.
    pub associations_per_address_max: usize,
    /// Limits of each connection.
    pub wire: WireLimits,
}

/// Serves DICOM associations on `listener` until `shutdown` says true.
///
/// Then no new connection is taken, a message under way may end within
/// [`WireLimits::stop_time_max`], and what remains is aborted. Returns when the last association
/// has ended.
pub async fn serve<S: StorageService>(
    listener: TcpListener,
    options: ScpOptions,
    service: S,
    mut shutdown: watch::Receiver<bool>,
) {
    let door = Arc::new(Door {
        seats: Seats::new(
            options.associations_max,
            options.associations_per_address_max,
        ),
        connections: Places::new(
            options
                .associations_per_address_max
                .saturating_add(REJECTED_CONNECTIONS_PER_ADDRESS_MAX),
        ),
        options,
        service,
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
}

fn admit<S: StorageService>(
    stream: TcpStream,
    peer: SocketAddr,
    door: &Arc<Door<S>>,
    shutdown: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let place = match place(peer, door, connections.len()) {
        Ok(place) => place,
        Err(NoPlace { label, why }) => {
            counter!("tez_dicom_rejections_total", "reason" => label).increment(1);
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

/// Why a connection is closed unheard: in a word for metrics, and in a sentence.
struct NoPlace {
    label: &'static str,
    why: &'static str,
}

/// A place for a connection from `peer`, decided before a byte of it is read.
fn place<S: StorageService>(
    peer: SocketAddr,
    door: &Door<S>,
    connections: usize,
) -> Result<Place, NoPlace> {
    let no = |label, why| NoPlace { label, why };
    door.service
        .admit_address(peer.ip())
        .map_err(|why| no("address", why))?;
    if connections >= door.options.associations_max + REJECTED_CONNECTIONS_MAX {
        return Err(no("connections", "there are too many"));
    }
    let why = "its address has too many (associations_per_address_max)";
    door.connections
        .take(peer.ip())
        .ok_or_else(|| no("connections_per_address", why))
}

/// A panic costs its own association, whose session then counts as broken; it is never silent.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an association ended by a fault in Tez: please report it");
    }
}
