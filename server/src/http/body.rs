//! A request's body, pulled piece by piece: limited in bytes, and in time only while nothing comes.
//!
//! A clinic on a weak link may need an hour for a study, so there is no limit on the whole time of
//! an upload; a sender that falls silent, or brings next to nothing, is cut off.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::problem::Problem;
use fairness::pace::{Pace, TooSlow};

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than the limit.
    #[error("the request is larger than {bytes_max} bytes")]
    TooLarge {
        /// The limit, bytes.
        bytes_max: u64,
    },
    /// Nothing came for too long.
    #[error("nothing came for {} seconds", idle.as_secs())]
    Idle {
        /// The limit.
        idle: Duration,
    },
    /// Too little came.
    #[error(transparent)]
    Slow(#[from] TooSlow),
    /// The connection broke, or its chunks are malformed.
    #[error("the connection broke before the request was complete")]
    Broken,
}

impl From<&BodyError> for Problem {
    fn from(error: &BodyError) -> Self {
        match error {
            BodyError::TooLarge { .. } => {
                Self::too_large(format!("{error}; send it in several requests."))
            }
            BodyError::Idle { .. } => {
                let status = axum::http::StatusCode::REQUEST_TIMEOUT;
                Self::new(status, "idle", format!("{error}; send it again."))
            }
            BodyError::Slow(_) => {
                let status = axum::http::StatusCode::REQUEST_TIMEOUT;
                Self::new(
                    status,
                    "slow",
                    format!("{error}; send it over a better line."),
                )
            }
            BodyError::Broken => Self::bad_request("truncated", format!("{error}.")),
        }
    }
}

/// A body that is being read.
#[derive(Debug)]
pub struct BodyReader {
    stream: BodyDataStream,
    idle: Duration,
    pace: Pace,
    bytes_max: u64,
    bytes_left: u64,
}

impl BodyReader {
    /// Reads `body`, `bytes_max` bytes at most, waiting `idle` at most for each piece.
    pub fn new(body: Body, bytes_max: u64, idle: Duration) -> Self {
        Self {
            stream: body.into_data_stream(),
            idle,
            pace: Pace::new(0, idle),
            bytes_max,
            bytes_left: bytes_max,
        }
    }

    /// The same, with a least speed.
    #[must_use]
    pub fn at_least(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    ///
    /// [`BodyError`]; the body is then of no more use.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let since = Instant::now();
        let piece = tokio::time::timeout(self.idle, self.stream.next())
            .await
            .map_err(|_elapsed| BodyError::Idle { idle: self.idle })?;
        let Some(piece) = piece else { return Ok(None) };
        let piece = piece.map_err(|_error| BodyError::Broken)?;
        self.pace.came(piece.len(), since.elapsed())?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let left = self.bytes_left.checked_sub(length);
        self.bytes_left = left.ok_or(BodyError::TooLarge {
            bytes_max: self.bytes_max,
        })?;
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_byte_more_than_the_limit_is_refused() {
        let whole = || Body::from("12345");
        let idle = Duration::from_secs(5);
        let mut fits = BodyReader::new(whole(), 5, idle);
        assert_eq!(fits.next().await.unwrap().unwrap(), "12345");
        assert!(fits.next().await.unwrap().is_none());
        let refused = BodyReader::new(whole(), 4, idle).next().await;
        assert!(matches!(refused, Err(BodyError::TooLarge { bytes_max: 4 })));
    }

    #[tokio::test]
    async fn a_sender_that_falls_silent_is_cut_off() {
        let silent = Body::from_stream(tokio_stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = BodyReader::new(silent, 5, Duration::from_millis(5))
            .next()
            .await;
        assert!(matches!(refused, Err(BodyError::Idle { .. })));
    }

    /// How a body of fifty pieces, one each 20 ms, ends where 100 bytes a window are asked.
    async fn end_of(piece: &'static str) -> Result<(), BodyError> {
        let pieces = tokio_stream::iter(0..50).throttle(Duration::from_millis(20));
        let pieces = pieces.map(move |_| Ok::<_, std::io::Error>(piece));
        let pace = Pace::new(100, Duration::from_millis(200));
        let idle = Duration::from_mins(1);
        let mut reader = BodyReader::new(Body::from_stream(pieces), 1 << 20, idle).at_least(pace);
        while reader.next().await?.is_some() {}
        Ok(())
    }

    #[tokio::test]
    async fn a_trickle_is_cut_off_and_a_weak_line_is_not() {
        let slow = end_of("1").await;
        assert!(matches!(slow, Err(BodyError::Slow(_))), "{slow:?}");
        end_of("a piece of bytes that is more than enough for what is asked, although a loaded machine may be late")
            .await
            .unwrap();
    }
}
