//! The one place that reads the clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

/// Tells the time and waits for it. Clones tell the same time.
///
/// Two readings: [`Clock::now`] is the wall clock, for records; [`Clock::monotonic`] never goes
/// back, for deadlines, so a corrected wall clock neither hastens nor delays a study.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Set(Arc<Dial>),
}

/// A clock that moves only when a test moves it.
#[derive(Debug)]
struct Dial {
    started_at: Timestamp,
    elapsed: watch::Sender<Duration>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System {
            started: Instant::now(),
        })
    }

    /// A clock that stands at `started_at` until [`Clock::advance`] moves it. For tests.
    pub fn stopped_at(started_at: Timestamp) -> Self {
        Self(Source::Set(Arc::new(Dial {
            started_at,
            elapsed: watch::Sender::new(Duration::ZERO),
        })))
    }

    /// The time of day, for records.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => Timestamp::now(),
            Source::Set(dial) => dial.started_at + *dial.elapsed.borrow(),
        }
    }

    /// Time since this clock was made, for deadlines and durations.
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { started } => started.elapsed(),
            Source::Set(dial) => *dial.elapsed.borrow(),
        }
    }

    /// Returns once [`Clock::monotonic`] has reached `deadline`.
    pub async fn sleep_until(&self, deadline: Duration) {
        match &self.0 {
            Source::System { started } => {
                tokio::time::sleep_until((*started + deadline).into()).await;
            }
            Source::Set(dial) => {
                let mut elapsed = dial.elapsed.subscribe();
                // The sender lives in `dial`, which this future borrows, so this cannot fail.
                drop(elapsed.wait_for(|elapsed| *elapsed >= deadline).await);
            }
        }
    }

    /// Moves a clock made by [`Clock::stopped_at`]; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Set(dial) = &self.0 {
            dial.elapsed.send_modify(|elapsed| *elapsed += by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_the_set_clock_reaches_its_deadline() {
        let clock = Clock::stopped_at(Timestamp::UNIX_EPOCH);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(Duration::from_secs(5)).await }
        });
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now().as_second(), 5);
    }

    #[test]
    fn the_machines_clock_cannot_be_moved() {
        let clock = Clock::system();
        clock.advance(Duration::from_hours(1));
        assert!(clock.monotonic() < Duration::from_hours(1));
    }
}
