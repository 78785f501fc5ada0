//! The intake from both sides of its door.

use std::path::Path;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, channel};

use super::*;
use crate::testing::open_state;
use store::objects::{Step, StoreLimits};
use store::state::{Changes, ObjectRow};

const SYNTAX: &str = "1.2.840.10008.1.2.1";
const CLASS: &str = "1.2.840.10008.5.1.4.1.1.2";

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn claim(instance: &str) -> Claim {
    Claim {
        sop_class_uid: uid(CLASS),
        sop_instance_uid: uid(instance),
        transfer_syntax_uid: uid(SYNTAX),
    }
}

fn limits() -> StoreLimits {
    StoreLimits {
        object_bytes_max: 4096,
        free_bytes_reserve: 0,
    }
}

/// An intake on a folder of its own, with a queue of `places`.
struct Bench {
    folder: tempfile::TempDir,
    runtime: Runtime,
    state: State,
    intake: Intake,
    events: Receiver<IntakeEvent>,
}

impl Bench {
    fn new(places: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path(), limits()).unwrap();
        Self::with_store(folder, store, places)
    }

    fn with_store(folder: tempfile::TempDir, store: ObjectStore, places: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let (sender, events) = channel(places);
        let state = runtime.block_on(open_state(folder.path()));
        let intake = {
            let _context = runtime.enter();
            Intake::new(store, state.clone(), sender, Duration::from_millis(20))
        };
        Self {
            folder,
            runtime,
            state,
            intake,
            events,
        }
    }

    fn session(&self) -> Session {
        let peer = "CT1".to_owned();
        self.intake.session(Channel::Dimse, peer).unwrap()
    }

    fn files(&self) -> usize {
        files_under(&self.folder.path().join("objects"))
    }

    /// All events so far, in a word each.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            told.push(match event {
                IntakeEvent::Stored { receipt, .. } => receipt.as_str().to_owned(),
                IntakeEvent::Refused { .. } => "refused".to_owned(),
                IntakeEvent::SessionFinished { .. } => "finished".to_owned(),
                IntakeEvent::SessionBroken { .. } => "broken".to_owned(),
            });
        }
        told
    }
}

fn files_under(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { files_under(&path) } else { 1 })
        .sum()
}

fn send(session: &Session, instance: &str, body: &[u8]) -> Result<Accepted, IntakeError> {
    let mut incoming = session.begin(claim(instance))?;
    incoming.write(body)?;
    incoming.commit()
}

#[test]
fn an_object_is_announced_then_the_end_of_its_session() {
    let mut bench = Bench::new(8);
    let session = bench.session();
    let accepted = send(&session, "1.2.3", b"body").unwrap();
    assert_eq!(accepted.receipt, Receipt::New);
    let file = std::fs::read(&accepted.object.path).unwrap();
    assert!(file.ends_with(b"body") && file[128..132] == *b"DICM");
    session.finish();
    assert_eq!(bench.told(), ["new", "finished"]);
}

#[test]
fn a_session_that_is_dropped_is_broken() {
    let mut bench = Bench::new(8);
    drop(bench.session());
    assert_eq!(bench.told(), ["broken"]);
}

#[test]
fn a_session_ends_only_after_its_last_object() {
    let mut bench = Bench::new(8);
    let session = bench.session();
    let mut incoming = session.begin(claim("1.2.3")).unwrap();
    session.finish();
    incoming.write(b"body").unwrap();
    incoming.commit().unwrap();
    assert_eq!(bench.told(), ["new", "finished"]);
}

#[test]
fn the_same_object_again_is_a_duplicate_whatever_road_it_takes() {
    let mut bench = Bench::new(8);
    let session = bench.session();
    let first = send(&session, "1.2.3", b"body").unwrap();
    let again = send(&session, "1.2.3", b"body").unwrap();
    assert_eq!(again.receipt, Receipt::Duplicate);
    assert_eq!(again.object, first.object);

    let file = std::fs::read(&first.object.path).unwrap();
    let mut upload = session.begin_part10();
    for piece in file.chunks(10) {
        upload.write(piece).unwrap();
    }
    let uploaded = upload.commit().unwrap();
    assert_eq!(uploaded.receipt, Receipt::Duplicate);
    assert_eq!(uploaded.claim, claim("1.2.3"));
    assert_eq!(bench.files(), 1);
    assert_eq!(bench.told(), ["new", "duplicate", "duplicate"]);
}

#[test]
fn the_same_uid_with_other_content_is_kept_apart_and_reported() {
    let bench = Bench::new(8);
    let session = bench.session();
    let one = send(&session, "1.2.3", b"one").unwrap();
    let two = send(&session, "1.2.3", b"two").unwrap();
    assert_eq!(two.receipt, Receipt::Conflict);
    assert_ne!(one.object.path, two.object.path);
    let two_again = send(&session, "1.2.3", b"two").unwrap();
    assert_eq!(two_again.receipt, Receipt::Duplicate);
    assert_eq!(bench.files(), 2);
}

/// What the assembly writes of an object.
fn row(event: &IntakeEvent) -> ObjectRow {
    let IntakeEvent::Stored {
        claim,
        object,
        receipt,
        ..
    } = event
    else {
        panic!("{event:?} stores nothing");
    };
    ObjectRow {
        path: object.path.clone(),
        content: object.content,
        sop_instance_uid: claim.sop_instance_uid.clone(),
        sop_class_uid: None,
        transfer_syntax_uid: None,
        study_uid: Some(uid("1.9")),
        series_uid: None,
        bytes: object.bytes,
        received_at: jiff::Timestamp::UNIX_EPOCH,
        arrival: 1,
        channel: None,
        peer: String::new(),
        receipt: *receipt,
        refusal: None,
    }
}

#[test]
fn what_has_a_row_is_known_and_what_has_none_yet_too() {
    let mut bench = Bench::new(8);
    let session = bench.session();
    let stored = send(&session, "1.2.3", b"body").unwrap().object;
    // Its event waits: there is no row.
    assert_eq!(
        send(&session, "1.2.3", b"body").unwrap().receipt,
        Receipt::Duplicate
    );
    assert_eq!(
        send(&session, "1.2.3", b"other").unwrap().receipt,
        Receipt::Conflict
    );
    let event = bench.events.try_recv().unwrap();
    let changes = Changes {
        objects: vec![row(&event)],
        ..Changes::default()
    };
    bench.runtime.block_on(bench.state.write(&changes)).unwrap();
    drop(event);
    while let Ok(event) = bench.events.try_recv() {
        drop(event);
    }
    // Now the row alone tells, also to the next run.
    drop(session);
    let Bench {
        folder,
        intake,
        state,
        ..
    } = bench;
    drop(intake);
    drop(state);
    let store = ObjectStore::open(folder.path(), limits()).unwrap();
    let bench = Bench::with_store(folder, store, 8);
    let session = bench.session();
    let again = send(&session, "1.2.3", b"body").unwrap();
    assert_eq!(
        (again.receipt, &again.object),
        (Receipt::Duplicate, &stored)
    );
    assert_eq!(
        send(&session, "1.2.3", b"third").unwrap().receipt,
        Receipt::Conflict
    );
    std::fs::remove_file(&stored.path).unwrap();
    let mended = send(&session, "1.2.3", b"body").unwrap();
    assert_eq!((mended.receipt, mended.object), (Receipt::Mended, stored));
}

#[test]
fn of_objects_that_race_one_is_new_and_all_are_stored() {
    let mut bench = Bench::new(64);
    let start = std::sync::Barrier::new(8);
    let receipts: Vec<Receipt> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let session = bench.session();
                    let mut incoming = session.begin(claim("1.2.3")).unwrap();
                    incoming.write(b"body").unwrap();
                    start.wait();
                    let accepted = incoming.commit().unwrap();
                    assert!(accepted.object.path.try_exists().unwrap());
                    accepted.receipt
                })
            })
            .collect();
        senders.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let count = |wanted| receipts.iter().filter(|it| **it == wanted).count();
    assert_eq!((count(Receipt::New), count(Receipt::Duplicate)), (1, 7));
    let told = bench.told();
    let first_of_object = told.iter().find(|word| word.as_str() != "broken");
    assert_eq!(first_of_object.unwrap(), "new");
}

#[test]
fn a_failed_first_copy_lets_the_second_be_new() {
    let folder = tempfile::tempdir().unwrap();
    let failures = AtomicU64::new(1);
    let fault = move |step| match step {
        Step::Sync if failures.swap(0, Ordering::Relaxed) == 1 => {
            Err(std::io::Error::other("the disk failed"))
        }
        _ => Ok(()),
    };
    let store = ObjectStore::open_with_fault(folder.path(), limits(), Box::new(fault)).unwrap();
    let mut bench = Bench::with_store(folder, store, 8);
    let session = bench.session();
    let error = send(&session, "1.2.3", b"body").unwrap_err();
    assert_eq!(error.label(), "disk_failed");
    let accepted = send(&session, "1.2.3", b"body").unwrap();
    assert_eq!(accepted.receipt, Receipt::New);
    assert_eq!(bench.told(), ["new"]);
}

#[test]
fn while_the_queue_is_full_nothing_is_stored_and_the_sender_hears_busy() {
    let mut bench = Bench::new(2);
    let session = bench.session();
    send(&session, "1.2.3", b"one").unwrap();
    let error = send(&session, "1.2.4", b"two").unwrap_err();
    assert_eq!(error.label(), "busy");
    assert_eq!(bench.files(), 1);
    assert_eq!(bench.told(), ["new"]);
    send(&session, "1.2.4", b"two").unwrap();
    // The place of the session's end was kept all the while.
    session.finish();
    assert_eq!(bench.told(), ["new", "finished"]);
}

#[test]
fn without_an_assembly_nothing_is_taken() {
    let mut bench = Bench::new(2);
    let session = bench.session();
    bench.events.close();
    let error = send(&session, "1.2.3", b"body").unwrap_err();
    assert!(matches!(error, IntakeError::Closing), "{error}");
    assert_eq!(bench.files(), 0);
    drop(bench.runtime);
}

#[test]
fn what_is_not_dicom_is_refused() {
    let bench = Bench::new(8);
    let session = bench.session();
    let mut text = session.begin_part10();
    let error = text
        .write(&[b'x'; 4000])
        .and_then(|()| text.commit().map(drop));
    let error = error.unwrap_err();
    assert_eq!(error.label(), "not_dicom");

    let mut cut = session.begin_part10();
    cut.write(&[0; 100]).unwrap();
    assert_eq!(cut.commit().unwrap_err().label(), "not_dicom");

    let empty = session.begin(claim("1.2.3")).unwrap();
    assert_eq!(empty.commit().unwrap_err().label(), "not_dicom");
    assert_eq!(bench.files(), 0);
}

#[test]
fn an_object_over_the_limit_is_refused_and_leaves_nothing() {
    let bench = Bench::new(8);
    let error = send(&bench.session(), "1.2.3", &[0; 4096]).unwrap_err();
    assert_eq!(error.label(), "too_large");
    assert_eq!(files_under(&bench.folder.path().join("incoming")), 0);
    assert_eq!(bench.files(), 0);
}

#[test]
fn an_object_that_is_sent_again_mends_its_damaged_or_lost_file() {
    let mut bench = Bench::new(16);
    let session = bench.session();
    let path = send(&session, "1.2.3", b"body").unwrap().object.path;
    let whole = std::fs::read(&path).unwrap();
    let came = std::fs::metadata(&path).unwrap().modified().unwrap();
    for damaged in [Some(&whole[..whole.len() - 1]), Some(b""), None] {
        match damaged {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let again = send(&session, "1.2.3", b"body").unwrap();
        assert_eq!(again.receipt, Receipt::Mended);
        assert_eq!(again.object.path, path);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let now = send(&session, "1.2.3", b"body").unwrap();
        assert_eq!(now.receipt, Receipt::Duplicate, "whole again");
    }
    assert!(std::fs::metadata(&path).unwrap().modified().unwrap() >= came);
    session.finish();
    assert_eq!(bench.files(), 1);
    let told = bench.told();
    assert_eq!(told.iter().filter(|word| *word == "mended").count(), 3);
}
