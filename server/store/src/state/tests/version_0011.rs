//! A database that Tez wrote before it knew PostgreSQL, read by the present one.
//!
//! `version_0011.sql` is what `sqlite3 tez.sqlite .dump` says of a data folder of synthetic studies
//! (`fixtures`: `small_head`, `conflicting_objects`, `two_slices`, and `small_head` with another seed
//! while there was no ONNX Runtime), three of them read.

use super::*;

const DUMP: &str = include_str!("version_0011.sql");

#[tokio::test]
async fn an_old_data_folder_is_brought_up_to_date_with_all_that_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tez.sqlite");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    sqlx::any::install_default_drivers();
    let mut old = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(DUMP).execute(&mut old).await.unwrap();
    old.close().await.unwrap();

    let state = State::open(&Database::Embedded, folder.path())
        .await
        .unwrap();
    let list = state
        .studies()
        .worklist(Scope::All, page(10, 0, true))
        .await
        .unwrap();
    assert_eq!((list.total, list.read), (4, 3));
    let states: Vec<_> = list.studies.iter().map(|study| study.state).collect();
    assert_eq!(
        states,
        [
            StudyState::Partial,
            StudyState::NotAnalysed,
            StudyState::NotAnalysed,
            StudyState::Analysed
        ]
    );
    let again: Vec<i64> = state
        .studies()
        .unfinished()
        .await
        .unwrap()
        .iter()
        .map(|study| study.internal_id)
        .collect();
    assert_eq!(
        again,
        [4],
        "only the one that had no library is tried again"
    );

    let partial = &list.studies[0];
    let details = state
        .studies()
        .details(Scope::All, &partial.study_uid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(details.rounds.len(), 1);
    assert_eq!(details.problems.len(), 2);
    assert!(details.report.unwrap().priority == Priority::Critical);
    let paths = state.objects().paths_of(&partial.study_uid).await.unwrap();
    assert_eq!(paths.len(), 34);
    let mut in_folders = 0;
    for first in 0..=u8::MAX {
        in_folders += state.objects().files_in_folder(first).await.unwrap().len();
    }
    assert_eq!(in_folders, 100, "every object is found by its folder");
    state.close().await;
    let state = State::open(&Database::Embedded, folder.path())
        .await
        .unwrap();
    assert_eq!(state.studies().internal_id_max().await.unwrap(), 4);
}
