//! Which contents are kept under which SOP Instance UID: is this object new?
//!
//! The database's index answers for every object that has a row. Those that were announced and have
//! none yet are held here, so that memory is bounded by the queue of the intake's events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pipeline::content::ContentHash;
use pipeline::uid::Uid;
use tokio::runtime::Handle;

use store::objects::{Condition, ObjectStore, SealedObject, StoreError, StoredObject};
use store::receipt::Receipt;
use store::state::State;

#[derive(Debug)]
pub(super) struct Known {
    state: State,
    recent: Arc<Mutex<Recent>>,
    turn_ended: Condvar,
}

#[derive(Debug, Default)]
struct Recent {
    /// Contents without a row, each as often as it was announced.
    announced: BTreeMap<Uid, Vec<ContentHash>>,
    /// UIDs of which an object is being stored right now: one at a time, so that of two
    /// associations that bring the same object the second waits until the first is synced.
    in_turn: BTreeSet<Uid>,
}

/// Says of an object that it was announced to the assembly. Dropped when the object has its row: the
/// database tells of it from then on.
#[derive(Debug)]
pub struct Announced {
    recent: Arc<Mutex<Recent>>,
    uid: Uid,
    content: ContentHash,
}

impl Announced {
    /// Of an object that no second copy is compared with, for tests.
    #[cfg(test)]
    pub(crate) fn alone(uid: &Uid, content: ContentHash) -> Self {
        Self::new(&Arc::default(), uid, content)
    }

    fn new(recent: &Arc<Mutex<Recent>>, uid: &Uid, content: ContentHash) -> Self {
        let mut held = lock(recent);
        let contents = held.announced.entry(uid.clone()).or_default();
        contents.push(content);
        drop(held);
        Self {
            recent: Arc::clone(recent),
            uid: uid.clone(),
            content,
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let mut recent = lock(&self.recent);
        if let Some(contents) = recent.announced.get_mut(&self.uid) {
            if let Some(place) = contents.iter().position(|one| *one == self.content) {
                contents.swap_remove(place);
            }
            if contents.is_empty() {
                recent.announced.remove(&self.uid);
            }
        }
    }
}

/// An object that was stored, or was there already.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) receipt: Receipt,
    pub(super) object: StoredObject,
    pub(super) announced: Announced,
}

fn lock(recent: &Mutex<Recent>) -> MutexGuard<'_, Recent> {
    // Each change is a single insert or remove: a panic elsewhere leaves the sets whole.
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            recent: Arc::default(),
            turn_ended: Condvar::new(),
        }
    }

    /// Waits until no other object with this UID is being stored.
    pub(super) fn take_turn(&self, uid: &Uid) -> UidTurn<'_> {
        let mut recent = self
            .turn_ended
            .wait_while(lock(&self.recent), |recent| recent.in_turn.contains(uid))
            .unwrap_or_else(PoisonError::into_inner);
        recent.in_turn.insert(uid.clone());
        drop(recent);
        UidTurn {
            known: self,
            uid: uid.clone(),
        }
    }
}

/// The right to store an object of one UID; ends when dropped.
pub(super) struct UidTurn<'a> {
    known: &'a Known,
    uid: Uid,
}

impl Drop for UidTurn<'_> {
    fn drop(&mut self) {
        lock(&self.known.recent).in_turn.remove(&self.uid);
        self.known.turn_ended.notify_all();
    }
}

impl UidTurn<'_> {
    /// Stores an object unless it is there already, whole. The database is asked meanwhile.
    pub(super) fn store(
        &self,
        store: &ObjectStore,
        runtime: &Handle,
        sealed: SealedObject,
    ) -> Result<Stored, StoreError> {
        let content = sealed.content;
        let announced = |object, receipt| Stored {
            receipt,
            object,
            announced: Announced::new(&self.known.recent, &self.uid, content),
        };
        // Answered from the disk, not from what is known: the sender will delete its copy.
        let there = store.stored(&self.uid, content);
        let is_damaged = there.is_some();
        if let Some(object) = there
            && store.condition(&object) == Condition::Intact
        {
            return Ok(announced(object, Receipt::Duplicate));
        }
        // Looked at before the object itself is announced, and before the rows are asked for: what is
        // written in between is found in one of the two.
        let mut known = self.recent_contents();
        let (state, uid) = (self.known.state.clone(), self.uid.clone());
        let rows = runtime.spawn(async move { state.objects().contents_of(&uid).await });
        let object = sealed.publish(&self.uid)?;
        match runtime.block_on(rows) {
            Ok(Ok(contents)) => known.extend(contents),
            // The assembly compares the object with those of its study once more.
            Ok(Err(error)) => {
                tracing::warn!(%error, "the database does not tell whether an object is new");
            }
            Err(error) => tracing::error!(%error, "asking the database panicked"),
        }
        let receipt = if is_damaged || known.contains(&content) {
            tracing::warn!(sop_instance_uid = %self.uid, "a kept object was damaged or gone and is mended");
            Receipt::Mended
        } else if known.is_empty() {
            Receipt::New
        } else {
            Receipt::Conflict
        };
        Ok(announced(object, receipt))
    }

    fn recent_contents(&self) -> Vec<ContentHash> {
        let recent = lock(&self.known.recent);
        recent.announced.get(&self.uid).cloned().unwrap_or_default()
    }
}
