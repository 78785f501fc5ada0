//! What readers get of studies and objects: JSON, and its description in OpenAPI.
//!
//! Rows of the database are [`store::state`]'s; how they look to others is decided here alone.

use std::path::PathBuf;

use jiff::Timestamp;
use models::findings::Finding;
use models::triage::Priority;
use pipeline::content::ContentHash;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use serde::Serialize;
use store::state;
use utoipa::ToSchema;

/// A study as the worklist shows it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Study {
    /// Study Instance UID; where several patients share one, that of the first, and for each other
    /// one a UID made for this row.
    #[schema(value_type = String)]
    pub study_uid: Uid,
    /// The Study Instance UID as it was sent, where several patients share it.
    #[schema(value_type = Option<String>)]
    pub shared_study_uid: Option<Uid>,
    /// Number of the study in logs.
    pub internal_id: i64,
    /// Where it stands.
    pub state: StudyState,
    /// The round of analysis it is in: 1, and one more each time it is re-opened.
    pub generation: i64,
    /// How often Tez ended while it analysed the study as it is now. After 20 times it is not
    /// analysed, until it is sent again.
    pub interruptions: i64,
    /// What its newest result says; an older one stands until the new one is there.
    #[serde(flatten)]
    pub result: StudyResult,
    /// Who and what.
    pub patient: Patient,
    /// How many.
    pub counts: ObjectCounts,
    /// When.
    pub times: StudyTimes,
    /// When somebody marked its result as read; `null` while it is unread. A newer result that says
    /// something else makes it unread again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub read_at: Option<Timestamp>,
    /// Kept objects of it whose file is damaged or gone, until they are sent again.
    pub damaged_objects: i64,
}

/// Where a study stands. The last three are terminal until a late object re-opens the study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StudyState {
    /// Objects come in, or the quiet time runs.
    Receiving,
    /// Whole or quiet: waits for a worker.
    Queued,
    /// A worker has it.
    Analysing,
    /// There is a result for the whole head.
    Analysed,
    /// There is a result for a part of the head.
    Partial,
    /// There is none, and the reasons are told. Not a normal.
    NotAnalysed,
}

/// The part of a result that the worklist shows.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct StudyResult {
    /// Place in the list; `unknown` as long as there is no result.
    #[schema(value_type = String)]
    pub priority: Priority,
    /// Why it stands there; never empty.
    pub priority_because: Vec<String>,
    /// What is missing or went wrong.
    #[schema(value_type = Vec<Object>)]
    pub reasons: Vec<Reason>,
    /// Every finding of the result, present or not; empty without one.
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<Finding>,
    /// The round of analysis that this result is of; `null` without one. Less than the study's
    /// generation while a re-opened study is analysed again.
    pub result_generation: Option<i64>,
}

/// Who and what, for people. Never for a model, a log line or a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Patient {
    /// Patient's Name.
    pub name: String,
    /// Patient ID.
    pub id: String,
    /// Patient's Birth Date, as received.
    pub birth_date: String,
    /// Patient's Sex.
    pub sex: String,
    /// Patient's Age, as received, such as `076Y`.
    pub age: String,
    /// Accession Number.
    pub accession_number: String,
    /// Study Date, as received.
    pub study_date: String,
    /// Study Time, as received.
    pub study_time: String,
    /// Study Description.
    pub study_description: String,
    /// Institution Name.
    pub institution_name: String,
}

/// How many objects a study has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ObjectCounts {
    /// Objects of any kind, those in conflict too.
    pub objects: i64,
    /// Those with an image.
    pub images: i64,
    /// Those whose UID another object with other content had first; not analysed.
    pub conflicts: i64,
}

/// When a study went through its states, in its present round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StudyTimes {
    /// First object of the study.
    #[schema(value_type = String, format = DateTime)]
    pub received_first: Timestamp,
    /// Newest object of the study.
    #[schema(value_type = String, format = DateTime)]
    pub received_last: Timestamp,
    /// Found whole, or quiet for long enough.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub complete: Option<Timestamp>,
    /// Put into the queue.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub queued: Option<Timestamp>,
    /// Taken by a worker.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub analysis_started: Option<Timestamp>,
    /// Result there, or the reasons for having none.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub analysed: Option<Timestamp>,
}

/// Something about an object or a study that people should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ObjectProblem {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The study, if known.
    #[schema(value_type = Option<String>)]
    pub study_uid: Option<Uid>,
    /// The object, if it is about one.
    #[schema(value_type = Option<String>)]
    pub sop_instance_uid: Option<Uid>,
    /// Where the object's bytes are kept, inside the data folder.
    #[schema(value_type = Option<String>)]
    pub path: Option<PathBuf>,
    /// Who sent it.
    pub peer: String,
    /// What is wrong.
    #[schema(value_type = Object)]
    pub reason: Reason,
}

/// A kept object that cannot be read: its study lacks it, but it is not lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnreadableObject {
    /// What its sender called it.
    #[schema(value_type = String)]
    pub sop_instance_uid: Uid,
    /// The study under which it stands in the worklist: its own, or one made for objects that do
    /// not say theirs.
    #[schema(value_type = Option<String>)]
    pub study_uid: Option<Uid>,
    /// Where its bytes are kept, inside the data folder.
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// Hash of its data set.
    #[schema(value_type = String)]
    pub content: ContentHash,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
    /// Who sent it.
    pub peer: String,
    /// Why it cannot be read.
    #[schema(value_type = Object)]
    pub reason: Reason,
}

/// A round of analysis that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReportRound {
    /// Which round.
    pub generation: i64,
    /// When its result was there.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When a newer result took its place.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub superseded_at: Option<Timestamp>,
}

/// Everything about one study.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct StudyDetails {
    /// As in the worklist.
    #[serde(flatten)]
    pub study: Study,
    /// The newest result, as `tez triage --json` prints it; `null` without one.
    #[schema(value_type = Option<Object>)]
    pub report: Option<serde_json::Value>,
    /// All rounds of analysis, oldest first.
    pub rounds: Vec<ReportRound>,
    /// What people should know about its objects, oldest first.
    pub problems: Vec<ObjectProblem>,
}

impl From<state::StudyRow> for Study {
    fn from(row: state::StudyRow) -> Self {
        Self {
            study_uid: row.study_uid,
            shared_study_uid: row.shared_study_uid,
            internal_id: row.internal_id,
            state: row.state.into(),
            generation: row.generation,
            interruptions: row.interruptions,
            result: row.result.into(),
            patient: row.patient.into(),
            counts: row.counts.into(),
            times: row.times.into(),
            read_at: row.read_at,
            damaged_objects: row.damaged_objects,
        }
    }
}

impl From<state::StudyState> for StudyState {
    fn from(state: state::StudyState) -> Self {
        match state {
            state::StudyState::Receiving => Self::Receiving,
            state::StudyState::Queued => Self::Queued,
            state::StudyState::Analysing => Self::Analysing,
            state::StudyState::Analysed => Self::Analysed,
            state::StudyState::Partial => Self::Partial,
            state::StudyState::NotAnalysed => Self::NotAnalysed,
        }
    }
}

impl From<state::ResultSummary> for StudyResult {
    fn from(summary: state::ResultSummary) -> Self {
        Self {
            priority: summary.priority,
            priority_because: summary.priority_because,
            reasons: summary.reasons,
            findings: summary.findings,
            result_generation: summary.result_generation,
        }
    }
}

impl From<state::PatientFacts> for Patient {
    fn from(facts: state::PatientFacts) -> Self {
        Self {
            name: facts.name,
            id: facts.id,
            birth_date: facts.birth_date,
            sex: facts.sex,
            age: facts.age,
            accession_number: facts.accession_number,
            study_date: facts.study_date,
            study_time: facts.study_time,
            study_description: facts.study_description,
            institution_name: facts.institution_name,
        }
    }
}

impl From<state::ObjectCounts> for ObjectCounts {
    fn from(counts: state::ObjectCounts) -> Self {
        Self {
            objects: counts.objects,
            images: counts.images,
            conflicts: counts.conflicts,
        }
    }
}

impl From<state::StudyTimes> for StudyTimes {
    fn from(times: state::StudyTimes) -> Self {
        Self {
            received_first: times.received_first,
            received_last: times.received_last,
            complete: times.complete,
            queued: times.queued,
            analysis_started: times.analysis_started,
            analysed: times.analysed,
        }
    }
}

impl From<state::Problem> for ObjectProblem {
    fn from(problem: state::Problem) -> Self {
        Self {
            at: problem.at,
            study_uid: problem.study_uid,
            sop_instance_uid: problem.sop_instance_uid,
            path: problem.path,
            peer: problem.peer,
            reason: problem.reason,
        }
    }
}

impl From<state::UnreadableObject> for UnreadableObject {
    fn from(object: state::UnreadableObject) -> Self {
        Self {
            sop_instance_uid: object.sop_instance_uid,
            study_uid: object.study_uid,
            path: object.path,
            content: object.content,
            bytes: object.bytes,
            received_at: object.received_at,
            peer: object.peer,
            reason: object.reason,
        }
    }
}

impl From<state::ReportRound> for ReportRound {
    fn from(round: state::ReportRound) -> Self {
        Self {
            generation: round.generation,
            created_at: round.created_at,
            superseded_at: round.superseded_at,
        }
    }
}

impl From<state::StudyDetails> for StudyDetails {
    fn from(details: state::StudyDetails) -> Self {
        Self {
            study: details.study.into(),
            // Numbers and texts only: as JSON it cannot fail.
            report: details
                .report
                .and_then(|report| serde_json::to_value(report).ok()),
            rounds: details.rounds.into_iter().map(Into::into).collect(),
            problems: details.problems.into_iter().map(Into::into).collect(),
        }
    }
}
