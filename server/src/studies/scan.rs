//! What came in → what it says of itself: headers are read in batches on a blocking thread.

use jiff::Timestamp;
use pipeline::instance::Instance;
use pipeline::intake::{Refusal, read_instance};
use pipeline::limits::Limits;
use pipeline::uid::Uid;

use crate::intake::{Claim, IntakeEvent, Receipt};
use crate::objects::{RecoveredObject, StoredObject};
use crate::state::ObjectRow;

/// One thing that the intake told, its header read.
#[derive(Debug)]
pub(super) enum Scanned {
    /// An object.
    Object(Box<ScannedObject>),
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
    /// What its header says.
    pub(super) header: Result<Instance, Refusal>,
}

/// Reads the headers of a batch, in order. Blocking.
pub(super) fn scan(events: Vec<IntakeEvent>, at: Timestamp, limits: &Limits) -> Vec<Scanned> {
    let scan_one = |event| match event {
        IntakeEvent::SessionFinished { session } => Scanned::Finished(session),
        IntakeEvent::SessionBroken { session } => Scanned::Broken(session),
        IntakeEvent::Stored {
            session,
            channel,
            peer,
            claim,
            object,
            receipt,
        } => {
            let mut scanned = scan_object(object, &claim.sop_instance_uid, at, limits);
            scanned.session = Some(session);
            scanned.row.channel = Some(channel);
            scanned.row.peer = peer;
            scanned.row.receipt = receipt;
            add_claim(&mut scanned.row, claim);
            Scanned::Object(Box::new(scanned))
        }
    };
    events.into_iter().map(scan_one).collect()
}

/// Reads the headers of objects that are on disk but not in the database. Blocking.
pub(super) fn scan_recovered(
    objects: Vec<RecoveredObject>,
    at: Timestamp,
    limits: &Limits,
) -> Vec<Scanned> {
    let scan_one = |recovered: RecoveredObject| {
        let scanned = scan_object(recovered.object, &recovered.sop_instance_uid, at, limits);
        Scanned::Object(Box::new(scanned))
    };
    objects.into_iter().map(scan_one).collect()
}

fn scan_object(
    object: StoredObject,
    sop_instance_uid: &Uid,
    at: Timestamp,
    limits: &Limits,
) -> ScannedObject {
    let mut header = read_instance(&object.path, limits);
    if let Ok(instance) = &mut header {
        instance.content = Some(object.content);
    }
    let says = header.as_ref().ok();
    let row = ObjectRow {
        path: object.path,
        content: object.content,
        sop_instance_uid: sop_instance_uid.clone(),
        sop_class_uid: says.map(|instance| instance.sop_class_uid.clone()),
        transfer_syntax_uid: says.map(|instance| instance.transfer_syntax_uid.clone()),
        study_uid: says.map(|instance| instance.study_uid.clone()),
        series_uid: says.map(|instance| instance.series_uid.clone()),
        bytes: object.bytes,
        received_at: at,
        channel: None,
        peer: String::new(),
        receipt: Receipt::New,
        refusal: header.as_ref().err().map(|refusal| refusal.reason.clone()),
    };
    ScannedObject {
        session: None,
        row,
        header,
    }
}

/// Where the header cannot be read, the sender's word stands.
fn add_claim(row: &mut ObjectRow, claim: Claim) {
    row.sop_class_uid.get_or_insert(claim.sop_class_uid);
    row.transfer_syntax_uid
        .get_or_insert(claim.transfer_syntax_uid);
}
