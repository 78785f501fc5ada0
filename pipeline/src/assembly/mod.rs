//! Instances → the state of a study, and whether its stack is provably whole.
//!
//! Others guess by a timer when a study is complete. Here the timer is the fallback: once the
//! sender says that it has finished, a stack without gaps that reaches from above the vertex to
//! the skull base is analysed at once ([`completeness()`]); what is not provably whole waits a quiet
//! time. Slices that come later re-open the study ([`step`]).

mod completeness;

use std::time::Duration;

pub use completeness::{Completeness, completeness, study_completeness};

/// Where a study stands between its first object and its result. Times are on the caller's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Objects come, or may still come.
    Settling {
        /// When the quiet time ends.
        until: Duration,
    },
    /// Waits for a worker.
    Queued,
    /// A worker has it.
    Analysing,
    /// A worker has it, and objects came after it began.
    AnalysingOutdated {
        /// When the quiet time of the late objects ends.
        until: Duration,
    },
    /// A worker has it, and the late objects are all there.
    AnalysingToBeRepeated,
    /// It has a result.
    Done,
}

/// What happens to a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StudyEvent {
    /// An object of the study was acknowledged.
    InstanceArrived,
    /// The last sender that has to do with the study says that there is no more.
    SenderFinished {
        /// Whether the stack is provably whole ([`study_completeness`]).
        whole: bool,
    },
    /// A sender broke off.
    SenderBroken,
    /// An alarm that was set for the end of a quiet time.
    QuietElapsed,
    /// A worker took the study.
    AnalysisStarted,
    /// A worker has a result.
    AnalysisEnded,
    /// The worker died or was ended, and the study is tried again.
    AnalysisLost,
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Set an alarm for the end of the quiet time.
    WakeAt(Duration),
    /// Take it back from the queue, or from the worker that was lost, and set an alarm.
    TakeBack(Duration),
    /// Give it to a worker when one is free.
    Queue,
    /// The same, once more: its worker was lost.
    QueueAgain,
    /// Make the result visible.
    Publish,
    /// Make the result visible as one that another will supersede.
    PublishOutdated,
    /// The same, and give the study to a worker again.
    PublishOutdatedAndQueue,
    /// Say that the result will be superseded, and set an alarm.
    Reopen(Duration),
}

/// What time it is, and how long a study that is not provably whole waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// On the caller's clock.
    pub now: Duration,
    /// Of this sender.
    pub quiet_time: Duration,
}

impl Phase {
    /// The state after a study's first object, and the alarm to set.
    pub fn received(moment: Moment) -> (Self, Action) {
        let until = moment.now + moment.quiet_time;
        (Self::Settling { until }, Action::WakeAt(until))
    }
}

/// The table of a study's life. Total: what cannot happen, or comes late, changes nothing.
#[expect(
    clippy::match_same_arms,
    reason = "the table is written state by state, as it is read"
)]
pub fn step(state: Phase, event: StudyEvent, moment: Moment) -> (Phase, Action) {
    use Phase as S;
    use StudyEvent as E;
    let later = moment.now + moment.quiet_time;
    match (state, event) {
        (S::Settling { .. }, E::InstanceArrived | E::SenderBroken) => {
            (S::Settling { until: later }, Action::WakeAt(later))
        }
        (S::Settling { .. }, E::SenderFinished { whole: true }) => (S::Queued, Action::Queue),
        (S::Settling { until }, E::QuietElapsed) if until <= moment.now => {
            (S::Queued, Action::Queue)
        }
        (
            S::Settling { .. },
            E::SenderFinished { whole: false }
            | E::QuietElapsed
            | E::AnalysisStarted
            | E::AnalysisEnded
            | E::AnalysisLost,
        ) => (state, Action::Nothing),

        (S::Queued, E::InstanceArrived) => (S::Settling { until: later }, Action::TakeBack(later)),
        (S::Queued, E::AnalysisStarted) => (S::Analysing, Action::Nothing),
        (S::Done, E::InstanceArrived) => (S::Settling { until: later }, Action::Reopen(later)),
        (
            S::Queued | S::Done,
            E::SenderFinished { .. }
            | E::SenderBroken
            | E::QuietElapsed
            | E::AnalysisEnded
            | E::AnalysisLost,
        )
        | (S::Done, E::AnalysisStarted) => (state, Action::Nothing),

        (S::Analysing | S::AnalysingToBeRepeated, E::InstanceArrived) => {
            (S::AnalysingOutdated { until: later }, Action::WakeAt(later))
        }
        (S::Analysing, E::AnalysisEnded) => (S::Done, Action::Publish),
        (S::AnalysingToBeRepeated, E::AnalysisEnded) => {
            (S::Queued, Action::PublishOutdatedAndQueue)
        }
        (S::Analysing | S::AnalysingToBeRepeated, E::AnalysisLost) => {
            (S::Queued, Action::QueueAgain)
        }
        (
            S::Analysing | S::AnalysingToBeRepeated,
            E::SenderFinished { .. } | E::SenderBroken | E::QuietElapsed | E::AnalysisStarted,
        ) => (state, Action::Nothing),

        (S::AnalysingOutdated { .. }, E::InstanceArrived | E::SenderBroken) => {
            (S::AnalysingOutdated { until: later }, Action::WakeAt(later))
        }
        (S::AnalysingOutdated { .. }, E::SenderFinished { whole: true }) => {
            (S::AnalysingToBeRepeated, Action::Nothing)
        }
        (S::AnalysingOutdated { until }, E::QuietElapsed) if until <= moment.now => {
            (S::AnalysingToBeRepeated, Action::Nothing)
        }
        (S::AnalysingOutdated { until }, E::AnalysisEnded) => {
            (S::Settling { until }, Action::PublishOutdated)
        }
        (S::AnalysingOutdated { until }, E::AnalysisLost) => {
            (S::Settling { until }, Action::TakeBack(until))
        }
        (
            S::AnalysingOutdated { .. },
            E::SenderFinished { whole: false } | E::QuietElapsed | E::AnalysisStarted,
        ) => (state, Action::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const QUIET: Duration = Duration::from_secs(5);
    const LATER: Duration = Duration::from_secs(105);
    const MOMENT: Moment = Moment {
        now: NOW,
        quiet_time: QUIET,
    };
    /// An end of a quiet time that has passed, and one that has not.
    const PAST: Duration = Duration::from_secs(99);
    const AHEAD: Duration = Duration::from_secs(103);

    const EVENTS: [StudyEvent; 8] = [
        StudyEvent::InstanceArrived,
        StudyEvent::SenderFinished { whole: true },
        StudyEvent::SenderFinished { whole: false },
        StudyEvent::SenderBroken,
        StudyEvent::QuietElapsed,
        StudyEvent::AnalysisStarted,
        StudyEvent::AnalysisEnded,
        StudyEvent::AnalysisLost,
    ];

    #[test]
    #[expect(
        clippy::too_many_lines,
        reason = "the table is the test: eight states by eight events"
    )]
    fn every_pair_of_state_and_event_does_what_the_table_says() {
        use Action as A;
        use Phase as S;
        let settling = |until| S::Settling { until };
        let outdated = |until| S::AnalysingOutdated { until };
        let table: [(S, [(S, A); 8]); 8] = [
            (
                settling(PAST),
                [
                    (settling(LATER), A::WakeAt(LATER)),
                    (S::Queued, A::Queue),
                    (settling(PAST), A::Nothing),
                    (settling(LATER), A::WakeAt(LATER)),
                    (S::Queued, A::Queue),
                    (settling(PAST), A::Nothing),
                    (settling(PAST), A::Nothing),
                    (settling(PAST), A::Nothing),
                ],
            ),
            (
                settling(AHEAD),
                [
                    (settling(LATER), A::WakeAt(LATER)),
                    (S::Queued, A::Queue),
                    (settling(AHEAD), A::Nothing),
                    (settling(LATER), A::WakeAt(LATER)),
                    (settling(AHEAD), A::Nothing),
                    (settling(AHEAD), A::Nothing),
                    (settling(AHEAD), A::Nothing),
                    (settling(AHEAD), A::Nothing),
                ],
            ),
            (
                S::Queued,
                [
                    (settling(LATER), A::TakeBack(LATER)),
                    (S::Queued, A::Nothing),
                    (S::Queued, A::Nothing),
                    (S::Queued, A::Nothing),
                    (S::Queued, A::Nothing),
                    (S::Analysing, A::Nothing),
                    (S::Queued, A::Nothing),
                    (S::Queued, A::Nothing),
                ],
            ),
            (
                S::Analysing,
                [
                    (outdated(LATER), A::WakeAt(LATER)),
                    (S::Analysing, A::Nothing),
                    (S::Analysing, A::Nothing),
                    (S::Analysing, A::Nothing),
                    (S::Analysing, A::Nothing),
                    (S::Analysing, A::Nothing),
                    (S::Done, A::Publish),
                    (S::Queued, A::QueueAgain),
                ],
            ),
            (
                outdated(PAST),
                [
                    (outdated(LATER), A::WakeAt(LATER)),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (outdated(PAST), A::Nothing),
                    (outdated(LATER), A::WakeAt(LATER)),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (outdated(PAST), A::Nothing),
                    (settling(PAST), A::PublishOutdated),
                    (settling(PAST), A::TakeBack(PAST)),
                ],
            ),
            (
                outdated(AHEAD),
                [
                    (outdated(LATER), A::WakeAt(LATER)),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (outdated(AHEAD), A::Nothing),
                    (outdated(LATER), A::WakeAt(LATER)),
                    (outdated(AHEAD), A::Nothing),
                    (outdated(AHEAD), A::Nothing),
                    (settling(AHEAD), A::PublishOutdated),
                    (settling(AHEAD), A::TakeBack(AHEAD)),
                ],
            ),
            (
                S::AnalysingToBeRepeated,
                [
                    (outdated(LATER), A::WakeAt(LATER)),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (S::AnalysingToBeRepeated, A::Nothing),
                    (S::Queued, A::PublishOutdatedAndQueue),
                    (S::Queued, A::QueueAgain),
                ],
            ),
            (
                S::Done,
                [
                    (settling(LATER), A::Reopen(LATER)),
                    (S::Done, A::Nothing),
                    (S::Done, A::Nothing),
                    (S::Done, A::Nothing),
                    (S::Done, A::Nothing),
                    (S::Done, A::Nothing),
                    (S::Done, A::Nothing),
                    (S::Done, A::Nothing),
                ],
            ),
        ];
        for (state, row) in table {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                assert_eq!(
                    step(state, event, MOMENT),
                    expected,
                    "{state:?} × {event:?}"
                );
            }
        }
    }

    proptest! {
        /// Whatever happened before: once objects stop coming, alarms ring and workers work, the
        /// study ends with a result that all its objects are in.
        #[test]
        fn a_study_always_ends_with_a_result_of_all_its_objects(
            events in proptest::collection::vec(proptest::sample::select(EVENTS.to_vec()), 0..40),
        ) {
            let mut moment = MOMENT;
            let (mut state, _) = Phase::received(moment);
            for event in events {
                state = step(state, event, moment).0;
                moment.now += Duration::from_secs(1);
            }
            for _ in 0..2 {
                for event in [
                    StudyEvent::QuietElapsed,
                    StudyEvent::AnalysisStarted,
                    StudyEvent::AnalysisEnded,
                ] {
                    moment.now += QUIET;
                    state = step(state, event, moment).0;
                }
            }
            prop_assert_eq!(state, Phase::Done);
        }
    }
}
