//! The port on a real database in a scratch folder.

use std::path::Path;

use jiff::Timestamp;
use models::findings::Outcome;
use models::report::{ReportState, ScanReport, StudyReport};
use models::triage::Priority;
use pipeline::content::ContentHasher;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;

use super::*;
use crate::receipt::{Channel, Receipt};

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn study(number: i64, priority: Priority, received: i64) -> StudyRow {
    let mut row = StudyRow::new(uid(&format!("1.{number}")), number, at(received));
    row.interruptions = number;
    row.result.priority = priority;
    row.patient.name = "Иванов^Иван".to_owned();
    row
}

fn object(folder: &Path, name: &str, study_uid: Option<&str>) -> ObjectRow {
    ObjectRow {
        path: folder.join(name),
        content: ContentHasher::new(name).finish(),
        sop_instance_uid: uid("1.9"),
        sop_class_uid: Some(uid("1.2")),
        transfer_syntax_uid: None,
        study_uid: study_uid.map(uid),
        series_uid: None,
        bytes: 12,
        received_at: at(5),
        channel: Some(Channel::Upload),
        peer: "CT1".to_owned(),
        receipt: Receipt::New,
        refusal: study_uid
            .is_none()
            .then(|| Reason::new(ReasonCode::NotDicom, "no")),
    }
}

fn report(uid: &Uid) -> StudyReport {
    let reasons = vec![Reason::new(ReasonCode::NotCt, "an ultrasound")];
    StudyReport {
        state: ReportState::Partial,
        priority: Priority::Urgent,
        ..StudyReport::of_outcome(uid, Outcome::NotAnalysed { reasons })
    }
}

#[tokio::test]
async fn the_worklist_is_ordered_by_priority_then_newest_first_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let studies = vec![
        study(1, Priority::Routine, 10),
        study(2, Priority::Unknown, 30),
        study(3, Priority::Urgent, 40),
        study(4, Priority::Unknown, 20),
        study(5, Priority::Critical, 50),
    ];
    let changes = Changes {
        studies: studies.clone(),
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    let list = state.worklist(10, 0, false).await.unwrap();
    let order: Vec<i64> = list.studies.iter().map(|study| study.internal_id).collect();
    assert_eq!(order, [5, 3, 2, 4, 1]);
    assert_eq!(list.studies[4], studies[0], "what was written is read");
    let page = state.worklist(2, 1, false).await.unwrap();
    assert_eq!(page.studies[0].internal_id, 3);
    assert_eq!((page.studies.len(), page.total), (2, 5));
    assert_eq!(state.internal_id_max().await.unwrap(), 5);
}

#[tokio::test]
async fn results_outlive_a_restart_and_supersede_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let mut study = study(1, Priority::Unknown, 10);
    let report = report(&study.study_uid);
    for generation in [1, 2] {
        study.generation = generation;
        study.state = StudyState::Partial;
        study.result = ResultSummary::of(&report, generation);
        state
            .write_result(&study, generation, &report, at(100 + generation))
            .await
            .unwrap();
    }
    state.close().await;

    let state = State::open(folder.path()).await.unwrap();
    let details = state.study(&study.study_uid).await.unwrap().unwrap();
    assert_eq!(details.study, study);
    assert_eq!(details.report, Some(serde_json::to_value(&report).unwrap()));
    assert_eq!(details.rounds[0].superseded_at, Some(at(102)));
    assert_eq!(details.rounds[1].superseded_at, None);
    assert!(state.report(&study.study_uid, 1).await.unwrap().is_some());
    assert!(state.report(&study.study_uid, 3).await.unwrap().is_none());
    assert!(state.unfinished().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_newest_unread_critical_stands_first_and_read_ones_leave_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let report = report(&uid("1.1"));
    for number in 1..=222 {
        let mut study = study(number, Priority::Critical, 1_000 + number);
        study.result = ResultSummary::of(&report, 1);
        study.result.priority = Priority::Critical;
        state.write_result(&study, 1, &report, at(1)).await.unwrap();
    }
    let list = state.worklist(200, 0, false).await.unwrap();
    assert_eq!(list.studies[0].internal_id, 222, "the newest stands first");
    assert_eq!((list.total, list.critical_unread, list.read), (222, 222, 0));

    let mark = async |number: i64, generation| {
        let uid = uid(&format!("1.{number}"));
        state.mark_read(&uid, generation, at(9)).await.unwrap()
    };
    assert_eq!(mark(222, 1).await, Marked::Done);
    assert_eq!(mark(222, 1).await, Marked::Done, "twice is once");
    assert_eq!(mark(221, 2).await, Marked::OtherResult);
    assert_eq!(mark(777, 1).await, Marked::Unknown);
    let list = state.worklist(200, 0, false).await.unwrap();
    assert_eq!(list.studies[0].internal_id, 221);
    assert_eq!((list.total, list.critical_unread, list.read), (221, 221, 1));
    let all = state.worklist(1_000, 0, true).await.unwrap();
    assert_eq!(all.total, 222, "nothing is deleted");
    assert_eq!(all.studies[221].internal_id, 222, "read ones stand last");
    assert_eq!(all.studies[221].read_at, Some(at(9)));
    state.close().await;

    let state = State::open(folder.path()).await.unwrap();
    assert_eq!(state.worklist(1, 0, false).await.unwrap().read, 1);
    assert_eq!(
        state.mark_unread(&uid("1.222")).await.unwrap(),
        Marked::Done
    );
    let list = state.worklist(1, 0, false).await.unwrap();
    assert_eq!(list.studies[0].internal_id, 222);
}

#[tokio::test]
async fn a_newer_result_makes_a_study_unread_only_where_it_says_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let mut study = study(1, Priority::Urgent, 10);
    let mut report = report(&study.study_uid);
    let mut write = async |generation: i64, because: &str, scans: usize| {
        let one = ScanReport {
            series_uids: vec![uid("1.5")],
            acquired: None,
            state: ReportState::Analysed,
            reasons: Vec::new(),
            priority: Priority::Critical,
            findings: Vec::new(),
            geometry: None,
        };
        report.scans = vec![one; scans];
        study.generation = generation;
        study.result = ResultSummary::of(&report, generation);
        study.result.priority_because = vec![because.to_owned()];
        let written = state.write_result(&study, generation, &report, at(1));
        written.await.unwrap();
        let row = state.study_row(&study.study_uid).await.unwrap().unwrap();
        row.read_at.is_some()
    };
    assert!(!write(1, "blood", 1).await);
    let marked = state.mark_read(&uid("1.1"), 1, at(2)).await.unwrap();
    assert_eq!(marked, Marked::Done);
    assert!(write(2, "blood", 1).await, "the same again");
    assert!(!write(3, "more blood", 1).await, "another result");
    let marked = state.mark_read(&uid("1.1"), 3, at(3)).await.unwrap();
    assert_eq!(marked, Marked::Done);
    assert!(!write(4, "more blood", 2).await, "a further scan");
}

#[tokio::test]
async fn a_write_that_fails_gives_its_connection_back_and_the_trouble_is_told_until_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let changes = Changes {
        studies: vec![study(1, Priority::Unknown, 1)],
        ..Changes::default()
    };
    // As a statement that fails within a transaction that SQLite has ended by itself.
    let mut writing = writing::Writing::begin(&state, &state.writer)
        .await
        .unwrap();
    sqlx::raw_sql("DELETE FROM studies; ROLLBACK; INSERT INTO nowhere VALUES (1)")
        .execute(&mut *writing)
        .await
        .unwrap_err();
    drop(writing);
    state.write(&changes).await.unwrap();
    // As one that fails and leaves the transaction open, with its lock.
    let mut writing = writing::Writing::begin(&state, &state.writer)
        .await
        .unwrap();
    sqlx::query("DELETE FROM studies")
        .execute(&mut *writing)
        .await
        .unwrap();
    drop(writing);
    let report = report(&uid("1.1"));
    let row = study(1, Priority::Unknown, 1);
    state.write_result(&row, 1, &report, at(1)).await.unwrap();

    // A limit on the pages of the file does to SQLite what a full disk does.
    let mut tight = state.writer.acquire().await.unwrap();
    sqlx::raw_sql("PRAGMA max_page_count = 1")
        .execute(&mut *tight)
        .await
        .unwrap();
    drop(tight);
    let many = (2..2_000).map(|number| study(number, Priority::Unknown, 1));
    let many = Changes {
        studies: many.collect(),
        ..Changes::default()
    };
    state.write(&many).await.unwrap_err();
    assert_eq!(state.trouble(), Some(Trouble::Full));
    state.write(&many).await.unwrap(); // on a new connection, which has no such limit
    assert_eq!(state.trouble(), None);
    assert_eq!(state.worklist(1, 0, false).await.unwrap().total, 1_999);
}

#[tokio::test]
async fn objects_are_found_again_also_when_the_data_folder_was_moved() {
    let parent = tempfile::tempdir().unwrap();
    let (before, after) = (parent.path().join("a #1%"), parent.path().join("b"));
    std::fs::create_dir(&before).unwrap();
    let state = State::open(&before).await.unwrap();
    let mut conflict = object(&before, "two", Some("1.1"));
    conflict.receipt = Receipt::Conflict;
    let changes = Changes {
        objects: vec![
            object(&before, "one", Some("1.1")),
            conflict,
            object(&before, "bad", None),
        ],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    state.write(&changes).await.unwrap();
    state.close().await;
    std::fs::rename(&before, &after).unwrap();

    let state = State::open(&after).await.unwrap();
    let paths = state.paths_of(&uid("1.1")).await.unwrap();
    assert_eq!(paths, [after.join("one"), after.join("two")]);
    let unreadable = state.unreadable_objects().await.unwrap();
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0].path, Path::new("bad"));
    assert_eq!(unreadable[0].reason.code, ReasonCode::NotDicom);
    // An older Tez left it without a study: it is read once more, and has one then.
    assert_eq!(state.known_paths().await.unwrap().len(), 2);
    let mut found = object(&after, "bad", None);
    found.study_uid = Some(uid("2.25.1"));
    let changes = Changes {
        objects: vec![found],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    assert_eq!(state.known_paths().await.unwrap().len(), 3);
    let unreadable = state.unreadable_objects().await.unwrap();
    assert_eq!(unreadable[0].study_uid, Some(uid("2.25.1")));
}

#[tokio::test]
async fn problems_are_listed_with_their_study_and_every_state_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let problem = |study: Option<&str>, second| Problem {
        at: at(second),
        study_uid: study.map(uid),
        sop_instance_uid: None,
        path: Some("x/y".into()),
        peer: "CT1".to_owned(),
        reason: Reason::new(ReasonCode::ConflictingDuplicate, "twice"),
    };
    let changes = Changes {
        studies: vec![study(1, Priority::Unknown, 1)],
        problems: vec![problem(Some("1.1"), 1), problem(None, 2)],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    assert_eq!(
        state.problems().await.unwrap(),
        [problem(None, 2), problem(Some("1.1"), 1)]
    );
    let details = state.study(&uid("1.1")).await.unwrap().unwrap();
    assert_eq!(details.problems, [problem(Some("1.1"), 1)]);
    let counts = state.studies_by_state().await.unwrap();
    assert_eq!(counts.len(), StudyState::ALL.len());
    assert_eq!(counts[&StudyState::Receiving], 1);
    assert!(state.study(&uid("1.7")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_database_that_another_program_changed_is_an_error_that_names_the_column() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let changes = Changes {
        studies: vec![study(1, Priority::Unknown, 1)],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    sqlx::query("UPDATE studies SET state = 'asleep'")
        .execute(&state.writer)
        .await
        .unwrap();
    let error = state.worklist(1, 0, false).await.unwrap_err().to_string();
    assert!(
        error.contains("asleep") && error.contains("state"),
        "{error}"
    );
}

#[tokio::test]
async fn a_damage_is_told_with_its_cure_and_stays_known_whatever_else_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(folder.path()).await.unwrap();
    let row = study(1, Priority::Unknown, 1);
    let report = report(&row.study_uid);
    state.write_result(&row, 1, &report, at(1)).await.unwrap();
    let page = sqlx::query_scalar("SELECT rootpage FROM sqlite_master WHERE name = 'reports'");
    let page: i64 = page.fetch_one(&state.writer).await.unwrap();
    state.close().await;
    assert_eq!(State::inspect(folder.path()).await.unwrap(), Some(1));

    let path = folder.path().join("tez.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let from = usize::try_from(page - 1).unwrap() * 4_096;
    bytes[from..from + 4_096].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let looked = State::inspect(folder.path()).await.unwrap_err();
    assert_eq!(Trouble::of(&looked), Some(Trouble::Damaged), "{looked}");
    let state = State::open(folder.path()).await.unwrap();
    assert_eq!(state.trouble(), None, "the page was not asked for yet");
    let error = state.study(&row.study_uid).await.unwrap_err().to_string();
    assert!(error.contains("move tez.sqlite"), "{error}");
    let changes = Changes {
        studies: vec![study(2, Priority::Unknown, 1)],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    assert_eq!(state.trouble(), Some(Trouble::Damaged));
    state
        .write_result(&row, 2, &report, at(1))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn what_is_no_database_is_not_opened_and_said() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(State::inspect(folder.path()).await.unwrap(), None);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::write(folder.path().join("tez.sqlite"), [7; 8_192]).unwrap();
    let opened = State::open(folder.path()).await.unwrap_err();
    let looked = State::inspect(folder.path()).await.unwrap_err();
    for error in [opened, looked] {
        assert_eq!(Trouble::of(&error), Some(Trouble::Damaged), "{error}");
    }
}
