//! Files of one request → the intake. Bytes stream to disk; the syncs of several files run at the
//! same time, so that the disk takes them together.
//!
//! A file's header is read before it is committed: HTTP can answer for each file, so what cannot be
//! filed is refused at once instead of being kept unread.

use std::io::{BufReader, Read};
use std::sync::Arc;

use axum::body::Bytes;
use pipeline::header::read_instance;
use pipeline::limits::Limits;
use pipeline::reason::ReasonCode;
use pipeline::uid::Uid;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::body::BodyReader;
use super::fault::{Fault, NotFiled};
use super::multipart::Parts;
use super::problem::Problem;
use super::spool::{Spool, SpoolError};
use crate::archive::{ArchiveError, ArchiveLimits, Entry, visit_entries};
use crate::intake::{Claim, Incoming, Intake, Session};
use store::receipt::{Channel, Receipt};

/// Files of one request that are written and synced at the same time.
const FILES_AT_ONCE_MAX: usize = 8;
/// Pieces of one file that wait for the disk; hyper's are at most 400 KiB.
const PIECES_WAITING_MAX: usize = 4;
/// Bytes that tell a DICOM file (`DICM` at byte 128) from a zip.
const SNIFFED_BYTES: usize = 132;
/// Longest name that is shown, characters.
const NAME_CHARS_MAX: usize = 200;
/// Bytes of a zip's entry that are inflated at a time.
const COPY_BYTES: usize = 128 << 10;

/// An object that may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// What its file meta group says.
    pub claim: Claim,
    /// Its study.
    pub study_uid: Uid,
    /// New, doubled or in conflict.
    pub receipt: Receipt,
}

/// What became of one file.
pub type Outcome = Result<Filed, NotFiled>;

/// Where the bytes of a file come from.
#[derive(Debug)]
pub enum Pieces<'a> {
    /// A part of a multipart body.
    Part(&'a mut Parts),
    /// The whole body.
    Body(&'a mut BodyReader),
}

impl Pieces<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match self {
            Self::Part(parts) => parts.piece().await.map_err(Problem::from),
            Self::Body(body) => body.next().await.map_err(|error| Problem::from(&error)),
        }
    }

    /// The first bytes, enough to tell what the file is; fewer if it is shorter.
    async fn head(&mut self) -> Result<Bytes, Problem> {
        let mut head = match self.next().await? {
            Some(piece) if piece.len() >= SNIFFED_BYTES => return Ok(piece),
            Some(piece) => piece.to_vec(),
            None => return Ok(Bytes::new()),
        };
        while head.len() < SNIFFED_BYTES {
            match self.next().await? {
                Some(piece) => head.extend_from_slice(&piece),
                None => break,
            }
        }
        Ok(head.into())
    }
}

/// What all files of a request are held to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Limits of the header scan.
    pub header: Arc<Limits>,
    /// Limits of zips.
    pub archive: ArchiveLimits,
    /// Most files of the request, those inside zips counted.
    pub files_max: usize,
    /// The one study that is taken; `None`: any.
    pub study: Option<Uid>,
}

/// The receiving of one request's files.
#[derive(Debug)]
pub struct Reception {
    session: Arc<Session>,
    spool: Spool,
    rules: Rules,
    slots: Arc<Semaphore>,
    files: Vec<(String, Pending)>,
    /// For the log: who sends, how, and how much came.
    peer: (Channel, String),
    bytes: usize,
}

#[derive(Debug)]
enum Pending {
    Known(Outcome),
    Running(JoinHandle<Outcome>),
}

enum Piece {
    Bytes(Bytes),
    /// The file is whole. A channel that closes without it means that the request broke off.
    End,
}

impl Reception {
    /// Opens a session of the intake for a request from `peer`.
    ///
    /// # Errors
    ///
    /// 503 while the intake is busy or stopping.
    pub async fn open(
        intake: &Intake,
        spool: &Spool,
        peer: (Channel, String),
        rules: Rules,
    ) -> Result<Self, Problem> {
        let intake = intake.clone();
        let (channel, name) = peer.clone();
        let opened = tokio::task::spawn_blocking(move || intake.session(channel, name)).await;
        let session = opened
            .map_err(|panicked| Problem::internal(&panicked))?
            .map_err(|error| Problem::busy(format!("{error}.")))?;
        Ok(Self {
            session: Arc::new(session),
            spool: spool.clone(),
            rules,
            slots: Arc::new(Semaphore::new(FILES_AT_ONCE_MAX)),
            files: Vec::new(),
            peer,
            bytes: 0,
        })
    }

    /// Takes one file, DICOM or a zip of DICOM files, whatever it is called.
    ///
    /// # Errors
    ///
    /// When the request breaks off, or holds too many files. What is wrong with the file itself is
    /// not an error here but its outcome.
    pub async fn take(
        &mut self,
        name: Option<String>,
        mut pieces: Pieces<'_>,
        zips: bool,
    ) -> Result<(), Problem> {
        let head = pieces.head().await?;
        if head.is_empty() && name.as_deref().unwrap_or_default().is_empty() {
            return Ok(()); // A form's file field that was left empty.
        }
        self.check_file_count()?;
        let name = name.filter(|name| !name.is_empty());
        let name = name.map_or_else(
            || format!("file {}", self.files.len() + 1),
            |name| shown(&name),
        );
        if zips && is_zip(&head) {
            self.take_zip(name, head, pieces).await
        } else {
            self.take_object(name, head, pieces).await
        }
    }

    /// Waits until all files are on disk and synced, or are not. Where `ended` well, the sender has
    /// sent all that it meant to; the session counts as broken off otherwise.
    pub async fn close(self, ended: &Result<(), Problem>) -> Vec<(String, Outcome)> {
        let complete = ended.is_ok();
        let mut outcomes = Vec::with_capacity(self.files.len());
        for (name, pending) in self.files {
            outcomes.push((name, pending.outcome().await));
        }
        let lost = outcomes.iter().any(|(_, outcome)| is_lost(outcome));
        let how = match ended {
            Ok(()) => "complete",
            Err(problem) => problem.detail(),
        };
        log_end(&self.peer, self.bytes, &outcomes, how);
        // All jobs are over, so this is the last holder.
        if let Some(session) = Arc::into_inner(self.session)
            && complete
            && !lost
        {
            session.finish();
        }
        outcomes
    }

    fn check_file_count(&self) -> Result<(), Problem> {
        if self.files.len() < self.rules.files_max {
            return Ok(());
        }
        let files_max = self.rules.files_max;
        Err(Problem::too_large(format!(
            "A request may hold {files_max} files; send the others in another one."
        )))
    }

    async fn take_object(
        &mut self,
        name: String,
        head: Bytes,
        mut pieces: Pieces<'_>,
    ) -> Result<(), Problem> {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let (incoming, rules) = (self.session.begin_part10(), self.rules.clone());
        let job = tokio::task::spawn_blocking(move || {
            let _held = slot;
            store_pieces(incoming, receiver, &rules)
        });
        self.files.push((name, Pending::Running(job)));
        let mut next = Some(head);
        while let Some(piece) = next {
            self.bytes = self.bytes.saturating_add(piece.len());
            // A closed channel means that the file was refused: the rest of it is passed over.
            drop(sender.send(Piece::Bytes(piece)).await);
            next = pieces.next().await?;
        }
        drop(sender.send(Piece::End).await);
        Ok(())
    }

    async fn take_zip(
        &mut self,
        name: String,
        head: Bytes,
        mut pieces: Pieces<'_>,
    ) -> Result<(), Problem> {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        let spool = self.spool.clone();
        let spooling = tokio::task::spawn_blocking(move || spool_pieces(&spool, receiver));
        let mut next = Some(head);
        while let Some(piece) = next {
            self.bytes = self.bytes.saturating_add(piece.len());
            drop(sender.send(piece).await);
            next = pieces.next().await?;
        }
        drop(sender);
        let file = match spooling
            .await
            .map_err(|panicked| Problem::internal(&panicked))?
        {
            Ok(file) => file,
            Err(error) => {
                self.files.push((name, Pending::Known(Err(error.into()))));
                return Ok(());
            }
        };
        let mut unpacker = Unpacker {
            name,
            session: Arc::clone(&self.session),
            rules: self.rules.clone(),
            slots: Arc::clone(&self.slots),
            files: std::mem::take(&mut self.files),
        };
        let unpacking = tokio::task::spawn_blocking(move || {
            unpacker.unpack(file);
            unpacker.files
        });
        self.files = unpacking
            .await
            .map_err(|panicked| Problem::internal(&panicked))?;
        Ok(())
    }
}

impl Pending {
    async fn outcome(self) -> Outcome {
        match self {
            Self::Known(outcome) => outcome,
            Self::Running(job) => job.await.unwrap_or_else(|panicked| {
                tracing::error!(%panicked, "storing a file failed");
                Err(NotFiled::inside())
            }),
        }
    }
}

/// One line for each request: names of files may hold those of patients, and stay out of it.
fn log_end(peer: &(Channel, String), bytes: usize, outcomes: &[(String, Outcome)], how: &str) {
    let count = |wanted: Receipt| {
        let of = |outcome: &Outcome| outcome.as_ref().is_ok_and(|filed| filed.receipt == wanted);
        outcomes.iter().filter(|(_, outcome)| of(outcome)).count()
    };
    let refused: Vec<&NotFiled> = outcomes
        .iter()
        .filter_map(|(_, outcome)| outcome.as_ref().err())
        .collect();
    tracing::info!(
        channel = peer.0.as_str(),
        peer = peer.1,
        files = outcomes.len(),
        stored = count(Receipt::New) + count(Receipt::Mended),
        duplicates = count(Receipt::Duplicate),
        conflicts = count(Receipt::Conflict),
        refused = refused.len(),
        bytes,
        how,
        "upload ended"
    );
    for error in refused {
        let claim = error.claim.as_ref();
        let sop_instance_uid = claim.map(|claim| claim.sop_instance_uid.as_str());
        tracing::warn!(
            channel = peer.0.as_str(),
            peer = peer.1,
            sop_instance_uid,
            reason = error.reason.text,
            "refused an object"
        );
    }
}

/// Whether objects may be missing that the sender has, and would send again.
fn is_lost(outcome: &Outcome) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.fault.may_lose_objects())
}

fn is_zip(head: &[u8]) -> bool {
    // A Part 10 file's preamble may hold anything, even the head of another format.
    let is_dicom = head.get(128..132) == Some(b"DICM");
    // A local file, or the end of an empty archive (APPNOTE 4.3.7 and 4.3.16).
    !is_dicom && (head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06"))
}

/// A name from outside, fit for a screen. It is never a path.
fn shown(name: &str) -> String {
    let legible = |character: char| {
        if character.is_control() {
            '\u{fffd}'
        } else {
            character
        }
    };
    name.chars().map(legible).take(NAME_CHARS_MAX).collect()
}

fn spool_pieces(
    spool: &Spool,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<std::fs::File, SpoolError> {
    let mut file = spool.create()?;
    while let Some(piece) = pieces.blocking_recv() {
        file.write(&piece)?;
    }
    Ok(file.into_file())
}

fn store_pieces(
    mut incoming: Incoming,
    mut pieces: mpsc::Receiver<Piece>,
    rules: &Rules,
) -> Outcome {
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => write(&mut incoming, &bytes)?,
            Some(Piece::End) => return store(incoming, rules),
            None => {
                let text = "The connection broke before the file was complete. Send it again.";
                return Err(NotFiled::new(Fault::File, ReasonCode::Truncated, text));
            }
        }
    }
}

fn write(incoming: &mut Incoming, bytes: &[u8]) -> Result<(), NotFiled> {
    incoming.write(bytes).map_err(|error| NotFiled {
        claim: incoming.staged().map(|(claim, _)| claim.clone()),
        ..error.into()
    })
}

/// Reads the header of a whole file, then has it synced.
fn store(incoming: Incoming, rules: &Rules) -> Outcome {
    let Some((claim, path)) = incoming.staged() else {
        return Err(unstaged(incoming));
    };
    let claim = claim.clone();
    let fail = |error: NotFiled| NotFiled {
        claim: Some(claim.clone()),
        ..error
    };
    let instance = read_instance(path, &rules.header).map_err(|refusal| {
        incoming.refuse(&refusal.reason.text);
        fail(refusal.into())
    })?;
    if rules
        .study
        .as_ref()
        .is_some_and(|study| *study != instance.study_uid)
    {
        let text = format!(
            "It belongs to study {}, not to the one in the path.",
            instance.study_uid
        );
        return Err(fail(NotFiled::new(
            Fault::OtherStudy,
            ReasonCode::BadIdentifier,
            text,
        )));
    }
    let accepted = incoming.commit().map_err(|error| fail(error.into()))?;
    Ok(Filed {
        claim: accepted.claim,
        study_uid: instance.study_uid,
        receipt: accepted.receipt,
    })
}

/// A file that ended before its data set began; committing it says why.
fn unstaged(incoming: Incoming) -> NotFiled {
    match incoming.commit() {
        Err(error) => error.into(),
        Ok(_) => NotFiled::inside(),
    }
}

/// Takes the entries of one zip.
struct Unpacker {
    name: String,
    session: Arc<Session>,
    rules: Rules,
    slots: Arc<Semaphore>,
    files: Vec<(String, Pending)>,
}

impl Unpacker {
    fn unpack(&mut self, zip: std::fs::File) {
        let before = self.files.len();
        let (limits, entry_bytes_max) = (self.rules.archive, self.rules.header.object_bytes_max);
        let zip = BufReader::new(zip);
        let visited = visit_entries(zip, &limits, entry_bytes_max, |entry| self.entry(entry));
        match visited {
            Ok(()) if self.files.len() == before => {
                let text = "The zip holds no files.";
                let error = NotFiled::new(Fault::File, ReasonCode::NotDicom, text);
                self.files
                    .push((self.name.clone(), Pending::Known(Err(error))));
            }
            Ok(()) => {}
            Err(error) => self
                .files
                .push((self.name.clone(), Pending::Known(Err(error.0)))),
        }
    }

    fn entry(&mut self, entry: Entry<'_>) -> Result<(), Stop> {
        if self.files.len() >= self.rules.files_max {
            let text = format!(
                "An upload may hold {} files; send the others in another one.",
                self.rules.files_max
            );
            return Err(Stop(NotFiled::new(
                Fault::ArchiveTooLarge,
                ReasonCode::LimitExceeded,
                text,
            )));
        }
        let name = format!("{}: {}", self.name, entry.name);
        let pending = match entry.body {
            Err(refusal) => {
                let text = format!("Left out: {refusal}.");
                Pending::Known(Err(NotFiled::new(Fault::File, ReasonCode::NotDicom, text)))
            }
            Ok(body) => self.store_entry(body),
        };
        self.files.push((name, pending));
        Ok(())
    }

    /// Inflates here, syncs elsewhere: the disk takes the syncs of several entries together.
    fn store_entry(&self, body: &mut dyn Read) -> Pending {
        let mut incoming = self.session.begin_part10();
        if let Err(error) = inflate(body, &mut incoming) {
            return Pending::Known(Err(error));
        }
        let runtime = tokio::runtime::Handle::current();
        let slot = runtime.block_on(Arc::clone(&self.slots).acquire_owned());
        let rules = self.rules.clone();
        Pending::Running(runtime.spawn_blocking(move || {
            let _held = slot;
            store(incoming, &rules)
        }))
    }
}

/// Ends the reading of a zip.
struct Stop(NotFiled);

impl From<ArchiveError> for Stop {
    fn from(error: ArchiveError) -> Self {
        Self(error.into())
    }
}

fn inflate(body: &mut dyn Read, incoming: &mut Incoming) -> Result<(), NotFiled> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = body.read(&mut buffer).map_err(|error| {
            let text = format!("Its bytes in the zip are damaged: {error}. Make the zip again.");
            NotFiled::new(Fault::File, ReasonCode::Truncated, text)
        })?;
        if count == 0 {
            return Ok(());
        }
        write(incoming, &buffer[..count])?;
    }
}
