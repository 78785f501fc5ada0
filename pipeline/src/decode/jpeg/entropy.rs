//! Entropy-coded data: bits, and the restart intervals that they come in.

use std::ops::Range;

use super::{EOI, JpegError, Result, SOS};

/// Bytes of the same value that a writer may put after an interval's last bit, at most.
const FILL_BYTES_MAX: usize = 8;

/// Bits of one restart interval, first bit highest (ITU-T T.81 F.2.2.5). Behind its end zeros are
/// given; [`Bits::finish`] tells whether one of them was taken.
pub(super) struct Bits<'a> {
    whole: &'a [u8],
    rest: &'a [u8],
    /// The next bits, from the left.
    window: u64,
    /// How many bits of the window count.
    held: u32,
    /// How many of these were not in the data.
    made_up: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            whole: bytes,
            rest: bytes,
            window: 0,
            held: 0,
            made_up: 0,
        }
    }

    /// Makes sure that 56 bits or more are held: enough for a code (16) and its further bits (16).
    #[inline]
    pub(super) fn refill(&mut self) {
        if let Some(chunk) = self.rest.first_chunk::<8>() {
            // The byte that fits in part only is written again by the next refill: the same bits.
            self.window |= u64::from_be_bytes(*chunk) >> self.held;
            self.rest = &self.rest[((63 - self.held) / 8) as usize..];
            // Up to 56 or more, by whole bytes.
            self.held |= 0b11_1000;
        } else {
            self.refill_at_end();
        }
    }

    #[cold]
    fn refill_at_end(&mut self) {
        while self.held <= 56 {
            let byte = if let Some((byte, rest)) = self.rest.split_first() {
                self.rest = rest;
                *byte
            } else {
                self.made_up += 8;
                0
            };
            self.window |= u64::from(byte) << (56 - self.held);
            self.held += 8;
        }
    }

    /// The next `count` bits, up to 16, as a number.
    #[inline]
    pub(super) fn peek(&self, count: u32) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "no more than 16 bits are left"
        )]
        let bits = (self.window >> 1 >> (63 - count)) as u32;
        bits
    }

    /// Takes `count` bits, no more than are held.
    #[inline]
    pub(super) fn skip(&mut self, count: u32) {
        self.window <<= count;
        self.held -= count;
    }

    /// Takes a difference of `count` ≤ 16 bits (F.2.2.1, EXTEND).
    #[inline]
    pub(super) fn take_signed(&mut self, count: u32) -> i32 {
        let value = self.peek(count).cast_signed();
        self.skip(count);
        if count > 0 && value < 1 << (count - 1) {
            value - (1 << count) + 1
        } else {
            value
        }
    }

    /// Checks that all bits taken were there, and that none are left but what fills up the end.
    pub(super) fn finish(&self) -> Result<()> {
        let left = (self.held as usize + 8 * self.rest.len())
            .checked_sub(self.made_up)
            .ok_or(JpegError::Truncated)?
            / 8;
        let fill = &self.whole[self.whole.len() - left..];
        let is_fill = |value: u8| fill.iter().all(|byte| *byte == value);
        if left <= FILL_BYTES_MAX && (is_fill(0) || is_fill(0xFF)) {
            Ok(())
        } else {
            Err(JpegError::LeftOver(left))
        }
    }
}

/// Restart intervals one after another, without stuffed bytes (F.1.2.3).
struct Intervals<'a> {
    rest: &'a [u8],
    bytes: Vec<u8>,
}

impl Intervals<'_> {
    /// Puts the next interval into `bytes` and gives the marker after it; `None` where the data end.
    fn advance(&mut self) -> Option<u8> {
        self.bytes.clear();
        loop {
            let end = self.rest.iter().position(|byte| *byte == 0xFF);
            let (data, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            self.bytes.extend_from_slice(data);
            match rest {
                [0xFF, 0, after @ ..] => {
                    self.bytes.push(0xFF);
                    self.rest = after;
                }
                // A fill byte before a marker.
                [0xFF, 0xFF, ..] => self.rest = &rest[1..],
                [0xFF, marker, after @ ..] => {
                    self.rest = after;
                    return Some(*marker);
                }
                _ => {
                    self.rest = &[];
                    return None;
                }
            }
        }
    }
}

/// Lets `decode` take each restart interval's units, of `total` all together, from its bits.
pub(super) fn each_interval(
    data: &[u8],
    total: usize,
    restart_interval: usize,
    mut decode: impl FnMut(&mut Bits<'_>, Range<usize>) -> Result<()>,
) -> Result<()> {
    let step = if restart_interval == 0 {
        total
    } else {
        restart_interval
    };
    let mut intervals = Intervals {
        rest: data,
        bytes: Vec::with_capacity(data.len()),
    };
    let (mut done, mut restart) = (0, 0);
    while done < total {
        let marker = intervals.advance();
        let end = total.min(done.saturating_add(step));
        let mut bits = Bits::new(&intervals.bytes);
        decode(&mut bits, done..end)?;
        bits.finish()?;
        done = end;
        if done < total {
            match marker {
                Some(found) if found == 0xD0 + restart => restart = (restart + 1) % 8,
                None => return Err(JpegError::Truncated),
                Some(_) => return Err(JpegError::RestartMissing(restart)),
            }
        } else {
            check_end(marker, restart, &mut intervals)?;
        }
    }
    Ok(())
}

/// What may stand behind the last pixel: the end of the image, of the data, or one restart more, as
/// some writers put after every interval.
fn check_end(marker: Option<u8>, restart: u8, intervals: &mut Intervals<'_>) -> Result<()> {
    match marker {
        Some(SOS) => Err(JpegError::Unsupported("several scans")),
        Some(found) if found == 0xD0 + restart => {
            let after = intervals.advance();
            match (intervals.bytes.len(), after) {
                (0, None | Some(EOI)) => Ok(()),
                (left, _) => Err(JpegError::LeftOver(left)),
            }
        }
        Some(0xD0..=0xD7) => Err(JpegError::RestartMissing(restart)),
        Some(_) | None => Ok(()),
    }
}
