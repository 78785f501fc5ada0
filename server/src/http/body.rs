//! A request's body, pulled piece by piece: limited in bytes, and in time only while nothing comes.
//!
//! A clinic on a weak link may need an hour for a study, so there is no limit on the whole time of
//! an upload; a sender that falls silent is cut off.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use tokio_stream::StreamExt;

use super::problem::Problem;

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
            BodyError::Broken => Self::bad_request("truncated", format!("{error}.")),
        }
    }
}

/// A body that is being read.
#[derive(Debug)]
pub struct BodyReader {
    stream: BodyDataStream,
    idle: Duration,
    bytes_max: u64,
    bytes_left: u64,
}

impl BodyReader {
    /// Reads `body`, `bytes_max` bytes at most, waiting `idle` at most for each piece.
    pub fn new(body: Body, bytes_max: u64, idle: Duration) -> Self {
        Self {
            stream: body.into_data_stream(),
            idle,
            bytes_max,
            bytes_left: bytes_max,
        }
    }

    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    ///
    /// [`BodyError`]; the body is then of no more use.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let piece = tokio::time::timeout(self.idle, self.stream.next())
            .await
            .map_err(|_elapsed| BodyError::Idle { idle: self.idle })?;
        let Some(piece) = piece else { return Ok(None) };
        let piece = piece.map_err(|_error| BodyError::Broken)?;
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
}
