//! Writing a study's row.

use models::triage::Priority;
use pipeline::reason::ReasonCode;

use super::{StudyRow, StudyState};
use crate::state::record::{OnConflict, Record};
use crate::state::{StateError, Transaction};

impl Transaction {
    /// Writes a study, new or changed.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub async fn put_study(&mut self, study: &StudyRow) -> Result<(), StateError> {
        let patient = &study.patient;
        let times = &study.times;
        Record::of("studies")
            .set("uid", &study.study_uid)
            .set("shared_study_uid", study.shared_study_uid.as_ref())
            .set("internal_id", study.internal_id)
            .set("state", study.state.as_str())
            .set("generation", study.generation)
            .set("interruptions", study.interruptions)
            .set("priority_rank", priority_rank(study.result.priority))
            .set("summary", serde_json::to_string(&study.result)?)
            .set("result_generation", study.result.result_generation)
            .set("awaits_model", awaits_model(study))
            .set("patient_name", patient.name.as_str())
            .set("patient_id", patient.id.as_str())
            .set("patient_birth_date", patient.birth_date.as_str())
            .set("patient_sex", patient.sex.as_str())
            .set("patient_age", patient.age.as_str())
            .set("accession_number", patient.accession_number.as_str())
            .set("study_date", patient.study_date.as_str())
            .set("study_time", patient.study_time.as_str())
            .set("study_description", patient.study_description.as_str())
            .set("institution_name", patient.institution_name.as_str())
            .set("object_count", study.counts.objects)
            .set("image_count", study.counts.images)
            .set("conflict_count", study.counts.conflicts)
            .set("received_first_at", times.received_first)
            .set("received_last_at", times.received_last)
            .set("complete_at", times.complete)
            .set("queued_at", times.queued)
            .set("analysis_started_at", times.analysis_started)
            .set("analysed_at", times.analysed)
            .write(self, OnConflict::Replace(&["uid"]))
            .await?;
        Ok(())
    }
}

/// Not analysed for want of a model or a library, which may be there at the next start.
fn awaits_model(study: &StudyRow) -> bool {
    let cause = |code| {
        matches!(
            code,
            ReasonCode::InferenceLibraryMissing | ReasonCode::ModelUnavailable
        )
    };
    let reasons = &study.result.reasons;
    study.state == StudyState::NotAnalysed && reasons.iter().any(|reason| cause(reason.code))
}

/// The worklist's order as a number: first is read first.
fn priority_rank(priority: Priority) -> i64 {
    match priority {
        Priority::Critical => 0,
        Priority::Urgent => 1,
        Priority::Unknown => 2,
        Priority::Routine => 3,
    }
}
