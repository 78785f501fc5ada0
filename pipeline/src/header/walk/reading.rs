//! Bytes of a data set, taken one after the other and counted; and what is said when they end.

use std::io::{ErrorKind, Read};

use super::{Blind, Walker};
use crate::header::Refusal;
use crate::limits::Limits;
use crate::reason::ReasonCode;

impl<R: Read> Walker<'_, R> {
    /// The next `count` bytes, or as many as there are; they are not taken.
    pub(super) fn look_ahead(&mut self, count: usize) -> Result<&[u8], Refusal> {
        let missing = count.saturating_sub(self.ahead.len());
        if missing > 0 {
            let mut more = Vec::with_capacity(missing);
            (&mut self.source)
                .take(missing as u64)
                .read_to_end(&mut more)
                .map_err(|error| self.unreadable(&error))?;
            self.ahead.extend(more);
        }
        let length = count.min(self.ahead.len());
        Ok(&self.ahead.make_contiguous()[..length])
    }

    pub(super) fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        if self.read_up_to(bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(self.truncated("it breaks off inside an element"))
        }
    }

    /// Fills `bytes` as far as the source goes.
    pub(super) fn read_up_to(&mut self, bytes: &mut [u8]) -> Result<usize, Refusal> {
        let mut filled = 0;
        while filled < bytes.len() {
            // Reading from the queue never fails.
            let read = if self.ahead.is_empty() {
                self.source.read(&mut bytes[filled..])
            } else {
                self.ahead.read(&mut bytes[filled..])
            };
            match read {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(&error)),
            }
        }
        self.advance(filled as u64)?;
        Ok(filled)
    }

    /// Passes over `length` bytes without keeping them.
    pub(in crate::header) fn skip(&mut self, length: u32) -> Result<(), Refusal> {
        self.refuse_beyond_end(length)?;
        let length = u64::from(length);
        let within = self.limits.header_bytes_max.saturating_sub(self.position);
        let mut part = (&mut self.ahead)
            .chain(&mut self.source)
            .take(length.min(within + 1));
        let skipped = std::io::copy(&mut part, &mut std::io::sink())
            .map_err(|error| self.unreadable(&error))?;
        self.advance(skipped)?;
        if skipped < length {
            return Err(self.truncated("it breaks off inside an element"));
        }
        Ok(())
    }

    /// Passes over pixel data of `pixel_bytes` and walks what follows it, under the limit for
    /// whole objects.
    pub(in crate::header) fn check_rest(mut self, pixel_bytes: u32) -> Result<(), Refusal> {
        let object_limits = Limits {
            header_bytes_max: self.limits.object_bytes_max,
            header_elements_max: usize::MAX,
            ..self.limits.clone()
        };
        self.position = 0;
        let mut rest = Walker {
            limits: &object_limits,
            source: self.source,
            ..self
        };
        rest.skip(pixel_bytes)?;
        match rest.run(&mut Blind) {
            Err(refusal) if refusal.reason.code == ReasonCode::LimitExceeded => Err(refusal),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    pub(super) fn advance(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.position += bytes;
        if self.position > self.limits.header_bytes_max {
            return Err(Refusal::new(
                ReasonCode::LimitExceeded,
                format!(
                    "The header is longer than {} bytes.",
                    self.limits.header_bytes_max
                ),
            ));
        }
        Ok(())
    }

    /// Refuses a value that claims more bytes than there are, before any memory is taken for it.
    pub(super) fn refuse_beyond_end(&self, length: u32) -> Result<(), Refusal> {
        match self.length {
            Some(total) if self.position + u64::from(length) > total => {
                Err(self.truncated(&format!(
                    "an element claims {length} bytes, {} are left",
                    total - self.position
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn truncated(&self, what: &str) -> Refusal {
        Refusal::new(
            ReasonCode::Truncated,
            format!(
                "The header ends too soon: {what}, at byte {} of the data set. Send the object again.",
                self.position
            ),
        )
    }

    pub(super) fn malformed(&self, what: &str) -> Refusal {
        Refusal::new(
            ReasonCode::NotDicom,
            format!("Not a DICOM data set: {what}, at byte {}.", self.position),
        )
    }

    pub(super) fn unreadable(&self, error: &std::io::Error) -> Refusal {
        Refusal::new(
            ReasonCode::Truncated,
            format!(
                "The data set cannot be read beyond byte {}: {error}.",
                self.position
            ),
        )
    }
}
