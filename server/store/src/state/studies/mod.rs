//! Studies: a row for each, and the worklist.

mod read;
mod rows;
mod write;

pub use read::{Studies, WorklistPage};
pub use rows::{
    ObjectCounts, PatientFacts, ResultSummary, StudyDetails, StudyRow, StudyState, StudyTimes,
    Worklist,
};
