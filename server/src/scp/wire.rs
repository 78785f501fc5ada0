//! PDUs on a socket (PS3.8 section 9.3), read as they stream by.
//!
//! The bytes of a data set go from the read buffer straight to their file: a P-DATA-TF is never
//! held as a whole. Whatever the peer sends behind a PDU stays in the buffer for the next one.

use std::io::{self, Read, Write};
use std::net::{Shutdown as Half, TcpStream};
use std::time::{Duration, Instant};

use dicom_ul::pdu::{
    AbortRQServiceProviderReason as AbortReason, AbortRQSource, AssociationRQ, Pdu,
};
use tokio::sync::watch;

use super::config::{REQUEST_BYTES_MAX, ScpConfig};
use fairness::pace::{Pace, TooSlow};

/// One read takes at most so many bytes; a whole association request fits in.
const BUFFER_BYTES: usize = 320 << 10;
/// How often a waiting read looks at the clock and for the end of the service.
const POLL_TIME: Duration = Duration::from_millis(250);
/// How long a peer may take to hang up after the last PDU, and how much it may still send.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Type, a reserved byte and the length.
const PDU_HEADER_BYTES: usize = 6;
/// Length, presentation context and message control header.
const PDV_HEADER_BYTES: u32 = 6;

/// Why an association ends other than by its release.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The peer hung up.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer aborted.
    #[error("the peer aborted the association")]
    Aborted,
    /// The peer was silent too long.
    #[error("the peer was silent for too long")]
    Silent,
    /// The peer brought too little in its time.
    #[error(transparent)]
    Slow(#[from] TooSlow),
    /// The service stops.
    #[error("the service stops")]
    Stopping,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// What to tell it.
        reason: AbortReason,
        /// What to tell people.
        what: &'static str,
    },
    /// The network failed.
    #[error("the network failed: {0}")]
    Network(#[from] io::Error),
}

impl WireError {
    /// A PDU that the state of the association does not allow.
    pub(super) fn unexpected(what: &'static str) -> Self {
        let reason = AbortReason::UnexpectedPdu;
        Self::Protocol { reason, what }
    }

    /// A PDU whose fields contradict each other or a limit.
    pub(super) fn invalid(what: &'static str) -> Self {
        let reason = AbortReason::InvalidPduParameter;
        Self::Protocol { reason, what }
    }

    /// Whom and what the A-ABORT names, where one is owed to the peer.
    pub(super) fn abort(&self) -> Option<AbortRQSource> {
        match self {
            Self::Closed | Self::Aborted | Self::Network(_) => None,
            Self::Stopping => Some(AbortRQSource::ServiceUser),
            Self::Silent | Self::Slow(_) => Some(AbortRQSource::ServiceProvider(
                AbortReason::ReasonNotSpecified,
            )),
            Self::Protocol { reason, .. } => Some(AbortRQSource::ServiceProvider(reason.clone())),
        }
    }

    /// The error in one word, for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Aborted => "aborted",
            Self::Silent => "silent",
            Self::Slow(_) => "slow",
            Self::Stopping => "stopping",
            Self::Protocol { .. } => "protocol",
            Self::Network(_) => "network",
        }
    }
}

/// What comes next on an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A piece of a command or data set; its bytes follow by [`Wire::fragment_bytes`].
    Fragment(Fragment),
    /// The peer asks to release the association.
    Release,
}

/// The head of one presentation data value (PS3.8 section 9.3.5 and annex E).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Presentation context.
    pub(super) context: u8,
    /// Of a command set; else of a data set.
    pub(super) is_command: bool,
    /// The last piece.
    pub(super) is_last: bool,
}

/// How long to wait for a peer.
#[derive(Debug)]
struct Patience {
    idle_max: Duration,
    stop_max: Duration,
    /// The association request, or the command set that has begun, must be whole by then.
    request_due: Option<Instant>,
    /// Of the message under way.
    pace: Pace,
    /// No message is under way: a stop may come at once.
    between_messages: bool,
    stopping_since: Option<Instant>,
    shutdown: watch::Receiver<bool>,
}

impl Patience {
    fn check(&mut self, waiting_since: Instant) -> Result<(), WireError> {
        if waiting_since.elapsed() > self.idle_max
            || self.request_due.is_some_and(|due| Instant::now() > due)
        {
            return Err(WireError::Silent);
        }
        if *self.shutdown.borrow() {
            let since = *self.stopping_since.get_or_insert_with(Instant::now);
            if self.between_messages || since.elapsed() > self.stop_max {
                return Err(WireError::Stopping);
            }
        }
        Ok(())
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    buffer: Box<[u8]>,
    /// The part of the buffer that was received and not yet used.
    start: usize,
    end: usize,
    patience: Patience,
    pdu_bytes_max: u32,
    /// Bytes of the current P-DATA-TF beyond the current fragment.
    pdu_rest: u32,
    /// Bytes of the current fragment.
    fragment_rest: u32,
}

impl Wire {
    /// Takes over a connection that was just accepted.
    pub(super) fn new(
        stream: TcpStream,
        config: &ScpConfig,
        shutdown: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(POLL_TIME))?;
        stream.set_write_timeout(Some(config.idle_time_max()))?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            patience: Patience {
                idle_max: config.idle_time_max(),
                stop_max: config.stop_time_max(),
                request_due: Instant::now().checked_add(config.request_time_max()),
                pace: config.pace(),
                between_messages: true,
                stopping_since: None,
                shutdown,
            },
            pdu_bytes_max: config.pdu_bytes_max,
            pdu_rest: 0,
            fragment_rest: 0,
        })
    }

    /// Waits for the association request.
    pub(super) fn association_request(&mut self) -> Result<AssociationRQ, WireError> {
        let (kind, length) = self.pdu_header()?;
        if kind != 0x01 {
            return Err(WireError::unexpected("no association request came first"));
        }
        if length > REQUEST_BYTES_MAX {
            return Err(WireError::invalid("the association request is too long"));
        }
        let whole = PDU_HEADER_BYTES + as_usize(length);
        self.fill(whole)?;
        let bytes = &self.buffer[self.start..self.start + whole];
        let read = dicom_ul::read_pdu(bytes, REQUEST_BYTES_MAX, true);
        let Ok(Some(Pdu::AssociationRQ(mut request))) = read else {
            return Err(WireError::invalid("the association request is malformed"));
        };
        for title in [&mut request.called_ae_title, &mut request.calling_ae_title] {
            *title = bare_title(title).to_owned();
        }
        self.start += whole;
        self.patience.request_due = None;
        Ok(request)
    }

    /// Waits for the first fragment of a message, or the release. May be interrupted by a stop.
    pub(super) fn next_message(&mut self) -> Result<Next, WireError> {
        self.patience.between_messages = true;
        self.patience.check(Instant::now())?;
        while self.fragment_bytes()?.is_some() {}
        if self.start == self.end {
            self.read_more()?;
        }
        // Something has come: the whole command set has the time of one silence, no more.
        self.patience.request_due = Instant::now().checked_add(self.patience.idle_max);
        let next = self.next()?;
        self.patience.between_messages = false;
        self.patience.pace.restart();
        Ok(next)
    }

    /// The command set of the message is there: a data set has the time that its bytes need.
    pub(super) fn command_is_whole(&mut self) {
        self.patience.request_due = None;
        self.patience.pace.restart();
    }

    /// Waits for the next fragment of the message under way.
    pub(super) fn next_fragment(&mut self) -> Result<Fragment, WireError> {
        match self.next()? {
            Next::Fragment(fragment) => Ok(fragment),
            Next::Release => Err(WireError::unexpected("a release came within a message")),
        }
    }

    /// The next bytes of the current fragment as they come; `None` at its end.
    pub(super) fn fragment_bytes(&mut self) -> Result<Option<&[u8]>, WireError> {
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
    pub(super) fn send(&mut self, pdu: &[u8]) -> Result<(), WireError> {
        self.stream.write_all(pdu)?;
        Ok(())
    }

    /// Sends the last PDU and waits until the peer hangs up: closing earlier, with bytes unread,
    /// would reset the connection and could take that PDU from the peer.
    pub(super) fn send_last(mut self, pdu: &[u8]) -> Result<(), WireError> {
        self.send(pdu)?;
        self.stream.shutdown(Half::Write)?;
        let since = Instant::now();
        let mut unread = 0;
        while since.elapsed() < LINGER_TIME && unread < LINGER_BYTES_MAX {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(length) => unread += length,
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Next, WireError> {
        while self.fragment_bytes()?.is_some() {}
        if self.pdu_rest == 0 {
            let (kind, length) = self.pdu_header()?;
            if length > self.pdu_bytes_max {
                return Err(WireError::invalid("a PDU is longer than was negotiated"));
            }
            match kind {
                0x04 => self.start_pdata(length)?,
                0x05 => return self.skip_body(length).map(|()| Next::Release),
                0x07 => return Err(WireError::Aborted),
                0x01..=0x06 => return Err(WireError::unexpected("a PDU of another state")),
                _ => {
                    return Err(WireError::Protocol {
                        reason: AbortReason::UnrecognizedPdu,
                        what: "a PDU of an unknown type",
                    });
                }
            }
        }
        self.fragment_header().map(Next::Fragment)
    }

    fn start_pdata(&mut self, length: u32) -> Result<(), WireError> {
        if length < PDV_HEADER_BYTES {
            return Err(WireError::invalid("a P-DATA-TF without a value"));
        }
        self.start += PDU_HEADER_BYTES;
        self.pdu_rest = length;
        Ok(())
    }

    fn skip_body(&mut self, length: u32) -> Result<(), WireError> {
        let whole = PDU_HEADER_BYTES + as_usize(length);
        if length != 4 {
            return Err(WireError::invalid("a release request of a wrong length"));
        }
        self.fill(whole)?;
        self.start += whole;
        Ok(())
    }

    fn fragment_header(&mut self) -> Result<Fragment, WireError> {
        if self.pdu_rest < PDV_HEADER_BYTES {
            return Err(WireError::invalid("a P-DATA-TF ends within a value's head"));
        }
        let [a, b, c, d, context, control] = self.fill_exact()?;
        // The item's length counts the context and the control header, but not itself.
        let item_length = u32::from_be_bytes([a, b, c, d]);
        if item_length < 2 || item_length > self.pdu_rest - 4 {
            return Err(WireError::invalid("a value is longer than its P-DATA-TF"));
        }
        self.start += as_usize(PDV_HEADER_BYTES);
        self.pdu_rest -= 4 + item_length;
        self.fragment_rest = item_length - 2;
        Ok(Fragment {
            context,
            is_command: control & 0x01 != 0,
            is_last: control & 0x02 != 0,
        })
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
            acknowledge_at_once(&self.stream);
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(WireError::Closed),
                Ok(length) => {
                    self.end += length;
                    if !self.patience.between_messages {
                        self.patience.pace.came(length, since.elapsed())?;
                    }
                    return self.patience.check(since);
                }
                Err(error) if is_timeout(&error) => self.patience.check(since)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Has the system acknowledge what comes next without delay.
///
/// A sender with Nagle's algorithm on, such as DCMTK as installed, holds the end of each PDU back
/// until the piece before it is acknowledged: 40 ms an image, if that is delayed. Linux leaves this
/// mode by itself, so it is set anew before each read.
fn acknowledge_at_once(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_quickack(true) {
        tracing::trace!(%error, "quick acknowledgements are not available");
    }
}

/// An AE title without its padding: blanks (PS3.5 section 6.2), or NULs as of a C string, behind
/// which anything may stand.
fn bare_title(field: &str) -> &str {
    let text = field.trim_start_matches(['\0', ' ']);
    text.split('\0').next().unwrap_or_default().trim()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
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
