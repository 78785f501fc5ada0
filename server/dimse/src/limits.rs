//! What one connection may take: bytes, and time.

use std::time::Duration;

use fairness::pace::Pace;

/// Limits of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// Longest P-DATA-TF that the peer may send, bytes, without its header (PS3.8 annex D.1).
    pub pdu_bytes_max: u32,
    /// Longest command set, bytes.
    pub command_bytes_max: usize,
    /// Longest time from the connection to the association request, or to the answer to ours
    /// (ARTIM, PS3.8 section 9.1.5).
    pub establish_time_max: Duration,
    /// Longest silence of the peer within an association, longest time from the first byte of a
    /// command set to its last, and longest time that the peer may leave our bytes untaken.
    pub idle_time_max: Duration,
    /// Least speed of a data set that is being received, bytes each second, over any
    /// `idle_time_max` that was spent waiting for the peer. 0: none.
    pub data_set_bytes_per_second_min: u64,
    /// Longest time that a message under way is given to end once a stop is asked for.
    pub stop_time_max: Duration,
}

impl WireLimits {
    /// The pace that is asked of the peer within a message.
    pub(crate) fn pace(&self) -> Pace {
        Pace::new(self.data_set_bytes_per_second_min, self.idle_time_max)
    }
}
