//! A study as its rows tell it.

use jiff::Timestamp;
use models::findings::Finding;
use models::report::StudyReport;
use models::triage::Priority;
use pipeline::instance::StudyHeader;
use pipeline::patient::Identity;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use serde::{Deserialize, Serialize};

use crate::state::{Problem, ReportRound};

/// Where a study stands. The last three are terminal until a late object re-opens the study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl StudyState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Receiving,
        Self::Queued,
        Self::Analysing,
        Self::Analysed,
        Self::Partial,
        Self::NotAnalysed,
    ];

    /// The state in wire form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Queued => "queued",
            Self::Analysing => "analysing",
            Self::Analysed => "analysed",
            Self::Partial => "partial",
            Self::NotAnalysed => "not_analysed",
        }
    }

    /// Reads the wire form.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether nothing is going on any more.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Receiving | Self::Queued | Self::Analysing => false,
            Self::Analysed | Self::Partial | Self::NotAnalysed => true,
        }
    }
}

/// A study as the worklist shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyRow {
    /// Study Instance UID; where several patients share one, that of the first, and for each other
    /// one a UID made for this row.
    pub study_uid: Uid,
    /// The Study Instance UID as it was sent, where several patients share it.
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
    pub result: ResultSummary,
    /// Who and what.
    pub patient: PatientFacts,
    /// How many.
    pub counts: ObjectCounts,
    /// When.
    pub times: StudyTimes,
    /// When somebody marked its result as read; `null` while it is unread. A newer result that says
    /// something else makes it unread again.
    pub read_at: Option<Timestamp>,
    /// Kept objects of it whose file is damaged or gone, until they are sent again.
    pub damaged_objects: i64,
}

impl StudyRow {
    /// A study of which nothing is known yet, its first object received `at`.
    pub fn new(study_uid: Uid, internal_id: i64, at: Timestamp) -> Self {
        Self {
            study_uid,
            shared_study_uid: None,
            internal_id,
            state: StudyState::Receiving,
            generation: 1,
            interruptions: 0,
            result: ResultSummary::none_yet(),
            patient: PatientFacts::default(),
            counts: ObjectCounts::default(),
            times: StudyTimes::first_received(at),
            read_at: None,
            damaged_objects: 0,
        }
    }
}

/// The part of a result that the worklist shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultSummary {
    /// Place in the list; `unknown` as long as there is no result.
    pub priority: Priority,
    /// Why it stands there; never empty.
    pub priority_because: Vec<String>,
    /// What is missing or went wrong.
    pub reasons: Vec<Reason>,
    /// Every finding of the result, present or not; empty without one.
    pub findings: Vec<Finding>,
    /// The round of analysis that this result is of; `null` without one. Less than the study's
    /// generation while a re-opened study is analysed again.
    pub result_generation: Option<i64>,
}

impl ResultSummary {
    /// Before there is any result.
    pub fn none_yet() -> Self {
        Self {
            priority: Priority::Unknown,
            priority_because: vec!["Not analysed yet.".to_owned()],
            reasons: Vec::new(),
            findings: Vec::new(),
            result_generation: None,
        }
    }

    /// Whether the two say the same of the patient, of whichever round they are.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let bare = |summary: &Self| Self {
            result_generation: None,
            ..summary.clone()
        };
        bare(self) == bare(other)
    }

    /// What `report`, of round `generation`, says.
    pub fn of(report: &StudyReport, generation: i64) -> Self {
        Self {
            priority: report.priority,
            priority_because: report.priority_because.clone(),
            reasons: report.reasons.clone(),
            findings: report.findings.clone(),
            result_generation: Some(generation),
        }
    }
}

/// Who and what, for people. Never for a model, a log line or a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatientFacts {
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

impl PatientFacts {
    /// Fills what is empty by what `header` says.
    pub fn complete_from(&mut self, header: &StudyHeader) {
        let says = Self::from(header);
        for (known, said) in [
            (&mut self.name, says.name),
            (&mut self.id, says.id),
            (&mut self.birth_date, says.birth_date),
            (&mut self.sex, says.sex),
            (&mut self.age, says.age),
            (&mut self.accession_number, says.accession_number),
            (&mut self.study_date, says.study_date),
            (&mut self.study_time, says.study_time),
            (&mut self.study_description, says.study_description),
            (&mut self.institution_name, says.institution_name),
        ] {
            if known.is_empty() {
                *known = said;
            }
        }
    }

    /// What tells the patient from others.
    pub fn identity(&self) -> Identity {
        Identity::stated(&self.id, &self.name, &self.birth_date)
    }
}

impl From<&StudyHeader> for PatientFacts {
    fn from(header: &StudyHeader) -> Self {
        Self {
            name: header.patient_name.clone(),
            id: header.patient_id.clone(),
            birth_date: header.patient_birth_date.clone(),
            sex: header.patient_sex.clone(),
            age: header.patient_age.clone(),
            accession_number: header.accession_number.clone(),
            study_date: header.study_date.clone(),
            study_time: header.study_time.clone(),
            study_description: header.study_description.clone(),
            institution_name: header.institution_name.clone(),
        }
    }
}

/// How many objects a study has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectCounts {
    /// Objects of any kind, those in conflict too.
    pub objects: i64,
    /// Those with an image.
    pub images: i64,
    /// Those whose UID another object with other content had first; not analysed.
    pub conflicts: i64,
}

/// When a study went through its states, in its present round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StudyTimes {
    /// First object of the study.
    pub received_first: Timestamp,
    /// Newest object of the study.
    pub received_last: Timestamp,
    /// Found whole, or quiet for long enough.
    pub complete: Option<Timestamp>,
    /// Put into the queue.
    pub queued: Option<Timestamp>,
    /// Taken by a worker.
    pub analysis_started: Option<Timestamp>,
    /// Result there, or the reasons for having none.
    pub analysed: Option<Timestamp>,
}

impl StudyTimes {
    /// The times of a study whose first object came at `at`.
    pub fn first_received(at: Timestamp) -> Self {
        Self {
            received_first: at,
            received_last: at,
            complete: None,
            queued: None,
            analysis_started: None,
            analysed: None,
        }
    }
}

/// A page of the worklist.
#[derive(Clone, Debug, PartialEq)]
pub struct Worklist {
    /// Studies of this page, in order.
    pub studies: Vec<StudyRow>,
    /// Studies in the whole list.
    pub total: i64,
    /// Unread studies with a critical result, listed here or not.
    pub critical_unread: i64,
    /// Studies that were marked as read.
    pub read: i64,
    /// Kept objects that cannot be read.
    pub unreadable_objects: i64,
}

/// Everything about one study.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyDetails {
    /// As in the worklist.
    pub study: StudyRow,
    /// The newest result, as `tez triage --json` prints it; `null` without one.
    pub report: Option<StudyReport>,
    /// All rounds of analysis, oldest first.
    pub rounds: Vec<ReportRound>,
    /// What people should know about its objects, oldest first.
    pub problems: Vec<Problem>,
}
