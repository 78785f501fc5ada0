//! One study in memory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pipeline::assembly::Phase;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::patient::Identity;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;

use crate::events::StudyRef;
use crate::worker::{Headers, read_headers};
use store::state::{JobRow, Lease, StudyRow, StudyState};

/// After so many interruptions a study is no longer tried by itself. High, for a study may be
/// interrupted without any fault of its own: by restarts, by power cuts, by the kill test. Low
/// enough, for each try costs one end of Tez, and those come last: see [`Study::place`].
pub(super) const INTERRUPTIONS_MAX: i64 = 20;

/// Who leases studies to the workers of this machine.
const HOLDER: &str = "serve";

/// A place in the queue: interruptions, the time of the last object, the study's number. Those with
/// the fewest interruptions come first; of them mostly the newest: see `next_to_start`.
pub(super) type Place = (i64, Timestamp, i64, Uid);

/// A study that is received, waits, or is analysed.
#[derive(Debug)]
pub(super) struct Study {
    /// As the worklist shows it.
    pub(super) row: StudyRow,
    /// The headers of its objects; `None` while it waits in a long queue.
    pub(super) objects: Option<StudyHeaders>,
    /// Where it stands in the table of [`pipeline::assembly`].
    pub(super) phase: Phase,
    /// Where it stands in the queue, while it does: later objects do not move it there.
    pub(super) queued_as: Option<Place>,
    /// When it is looked at again, if it is.
    pub(super) alarm: Option<Duration>,
    /// The last sender that had to do with it broke off.
    pub(super) broken_off: bool,
    /// Workers that were lost under it, as it is now.
    pub(super) attempts: i64,
    /// Grows with every image, so that an answer about an older stack is told apart.
    pub(super) revision: u64,
}

/// The headers of a study's objects.
#[derive(Debug, Default)]
pub(super) struct StudyHeaders {
    /// In the order in which they came; those in conflict too.
    pub(super) headers: Headers,
    /// Their SOP Instance UIDs.
    uids: BTreeSet<Uid>,
    /// What they take of `limits.study_instances_max`.
    counted: usize,
}

/// What an added object is to its study.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Added {
    /// It has pixels, or may have, so the study is not as it was analysed.
    pub(super) image: bool,
    /// What people should know.
    pub(super) problems: Vec<Reason>,
    /// Another object with its UID but other content came first.
    pub(super) conflict: bool,
}

impl Study {
    /// A study of which nothing is known yet.
    pub(super) fn new(uid: Uid, internal_id: i64, at: Timestamp) -> Self {
        let until = Duration::ZERO;
        Self {
            objects: Some(StudyHeaders::default()),
            ..Self::parked(
                StudyRow::new(uid, internal_id, at),
                Phase::Settling { until },
            )
        }
    }

    /// A study whose objects stay on disk for now.
    pub(super) fn parked(row: StudyRow, phase: Phase) -> Self {
        Self {
            row,
            objects: None,
            phase,
            queued_as: None,
            alarm: None,
            broken_off: false,
            attempts: 0,
            revision: 0,
        }
    }

    /// The study and its present round.
    pub(super) fn reference(&self) -> StudyRef {
        StudyRef {
            study_uid: self.row.study_uid.clone(),
            internal_id: self.row.internal_id,
            generation: self.row.generation,
        }
    }

    /// Its job, while it waits for a worker or one of this service has it, at most for
    /// `study_time_max`.
    pub(super) fn job(&self, study_time_max: Duration) -> Option<JobRow> {
        let lease = match self.row.state {
            StudyState::Queued => None,
            StudyState::Analysing => Some(Lease {
                holder: HOLDER.to_owned(),
                until: later(self.row.times.analysis_started?, study_time_max),
            }),
            StudyState::Receiving
            | StudyState::Analysed
            | StudyState::Partial
            | StudyState::NotAnalysed => return None,
        };
        Some(JobRow {
            study_uid: self.row.study_uid.clone(),
            generation: self.row.generation,
            attempts: self.attempts,
            lease,
        })
    }

    /// Its place in the queue.
    pub(super) fn place(&self) -> Place {
        (
            self.row.interruptions,
            self.row.times.received_last,
            self.row.internal_id,
            self.row.study_uid.clone(),
        )
    }

    /// Takes an object in; `conflict` if the intake knows another one with its UID.
    pub(super) fn add(
        &mut self,
        instance: Instance,
        conflict: bool,
        at: Timestamp,
        limits: &Limits,
    ) -> Added {
        let mut added = Added {
            image: instance.pixels.is_some(),
            ..Added::default()
        };
        self.row.patient.complete_from(&instance.study);
        let counts = &mut self.row.counts;
        counts.objects += 1;
        counts.images += i64::from(added.image);
        self.row.times.received_last = self.row.times.received_last.max(at);
        self.revision += u64::from(added.image);
        let objects = self.objects.get_or_insert_default();
        let known = !objects.uids.insert(instance.sop_instance_uid.clone());
        added.conflict = known || conflict;
        if added.conflict {
            counts.conflicts += 1;
            added.problems.push(conflicting(&instance.sop_instance_uid));
        }
        // One more than the limit, so that the analysis sees that it is exceeded.
        if objects.counted <= limits.study_instances_max {
            objects.counted += instance.counted();
            Arc::make_mut(&mut objects.headers.instances).push(instance);
        } else {
            added.problems.push(too_many(limits));
        }
        added
    }

    /// Takes in an object that cannot be read: the study is not whole, whatever else comes, unless
    /// it comes again.
    pub(super) fn add_unread(
        &mut self,
        object: UnreadObject,
        at: Timestamp,
        limits: &Limits,
    ) -> Added {
        let may_hold_slices = object.may_hold_slices();
        self.row.patient.complete_from(&object.study);
        self.row.counts.objects += 1;
        self.row.times.received_last = at;
        self.revision += u64::from(may_hold_slices);
        let mut problems = vec![object.reason.clone()];
        let objects = self.objects.get_or_insert_default();
        if objects.headers.unread.len() <= limits.study_instances_max {
            Arc::make_mut(&mut objects.headers.unread).push(object);
        } else {
            problems.push(too_many(limits));
        }
        Added {
            image: may_hold_slices,
            problems,
            conflict: false,
        }
    }

    /// Takes note of an object that was not taken.
    pub(super) fn add_refused(&mut self, object: UnreadObject) {
        self.revision += 1;
        let objects = self.objects.get_or_insert_default();
        Arc::make_mut(&mut objects.headers.unread).push(object);
    }

    /// Whether an object with this header may be of the study's patient.
    pub(super) fn may_be_of(&self, identity: &Identity) -> bool {
        self.row.patient.identity().may_be(identity)
    }
}

impl StudyHeaders {
    /// Reads the headers of the objects at `paths` again, besides those that were `refused`.
    /// Blocking.
    pub(super) fn read(paths: &[PathBuf], refused: Vec<UnreadObject>, limits: &Limits) -> Self {
        let headers = read_headers(paths, refused, limits);
        let instances = headers.instances.iter();
        let uids = instances.clone().map(|one| one.sop_instance_uid.clone());
        Self {
            uids: uids.collect(),
            counted: instances.map(Instance::counted).sum(),
            headers,
        }
    }
}

/// `at` and `time` more; the last moment that can be told where that is beyond it.
fn later(at: Timestamp, time: Duration) -> Timestamp {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let later = at.checked_add(SignedDuration::from_secs(seconds));
    later.unwrap_or(Timestamp::MAX)
}

fn conflicting(uid: &Uid) -> Reason {
    let text = format!(
        "SOP Instance UID {uid} came with other content than before; both objects are kept. Ask \
         the sender which one is right."
    );
    Reason::new(ReasonCode::ConflictingDuplicate, text)
}

fn too_many(limits: &Limits) -> Reason {
    let text = format!(
        "The study has more than {} images (limits.study_instances_max); this object is kept but \
         not analysed.",
        limits.study_instances_max
    );
    Reason::new(ReasonCode::LimitExceeded, text)
}
