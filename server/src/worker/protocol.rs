//! What the service and its workers say to one another, over one stream for each worker.
//!
//! A message is the length of its JSON (u32, little endian), the length of the bytes behind it
//! (u32), the JSON, and these bytes. Nothing in it belongs to one machine but the paths of the
//! objects, which come from the store.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use models::report::{ModelIdentity, StudyReport};
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::reason::Reason;
use pipeline::uid::Uid;
use pipeline::unread::UnreadObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Headers;
use crate::config::ModelConfig;
use crate::events::StudyRef;
use crate::telemetry::LogConfig;

/// Longest part of a message, bytes: a study of 10,000 slices has headers of some 30 MiB.
const PART_BYTES_MAX: u32 = 1 << 30;

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// First of all: how it works.
    Begin(Box<WorkerSettings>),
    /// An object came whose study is not whole yet: decode it meanwhile.
    Prepare(Box<PlacedHeader>),
    /// Analyse a study. The next comes only after its answer.
    Analyse(Task),
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It goes on; said every second.
    Alive,
    /// It is ready for a study, with this model or for this reason without one.
    Ready(Result<ModelIdentity, Reason>),
    /// It is done with its study. The bytes behind are those of the artefacts, if there are any.
    Done(Box<StudyReport>),
}

/// How a worker works.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerSettings {
    /// Which model runs.
    pub model: ModelConfig,
    /// What the pipeline refuses to exceed.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Where decoded slices are kept.
    pub decoded: DecodedFolder,
}

/// Where decoded slices are kept, and how many.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecodedFolder {
    /// The folder.
    pub path: PathBuf,
    /// Most bytes in it; 0: nothing is kept.
    pub bytes_max: u64,
}

/// The header of an object, and where the object lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PlacedHeader {
    /// Its file.
    pub path: PathBuf,
    /// Its header.
    pub header: Instance,
}

impl PlacedHeader {
    /// The header, which knows its place again.
    pub(super) fn into_instance(self) -> Instance {
        Instance {
            path: self.path,
            ..self.header
        }
    }
}

impl From<&Instance> for PlacedHeader {
    fn from(instance: &Instance) -> Self {
        Self {
            path: instance.path.clone(),
            header: instance.clone(),
        }
    }
}

/// A study to be analysed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// Which study, and which round of it.
    pub study: StudyRef,
    /// Its Study Instance UID, where other patients share it: that of the row was made for it.
    pub shared_study_uid: Option<Uid>,
    /// Its sender broke off.
    pub broken_off: bool,
    /// The objects that were read, in the order in which they came.
    pub objects: Vec<PlacedHeader>,
    /// What is known of those that could not be.
    pub unread: Vec<UnreadObject>,
}

impl Task {
    pub(super) fn into_headers(self) -> Headers {
        let instances = self.objects.into_iter().map(PlacedHeader::into_instance);
        Headers {
            instances: Arc::new(instances.collect()),
            unread: Arc::new(self.unread),
        }
    }
}

/// A message with the bytes behind it, as it goes over the stream.
pub(super) fn encode(message: &impl Serialize, behind: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    let length = |part: &[u8]| {
        let length = u32::try_from(part.len()).ok();
        let length = length.filter(|length| *length <= PART_BYTES_MAX);
        length.ok_or_else(|| io::Error::other("a message of more than 1 GiB"))
    };
    let mut bytes = Vec::with_capacity(8 + json.len() + behind.len());
    bytes.extend(length(&json)?.to_le_bytes());
    bytes.extend(length(behind)?.to_le_bytes());
    bytes.extend(json);
    bytes.extend(behind);
    Ok(bytes)
}

/// Lengths of the JSON and of the bytes behind it.
fn lengths(head: [u8; 8]) -> io::Result<[usize; 2]> {
    let both = u64::from_le_bytes(head);
    let lengths = [both & u64::from(u32::MAX), both >> u32::BITS];
    if lengths
        .iter()
        .any(|length| *length > u64::from(PART_BYTES_MAX))
    {
        return Err(io::Error::other("a message of more than 1 GiB"));
    }
    Ok(lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX)))
}

fn decode<T: DeserializeOwned>(json: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(json)?)
}

/// The next message; `None` at the end of the stream.
pub(super) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 8];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [json_bytes, behind_bytes] = lengths(head)?;
    let mut json = vec![0; json_bytes];
    stream.read_exact(&mut json)?;
    let mut behind = vec![0; behind_bytes];
    stream.read_exact(&mut behind)?;
    decode(&json).map(Some)
}

/// Writes a message.
pub(super) fn write(stream: &mut impl Write, message: &Word, behind: &[u8]) -> io::Result<()> {
    stream.write_all(&encode(message, behind)?)
}

/// The next message and the bytes behind it.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Word, Vec<u8>)> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    let [json_bytes, behind_bytes] = lengths(head)?;
    let mut json = vec![0; json_bytes];
    stream.read_exact(&mut json).await?;
    let mut behind = vec![0; behind_bytes];
    stream.read_exact(&mut behind).await?;
    Ok((decode(&json)?, behind))
}
