//! PDUs on a connection (PS3.8 section 9.3), read as they stream by.
//!
//! The bytes of a data set go from the read buffer straight to whoever takes them: a P-DATA-TF is
//! never held as a whole. Whatever the peer sends behind a PDU stays in the buffer for the next one.
//! Both roles stand on this: [`Wire::association_request`] is for the one that is asked,
//! [`Wire::association_answer`] for the one that asks.

mod connection;
mod error;
mod patience;

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use dicom_ul::pdu::{AbortRQSource, AssociationRQ, Pdu};
use tokio::sync::watch;

pub use error::{Breach, WireError};

use crate::limits::WireLimits;
use crate::pdu::{Fragment, PDU_HEADER_BYTES, PDV_HEADER_BYTES, encode, kind};
use connection::Connection;
use patience::Patience;

/// One read takes at most so many bytes; a whole association request fits in.
const BUFFER_BYTES: usize = 320 << 10;
/// Longest association request or answer that is read, bytes. 128 presentation contexts
/// (PS3.8 section 9.3.2.2) of a dozen transfer syntaxes each take about half of it.
const ASSOCIATE_BYTES_MAX: u32 = 256 << 10;
/// Body of a release, in either direction (PS3.8 sections 9.3.6 and 9.3.7).
const RELEASE_BYTES: u32 = 4;

/// What comes next on an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A piece of a command or data set; its bytes follow by [`Wire::fragment_bytes`].
    Fragment(Fragment),
    /// The peer asks to release the association.
    ReleaseRequest,
    /// The peer releases the association, as we asked.
    ReleaseResponse,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    connection: Connection,
    buffer: Box<[u8]>,
    /// The part of the buffer that was received and not yet used.
    start: usize,
    end: usize,
    patience: Patience,
    limits: WireLimits,
    /// Bytes of the current P-DATA-TF beyond the current fragment.
    pdu_rest: u32,
    /// Bytes of the current fragment.
    fragment_rest: u32,
}

impl Wire {
    /// Takes over a connection that was just made. It ends when `shutdown` says true.
    pub(crate) fn new(
        stream: TcpStream,
        limits: WireLimits,
        shutdown: Option<watch::Receiver<bool>>,
    ) -> io::Result<Self> {
        Ok(Self {
            connection: Connection::new(stream, limits.idle_time_max)?,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            patience: Patience::new(&limits, shutdown),
            limits,
            pdu_rest: 0,
            fragment_rest: 0,
        })
    }

    /// The limits that it keeps.
    pub(crate) fn limits(&self) -> &WireLimits {
        &self.limits
    }

    /// Waits for the association request.
    pub(crate) fn association_request(&mut self) -> Result<AssociationRQ, WireError> {
        let (kind, length) = self.pdu_header()?;
        if kind != kind::ASSOCIATE_RQ {
            return Err(WireError::unexpected("no association request came first"));
        }
        if length > ASSOCIATE_BYTES_MAX {
            return Err(WireError::invalid("the association request is too long"));
        }
        let Some(Pdu::AssociationRQ(mut request)) = self.whole_pdu(length)? else {
            return Err(WireError::invalid("the association request is malformed"));
        };
        for title in [&mut request.called_ae_title, &mut request.calling_ae_title] {
            *title = bare_title(title).to_owned();
        }
        self.patience.is_established();
        Ok(request)
    }

    /// Waits for the answer to our association request: an A-ASSOCIATE-AC or -RJ.
    pub(crate) fn association_answer(&mut self) -> Result<Pdu, WireError> {
        let (kind, length) = self.pdu_header()?;
        match kind {
            kind::ASSOCIATE_AC | kind::ASSOCIATE_RJ => {}
            kind::ABORT => return Err(WireError::Aborted),
            _ => return Err(WireError::unexpected("no answer to the request came first")),
        }
        if length > ASSOCIATE_BYTES_MAX {
            return Err(WireError::invalid("the answer to the request is too long"));
        }
        let malformed = WireError::invalid("the answer to the request is malformed");
        let answer = self.whole_pdu(length)?.ok_or(malformed)?;
        self.patience.is_established();
        Ok(answer)
    }

    /// Waits for the first fragment of a message, or the release. May be interrupted by a stop.
    pub(crate) fn next_message(&mut self) -> Result<Next, WireError> {
        self.patience.message_awaited()?;
        while self.fragment_bytes()?.is_some() {}
        if self.start == self.end {
            self.read_more()?;
        }
        self.patience.command_begun();
        let next = self.next()?;
        self.patience.message_begun();
        Ok(next)
    }

    /// The command set of the message is there: a data set has the time that its bytes need.
    pub(crate) fn command_is_whole(&mut self) {
        self.patience.command_is_whole();
    }

    /// Waits for the next fragment of the message under way.
    pub(crate) fn next_fragment(&mut self) -> Result<Fragment, WireError> {
        match self.next()? {
            Next::Fragment(fragment) => Ok(fragment),
            Next::ReleaseRequest | Next::ReleaseResponse => {
                Err(WireError::unexpected("a release came within a message"))
            }
        }
    }

    /// The next bytes of the current fragment as they come; `None` at its end.
    pub(crate) fn fragment_bytes(&mut self) -> Result<Option<&[u8]>, WireError> {
        if self.fragment_rest == 0 {
            return Ok(None);
        }
        if self.start == self.end {
            self.read_more()?;
        }
        let length = (self.end - self.start).min(as_usize(self.fragment_rest));
        let from = self.start;
        self.start += length;
        self.fragment_rest -= u32::try_from(length).unwrap_or(self.fragment_rest); // is not longer
        Ok(Some(&self.buffer[from..from + length]))
    }

    /// Sends a PDU, or several, in one write.
    pub(crate) fn send(&mut self, pdus: &[u8]) -> Result<(), WireError> {
        self.connection.write_all(pdus)?;
        Ok(())
    }

    /// Sends the last PDU and waits until the peer hangs up.
    pub(crate) fn send_last(mut self, pdu: &Pdu) -> Result<(), WireError> {
        self.send(&encode(pdu))?;
        self.connection.linger(&mut self.buffer)?;
        Ok(())
    }

    /// Ends the association because of `error`, with an A-ABORT where one is owed to the peer.
    pub(crate) fn abort(self, error: &WireError) {
        if let Some(source) = error.abort() {
            self.send_abort(source);
        }
    }

    /// Ends the association because of a fault on our side that is not of the network.
    pub(crate) fn abort_by_user(self) {
        self.send_abort(AbortRQSource::ServiceUser);
    }

    fn send_abort(self, source: AbortRQSource) {
        if let Err(error) = self.send_last(&Pdu::AbortRQ { source }) {
            tracing::debug!(%error, "could not send the abort");
        }
    }

    fn next(&mut self) -> Result<Next, WireError> {
        while self.fragment_bytes()?.is_some() {}
        if self.pdu_rest == 0 {
            let (kind, length) = self.pdu_header()?;
            if length > self.limits.pdu_bytes_max {
                return Err(WireError::invalid("a PDU is longer than was negotiated"));
            }
            match kind {
                kind::P_DATA_TF => self.start_pdata(length)?,
                kind::RELEASE_RQ => return self.skip_release(length, Next::ReleaseRequest),
                kind::RELEASE_RP => return self.skip_release(length, Next::ReleaseResponse),
                kind::ABORT => return Err(WireError::Aborted),
                kind::ASSOCIATE_RQ..=kind::ASSOCIATE_RJ => {
                    return Err(WireError::unexpected("a PDU of another state"));
                }
                _ => {
                    return Err(WireError::Protocol {
                        breach: Breach::UnrecognizedPdu,
                        what: "a PDU of an unknown type",
                    });
                }
            }
        }
        self.fragment_header().map(Next::Fragment)
    }

    fn start_pdata(&mut self, length: u32) -> Result<(), WireError> {
        if as_usize(length) < PDV_HEADER_BYTES {
            return Err(WireError::invalid("a P-DATA-TF without a value"));
        }
        self.start += PDU_HEADER_BYTES;
        self.pdu_rest = length;
        Ok(())
    }

    fn skip_release(&mut self, length: u32, next: Next) -> Result<Next, WireError> {
        if length != RELEASE_BYTES {
            return Err(WireError::invalid("a release of a wrong length"));
        }
        let whole = PDU_HEADER_BYTES + as_usize(length);
        self.fill(whole)?;
        self.start += whole;
        Ok(next)
    }

    fn fragment_header(&mut self) -> Result<Fragment, WireError> {
        if as_usize(self.pdu_rest) < PDV_HEADER_BYTES {
            return Err(WireError::invalid("a P-DATA-TF ends within a value's head"));
        }
        let [a, b, c, d, context_id, control] = self.fill_exact::<PDV_HEADER_BYTES>()?;
        // The item's length counts the context and the control header, but not itself.
        let item_length = u32::from_be_bytes([a, b, c, d]);
        if item_length < 2 || item_length > self.pdu_rest - 4 {
            return Err(WireError::invalid("a value is longer than its P-DATA-TF"));
        }
        self.start += PDV_HEADER_BYTES;
        self.pdu_rest -= 4 + item_length;
        self.fragment_rest = item_length - 2;
        Ok(Fragment::read(context_id, control))
    }

    /// The PDU whose header is in the buffer and whose body has `length` bytes; `None` if it is
    /// malformed.
    fn whole_pdu(&mut self, length: u32) -> Result<Option<Pdu>, WireError> {
        let whole = PDU_HEADER_BYTES + as_usize(length);
        self.fill(whole)?;
        let bytes = &self.buffer[self.start..self.start + whole];
        let pdu = dicom_ul::read_pdu(bytes, ASSOCIATE_BYTES_MAX, true);
        self.start += whole;
        Ok(pdu.ok().flatten())
    }

    /// Type and length of the next PDU, which stays in the buffer.
    fn pdu_header(&mut self) -> Result<(u8, u32), WireError> {
        let [kind, _reserved, length @ ..] = self.fill_exact::<PDU_HEADER_BYTES>()?;
        Ok((kind, u32::from_be_bytes(length)))
    }

    fn fill_exact<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.fill(N)?;
        Ok(std::array::from_fn(|index| self.buffer[self.start + index]))
    }

    /// Reads until `length` bytes are in the buffer.
    fn fill(&mut self, length: usize) -> Result<(), WireError> {
        if self.start + length > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < length {
            self.read_more()?;
        }
        Ok(())
    }

    fn read_more(&mut self) -> Result<(), WireError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let since = Instant::now();
        loop {
            match self.connection.read(&mut self.buffer[self.end..])? {
                Some(0) => return Err(WireError::Closed),
                Some(length) => {
                    self.end += length;
                    return self.patience.came(length, since);
                }
                None => self.patience.check(since)?,
            }
        }
    }
}

/// An AE title without its padding: blanks (PS3.5 section 6.2), or NULs as of a C string, behind
/// which anything may stand.
fn bare_title(field: &str) -> &str {
    let text = field.trim_start_matches(['\0', ' ']);
    text.split('\0').next().unwrap_or_default().trim()
}

/// Lossless: Tez runs where addresses have at least 32 bits.
fn as_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::bare_title;

    #[test]
    fn a_title_is_padded_with_blanks_or_nuls_at_either_end() {
        for field in [
            "TEZ",
            "TEZ             ",
            "TEZ\0\0\0\0\0\0\0\0\0\0\0\0\0",
            " TEZ \0  ",
            "\0TEZ",
            "TEZ\0of another",
        ] {
            assert_eq!(bare_title(field), "TEZ", "{field:?}");
        }
        for field in ["", "                ", "\0\0 \0"] {
            assert_eq!(bare_title(field), "", "{field:?}");
        }
        assert_eq!(bare_title("CT ROOM 2"), "CT ROOM 2");
    }
}
