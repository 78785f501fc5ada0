//! `tez worker`: a process of its own that analyses what the service gives it, and may die.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use pipeline::decode::{Decoding, decode_object, decoded_bytes};
use pipeline::instance::Instance;
use pipeline::limits::Limits;

use super::analyse::{Analyse, Inference, answer};
use super::protocol::{Order, Task, Word, WorkerSettings, read, write};
use crate::clock::Clock;
use crate::telemetry;
use store::decoded::DecodedCache;

/// Between two signs of life.
const ALIVE_TIME: Duration = Duration::from_secs(1);
/// Objects that wait to be decoded; of more, the oldest are left to the analysis.
const PREPARED_MAX: usize = 4_096;

/// Works for the service at the other end of standard input, until that is closed.
///
/// # Errors
///
/// If standard input is no socket.
pub fn run() -> io::Result<()> {
    run_with(&|settings| Box::new(Inference::new(settings.model.clone(), Clock::system())))
}

/// [`run`] with an analysis of the caller's, for tests.
///
/// # Errors
///
/// As [`run`].
pub fn run_with(make: Make<'_>) -> io::Result<()> {
    // The system is to end this process before the service, should memory run out.
    drop(std::fs::write("/proc/self/oom_score_adj", "500"));
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    work(stream, &|settings| {
        drop(telemetry::start_logs(&settings.log));
        make(settings)
    })
}

/// Makes the analysis of a worker.
pub type Make<'a> = &'a dyn Fn(&WorkerSettings) -> Box<dyn Analyse>;

/// Works for the service at the other end of `stream`.
pub(super) fn work(mut stream: UnixStream, make: Make<'_>) -> io::Result<()> {
    let Some(Order::Begin(settings)) = read(&mut stream)? else {
        return Err(io::Error::other("the service does not say how to work"));
    };
    let mouth = Mouth(Arc::new(Mutex::new(stream.try_clone()?)));
    let signs = mouth.clone();
    thread::Builder::new()
        .name("alive".to_owned())
        .spawn(move || signs.say_alive())?;
    let desk = Arc::new(Desk {
        cache: DecodedCache::open(&settings.decoded.path, settings.decoded.bytes_max)?,
        limits: settings.limits.clone(),
        waiting: Mutex::default(),
        came: Condvar::new(),
    });
    for number in 1..=thread::available_parallelism().map_or(1, usize::from) {
        let desk = Arc::clone(&desk);
        thread::Builder::new()
            .name(format!("decoder-{number}"))
            .spawn(move || desk.decode())?;
    }
    let (given, tasks) = channel();
    let reader = Arc::clone(&desk);
    thread::Builder::new()
        .name("orders".to_owned())
        .spawn(move || take_orders(stream, &reader, &given))?;
    let mut analyse = make(&settings);
    mouth.say(&Word::Ready(analyse.model()), &[])?;
    analyse_all(&tasks, &mut *analyse, &desk, &mouth)
}

fn analyse_all(
    tasks: &Receiver<Task>,
    analyse: &mut dyn Analyse,
    desk: &Desk,
    mouth: &Mouth,
) -> io::Result<()> {
    while let Ok(task) = tasks.recv() {
        let decoding = Decoding {
            limits: &desk.limits,
            decoded: &desk.cache,
        };
        let answer = answer(task, analyse, decoding);
        let artefacts = answer.artefacts.map(|artefacts| artefacts.to_bytes());
        mouth.say(&Word::Ready(analyse.model()), &[])?;
        mouth.say(
            &Word::Done(Box::new(answer.report)),
            &artefacts.unwrap_or_default(),
        )?;
    }
    Ok(())
}

/// Hands on what the service says. At its end nothing is left to do, whatever still runs here: the
/// process goes without taking ONNX Runtime down, which would wait for a study or crash.
fn take_orders(mut stream: UnixStream, desk: &Desk, tasks: &Sender<Task>) {
    loop {
        match read(&mut stream) {
            Ok(Some(Order::Analyse(task))) => {
                desk.waiting().clear();
                drop(tasks.send(task));
            }
            Ok(Some(Order::Prepare(object))) => desk.put(object.into_instance()),
            Ok(Some(Order::Begin(_))) => {}
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the service's words are not understood");
                break;
            }
        }
    }
    if cfg!(not(test)) {
        let own = rustix::process::getpid();
        if let Err(error) = rustix::process::kill_process(own, rustix::process::Signal::KILL) {
            tracing::error!(%error, "cannot end itself");
        }
    }
}

/// Speaks to the service; many threads do.
#[derive(Clone)]
struct Mouth(Arc<Mutex<UnixStream>>);

impl Mouth {
    fn say(&self, word: &Word, behind: &[u8]) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write(&mut *stream, word, behind)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "time itself is what is waited for"
    )]
    fn say_alive(&self) {
        while self.say(&Word::Alive, &[]).is_ok() {
            thread::sleep(ALIVE_TIME);
        }
    }
}

/// Objects that wait to be decoded, and where they are kept then.
struct Desk {
    cache: DecodedCache,
    limits: Limits,
    waiting: Mutex<VecDeque<Instance>>,
    came: Condvar,
}

impl Desk {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Instance>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, instance: Instance) {
        if !self.cache.takes(decoded_bytes(&instance)) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.len() == PREPARED_MAX {
            waiting.pop_front();
        }
        waiting.push_back(instance);
        drop(waiting);
        self.came.notify_one();
    }

    fn take(&self) -> Instance {
        let mut waiting = self.waiting();
        loop {
            if let Some(instance) = waiting.pop_front() {
                return instance;
            }
            let woken = self.came.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Decodes what comes, for ever. A fault here costs time only: the analysis decodes again.
    fn decode(&self) {
        loop {
            let instance = self.take();
            let Some(content) = instance.content else {
                continue;
            };
            if self.cache.has(content) {
                continue;
            }
            let decode = || decode_object(&instance, &self.limits);
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)) {
                Ok(decoded) if decoded.is_whole() => self.cache.put(content, &decoded),
                Ok(_) => {}
                Err(_) => tracing::warn!("decoding ahead panicked; the analysis decodes again"),
            }
        }
    }
}
