//! The service's side: workers are started, given studies, watched, ended and started again.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use metrics::counter;
use pipeline::instance::Instance;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::protocol::{Order, PlacedHeader, Task, Word, WorkerSettings, encode, receive};
use super::{Job, JobEnd, JobObjects, JobResult, Loss, read_headers};
use crate::events::StudyRef;
use crate::health::Health;

/// A worker says every second that it goes on. Silent for so long, it is ended.
const SILENCE_TIME_MAX: Duration = Duration::from_secs(20);
/// A worker that lived for longer is started again at once, else after a pause, which doubles.
const SHORT_LIFE_TIME: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest wait for the end of a process that was killed.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// A worker that was started.
#[derive(Debug)]
pub struct Launched {
    /// The service's end of the stream.
    pub stream: Socket,
    /// Its process; `None` if it is a thread of a test.
    pub process: Option<Child>,
}

/// Starts a worker.
pub type Launch = Arc<dyn Fn() -> io::Result<Launched> + Send + Sync>;

/// Starts `tez worker`: this program once more, as a process that ends with the service.
///
/// # Errors
///
/// When the system gives no process.
pub fn launch_process() -> io::Result<Launched> {
    let (stream, other) = Socket::pair()?;
    // The program that runs, also when another one has taken its place on the disk.
    let process = Command::new("/proc/self/exe")
        .arg0("tez")
        .arg("worker")
        .stdin(Stdio::from(OwnedFd::from(other)))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(Launched {
        stream,
        process: Some(process),
    })
}

/// How workers are kept.
#[derive(Clone)]
pub struct WorkersOptions {
    /// How many.
    pub count: usize,
    /// How each is started.
    pub launch: Launch,
    /// How each works.
    pub settings: WorkerSettings,
    /// Longest time for one study.
    pub study_time_max: Duration,
    /// Is told which model runs.
    pub health: Health,
}

impl std::fmt::Debug for WorkersOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WorkersOptions")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// The workers. Dropped, they end at once: their studies are analysed at the next start.
#[derive(Debug)]
pub struct Workers {
    places: Vec<Place>,
    /// Objects given to be decoded, to each worker in turn.
    prepared: AtomicUsize,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Place {
    orders: UnboundedSender<PlaceOrder>,
    busy: Arc<AtomicBool>,
}

/// What a place is told.
enum PlaceOrder {
    Analyse(Box<Job>),
    Prepare(Box<Instance>),
}

impl Workers {
    /// Starts workers that send what became of their studies to `ends`.
    pub fn start(options: &WorkersOptions, ends: &UnboundedSender<JobEnd>) -> Self {
        let mut tasks = JoinSet::new();
        let places = (1..=options.count).map(|number| {
            let (orders, given) = unbounded_channel();
            let busy = Arc::new(AtomicBool::new(false));
            let keeper = Keeper {
                number,
                options: options.clone(),
                orders: given,
                ends: ends.clone(),
                busy: Arc::clone(&busy),
                current: None,
            };
            tasks.spawn(keeper.run());
            Place { orders, busy }
        });
        Self {
            places: places.collect(),
            prepared: AtomicUsize::new(0),
            _tasks: tasks,
        }
    }

    /// How many studies can be analysed at the same time.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Gives `job` to a worker that is free.
    pub fn give(&self, job: Job) {
        let free = |place: &&Place| !place.busy.swap(true, Ordering::AcqRel);
        let given = self.places.iter().find(free).is_some_and(|place| {
            let order = PlaceOrder::Analyse(Box::new(job));
            place.orders.send(order).is_ok()
        });
        if !given {
            tracing::error!("no worker takes a study; it waits until Tez is started again");
        }
    }

    /// Has an object decoded whose study is not whole yet.
    pub fn prepare(&self, instance: &Instance) {
        let turn = self.prepared.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = self.places.get(turn % self.places.len().max(1)) {
            // A worker that has ended takes nothing: the analysis decodes it then.
            drop(
                place
                    .orders
                    .send(PlaceOrder::Prepare(Box::new(instance.clone()))),
            );
        }
    }
}

/// Keeps one worker alive.
struct Keeper {
    number: usize,
    options: WorkersOptions,
    orders: UnboundedReceiver<PlaceOrder>,
    ends: UnboundedSender<JobEnd>,
    busy: Arc<AtomicBool>,
    /// The study that the worker has, and when it must be done.
    current: Option<(StudyRef, Instant)>,
}

/// Why a worker's life ended.
enum LifeEnd {
    /// Nobody gives orders any more.
    NotNeeded,
    /// It was lost.
    Lost(Loss),
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let started = Instant::now();
            let lost = match (self.options.launch)() {
                Ok(launched) => match self.life(launched).await {
                    LifeEnd::NotNeeded => return,
                    LifeEnd::Lost(loss) => loss,
                },
                Err(error) => {
                    // Whoever waits for it is told, rather than left waiting.
                    let Some(order) = self.orders.recv().await else {
                        return;
                    };
                    self.take_without_worker(order);
                    Loss::Died(format!("it cannot be started: {error}"))
                }
            };
            counter!("tez_worker_losses_total").increment(1);
            let worker = self.number;
            tracing::error!(worker, ?lost, "a worker was lost and is started again");
            self.lose(lost);
            pause = if started.elapsed() > SHORT_LIFE_TIME {
                PAUSE
            } else {
                (pause * 2).min(PAUSE_MAX)
            };
            sleep(pause).await;
        }
    }

    fn take_without_worker(&mut self, order: PlaceOrder) {
        if let PlaceOrder::Analyse(job) = order {
            self.current = Some((job.study, Instant::now()));
        }
    }

    /// One worker from its start to its end.
    async fn life(&mut self, launched: Launched) -> LifeEnd {
        let Launched {
            stream,
            mut process,
        } = launched;
        let lived = match open(stream) {
            Ok(stream) => self.converse(stream).await,
            Err(error) => LifeEnd::Lost(Loss::Died(format!("its stream fails: {error}"))),
        };
        let killed = matches!(lived, LifeEnd::Lost(Loss::TimedOut(_) | Loss::Silent));
        let status = end(process.as_mut(), killed).await;
        match (lived, status) {
            (LifeEnd::Lost(Loss::Died(_)), Some(status)) => {
                LifeEnd::Lost(Loss::Died(status.to_string()))
            }
            (lived, _) => lived,
        }
    }

    async fn converse(&mut self, stream: UnixStream) -> LifeEnd {
        let (mut hearing, mut speaking) = stream.into_split();
        let (say, mut to_say) = unbounded_channel::<Vec<u8>>();
        let (heard, mut words) = unbounded_channel();
        // Tasks of their own, for neither may be interrupted within a message; they end with this.
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(bytes) = to_say.recv().await {
                if speaking.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        tasks.spawn(async move {
            while let Ok(word) = receive(&mut hearing).await {
                if heard.send(word).is_err() {
                    return;
                }
            }
        });
        let settings = Box::new(self.options.settings.clone());
        if let Err(error) = say_order(&say, &Order::Begin(settings)) {
            return LifeEnd::Lost(Loss::Died(error.to_string()));
        }
        let mut silent_at = Instant::now() + SILENCE_TIME_MAX;
        loop {
            let due = self.current.as_ref().map(|(_, due)| *due);
            let wake = due.map_or(silent_at, |due| due.min(silent_at));
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(order) = order else { return LifeEnd::NotNeeded };
                    if let Err(error) = self.hand_on(order, &say).await {
                        return LifeEnd::Lost(Loss::Died(error.to_string()));
                    }
                }
                word = words.recv() => {
                    silent_at = Instant::now() + SILENCE_TIME_MAX;
                    match word {
                        None => return LifeEnd::Lost(Loss::Died("its stream ended".to_owned())),
                        Some((word, behind)) => self.take_word(word, behind),
                    }
                }
                () = sleep_until(wake) => {
                    let seconds = self.options.study_time_max.as_secs();
                    return LifeEnd::Lost(match due {
                        Some(due) if due <= wake => Loss::TimedOut(seconds),
                        _ => Loss::Silent,
                    });
                }
            }
        }
    }

    async fn hand_on(
        &mut self,
        order: PlaceOrder,
        say: &UnboundedSender<Vec<u8>>,
    ) -> io::Result<()> {
        match order {
            PlaceOrder::Prepare(instance) => say_order(
                say,
                &Order::Prepare(Box::new(PlacedHeader::from(&*instance))),
            ),
            PlaceOrder::Analyse(job) => {
                let due = Instant::now() + self.options.study_time_max;
                self.current = Some((job.study.clone(), due));
                let limits = self.options.settings.limits.clone();
                // Thousands of headers are written, and perhaps read before.
                let encoded = spawn_blocking(move || {
                    let headers = match job.objects {
                        JobObjects::Read(headers) => headers,
                        JobObjects::Paths(paths, refused) => read_headers(&paths, refused, &limits),
                    };
                    let task = Task {
                        study: job.study,
                        shared_study_uid: job.shared_study_uid,
                        broken_off: job.broken_off,
                        objects: headers.instances.iter().map(PlacedHeader::from).collect(),
                        unread: headers.unread.to_vec(),
                    };
                    encode(&Order::Analyse(task), &[])
                });
                let bytes = encoded.await.map_err(io::Error::other)??;
                drop(say.send(bytes));
                Ok(())
            }
        }
    }

    fn take_word(&mut self, word: Word, behind: Vec<u8>) {
        match word {
            Word::Alive => {}
            Word::Ready(model) => self.options.health.set_inference(model),
            Word::Done(report) => {
                if let Some((study, _)) = self.current.take() {
                    self.tell(study, JobResult::Done(report, behind));
                }
            }
        }
    }

    fn lose(&mut self, loss: Loss) {
        if let Some((study, _)) = self.current.take() {
            self.tell(study, JobResult::Lost(loss));
        }
    }

    fn tell(&self, study: StudyRef, how: JobResult) {
        self.busy.store(false, Ordering::Release);
        // The studies' task is gone only when the service ends.
        drop(self.ends.send(JobEnd { study, how }));
    }
}

fn open(stream: Socket) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn say_order(say: &UnboundedSender<Vec<u8>>, order: &Order) -> io::Result<()> {
    drop(say.send(encode(order, &[])?));
    Ok(())
}

/// How the process ended; it is killed where it does not by itself.
async fn end(process: Option<&mut Child>, kill: bool) -> Option<ExitStatus> {
    let process = process?;
    if !kill && let Ok(Ok(status)) = timeout(END_TIME_MAX, process.wait()).await {
        return Some(status);
    }
    drop(process.start_kill());
    timeout(END_TIME_MAX, process.wait()).await.ok()?.ok()
}
