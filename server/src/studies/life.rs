//! The life of the studies: [`pipeline::assembly::step`]'s table, and what is done by it.

use std::sync::Arc;
use std::time::Duration;

use pipeline::assembly::{
    Action, Completeness, Moment, Phase, StudyEvent, step, study_completeness,
};
use pipeline::uid::Uid;

use super::assembler::Assembler;
use super::study::{INTERRUPTIONS_MAX, Study};
use crate::events::What;
use store::state::{Scope, StudyState, StudyTimes};

/// An answer about completeness.
pub(super) struct CompletenessAnswer {
    uid: Uid,
    /// Of the study when it was asked.
    revision: u64,
    answer: Completeness,
}

impl Assembler {
    /// Something happened to a study. Results are another matter: see `take_result`.
    pub(super) fn happen(&mut self, uid: &Uid, event: StudyEvent, moment: Moment) {
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        let (phase, action) = step(study.phase, event, moment);
        study.phase = phase;
        self.turn.changed.insert(uid.clone());
        match action {
            Action::Nothing => {}
            Action::WakeAt(end) => self.set_alarm(uid, end),
            Action::TakeBack(end) => {
                if let Some(place) = study.queued_as.take() {
                    self.queue.remove(&place);
                }
                self.receive_again(uid, false);
                self.set_alarm(uid, end);
            }
            Action::Reopen(end) => {
                study.row.generation += 1;
                self.receive_again(uid, true);
                self.set_alarm(uid, end);
            }
            Action::QueueAgain => self.enqueue(uid),
            Action::Queue => {
                let proven = event == StudyEvent::SenderFinished { whole: true };
                self.complete(uid, proven);
            }
            Action::Publish | Action::PublishOutdated | Action::PublishOutdatedAndQueue => {
                tracing::error!("a result was told apart from its report");
            }
        }
    }

    /// The time now, and how long studies of `sender` must be quiet.
    pub(super) fn moment(&self, sender: &str) -> Moment {
        Moment {
            now: self.parts.clock.monotonic(),
            quiet_time: self.parts.assembly.quiet_time(sender),
        }
    }

    /// A study that was whole, or has a result, is received again.
    pub(super) fn receive_again(&mut self, uid: &Uid, reopened: bool) {
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        study.row.state = StudyState::Receiving;
        study.row.interruptions = 0;
        study.attempts = 0;
        let times = &mut study.row.times;
        *times = StudyTimes {
            received_first: times.received_first,
            ..StudyTimes::first_received(times.received_last)
        };
        tracing::info!(study = study.row.internal_id, reopened, "received again");
        self.turn.told.push(What::StudyReceiving {
            study: study.reference(),
            reopened,
        });
    }

    /// The end of the quiet time is known; an earlier one no longer holds. One open study too many
    /// ends the quiet time of the one that is due first.
    pub(super) fn set_alarm(&mut self, uid: &Uid, end: Duration) {
        self.clear_alarm(uid);
        if let Some(study) = self.open.get_mut(uid) {
            study.alarm = Some(end);
            self.alarms.insert((end, uid.clone()));
        }
        if self.alarms.len() > self.parts.assembly.open_studies_max {
            self.ring_first_alarm();
        }
    }

    fn clear_alarm(&mut self, uid: &Uid) {
        if let Some(end) = self.open.get_mut(uid).and_then(|study| study.alarm.take()) {
            self.alarms.remove(&(end, uid.clone()));
        }
    }

    pub(super) fn ring_alarms(&mut self) {
        let now = self.parts.clock.monotonic();
        while self.alarms.first().is_some_and(|(end, _)| *end <= now) {
            self.ring_first_alarm();
        }
    }

    fn ring_first_alarm(&mut self) {
        if let Some((end, uid)) = self.alarms.first().cloned() {
            self.clear_alarm(&uid);
            let moment = Moment {
                now: end,
                quiet_time: Duration::ZERO,
            };
            self.happen(&uid, StudyEvent::QuietElapsed, moment);
        }
    }

    /// A sender says that there is no more.
    pub(super) async fn finish_session(&mut self, session: u64) {
        self.homes.retain(|(of, _), _| *of != Some(session));
        for uid in self.sessions.remove(&session).unwrap_or_default() {
            // Another sender may still have to do with it.
            if self.sessions.values().any(|touched| touched.contains(&uid)) {
                continue;
            }
            if let Some(study) = self.open.get_mut(&uid) {
                study.broken_off = false;
                self.start_check(&uid);
            } else {
                self.try_again(&uid).await;
            }
        }
    }

    /// A study that was given up and is sent again gets one more try: Tez may be a newer one by
    /// now, or have more memory.
    async fn try_again(&mut self, uid: &Uid) {
        let state = self.parts.state.clone();
        let row = self.insist(|| state.studies().row(Scope::All, uid)).await;
        if let Some(row) = row.filter(|row| row.interruptions >= INTERRUPTIONS_MAX) {
            let study = Study::parked(row, Phase::Queued);
            self.turn.told.push(What::StudyQueued {
                study: study.reference(),
            });
            self.open.insert(uid.clone(), study);
            self.enqueue(uid);
        }
    }

    /// A sender broke off: more may come, or not.
    pub(super) fn break_session(&mut self, session: u64) {
        self.homes.retain(|(of, _), _| *of != Some(session));
        let moment = self.moment("");
        for uid in self.sessions.remove(&session).unwrap_or_default() {
            if let Some(study) = self.open.get_mut(&uid) {
                study.broken_off = true;
            }
            self.happen(&uid, StudyEvent::SenderBroken, moment);
        }
    }

    /// Asks on a blocking thread whether the study is whole.
    fn start_check(&mut self, uid: &Uid) {
        let Some(study) = self.open.get(uid) else {
            return;
        };
        let (Some(objects), true) = (&study.objects, study.alarm.is_some()) else {
            return;
        };
        let (uid, revision) = (uid.clone(), study.revision);
        let (headers, limits) = (objects.headers.clone(), Arc::clone(&self.limits));
        self.checks.spawn_blocking(move || CompletenessAnswer {
            // What could not be read may yet come again, and whole.
            answer: match headers.received().missing_reason() {
                Some(reason) => Completeness::NotProven(vec![reason]),
                None => study_completeness(&headers.instances, &limits),
            },
            uid,
            revision,
        });
    }

    pub(super) fn take_check(&mut self, check: &CompletenessAnswer) {
        let Some(study) = self.open.get(&check.uid) else {
            return;
        };
        if study.revision != check.revision {
            return;
        }
        let whole = match &check.answer {
            Completeness::Whole => true,
            Completeness::NotProven(reasons) => {
                let why = reasons.first().map(|reason| reason.text.as_str());
                tracing::info!(
                    study = study.row.internal_id,
                    why,
                    "not shown to be whole: waits"
                );
                false
            }
        };
        let moment = self.moment("");
        self.happen(&check.uid, StudyEvent::SenderFinished { whole }, moment);
    }

    /// Nothing more is waited for.
    pub(super) fn complete(&mut self, uid: &Uid, proven: bool) {
        self.clear_alarm(uid);
        let now = self.now();
        let Some(study) = self.open.get_mut(uid) else {
            return;
        };
        study.row.times.complete = Some(now);
        tracing::info!(study = study.row.internal_id, proven, "complete");
        let reference = study.reference();
        self.turn.told.extend([
            What::StudyComplete {
                study: reference.clone(),
                proven,
            },
            What::StudyQueued { study: reference },
        ]);
        self.enqueue(uid);
    }
}
