//! Workers as threads of the test, which speak over the same stream as processes do.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use models::analysis::StudyObjects;
use models::report::{ModelIdentity, ReportState};
use pipeline::decode::Decoding;
use pipeline::limits::Limits;
use pipeline::patient::shared_study;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::clock::Clock;
use crate::config::ModelConfig;
use crate::health::Health;
use crate::telemetry::LogConfig;

/// Makes the analysis of a worker that is a thread of the test.
pub(crate) type MakeAnalyse = Arc<dyn Fn() -> Box<dyn Analyse> + Send + Sync>;

/// Starts workers as threads.
pub(crate) fn launch_thread(make: MakeAnalyse) -> Launch {
    Arc::new(move || {
        let (stream, other) = UnixStream::pair()?;
        let make = Arc::clone(&make);
        thread::spawn(move || child::work(other, &|_settings| make()));
        Ok(Launched {
            stream,
            process: None,
        })
    })
}

pub(crate) fn options(count: usize, launch: Launch, folder: &std::path::Path) -> WorkersOptions {
    WorkersOptions {
        count,
        launch,
        settings: WorkerSettings {
            model: ModelConfig::default(),
            limits: Limits::default(),
            log: LogConfig::default(),
            decoded: DecodedFolder {
                path: folder.join("decoded"),
                bytes_max: 1 << 30,
            },
        },
        study_time_max: Duration::from_mins(1),
        health: Health::default(),
    }
}

struct Fake {
    studies: usize,
}

impl Analyse for Fake {
    fn analyse(&mut self, study: StudyObjects<'_>, _decoding: Decoding<'_>) -> Answer {
        let study_uid = study.study_uid;
        self.studies += 1;
        assert!(
            study_uid.as_str() != "6.6.6",
            "the study that breaks things"
        );
        let shared = shared_study(study_uid).text;
        let doubts = study.doubts.iter().filter(|doubt| doubt.text == shared);
        let text = format!(
            "number {} of this worker, shared {}",
            self.studies,
            doubts.count()
        );
        not_analysed(study_uid, vec![Reason::new(ReasonCode::NotCt, text)]).into()
    }

    fn model(&self) -> Result<ModelIdentity, Reason> {
        Err(Reason::new(ReasonCode::ModelUnavailable, "a test has none"))
    }
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
        objects: JobObjects::Paths(Vec::new(), Vec::new()),
    }
}

struct Scene {
    workers: Workers,
    ends: UnboundedReceiver<JobEnd>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn start(count: usize, launch: Launch, study_time_max: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sender, ends) = unbounded_channel();
        let options = WorkersOptions {
            study_time_max,
            ..options(count, launch, folder.path())
        };
        Self {
            workers: Workers::start(&options, &sender),
            ends,
            _folder: folder,
        }
    }

    async fn end(&mut self) -> JobEnd {
        let patience = Duration::from_secs(20);
        let end = tokio::time::timeout(patience, self.ends.recv()).await;
        end.expect("a job ends in time").unwrap()
    }

    async fn first_reason(&mut self, job: Job) -> String {
        self.workers.give(job);
        match self.end().await.how {
            JobResult::Done(report, _) => {
                assert_eq!(report.state, ReportState::NotAnalysed);
                report.reasons[0].text.clone()
            }
            JobResult::Lost(loss) => panic!("{loss:?}"),
        }
    }
}

fn fakes() -> Launch {
    launch_thread(Arc::new(|| Box::new(Fake { studies: 0 })))
}

#[tokio::test]
async fn a_panic_becomes_a_report_and_the_worker_goes_on() {
    let mut scene = Scene::start(1, fakes(), Duration::from_mins(1));
    let mut texts = Vec::new();
    for uid in ["1.1", "1.2", "6.6.6"] {
        texts.push(scene.first_reason(job(uid)).await);
    }
    assert_eq!(texts[1], "number 2 of this worker, shared 0");
    assert!(texts[2].contains("fault of Tez"), "{}", texts[2]);
    let shared = Job {
        shared_study_uid: Some(Uid::new("1.7").unwrap()),
        ..job("2.25.1")
    };
    let text = scene.first_reason(shared).await;
    assert_eq!(text, "number 4 of this worker, shared 1");
}

fn hear_two_orders(mut stream: UnixStream) {
    for _ in 0..2 {
        let _order: Option<protocol::Order> = protocol::read(&mut stream).unwrap();
    }
}

#[tokio::test]
async fn a_worker_that_dies_or_hangs_costs_its_study_and_the_next_one_is_analysed() {
    // The first hears and says nothing more; the second dies with its study; the third works.
    let starts = Arc::new(AtomicUsize::new(0));
    let kept = Arc::new(Mutex::new(Vec::new()));
    let good = fakes();
    let count = Arc::clone(&starts);
    let launch: Launch = Arc::new(move || {
        let (stream, other) = UnixStream::pair()?;
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => kept.lock().unwrap().push(other),
            1 => {
                thread::spawn(move || hear_two_orders(other));
            }
            _ => return good(),
        }
        Ok(Launched {
            stream,
            process: None,
        })
    });
    let mut scene = Scene::start(1, launch, Duration::from_millis(300));
    let mut losses = Vec::new();
    for _ in 0..2 {
        scene.workers.give(job("1.1"));
        match scene.end().await.how {
            JobResult::Lost(loss) => losses.push(loss),
            JobResult::Done(report, _) => panic!("{report:?}"),
        }
    }
    assert_eq!(losses[0], Loss::TimedOut(0));
    assert!(matches!(losses[1], Loss::Died(_)), "{losses:?}");
    let text = scene.first_reason(job("1.1")).await;
    assert!(text.starts_with("number 1"), "{text}");
    assert_eq!(starts.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_worker_that_cannot_be_started_ends_its_study_with_the_systems_words() {
    let launch: Launch = Arc::new(|| Err(std::io::Error::other("no such program")));
    let mut scene = Scene::start(1, launch, Duration::from_mins(1));
    scene.workers.give(job("1.1"));
    let JobResult::Lost(loss) = scene.end().await.how else {
        panic!("nothing analysed it");
    };
    let reason = loss.reason(2);
    assert_eq!(reason.code, ReasonCode::WorkerDied);
    for part in ["no such program", "2 times", "Read the study yourself"] {
        assert!(reason.text.contains(part), "{}", reason.text);
    }
}

#[test]
fn without_a_library_a_study_ends_as_not_analysed_with_the_reason() {
    let model = ModelConfig {
        library: Some("/no/such/libonnxruntime.so".into()),
        ..ModelConfig::default()
    };
    let mut inference = Inference::new(model, Clock::system());
    let answer = inference.analyse(
        StudyObjects {
            study_uid: &Uid::new("1.1").unwrap(),
            received: Headers::default().received(),
            doubts: &[],
        },
        Decoding::afresh(&Limits::default()),
    );
    assert_eq!(answer.report.state, ReportState::NotAnalysed);
    assert!(!answer.report.reasons.is_empty());
    let reason = inference.model().unwrap_err();
    assert_eq!(reason.code, ReasonCode::InferenceLibraryMissing);
    assert!(reason.text.contains("/no/such/libonnxruntime.so"));
}
