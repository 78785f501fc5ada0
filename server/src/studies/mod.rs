//! Stored objects → studies: header read, assembled, queued, analysed, told.
//!
//! One task owns every study that is not at its end; nobody else changes one. It works in turns:
//! something happens (objects, a sender's end, a quiet time's end, an answer about completeness, a
//! result), studies change in memory, the turn ends by writing all changes in one transaction and
//! only then telling them. Memory is bounded: studies at their end and the tail of a long queue
//! are kept by the database and the object files alone.

mod assembler;
mod life;
mod queue;
mod scan;
mod study;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::AssemblyConfig;
use crate::events::Events;
use crate::intake::IntakeEvent;
use crate::worker::{Workers, WorkersOptions};
use store::artefacts::ArtefactStore;
use store::state::{State, StateError, Trouble};

use assembler::Assembler;
use pipeline::limits::Limits;

/// Longest wait for running analyses when Tez is stopped; what is not done by then is done again
/// after the next start.
const STOP_SECONDS_MAX: u64 = 10;
/// Time beyond that for writing out what is known; less while the database takes nothing.
const WRITE_SECONDS_MAX: u64 = 3;

/// What the studies are assembled with.
#[derive(Clone, Debug)]
pub struct StudiesOptions {
    /// When a study counts as received.
    pub assembly: AssemblyConfig,
    /// What the pipeline refuses to exceed.
    pub limits: Limits,
    /// Tells the time.
    pub clock: Clock,
    /// Where studies are kept.
    pub state: State,
    /// Where they are told of.
    pub events: Events,
    /// Where artefacts are kept.
    pub artefacts: ArtefactStore,
    /// Who analyses.
    pub workers: WorkersOptions,
    /// After so many lost workers a study ends as not analysed.
    pub attempts_max: i64,
}

/// The running task.
#[derive(Debug)]
pub struct Studies {
    state: State,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Studies {
    /// Takes up what was left at the last stop, then consumes `intake` until [`Studies::stop`].
    ///
    /// Files that the start found, which the database lists, are taken in first.
    ///
    /// # Errors
    ///
    /// [`StateError`] if the database cannot be read.
    pub async fn start(
        parts: StudiesOptions,
        intake: mpsc::Receiver<IntakeEvent>,
    ) -> Result<Self, StateError> {
        let (ends_sender, ends) = mpsc::unbounded_channel();
        let workers = Workers::start(&parts.workers, &ends_sender);
        let state = parts.state.clone();
        let mut assembler = Assembler::new(parts, workers).await?;
        assembler.recover().await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(assembler.run(intake, ends, stopped));
        Ok(Self { state, stop, task })
    }

    /// Takes in what the intake has told so far, waits a moment for running analyses, and ends.
    ///
    /// It does not wait for a database that takes nothing: every acknowledged object is on disk, and
    /// the next start reads those again that the database does not know.
    pub async fn stop(self) {
        let seconds = match self.state.trouble() {
            None => STOP_SECONDS_MAX + WRITE_SECONDS_MAX,
            Some(_) => WRITE_SECONDS_MAX,
        };
        // The task also ends when the intake is gone; then nobody hears this, and nobody needs to.
        drop(self.stop);
        let mut task = self.task;
        let ended = match tokio::time::timeout(Duration::from_secs(seconds), &mut task).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                let trouble = self.state.trouble().map(Trouble::label);
                tracing::warn!(
                    trouble,
                    "not everything was written into the database; the next start reads it from the objects"
                );
                task.abort();
                task.await
            }
        };
        if let Err(error) = ended
            && !error.is_cancelled()
        {
            tracing::error!(%error, "the task of the studies failed");
        }
    }
}

/// [`STOP_SECONDS_MAX`].
fn stop_time_max() -> Duration {
    Duration::from_secs(STOP_SECONDS_MAX)
}

#[cfg(test)]
mod tests;
