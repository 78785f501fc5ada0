//! The task on a set clock, with objects written by hand and an analysis that tells what it got.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dicom_core::{DataElement, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use jiff::Timestamp;
use models::analysis::StudyObjects;
use models::report::{ModelIdentity, ReportState, StudyReport};
use models::triage::Priority;
use pipeline::content::ContentHasher;
use pipeline::decode::Decoding;
use pipeline::limits::Limits;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use tokio::sync::{broadcast, mpsc};

use super::study::{INTERRUPTIONS_MAX, Study};
use super::{Studies, StudiesOptions};
use crate::clock::Clock;
use crate::config::AssemblyConfig;
use crate::events::{Event, Events};
use crate::intake::{Announced, Claim, IntakeEvent};
use crate::testing::open_state;
use crate::worker::tests::{launch_thread, options};
use crate::worker::{Analyse, Answer, WorkersOptions, not_analysed};
use store::artefacts::ArtefactStore;
use store::objects::StoredObject;
use store::receipt::{Channel, Receipt};
use store::state::{
    Changes, Durability, FoundFile, ResultSummary, Round, Scope, State, StudyDetails, StudyState,
    WorklistPage,
};

/// Longest wait for what must happen, seconds; only a failing test waits so long.
const PATIENCE_SECONDS: u64 = 20;

/// Says how many objects it got; waits for a word if it has an ear.
struct Teller {
    ear: Option<Arc<std::sync::Mutex<std::sync::mpsc::Receiver<()>>>>,
}

impl Analyse for Teller {
    fn analyse(&mut self, study: StudyObjects<'_>, _decoding: Decoding<'_>) -> Answer {
        if let Some(ear) = &self.ear {
            ear.lock().unwrap().recv().unwrap();
        }
        let received = study.received;
        let missing = received.missing().len();
        let text = match missing {
            0 => format!("{} objects", received.instances.len()),
            _ => format!("{} objects, {missing} missing", received.instances.len()),
        };
        let text = if study.doubts.is_empty() {
            text
        } else {
            format!("{text}, doubted")
        };
        let report = StudyReport {
            state: ReportState::Analysed,
            priority: Priority::Urgent,
            ..not_analysed(study.study_uid, vec![Reason::new(ReasonCode::Chosen, text)])
        };
        report.into()
    }

    fn model(&self) -> Result<ModelIdentity, Reason> {
        Err(Reason::new(ReasonCode::ModelUnavailable, "a test has none"))
    }
}

/// A running task, its database and its folder of objects.
struct Scene {
    folder: PathBuf,
    clock: Clock,
    state: State,
    live: broadcast::Receiver<Event>,
    intake: mpsc::Sender<IntakeEvent>,
    studies: Studies,
    /// Lets one analysis go on, in scenes that hold them.
    word: std::sync::mpsc::Sender<()>,
}

/// How a scene starts.
struct Setup {
    /// Files that the start found.
    on_disk: Vec<FoundFile>,
    /// Each analysis waits for a word.
    held: bool,
    assembly: AssemblyConfig,
    limits: Limits,
    workers: usize,
    study_time_max: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            on_disk: Vec::new(),
            held: false,
            assembly: AssemblyConfig::default(),
            limits: Limits::default(),
            workers: 1,
            study_time_max: Duration::from_mins(1),
        }
    }
}

impl Scene {
    async fn start(folder: &Path) -> Self {
        Self::start_with(folder, Setup::default()).await
    }

    async fn start_held(folder: &Path) -> Self {
        let setup = Setup {
            held: true,
            ..Setup::default()
        };
        Self::start_with(folder, setup).await
    }

    /// A scene whose study 1.1, of one slice, has a result.
    async fn with_result(folder: &Path) -> Self {
        let mut scene = Self::start(folder).await;
        scene.receive_slice().await;
        scene.told("study_analysed").await;
        scene
    }

    async fn start_with(folder: &Path, setup: Setup) -> Self {
        let clock = Clock::stopped_at(Timestamp::from_second(1_700_000_000).unwrap());
        let state = open_state(folder).await;
        let mut transaction = state.begin(Durability::Process).await.unwrap();
        for file in &setup.on_disk {
            transaction.add_found(file).await.unwrap();
        }
        transaction.commit().await.unwrap();
        let events = Events::new(clock.clone());
        let live = events.subscribe(None).live;
        let (word, ear) = std::sync::mpsc::channel();
        let ear = setup.held.then(|| Arc::new(std::sync::Mutex::new(ear)));
        let (intake, receiver) = mpsc::channel(1_024);
        let launch = launch_thread(Arc::new(move || Box::new(Teller { ear: ear.clone() })));
        let mut workers = options(setup.workers, launch, folder);
        workers.settings.limits = setup.limits.clone();
        let parts = StudiesOptions {
            assembly: setup.assembly,
            limits: setup.limits,
            clock: clock.clone(),
            state: state.clone(),
            events,
            artefacts: ArtefactStore::open(&folder.join("artefacts")).unwrap(),
            workers: WorkersOptions {
                study_time_max: setup.study_time_max,
                ..workers
            },
            attempts_max: 2,
        };
        Self {
            folder: folder.to_owned(),
            studies: Studies::start(parts, receiver).await.unwrap(),
            clock,
            state,
            live,
            intake,
            word,
        }
    }

    /// Writes an object and tells that it is stored.
    async fn store(&self, session: u64, object: Object<'_>) {
        let stored = object.write(&self.folder);
        let event = IntakeEvent::Stored {
            session,
            channel: Channel::Dimse,
            peer: "CT1".to_owned(),
            claim: Claim {
                sop_class_uid: uid(object.sop_class()),
                sop_instance_uid: uid(object.sop),
                transfer_syntax_uid: uid(uids::EXPLICIT_VR_LITTLE_ENDIAN),
            },
            announced: Announced::alone(&uid(object.sop), stored.content),
            object: stored,
            receipt: object.receipt,
        };
        self.intake.send(event).await.unwrap();
    }

    /// Stores the first slice and lets its quiet time pass.
    async fn receive_slice(&mut self) {
        self.store(1, slice("1.1.1.1")).await;
        self.told("study_receiving").await;
        self.quiet();
    }

    async fn finish(&self, session: u64) {
        let event = IntakeEvent::SessionFinished { session };
        self.intake.send(event).await.unwrap();
    }

    /// Waits until an event of type `kind` was told.
    async fn told(&mut self, kind: &str) -> serde_json::Value {
        let patience = Duration::from_secs(PATIENCE_SECONDS);
        let mut seen = Vec::new();
        let wait = async {
            loop {
                let event = serde_json::to_value(self.live.recv().await.unwrap()).unwrap();
                if event["type"] == kind {
                    return event;
                }
                seen.push(event["type"].to_string());
            }
        };
        let found = tokio::time::timeout(patience, wait).await;
        found.unwrap_or_else(|_| panic!("no {kind} among {seen:?}"))
    }

    /// Waits until `holds` is true of the study.
    async fn until(&self, holds: impl Fn(&StudyDetails) -> bool) -> StudyDetails {
        for _ in 0..PATIENCE_SECONDS * 200 {
            if let Some(study) = self
                .state
                .studies()
                .details(Scope::All, &uid("1.1"))
                .await
                .unwrap()
                && holds(&study)
            {
                return study;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "still {:?}",
            self.state
                .studies()
                .details(Scope::All, &uid("1.1"))
                .await
                .unwrap()
        );
    }

    /// The studies that workers have.
    async fn analysing(&self) -> Vec<String> {
        let list = self
            .state
            .studies()
            .worklist(Scope::All, page(100, 0, false))
            .await
            .unwrap()
            .studies;
        let busy = list.iter().filter(|row| row.state == StudyState::Analysing);
        let mut uids: Vec<_> = busy.map(|row| row.study_uid.to_string()).collect();
        uids.sort();
        uids
    }

    fn quiet(&self) {
        self.clock.advance(Duration::from_secs(5));
    }
}

/// An object, of study 1.1 unless told otherwise.
#[derive(Clone, Copy)]
struct Object<'a> {
    study: &'a str,
    sop: &'a str,
    patient_id: &'a str,
    image: bool,
    readable: bool,
    /// Bytes that are missing at its end.
    cut_bytes: u64,
    receipt: Receipt,
    /// Makes the content another one.
    comment: &'a str,
}

impl Default for Object<'_> {
    fn default() -> Self {
        Self {
            study: "1.1",
            sop: "1.1.1.1",
            patient_id: "P1",
            image: true,
            readable: true,
            cut_bytes: 0,
            receipt: Receipt::New,
            comment: "",
        }
    }
}

impl Object<'_> {
    fn sop_class(&self) -> &'static str {
        if self.image {
            uids::CT_IMAGE_STORAGE
        } else {
            uids::X_RAY_RADIATION_DOSE_SR_STORAGE
        }
    }

    fn write(&self, folder: &Path) -> StoredObject {
        let mut hasher = ContentHasher::new(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        hasher.update(format!("{}{}", self.sop, self.comment).as_bytes());
        let content = hasher.finish();
        let path = folder.join(format!("{content}_{}.dcm", self.sop));
        if self.readable {
            self.write_dicom(&path);
        } else {
            std::fs::write(&path, "not DICOM").unwrap();
        }
        if self.cut_bytes > 0 {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            let whole = file.metadata().unwrap().len();
            file.set_len(whole - self.cut_bytes).unwrap();
        }
        let bytes = std::fs::metadata(&path).unwrap().len();
        StoredObject {
            content,
            path,
            bytes,
        }
    }

    fn write_dicom(&self, path: &Path) {
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, dicom_value!(Str, value));
        let short = |tag, value: u16| DataElement::new(tag, VR::US, dicom_value!(U16, [value]));
        let mut object = InMemDicomObject::from_element_iter([
            text(tags::SOP_CLASS_UID, VR::UI, self.sop_class()),
            text(tags::SOP_INSTANCE_UID, VR::UI, self.sop),
            text(tags::STUDY_INSTANCE_UID, VR::UI, self.study),
            text(tags::SERIES_INSTANCE_UID, VR::UI, "1.1.1"),
            text(tags::PATIENT_NAME, VR::PN, "Doe^Jane"),
            text(tags::PATIENT_ID, VR::LO, self.patient_id),
            text(tags::MODALITY, VR::CS, "CT"),
        ]);
        if self.image {
            for (tag, value) in [
                (tags::ROWS, 1),
                (tags::COLUMNS, 1),
                (tags::SAMPLES_PER_PIXEL, 1),
                (tags::BITS_ALLOCATED, 16),
                (tags::BITS_STORED, 16),
                (tags::HIGH_BIT, 15),
                (tags::PIXEL_REPRESENTATION, 1),
            ] {
                object.put(short(tag, value));
            }
            object.put(text(
                tags::PHOTOMETRIC_INTERPRETATION,
                VR::CS,
                "MONOCHROME2",
            ));
            object.put(DataElement::new(
                tags::PIXEL_DATA,
                VR::OW,
                dicom_value!(U16, [0]),
            ));
        }
        let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        object.with_meta(meta).unwrap().write_to_file(path).unwrap();
    }

    fn found(&self, folder: &Path) -> FoundFile {
        FoundFile {
            path: self.write(folder).path,
            came_at: Timestamp::UNIX_EPOCH,
        }
    }
}

fn round(report: &StudyReport, at: Timestamp) -> Round<'_> {
    Round {
        generation: 1,
        report,
        artefacts: None,
        at,
    }
}

fn page(limit: i64, offset: i64, with_read: bool) -> WorklistPage {
    WorklistPage {
        limit,
        offset,
        with_read,
    }
}

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

fn slice(sop: &str) -> Object<'_> {
    Object {
        sop,
        ..Object::default()
    }
}

#[tokio::test]
async fn a_study_that_cannot_be_shown_to_be_whole_is_analysed_after_its_quiet_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    scene.store(1, slice("1.1.1.1")).await;
    scene.store(1, slice("1.1.1.2")).await;
    scene.finish(1).await;
    scene.told("study_receiving").await;
    scene.until(|study| study.study.counts.images == 2).await;
    scene.quiet();
    assert_eq!(scene.told("study_complete").await["proven"], false);
    assert_eq!(scene.told("study_analysed").await["priority"], "urgent");
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(study.study.state, StudyState::Analysed);
    assert_eq!(study.report.unwrap().reasons[0].text, "2 objects");
    assert_eq!(study.study.patient.name, "Doe^Jane");
    assert!(study.study.times.analysed.is_some());
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_late_slice_reopens_the_study_and_the_new_result_supersedes_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_result(folder.path()).await;
    scene.store(2, slice("1.1.1.2")).await;
    assert_eq!(scene.told("study_receiving").await["reopened"], true);
    let between = scene.until(|study| study.study.generation == 2).await;
    assert_eq!(
        between.study.result.priority,
        Priority::Urgent,
        "the old result stands until then"
    );
    scene.quiet();
    assert_eq!(scene.told("result_superseded").await["generation"], 1);
    assert_eq!(scene.told("study_analysed").await["generation"], 2);
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(study.report.unwrap().reasons[0].text, "2 objects");
    assert!(study.rounds[0].superseded_at.is_some());
    assert!(study.rounds[1].superseded_at.is_none());
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_slice_that_comes_during_the_analysis_leads_to_a_second_round() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start_held(folder.path()).await;
    scene.receive_slice().await;
    scene.told("study_analysing").await;
    scene.store(1, slice("1.1.1.2")).await;
    scene.until(|study| study.study.counts.images == 2).await;
    scene.word.send(()).unwrap();
    assert_eq!(scene.told("study_analysed").await["generation"], 1);
    assert_eq!(scene.told("study_receiving").await["reopened"], true);
    let between = scene.until(|study| study.study.generation == 2).await;
    assert_eq!(between.study.state, StudyState::Receiving);
    scene.quiet();
    scene.word.send(()).unwrap();
    assert_eq!(scene.told("study_analysed").await["generation"], 2);
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_report_object_that_comes_late_joins_the_study_and_changes_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::with_result(folder.path()).await;
    let report = Object {
        sop: "1.1.1.9",
        image: false,
        ..Object::default()
    };
    scene.store(2, report).await;
    let study = scene.until(|study| study.study.counts.objects == 2).await;
    assert_eq!(study.study.state, StudyState::Analysed);
    assert_eq!(study.study.generation, 1);
    assert_eq!(study.study.counts.images, 1);
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_study_without_any_image_comes_to_an_end_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    let report = Object {
        image: false,
        ..Object::default()
    };
    scene.store(1, report).await;
    scene.told("study_receiving").await;
    scene.quiet();
    scene.until(|study| study.study.state.is_terminal()).await;
    scene.studies.stop().await;
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_kept_told_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    let broken = Object {
        readable: false,
        ..Object::default()
    };
    scene.store(1, broken).await;
    assert_eq!(
        scene.told("object_unreadable").await["sop_instance_uid"],
        "1.1.1.1"
    );
    let listed = scene.state.objects().unreadable(Scope::All).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].peer, "CT1");
    assert!(!listed[0].reason.text.is_empty());
    assert!(folder.path().join(&listed[0].path).is_file());
    assert_eq!(
        scene
            .state
            .studies()
            .worklist(Scope::All, page(10, 0, false))
            .await
            .unwrap()
            .unreadable_objects,
        1
    );
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_cut_object_stands_in_its_study_and_is_counted_by_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    let cut = Object {
        cut_bytes: 2,
        ..slice("1.1.1.2")
    };
    scene.store(1, cut).await;
    scene.store(1, slice("1.1.1.1")).await;
    scene.told("study_receiving").await;
    scene.finish(1).await;
    scene.quiet();
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(study.study.counts.objects, 2);
    assert_eq!(study.study.patient.id, "P1");
    let said = |study: &StudyDetails| study.study.result.reasons[0].text.clone();
    assert_eq!(said(&study), "1 objects, 1 missing");
    assert_eq!(study.problems[0].reason.code, ReasonCode::Truncated);

    // Read again from disk, it still counts.
    scene.store(2, slice("1.1.1.3")).await;
    scene.told("study_receiving").await;
    scene.quiet();
    let study = scene.until(|study| said(study).starts_with('2')).await;
    assert_eq!(said(&study), "2 objects, 1 missing");

    // Sent again and whole, it is no longer missing.
    let again = Object {
        receipt: Receipt::Conflict,
        comment: "whole",
        ..slice("1.1.1.2")
    };
    scene.store(3, again).await;
    scene.told("study_receiving").await;
    scene.quiet();
    let study = scene.until(|study| said(study).starts_with('3')).await;
    assert_eq!(said(&study), "3 objects");
    scene.studies.stop().await;
}

#[tokio::test]
async fn an_object_cut_after_the_result_opens_its_study_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_result(folder.path()).await;
    let cut = Object {
        cut_bytes: 2,
        ..slice("1.1.1.2")
    };
    scene.store(2, cut).await;
    assert_eq!(scene.told("study_receiving").await["reopened"], true);
    scene.quiet();
    let study = scene.until(|study| study.rounds.len() == 2).await;
    let reason = &study.study.result.reasons[0].text;
    assert_eq!(reason, "1 objects, 1 missing");
    scene.studies.stop().await;
}

#[tokio::test]
async fn an_object_that_was_not_taken_is_missing_from_its_study_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    let refused = |study: &str| {
        let reason = Reason::new(ReasonCode::UnreadObjects, "It was not taken: too large.");
        let mut object = pipeline::unread::UnreadObject::unknown(PathBuf::new(), reason);
        object.study_uid = Some(uid(study));
        object.sop_instance_uid = Some(uid("1.1.1.9"));
        IntakeEvent::Refused {
            session: 1,
            peer: "CT1".to_owned(),
            object: Box::new(object),
        }
    };
    // Of a study of which nothing else came there is no row.
    scene.intake.send(refused("7.7")).await.unwrap();
    scene.store(1, slice("1.1.1.1")).await;
    scene.intake.send(refused("1.1")).await.unwrap();
    scene.told("study_receiving").await;
    scene.finish(1).await;
    scene.quiet();
    let said = |study: &StudyDetails| study.study.result.reasons[0].text.clone();
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(said(&study), "1 objects, 1 missing");
    assert_eq!(
        scene
            .state
            .studies()
            .worklist(Scope::All, page(9, 0, false))
            .await
            .unwrap()
            .total,
        1
    );
    scene.studies.stop().await;

    let mut scene = Scene::start(folder.path()).await;
    scene.store(1, slice("1.1.1.2")).await;
    scene.told("study_receiving").await;
    scene.quiet();
    let study = scene.until(|study| said(study).starts_with('2')).await;
    assert_eq!(said(&study), "2 objects, 1 missing");
    scene.store(2, slice("1.1.1.9")).await;
    scene.told("study_receiving").await;
    scene.quiet();
    let study = scene.until(|study| said(study).starts_with('3')).await;
    assert_eq!(said(&study), "3 objects");
    scene.studies.stop().await;
}

#[tokio::test]
async fn objects_that_name_no_study_have_one_row_for_each_session_and_it_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    let broken = |sop| Object {
        readable: false,
        ..slice(sop)
    };
    let objects = [(1, "9.1"), (1, "9.2"), (2, "9.3")];
    for (session, sop) in objects {
        scene.store(session, broken(sop)).await;
    }
    for _ in 0..2 {
        scene.told("study_receiving").await;
    }
    scene.quiet();
    for _ in 0..2 {
        scene.told("study_analysed").await;
    }
    let listed = scene
        .state
        .studies()
        .worklist(Scope::All, page(10, 0, false))
        .await
        .unwrap()
        .studies;
    let mut counts: Vec<_> = listed.iter().map(|row| row.counts.objects).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2]);
    for row in &listed {
        let description = &row.patient.study_description;
        assert!(description.contains("CT1"), "{description}");
        let reason = &row.result.reasons[0].text;
        assert!(reason.contains("missing"), "{reason}");
    }
    scene.studies.stop().await;

    // The database is lost, the objects are not: nobody knows any more who sent them.
    let other = tempfile::tempdir().unwrap();
    let on_disk = objects.map(|(_, sop)| broken(sop).found(folder.path()));
    let setup = Setup {
        on_disk: on_disk.into(),
        ..Setup::default()
    };
    let scene = Scene::start_with(other.path(), setup).await;
    let listed = scene
        .state
        .studies()
        .worklist(Scope::All, page(10, 0, false))
        .await
        .unwrap()
        .studies;
    let counts: Vec<_> = listed.iter().map(|row| row.counts.objects).collect();
    assert_eq!(counts, [3]);
    scene.studies.stop().await;
}

#[tokio::test]
async fn an_object_of_which_its_sender_and_its_header_disagree_is_kept_and_a_problem_of_its_study()
{
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    let object = slice("1.1.1.1");
    let stored = object.write(folder.path());
    let event = IntakeEvent::Stored {
        session: 1,
        channel: Channel::Dimse,
        peer: "CT1".to_owned(),
        claim: Claim {
            sop_class_uid: uid(object.sop_class()),
            sop_instance_uid: uid("1.1.1.77"),
            transfer_syntax_uid: uid(uids::EXPLICIT_VR_LITTLE_ENDIAN),
        },
        announced: Announced::alone(&uid("1.1.1.77"), stored.content),
        object: stored,
        receipt: Receipt::New,
    };
    scene.intake.send(event).await.unwrap();
    scene.told("study_receiving").await;
    scene.quiet();
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    let problem = &study.problems[0].reason;
    assert_eq!(problem.code, ReasonCode::BadIdentifier);
    for part in ["1.1.1.77", "1.1.1.1"] {
        assert!(problem.text.contains(part), "{}", problem.text);
    }
    scene.studies.stop().await;
}

#[tokio::test]
async fn other_content_under_a_known_uid_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    scene.store(1, slice("1.1.1.1")).await;
    let other = Object {
        comment: "other",
        receipt: Receipt::Conflict,
        ..Object::default()
    };
    scene.store(1, other).await;
    assert_eq!(
        scene.told("object_conflict").await["sop_instance_uid"],
        "1.1.1.1"
    );
    let study = scene.until(|study| study.study.counts.conflicts == 1).await;
    let codes: Vec<_> = study
        .problems
        .iter()
        .map(|problem| problem.reason.code)
        .collect();
    assert_eq!(codes, [ReasonCode::ConflictingDuplicate]);
    scene.studies.stop().await;
}

/// Of each row, by patient: its own UID, the shared one, and how many objects it has.
async fn rows(state: &State) -> Vec<(String, String, Option<String>, i64)> {
    let listed = state
        .studies()
        .worklist(Scope::All, page(10, 0, true))
        .await
        .unwrap()
        .studies;
    let mut rows: Vec<_> = listed
        .into_iter()
        .map(|row| {
            (
                row.patient.id,
                row.study_uid.to_string(),
                row.shared_study_uid.map(|uid| uid.to_string()),
                row.counts.objects,
            )
        })
        .collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn patients_that_share_a_study_uid_have_a_row_each_and_both_say_so() {
    let folder = tempfile::tempdir().unwrap();
    // The first has a result when the second one's objects come.
    let mut scene = Scene::with_result(folder.path()).await;
    let objects = [("1.1.1.2", "P2"), ("1.1.1.3", "P1"), ("1.1.1.4", "P2")];
    let objects = objects.map(|(sop, patient_id)| Object {
        sop,
        patient_id,
        ..Object::default()
    });
    for object in objects {
        scene.store(2, object).await;
    }
    scene.told("study_receiving").await;
    scene.finish(2).await;
    let first = scene.until(|study| study.study.counts.objects == 2).await;
    assert_eq!(first.study.generation, 2, "found again with the doubt");
    scene.quiet();
    for _ in 0..2 {
        let told = scene.told("study_analysed").await;
        let of = uid(told["study_uid"].as_str().unwrap());
        let study = scene
            .state
            .studies()
            .details(Scope::All, &of)
            .await
            .unwrap()
            .unwrap();
        let report = study.report.unwrap();
        assert_eq!(report.study_uid, uid("1.1"));
        assert_eq!(report.reasons[0].text, "2 objects, doubted");
    }
    let found = rows(&scene.state).await;
    let shared = Some("1.1".to_owned());
    assert_eq!(found[0], ("P1".into(), "1.1".into(), shared.clone(), 2));
    let (id, made, other, count) = &found[1];
    assert_eq!((id.as_str(), other, *count), ("P2", &shared, 2));
    assert!(made.starts_with("2.25."), "{made}");
    scene.studies.stop().await;

    // The database is lost: the objects give the same rows again.
    let other = tempfile::tempdir().unwrap();
    let on_disk = [slice("1.1.1.1"), objects[0], objects[1], objects[2]];
    let came = |(second, one): (i64, Object<'_>)| FoundFile {
        came_at: Timestamp::from_second(second).unwrap(),
        ..one.found(folder.path())
    };
    let setup = Setup {
        on_disk: (1..).zip(on_disk).map(came).collect(),
        ..Setup::default()
    };
    let scene = Scene::start_with(other.path(), setup).await;
    assert_eq!(rows(&scene.state).await, found);
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_sender_that_breaks_off_leaves_a_doubt_until_one_has_finished() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    scene.store(1, slice("1.1.1.1")).await;
    scene.told("study_receiving").await;
    let broken = IntakeEvent::SessionBroken { session: 1 };
    scene.intake.send(broken).await.unwrap();
    // Events are taken in order: once another study's object is known, so is the break.
    let other = Object {
        study: "1.2",
        sop: "1.2.1.1",
        ..Object::default()
    };
    scene.store(9, other).await;
    scene.told("study_receiving").await;
    scene.quiet();
    let report = scene.until(|study| study.report.is_some()).await.report;
    let report = report.unwrap();
    assert_eq!(report.reasons[0].text, "1 objects, doubted");

    scene.store(2, slice("1.1.1.2")).await;
    scene.told("study_receiving").await;
    scene.finish(2).await;
    let again = Object {
        sop: "1.2.1.2",
        ..other
    };
    scene.store(9, again).await;
    scene.told("study_receiving").await;
    scene.quiet();
    let says = |study: &StudyDetails, text: &str| {
        let report = study.report.as_ref();
        report.is_some_and(|report| report.reasons[0].text == text)
    };
    scene.until(|study| says(study, "2 objects")).await;
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_duplicate_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_result(folder.path()).await;
    let again = Object {
        receipt: Receipt::Duplicate,
        ..Object::default()
    };
    scene.store(2, again).await;
    scene.finish(2).await;
    scene
        .store(
            3,
            Object {
                readable: false,
                sop: "1.1.1.7",
                ..Object::default()
            },
        )
        .await;
    scene.told("object_unreadable").await;
    let study = scene.until(|_| true).await;
    assert_eq!(study.study.generation, 1);
    assert_eq!(study.study.counts.objects, 1);
    scene.studies.stop().await;
}

#[tokio::test]
async fn objects_that_only_the_disk_knows_are_taken_in_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup {
        on_disk: vec![
            slice("1.1.1.1").found(folder.path()),
            slice("1.1.1.2").found(folder.path()),
        ],
        ..Setup::default()
    };
    let mut scene = Scene::start_with(folder.path(), setup).await;
    assert_eq!(scene.until(|_| true).await.study.counts.images, 2);
    scene.quiet();
    scene.told("study_analysed").await;
    scene.studies.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_that_was_not_at_its_end_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start_held(folder.path()).await;
    scene.receive_slice().await;
    scene.told("study_analysing").await;
    let Scene {
        studies,
        state,
        clock,
        word,
        ..
    } = scene;
    let stopped = tokio::spawn(studies.stop());
    // The stop gives up on the worker; its thread may end then.
    for _ in 0..100 {
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    word.send(()).unwrap();
    stopped.await.unwrap();
    state.close().await;

    let mut scene = Scene::start(folder.path()).await;
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(study.study.generation, 1);
    assert_eq!(study.study.counts.objects, 1);
    scene.store(2, slice("1.1.1.2")).await;
    scene.told("study_receiving").await;
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_study_that_had_no_model_is_analysed_at_the_next_start() {
    for (code, again) in [
        (ReasonCode::InferenceLibraryMissing, true),
        (ReasonCode::ModelUnavailable, true),
        (ReasonCode::NoUsableSeries, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let state = open_state(folder.path()).await;
        let mut study = Study::new(uid("1.1"), 1, Timestamp::UNIX_EPOCH).row;
        let report = not_analysed(&uid("1.1"), vec![Reason::new(code, "so it was")]);
        study.state = StudyState::NotAnalysed;
        study.result = ResultSummary::of(&report, 1);
        let at = Timestamp::UNIX_EPOCH;
        state
            .write_result(&study, &round(&report, at))
            .await
            .unwrap();
        state.close().await;
        let mut scene = Scene::start(folder.path()).await;
        if again {
            assert_eq!(scene.told("study_analysed").await["generation"], 1);
        }
        let expected = if again {
            StudyState::Analysed
        } else {
            StudyState::NotAnalysed
        };
        assert_eq!(
            scene.until(|_| true).await.study.state,
            expected,
            "{code:?}"
        );
        scene.studies.stop().await;
    }
}

#[tokio::test]
async fn of_images_beyond_the_limit_one_is_held_so_that_the_analysis_sees_that_there_are_more() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        study_instances_max: 2,
        ..Limits::default()
    };
    let sops = ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"];
    for stored_before in [0, 4] {
        let setup = Setup {
            limits: limits.clone(),
            ..Setup::default()
        };
        let mut scene = Scene::start_with(folder.path(), setup).await;
        let sops = if stored_before == 0 {
            &sops[..]
        } else {
            &["1.1.1.5"]
        };
        for sop in sops {
            scene.store(1, slice(sop)).await;
        }
        let images = stored_before + i64::try_from(sops.len()).unwrap();
        let study = scene
            .until(|study| study.study.counts.images == images)
            .await;
        assert_eq!(study.problems.len(), if stored_before == 0 { 1 } else { 2 });
        let text = &study.problems[0].reason.text;
        assert!(text.contains("limits.study_instances_max"), "{text}");
        scene.quiet();
        scene.told("study_analysed").await;
        let study = scene.until(|study| study.study.state.is_terminal()).await;
        assert_eq!(study.report.unwrap().reasons[0].text, "3 objects");
        scene.studies.stop().await;
        scene.state.close().await;
    }
}

#[tokio::test]
async fn one_open_study_too_many_ends_the_quiet_time_of_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup {
        assembly: AssemblyConfig {
            open_studies_max: 1,
            ..AssemblyConfig::default()
        },
        ..Setup::default()
    };
    let mut scene = Scene::start_with(folder.path(), setup).await;
    scene.store(1, slice("1.1.1.1")).await;
    scene.told("study_receiving").await;
    scene.clock.advance(Duration::from_secs(1));
    let other = Object {
        study: "1.2",
        sop: "1.2.1.1",
        ..Object::default()
    };
    scene.store(1, other).await;
    assert_eq!(scene.told("study_complete").await["study_uid"], "1.1");
    assert_eq!(scene.told("study_analysed").await["study_uid"], "1.1");
    let other = scene
        .state
        .studies()
        .row(Scope::All, &uid("1.2"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(other.state, StudyState::Receiving);
    scene.studies.stop().await;
}

/// Leaves behind study `study_uid` as a Tez that ended in the midst of analysing it: its one slice,
/// and its row with `interruptions` from before.
async fn leave_interrupted(folder: &Path, study_uid: &str, interruptions: i64) {
    let state = open_state(folder).await;
    let internal_id = state.studies().internal_id_max().await.unwrap() + 1;
    let mut study = Study::new(uid(study_uid), internal_id, Timestamp::UNIX_EPOCH).row;
    study.state = StudyState::Analysing;
    study.interruptions = interruptions;
    let changes = Changes {
        studies: vec![study],
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    state.close().await;
}

#[tokio::test]
async fn an_interrupted_analysis_is_counted_before_it_is_tried_again_and_forgotten_with_a_result() {
    let folder = tempfile::tempdir().unwrap();
    leave_interrupted(folder.path(), "1.1", 3).await;
    let mut scene = Scene::start_held(folder.path()).await;
    scene.told("study_analysing").await;
    let running = scene.until(|_| true).await.study;
    assert_eq!(
        (running.state, running.interruptions),
        (StudyState::Analysing, 4)
    );
    scene.word.send(()).unwrap();
    scene.told("study_analysed").await;
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(study.study.interruptions, 0);
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_study_under_which_tez_ends_again_and_again_is_not_analysed_until_it_is_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    leave_interrupted(folder.path(), "1.1", INTERRUPTIONS_MAX - 1).await;
    for _ in 0..2 {
        let scene = Scene::start_held(folder.path()).await;
        let study = scene.until(|study| study.study.state.is_terminal()).await;
        assert_eq!(study.study.state, StudyState::NotAnalysed);
        assert_eq!(study.study.result.priority, Priority::Unknown);
        let reason = &study.study.result.reasons[0];
        assert_eq!(reason.code, ReasonCode::InternalFault);
        assert!(reason.text.contains("20 times"), "{}", reason.text);
        assert!(reason.text.contains("send the study again"));
        assert!(study.report.is_some());
        scene.studies.stop().await;
        scene.state.close().await;
    }
    let mut scene = Scene::start(folder.path()).await;
    let again = Object {
        receipt: Receipt::Duplicate,
        ..Object::default()
    };
    scene.store(1, again).await;
    scene.finish(1).await;
    scene.told("study_analysed").await;
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(study.study.state, StudyState::Analysed);
    assert_eq!(study.study.interruptions, 0);
    scene.studies.stop().await;
}

#[tokio::test]
async fn studies_under_which_tez_ended_come_last_and_each_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (study_uid, interruptions) in [("1.7", 4), ("1.8", 2), ("1.9", 2)] {
        leave_interrupted(folder.path(), study_uid, interruptions).await;
    }
    let fresh = ["1.2", "1.3", "1.4"].map(|study| Object {
        study,
        sop: study,
        ..Object::default()
    });
    let setup = Setup {
        held: true,
        workers: 2,
        ..Setup::default()
    };
    let mut scene = Scene::start_with(folder.path(), setup).await;
    // 1.8 began before there was anything else; from then on the fresh ones go first.
    assert_eq!(scene.told("study_analysing").await["study_uid"], "1.8");
    for object in fresh {
        scene.store(1, object).await;
        scene.told("study_receiving").await;
    }
    scene.quiet();
    for _ in fresh {
        scene.told("study_queued").await;
    }
    assert_eq!(scene.analysing().await, ["1.8"], "it stays alone");
    let mut running: [Vec<String>; 6] = Default::default();
    for running in &mut running {
        scene.word.send(()).unwrap();
        scene.told("study_analysed").await;
        *running = scene.analysing().await;
    }
    assert_eq!(running[0], ["1.3", "1.4"], "the newest first");
    assert_eq!(running.each_ref().map(Vec::len), [2, 2, 1, 1, 1, 0]);
    assert_eq!([&running[3][..], &running[4][..]], [["1.9"], ["1.7"]]);
    scene.studies.stop().await;
}

#[tokio::test]
async fn the_newest_study_goes_before_the_backlog_and_every_fourth_start_takes_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let state = open_state(folder.path()).await;
    let backlog = (1..=9_i64).map(|number| {
        let at = Timestamp::from_second(1_000 * number).unwrap();
        let mut row = Study::new(uid(&format!("2.{number}")), number, at).row;
        row.state = StudyState::Queued;
        row
    });
    let changes = Changes {
        studies: backlog.collect(),
        ..Changes::default()
    };
    state.write(&changes).await.unwrap();
    state.close().await;
    let mut scene = Scene::start_held(folder.path()).await;
    assert_eq!(scene.told("study_analysing").await["study_uid"], "2.9");
    scene.receive_slice().await;
    scene.told("study_queued").await;
    let mut order = Vec::new();
    for _ in 0..9 {
        scene.word.send(()).unwrap();
        let told = scene.told("study_analysing").await;
        order.push(told["study_uid"].as_str().unwrap().to_owned());
    }
    let expected = [
        "1.1", "2.8", "2.1", "2.7", "2.6", "2.5", "2.2", "2.4", "2.3",
    ];
    assert_eq!(order, expected);
    scene.word.send(()).unwrap();
    scene.told("study_analysed").await;
    scene.studies.stop().await;
}

#[tokio::test]
async fn studies_found_on_disk_keep_the_times_and_the_order_in_which_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let found = |study, sop, second| {
        let object = Object {
            study,
            sop,
            ..Object::default()
        };
        FoundFile {
            came_at: Timestamp::from_second(second).unwrap(),
            ..object.found(folder.path())
        }
    };
    let on_disk = vec![
        found("3.2", "3.2.1", 5_000),
        found("3.1", "3.1.2", 2_000),
        found("3.1", "3.1.1", 1_000),
        found("3.9", "3.9.1", 9_000_000_000),
    ];
    let setup = Setup {
        on_disk,
        ..Setup::default()
    };
    let scene = Scene::start_with(folder.path(), setup).await;
    let times = |row: &store::state::StudyRow| {
        let times = &row.times;
        let seconds = (
            times.received_first.as_second(),
            times.received_last.as_second(),
        );
        (row.internal_id, seconds)
    };
    let row = async |study| {
        scene
            .state
            .studies()
            .row(Scope::All, &uid(study))
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(times(&row("3.1").await), (1, (1_000, 2_000)));
    assert_eq!(times(&row("3.2").await), (2, (5_000, 5_000)));
    let now = scene.clock.now().as_second();
    assert_eq!(
        times(&row("3.9").await),
        (3, (now, now)),
        "not in the future"
    );
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_new_slice_makes_a_study_forget_its_interruptions() {
    let folder = tempfile::tempdir().unwrap();
    for study_uid in ["1.0", "1.1"] {
        leave_interrupted(folder.path(), study_uid, 5).await;
    }
    let mut scene = Scene::start_held(folder.path()).await;
    assert_eq!(scene.told("study_analysing").await["study_uid"], "1.0");
    assert_eq!(scene.until(|_| true).await.study.interruptions, 6);
    scene.store(1, slice("1.1.1.2")).await;
    assert_eq!(scene.told("study_receiving").await["study_uid"], "1.1");
    let study = scene.until(|study| study.study.counts.images == 1).await;
    assert_eq!(study.study.interruptions, 0);
    scene.word.send(()).unwrap();
    scene.studies.stop().await;
}

#[tokio::test]
async fn a_mended_object_has_its_study_analysed_again_and_is_no_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::start(folder.path()).await;
    scene.receive_slice().await;
    scene.told("study_analysed").await;
    let path = slice("1.1.1.1").write(folder.path()).path;
    let problem = store::state::Problem {
        at: Timestamp::UNIX_EPOCH,
        study_uid: Some(uid("1.1")),
        sop_instance_uid: None,
        path: Some(path),
        peer: String::new(),
        reason: Reason::new(ReasonCode::DamagedFile, "damaged"),
    };
    let mut transaction = scene.state.begin(Durability::Process).await.unwrap();
    transaction.add_damage(&problem, "damaged").await.unwrap();
    transaction.commit().await.unwrap();
    let study = scene.until(|study| study.study.damaged_objects == 1).await;
    assert!(study.study.state.is_terminal());
    let mended = Object {
        receipt: Receipt::Mended,
        ..slice("1.1.1.1")
    };
    scene.store(2, mended).await;
    assert_eq!(scene.told("study_receiving").await["reopened"], true);
    scene.quiet();
    assert_eq!(scene.told("study_analysed").await["generation"], 2);
    let study = scene.until(|study| study.study.state.is_terminal()).await;
    assert_eq!(study.study.damaged_objects, 0);
    assert_eq!(
        (study.study.counts.objects, study.study.counts.conflicts),
        (1, 0)
    );
    assert_eq!(study.report.unwrap().reasons[0].text, "1 objects");
    scene.studies.stop().await;
}
