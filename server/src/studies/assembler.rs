//! The task that owns the studies: its turns, and what it takes in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pipeline::assembly::{Phase, StudyEvent};
use pipeline::decode::is_slow;
use pipeline::instance::{Instance, StudyHeader};
use pipeline::limits::Limits;
use pipeline::patient::Identity;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::life::CompletenessAnswer;
use super::scan::{Scanned, ScannedObject, scan, scan_found};
use super::study::{Added, INTERRUPTIONS_MAX, Place, Study, StudyHeaders};
use super::{StudiesOptions, stop_time_max};
use crate::events::What;
use crate::intake::{Announced, IntakeEvent};
use crate::telemetry;
use crate::worker::{JobEnd, Workers};
use store::receipt::Receipt;
use store::state::{
    Changes, FoundFile, ObjectRow, Problem, Scope, StateError, StudyRow, StudyState,
};

/// Most events of the intake that one turn takes.
const BATCH_EVENTS_MAX: usize = 512;
/// Most files that a start found which one turn takes.
const FOUND_FILES_MAX: i64 = 512;
/// Events are gathered for so long before the next turn takes them: a turn, with its thread and its
/// transaction, costs as much as receiving a slice.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// See the module above.
pub(super) struct Assembler {
    pub(super) parts: StudiesOptions,
    pub(super) limits: Arc<Limits>,
    pub(super) workers: Workers,
    /// Studies that are not at their end.
    pub(super) open: BTreeMap<Uid, Study>,
    /// Studies that each sender has touched and not finished.
    pub(super) sessions: BTreeMap<u64, BTreeSet<Uid>>,
    /// Studies made for objects that name none, by session and patient.
    pub(super) homes: BTreeMap<(Option<u64>, String), Uid>,
    /// Ends of quiet times, in order.
    pub(super) alarms: BTreeSet<(Duration, Uid)>,
    /// Studies that wait for a worker.
    pub(super) queue: BTreeSet<Place>,
    /// Studies that were given to a worker so far.
    pub(super) starts: u64,
    /// Studies that workers have.
    pub(super) busy: usize,
    /// The one study that a worker has is to stay alone: Tez ended under it before.
    pub(super) alone: bool,
    /// Checks of completeness that run.
    pub(super) checks: JoinSet<CompletenessAnswer>,
    internal_id_last: i64,
    /// Of the newest object.
    arrival_last: i64,
    pub(super) turn: Turn,
}

/// What one turn changed.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) changes: Changes,
    pub(super) changed: BTreeSet<Uid>,
    pub(super) told: Vec<What>,
    /// Of the objects in `changes`; kept until they are written.
    pub(super) announced: Vec<Announced>,
}

impl Assembler {
    pub(super) async fn new(parts: StudiesOptions, workers: Workers) -> Result<Self, StateError> {
        Ok(Self {
            internal_id_last: parts.state.studies().internal_id_max().await?,
            arrival_last: first_arrival(&parts).await?,
            limits: Arc::new(parts.limits.clone()),
            parts,
            workers,
            open: BTreeMap::new(),
            sessions: BTreeMap::new(),
            homes: BTreeMap::new(),
            alarms: BTreeSet::new(),
            queue: BTreeSet::new(),
            starts: 0,
            busy: 0,
            alone: false,
            checks: JoinSet::new(),
            turn: Turn::default(),
        })
    }

    /// Takes up what was left at the last stop: studies that are not at their end or had no model,
    /// and objects that were acknowledged but not written into the database.
    pub(super) async fn recover(&mut self) -> Result<(), StateError> {
        let jobs = self.parts.state.jobs().all().await?;
        let attempts: BTreeMap<Uid, i64> = jobs
            .into_iter()
            .map(|job| (job.study_uid, job.attempts))
            .collect();
        for row in self.parts.state.studies().unfinished().await? {
            let attempts = attempts.get(&row.study_uid).copied().unwrap_or(0);
            self.take_up(row, attempts).await;
        }
        let studies = self.open.len();
        let mut objects = 0;
        loop {
            let found = self.parts.state.objects().found(FOUND_FILES_MAX).await?;
            if found.is_empty() {
                break;
            }
            objects += found.len();
            self.take_found(found).await;
        }
        tracing::info!(studies, objects, "taken up from the last stop");
        self.end_turn().await;
        Ok(())
    }

    async fn take_found(&mut self, found: Vec<FoundFile>) {
        let (limits, now) = (Arc::clone(&self.limits), self.now());
        let scanned = spawn_blocking(move || scan_found(found, now, &limits)).await;
        match scanned {
            Ok(scanned) => {
                self.turn.changes.no_longer_found = scanned.settled;
                self.take_in(scanned.objects).await;
            }
            Err(error) => tracing::error!(%error, "headers were not read"),
        }
        self.end_turn().await;
    }

    async fn take_up(&mut self, row: StudyRow, attempts: i64) {
        let uid = row.study_uid.clone();
        let interrupted = row.state == StudyState::Analysing;
        let phase = match row.state {
            StudyState::Receiving => Phase::received(self.moment("")).0,
            _ => Phase::Queued,
        };
        let mut study = Study::parked(row, phase);
        study.attempts = attempts;
        if let Phase::Settling { until } = phase {
            study.objects = Some(self.read_objects(&uid).await);
            self.open.insert(uid.clone(), study);
            self.set_alarm(&uid, until);
            return;
        }
        if interrupted {
            study.row.interruptions += 1;
            tracing::warn!(
                study = study.row.internal_id,
                interruptions = study.row.interruptions,
                "Tez ended while it analysed this study"
            );
        }
        let given_up = interrupted && study.row.interruptions >= INTERRUPTIONS_MAX;
        self.open.insert(uid.clone(), study);
        if given_up {
            self.give_up(&uid).await;
        } else {
            self.enqueue(&uid);
        }
    }

    pub(super) async fn run(
        mut self,
        mut intake: Receiver<IntakeEvent>,
        mut ends: UnboundedReceiver<JobEnd>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut batch = Vec::new();
        let mut gather_until = Instant::now();
        loop {
            let alarm = self.alarms.first().map(|(end, _)| *end);
            let alarm_end = alarm.unwrap_or_default();
            tokio::select! {
                received = gather(&mut intake, &mut batch, gather_until) => {
                    if received == 0 { break }
                    gather_until = Instant::now() + GATHER_TIME;
                    self.receive(std::mem::take(&mut batch)).await;
                }
                Some(end) = ends.recv() => self.take_end(end).await,
                Some(Ok(check)) = self.checks.join_next() => self.take_check(&check),
                () = self.parts.clock.sleep_until(alarm_end), if alarm.is_some() => {
                    self.ring_alarms();
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
        self.wait_for_workers(ends).await;
    }

    /// Waits for the analyses that run, but not for long: they are done again after a restart.
    async fn wait_for_workers(&mut self, mut ends: UnboundedReceiver<JobEnd>) {
        self.queue.clear();
        let end = self.parts.clock.monotonic() + stop_time_max();
        while self.busy > 0 {
            tokio::select! {
                Some(end) = ends.recv() => self.take_end(end).await,
                () = self.parts.clock.sleep_until(end) => break,
            }
            self.queue.clear();
            self.end_turn().await;
        }
    }

    async fn receive(&mut self, batch: Vec<IntakeEvent>) {
        let (limits, at) = (Arc::clone(&self.limits), self.now());
        match spawn_blocking(move || scan(batch, at, &limits)).await {
            Ok(scanned) => self.take_in(scanned).await,
            Err(error) => {
                tracing::error!(%error, "headers were not read; the next start reads them");
            }
        }
    }

    async fn take_in(&mut self, scanned: Vec<Scanned>) {
        for one in scanned {
            match one {
                Scanned::Object(object) => self.take_object(*object).await,
                Scanned::Refused(object, peer) => self.take_refused(*object, peer).await,
                Scanned::Finished(session) => self.finish_session(session).await,
                Scanned::Broken(session) => self.break_session(session),
            }
        }
    }

    async fn take_object(&mut self, mut object: ScannedObject) {
        telemetry::count_object(object.row.receipt);
        self.turn.announced.extend(object.announced.take());
        object.row.arrival = self.next_arrival();
        if let Err(unread) = &object.header
            && object.row.study_uid.is_none()
        {
            let home = self.home_of(object.session, &object.row, unread);
            object.row.study_uid = Some(home);
        }
        if let (Some(session), Some(uid)) = (object.session, &object.row.study_uid) {
            self.sessions
                .entry(session)
                .or_default()
                .insert(uid.clone());
        }
        if object.row.receipt == Receipt::Duplicate {
            return;
        }
        self.find_patient(&mut object).await;
        if object.row.receipt == Receipt::Mended {
            self.take_mended(object).await;
            return;
        }
        if let (Some(_), Ok(instance)) = (object.session, &object.header)
            && is_slow(instance)
        {
            self.workers.prepare(instance);
        }
        if let Some(uid) = object.row.study_uid.clone() {
            self.add_to_study(&uid, &object.row, object.header, object.disagreement);
        }
        self.turn.changes.objects.push(object.row);
    }

    /// Names the row that `object` belongs to, and opens its study: where a Study Instance UID is
    /// shared by several patients, each has a row of its own.
    async fn find_patient(&mut self, object: &mut ScannedObject) {
        let Some(uid) = object.row.study_uid.clone() else {
            return;
        };
        let header = match &object.header {
            Ok(instance) => &instance.study,
            Err(unread) => &unread.study,
        };
        let row_uid = self.row_of(&uid, header, object.row.received_at).await;
        // The Study Instance UID itself is among them already.
        if let Some(session) = object.session
            && row_uid != uid
        {
            self.sessions
                .entry(session)
                .or_default()
                .insert(row_uid.clone());
        }
        object.row.study_uid = Some(row_uid);
    }

    /// The row of study `uid` for the patient that `header` names, its study opened.
    async fn row_of(&mut self, uid: &Uid, header: &StudyHeader, at: Timestamp) -> Uid {
        self.open_study(uid, at).await;
        let identity = Identity::of(header);
        let may_be = |study: &Study| study.may_be_of(&identity);
        if self.open.get(uid).is_none_or(may_be) {
            return uid.clone();
        }
        let state = self.parts.state.clone();
        let shared = |study: &&Study| study.row.shared_study_uid.as_ref() == Some(uid);
        let open = self
            .open
            .values()
            .filter(shared)
            .find(|study| may_be(study));
        let open = open.map(|study| study.row.study_uid.clone());
        let known = if open.is_some() {
            open
        } else {
            let rows = self.insist(|| state.studies().sharing(uid)).await;
            let is_theirs = |row: &StudyRow| row.patient.identity().may_be(&identity);
            rows.into_iter().find(is_theirs).map(|row| row.study_uid)
        };
        let row_uid = known.unwrap_or_else(|| identity.study_uid(uid));
        self.open_study(&row_uid, at).await;
        for one in [uid, &row_uid] {
            self.mark_shared(one, uid);
        }
        row_uid
    }

    /// Says of the row `row_uid` that others share its Study Instance UID `uid`: what was found
    /// without that is found again with it.
    fn mark_shared(&mut self, row_uid: &Uid, uid: &Uid) {
        let Some(study) = self.open.get_mut(row_uid) else {
            return;
        };
        if study.row.shared_study_uid.is_some() {
            return;
        }
        study.row.shared_study_uid = Some(uid.clone());
        study.revision += 1;
        tracing::warn!(
            study = study.row.internal_id,
            "its Study Instance UID is shared by several patients"
        );
        self.turn.changed.insert(row_uid.clone());
        let moment = self.moment("");
        self.happen(row_uid, StudyEvent::InstanceArrived, moment);
    }

    fn add_to_study(
        &mut self,
        uid: &Uid,
        row: &ObjectRow,
        header: Result<Instance, Box<UnreadObject>>,
        disagreement: Option<Reason>,
    ) {
        if let Err(unread) = &header {
            self.tell_unreadable(row, &unread.reason);
        }
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        let at = row.received_at;
        let mut added = match header {
            Ok(instance) => {
                let conflict = row.receipt == Receipt::Conflict;
                study.add(instance, conflict, at, &self.limits)
            }
            Err(mut unread) => {
                let named = || row.sop_instance_uid.clone();
                unread.sop_instance_uid.get_or_insert_with(named);
                let homeless = unread.study_uid.is_none();
                let added = study.add_unread(*unread, at, &self.limits);
                if homeless {
                    study.row.patient.study_description = homeless_description(row);
                }
                added
            }
        };
        added.problems.extend(disagreement);
        self.after_adding(uid, row, added);
    }

    /// The study of an object that does not say which one it belongs to: one of its own for what
    /// a session brings of one patient, so that it stands in the list. Its UID is made from the
    /// first such object, so that it is no other study's.
    fn home_of(&mut self, session: Option<u64>, row: &ObjectRow, unread: &UnreadObject) -> Uid {
        let made = || row.content.to_uid();
        let whom = (session, unread.study.whom());
        let home = self.homes.entry(whom).or_insert_with(made);
        home.clone()
    }

    /// A study that is known lacks an object that was not taken: its result says so. One of which
    /// nothing else came is no study here; its sender knows.
    async fn take_refused(&mut self, object: UnreadObject, peer: String) {
        let Some(uid) = object.study_uid.clone() else {
            return;
        };
        let state = self.parts.state.clone();
        let known = self.open.contains_key(&uid)
            || self
                .insist(|| state.studies().row(Scope::All, &uid))
                .await
                .is_some();
        if !known {
            return;
        }
        let uid = self.row_of(&uid, &object.study, self.now()).await;
        self.turn.changes.problems.push(Problem {
            at: self.now(),
            study_uid: Some(uid.clone()),
            sop_instance_uid: object.sop_instance_uid.clone(),
            path: None,
            peer: peer.clone(),
            reason: object.reason.clone(),
        });
        if let Some(study) = self.open.get_mut(&uid) {
            study.add_refused(object);
            self.turn.changed.insert(uid.clone());
        }
        let moment = self.moment(&peer);
        self.happen(&uid, StudyEvent::InstanceArrived, moment);
    }

    /// A file that was damaged or gone is whole again: its study is as it was received, and is
    /// analysed again, for an analysis in between may have been without it.
    async fn take_mended(&mut self, object: ScannedObject) {
        let row = object.row;
        self.turn.changes.mended.push(row.path.clone());
        if let Some(uid) = row.study_uid.clone() {
            self.fill(&uid).await;
            if let Some(study) = self.open.get_mut(&uid) {
                study.revision += 1;
            }
            let moment = self.moment(&row.peer);
            self.happen(&uid, StudyEvent::InstanceArrived, moment);
        }
        self.turn.changes.objects.push(row);
    }

    /// Grows with every object and, as far as the clock lets it, from one run to the next.
    fn next_arrival(&mut self) -> i64 {
        self.arrival_last = (self.arrival_last + 1).max(self.now().as_microsecond());
        self.arrival_last
    }

    fn tell_unreadable(&mut self, row: &ObjectRow, reason: &Reason) {
        telemetry::count_unreadable();
        tracing::warn!(
            sop_instance_uid = %row.sop_instance_uid, peer = %row.peer, why = %reason.text,
            "kept an object that cannot be read"
        );
        self.turn.told.push(What::ObjectUnreadable {
            sop_instance_uid: row.sop_instance_uid.clone(),
            reason: reason.clone(),
        });
    }

    /// Holds the study in memory with the headers of its objects, whatever was known of it.
    async fn open_study(&mut self, uid: &Uid, at: Timestamp) {
        if let Some(study) = self.open.get(uid) {
            if study.objects.is_none() {
                self.fill(uid).await;
            }
            return;
        }
        let state = self.parts.state.clone();
        match self.insist(|| state.studies().row(Scope::All, uid)).await {
            Some(row) => {
                // Whatever is not at its end is in memory already.
                self.open
                    .insert(uid.clone(), Study::parked(row, Phase::Done));
                self.fill(uid).await;
            }
            None => self.start_study(uid, at),
        }
    }

    fn start_study(&mut self, uid: &Uid, at: Timestamp) {
        self.internal_id_last += 1;
        let study = Study::new(uid.clone(), self.internal_id_last, at);
        tracing::info!(study = study.row.internal_id, "a new study");
        self.turn.told.push(What::StudyReceiving {
            study: study.reference(),
            reopened: false,
        });
        self.open.insert(uid.clone(), study);
    }

    async fn fill(&mut self, uid: &Uid) {
        let objects = self.read_objects(uid).await;
        if let Some(study) = self.open.get_mut(uid) {
            study.objects = Some(objects);
        }
    }

    async fn read_objects(&self, uid: &Uid) -> StudyHeaders {
        let state = &self.parts.state;
        let paths = self.insist(|| state.objects().paths_of(uid)).await;
        let refused = self.insist(|| state.problems().refused_of(uid)).await;
        let limits = Arc::clone(&self.limits);
        let read = spawn_blocking(move || StudyHeaders::read(&paths, refused, &limits)).await;
        read.unwrap_or_default()
    }

    fn after_adding(&mut self, uid: &Uid, row: &ObjectRow, added: Added) {
        self.turn.changed.insert(uid.clone());
        for reason in added.problems {
            self.add_problem(row, reason);
        }
        let Some(study) = self.open.get(uid) else {
            return;
        };
        if added.conflict {
            self.turn.told.push(What::ObjectConflict {
                study: study.reference(),
                sop_instance_uid: row.sop_instance_uid.clone(),
            });
        }
        // A report or dose object neither re-opens a study nor lengthens its quiet time; but a
        // study that has nothing else needs an end, too.
        let first = study.row.state == StudyState::Receiving && study.alarm.is_none();
        if added.image || first {
            let moment = self.moment(&row.peer);
            self.happen(uid, StudyEvent::InstanceArrived, moment);
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

    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}

/// What stands in the list where the study's description would.
fn homeless_description(row: &ObjectRow) -> String {
    let sender = match (row.peer.as_str(), row.channel) {
        ("", None) => "the disk",
        ("", Some(_)) => "a sender without a name",
        (peer, _) => peer,
    };
    format!("Unreadable objects from {sender} that name no study")
}

/// After that of every object that the last run may have given.
async fn first_arrival(parts: &StudiesOptions) -> Result<i64, StateError> {
    let last = parts.state.studies().received_last().await?;
    Ok(last.map_or(0, |at| at.as_microsecond() + 1_000_000))
}

/// Takes what the intake told, not before `until`. Nothing is lost if this is dropped half-way.
async fn gather(
    intake: &mut Receiver<IntakeEvent>,
    batch: &mut Vec<IntakeEvent>,
    until: Instant,
) -> usize {
    sleep_until(until).await;
    intake.recv_many(batch, BATCH_EVENTS_MAX).await
}
