//! Queued studies → reports, on threads of their own, one study a thread at a time.
//!
//! Each worker has its own inference session, made when the worker starts. If that fails, it is
//! tried again with every study, so that a cured library or model needs no restart. Studies that
//! ended without a model meanwhile are analysed at the next start.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use models::analysis::{StudyObjects, Watch, analyse};
use models::findings::Outcome;
use models::report::StudyReport;
use models::runtime::Network;
use pipeline::assembly::{Completeness, study_completeness};
use pipeline::decode::Decoding;
use pipeline::header::read_object;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::patient::shared_study;
use pipeline::reason::{Reason, ReasonCode};
use pipeline::uid::Uid;
use pipeline::unread::{Received, UnreadObject};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::config::ModelConfig;
use crate::events::StudyRef;
use crate::health::Health;
use crate::inference::load_network;

/// Analyses one study after the other; blocking.
pub trait Analyse: Send {
    /// Analyses `study`.
    fn analyse(&mut self, study: StudyObjects<'_>) -> StudyReport;
}

/// Makes the [`Analyse`] of one worker.
pub type MakeAnalyse = Arc<dyn Fn() -> Box<dyn Analyse> + Send + Sync>;

/// The analysis that `tez serve` does: models by ONNX Runtime.
#[derive(Debug)]
pub struct Inference {
    model: ModelConfig,
    limits: Limits,
    clock: Clock,
    health: Health,
    network: Result<Network, Reason>,
}

impl Inference {
    /// Loads the model; where that fails, it is tried again with every study. `health` is told.
    pub fn new(model: ModelConfig, limits: Limits, clock: Clock, health: Health) -> Self {
        let mut inference = Self {
            network: load(&model),
            model,
            limits,
            clock,
            health,
        };
        inference.tell();
        inference
    }

    fn tell(&mut self) {
        let network = self.network.as_ref();
        self.health
            .set_inference(network.map(Network::identity).map_err(Reason::clone));
    }
}

fn load(model: &ModelConfig) -> Result<Network, Reason> {
    load_network(model).map_err(|error| {
        tracing::error!(%error, "no model: studies end as not analysed");
        error.reason()
    })
}

impl Analyse for Inference {
    fn analyse(&mut self, study: StudyObjects<'_>) -> StudyReport {
        if self.network.is_err() {
            self.network = load(&self.model);
            self.tell();
        }
        let elapsed_ms = || self.clock.monotonic().as_secs_f64() * 1_000.0;
        let watch = Watch {
            elapsed_ms: &elapsed_ms,
            entered: &|stage| tracing::debug!(stage = stage.as_str(), "analysis"),
        };
        let network = self.network.as_mut().map_err(|reason| &*reason);
        analyse(study, network, Decoding::afresh(&self.limits), watch).report
    }
}

/// The headers of a study's objects, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// Those that were read.
    pub instances: Arc<Vec<Instance>>,
    /// What is known of those that could not be.
    pub unread: Arc<Vec<UnreadObject>>,
}

impl Headers {
    /// All of them, for the analysis.
    pub fn received(&self) -> Received<'_> {
        Received {
            instances: &self.instances,
            unread: &self.unread,
        }
    }
}

/// The objects of a study that is to be analysed.
#[derive(Clone, Debug)]
pub enum Objects {
    /// Their headers.
    Read(Headers),
    /// Their files, in the order in which they came, and what was not taken: the headers of a long
    /// queue are not kept.
    Paths(Vec<PathBuf>, Vec<UnreadObject>),
}

/// One study for a worker.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which study, and which round of it.
    pub study: StudyRef,
    /// Its Study Instance UID, where other patients share it: that of the row was made for it.
    pub shared_study_uid: Option<Uid>,
    /// Its sender broke off.
    pub broken_off: bool,
    /// What it consists of.
    pub objects: Objects,
}

/// What a worker made of a [`Job`].
#[derive(Debug)]
pub struct Done {
    /// Which study, and which round of it.
    pub study: StudyRef,
    /// Its result.
    pub report: StudyReport,
}

/// How long dropping [`Workers`] waits for a study that is being analysed.
const LAST_STUDY_TIME_MAX: Duration = Duration::from_secs(20);

/// The worker threads. Dropping this ends them, each after the study that it has, and waits for
/// that: ONNX Runtime takes its library down when the process ends, and a thread that still loads
/// or runs a model then brings the process down with a segmentation fault.
#[derive(Debug)]
pub struct Workers {
    /// `None` once they are told to end.
    jobs: Option<Sender<Job>>,
    /// Nothing is ever sent: it is disconnected when the last thread has ended.
    all_ended: Mutex<Receiver<Infallible>>,
    count: usize,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        let all_ended = self
            .all_ended
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if all_ended.recv_timeout(LAST_STUDY_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("an analysis still runs; it is done again at the next start");
        }
    }
}

impl Workers {
    /// Starts `count` threads that send their results to `done`.
    ///
    /// # Errors
    ///
    /// If the system gives no thread.
    pub fn start(
        count: usize,
        make: &MakeAnalyse,
        limits: &Limits,
        done: &UnboundedSender<Done>,
    ) -> io::Result<Self> {
        let (jobs, waiting) = channel();
        let (alive, all_ended) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for number in 1..=count {
            let worker = Worker {
                waiting: Arc::clone(&waiting),
                make: Arc::clone(make),
                limits: limits.clone(),
                done: done.clone(),
                _alive: alive.clone(),
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker.run())?;
        }
        Ok(Self {
            jobs: Some(jobs),
            all_ended: Mutex::new(all_ended),
            count,
        })
    }

    /// How many studies can be analysed at the same time.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Gives `job` to the first worker that is free.
    pub fn give(&self, job: Job) {
        // The receiver is shared by threads that only end when this sender is dropped.
        let given = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        if !given {
            tracing::error!("all workers have ended; studies wait until Tez is started again");
        }
    }
}

struct Worker {
    waiting: Arc<Mutex<Receiver<Job>>>,
    make: MakeAnalyse,
    limits: Limits,
    done: UnboundedSender<Done>,
    /// Dropped with the thread's session: see [`Workers`].
    _alive: Sender<Infallible>,
}

impl Worker {
    fn run(self) {
        // Declared after `self`, so dropped before it: the session is gone when the thread counts
        // as ended.
        let mut analyse = catch_unwind(AssertUnwindSafe(|| (self.make)())).ok();
        while let Some(job) = self.next() {
            let report = self.report(&job, &mut analyse);
            let study = job.study;
            if self.done.send(Done { study, report }).is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.recv().ok()
    }

    /// The report of `job`; a panic becomes one too, and the next study gets a fresh session.
    fn report(&self, job: &Job, analyse: &mut Option<Box<dyn Analyse>>) -> StudyReport {
        let shared = job.shared_study_uid.as_ref();
        let uid = shared.unwrap_or(&job.study.study_uid);
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let headers = self.headers(&job.objects);
            let mut doubts: Vec<Reason> = shared.map(shared_study).into_iter().collect();
            if job.broken_off {
                doubts.extend(broken_off(&headers, &self.limits));
            }
            let study = StudyObjects {
                study_uid: uid,
                received: headers.received(),
                doubts: &doubts,
            };
            analyse.get_or_insert_with(|| (self.make)()).analyse(study)
        }));
        attempt.unwrap_or_else(|_| {
            *analyse = None;
            tracing::error!(study = job.study.internal_id, "the analysis panicked");
            let text = "The analysis failed by a fault of Tez; the log has more.";
            not_analysed(uid, vec![Reason::new(ReasonCode::InternalFault, text)])
        })
    }

    fn headers(&self, objects: &Objects) -> Headers {
        match objects {
            Objects::Read(headers) => headers.clone(),
            Objects::Paths(paths, refused) => read_headers(paths, refused.clone(), &self.limits),
        }
    }
}

/// The headers of `paths`, until they exceed the limit of a study, and what was `refused`.
pub fn read_headers(paths: &[PathBuf], refused: Vec<UnreadObject>, limits: &Limits) -> Headers {
    let (mut instances, mut unread) = (Vec::new(), refused);
    let mut counted = 0;
    for path in paths {
        match read_object(path, limits) {
            Ok(instance) if counted <= limits.study_instances_max => {
                counted += instance.counted();
                instances.push(instance);
            }
            Err(object) if unread.len() <= limits.study_instances_max => unread.push(*object),
            // More than the limit is seen to be more by the one above it.
            Ok(_) | Err(_) => {}
        }
    }
    Headers {
        instances: Arc::new(instances),
        unread: Arc::new(unread),
    }
}

/// The report of a study of which nothing was analysed.
pub fn not_analysed(study_uid: &Uid, reasons: Vec<Reason>) -> StudyReport {
    StudyReport::of_outcome(study_uid, Outcome::NotAnalysed { reasons })
}

/// What is doubtful about a study whose sender broke off: nothing, if it is whole all the same.
fn broken_off(headers: &Headers, limits: &Limits) -> Option<Reason> {
    match study_completeness(&headers.instances, limits) {
        Completeness::Whole => None,
        Completeness::NotProven(reasons) => {
            let why = reasons.first().map_or("", |reason| reason.text.as_str());
            let text = format!(
                "The sender broke off, and what it sent cannot be shown to be all. {why} Send the \
                 study again."
            );
            Some(Reason::new(ReasonCode::SenderBrokeOff, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use models::report::ReportState;

    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Fake {
        studies: usize,
    }

    impl Analyse for Fake {
        fn analyse(&mut self, study: StudyObjects<'_>) -> StudyReport {
            let study_uid = study.study_uid;
            self.studies += 1;
            assert!(
                study_uid.as_str() != "6.6.6",
                "the study that breaks things"
            );
            let text = format!("number {} of this session", self.studies);
            not_analysed(study_uid, vec![Reason::new(ReasonCode::NotCt, text)])
        }
    }

    fn start() -> (Workers, UnboundedReceiver<Done>) {
        let (sender, done) = unbounded_channel();
        let make: MakeAnalyse = Arc::new(|| Box::new(Fake { studies: 0 }));
        (
            Workers::start(1, &make, &Limits::default(), &sender).unwrap(),
            done,
        )
    }

    fn job(uid: &str) -> Job {
        Job {
            study: StudyRef {
                study_uid: Uid::new(uid).unwrap(),
                internal_id: 1,
                generation: 1,
            },
            shared_study_uid: None,
            broken_off: false,
            objects: Objects::Paths(Vec::new(), Vec::new()),
        }
    }

    #[tokio::test]
    async fn a_panic_becomes_a_report_and_the_next_study_gets_a_fresh_session() {
        let (workers, mut done) = start();
        let mut texts = Vec::new();
        for uid in ["1.1", "1.2", "6.6.6", "1.3"] {
            workers.give(job(uid));
            let report = done.recv().await.unwrap().report;
            assert_eq!(report.state, ReportState::NotAnalysed);
            texts.push(report.reasons[0].text.clone());
        }
        assert_eq!(texts[1], "number 2 of this session");
        assert!(texts[2].contains("fault of Tez"), "{}", texts[2]);
        assert_eq!(texts[3], "number 1 of this session");
    }

    #[test]
    fn without_a_library_a_study_ends_as_not_analysed_with_the_reason() {
        let model = ModelConfig {
            library: Some("/no/such/libonnxruntime.so".into()),
            ..ModelConfig::default()
        };
        let health = Health::default();
        let mut inference = Inference::new(model, Limits::default(), Clock::system(), health);
        let report = inference.analyse(StudyObjects {
            study_uid: &Uid::new("1.1").unwrap(),
            received: Headers::default().received(),
            doubts: &[],
        });
        assert_eq!(report.state, ReportState::NotAnalysed);
        assert!(!report.reasons.is_empty());
        let reason = inference.network.unwrap_err();
        assert_eq!(reason.code, ReasonCode::InferenceLibraryMissing);
        assert!(
            reason.text.contains("/no/such/libonnxruntime.so"),
            "{}",
            reason.text
        );
    }

    #[tokio::test]
    async fn workers_end_when_they_are_dropped() {
        let (workers, mut done) = start();
        workers.give(job("1.1"));
        drop(workers);
        assert!(done.recv().await.is_some());
        assert!(done.recv().await.is_none());
    }
}
