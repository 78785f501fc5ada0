//! Reading studies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use sqlx::any::AnyRow;

use super::rows::{
    ObjectCounts, PatientFacts, ResultSummary, StudyDetails, StudyRow, StudyState, StudyTimes,
    Worklist,
};
use crate::state::columns::{
    bad_row, integer, integer_if_any, json, text, time, time_if_any, uid, uid_if_any,
};
use crate::state::{Durability, Scope, State, StateError};

/// A study with what stands beside it in other tables.
macro_rules! select_study {
    ($rest:literal) => {
        concat!(
            "SELECT studies.*, reads.read_at,
                 (SELECT COUNT(*) FROM damages WHERE damages.study_uid = studies.uid)
                     AS damaged_objects
             FROM studies LEFT JOIN reads ON reads.study_uid = studies.uid ",
            $rest
        )
    };
}

const ONE_STUDY: &str = select_study!("WHERE uid = $1");
const SHARING: &str = select_study!("WHERE shared_study_uid = $1 ORDER BY internal_id");
const UNFINISHED: &str = select_study!(
    "WHERE state IN ('receiving', 'queued', 'analysing')
         OR (state = 'not_analysed' AND awaits_model = 1)
     ORDER BY received_first_at, internal_id"
);
/// In the order of an index, so that only what is shown is sorted.
const UNREAD: &str = select_study!(
    "WHERE reads.read_at IS NULL
     ORDER BY priority_rank, received_last_at DESC, internal_id DESC LIMIT $1 OFFSET $2"
);
const READ_TOO: &str = select_study!(
    "ORDER BY priority_rank, reads.read_at IS NOT NULL, received_last_at DESC, internal_id DESC
     LIMIT $1 OFFSET $2"
);
const CRITICAL_UNREAD: &str = "SELECT COUNT(*) FROM studies
    LEFT JOIN reads ON reads.study_uid = studies.uid
    WHERE priority_rank = 0 AND studies.result_generation IS NOT NULL AND reads.read_at IS NULL";

/// A study that changes all the time is shown as it was in the last of so many tries.
const DETAILS_TRIES_MAX: u32 = 5;

/// Which part of the worklist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorklistPage {
    /// Most studies.
    pub limit: i64,
    /// Studies that stand before them.
    pub offset: i64,
    /// Those that were read, too.
    pub with_read: bool,
}

/// The studies, for reading. A row that cannot be read ends its study as not analysed, and says so
/// there.
#[derive(Clone, Copy, Debug)]
pub struct Studies<'a>(pub(in crate::state) &'a State);

impl Studies<'_> {
    /// One page of the worklist: by priority, then unread before read, then newest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn worklist(self, scope: Scope, page: WorklistPage) -> Result<Worklist, StateError> {
        let query = scope.of(if page.with_read { READ_TOO } else { UNREAD });
        let query = sqlx::query(query).bind(page.limit).bind(page.offset);
        let rows = self.0.rows(query).await?;
        let studies = self.readable(&rows).await?;
        let read = self.0.count(scope.of("SELECT COUNT(*) FROM reads")).await?;
        let all = scope.of("SELECT COUNT(*) FROM studies");
        let all = self.0.count(all).await?;
        Ok(Worklist {
            studies,
            total: if page.with_read { all } else { all - read },
            critical_unread: self.0.count(scope.of(CRITICAL_UNREAD)).await?,
            read,
            unreadable_objects: self.0.objects().unreadable_count(scope).await?,
        })
    }

    /// One study as the worklist shows it; `None` if it is unknown.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn row(self, scope: Scope, uid: &Uid) -> Result<Option<StudyRow>, StateError> {
        let query = sqlx::query(scope.of(ONE_STUDY)).bind(uid.as_str());
        let rows = self.0.rows(query).await?;
        Ok(self.readable(&rows).await?.pop())
    }

    /// Everything about one study; `None` if it is unknown.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn details(
        self,
        scope: Scope,
        uid: &Uid,
    ) -> Result<Option<StudyDetails>, StateError> {
        let Some(mut study) = self.row(scope, uid).await? else {
            return Ok(None);
        };
        let mut tries = 0;
        loop {
            let details = StudyDetails {
                report: self.0.results().newest(uid).await?,
                rounds: self.0.results().rounds(uid).await?,
                problems: self.0.problems().of_study(uid).await?,
                study: study.clone(),
            };
            // What was written meanwhile must not stand beside what stood there before.
            let Some(now) = self.row(scope, uid).await? else {
                return Ok(None);
            };
            tries += 1;
            if now == study || tries == DETAILS_TRIES_MAX {
                return Ok(Some(details));
            }
            study = now;
        }
    }

    /// The rows of all patients that share the Study Instance UID `uid`.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn sharing(self, uid: &Uid) -> Result<Vec<StudyRow>, StateError> {
        let query = sqlx::query(SHARING).bind(uid.as_str());
        let rows = self.0.rows(query).await?;
        self.readable(&rows).await
    }

    /// How many studies stand in each state; every state is there.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn by_state(self) -> Result<BTreeMap<StudyState, i64>, StateError> {
        let query = sqlx::query("SELECT state, COUNT(*) AS studies FROM studies GROUP BY state");
        let mut counts: BTreeMap<_, _> = StudyState::ALL.map(|state| (state, 0)).into();
        for row in &self.0.rows(query).await? {
            // A word that another program wrote: such a study counts as ended, see `readable`.
            let state = state(row).unwrap_or(StudyState::NotAnalysed);
            *counts.entry(state).or_default() += integer(row, "studies")?;
        }
        Ok(counts)
    }

    /// Studies that have not come to an end, oldest first; also those that were not analysed for
    /// want of a library or model, which may be there by now.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn unfinished(self) -> Result<Vec<StudyRow>, StateError> {
        let rows = self.0.rows(sqlx::query(UNFINISHED)).await?;
        self.readable(&rows).await
    }

    /// The highest number that a study has; 0 without studies.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn internal_id_max(self) -> Result<i64, StateError> {
        self.0
            .count("SELECT COALESCE(MAX(internal_id), 0) FROM studies")
            .await
    }

    /// When the newest object of any study came; `None` without studies.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn received_last(self) -> Result<Option<Timestamp>, StateError> {
        let query = sqlx::query("SELECT MAX(received_last_at) AS received_last_at FROM studies");
        match self.0.row(query).await? {
            Some(row) => time_if_any(&row, "received_last_at"),
            None => Ok(None),
        }
    }

    /// The studies of `rows`. One whose row holds what Tez never writes ends as not analysed, in
    /// the database as well; one that has not even a UID is left out, and said in the log.
    async fn readable(self, rows: &[AnyRow]) -> Result<Vec<StudyRow>, StateError> {
        let mut studies = Vec::new();
        for row in rows {
            let error = match study_row(row) {
                Ok(study) => {
                    studies.push(study);
                    continue;
                }
                Err(error @ StateError::BadRow { .. }) => error,
                Err(error) => return Err(error),
            };
            tracing::error!(%error, "a study's row cannot be read: it ends as not analysed");
            let Ok(study) = ended(row, &error) else {
                continue;
            };
            if let Err(error) = self.write_ended(&study).await {
                tracing::error!(%error, "its end cannot be written");
            }
            studies.push(study);
        }
        Ok(studies)
    }

    async fn write_ended(self, study: &StudyRow) -> Result<(), StateError> {
        let mut transaction = self.0.begin(Durability::Process).await?;
        transaction.put_study(study).await?;
        transaction.commit().await
    }
}

fn study_row(row: &AnyRow) -> Result<StudyRow, StateError> {
    Ok(StudyRow {
        study_uid: uid(row, "uid")?,
        shared_study_uid: uid_if_any(row, "shared_study_uid")?,
        internal_id: integer(row, "internal_id")?,
        state: state(row)?,
        generation: integer(row, "generation")?,
        interruptions: integer(row, "interruptions")?,
        result: json::<ResultSummary>(row, "summary")?,
        patient: patient(row)?,
        counts: ObjectCounts {
            objects: integer(row, "object_count")?,
            images: integer(row, "image_count")?,
            conflicts: integer(row, "conflict_count")?,
        },
        times: StudyTimes {
            received_first: time(row, "received_first_at")?,
            received_last: time(row, "received_last_at")?,
            complete: time_if_any(row, "complete_at")?,
            queued: time_if_any(row, "queued_at")?,
            analysis_started: time_if_any(row, "analysis_started_at")?,
            analysed: time_if_any(row, "analysed_at")?,
        },
        read_at: time_if_any(row, "read_at")?,
        damaged_objects: integer(row, "damaged_objects")?,
    })
}

/// What can be said of a study whose row holds what Tez never writes: who, as far as that can be
/// read, and that there is no result.
fn ended(row: &AnyRow, error: &StateError) -> Result<StudyRow, StateError> {
    let received = |column| time(row, column).unwrap_or_default();
    let first = received("received_first_at");
    let internal_id = integer(row, "internal_id")?;
    let mut study = StudyRow::new(uid(row, "uid")?, internal_id, first);
    let why = format!(
        "What Tez knew of this study cannot be read: {error}. Read the study yourself now, and send \
         it again to have it analysed."
    );
    study.state = StudyState::NotAnalysed;
    study.shared_study_uid = uid_if_any(row, "shared_study_uid").unwrap_or_default();
    study.generation = integer(row, "generation").unwrap_or(1);
    study.patient = patient(row).unwrap_or_default();
    study.result.priority_because = vec!["not analysed: its row cannot be read".to_owned()];
    study.result.reasons = vec![Reason::new(ReasonCode::InternalFault, why)];
    let generation = integer_if_any(row, "result_generation").unwrap_or_default();
    study.result.result_generation = generation;
    let count = |column| integer(row, column).unwrap_or_default();
    study.counts.objects = count("object_count");
    study.counts.images = count("image_count");
    study.counts.conflicts = count("conflict_count");
    study.times.received_last = received("received_last_at").max(first);
    Ok(study)
}

fn patient(row: &AnyRow) -> Result<PatientFacts, StateError> {
    Ok(PatientFacts {
        name: text(row, "patient_name")?,
        id: text(row, "patient_id")?,
        birth_date: text(row, "patient_birth_date")?,
        sex: text(row, "patient_sex")?,
        age: text(row, "patient_age")?,
        accession_number: text(row, "accession_number")?,
        study_date: text(row, "study_date")?,
        study_time: text(row, "study_time")?,
        study_description: text(row, "study_description")?,
        institution_name: text(row, "institution_name")?,
    })
}

fn state(row: &AnyRow) -> Result<StudyState, StateError> {
    let word = text(row, "state")?;
    StudyState::parse(&word).ok_or_else(|| bad_row("state", &word))
}
