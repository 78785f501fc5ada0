//! `POST /api/v1/uploads`: DICOM files and zips of them, a verdict for each file.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use serde::Serialize;
use utoipa::ToSchema;

use super::AppState;
use super::body::BodyReader;
use super::fault::{Fault, NotFiled};
use super::media::MediaType;
use super::multipart::{MultipartError, Parts};
use super::problem::Problem;
use super::receive::{Filed, Outcome, Pieces, Reception};
use super::request;
use super::worklist::{NOTICE, StudyLinks};
use store::receipt::{Channel, Receipt};

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is on disk and synced.
    Stored,
    /// It was here already.
    Duplicate,
    /// Another object has its UID; both are kept, this one is not analysed.
    Conflict,
    /// It was not taken; nothing of it remains.
    Refused,
}

/// What became of one file, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FileVerdict {
    /// The file, as the sender calls it; `ZIP: entry` for a file inside a zip.
    pub name: String,
    /// What became of it.
    pub verdict: Verdict,
    /// SOP Instance UID, if it can be read.
    #[schema(value_type = Option<String>)]
    pub sop_instance_uid: Option<Uid>,
    /// Study Instance UID, if it was stored.
    #[schema(value_type = Option<String>)]
    pub study_uid: Option<Uid>,
    /// Why it was refused or what is odd; `null` for files that are new.
    #[schema(value_type = Option<Object>)]
    pub reason: Option<Reason>,
}

/// A study that came with an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UploadedStudy {
    /// Study Instance UID.
    #[schema(value_type = String)]
    pub study_uid: Uid,
    /// Where its state and its result are found.
    pub links: StudyLinks,
}

/// The answer to an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UploadAnswer {
    /// What every reader must know.
    pub notice: &'static str,
    /// Files that are new.
    pub stored: usize,
    /// Files that were here already.
    pub duplicates: usize,
    /// Files whose UID another object has.
    pub conflicts: usize,
    /// Files that were not taken.
    pub refused: usize,
    /// The studies to follow.
    pub studies: Vec<UploadedStudy>,
    /// A verdict for each file, in the order in which they came.
    pub files: Vec<FileVerdict>,
}

/// Takes DICOM files and zips of them.
///
/// Send `multipart/form-data` with any number of files, or one file or zip as the body:
/// `curl -F file=@study.zip http://127.0.0.1:8080/api/v1/uploads`. The answer comes when every
/// file that it calls stored is on disk and synced.
#[utoipa::path(post, path = "/api/v1/uploads", tag = "intake",
    request_body(description = "DICOM Part 10 files, zips of them, or both", content(
        (Object = "multipart/form-data"), (Vec<u8> = "application/zip"), (Vec<u8> = "application/dicom"))),
    responses(
    (status = 202, description = "At least one file is new; its study is analysed", body = UploadAnswer),
    (status = 200, description = "Nothing is new: every file that was taken was here already", body = UploadAnswer),
    (status = 400, description = "The body is malformed or broke off; `files` says what was stored before", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "Sent by a page of another site", body = Problem, content_type = "application/problem+json"),
    (status = 408, description = "The sender fell silent", body = Problem, content_type = "application/problem+json"),
    (status = 413, description = "A limit in bytes or files was exceeded", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "A media type that is not taken", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "Nothing in it is DICOM; `files` says why", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "Too many uploads at once, or the service is behind", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The disk is full; `files` says what was stored before", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn upload(State(app): State<AppState>, request: Request) -> Response {
    match receive(&app, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn receive(app: &AppState, request: Request) -> Result<Response, Problem> {
    let _place = request::place(app, &request)?;
    let bytes_max = app.config.upload_bytes_max;
    request::check_length(request.headers(), bytes_max)?;
    let media = request::content_type(request.headers());
    let kind = Kind::of(&media)?;
    let peer = request::peer(&request);
    let rules = app.rules(app.config.upload_files_max, None);
    let mut reception =
        Reception::open(&app.intake, &app.spool, (Channel::Upload, peer), rules).await?;
    let body = BodyReader::new(request.into_body(), bytes_max, app.config.idle_max())
        .at_least(app.config.pace());
    let ended = match kind {
        Kind::Multipart => take_parts(&mut reception, body, &media).await,
        Kind::OneFile => take_body(&mut reception, body).await,
    };
    let outcomes = reception.close(&ended).await;
    answer(ended, outcomes)
}

enum Kind {
    Multipart,
    OneFile,
}

impl Kind {
    fn of(media: &MediaType) -> Result<Self, Problem> {
        match media.essence.as_str() {
            "multipart/form-data" | "multipart/mixed" | "multipart/related" => Ok(Self::Multipart),
            "application/zip"
            | "application/x-zip-compressed"
            | "application/dicom"
            | "application/octet-stream" => Ok(Self::OneFile),
            other => Err(Problem::media_type(format!(
                "{:?} is not taken here. Send multipart/form-data with files, or one file as \
                 application/zip or application/dicom.",
                other.chars().take(80).collect::<String>()
            ))),
        }
    }
}

async fn take_parts(
    reception: &mut Reception,
    body: BodyReader,
    media: &MediaType,
) -> Result<(), Problem> {
    let mut parts = Parts::new(body, media)?;
    while let Some(headers) = parts.next_part().await? {
        reception
            .take(headers.file_name(), Pieces::Part(&mut parts), true)
            .await?;
    }
    Ok(())
}

async fn take_body(reception: &mut Reception, mut body: BodyReader) -> Result<(), Problem> {
    reception.take(None, Pieces::Body(&mut body), true).await
}

impl From<MultipartError> for Problem {
    fn from(error: MultipartError) -> Self {
        match error {
            MultipartError::Body(error) => Self::from(&error),
            MultipartError::Truncated => {
                Self::bad_request("truncated", format!("{error}; send it again."))
            }
            MultipartError::Boundary | MultipartError::Malformed { .. } => {
                Self::bad_request("bad_multipart", format!("{error}."))
            }
        }
    }
}

fn answer(
    ended: Result<(), Problem>,
    outcomes: Vec<(String, Outcome)>,
) -> Result<Response, Problem> {
    let problem = ended.err().or_else(|| problem(&outcomes));
    let answer = UploadAnswer::new(outcomes);
    if let Some(problem) = problem {
        return Err(problem
            .with("studies", &answer.studies)
            .with("files", &answer.files));
    }
    let status = match answer.stored + answer.conflicts {
        0 => StatusCode::OK,
        _ => StatusCode::ACCEPTED,
    };
    Ok((status, Json(answer)).into_response())
}

/// What is wrong with the upload as a whole, if anything.
fn problem(outcomes: &[(String, Outcome)]) -> Option<Problem> {
    let faults = outcomes
        .iter()
        .filter_map(|(_, outcome)| outcome.as_ref().err());
    let worst = faults.max_by_key(|error| error.fault.gravity());
    let nothing_taken = outcomes.iter().all(|(_, outcome)| outcome.is_err());
    let Some(worst) = worst else {
        let detail = "The upload holds no file.";
        return nothing_taken.then(|| Problem::bad_request("no_files", detail));
    };
    let serious = worst.fault.may_lose_objects();
    (serious || nothing_taken).then(|| problem_of(worst, outcomes.len()))
}

fn problem_of(worst: &NotFiled, files: usize) -> Problem {
    let text = &worst.reason.text;
    match worst.fault {
        Fault::File | Fault::OtherStudy => {
            let detail = match files {
                1 => format!("The file was not taken. {text}"),
                _ => format!("None of the {files} files was taken; the member files says why."),
            };
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "nothing_stored", detail)
        }
        Fault::Archive => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad_archive",
            text.clone(),
        ),
        Fault::TooLarge | Fault::ArchiveTooLarge => Problem::too_large(text.clone()),
        Fault::Busy => Problem::busy(text.clone()),
        Fault::DiskFull => Problem::disk_full(text.clone()),
        Fault::Inside => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text.clone()),
    }
}

impl UploadAnswer {
    fn new(outcomes: Vec<(String, Outcome)>) -> Self {
        let files: Vec<FileVerdict> = outcomes
            .into_iter()
            .map(|(name, outcome)| FileVerdict::new(name, outcome))
            .collect();
        let count = |verdict| files.iter().filter(|file| file.verdict == verdict).count();
        let uids: BTreeSet<&Uid> = files
            .iter()
            .filter_map(|file| file.study_uid.as_ref())
            .collect();
        let studies = uids.into_iter().map(|uid| UploadedStudy {
            study_uid: uid.clone(),
            links: StudyLinks::of(uid),
        });
        Self {
            notice: NOTICE,
            stored: count(Verdict::Stored),
            duplicates: count(Verdict::Duplicate),
            conflicts: count(Verdict::Conflict),
            refused: count(Verdict::Refused),
            studies: studies.collect(),
            files,
        }
    }
}

impl FileVerdict {
    fn new(name: String, outcome: Outcome) -> Self {
        match outcome {
            Ok(filed) => Self::filed(name, filed),
            Err(error) => Self {
                name,
                verdict: Verdict::Refused,
                sop_instance_uid: error.claim.map(|claim| claim.sop_instance_uid),
                study_uid: None,
                reason: Some(error.reason),
            },
        }
    }

    fn filed(name: String, filed: Filed) -> Self {
        let (verdict, reason) = match filed.receipt {
            Receipt::New => (Verdict::Stored, None),
            Receipt::Mended => {
                let text = "The same object was here, but its file was damaged or lost; this copy \
                            took its place.";
                (
                    Verdict::Stored,
                    Some(Reason::new(ReasonCode::DamagedFile, text)),
                )
            }
            Receipt::Duplicate => {
                let text = "The same object is here already; nothing was written twice.";
                (
                    Verdict::Duplicate,
                    Some(Reason::new(ReasonCode::Duplicate, text)),
                )
            }
            Receipt::Conflict => {
                let text = "Another object with this SOP Instance UID came first. This one is kept \
                            apart and is not analysed; ask the sender which one is right.";
                (
                    Verdict::Conflict,
                    Some(Reason::new(ReasonCode::ConflictingDuplicate, text)),
                )
            }
        };
        Self {
            name,
            verdict,
            sop_instance_uid: Some(filed.claim.sop_instance_uid),
            study_uid: Some(filed.study_uid),
            reason,
        }
    }
}
