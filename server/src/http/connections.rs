//! The connections of HTTP: how many there may be, and how long a request's head may take.
//!
//! A peer that opens connections and says nothing, or one byte a minute, would otherwise hold them
//! and their file descriptors for ever. Bodies and event streams may take as long as they need;
//! their limits stand where they are read and written.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

use super::problem::Problem;
use super::{AppState, HttpConfig, router};
use fairness::places::{Place, Places};

/// Connections beyond the most, so that their requests can be answered with the reason. Further
/// ones are closed unheard.
const REFUSED_CONNECTIONS_MAX: usize = 16;
/// The same of one address.
const REFUSED_CONNECTIONS_PER_ADDRESS_MAX: usize = 4;
/// Longest time for the head of a request that is only going to be refused.
const REFUSED_HEADER_TIME_MAX: Duration = Duration::from_secs(2);
/// Pause after the system could not accept a connection, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 on `listener` until the service stops, and returns when the last connection has
/// ended: idle ones at once, others with the answer that they wait for. Dropping the future cuts
/// off what remains.
pub async fn serve(listener: TcpListener, app: AppState) {
    let mut shutdown = app.shutdown.clone();
    let door = Door::new(app);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // A sender that is gone stops the service as well.
            () = async { drop(shutdown.wait_for(|stop| *stop).await) } => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => door.admit(stream, peer, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "could not accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
        gauge!("tez_http_connections_open").set(connections.len() as f64);
    }
    drop(listener);
    door.stopping.shutdown().await;
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

/// What every new connection passes.
struct Door {
    config: Arc<HttpConfig>,
    router: Router,
    /// Answers every request with the reason why there is no place for its connection.
    refusal: Router,
    /// The same, where it is the client's address that has no place left.
    refusal_of_address: Router,
    places: Places,
    refused_places: Places,
    stopping: GracefulShutdown,
}

impl Door {
    fn new(app: AppState) -> Self {
        let config = Arc::clone(&app.config);
        let full = Problem::busy(format!(
            "{} connections are open, which is the limit (http.connections_max).",
            config.connections_max
        ));
        let address_full = Problem::busy(format!(
            "{} connections from your address are open, which is the limit \
             (http.connections_per_address_max).",
            config.connections_per_address_max
        ));
        Self {
            places: Places::new(config.connections_per_address_max),
            refused_places: Places::new(REFUSED_CONNECTIONS_PER_ADDRESS_MAX),
            config,
            router: router(app),
            refusal: Router::new().fallback(async || full),
            refusal_of_address: Router::new().fallback(async || address_full),
            stopping: GracefulShutdown::new(),
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, connections: &mut JoinSet<()>) {
        let beyond = (connections.len() + 1).saturating_sub(self.config.connections_max);
        let admitted = match beyond {
            0 => self.places.take(peer.ip()),
            _ => None,
        };
        let is_admitted = admitted.is_some();
        let Some(place) = admitted.or_else(|| self.place_for_refusal(peer, beyond)) else {
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "an HTTP connection keeps Nagle's algorithm");
        }
        let (router, header_time_max) = match (is_admitted, beyond) {
            (true, _) => (&self.router, self.config.header_max()),
            (false, 0) => (&self.refusal_of_address, REFUSED_HEADER_TIME_MAX),
            (false, _) => (&self.refusal, REFUSED_HEADER_TIME_MAX),
        };
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_time_max)
            .keep_alive(is_admitted)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.stopping.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "an HTTP connection did not end well");
            }
            drop(place);
        });
    }

    /// A place in which a client is only told that there is none; `None`: it is closed unheard.
    fn place_for_refusal(&self, peer: SocketAddr, beyond: usize) -> Option<Place> {
        let reason = match beyond {
            0 => "its address has too many",
            _ => "there are too many",
        };
        counter!("tez_http_connections_refused_total").increment(1);
        tracing::warn!(%peer, "refused an HTTP connection: {reason}");
        if beyond > REFUSED_CONNECTIONS_MAX {
            return None;
        }
        self.refused_places.take(peer.ip())
    }
}

/// A panic costs its own connection; it is never silent.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an HTTP connection ended by a fault in Tez: please report it");
    }
}
