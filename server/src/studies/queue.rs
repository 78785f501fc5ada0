//! Waiting studies, their jobs, and what comes back.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use models::report::{ReportState, StudyReport};
use pipeline::assembly::{Action, Phase, StudyEvent, step};
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use tokio::task::spawn_blocking;

use super::assembler::{Assembler, Turn};
use crate::events::{StudyRef, What};
use crate::telemetry;
use crate::worker::{Job, JobEnd, JobObjects, JobResult, Loss, not_analysed};
use store::state::{ResultSummary, Round, StateError, StudyState};

/// Waiting studies whose headers are kept; those behind them are read again when their turn comes.
const HELD_STUDIES_MAX: usize = 8;
/// One start in so many takes the study that came first, the others the one that came last.
const OLDEST_EVERY_STARTS: u64 = 4;
/// Pause before the database is tried again; doubled with every try, up to the second one.
const RETRY_TIME: Duration = Duration::from_millis(500);
const RETRY_TIME_MAX: Duration = Duration::from_secs(4);

impl Assembler {
    pub(super) fn enqueue(&mut self, uid: &Uid) {
        let now = self.now();
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        study.row.state = StudyState::Queued;
        study.row.times.queued = Some(now);
        let place = study.place();
        study.queued_as = Some(place.clone());
        self.queue.insert(place);
        self.turn.changed.insert(uid.clone());
        self.put_away();
    }

    /// Keeps the headers of the newest few of a long queue, and leaves the others to the disk.
    fn put_away(&mut self) {
        if self.queue.len() > HELD_STUDIES_MAX
            && let Some((.., uid)) = self.queue.iter().rev().nth(HELD_STUDIES_MAX)
            && let Some(study) = self.open.get_mut(uid)
        {
            study.objects = None;
        }
    }

    /// Gives waiting studies to free workers, as jobs that are sent when the turn ends.
    async fn dispatch(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Some(uid) = self.next_to_start() {
            let objects = self.job_objects(&uid).await;
            let (now, moment) = (self.now(), self.moment(""));
            self.happen(&uid, StudyEvent::AnalysisStarted, moment);
            let Some(study) = self.open.get_mut(&uid) else {
                continue;
            };
            study.row.state = StudyState::Analysing;
            study.row.times.analysis_started = Some(now);
            self.alone = study.row.interruptions > 0;
            let shared_study_uid = study.row.shared_study_uid.clone();
            let broken_off = study.broken_off;
            let study = study.reference();
            self.turn.told.push(What::StudyAnalysing {
                study: study.clone(),
            });
            self.busy += 1;
            jobs.push(Job {
                study,
                shared_study_uid,
                broken_off,
                objects,
            });
        }
        jobs
    }

    /// Takes the next study from the queue, if it may start now. One under which Tez ended before
    /// is analysed alone, so that another end is put down to it and to no other.
    ///
    /// The newest goes first: after an outage, a rebuild or a flood from an archive, the patient who
    /// is in the scanner now does not wait behind hundreds that are hours old. Every fourth start
    /// takes the one that came first, so that none waits for ever.
    fn next_to_start(&mut self) -> Option<Uid> {
        let suspect = self.queue.first()?.0 > 0;
        let places = if suspect { 1 } else { self.workers.count() };
        if self.alone || self.busy >= places {
            return None;
        }
        self.starts = self.starts.wrapping_add(u64::from(!suspect));
        let oldest = suspect || self.starts.is_multiple_of(OLDEST_EVERY_STARTS);
        let place = if oldest {
            self.queue.first()
        } else {
            self.queue.iter().rfind(|place| place.0 == 0)
        };
        let place = place.cloned()?;
        self.queue.remove(&place);
        Some(place.3)
    }

    async fn job_objects(&self, uid: &Uid) -> JobObjects {
        let held = self.open.get(uid).and_then(|study| study.objects.as_ref());
        if let Some(objects) = held {
            return JobObjects::Read(objects.headers.clone());
        }
        let state = &self.parts.state;
        let paths = self.insist(|| state.objects().paths_of(uid)).await;
        JobObjects::Paths(
            paths,
            self.insist(|| state.problems().refused_of(uid)).await,
        )
    }

    /// A study's job ended. Objects that came in the meantime lead to another round.
    pub(super) async fn take_end(&mut self, end: JobEnd) {
        self.busy -= 1;
        self.alone = false;
        match end.how {
            JobResult::Done(report, artefacts) => {
                if let Some(study) = self.open.get_mut(&end.study.study_uid) {
                    study.row.interruptions = 0;
                    study.attempts = 0;
                }
                let artefacts = self.keep_artefacts(&end.study, artefacts).await;
                self.end_round(end.study, *report, artefacts).await;
            }
            JobResult::Lost(loss) => self.take_loss(end.study, &loss).await,
        }
    }

    /// A worker was lost under a study, which is tried again, but not for ever.
    async fn take_loss(&mut self, lost: StudyRef, loss: &Loss) {
        let uid = lost.study_uid.clone();
        let Some(study) = self.open.get_mut(&uid) else {
            return;
        };
        study.attempts += 1;
        let attempts = study.attempts;
        tracing::warn!(
            study = lost.internal_id,
            attempts,
            ?loss,
            "a worker was lost under a study"
        );
        if attempts < self.parts.attempts_max {
            self.happen(&uid, StudyEvent::AnalysisLost, self.moment(""));
            return;
        }
        study.attempts = 0;
        let report = not_analysed(&uid, vec![loss.reason(attempts)]);
        self.end_round(lost, report, None).await;
    }

    /// Ends a study under which Tez has ended too often without another try.
    pub(super) async fn give_up(&mut self, uid: &Uid) {
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        study.phase = Phase::Analysing;
        let report = not_analysed(uid, vec![interrupted_too_often(study.row.interruptions)]);
        let study = study.reference();
        self.end_round(study, report, None).await;
    }

    /// Where the artefacts are kept now. A disk that does not take them does not hold the result up.
    async fn keep_artefacts(&self, study: &StudyRef, bytes: Vec<u8>) -> Option<PathBuf> {
        if bytes.is_empty() {
            return None;
        }
        let (store, study) = (self.parts.artefacts.clone(), study.clone());
        let number = study.internal_id;
        let write = move || store.write(&study.study_uid, study.generation, &bytes);
        let written = spawn_blocking(write).await;
        let log = |error: &io::Error| {
            tracing::error!(%error, study = number, "its masks and scores are not kept");
        };
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        written.inspect_err(log).ok()
    }

    async fn end_round(
        &mut self,
        ended: StudyRef,
        report: StudyReport,
        artefacts: Option<PathBuf>,
    ) {
        let (now, moment) = (self.now(), self.moment(""));
        let uid = ended.study_uid.clone();
        let Some(study) = self.open.get_mut(&uid) else {
            return;
        };
        let (phase, action) = step(study.phase, StudyEvent::AnalysisEnded, moment);
        study.phase = phase;
        let older = study.row.result.result_generation;
        let generation = ended.generation;
        study.row.result = ResultSummary::of(&report, generation);
        study.row.state = end_state(report.state);
        study.row.times.analysed = Some(now);
        let (row, state) = (study.row.clone(), &self.parts.state);
        let round = Round {
            generation,
            report: &report,
            artefacts: artefacts.as_deref(),
            at: now,
        };
        self.insist(|| state.write_result(&row, &round)).await;
        let waited = now.duration_since(row.times.received_last).as_secs_f64();
        let how = row.state.as_str();
        tracing::info!(
            study = row.internal_id,
            generation,
            state = how,
            seconds = waited,
            "result"
        );
        telemetry::count_result(&report, how, waited);
        if let Some(older) = older.filter(|older| *older < generation) {
            self.turn.told.push(superseded(&ended, older));
        }
        self.turn.told.push(told(ended, report));
        self.after_result(&uid, action);
    }

    fn after_result(&mut self, uid: &Uid, action: Action) {
        let again = matches!(
            action,
            Action::PublishOutdated | Action::PublishOutdatedAndQueue
        );
        if again && let Some(study) = self.open.get_mut(uid) {
            study.row.generation += 1;
            self.receive_again(uid, true);
            self.turn.changed.insert(uid.clone());
        }
        if action == Action::PublishOutdatedAndQueue {
            self.complete(uid, false);
        }
    }

    /// Writes what the turn changed, and only then tells it and gives out jobs.
    pub(super) async fn end_turn(&mut self) {
        let jobs = self.dispatch().await;
        let Turn {
            mut changes,
            changed,
            told,
            announced,
        } = std::mem::take(&mut self.turn);
        let study_time_max = self.parts.workers.study_time_max;
        for study in changed.iter().filter_map(|uid| self.open.get(uid)) {
            changes.studies.push(study.row.clone());
            changes.jobs.extend(study.job(study_time_max));
        }
        let state = &self.parts.state;
        self.insist(|| state.write(&changes)).await;
        drop(announced);
        for what in told {
            self.parts.events.publish(what);
        }
        for job in jobs {
            self.workers.give(job);
        }
        self.open.retain(|_, study| !study.row.state.is_terminal());
        telemetry::show_queue(self.queue.len(), self.busy);
    }

    /// Tries until the database does it: the objects are safe on disk, and as long as this waits,
    /// the intake's channel fills and senders are told to come again. Nothing that the turn changed
    /// is given up; when Tez is stopped meanwhile, the next start reads it from the objects again.
    pub(super) async fn insist<T, F>(&self, act: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StateError>>,
    {
        let clock = &self.parts.clock;
        let mut pause = RETRY_TIME;
        let mut failures = 0_u32;
        loop {
            match act().await {
                Ok(value) => {
                    if failures > 0 {
                        tracing::info!(failures, "the database works again");
                    }
                    return value;
                }
                Err(error) => {
                    let again_seconds = pause.as_secs_f64();
                    tracing::error!(%error, again_seconds, "the database failed and is tried again");
                }
            }
            failures += 1;
            clock.sleep_until(clock.monotonic() + pause).await;
            pause = (pause * 2).min(RETRY_TIME_MAX);
        }
    }
}

fn end_state(state: ReportState) -> StudyState {
    match state {
        ReportState::Analysed => StudyState::Analysed,
        ReportState::Partial => StudyState::Partial,
        ReportState::NotAnalysed => StudyState::NotAnalysed,
    }
}

fn interrupted_too_often(interruptions: i64) -> Reason {
    let text = format!(
        "Tez ended {interruptions} times while it analysed this study, and does not try again by \
         itself. Read the study yourself now. Then look into the logs from before those ends, give \
         Tez more memory or a newer version, and send the study again: that gives it one more try."
    );
    Reason::new(ReasonCode::InternalFault, text)
}

fn superseded(study: &StudyRef, generation: i64) -> What {
    What::ResultSuperseded {
        study: StudyRef {
            generation,
            ..study.clone()
        },
    }
}

fn told(study: StudyRef, report: StudyReport) -> What {
    let partial = match report.state {
        ReportState::Analysed => false,
        ReportState::Partial => true,
        ReportState::NotAnalysed => {
            return What::StudyNotAnalysed {
                study,
                reasons: report.reasons,
            };
        }
    };
    What::StudyAnalysed {
        study,
        priority: report.priority,
        partial,
    }
}
