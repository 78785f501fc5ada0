//! What radiologists and programs read: the ordered list, one study, what went wrong.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use models::report::StudyReport;
use pipeline::uid::Uid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AppState;
use super::health;
use super::problem::Problem;
use super::reader::Reader;
use super::wire::{ObjectProblem, Study, StudyDetails, UnreadableObject};
use crate::events::{StudyRef, What};
use store::state::{self, Marked, Scope, StateError, StudyRow, Trouble};

/// Most studies of one page of the worklist.
const PAGE_STUDIES_MAX: i64 = 1_000;

impl From<StateError> for Problem {
    fn from(error: StateError) -> Self {
        match Trouble::of(&error) {
            None => Self::internal(&error),
            Some(trouble) => {
                tracing::error!(%error, "the database failed");
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "database_failed", trouble.to_string())
            }
        }
    }
}

/// Which part of the worklist.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    /// Most studies to return.
    limit: i64,
    /// Studies to pass over from the top.
    offset: i64,
    /// Whether studies that were marked as read are listed too.
    read: bool,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            limit: 200,
            offset: 0,
            read: false,
        }
    }
}

/// Where more about a study is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StudyLinks {
    /// The study with its report, as JSON.
    #[serde(rename = "self")]
    pub this: String,
    /// The study on Tez's page.
    pub page: String,
}

impl StudyLinks {
    /// The links of `study_uid`, relative to the service.
    pub fn of(study_uid: &Uid) -> Self {
        Self {
            this: format!("/api/v1/studies/{study_uid}"),
            page: format!("/#study={study_uid}"),
        }
    }
}

/// A study in the list, with its links.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct WorklistRow {
    /// The study.
    #[serde(flatten)]
    pub study: Study,
    /// Where there is more about it.
    pub links: StudyLinks,
}

/// A page of the worklist, first to be read first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct WorklistPage {
    /// What every reader must know.
    pub notice: &'static str,
    /// The studies of this page, in order: by priority, then unread before read, then newest first.
    /// Studies that were not analysed stand above those analysed without a finding.
    pub studies: Vec<WorklistRow>,
    /// Studies in the whole list: those that were read only where they were asked for.
    pub total: i64,
    /// Unread studies with a critical result, on this page or not.
    pub critical_unread: i64,
    /// Studies that were marked as read.
    pub read: i64,
    /// Kept objects that cannot be read; see `/api/v1/objects/unreadable`.
    pub unreadable_objects: i64,
    /// What keeps Tez from its work now, in sentences; the list may be out of date then. Empty when
    /// all is well.
    pub problems: Vec<String>,
}

/// Said on every screen and in every list.
pub const NOTICE: &str = "Triage aid for bleeding. Not for diagnosis. Infarcts are not looked for.";

/// The worklist: every study that came in and was not marked as read, first to be read first.
#[utoipa::path(get, path = "/api/v1/worklist", tag = "worklist",
    params(("limit" = Option<i64>, Query, description = "Most studies to return, 1 to 1000; 200 unless given"),
        ("offset" = Option<i64>, Query, description = "Studies to pass over from the top"),
        ("read" = Option<bool>, Query, description = "true: with those that were marked as read")),
    responses(
    (status = 200, description = "A page of the worklist", body = WorklistPage),
    (status = 400, description = "Parameters out of range", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn worklist(
    State(app): State<AppState>,
    Reader(scope): Reader,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<WorklistPage>, Problem> {
    let Query(page) = page.map_err(|error| Problem::bad_request("bad_query", error.body_text()))?;
    if !(1..=PAGE_STUDIES_MAX).contains(&page.limit) || page.offset < 0 {
        let detail =
            format!("limit must lie in 1 to {PAGE_STUDIES_MAX}, and offset must not be negative.");
        return Err(Problem::bad_request("bad_query", detail));
    }
    let page = state::WorklistPage {
        limit: page.limit,
        offset: page.offset,
        with_read: page.read,
    };
    let list = app.state.studies().worklist(scope, page).await?;
    let with_links = |study: StudyRow| WorklistRow {
        links: StudyLinks::of(&study.study_uid),
        study: study.into(),
    };
    Ok(Json(WorklistPage {
        notice: NOTICE,
        studies: list.studies.into_iter().map(with_links).collect(),
        total: list.total,
        critical_unread: list.critical_unread,
        read: list.read,
        unreadable_objects: list.unreadable_objects,
        problems: health::problems(&app).await,
    }))
}

/// One study: its state, its newest report as `tez triage --json` prints it, earlier rounds of
/// analysis, and what is odd about its objects.
#[utoipa::path(get, path = "/api/v1/studies/{study_uid}", tag = "worklist",
    params(("study_uid" = String, Path, description = "Study Instance UID")),
    responses(
    (status = 200, description = "The study", body = StudyDetails),
    (status = 400, description = "Not a UID", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No such study", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn study(
    State(app): State<AppState>,
    Reader(scope): Reader,
    Path(study_uid): Path<String>,
) -> Result<Json<StudyDetails>, Problem> {
    let uid = checked_uid(&study_uid)?;
    let study = app.state.studies().details(scope, &uid).await?;
    let details = study.ok_or_else(|| unknown_study(&uid))?;
    Ok(Json(details.into()))
}

/// Which result was read.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Its round of analysis.
    result_generation: i64,
}

/// Marks a study as read: it leaves the worklist, unless read ones are asked for. Nothing is
/// deleted, and a newer result that says something else brings it back unread.
#[utoipa::path(put, path = "/api/v1/studies/{study_uid}/read", tag = "worklist",
    params(("study_uid" = String, Path, description = "Study Instance UID"),
        ("result_generation" = i64, Query, description = "The result that was read: as in the worklist")),
    responses(
    (status = 204, description = "Marked"),
    (status = 400, description = "Not a UID or not a number", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No such study", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "There is no result, or a newer one: read that", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn mark_read(
    State(app): State<AppState>,
    Reader(scope): Reader,
    Path(study_uid): Path<String>,
    reading: Result<Query<Reading>, axum::extract::rejection::QueryRejection>,
) -> Result<StatusCode, Problem> {
    let uid = checked_uid(&study_uid)?;
    let Query(reading) =
        reading.map_err(|error| Problem::bad_request("bad_query", error.body_text()))?;
    let at = app.clock.now();
    let marked = app
        .state
        .results()
        .mark_read(scope, &uid, reading.result_generation, at);
    answer_mark(&app, scope, &uid, marked.await?, true).await
}

/// Takes the mark back that a study was read: it stands in the worklist again.
#[utoipa::path(delete, path = "/api/v1/studies/{study_uid}/read", tag = "worklist",
    params(("study_uid" = String, Path, description = "Study Instance UID")),
    responses(
    (status = 204, description = "Unread"),
    (status = 400, description = "Not a UID", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No such study", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn mark_unread(
    State(app): State<AppState>,
    Reader(scope): Reader,
    Path(study_uid): Path<String>,
) -> Result<StatusCode, Problem> {
    let uid = checked_uid(&study_uid)?;
    let marked = app.state.results().mark_unread(scope, &uid).await?;
    answer_mark(&app, scope, &uid, marked, false).await
}

async fn answer_mark(
    app: &AppState,
    scope: Scope,
    uid: &Uid,
    marked: Marked,
    read: bool,
) -> Result<StatusCode, Problem> {
    match marked {
        Marked::Unknown => Err(unknown_study(uid)),
        Marked::OtherResult => {
            let detail = "The study has no result yet, or a newer one than that. Load the worklist \
                          again and read the study as it is now.";
            Err(Problem::new(StatusCode::CONFLICT, "other_result", detail))
        }
        Marked::Done => {
            if let Some(study) = app.state.studies().row(scope, uid).await? {
                tracing::info!(study = study.internal_id, read, "marked by a reader");
                app.events.publish(What::StudyMarked {
                    study: StudyRef {
                        study_uid: uid.clone(),
                        internal_id: study.internal_id,
                        generation: study.generation,
                    },
                    read,
                });
            }
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// The report of an earlier round of analysis.
#[utoipa::path(get, path = "/api/v1/studies/{study_uid}/reports/{generation}", tag = "worklist",
    params(("study_uid" = String, Path, description = "Study Instance UID"),
        ("generation" = i64, Path, description = "Which round, from 1")),
    responses(
    (status = 200, description = "The report as `tez triage --json` prints it", body = Object),
    (status = 400, description = "Not a UID or not a number", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No such report", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn report(
    State(app): State<AppState>,
    Reader(scope): Reader,
    Path((study_uid, generation)): Path<(String, String)>,
) -> Result<Json<StudyReport>, Problem> {
    let uid = checked_uid(&study_uid)?;
    let generation = generation.parse().map_err(|_error| {
        Problem::bad_request(
            "bad_generation",
            "The round of analysis is a whole number from 1.",
        )
    })?;
    let report = app.state.results().report(scope, &uid, generation).await?;
    let missing =
        || Problem::not_found(format!("Study {uid} has no report of round {generation}."));
    report.map(Json).ok_or_else(missing)
}

/// What people should know about objects and studies, newest first: objects in conflict, unreadable,
/// doubled or left out, each with its reason.
#[utoipa::path(get, path = "/api/v1/objects/problems", tag = "worklist", responses(
    (status = 200, description = "At most 1000 problems", body = Vec<ObjectProblem>),
))]
pub(super) async fn problems(
    State(app): State<AppState>,
    Reader(scope): Reader,
) -> Result<Json<Vec<ObjectProblem>>, Problem> {
    let problems = app.state.problems().newest(scope).await?;
    Ok(Json(problems.into_iter().map(Into::into).collect()))
}

/// Kept objects that cannot be read, newest first. They are not lost, and their studies are in the
/// worklist, partial or not analysed.
#[utoipa::path(get, path = "/api/v1/objects/unreadable", tag = "worklist", responses(
    (status = 200, description = "At most 1000 objects", body = Vec<UnreadableObject>),
))]
pub(super) async fn unreadable(
    State(app): State<AppState>,
    Reader(scope): Reader,
) -> Result<Json<Vec<UnreadableObject>>, Problem> {
    let objects = app.state.objects().unreadable(scope).await?;
    Ok(Json(objects.into_iter().map(Into::into).collect()))
}

/// A UID from a path.
///
/// # Errors
///
/// 400 if it is none.
pub fn checked_uid(text: &str) -> Result<Uid, Problem> {
    Uid::new(text).map_err(|error| Problem::bad_request("bad_uid", format!("{error}.")))
}

fn unknown_study(uid: &Uid) -> Problem {
    Problem::not_found(format!(
        "No study {uid} is known. If it was sent just now, look again in a moment; \
         /api/v1/objects/unreadable lists objects that cannot be read."
    ))
}
