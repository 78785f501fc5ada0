//! How long to wait for a peer.

use std::time::{Duration, Instant};

use fairness::pace::Pace;
use tokio::sync::watch;

use super::WireError;
use crate::limits::WireLimits;

/// How long to wait for a peer, and for what.
#[derive(Debug)]
pub(super) struct Patience {
    idle_time_max: Duration,
    stop_time_max: Duration,
    /// What establishes the association, or the command set that has begun, must be whole by then.
    due: Option<Instant>,
    /// Of the message under way.
    pace: Pace,
    /// No message is under way: a stop may come at once.
    between_messages: bool,
    stopping_since: Option<Instant>,
    /// Says true once a stop is asked for; absent where nobody asks.
    shutdown: Option<watch::Receiver<bool>>,
}

impl Patience {
    /// Of a connection that begins now.
    pub(super) fn new(limits: &WireLimits, shutdown: Option<watch::Receiver<bool>>) -> Self {
        Self {
            idle_time_max: limits.idle_time_max,
            stop_time_max: limits.stop_time_max,
            due: Instant::now().checked_add(limits.establish_time_max),
            pace: limits.pace(),
            between_messages: true,
            stopping_since: None,
            shutdown,
        }
    }

    /// The association is established.
    pub(super) fn is_established(&mut self) {
        self.due = None;
    }

    /// No message is under way.
    ///
    /// # Errors
    ///
    /// [`WireError::Stopping`] once a stop is asked for.
    pub(super) fn message_awaited(&mut self) -> Result<(), WireError> {
        self.between_messages = true;
        self.check(Instant::now())
    }

    /// Something has come: the whole command set has the time of one silence, no more.
    pub(super) fn command_begun(&mut self) {
        self.due = Instant::now().checked_add(self.idle_time_max);
    }

    /// A message is under way.
    pub(super) fn message_begun(&mut self) {
        self.between_messages = false;
        self.pace.restart();
    }

    /// The command set of the message is there: a data set has the time that its bytes need.
    pub(super) fn command_is_whole(&mut self) {
        self.due = None;
        self.pace.restart();
    }

    /// `bytes` came, waited for since `waiting_since`.
    pub(super) fn came(&mut self, bytes: usize, waiting_since: Instant) -> Result<(), WireError> {
        if !self.between_messages {
            self.pace.came(bytes, waiting_since.elapsed())?;
        }
        self.check(waiting_since)
    }

    /// Whether to wait on, for what has been waited for since `waiting_since`.
    pub(super) fn check(&mut self, waiting_since: Instant) -> Result<(), WireError> {
        if waiting_since.elapsed() > self.idle_time_max
            || self.due.is_some_and(|due| Instant::now() > due)
        {
            return Err(WireError::Silent);
        }
        let shutdown = self.shutdown.as_ref();
        if shutdown.is_some_and(|shutdown| *shutdown.borrow()) {
            let since = *self.stopping_since.get_or_insert_with(Instant::now);
            if self.between_messages || since.elapsed() > self.stop_time_max {
                return Err(WireError::Stopping);
            }
        }
        Ok(())
    }
}
