//! What is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use pipeline::content::ContentHash;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::rows::{
    KnownObject, ObjectCounts, PatientFacts, Problem, ReportRound, ResultSummary, StudyDetails,
    StudyRow, StudyState, StudyTimes, UnreadableObject, Worklist,
};
use super::{State, StateError};

/// Most rows of one list that is not paged.
const LIST_ROWS_MAX: i64 = 1_000;

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

impl State {
    /// One page of the worklist: by priority, then unread before read, then newest first; those that
    /// were read only where `with_read`.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn worklist(
        &self,
        limit: i64,
        offset: i64,
        with_read: bool,
    ) -> Result<Worklist, StateError> {
        let rows = sqlx::query(if with_read { READ_TOO } else { UNREAD })
            .bind(limit)
            .bind(offset)
            .fetch_all(&self.readers)
            .await
            .noted(self)?;
        let read = self.count("SELECT COUNT(*) FROM reads").await?;
        let all = self.count("SELECT COUNT(*) FROM studies").await?;
        Ok(Worklist {
            studies: rows.iter().map(study_row).collect::<Result<_, _>>()?,
            total: if with_read { all } else { all - read },
            critical_unread: self.count(CRITICAL_UNREAD).await?,
            read,
            unreadable_objects: self.unreadable_count().await?,
        })
    }

    /// One study as the worklist shows it; `None` if it is unknown.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn study_row(&self, uid: &Uid) -> Result<Option<StudyRow>, StateError> {
        let row = sqlx::query(ONE_STUDY)
            .bind(uid.as_str())
            .fetch_optional(&self.readers)
            .await
            .noted(self)?;
        row.as_ref().map(study_row).transpose()
    }

    /// The rows of all patients that share the Study Instance UID `uid`.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn sharing(&self, uid: &Uid) -> Result<Vec<StudyRow>, StateError> {
        let rows = sqlx::query(SHARING)
            .bind(uid.as_str())
            .fetch_all(&self.readers)
            .await
            .noted(self)?;
        rows.iter().map(study_row).collect()
    }

    /// Everything about one study; `None` if it is unknown.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn study(&self, uid: &Uid) -> Result<Option<StudyDetails>, StateError> {
        let Some(study) = self.study_row(uid).await? else {
            return Ok(None);
        };
        Ok(Some(StudyDetails {
            report: self.newest_report(uid).await?,
            rounds: self.rounds(uid).await?,
            problems: self.problems_of(uid).await?,
            study,
        }))
    }

    /// The result of one round of a study; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn report(
        &self,
        uid: &Uid,
        generation: i64,
    ) -> Result<Option<serde_json::Value>, StateError> {
        let row =
            sqlx::query("SELECT report FROM reports WHERE study_uid = $1 AND generation = $2")
                .bind(uid.as_str())
                .bind(generation)
                .fetch_optional(&self.readers)
                .await
                .noted(self)?;
        row.map(|row| report_json(&row)).transpose()
    }

    /// The newest problems of any study or object, newest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn problems(&self) -> Result<Vec<Problem>, StateError> {
        let rows = sqlx::query("SELECT * FROM problems ORDER BY id DESC LIMIT $1")
            .bind(LIST_ROWS_MAX)
            .fetch_all(&self.readers)
            .await
            .noted(self)?;
        rows.iter().map(problem).collect()
    }

    /// The newest kept objects that cannot be read, newest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn unreadable_objects(&self) -> Result<Vec<UnreadableObject>, StateError> {
        let rows = sqlx::query(
            "SELECT * FROM objects WHERE refusal IS NOT NULL ORDER BY received_at DESC LIMIT $1",
        )
        .bind(LIST_ROWS_MAX)
        .fetch_all(&self.readers)
        .await
        .noted(self)?;
        rows.iter().map(unreadable_object).collect()
    }

    /// How many studies stand in each state; every state is there.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn studies_by_state(&self) -> Result<BTreeMap<StudyState, i64>, StateError> {
        let rows = sqlx::query("SELECT state, COUNT(*) AS studies FROM studies GROUP BY state")
            .fetch_all(&self.readers)
            .await
            .noted(self)?;
        let mut counts: BTreeMap<_, _> = StudyState::ALL.map(|state| (state, 0)).into();
        for row in &rows {
            counts.insert(state(row)?, row.try_get("studies")?);
        }
        Ok(counts)
    }

    /// Studies that have not come to an end, oldest first; also those that were not analysed for
    /// want of a library or model, which may be there by now.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn unfinished(&self) -> Result<Vec<StudyRow>, StateError> {
        let rows = sqlx::query(
            "SELECT studies.*, reads.read_at, 0 AS damaged_objects
             FROM studies LEFT JOIN reads ON reads.study_uid = studies.uid
             WHERE state IN ('receiving', 'queued', 'analysing')
                 OR (state = 'not_analysed' AND (summary LIKE '%inference_library_missing%'
                     OR summary LIKE '%model_unavailable%'))
             ORDER BY received_first_at, internal_id",
        )
        .fetch_all(&self.readers)
        .await
        .noted(self)?;
        rows.iter().map(study_row).collect()
    }

    /// The files of a study's objects, in the order in which they came.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn paths_of(&self, uid: &Uid) -> Result<Vec<PathBuf>, StateError> {
        let rows =
            sqlx::query("SELECT path FROM objects WHERE study_uid = $1 ORDER BY received_at, path")
                .bind(uid.as_str())
                .fetch_all(&self.readers)
                .await
                .noted(self)?;
        rows.iter()
            .map(|row| Ok(self.data_dir.join(text(row, "path")?)))
            .collect()
    }

    /// The objects of a study that were not taken, as far as is remembered.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn refused_of(&self, uid: &Uid) -> Result<Vec<UnreadObject>, StateError> {
        let rows = sqlx::query(
            "SELECT * FROM problems WHERE study_uid = $1 AND path IS NULL
                 AND reason LIKE '%\"unread_objects\"%' ORDER BY id LIMIT $2",
        )
        .bind(uid.as_str())
        .bind(LIST_ROWS_MAX)
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let problem = problem(row)?;
                let mut object = UnreadObject::unknown(PathBuf::new(), problem.reason);
                object.sop_instance_uid = problem.sop_instance_uid;
                object.study_uid = problem.study_uid;
                Ok(object)
            })
            .collect()
    }

    /// Paths of all objects that have a row and a study. Others were unreadable for an older Tez.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn known_paths(&self) -> Result<BTreeSet<PathBuf>, StateError> {
        let rows = sqlx::query("SELECT path FROM objects WHERE study_uid IS NOT NULL")
            .fetch_all(&self.readers)
            .await
            .noted(self)?;
        rows.iter()
            .map(|row| Ok(self.data_dir.join(text(row, "path")?)))
            .collect()
    }

    /// How many kept files are known to be damaged or gone.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn damages(&self) -> Result<i64, StateError> {
        self.count("SELECT COUNT(*) FROM damages").await
    }

    /// The objects below `objects/<first as two hexadecimal digits>/`, by their files.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn objects_below(
        &self,
        first: u8,
    ) -> Result<BTreeMap<PathBuf, KnownObject>, StateError> {
        let rows = sqlx::query(
            "SELECT objects.path, objects.sop_instance_uid, objects.study_uid, damages.kind
             FROM objects LEFT JOIN damages ON damages.path = objects.path
             WHERE objects.path >= $1 AND objects.path < $2",
        )
        .bind(format!("objects/{first:02x}/"))
        .bind(format!("objects/{first:02x}0")) // the character after the slash
        .fetch_all(&self.readers)
        .await
        .noted(self)?;
        let known = |row: &AnyRow| {
            let object = KnownObject {
                sop_instance_uid: uid(row, "sop_instance_uid")?,
                study_uid: uid_if_any(row, "study_uid")?,
                is_damaged: row.try_get::<Option<String>, _>("kind")?.is_some(),
            };
            Ok((self.data_dir.join(text(row, "path")?), object))
        };
        rows.iter().map(known).collect()
    }

    /// The highest number that a study has; 0 without studies.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn internal_id_max(&self) -> Result<i64, StateError> {
        self.count("SELECT COALESCE(MAX(internal_id), 0) FROM studies")
            .await
    }

    async fn unreadable_count(&self) -> Result<i64, StateError> {
        self.count("SELECT COUNT(*) FROM objects WHERE refusal IS NOT NULL")
            .await
    }

    async fn count(&self, query: &'static str) -> Result<i64, StateError> {
        sqlx::query_scalar(query)
            .fetch_one(&self.readers)
            .await
            .noted(self)
    }

    async fn newest_report(&self, uid: &Uid) -> Result<Option<serde_json::Value>, StateError> {
        let row = sqlx::query(
            "SELECT report FROM reports WHERE study_uid = $1 ORDER BY generation DESC LIMIT 1",
        )
        .bind(uid.as_str())
        .fetch_optional(&self.readers)
        .await
        .noted(self)?;
        row.map(|row| report_json(&row)).transpose()
    }

    async fn rounds(&self, uid: &Uid) -> Result<Vec<ReportRound>, StateError> {
        let rows = sqlx::query(
            "SELECT generation, created_at, superseded_at FROM reports WHERE study_uid = $1
             ORDER BY generation",
        )
        .bind(uid.as_str())
        .fetch_all(&self.readers)
        .await
        .noted(self)?;
        rows.iter()
            .map(|row| {
                Ok(ReportRound {
                    generation: row.try_get("generation")?,
                    created_at: time(row, "created_at")?,
                    superseded_at: time_if_any(row, "superseded_at")?,
                })
            })
            .collect()
    }

    async fn problems_of(&self, uid: &Uid) -> Result<Vec<Problem>, StateError> {
        let rows = sqlx::query("SELECT * FROM problems WHERE study_uid = $1 ORDER BY id LIMIT $2")
            .bind(uid.as_str())
            .bind(LIST_ROWS_MAX)
            .fetch_all(&self.readers)
            .await
            .noted(self)?;
        rows.iter().map(problem).collect()
    }
}

/// Keeps in mind what a reading met.
trait Noted<T> {
    fn noted(self, state: &State) -> Result<T, StateError>;
}

impl<T> Noted<T> for Result<T, sqlx::Error> {
    fn noted(self, state: &State) -> Result<T, StateError> {
        let result = self.map_err(StateError::from);
        state.condition.read(&result);
        result
    }
}

fn study_row(row: &AnyRow) -> Result<StudyRow, StateError> {
    Ok(StudyRow {
        study_uid: uid(row, "uid")?,
        shared_study_uid: uid_if_any(row, "shared_study_uid")?,
        internal_id: row.try_get("internal_id")?,
        state: state(row)?,
        generation: row.try_get("generation")?,
        interruptions: row.try_get("interruptions")?,
        result: summary(row)?,
        patient: patient(row)?,
        counts: ObjectCounts {
            objects: row.try_get("object_count")?,
            images: row.try_get("image_count")?,
            conflicts: row.try_get("conflict_count")?,
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
        damaged_objects: row.try_get("damaged_objects")?,
    })
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

fn problem(row: &AnyRow) -> Result<Problem, StateError> {
    Ok(Problem {
        at: time(row, "at")?,
        study_uid: uid_if_any(row, "study_uid")?,
        sop_instance_uid: uid_if_any(row, "sop_instance_uid")?,
        path: row.try_get::<Option<String>, _>("path")?.map(PathBuf::from),
        peer: text(row, "peer")?,
        reason: reason(row, "reason")?,
    })
}

fn unreadable_object(row: &AnyRow) -> Result<UnreadableObject, StateError> {
    let content = text(row, "content")?;
    Ok(UnreadableObject {
        sop_instance_uid: uid(row, "sop_instance_uid")?,
        study_uid: uid_if_any(row, "study_uid")?,
        path: text(row, "path")?.into(),
        content: ContentHash::from_hex(&content).ok_or_else(|| bad_row("content", &content))?,
        bytes: u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or(0),
        received_at: time(row, "received_at")?,
        peer: text(row, "peer")?,
        reason: reason(row, "refusal")?,
    })
}

fn summary(row: &AnyRow) -> Result<ResultSummary, StateError> {
    let json = text(row, "summary")?;
    serde_json::from_str(&json).map_err(|_| bad_row("summary", &json))
}

fn reason(row: &AnyRow, column: &'static str) -> Result<Reason, StateError> {
    let json = text(row, column)?;
    serde_json::from_str(&json).map_err(|_| bad_row(column, &json))
}

fn report_json(row: &AnyRow) -> Result<serde_json::Value, StateError> {
    let json = text(row, "report")?;
    serde_json::from_str(&json).map_err(|_| bad_row("report", &json))
}

fn state(row: &AnyRow) -> Result<StudyState, StateError> {
    let word = text(row, "state")?;
    StudyState::parse(&word).ok_or_else(|| bad_row("state", &word))
}

fn uid(row: &AnyRow, column: &'static str) -> Result<Uid, StateError> {
    let word = text(row, column)?;
    Uid::new(&word).map_err(|_| bad_row(column, &word))
}

fn uid_if_any(row: &AnyRow, column: &'static str) -> Result<Option<Uid>, StateError> {
    let word: Option<String> = row.try_get(column)?;
    word.map(|word| Uid::new(&word).map_err(|_| bad_row(column, &word)))
        .transpose()
}

fn time(row: &AnyRow, column: &'static str) -> Result<Timestamp, StateError> {
    timestamp(column, row.try_get(column)?)
}

fn time_if_any(row: &AnyRow, column: &'static str) -> Result<Option<Timestamp>, StateError> {
    let millisecond: Option<i64> = row.try_get(column)?;
    millisecond
        .map(|value| timestamp(column, value))
        .transpose()
}

fn timestamp(column: &'static str, millisecond: i64) -> Result<Timestamp, StateError> {
    Timestamp::from_millisecond(millisecond).map_err(|_| bad_row(column, &millisecond.to_string()))
}

fn text(row: &AnyRow, column: &'static str) -> Result<String, StateError> {
    Ok(row.try_get(column)?)
}

fn bad_row(column: &'static str, value: &str) -> StateError {
    StateError::BadRow {
        column,
        value: value.chars().take(80).collect(),
    }
}
