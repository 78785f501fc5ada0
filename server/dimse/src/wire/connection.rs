//! The stream under a wire: the one file that knows that it is TCP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How often a waiting read looks at the clock and for the end of the service.
const POLL_TIME: Duration = Duration::from_millis(250);
/// How long a peer may take to hang up after the last PDU, and how much it may still send.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A connected stream of bytes.
#[derive(Debug)]
pub(super) struct Connection(TcpStream);

impl Connection {
    /// Takes over a stream whose peer may leave our bytes untaken for `write_time_max`.
    pub(super) fn new(stream: TcpStream, write_time_max: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(POLL_TIME))?;
        stream.set_write_timeout(Some(write_time_max))?;
        Ok(Self(stream))
    }

    /// How many bytes came into `buffer`, 0 at the end; `None` if none came within [`POLL_TIME`].
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        acknowledge_at_once(&self.0);
        match self.0.read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Ends writing and waits until the peer hangs up: closing earlier, with bytes unread, would
    /// reset the connection and could take what was written last from the peer. What still comes
    /// is read into `scratch` and dropped.
    pub(super) fn linger(mut self, scratch: &mut [u8]) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)?;
        let since = Instant::now();
        let mut unread = 0;
        while since.elapsed() < LINGER_TIME && unread < LINGER_BYTES_MAX {
            match self.0.read(scratch) {
                Ok(0) => break,
                Ok(length) => unread += length,
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Has the system acknowledge what comes next without delay.
///
/// A peer with Nagle's algorithm on, such as DCMTK as installed, holds the end of each PDU back
/// until the piece before it is acknowledged: 40 ms an image, if that is delayed. Linux leaves this
/// mode by itself, so it is set anew before each read.
fn acknowledge_at_once(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_quickack(true) {
        tracing::trace!(%error, "quick acknowledgements are not available");
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
