//! The port on a real database in a scratch folder.

use std::path::Path;

use fixtures::scratch_database;
use jiff::Timestamp;
use models::findings::Outcome;
use models::report::{ReportState, ScanReport, StudyReport};
use models::triage::Priority;
use pipeline::content::ContentHasher;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;

use super::*;

mod version_0011;
use crate::receipt::{Channel, Receipt};

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn round(generation: i64, report: &StudyReport, at: Timestamp) -> Round<'_> {
    Round {
        generation,
        report,
        artefacts: None,
        at,
    }
}

async fn list(state: &State, limit: i64, with_read: bool) -> Worklist {
    let page = page(limit, 0, with_read);
    state.studies().worklist(Scope::All, page).await.unwrap()
}

fn page(limit: i64, offset: i64, with_read: bool) -> WorklistPage {
    WorklistPage {
        limit,
        offset,
        with_read,
    }
}

fn on_postgres() -> bool {
    scratch_database::url(Path::new("any")).is_some()
}

/// The database of a test: embedded, or one of its own on another server.
fn database_of(folder: &Path) -> Database {
    scratch_database::url(folder).map_or(Database::Embedded, Database::Postgres)
}

async fn open(folder: &Path) -> State {
    State::open(&database_of(folder), folder).await.unwrap()
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
        arrival: 1,
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
    let state = open(folder.path()).await;
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
    let list = state
        .studies()
        .worklist(Scope::All, page(10, 0, false))
        .await
        .unwrap();
    let order: Vec<i64> = list.studies.iter().map(|study| study.internal_id).collect();
    assert_eq!(order, [5, 3, 2, 4, 1]);
    assert_eq!(list.studies[4], studies[0], "what was written is read");
    let page = state
        .studies()
        .worklist(Scope::All, page(2, 1, false))
        .await
        .unwrap();
    assert_eq!(page.studies[0].internal_id, 3);
    assert_eq!((page.studies.len(), page.total), (2, 5));
    assert_eq!(state.studies().internal_id_max().await.unwrap(), 5);
}

#[tokio::test]
async fn results_outlive_a_restart_and_supersede_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let mut study = study(1, Priority::Unknown, 10);
    let report = report(&study.study_uid);
    for generation in [1, 2] {
        study.generation = generation;
        study.state = StudyState::Partial;
        study.result = ResultSummary::of(&report, generation);
        state
            .write_result(&study, &round(generation, &report, at(100 + generation)))
            .await
            .unwrap();
    }
    state.close().await;

    let state = open(folder.path()).await;
    let details = state
        .studies()
        .details(Scope::All, &study.study_uid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(details.study, study);
    assert_eq!(details.report, Some(report));
    assert_eq!(details.rounds[0].superseded_at, Some(at(102)));
    assert_eq!(details.rounds[1].superseded_at, None);
    assert!(
        state
            .results()
            .report(Scope::All, &study.study_uid, 1)
            .await
            .unwrap()
            .is_some()
    );
    assert!(
        state
            .results()
            .report(Scope::All, &study.study_uid, 3)
            .await
            .unwrap()
            .is_none()
    );
    assert!(state.studies().unfinished().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_newest_unread_critical_stands_first_and_read_ones_leave_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let report = report(&uid("1.1"));
    for number in 1..=222 {
        let mut study = study(number, Priority::Critical, 1_000 + number);
        study.result = ResultSummary::of(&report, 1);
        study.result.priority = Priority::Critical;
        state
            .write_result(&study, &round(1, &report, at(1)))
            .await
            .unwrap();
    }
    let shown = list(&state, 200, false).await;
    assert_eq!(shown.studies[0].internal_id, 222, "the newest stands first");
    assert_eq!(
        (shown.total, shown.critical_unread, shown.read),
        (222, 222, 0)
    );

    let mark = async |number: i64, generation| {
        let uid = uid(&format!("1.{number}"));
        state
            .results()
            .mark_read(Scope::All, &uid, generation, at(9))
            .await
            .unwrap()
    };
    assert_eq!(mark(222, 1).await, Marked::Done);
    assert_eq!(mark(222, 1).await, Marked::Done, "twice is once");
    assert_eq!(mark(221, 2).await, Marked::OtherResult);
    assert_eq!(mark(777, 1).await, Marked::Unknown);
    let shown = list(&state, 200, false).await;
    assert_eq!(shown.studies[0].internal_id, 221);
    assert_eq!(
        (shown.total, shown.critical_unread, shown.read),
        (221, 221, 1)
    );
    let all = list(&state, 1_000, true).await;
    assert_eq!(all.total, 222, "nothing is deleted");
    assert_eq!(all.studies[221].internal_id, 222, "read ones stand last");
    assert_eq!(all.studies[221].read_at, Some(at(9)));
    state.close().await;
    let state = open(folder.path()).await;
    assert_eq!(list(&state, 1, false).await.read, 1);
    assert_eq!(
        state
            .results()
            .mark_unread(Scope::All, &uid("1.222"))
            .await
            .unwrap(),
        Marked::Done
    );
    let shown = list(&state, 1, false).await;
    assert_eq!(shown.studies[0].internal_id, 222);
}

#[tokio::test]
async fn a_newer_result_makes_a_study_unread_only_where_it_says_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
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
        let round = round(generation, &report, at(1));
        state.write_result(&study, &round).await.unwrap();
        let row = state
            .studies()
            .row(Scope::All, &study.study_uid)
            .await
            .unwrap()
            .unwrap();
        row.read_at.is_some()
    };
    assert!(!write(1, "blood", 1).await);
    let marked = state
        .results()
        .mark_read(Scope::All, &uid("1.1"), 1, at(2))
        .await
        .unwrap();
    assert_eq!(marked, Marked::Done);
    assert!(write(2, "blood", 1).await, "the same again");
    assert!(!write(3, "more blood", 1).await, "another result");
    let marked = state
        .results()
        .mark_read(Scope::All, &uid("1.1"), 3, at(3))
        .await
        .unwrap();
    assert_eq!(marked, Marked::Done);
    assert!(!write(4, "more blood", 2).await, "a further scan");
}

#[tokio::test]
async fn a_write_that_fails_gives_its_connection_back_and_the_trouble_is_told_until_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let changes = Changes {
        studies: vec![study(1, Priority::Unknown, 1)],
        ..Changes::default()
    };
    // As a statement that fails within a transaction that SQLite has ended by itself.
    let mut broken = state.begin(Durability::Process).await.unwrap();
    sqlx::raw_sql("DELETE FROM studies; ROLLBACK; INSERT INTO nowhere VALUES (1)")
        .execute(broken.connection())
        .await
        .unwrap_err();
    drop(broken);
    state.write(&changes).await.unwrap();
    // As one that fails and leaves the transaction open, with its lock.
    let mut open_ended = state.begin(Durability::Process).await.unwrap();
    sqlx::query("DELETE FROM studies")
        .execute(open_ended.connection())
        .await
        .unwrap();
    drop(open_ended);
    let report = report(&uid("1.1"));
    let row = study(1, Priority::Unknown, 1);
    state
        .write_result(&row, &round(1, &report, at(1)))
        .await
        .unwrap();

    if on_postgres() {
        return;
    }
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
    assert_eq!(
        state
            .studies()
            .worklist(Scope::All, page(1, 0, false))
            .await
            .unwrap()
            .total,
        1_999
    );
}

#[tokio::test]
async fn objects_are_found_again_also_when_the_data_folder_was_moved() {
    let parent = tempfile::tempdir().unwrap();
    let (before, after) = (parent.path().join("a #1%"), parent.path().join("b"));
    std::fs::create_dir(&before).unwrap();
    let state = open(&before).await;
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

    let state = State::open(&database_of(&before), &after).await.unwrap();
    let paths = state.objects().paths_of(&uid("1.1")).await.unwrap();
    assert_eq!(paths, [after.join("one"), after.join("two")]);
    let unreadable = state.objects().unreadable(Scope::All).await.unwrap();
    assert_eq!(unreadable.len(), 1);
    assert_eq!(unreadable[0].path, Path::new("bad"));
    assert_eq!(unreadable[0].reason.code, ReasonCode::NotDicom);
    // An older Tez left it without a study: it is read once more, and has one then.
    assert_eq!(
        state.objects().paths_of(&uid("2.25.1")).await.unwrap(),
        [] as [&Path; 0]
    );
    let mut found = object(&after, "bad", None);
    found.study_uid = Some(uid("2.25.1"));
    let changes = Changes {
        objects: vec![found],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    assert_eq!(
        state
            .objects()
            .paths_of(&uid("2.25.1"))
            .await
            .unwrap()
            .len(),
        1
    );
    let unreadable = state.objects().unreadable(Scope::All).await.unwrap();
    assert_eq!(unreadable[0].study_uid, Some(uid("2.25.1")));
}

#[tokio::test]
async fn problems_are_listed_with_their_study_and_every_state_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
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
        state.problems().newest(Scope::All).await.unwrap(),
        [problem(None, 2), problem(Some("1.1"), 1)]
    );
    let details = state
        .studies()
        .details(Scope::All, &uid("1.1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(details.problems, [problem(Some("1.1"), 1)]);
    let counts = state.studies().by_state().await.unwrap();
    assert_eq!(counts.len(), StudyState::ALL.len());
    assert_eq!(counts[&StudyState::Receiving], 1);
    assert!(
        state
            .studies()
            .details(Scope::All, &uid("1.7"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_row_that_another_program_changed_ends_its_study_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let changes = Changes {
        studies: (1..=4)
            .map(|number| study(number, Priority::Routine, number))
            .collect(),
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    for change in [
        "UPDATE studies SET state = 'asleep' WHERE internal_id = 1",
        "UPDATE studies SET summary = '{}' WHERE internal_id = 2",
        "UPDATE studies SET analysed_at = 9223372036854775807 WHERE internal_id = 3",
    ] {
        let changed = sqlx::query(change).execute(&state.writer).await.unwrap();
        assert_eq!(changed.rows_affected(), 1);
    }
    for _ in 0..2 {
        let page = page(10, 0, false);
        let list = state.studies().worklist(Scope::All, page).await.unwrap();
        let mut ended = 0;
        for study in list.studies {
            assert_eq!(study.patient.name, "Иванов^Иван");
            if study.internal_id == 4 {
                assert_eq!(study.state, StudyState::Receiving);
                continue;
            }
            ended += 1;
            assert_eq!(study.state, StudyState::NotAnalysed);
            assert_eq!(study.result.priority, Priority::Unknown);
            let why = &study.result.reasons[0].text;
            assert!(why.contains("Read the study yourself"), "{why}");
        }
        assert_eq!(ended, 3);
    }
    // Written as well, so that their place in the list is that of what was not analysed.
    let counts = state.studies().by_state().await.unwrap();
    assert_eq!(counts[&StudyState::NotAnalysed], 3);
    let page = page(10, 0, false);
    let list = state.studies().worklist(Scope::All, page).await.unwrap();
    assert_eq!(
        list.studies[3].internal_id, 4,
        "a routine study stands below"
    );
}

#[tokio::test]
async fn a_name_with_a_nul_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let mut named = study(1, Priority::Routine, 1);
    named.patient.name = "A\0B".to_owned();
    let changes = Changes {
        studies: vec![named],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    let row = state.studies().row(Scope::All, &uid("1.1")).await.unwrap();
    assert_eq!(row.unwrap().patient.name, "A\u{FFFD}B");
}

#[tokio::test]
async fn files_that_a_start_found_are_read_in_the_order_in_which_they_came_and_then_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let file = |name: &str, second| FoundFile {
        path: folder.path().join("objects/ab").join(name),
        came_at: at(second),
    };
    let mut transaction = state.begin(Durability::Process).await.unwrap();
    for found in [
        file("late", 9),
        file("gone", 5),
        file("early", 1),
        file("early", 1),
    ] {
        transaction.add_found(&found).await.unwrap();
    }
    transaction.commit().await.unwrap();
    let found = state.objects().found(2).await.unwrap();
    assert_eq!(found, [file("early", 1), file("gone", 5)]);

    let changes = Changes {
        objects: vec![object(folder.path(), "objects/ab/early", Some("1.1"))],
        no_longer_found: vec![found[1].path.clone()],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    assert_eq!(state.objects().found(9).await.unwrap(), [file("late", 9)]);
    let files = state.objects().files_in_folder(0xAB).await.unwrap();
    assert!(files.contains(&file("early", 1).path) && files.len() == 1);
    assert!(
        state
            .objects()
            .files_in_folder(0xAC)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_first_content_of_a_uid_is_the_one_that_came_first_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let came = |name: &str, arrival| ObjectRow {
        arrival,
        ..object(folder.path(), name, Some("1.1"))
    };
    let changes = Changes {
        objects: vec![came("b", 7), came("a", 8)],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    let contents = state.objects().contents_of(&uid("1.9")).await.unwrap();
    let of = |name: &str| ContentHasher::new(name).finish();
    assert_eq!(contents, [of("b"), of("a")]);
    let paths = state.objects().paths_of(&uid("1.1")).await.unwrap();
    assert_eq!(paths, [folder.path().join("b"), folder.path().join("a")]);
    assert!(
        state
            .objects()
            .contents_of(&uid("1.8"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_damage_is_told_with_its_cure_and_stays_known_whatever_else_can_be_written() {
    if on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path()).await;
    let row = study(1, Priority::Unknown, 1);
    let report = report(&row.study_uid);
    state
        .write_result(&row, &round(1, &report, at(1)))
        .await
        .unwrap();
    let page = sqlx::query_scalar("SELECT rootpage FROM sqlite_master WHERE name = 'reports'");
    let page: i64 = page.fetch_one(&state.writer).await.unwrap();
    state.close().await;
    assert_eq!(
        State::inspect(&Database::Embedded, folder.path())
            .await
            .unwrap(),
        Some(1)
    );

    let path = folder.path().join("tez.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    let from = usize::try_from(page - 1).unwrap() * 4_096;
    bytes[from..from + 4_096].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    let looked = State::inspect(&Database::Embedded, folder.path())
        .await
        .unwrap_err();
    assert_eq!(Trouble::of(&looked), Some(Trouble::Damaged), "{looked}");
    let state = open(folder.path()).await;
    assert_eq!(state.trouble(), None, "the page was not asked for yet");
    let error = state
        .studies()
        .details(Scope::All, &row.study_uid)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("move tez.sqlite"), "{error}");
    let changes = Changes {
        studies: vec![study(2, Priority::Unknown, 1)],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    assert_eq!(state.trouble(), Some(Trouble::Damaged));
    state
        .write_result(&row, &round(2, &report, at(1)))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn what_is_no_database_is_not_opened_and_said() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        State::inspect(&Database::Embedded, folder.path())
            .await
            .unwrap(),
        None
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    std::fs::write(folder.path().join("tez.sqlite"), [7; 8_192]).unwrap();
    let opened = State::open(&Database::Embedded, folder.path())
        .await
        .unwrap_err();
    let looked = State::inspect(&Database::Embedded, folder.path())
        .await
        .unwrap_err();
    for error in [opened, looked] {
        assert_eq!(Trouble::of(&error), Some(Trouble::Damaged), "{error}");
    }
}
