//! Queued studies → answers, each analysed by a process of its own that may die.
//!
//! A study that hangs, or brings ONNX Runtime down, takes its worker with it and nothing else: the
//! service starts another, tries the study once more, and then says why it has no result. The
//! service ([`Workers`]) and a worker ([`child`]) speak over one stream ([`protocol`]).

mod analyse;
mod child;
mod headers;
mod protocol;
mod workers;

use std::path::PathBuf;

use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;

pub use analyse::{Analyse, Answer, Inference, not_analysed};
pub use child::{Make, run, run_with};
pub use headers::{Headers, read_headers};
pub use protocol::{DecodedFolder, WorkerSettings};
pub use workers::{Launch, Launched, Workers, WorkersOptions, launch_process};

use crate::events::StudyRef;
use models::report::StudyReport;

/// The objects of a study that is to be analysed.
#[derive(Clone, Debug)]
pub enum JobObjects {
    /// Their headers.
    Read(Headers),
    /// Their files, in the order in which they came, and what was not taken: the headers of a long
    /// queue are not kept.
    Paths(Vec<PathBuf>, Vec<UnreadObject>),
}

/// One study for a worker.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which study, and which round of it.
    pub study: StudyRef,
    /// Its Study Instance UID, where other patients share it: that of the row was made for it.
    pub shared_study_uid: Option<Uid>,
    /// Its sender broke off.
    pub broken_off: bool,
    /// What it consists of.
    pub objects: JobObjects,
}

/// What became of a [`Job`].
#[derive(Debug)]
pub struct JobEnd {
    /// Which study, and which round of it.
    pub study: StudyRef,
    /// How it ended.
    pub how: JobResult,
}

/// How a job ended.
#[derive(Debug)]
pub enum JobResult {
    /// There is a report, and the artefacts' bytes; no bytes where nothing was analysed.
    Done(Box<StudyReport>, Vec<u8>),
    /// The worker was lost under it.
    Lost(Loss),
}

/// Why a worker was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It took longer than it may, seconds, and was ended.
    TimedOut(u64),
    /// It gave no sign of life any more, and was ended.
    Silent,
    /// It died, as these words say.
    Died(String),
}

impl Loss {
    /// Why a study that was tried `attempts` times has no result.
    pub fn reason(&self, attempts: i64) -> Reason {
        let tries = match attempts {
            1 => "once".to_owned(),
            _ => format!("{attempts} times"),
        };
        let what_to_do = "Read the study yourself now. Then see the log, and send the study again to \
                          have it tried again.";
        match self {
            Self::TimedOut(seconds) => Reason::new(
                ReasonCode::AnalysisTimedOut,
                format!(
                    "The analysis took longer than {seconds} seconds (model.analysis_seconds_max) \
                     and was ended; it was tried {tries}. {what_to_do}"
                ),
            ),
            Self::Silent => Reason::new(
                ReasonCode::WorkerDied,
                format!(
                    "The process that analysed the study gave no sign of life and was ended; the \
                     study was tried {tries}. {what_to_do}"
                ),
            ),
            Self::Died(how) => Reason::new(
                ReasonCode::WorkerDied,
                format!(
                    "The process that analysed the study died ({how}); the study was tried {tries}. \
                     {what_to_do}"
                ),
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
