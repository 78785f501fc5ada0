//! The least speed that is asked of a sender.
//!
//! A sender that brings one byte at a time is never silent, and would hold its place for ever. So
//! bytes are counted over windows of the time that was spent waiting for the sender: the time that
//! our disk takes is not held against it, and a pause shorter than the window costs nothing.

use std::time::Duration;

/// The bytes that came in the present window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    bytes_per_second_min: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

/// A sender was too slow over a whole window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sender brought {bytes} bytes in {} seconds; at least {bytes_per_second_min} each second \
     are asked",
    window.as_secs()
)]
pub struct TooSlow {
    bytes: u64,
    window: Duration,
    bytes_per_second_min: u64,
}

impl Pace {
    /// Asks for `bytes_per_second_min` over every `window` of waiting; 0 asks for nothing.
    pub fn new(bytes_per_second_min: u64, window: Duration) -> Self {
        Self {
            bytes_per_second_min,
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Begins a window: what came before counts no more.
    pub fn restart(&mut self) {
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }

    /// `bytes` came after `waited`.
    ///
    /// # Errors
    ///
    /// [`TooSlow`] at the end of a window with too few.
    pub fn came(&mut self, bytes: usize, waited: Duration) -> Result<(), TooSlow> {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.waited < self.window {
            return Ok(());
        }
        let asked = self
            .bytes_per_second_min
            .saturating_mul(self.window.as_secs().max(1));
        if self.bytes < asked {
            return Err(TooSlow {
                bytes: self.bytes,
                window: self.window,
                bytes_per_second_min: self.bytes_per_second_min,
            });
        }
        self.restart();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many pieces of `bytes`, one each second, are taken; `None`: no end is seen.
    fn taken(bytes: usize) -> Option<usize> {
        let mut pace = Pace::new(100, 10 * SECOND);
        (1..1_000).find(|_| pace.came(bytes, SECOND).is_err())
    }

    #[test]
    fn a_trickle_ends_with_the_first_window_and_the_least_speed_never() {
        assert_eq!(taken(1), Some(10));
        assert_eq!(taken(99), Some(10));
        assert_eq!(taken(100), None);
    }

    #[test]
    fn a_pause_is_made_good_by_what_comes_around_it() {
        let mut pace = Pace::new(100, 10 * SECOND);
        pace.came(5_000, SECOND).unwrap();
        pace.came(1, 8 * SECOND).unwrap();
        pace.came(1, SECOND).unwrap();
        pace.came(1, 9 * SECOND).unwrap();
        let error = pace.came(1, SECOND).unwrap_err().to_string();
        assert!(error.contains("2 bytes in 10 seconds"), "{error}");
    }

    #[test]
    fn nothing_is_asked_where_the_setting_is_0() {
        let mut pace = Pace::new(0, SECOND);
        assert!((0..100).all(|_| pace.came(0, SECOND).is_ok()));
    }
}
