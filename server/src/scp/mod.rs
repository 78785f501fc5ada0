//! DICOM's edge of the service: settings, the allow-list, and the way from the provider of the
//! crate `dimse` to the intake.
//!
//! Peers are admitted by the allow-list of [`ScpConfig`]; what they send goes through
//! [`crate::intake`] and is answered once it is on disk.

mod address;
mod config;
mod storage;
#[cfg(test)]
mod tests;

use std::io;

use tokio::net::TcpListener;
use tokio::sync::watch;

pub use address::{AddressError, AddressRange};
pub(crate) use config::check_ae_title;
pub use config::{AllowedPeer, ScpConfig};

use crate::intake::Intake;
use storage::StorageEdge;

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
    shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    config
        .check()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let options = config.options();
    dimse::scp::serve(
        listener,
        options,
        StorageEdge::new(config, intake),
        shutdown,
    )
    .await;
    Ok(())
}
