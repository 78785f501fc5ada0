//! What happens to studies, told to whoever listens (the worklist page, other programs).
//!
//! Events carry identifiers and reasons, never a patient's name. A listener that was away asks for
//! what came after the last id it saw; if that is no longer kept it is told so, and reads the
//! worklist afresh.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use models::triage::Priority;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::clock::Clock;

/// Events that are kept for listeners that come back.
const KEPT_EVENTS_MAX: usize = 4_096;
/// Events that a slow listener may be behind before it is told that it missed some.
const BEHIND_EVENTS_MAX: usize = 1_024;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Event {
    /// Grows with every event, over restarts too. Fits a JavaScript number.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Which study an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StudyRef {
    /// Study Instance UID.
    #[schema(value_type = String)]
    pub study_uid: Uid,
    /// Number of the study in logs.
    pub internal_id: i64,
    /// Which round of analysis the study is in: 1, and one more each time it is re-opened.
    pub generation: i64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The first object of a study, or a late one of a finished study, came in.
    StudyReceiving {
        /// Which study.
        #[serde(flatten)]
        study: StudyRef,
        /// A result was there already and is now out of date.
        reopened: bool,
    },
    /// The study is whole, or its quiet time is over.
    StudyComplete {
        /// Which study.
        #[serde(flatten)]
        study: StudyRef,
        /// Shown by geometry; false when it was the quiet time that ended.
        proven: bool,
    },
    /// The study waits for a worker.
    StudyQueued {
        /// Which study.
        #[serde(flatten)]
        study: StudyRef,
    },
    /// A worker has it.
    StudyAnalysing {
        /// Which study.
        #[serde(flatten)]
        study: StudyRef,
    },
    /// There is a result; something may be missing or in doubt.
    StudyAnalysed {
        /// Which study.
        #[serde(flatten)]
        study: StudyRef,
        /// Where it stands in the list now.
        #[schema(value_type = String)]
        priority: Priority,
        /// Something is missing or in doubt.
        partial: bool,
    },
    /// The study cannot be analysed. Not a normal.
    StudyNotAnalysed {
        /// Which study.
        #[serde(flatten)]
        study: StudyRef,
        /// Why; never empty.
        #[schema(value_type = Vec<Object>)]
        reasons: Vec<Reason>,
    },
    /// A newer result took the place of an older one.
    ResultSuperseded {
        /// Which study, with the generation of the older result.
        #[serde(flatten)]
        study: StudyRef,
    },
    /// Somebody marked the study as read, or took the mark back.
    StudyMarked {
        /// Which study.
        #[serde(flatten)]
        study: StudyRef,
        /// Whether it counts as read now.
        read: bool,
    },
    /// An object was kept but cannot be read; its study lacks it.
    ObjectUnreadable {
        /// What its sender called it.
        #[schema(value_type = String)]
        sop_instance_uid: Uid,
        /// Why.
        #[schema(value_type = Object)]
        reason: Reason,
    },
    /// An object came with the UID of another one but other content; both are kept.
    ObjectConflict {
        /// Which study, if its header can be read.
        #[serde(flatten)]
        study: StudyRef,
        /// The UID that two objects have.
        #[schema(value_type = String)]
        sop_instance_uid: Uid,
    },
}

/// The event stream. Clones share it.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    kept: Mutex<Kept>,
    sender: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Kept {
    next_id: u64,
    events: VecDeque<Event>,
}

/// What a listener gets to begin with.
#[derive(Debug)]
pub struct Subscription {
    /// Events are missing between the id that was asked for and what follows.
    pub missed: bool,
    /// Kept events after that id, in order.
    pub backlog: Vec<Event>,
    /// Everything after the backlog. On `Lagged` the listener missed events: tell it.
    pub live: broadcast::Receiver<Event>,
}

impl Events {
    /// Starts an event stream. Its ids begin at the time of day in milliseconds times 1,000, so
    /// that they go on growing after a restart and stay below 2^53.
    pub fn new(clock: Clock) -> Self {
        let start_ms = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
        Self(Arc::new(Shared {
            clock,
            kept: Mutex::new(Kept {
                next_id: start_ms * 1_000 + 1,
                events: VecDeque::new(),
            }),
            sender: broadcast::Sender::new(BEHIND_EVENTS_MAX),
        }))
    }

    /// Tells every listener.
    pub fn publish(&self, what: What) {
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            id: kept.next_id,
            at: self.0.clock.now(),
            what,
        };
        kept.next_id += 1;
        if kept.events.len() == KEPT_EVENTS_MAX {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Sent under the lock, so that a subscriber sees each event once: kept or live.
        // An error only says that nobody listens.
        drop(self.0.sender.send(event));
    }

    /// Listens from now on, or from the event after `last_seen`.
    pub fn subscribe(&self, last_seen: Option<u64>) -> Subscription {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let first_kept = kept.events.front().map_or(kept.next_id, |event| event.id);
        let backlog = last_seen.map_or_else(Vec::new, |id| {
            let newer = kept.events.iter().filter(|event| event.id > id);
            newer.cloned().collect()
        });
        Subscription {
            missed: last_seen.is_some_and(|id| id + 1 < first_kept),
            backlog,
            live: self.0.sender.subscribe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn queued(internal_id: i64) -> What {
        What::StudyQueued {
            study: StudyRef {
                study_uid: Uid::new("1.2").unwrap(),
                internal_id,
                generation: 1,
            },
        }
    }

    fn clock() -> Clock {
        Clock::stopped_at(Timestamp::from_second(1_700_000_000).unwrap())
    }

    #[tokio::test]
    async fn a_listener_that_comes_back_gets_each_event_once() {
        let events = Events::new(clock());
        (1..=3).for_each(|id| events.publish(queued(id)));
        let first = events.subscribe(Some(0)).backlog[0].id;
        let mut subscription = events.subscribe(Some(first));
        events.publish(queued(4));
        assert_eq!(
            subscription
                .backlog
                .iter()
                .map(|e| e.id)
                .collect::<Vec<_>>(),
            [first + 1, first + 2]
        );
        assert_eq!(subscription.live.recv().await.unwrap().id, first + 3);
        assert!(!subscription.missed);
    }

    #[test]
    fn a_listener_is_told_what_it_missed_when_the_events_are_no_longer_kept() {
        let clock = clock();
        let before = Events::new(clock.clone());
        before.publish(queued(1));
        let seen = before.subscribe(Some(0)).backlog[0].id;
        clock.advance(Duration::from_secs(1));
        let after = Events::new(clock);
        after.publish(queued(2));
        let subscription = after.subscribe(Some(seen));
        assert!(subscription.missed);
        assert_eq!(subscription.backlog.len(), 1);
        assert!(subscription.backlog[0].id > seen);
    }

    #[test]
    fn events_are_flat_json_without_a_name() {
        let events = Events::new(clock());
        events.publish(queued(7));
        let event = &events.subscribe(Some(0)).backlog[0];
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            serde_json::json!({
                "id": 1_700_000_000_000_001_u64, "at": "2023-11-14T22:13:20Z", "type": "study_queued",
                "study_uid": "1.2", "internal_id": 7, "generation": 1
            })
        );
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let events = Events::new(clock());
        (0..5_000).for_each(|id| events.publish(queued(id)));
        let subscription = events.subscribe(Some(0));
        assert_eq!(subscription.backlog.len(), KEPT_EVENTS_MAX);
        assert!(subscription.missed);
    }
}
