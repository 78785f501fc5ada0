//! The task that owns the studies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use models::report::ReportState;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};

use super::scan::{Scanned, ScannedObject, scan, scan_recovered};
use super::study::{Added, Objects, Study};
use super::{Parts, stop_time_max};
use crate::events::{StudyRef, What};
use crate::intake::{IntakeEvent, Receipt};
use crate::objects::RecoveredObject;
use crate::state::{
    Changes, ObjectRow, Problem, ResultSummary, StateError, StudyState, StudyTimes,
};
use crate::telemetry;
use crate::worker::{self, Done, Job, Workers};

/// Most events of the intake that one turn takes.
const BATCH_EVENTS_MAX: usize = 512;
/// Waiting studies whose headers are kept; those behind them are read again when their turn comes.
const HELD_STUDIES_MAX: usize = 8;
/// Pause before the database is tried again.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// See the module above.
pub(super) struct Assembler {
    parts: Parts,
    limits: Arc<Limits>,
    workers: Workers,
    /// Studies that are not at their end.
    open: BTreeMap<Uid, Study>,
    /// Studies that each sender has touched and not finished.
    sessions: BTreeMap<u64, BTreeSet<Uid>>,
    /// Ends of quiet times, in order.
    quiet: BTreeSet<(Duration, Uid)>,
    /// Studies that wait for a worker, oldest complete first.
    queue: BTreeSet<(Timestamp, i64, Uid)>,
    /// Studies that workers have.
    busy: usize,
    /// Checks of completeness that run.
    checks: JoinSet<Check>,
    internal_id_last: i64,
    turn: Turn,
}

/// An answer about completeness.
struct Check {
    uid: Uid,
    revision: u64,
    whole: bool,
}

/// What one turn changed.
#[derive(Default)]
struct Turn {
    changes: Changes,
    changed: BTreeSet<Uid>,
    told: Vec<What>,
}

impl Assembler {
    pub(super) async fn new(parts: Parts, workers: Workers) -> Result<Self, StateError> {
        Ok(Self {
            internal_id_last: parts.state.internal_id_max().await?,
            limits: Arc::new(parts.limits.clone()),
            parts,
            workers,
            open: BTreeMap::new(),
            sessions: BTreeMap::new(),
            quiet: BTreeSet::new(),
            queue: BTreeSet::new(),
            busy: 0,
            checks: JoinSet::new(),
            turn: Turn::default(),
        })
    }

    /// Takes up what was left at the last stop: studies that are not at their end, and objects
    /// that were acknowledged but not written into the database.
    pub(super) async fn recover(
        &mut self,
        on_disk: Vec<RecoveredObject>,
    ) -> Result<(), StateError> {
        for row in self.parts.state.unfinished().await? {
            let uid = row.study_uid.clone();
            let mut study = Study::parked(row);
            let received = study.row.state == StudyState::Receiving;
            study.objects = if received {
                Some(self.read_objects(&uid).await)
            } else {
                None
            };
            self.open.insert(uid.clone(), study);
            if received {
                self.restart_quiet_time(&uid, "");
            } else {
                self.enqueue(&uid);
            }
        }
        let known = self.parts.state.known_paths().await?;
        let unknown = on_disk
            .into_iter()
            .filter(|one| !known.contains(&one.object.path));
        let unknown: Vec<_> = unknown.collect();
        tracing::info!(
            studies = self.open.len(),
            objects = unknown.len(),
            "taken up from the last stop"
        );
        for batch in unknown.chunks(BATCH_EVENTS_MAX) {
            let (batch, limits, at) = (batch.to_vec(), Arc::clone(&self.limits), self.now());
            let scanned = spawn_blocking(move || scan_recovered(batch, at, &limits)).await;
            self.take_in(scanned.unwrap_or_default()).await;
            self.end_turn().await;
        }
        self.end_turn().await;
        Ok(())
    }

    pub(super) async fn run(
        mut self,
        mut intake: Receiver<IntakeEvent>,
        mut done: UnboundedReceiver<Done>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut batch = Vec::new();
        loop {
            let quiet_end = self.quiet.first().map_or(Duration::MAX, |(end, _)| *end);
            tokio::select! {
                received = intake.recv_many(&mut batch, BATCH_EVENTS_MAX) => {
                    if received == 0 { break }
                    self.receive(std::mem::take(&mut batch)).await;
                }
                Some(done) = done.recv() => self.take_result(done).await,
                Some(Ok(check)) = self.checks.join_next() => self.take_check(&check),
                () = self.parts.clock.sleep_until(quiet_end), if quiet_end < Duration::MAX => {
                    self.end_quiet_times();
                }
                _ = &mut stop => break,
            }
            self.end_turn().await;
        }
        intake.close();
        while intake.recv_many(&mut batch, BATCH_EVENTS_MAX).await > 0 {
            self.receive(std::mem::take(&mut batch)).await;
            self.end_turn().await;
        }
        self.wait_for_workers(done).await;
    }

    /// Waits for the analyses that run, but not for long: they are done again after a restart.
    async fn wait_for_workers(&mut self, mut done: UnboundedReceiver<Done>) {
        self.queue.clear();
        let end = self.parts.clock.monotonic() + stop_time_max();
        while self.busy > 0 {
            tokio::select! {
                Some(done) = done.recv() => self.take_result(done).await,
                () = self.parts.clock.sleep_until(end) => break,
            }
            self.end_turn().await;
        }
    }

    async fn receive(&mut self, batch: Vec<IntakeEvent>) {
        let (limits, at) = (Arc::clone(&self.limits), self.now());
        match spawn_blocking(move || scan(batch, at, &limits)).await {
            Ok(scanned) => self.take_in(scanned).await,
            Err(error) => {
                tracing::error!(%error, "headers were not read; the next start reads them")
            }
        }
    }

    async fn take_in(&mut self, scanned: Vec<Scanned>) {
        for one in scanned {
            match one {
                Scanned::Object(object) => self.take_object(*object).await,
                Scanned::Finished(session) => self.finish_session(session),
                Scanned::Broken(session) => drop(self.sessions.remove(&session)),
            }
        }
    }

    async fn take_object(&mut self, object: ScannedObject) {
        telemetry::count_object(object.row.receipt);
        if let (Some(session), Ok(instance)) = (object.session, &object.header) {
            let touched = self.sessions.entry(session).or_default();
            touched.insert(instance.study_uid.clone());
        }
        if object.row.receipt == Receipt::Duplicate {
            return;
        }
        match object.header {
            Err(refusal) => self.take_unreadable(&object.row, refusal.reason),
            Ok(instance) => {
                let uid = instance.study_uid.clone();
                self.open_study(&uid).await;
                let (at, limits) = (object.row.received_at, Arc::clone(&self.limits));
                let conflict = object.row.receipt == Receipt::Conflict;
                if let Some(study) = self.open.get_mut(&uid) {
                    let added = study.add(instance, conflict, at, &limits);
                    self.after_adding(&uid, &object.row, added);
                }
            }
        }
        self.turn.changes.objects.push(object.row);
    }

    fn take_unreadable(&mut self, row: &ObjectRow, reason: Reason) {
        telemetry::count_unreadable();
        tracing::warn!(sop_instance_uid = %row.sop_instance_uid, peer = %row.peer, %reason.text,
            "kept an object whose header cannot be read");
        self.turn.told.push(What::ObjectUnreadable {
            sop_instance_uid: row.sop_instance_uid.clone(),
            reason: reason.clone(),
        });
        self.add_problem(row, reason);
    }

    /// Holds the study in memory with the headers of its objects, whatever was known of it.
    async fn open_study(&mut self, uid: &Uid) {
        if self
            .open
            .get(uid)
            .is_some_and(|study| study.objects.is_some())
        {
            return;
        }
        if !self.open.contains_key(uid) {
            let state = self.parts.state.clone();
            let study = match self.insist(|| state.study_row(uid)).await {
                Some(row) => Study::parked(row),
                None => self.new_study(uid),
            };
            self.open.insert(uid.clone(), study);
        }
        let objects = self.read_objects(uid).await;
        if let Some(study) = self.open.get_mut(uid) {
            study.objects.get_or_insert(objects);
        }
    }

    fn new_study(&mut self, uid: &Uid) -> Study {
        self.internal_id_last += 1;
        let study = Study::new(uid.clone(), self.internal_id_last, self.now());
        tracing::info!(study = study.row.internal_id, "a new study");
        self.turn.told.push(What::StudyReceiving {
            study: study.reference(),
            reopened: false,
        });
        study
    }

    async fn read_objects(&self, uid: &Uid) -> Objects {
        let state = &self.parts.state;
        let known = self.insist(|| state.objects_of(uid)).await;
        let limits = Arc::clone(&self.limits);
        let read = spawn_blocking(move || Objects::read(&known, &limits)).await;
        read.unwrap_or_default()
    }

    fn after_adding(&mut self, uid: &Uid, row: &ObjectRow, added: Added) {
        self.turn.changed.insert(uid.clone());
        for reason in added.problems {
            self.add_problem(row, reason);
        }
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        if added.conflict {
            self.turn.told.push(What::ObjectConflict {
                study: study.reference(),
                sop_instance_uid: row.sop_instance_uid.clone(),
            });
        }
        if added.image {
            self.receive_again(uid);
        }
        let waits = self.open.get(uid).is_some_and(|study| {
            study.row.state == StudyState::Receiving && (added.image || study.quiet_until.is_none())
        });
        if waits {
            self.restart_quiet_time(uid, &row.peer);
        }
    }

    /// A study that was whole, or has a result, is received again.
    fn receive_again(&mut self, uid: &Uid) {
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        let reopened = match study.row.state {
            StudyState::Receiving => return,
            StudyState::Queued => {
                self.queue.remove(&place(study));
                false
            }
            StudyState::Analysing
            | StudyState::Analysed
            | StudyState::Partial
            | StudyState::NotAnalysed => {
                study.row.generation += 1;
                true
            }
        };
        study.row.state = StudyState::Receiving;
        let times = &mut study.row.times;
        *times = StudyTimes {
            received_first: times.received_first,
            ..StudyTimes::first_received(times.received_last)
        };
        self.turn.told.push(What::StudyReceiving {
            study: study.reference(),
            reopened,
        });
    }

    fn restart_quiet_time(&mut self, uid: &Uid, sender: &str) {
        let end = self.parts.clock.monotonic() + self.parts.assembly.quiet_time(sender);
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        if let Some(old) = study.quiet_until.replace(end) {
            self.quiet.remove(&(old, uid.clone()));
        }
        self.quiet.insert((end, uid.clone()));
        if self.quiet.len() > self.parts.assembly.open_studies_max {
            self.end_first_quiet_time();
        }
    }

    fn end_quiet_times(&mut self) {
        let now = self.parts.clock.monotonic();
        while self.quiet.first().is_some_and(|(end, _)| *end <= now) {
            self.end_first_quiet_time();
        }
    }

    fn end_first_quiet_time(&mut self) {
        if let Some((_, uid)) = self.quiet.first().cloned() {
            self.complete(&uid, false);
        }
    }

    fn finish_session(&mut self, session: u64) {
        for uid in self.sessions.remove(&session).unwrap_or_default() {
            self.start_check(&uid);
        }
    }

    /// Asks whether the study is whole, unless another sender still has to do with it.
    fn start_check(&mut self, uid: &Uid) {
        if self.sessions.values().any(|touched| touched.contains(uid)) {
            return;
        }
        let Some(study) = self.open.get(uid) else {
            return;
        };
        if let (StudyState::Receiving, Some(objects)) = (study.row.state, &study.objects) {
            let (uid, revision) = (uid.clone(), study.revision);
            let (instances, limits) = (Arc::clone(&objects.instances), Arc::clone(&self.limits));
            self.checks.spawn_blocking(move || Check {
                whole: is_whole(&instances, &limits),
                uid,
                revision,
            });
        }
    }

    fn take_check(&mut self, check: &Check) {
        let holds = self.open.get(&check.uid).is_some_and(|study| {
            study.row.state == StudyState::Receiving && study.revision == check.revision
        });
        if holds && check.whole {
            self.complete(&check.uid, true);
        }
    }

    fn complete(&mut self, uid: &Uid, proven: bool) {
        let now = self.now();
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        if let Some(end) = study.quiet_until.take() {
            self.quiet.remove(&(end, uid.clone()));
        }
        study.row.times.complete = Some(now);
        tracing::info!(study = study.row.internal_id, proven, "complete");
        let reference = study.reference();
        self.turn.told.extend([
            What::StudyComplete {
                study: reference.clone(),
                proven,
            },
            What::StudyQueued { study: reference },
        ]);
        self.enqueue(uid);
    }

    fn enqueue(&mut self, uid: &Uid) {
        let now = self.now();
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        study.row.state = StudyState::Queued;
        study.row.times.queued = Some(now);
        self.queue.insert(place(study));
        if self.queue.len() > HELD_STUDIES_MAX {
            study.objects = None;
        }
        self.turn.changed.insert(uid.clone());
    }

    /// Gives waiting studies to free workers, as jobs that are sent when the turn ends.
    async fn dispatch(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        while self.busy < self.workers.count()
            && let Some((_, _, uid)) = self.queue.pop_first()
        {
            let objects = self.job_objects(&uid).await;
            let now = self.now();
            let Some(study) = self.open.get_mut(&uid) else {
                continue;
            };
            study.row.state = StudyState::Analysing;
            study.row.times.analysis_started = Some(now);
            let study = study.reference();
            self.turn.told.push(What::StudyAnalysing {
                study: study.clone(),
            });
            self.turn.changed.insert(uid);
            self.busy += 1;
            jobs.push(Job { study, objects });
        }
        jobs
    }

    async fn job_objects(&self, uid: &Uid) -> worker::Objects {
        let held = self.open.get(uid).and_then(|study| study.objects.as_ref());
        if let Some(objects) = held {
            return worker::Objects::Read(Arc::clone(&objects.instances));
        }
        let state = &self.parts.state;
        let known = self.insist(|| state.objects_of(uid)).await;
        worker::Objects::Paths(known.into_iter().map(|object| object.path).collect())
    }

    async fn take_result(&mut self, done: Done) {
        self.busy -= 1;
        let (uid, now) = (done.study.study_uid.clone(), self.now());
        let Some(study) = self.open.get_mut(&uid) else {
            return;
        };
        let older = study.row.result.result_generation;
        let generation = done.study.generation;
        study.row.result = ResultSummary::of(&done.report, generation);
        if study.row.generation == generation {
            study.row.state = end_state(done.report.state);
            study.row.times.analysed = Some(now);
        }
        let (row, state) = (study.row.clone(), &self.parts.state);
        self.insist(|| state.write_result(&row, generation, &done.report, now))
            .await;
        if let Some(older) = older.filter(|older| *older < generation) {
            self.turn.told.push(What::ResultSuperseded {
                study: StudyRef {
                    generation: older,
                    ..done.study.clone()
                },
            });
        }
        let waited = now.duration_since(row.times.received_last).as_secs_f64();
        let how = end_state(done.report.state).as_str();
        tracing::info!(
            study = row.internal_id,
            generation,
            state = how,
            seconds = waited,
            "result"
        );
        telemetry::count_result(&done.report, how, waited);
        self.turn.told.push(told(done));
    }

    /// Writes what the turn changed, and only then tells it and gives out jobs.
    async fn end_turn(&mut self) {
        let jobs = self.dispatch().await;
        let Turn {
            mut changes,
            changed,
            told,
        } = std::mem::take(&mut self.turn);
        let rows = changed.iter().filter_map(|uid| self.open.get(uid));
        changes.studies = rows.map(|study| study.row.clone()).collect();
        let state = &self.parts.state;
        self.insist(|| state.write(&changes)).await;
        told.into_iter()
            .for_each(|what| self.parts.events.publish(what));
        jobs.into_iter().for_each(|job| self.workers.give(job));
        self.open.retain(|_, study| !study.row.state.is_terminal());
        telemetry::show_queue(self.queue.len(), self.busy);
    }

    /// Tries until the database does it: the objects are safe on disk, and as long as this waits,
    /// the intake's channel fills and senders are told to come again.
    async fn insist<T, F>(&self, act: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StateError>>,
    {
        loop {
            match act().await {
                Ok(value) => return value,
                Err(error) => tracing::error!(%error, "the database is tried again in a second"),
            }
            let clock = &self.parts.clock;
            clock.sleep_until(clock.monotonic() + RETRY_TIME).await;
        }
    }

    fn add_problem(&mut self, row: &ObjectRow, reason: Reason) {
        self.turn.changes.problems.push(Problem {
            at: row.received_at,
            study_uid: row.study_uid.clone(),
            sop_instance_uid: Some(row.sop_instance_uid.clone()),
            path: Some(row.path.clone()),
            peer: row.peer.clone(),
            reason,
        });
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

/// The place of a waiting study in the queue.
fn place(study: &Study) -> (Timestamp, i64, Uid) {
    let times = &study.row.times;
    (
        times.complete.unwrap_or(times.received_first),
        study.row.internal_id,
        study.row.study_uid.clone(),
    )
}

fn end_state(state: ReportState) -> StudyState {
    match state {
        ReportState::Analysed => StudyState::Analysed,
        ReportState::Partial => StudyState::Partial,
        ReportState::NotAnalysed => StudyState::NotAnalysed,
    }
}

fn told(done: Done) -> What {
    let partial = match done.report.state {
        ReportState::Analysed => false,
        ReportState::Partial => true,
        ReportState::NotAnalysed => {
            return What::StudyNotAnalysed {
                study: done.study,
                reasons: done.report.reasons,
            };
        }
    };
    What::StudyAnalysed {
        study: done.study,
        priority: done.report.priority,
        partial,
    }
}

/// Whether the study's stack is provably whole.
fn is_whole(instances: &[Instance], limits: &Limits) -> bool {
    let _ = (instances, limits);
    false
}
