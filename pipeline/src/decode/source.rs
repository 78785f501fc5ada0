//! Where a frame's bytes lie: native in the file, in a deflated data set, or in fragments.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

use dicom_core::value::{PixelFragmentSequence, Value};
use dicom_dictionary_std::tags;
use dicom_encoding::transfer_syntax::{Codec, TransferSyntaxIndex};
use dicom_object::{FileMetaTable, InMemDicomObject, OpenFileOptions};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::FrameShape;
use super::codec::{Decoder, EncodedFrames};
use crate::instance::{Instance, PixelHeader};
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};

/// The pixel data of one object, ready to give its frames.
pub(super) enum PixelSource<'a> {
    /// Frames lie one after another in the file.
    Native {
        instance: &'a Instance,
        offset: u64,
        /// Samples are 16-bit words, high byte first.
        swapped: bool,
    },
    /// Frames lie one after another in memory, little endian.
    InMemory(Vec<u8>),
    /// Frames are compressed one by one.
    Encoded(EncodedFrames),
}

impl<'a> PixelSource<'a> {
    /// Opens the pixel data of `instance` and checks its length against the header.
    pub(super) fn open(
        instance: &'a Instance,
        shape: FrameShape,
        limits: &Limits,
    ) -> Result<Self, Reason> {
        let pixels = instance.pixels.as_ref();
        if let Some((offset, length)) = pixels.and_then(native_range) {
            check_native_length(length, shape)?;
            let swapped = is_swapped(instance, offset, shape)?;
            return Ok(Self::Native {
                instance,
                offset,
                swapped,
            });
        }
        let uid = instance.transfer_syntax_uid.as_str();
        let syntax = TransferSyntaxRegistry
            .get(uid)
            .ok_or_else(|| unsupported(uid))?;
        let mut object = match syntax.codec() {
            Codec::Dataset(Some(_)) => inflate(instance, shape, limits)?,
            Codec::Dataset(None) => return Err(unsupported(uid)),
            Codec::None | Codec::EncapsulatedPixelData(..) => read_object(instance, limits)?,
        };
        let table = extended_offsets(&object);
        let element = object
            .take_element(tags::PIXEL_DATA)
            .map_err(|_| undecodable("it has no Pixel Data (7FE0,0010)"))?;
        match element.into_value() {
            Value::Primitive(value) => in_memory(value.to_bytes().into_owned(), shape),
            Value::PixelSequence(sequence) => {
                let decoder = Decoder::of(syntax).ok_or_else(|| unsupported(uid))?;
                encoded(sequence, table, shape)
                    .map(|frames| Self::Encoded(EncodedFrames::new(uid, decoder, frames)))
            }
            Value::Sequence(_) => Err(undecodable("its Pixel Data (7FE0,0010) is a sequence")),
        }
    }

    /// Puts the samples of frame `frame_index` into `stored`, little endian, exactly as many as
    /// the frame has.
    pub(super) fn read_frame(
        &self,
        frame_index: usize,
        shape: FrameShape,
        stored: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        if frame_index >= shape.frames {
            let text = format!("frame {} is asked of {}", frame_index + 1, shape.frames);
            return Err(Reason::new(ReasonCode::WrongPixelSize, text));
        }
        let start = frame_index * shape.frame_bytes();
        match self {
            Self::Native {
                instance,
                offset,
                swapped,
            } => {
                let begin = offset.saturating_add(as_u64(start));
                stored.resize(shape.frame_bytes(), 0);
                read_at(instance, begin, stored)?;
                if *swapped {
                    stored
                        .as_chunks_mut::<2>()
                        .0
                        .iter_mut()
                        .for_each(|word| word.reverse());
                }
                Ok(())
            }
            Self::InMemory(bytes) => {
                stored.clear();
                let frame = bytes.get(start..start + shape.frame_bytes());
                stored.extend_from_slice(frame.unwrap_or_default());
                check_frame_length(stored.len(), shape)
            }
            Self::Encoded(frames) => {
                frames.decode(frame_index, shape, stored)?;
                check_frame_length(stored.len(), shape)
            }
        }
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn undecodable(text: impl Into<String>) -> Reason {
    Reason::new(ReasonCode::UndecodablePixels, text)
}

fn unsupported(uid: &str) -> Reason {
    Reason::new(
        ReasonCode::UnsupportedTransferSyntax,
        format!("its transfer syntax {uid} cannot be decoded; send it uncompressed"),
    )
}

fn native_range(pixels: &PixelHeader) -> Option<(u64, u64)> {
    Some((pixels.native_offset?, pixels.native_length?))
}

/// Less than one row too much is padding; anything else means that the header and the pixels speak
/// of different pictures.
fn check_native_length(length: u64, shape: FrameShape) -> Result<(), Reason> {
    let expected = as_u64(shape.frame_bytes()).saturating_mul(as_u64(shape.frames));
    let row = as_u64(shape.columns * shape.word.bytes());
    if (expected..expected.saturating_add(row)).contains(&length) {
        return Ok(());
    }
    Err(Reason::new(
        ReasonCode::WrongPixelSize,
        format!(
            "its pixel data has {length} bytes; {} rows × {} columns × {} frames × {} bytes need \
             {expected}",
            shape.rows,
            shape.columns,
            shape.frames,
            shape.word.bytes()
        ),
    ))
}

fn check_frame_length(length: usize, shape: FrameShape) -> Result<(), Reason> {
    let expected = shape.frame_bytes();
    if length == expected {
        return Ok(());
    }
    Err(Reason::new(
        ReasonCode::WrongPixelSize,
        format!("its frame decodes to {length} bytes where {expected} are needed"),
    ))
}

/// Retired, but old archives still send it.
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// In big endian files 16-bit words are swapped; bytes are so too where their VR is OW
/// (PS3.5 section 8.1.1 and annex A.3). The VR stands eight bytes before an explicit value.
fn is_swapped(instance: &Instance, offset: u64, shape: FrameShape) -> Result<bool, Reason> {
    if instance.transfer_syntax_uid.as_str() != EXPLICIT_VR_BIG_ENDIAN {
        return Ok(false);
    }
    if shape.word.bytes() == 2 {
        return Ok(true);
    }
    let mut representation = [0; 2];
    read_at(instance, offset.saturating_sub(8), &mut representation)?;
    Ok(&representation == b"OW")
}

fn read_at(instance: &Instance, offset: u64, bytes: &mut [u8]) -> Result<(), Reason> {
    let mut file = File::open(&instance.path).map_err(|error| unreadable(&error))?;
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(bytes))
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Reason::new(
                ReasonCode::Truncated,
                format!(
                    "the file ends before byte {}, in the middle of its pixel data; send it again",
                    offset.saturating_add(as_u64(bytes.len()))
                ),
            ),
            _ => unreadable(&error),
        })
}

fn unreadable(error: &std::io::Error) -> Reason {
    undecodable(format!("its stored file cannot be read: {error}"))
}

fn read_object(instance: &Instance, limits: &Limits) -> Result<InMemDicomObject, Reason> {
    let size = std::fs::metadata(&instance.path)
        .map_err(|error| unreadable(&error))?
        .len();
    if size > limits.object_bytes_max {
        let text = format!(
            "it has {size} bytes; the limit is {}",
            limits.object_bytes_max
        );
        return Err(Reason::new(ReasonCode::LimitExceeded, text));
    }
    OpenFileOptions::new()
        .read_to(tags::PIXEL_DATA)
        .open_file(&instance.path)
        .map(dicom_object::FileDicomObject::into_inner)
        .map_err(|error| undecodable(format!("its data set cannot be read: {}", chain(&error))))
}

/// Reads a deflated data set, but no more of it than its header and its pixels may need: a small
/// file can inflate to a thousand times its size.
fn inflate(
    instance: &Instance,
    shape: FrameShape,
    limits: &Limits,
) -> Result<InMemDicomObject, Reason> {
    let file = File::open(&instance.path).map_err(|error| unreadable(&error))?;
    let mut file = BufReader::new(file);
    let mut preamble = [0; 128];
    file.read_exact(&mut preamble)
        .map_err(|error| unreadable(&error))?;
    FileMetaTable::from_reader(&mut file)
        .map_err(|error| undecodable(format!("its file meta group: {}", chain(&error))))?;
    let pixel_bytes = as_u64(shape.frame_bytes()).saturating_mul(as_u64(shape.frames));
    let limit = limits
        .header_bytes_max
        .saturating_add(pixel_bytes)
        .min(limits.object_bytes_max);
    let syntax = dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased();
    let inflated = flate2::bufread::DeflateDecoder::new(file).take(limit);
    InMemDicomObject::read_dataset_with_ts(inflated, &syntax).map_err(|error| {
        undecodable(format!(
            "its deflated data set cannot be read within {limit} bytes: {}",
            chain(&error)
        ))
    })
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn in_memory(bytes: Vec<u8>, shape: FrameShape) -> Result<PixelSource<'static>, Reason> {
    check_native_length(as_u64(bytes.len()), shape)?;
    Ok(PixelSource::InMemory(bytes))
}

/// Extended Offset Table (7FE0,0001), PS3.3 C.7.6.3.1.8; empty where absent.
fn extended_offsets(object: &InMemDicomObject) -> Vec<u64> {
    object
        .get(tags::EXTENDED_OFFSET_TABLE)
        .and_then(|element| element.to_bytes().ok())
        .map(|bytes| {
            bytes
                .as_chunks()
                .0
                .iter()
                .copied()
                .map(u64::from_le_bytes)
                .collect()
        })
        .unwrap_or_default()
}

/// Joins fragments to frames.
fn encoded(
    sequence: PixelFragmentSequence<Vec<u8>>,
    extended: Vec<u64>,
    shape: FrameShape,
) -> Result<Vec<Vec<u8>>, Reason> {
    let (basic, fragments) = sequence.into_parts();
    let mut fragments = fragments.into_vec();
    let offsets = if extended.is_empty() {
        basic.iter().copied().map(u64::from).collect()
    } else {
        extended
    };
    let ranges = frame_ranges(shape.frames, &fragments, &offsets)?;
    Ok(ranges
        .into_iter()
        .map(|range| match fragments.get_mut(range) {
            Some([whole]) => std::mem::take(whole),
            Some(parts) => parts.concat(),
            None => Vec::new(),
        })
        .collect())
}

/// Which fragments make each frame: all of them for one frame, one each, or as the offsets of the
/// frames' first items say (PS3.5 section A.4).
pub(super) fn frame_ranges(
    frames: usize,
    fragments: &[Vec<u8>],
    offsets: &[u64],
) -> Result<Vec<Range<usize>>, Reason> {
    if frames == 1 && !fragments.is_empty() {
        return Ok(std::iter::once(0..fragments.len()).collect());
    }
    if fragments.len() == frames {
        return Ok((0..frames).map(|frame| frame..frame + 1).collect());
    }
    let starts: Vec<u64> = fragments
        .iter()
        .scan(0_u64, |next, fragment| {
            let start = *next;
            // Each fragment is an item: eight bytes of tag and length, then its value.
            *next = next.saturating_add(as_u64(fragment.len()).saturating_add(8));
            Some(start)
        })
        .collect();
    let firsts: Option<Vec<usize>> = offsets
        .iter()
        .map(|offset| starts.binary_search(offset).ok())
        .collect();
    match firsts {
        Some(firsts) if firsts.len() == frames && firsts.is_sorted() => {
            let ends = firsts.iter().skip(1).copied().chain([fragments.len()]);
            Ok(firsts
                .iter()
                .copied()
                .zip(ends)
                .map(|(a, b)| a..b)
                .collect())
        }
        _ => Err(Reason::new(
            ReasonCode::WrongPixelSize,
            format!(
                "its {} fragments cannot be joined to {frames} frames: the offset table has {} \
                 usable entries",
                fragments.len(),
                firsts.map_or(0, |firsts| firsts.len())
            ),
        )),
    }
}
