//! The whole router behind a real listener, on a real store in a scratch folder.

mod connections;
mod reading;
mod stow;
mod uploads;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipeline::header::part10_head;
use pipeline::limits::Limits;
use pipeline::uid::Uid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::{AppState, HttpConfig, HttpServices, serve};
use crate::archive::ArchiveLimits;
use crate::clock::Clock;
use crate::events::Events;
use crate::health::Health;
use crate::intake::{Intake, IntakeEvent};
use crate::testing::open_state;
use store::objects::{ObjectStore, StoreLimits};
use store::state::State;

/// Basic Text SR: an object without pixels.
const CLASS: &str = "1.2.840.10008.5.1.4.1.1.88.11";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// A running router and what it leaves behind.
struct Rig {
    address: SocketAddr,
    folder: tempfile::TempDir,
    state: State,
    events: Events,
    health: Health,
    shutdown: watch::Sender<bool>,
    served: JoinHandle<()>,
    uploads: Arc<Semaphore>,
    upload_places: usize,
    told: Arc<Mutex<Vec<IntakeEvent>>>,
}

impl Rig {
    async fn start() -> Self {
        Self::with_config(HttpConfig::default()).await
    }

    /// On a disk that is full.
    async fn on_full_disk() -> Self {
        let limits = StoreLimits {
            free_bytes_reserve: u64::MAX,
            ..StoreLimits::default()
        };
        Self::with(HttpConfig::default(), limits, ArchiveLimits::default()).await
    }

    async fn with_config(config: HttpConfig) -> Self {
        let limits = StoreLimits {
            free_bytes_reserve: 0,
            ..StoreLimits::default()
        };
        Self::with(config, limits, ArchiveLimits::default()).await
    }

    async fn with(config: HttpConfig, limits: StoreLimits, zip: ArchiveLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path(), limits).unwrap();
        let (sender, mut receiver) = mpsc::channel(64);
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                log.lock().unwrap().push(event);
            }
        });
        let clock = Clock::system();
        let upload_places = config.uploads_at_once_max;
        let (shutdown, stopping) = watch::channel(false);
        let state = open_state(folder.path()).await;
        let (events, health) = (Events::new(clock.clone()), Health::default());
        let parts = HttpServices {
            intake: Intake::new(store, state.clone(), sender, Duration::from_secs(1)),
            state: state.clone(),
            events: events.clone(),
            clock,
            health: health.clone(),
            shutdown: stopping,
        };
        let app =
            AppState::new(parts, config, &Limits::default(), zip, (folder.path(), 0)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let uploads = Arc::clone(&app.uploads);
        let served = tokio::spawn(serve(listener, app));
        Self {
            address,
            folder,
            state,
            events,
            health,
            shutdown,
            served,
            uploads,
            upload_places,
            told,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }

    async fn post(&self, path: &str, media: &str, body: &[u8]) -> Answer {
        self.call("POST", path, &[("Content-Type", media)], body)
            .await
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let own = self.address.to_string();
        let length = body.len().to_string();
        let mut lines = vec![format!("{method} {path} HTTP/1.1")];
        let basic = [
            ("Connection", "close"),
            ("Content-Length", &length),
            ("Host", &own),
        ];
        let given = |name: &str| headers.iter().any(|(other, _)| *other == name);
        let basic = basic.into_iter().filter(|(name, _)| !given(name));
        let all = basic.chain(headers.iter().copied());
        lines.extend(all.map(|(name, value)| format!("{name}: {value}")));
        let request = lines.join("\r\n") + "\r\n";
        let whole = [request.as_bytes(), b"\r\n", body].concat();
        Answer::read(self.send(&whole).await).await
    }

    /// Opens a connection and begins a request of which `headers` are sent beside `Host`.
    async fn begin(&self, line: &str, headers: &str) -> TcpStream {
        let head = format!("{line} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        self.send(head.as_bytes()).await
    }

    /// Sends `bytes` as another host would.
    async fn send_from(&self, host: &str, bytes: &[u8]) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{host}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        drop(stream.write_all(bytes).await);
        stream
    }

    /// Opens a connection and sends `bytes` as they are.
    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The service may answer, and close, before it has read everything.
        drop(stream.write_all(bytes).await);
        stream
    }

    /// Files in the object store.
    fn stored(&self) -> Vec<Vec<u8>> {
        let folders = std::fs::read_dir(self.folder.path().join("objects")).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    }

    /// Ends of sessions so far: true for finished, false for broken.
    async fn ends(&self, count: usize) -> Vec<bool> {
        let ends = || -> Vec<bool> {
            let told = self.told.lock().unwrap();
            told.iter().filter_map(end_of).collect()
        };
        until("the session ends", || ends().len() >= count).await;
        ends()
    }

    /// Waits until an upload has taken its place.
    async fn takes_an_upload(&self) {
        let taken = || self.uploads.available_permits() < self.upload_places;
        until("an upload begins", taken).await;
    }

    /// Waits until the first bytes of an object are there.
    async fn begins_an_object(&self) {
        let incoming = self.folder.path().join("incoming");
        let begun = || std::fs::read_dir(&incoming).unwrap().count() > 0;
        until("an object begins", begun).await;
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not after ten seconds: {what}");
}

fn end_of(event: &IntakeEvent) -> Option<bool> {
    match event {
        IntakeEvent::SessionFinished { .. } => Some(true),
        IntakeEvent::SessionBroken { .. } => Some(false),
        IntakeEvent::Stored { .. } | IntakeEvent::Refused { .. } => None,
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    async fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes).await);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head[9..12].parse().unwrap();
        Self {
            status,
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a problem document of `status` and `code`, and returns its sentence.
    fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{self:?}"
        );
        let json = self.json();
        assert_eq!(
            (&json["status"], &json["code"]),
            (&status.into(), &code.into()),
            "{json}"
        );
        let detail = json["detail"].as_str().unwrap();
        assert!(detail.len() > 10, "{json}");
        detail.to_owned()
    }
}

fn uid(text: &str) -> Uid {
    Uid::new(text).unwrap()
}

/// A small Part 10 file without pixels.
fn dicom(instance: &str, study: &str) -> Vec<u8> {
    let mut file = part10_head(&uid(CLASS), &uid(instance), &uid(EXPLICIT));
    for (group, element, vr, text) in [
        (8_u16, 0x16_u16, b"UI", CLASS),
        (8, 0x18, b"UI", instance),
        (0x20, 0x0d, b"UI", study),
        (0x20, 0x0e, b"UI", "1.2.99"),
    ] {
        let padding = if text.len() % 2 == 0 { "" } else { "\0" };
        file.extend_from_slice(&group.to_le_bytes());
        file.extend_from_slice(&element.to_le_bytes());
        file.extend_from_slice(vr);
        file.extend_from_slice(
            &u16::try_from(text.len() + padding.len())
                .unwrap()
                .to_le_bytes(),
        );
        file.extend_from_slice(text.as_bytes());
        file.extend_from_slice(padding.as_bytes());
    }
    file
}

/// A multipart body with the boundary `edge`; names become file names.
fn multipart(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head = format!(
            "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    body
}

fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
