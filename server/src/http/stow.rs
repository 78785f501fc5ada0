//! STOW-RS: Store Instances over the web (PS3.18 section 10.5).

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pipeline::uid::Uid;

use super::AppState;
use super::body::BodyReader;
use super::fault::{Fault, NotFiled};
use super::media::MediaType;
use super::multipart::Parts;
use super::problem::Problem;
use super::receive::{Outcome, Pieces, Reception};
use super::request;
use super::stow_response::{FailureReason, Instance, StowResponse, status};
use super::worklist::checked_uid;
use store::receipt::{Channel, Receipt};

/// Most instances of one request: the limit is in bytes.
const INSTANCES_MAX: usize = 100_000;

/// Stores instances of any study.
#[utoipa::path(post, path = "/dicom-web/studies", tag = "DICOMweb",
    request_body(description = "DICOM Part 10 files", content(
        (Object = "multipart/related; type=\"application/dicom\""))),
    responses(
    (status = 200, description = "All instances are stored", body = Object, content_type = "application/dicom+json"),
    (status = 202, description = "Some instances are stored; the others are in FailedSOPSequence", body = Object, content_type = "application/dicom+json"),
    (status = 400, description = "The body is malformed or broke off", body = Problem, content_type = "application/problem+json"),
    (status = 406, description = "The answer is not to be had in any accepted form", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "No instance is stored; FailedSOPSequence says why", body = Object, content_type = "application/dicom+json"),
    (status = 413, description = "Too many bytes", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "Not multipart/related of application/dicom", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "No instance is stored for want of space or time", body = Object, content_type = "application/dicom+json"),
))]
pub(super) async fn store(State(app): State<AppState>, request: Request) -> Response {
    respond(receive(&app, None, request).await)
}

/// Stores instances of one study; those of other studies are refused.
#[utoipa::path(post, path = "/dicom-web/studies/{study_uid}", tag = "DICOMweb",
    params(("study_uid" = String, Path, description = "Study Instance UID")),
    request_body(description = "DICOM Part 10 files", content(
        (Object = "multipart/related; type=\"application/dicom\""))),
    responses(
    (status = 200, description = "All instances are stored", body = Object, content_type = "application/dicom+json"),
    (status = 202, description = "Some instances are stored; the others are in FailedSOPSequence", body = Object, content_type = "application/dicom+json"),
    (status = 400, description = "Not a UID; the body is malformed or broke off", body = Problem, content_type = "application/problem+json"),
    (status = 406, description = "The answer is not to be had in any accepted form", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "No instance is stored; FailedSOPSequence says why", body = Object, content_type = "application/dicom+json"),
    (status = 413, description = "Too many bytes", body = Problem, content_type = "application/problem+json"),
    (status = 415, description = "Not multipart/related of application/dicom", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "No instance is stored for want of space or time", body = Object, content_type = "application/dicom+json"),
))]
pub(super) async fn store_study(
    State(app): State<AppState>,
    Path(study_uid): Path<String>,
    request: Request,
) -> Response {
    let study = match checked_uid(&study_uid) {
        Ok(study) => study,
        Err(problem) => return problem.into_response(),
    };
    respond(receive(&app, Some(study), request).await)
}

fn respond(answer: Result<Response, Problem>) -> Response {
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn receive(
    app: &AppState,
    study: Option<Uid>,
    request: Request,
) -> Result<Response, Problem> {
    let form = Form::wanted(request.headers())?;
    let media = request::content_type(request.headers());
    check_media(&media)?;
    let bytes_max = app.config.stow_bytes_max;
    request::check_length(request.headers(), bytes_max)?;
    let _place = request::place(app, &request)?;
    let peer = (Channel::Stow, request::peer(&request));
    let rules = app.rules(INSTANCES_MAX, study);
    let mut reception = Reception::open(&app.intake, &app.spool, peer, rules).await?;
    let body = BodyReader::new(request.into_body(), bytes_max, app.config.idle_max())
        .at_least(app.config.pace());
    let ended = take_all(&mut reception, body, &media).await;
    let outcomes = reception.close(&ended).await;
    ended?;
    if outcomes.is_empty() {
        return Err(Problem::bad_request(
            "no_instances",
            "The request holds no instance.",
        ));
    }
    Ok(answer(&outcomes, form))
}

/// PS3.18 section 10.5.1.1.2: multipart/related of application/dicom, or one instance by itself.
fn check_media(media: &MediaType) -> Result<(), Problem> {
    let of_dicom = media
        .parameter("type")
        .is_none_or(|kind| kind.eq_ignore_ascii_case("application/dicom"));
    match media.essence.as_str() {
        "multipart/related" if of_dicom => Ok(()),
        "application/dicom" => Ok(()),
        _ => Err(Problem::media_type(
            "STOW-RS takes multipart/related; type=\"application/dicom\" here. Metadata with bulk data is not taken.",
        )),
    }
}

async fn take_all(
    reception: &mut Reception,
    mut body: BodyReader,
    media: &MediaType,
) -> Result<(), Problem> {
    if media.essence == "application/dicom" {
        return reception.take(None, Pieces::Body(&mut body), false).await;
    }
    let mut parts = Parts::new(body, media)?;
    while parts.next_part().await?.is_some() {
        reception
            .take(None, Pieces::Part(&mut parts), false)
            .await?;
    }
    Ok(())
}

fn answer(outcomes: &[(String, Outcome)], form: Form) -> Response {
    let instances: Vec<Instance> = outcomes
        .iter()
        .map(|(_, outcome)| instance(outcome))
        .collect();
    let response = StowResponse::new(&instances);
    let body = match form {
        Form::Json => response.to_json().to_string(),
        Form::Xml => response.to_xml(),
    };
    let headers = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static(form.media_type()),
    )];
    (whole_status(&instances), headers, body).into_response()
}

/// 503 instead of 409 where no instance was stored for want of resources (PS3.18 table 10.5.3-1).
fn whole_status(instances: &[Instance]) -> StatusCode {
    let starved = |instance: &Instance| {
        matches!(
            instance,
            Instance::Failed {
                reason: FailureReason::OutOfResources,
                ..
            }
        )
    };
    match status(instances) {
        StatusCode::CONFLICT if instances.iter().any(starved) => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    }
}

fn instance(outcome: &Outcome) -> Instance {
    match outcome {
        Ok(filed) if filed.receipt == Receipt::Conflict => Instance::Failed {
            identity: Some((
                filed.claim.sop_class_uid.clone(),
                filed.claim.sop_instance_uid.clone(),
            )),
            reason: FailureReason::DuplicateInstance,
        },
        Ok(filed) => Instance::Stored {
            class: filed.claim.sop_class_uid.clone(),
            instance: filed.claim.sop_instance_uid.clone(),
        },
        Err(error) => Instance::Failed {
            identity: error
                .claim
                .as_ref()
                .map(|claim| (claim.sop_class_uid.clone(), claim.sop_instance_uid.clone())),
            reason: failure(error),
        },
    }
}

fn failure(error: &NotFiled) -> FailureReason {
    match error.fault {
        Fault::File | Fault::Archive => FailureReason::CannotUnderstand,
        Fault::OtherStudy => FailureReason::OtherStudy,
        Fault::TooLarge | Fault::ArchiveTooLarge | Fault::Busy | Fault::DiskFull => {
            FailureReason::OutOfResources
        }
        Fault::Inside => FailureReason::ProcessingFailure,
    }
}

/// How the response data set is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Xml,
}

impl Form {
    fn wanted(headers: &HeaderMap) -> Result<Self, Problem> {
        let accept = headers.get_all(header::ACCEPT).iter();
        let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
        if accept.is_empty() {
            return Ok(Self::Json);
        }
        let list = MediaType::parse_list(&accept.join(","));
        list.iter().find_map(Self::of).ok_or_else(|| {
            let detail =
                "The answer is to be had as application/dicom+json or application/dicom+xml.";
            Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail)
        })
    }

    fn of(media: &MediaType) -> Option<Self> {
        match media.essence.as_str() {
            "application/dicom+json" | "application/json" | "application/*" | "*/*" => {
                Some(Self::Json)
            }
            "application/dicom+xml" | "application/xml" | "text/xml" => Some(Self::Xml),
            _ => None,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/dicom+json",
            Self::Xml => "application/dicom+xml",
        }
    }
}
