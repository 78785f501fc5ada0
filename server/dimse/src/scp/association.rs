//! One association, from its request to its end.

use std::net::{IpAddr, TcpStream};

use dicom_ul::pdu::Pdu;
use fairness::places::Places;
use metrics::counter;
use tokio::sync::watch;

use super::exchange::Exchange;
use super::seats::{Seat, Seats};
use super::{Caller, ScpOptions, StorageService};
use crate::negotiation::acceptor::{Rejection, Terms, accept};
use crate::pdu::encode;
use crate::shown;
use crate::wire::{Wire, WireError};

/// What every association needs.
#[derive(Debug)]
pub(super) struct Door<S> {
    pub(super) options: ScpOptions,
    pub(super) service: S,
    pub(super) seats: Seats,
    /// Connections by address, those counted that have not become an association.
    pub(super) connections: Places,
}

/// Receives what `stream` brings until it ends. Blocks.
pub(super) fn serve<S: StorageService>(
    stream: TcpStream,
    address: IpAddr,
    door: &Door<S>,
    shutdown: watch::Receiver<bool>,
) {
    let mut wire = match Wire::new(stream, door.options.wire.clone(), Some(shutdown)) {
        Ok(wire) => wire,
        Err(error) => return tracing::warn!(%error, "could not set up a DICOM connection"),
    };
    let address = address.to_canonical();
    match establish(&mut wire, address, door) {
        Ok(Ok(association)) => association.run(wire),
        Ok(Err(rejection)) => reject(wire, rejection),
        Err(error) => {
            counter!("tez_dicom_rejections_total", "reason" => error.label()).increment(1);
            tracing::info!(%address, %error, "a DICOM connection did not become an association");
            wire.abort(&error);
        }
    }
}

struct Association<'a, S: StorageService> {
    exchange: Exchange<'a, S>,
    /// Held until the end: one of the associations that may be at once.
    _seat: Seat,
}

/// Waits for a request and decides on it. An acceptance is sent at once.
fn establish<'a, S: StorageService>(
    wire: &mut Wire,
    address: IpAddr,
    door: &'a Door<S>,
) -> Result<Result<Association<'a, S>, Rejection>, WireError> {
    let request = wire.association_request()?;
    let calling = request.calling_ae_title.as_str();
    let terms = Terms {
        called_ae_title: door.options.called_ae_title.as_deref(),
        caller_is_admitted: door.service.admits_caller(calling, address),
        pdu_bytes_max: door.options.wire.pdu_bytes_max,
    };
    let agreed =
        accept(&request, &terms).and_then(|agreement| Ok((agreement, door.seats.take(address)?)));
    let (agreement, seat) = match agreed {
        Ok(agreed) => agreed,
        Err(rejection) => {
            let calling_ae_title = shown(calling);
            let called_ae_title = shown(&request.called_ae_title);
            let reason = rejection.label;
            tracing::warn!(
                %address, calling_ae_title, called_ae_title, reason,
                "rejected a DICOM association"
            );
            return Ok(Err(rejection));
        }
    };
    wire.send(&encode(&Pdu::AssociationAC(agreement.acceptance.clone())))?;
    counter!("tez_dicom_associations_total").increment(1);
    let caller = Caller {
        address,
        calling_ae_title: request.calling_ae_title,
        called_ae_title: request.called_ae_title,
    };
    Ok(Ok(Association {
        exchange: Exchange::new(agreement, &door.service, caller),
        _seat: seat,
    }))
}

fn reject(wire: Wire, rejection: Rejection) {
    counter!("tez_dicom_rejections_total", "reason" => rejection.label).increment(1);
    if let Err(error) = wire.send_last(&Pdu::AssociationRJ(rejection.pdu)) {
        tracing::debug!(%error, "could not send the rejection");
    }
}

impl<S: StorageService> Association<'_, S> {
    fn run(mut self, mut wire: Wire) {
        let end = self.exchange.run(&mut wire);
        let address = self.exchange.caller().address;
        let calling_ae_title = shown(&self.exchange.caller().calling_ae_title);
        let (stored, refused) = (self.exchange.stored(), self.exchange.refused());
        match end {
            Ok(()) => {
                tracing::info!(%address, calling_ae_title, stored, refused, "association released");
                // All objects are in: the service hears it before the peer does.
                self.exchange.finish();
                if let Err(error) = wire.send_last(&Pdu::ReleaseRP) {
                    tracing::debug!(%address, %error, "could not answer the release");
                }
            }
            Err(error) => {
                counter!("tez_dicom_aborts_total", "reason" => error.label()).increment(1);
                tracing::warn!(%address, calling_ae_title, stored, refused, %error, "association broke off");
                self.exchange.break_off();
                wire.abort(&error);
            }
        }
    }
}
