//! What came in → what it says of itself: headers are read in batches on a blocking thread.

use std::path::PathBuf;

use jiff::Timestamp;
use pipeline::header::read_object;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;

use crate::intake::{Announced, Claim, IntakeEvent};
use store::objects::{RecoveredObject, StoredObject};
use store::receipt::Receipt;
use store::state::{FoundFile, ObjectRow};

/// One thing that the intake told, its header read.
#[derive(Debug)]
pub(super) enum Scanned {
    /// An object.
    Object(Box<ScannedObject>),
    /// An object that was not taken, and who sent it.
    Refused(Box<UnreadObject>, String),
    /// A sender says that there is no more.
    Finished(u64),
    /// A sender broke off.
    Broken(u64),
}

/// An acknowledged object and what its header says.
#[derive(Debug)]
pub(super) struct ScannedObject {
    /// Which association or upload brought it; `None` if it was found on disk.
    pub(super) session: Option<u64>,
    /// Its row.
    pub(super) row: ObjectRow,
    /// What its header says, or what could be saved of it.
    pub(super) header: Result<Instance, Box<UnreadObject>>,
    /// Where its sender called it something else than its header does.
    pub(super) disagreement: Option<Reason>,
    /// Kept until the object has its row.
    pub(super) announced: Option<Announced>,
}

/// Reads the headers of a batch, in order. Blocking.
pub(super) fn scan(events: Vec<IntakeEvent>, at: Timestamp, limits: &Limits) -> Vec<Scanned> {
    let scan_one = |event| match event {
        IntakeEvent::Refused { peer, object, .. } => Scanned::Refused(object, peer),
        IntakeEvent::SessionFinished { session } => Scanned::Finished(session),
        IntakeEvent::SessionBroken { session } => Scanned::Broken(session),
        IntakeEvent::Stored {
            session,
            channel,
            peer,
            claim,
            object,
            receipt,
            announced,
        } => {
            let mut scanned = scan_object(object, &claim.sop_instance_uid, at, limits);
            scanned.session = Some(session);
            scanned.announced = Some(announced);
            scanned.row.channel = Some(channel);
            scanned.row.peer = peer;
            scanned.row.receipt = receipt;
            scanned.disagreement = disagreement(&claim, &scanned.header);
            add_claim(&mut scanned.row, claim);
            Scanned::Object(Box::new(scanned))
        }
    };
    events.into_iter().map(scan_one).collect()
}

/// What a start found, its headers read.
#[derive(Debug)]
pub(super) struct ScannedFiles {
    pub(super) objects: Vec<Scanned>,
    /// Files that are done with: read, or gone again.
    pub(super) settled: Vec<PathBuf>,
}

/// Reads the headers of files that are on disk but not in the database; each counts as received when
/// it was written, by a clock that was ahead `now`. Blocking.
pub(super) fn scan_found(files: Vec<FoundFile>, now: Timestamp, limits: &Limits) -> ScannedFiles {
    let mut objects = Vec::new();
    let mut settled = Vec::new();
    for file in files {
        match RecoveredObject::at(&file.path) {
            Ok(Some(found)) => {
                let at = file.came_at.min(now);
                let scanned = scan_object(found.object, &found.sop_instance_uid, at, limits);
                objects.push(Scanned::Object(Box::new(scanned)));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, file = %file.path.display(), "a kept file is not read");
            }
        }
        settled.push(file.path);
    }
    ScannedFiles { objects, settled }
}

fn scan_object(
    object: StoredObject,
    sop_instance_uid: &Uid,
    at: Timestamp,
    limits: &Limits,
) -> ScannedObject {
    let mut header = read_object(&object.path, limits);
    if let Ok(instance) = &mut header {
        instance.content = Some(object.content);
    }
    let mut row = ObjectRow {
        path: object.path,
        content: object.content,
        sop_instance_uid: sop_instance_uid.clone(),
        sop_class_uid: None,
        transfer_syntax_uid: None,
        study_uid: None,
        series_uid: None,
        bytes: object.bytes,
        received_at: at,
        arrival: 0,
        channel: None,
        peer: String::new(),
        receipt: Receipt::New,
        refusal: None,
    };
    match &header {
        Ok(instance) => add_header(&mut row, instance),
        Err(unread) => add_salvage(&mut row, unread),
    }
    ScannedObject {
        session: None,
        row,
        header,
        disagreement: None,
        announced: None,
    }
}

/// What to say of an object that its sender, in the command or the file meta group, calls otherwise
/// than its data set does. The data set's word counts.
fn disagreement(claim: &Claim, header: &Result<Instance, Box<UnreadObject>>) -> Option<Reason> {
    let instance = header.as_ref().ok()?;
    let pairs = [
        (
            "SOP Instance UID",
            &claim.sop_instance_uid,
            &instance.sop_instance_uid,
        ),
        (
            "SOP Class UID",
            &claim.sop_class_uid,
            &instance.sop_class_uid,
        ),
    ];
    let (name, sent, own) = pairs.into_iter().find(|(_, sent, own)| sent != own)?;
    let text = format!(
        "The sender names {name} {sent}, the object itself {own}; the object's own word was taken. \
         Check at the sender which object this is."
    );
    Some(Reason::new(ReasonCode::BadIdentifier, text))
}

fn add_header(row: &mut ObjectRow, instance: &Instance) {
    row.sop_class_uid = Some(instance.sop_class_uid.clone());
    row.transfer_syntax_uid = Some(instance.transfer_syntax_uid.clone());
    row.study_uid = Some(instance.study_uid.clone());
    row.series_uid = Some(instance.series_uid.clone());
}

fn add_salvage(row: &mut ObjectRow, unread: &UnreadObject) {
    row.sop_class_uid.clone_from(&unread.sop_class_uid);
    let syntax = &unread.transfer_syntax_uid;
    row.transfer_syntax_uid.clone_from(syntax);
    row.study_uid.clone_from(&unread.study_uid);
    row.series_uid.clone_from(&unread.series_uid);
    row.refusal = Some(unread.reason.clone());
}

/// Where the header cannot be read, the sender's word stands.
fn add_claim(row: &mut ObjectRow, claim: Claim) {
    row.sop_class_uid.get_or_insert(claim.sop_class_uid);
    row.transfer_syntax_uid
        .get_or_insert(claim.transfer_syntax_uid);
}
