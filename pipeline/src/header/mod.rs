//! Bytes → [`Instance`]: the header of a stored object, read within limits.
//!
//! A header scan reads what stands before the pixel data and passes over the pixels; what it
//! accepts is shallow and whole enough to be given to the general readers of dicom-rs.

mod elements;
pub(crate) mod moment;
mod part10;
mod salvage;
mod text;
mod walk;

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::DeflateDecoder;

use crate::instance::Instance;
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::uid::Uid;
use crate::unread::UnreadObject;

pub use part10::{META_BYTES_MAX, MetaParse, cut_short, parse_part10_meta, part10_head};

pub use text::{CharsetError, FallbackCharset};

pub(crate) use elements::is_ct_image;
use elements::{Header, Origin};
use walk::{Blind, Encoding, WalkEnd, Walker};

/// Why an object is kept but cannot be used, or is not taken at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", reason.text)]
pub struct Refusal {
    /// What is wrong, where, and what to do.
    pub reason: Reason,
}

impl Refusal {
    /// Joins a code and a sentence.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self {
            reason: Reason::new(code, text),
        }
    }
}

/// First bytes read of a file: most headers fit, and one read beats three.
const FIRST_READ_BYTES: usize = 16 << 10;

/// Reads the header of the Part 10 file at `path`, up to the pixel data.
///
/// The pixels themselves are not read, but that they are all there is checked. A deflated object
/// is inflated to its end, within its limits, and kept nowhere.
///
/// # Errors
///
/// [`Refusal`] for bytes that are not DICOM, end too soon, nest too deep or lack identifiers.
pub fn read_instance(path: &Path, limits: &Limits) -> Result<Instance, Refusal> {
    read_object(path, limits).map_err(|unread| Refusal {
        reason: unread.reason,
    })
}

/// [`read_instance`] that tells of what cannot be read as much as stands before the fault.
///
/// # Errors
///
/// [`UnreadObject`], with the identifiers that could be saved.
pub fn read_object(path: &Path, limits: &Limits) -> Result<Instance, Box<UnreadObject>> {
    let mut object = match ObjectFile::open(path) {
        Ok(object) => object,
        Err(refusal) => return Err(salvage::without_head(path, refusal)),
    };
    let mut header = Header::new(limits);
    let end = object.read_to_pixels(&mut header, limits);
    let origin = object.origin(path);
    end.and_then(|end| header.instance(&origin, end))
        .map_err(|refusal| salvage::with_header(header.unread(&origin, refusal)))
}

/// How a transfer syntax lays a data set out (PS3.5 annex A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Native(Encoding),
    Encapsulated(Encoding),
    Deflated,
}

impl Layout {
    fn of(transfer_syntax: &Uid) -> Self {
        match transfer_syntax.as_str() {
            "1.2.840.10008.1.2" => Self::Native(Encoding::ImplicitLittle),
            "1.2.840.10008.1.2.1" => Self::Native(Encoding::ExplicitLittle),
            "1.2.840.10008.1.2.2" => Self::Native(Encoding::ExplicitBig),
            "1.2.840.10008.1.2.1.99" => Self::Deflated,
            // All others encapsulate; also those that are not known yet, by PS3.5 section A.4.
            _ => Self::Encapsulated(Encoding::ExplicitLittle),
        }
    }

    /// The syntax of a native data set that is not in the `stated` order of bytes: its pixels are
    /// not either.
    fn native_syntax(self, stated: Self) -> Option<Uid> {
        match (self, stated) {
            (Self::Native(encoding), Self::Native(other)) if encoding != other => {
                let swapped = [encoding, other].contains(&Encoding::ExplicitBig);
                Uid::new(encoding.transfer_syntax())
                    .ok()
                    .filter(|_| swapped)
            }
            _ => None,
        }
    }

    fn corrected(self, first_bytes: &[u8]) -> Self {
        match self {
            Self::Native(encoding) => Self::Native(encoding.corrected(first_bytes)),
            Self::Encapsulated(encoding) => Self::Encapsulated(encoding.corrected(first_bytes)),
            Self::Deflated => Self::Deflated,
        }
    }
}

/// An open Part 10 file whose file meta group has been read.
struct ObjectFile {
    file: File,
    file_bytes: u64,
    /// The file's first bytes.
    prefix: Vec<u8>,
    dataset_offset: u64,
    transfer_syntax: Uid,
    sop_class: Uid,
    sop_instance: Uid,
    layout: Layout,
}

impl ObjectFile {
    fn open(path: &Path) -> Result<Self, Refusal> {
        let mut file = File::open(path).map_err(|error| unreadable(&error))?;
        let file_bytes = file.metadata().map_err(|error| unreadable(&error))?.len();
        let mut prefix = Vec::with_capacity(FIRST_READ_BYTES);
        loop {
            let wanted = if prefix.is_empty() {
                FIRST_READ_BYTES
            } else {
                META_BYTES_MAX
            };
            read_more(&mut file, &mut prefix, wanted)?;
            match parse_part10_meta(&prefix) {
                MetaParse::NeedMore if prefix.len() < wanted => return Err(cut_short(file_bytes)),
                MetaParse::NeedMore => {}
                MetaParse::Refusal(refusal) => return Err(refusal),
                MetaParse::Meta {
                    transfer_syntax,
                    sop_class,
                    sop_instance,
                    dataset_offset,
                } => {
                    let stated = Layout::of(&transfer_syntax);
                    let layout = stated.corrected(&prefix[dataset_offset..]);
                    let transfer_syntax = layout.native_syntax(stated).unwrap_or(transfer_syntax);
                    return Ok(Self {
                        file,
                        file_bytes,
                        prefix,
                        dataset_offset: dataset_offset as u64,
                        transfer_syntax,
                        sop_class,
                        sop_instance,
                        layout,
                    });
                }
            }
        }
    }

    /// What is known of the object beside its data set.
    fn origin<'a>(&self, path: &'a Path) -> Origin<'a> {
        Origin {
            path,
            transfer_syntax: self.transfer_syntax.clone(),
            sop_class: self.sop_class.clone(),
            sop_instance: self.sop_instance.clone(),
            native_base: (self.layout != Layout::Deflated).then_some(self.dataset_offset),
            encapsulated: matches!(self.layout, Layout::Encapsulated(_)),
        }
    }

    /// Reads the header, and checks that the pixels are all there.
    fn read_to_pixels(&mut self, header: &mut Header, limits: &Limits) -> Result<WalkEnd, Refusal> {
        let end = match self.layout {
            Layout::Native(encoding) | Layout::Encapsulated(encoding) => {
                let end = self.walk_header(encoding, header, limits)?;
                if let WalkEnd::PixelData { offset, length } = end {
                    self.check_pixel_data(offset, length, encoding, limits)?;
                }
                end
            }
            Layout::Deflated => self.walk_deflated(header, limits)?,
        };
        if self.file_bytes > limits.object_bytes_max {
            let text = format!(
                "The object has {} bytes; {} are allowed.",
                self.file_bytes, limits.object_bytes_max
            );
            return Err(Refusal::new(ReasonCode::LimitExceeded, text));
        }
        Ok(end)
    }

    /// The data set's bytes from the start.
    fn dataset(&self) -> impl Read + use<'_> {
        let mut begun = Cursor::new(self.prefix.as_slice());
        begun.set_position(self.dataset_offset);
        begun.chain(BufReader::new(&self.file))
    }

    fn dataset_bytes(&self) -> u64 {
        self.file_bytes - self.dataset_offset
    }

    fn walk_header(
        &self,
        encoding: Encoding,
        header: &mut Header,
        limits: &Limits,
    ) -> Result<WalkEnd, Refusal> {
        let length = Some(self.dataset_bytes());
        Walker::new(self.dataset(), encoding, length, limits).run(header)
    }

    /// Inflates all of the data set: header, pixels, and what may follow them.
    fn walk_deflated(&self, header: &mut Header, limits: &Limits) -> Result<WalkEnd, Refusal> {
        let inflated = BufReader::new(DeflateDecoder::new(self.dataset()));
        let encoding = Encoding::ExplicitLittle;
        // The header has its own limit; the pixels are then passed over under the object's.
        let mut walker = Walker::new(inflated, encoding, None, limits);
        let end = walker.run(header)?;
        if let WalkEnd::PixelData { length, .. } = end {
            let pixel_bytes = length.ok_or_else(|| {
                Refusal::new(
                    ReasonCode::UndecodablePixels,
                    "The pixel data of a deflated object has no length (PS3.5 section A.5).",
                )
            })?;
            walker.check_rest(pixel_bytes)?;
        }
        Ok(end)
    }

    /// Checks that the pixel data is all there, and that what follows it nests no deeper than the
    /// header may.
    fn check_pixel_data(
        &mut self,
        offset: u64,
        length: Option<u32>,
        encoding: Encoding,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let start = self.dataset_offset + offset;
        let end = match length {
            Some(length) => self.native_end(start, length)?,
            None => self.fragments_end(start, limits.header_elements_max)?,
        };
        if end >= self.file_bytes {
            return Ok(());
        }
        self.file
            .seek(SeekFrom::Start(end))
            .map_err(|error| unreadable(&error))?;
        let tail = BufReader::new(&self.file);
        refuse_deep_tail(tail, encoding, limits)
    }

    fn native_end(&self, start: u64, length: u32) -> Result<u64, Refusal> {
        let end = start + u64::from(length);
        if end > self.file_bytes {
            return Err(Refusal::new(
                ReasonCode::Truncated,
                format!(
                    "The pixel data claims {length} bytes, {} are there. Send the object again.",
                    self.file_bytes - start
                ),
            ));
        }
        Ok(end)
    }

    /// Steps from fragment to fragment (PS3.5 section A.4) to the end of the pixel data.
    fn fragments_end(&mut self, start: u64, fragments_max: usize) -> Result<u64, Refusal> {
        let mut at = start;
        for fragment in 0..fragments_max {
            let Some((group, element, length)) = self.item_head(at)? else {
                // Without the delimiter, but with an offset table and a whole fragment.
                return if at == self.file_bytes && fragment >= 2 {
                    Ok(at)
                } else {
                    Err(self.cut_fragments(at))
                };
            };
            at += 8;
            match (group, element) {
                (0xFFFE, 0xE0DD) => return Ok(at),
                (0xFFFE, 0xE000) if at + u64::from(length) <= self.file_bytes => {
                    at += u64::from(length);
                }
                (0xFFFE, 0xE000) => return Err(self.cut_fragments(at)),
                _ => {
                    return Err(Refusal::new(
                        ReasonCode::UndecodablePixels,
                        format!("No fragment of the pixel data begins at byte {}.", at - 8),
                    ));
                }
            }
        }
        Err(Refusal::new(
            ReasonCode::LimitExceeded,
            format!("The pixel data has more than {fragments_max} fragments."),
        ))
    }

    fn cut_fragments(&self, at: u64) -> Refusal {
        Refusal::new(
            ReasonCode::Truncated,
            format!(
                "The compressed pixel data breaks off: the fragment at byte {at} goes beyond the \
                 file's {} bytes. Send the object again.",
                self.file_bytes
            ),
        )
    }

    /// Group, element and length of the item at `at`; `None` at the file's end.
    fn item_head(&mut self, at: u64) -> Result<Option<(u16, u16, u32)>, Refusal> {
        if at + 8 > self.file_bytes {
            return Ok(None);
        }
        let mut bytes = [0; 8];
        let read = self
            .file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|error| unreadable(&error))?;
        let [a, b, c, d, length @ ..] = bytes;
        Ok(Some((
            u16::from_le_bytes([a, b]),
            u16::from_le_bytes([c, d]),
            u32::from_le_bytes(length),
        )))
    }
}

/// Walks what follows the pixel data: its content does not matter, and much of it is padding that
/// is no element at all, but a reader of the whole file would follow its nesting.
fn refuse_deep_tail(tail: impl Read, encoding: Encoding, limits: &Limits) -> Result<(), Refusal> {
    let only_depth = Limits {
        header_bytes_max: limits.object_bytes_max,
        header_elements_max: usize::MAX,
        ..limits.clone()
    };
    match Walker::new(tail, encoding, None, &only_depth).run(&mut Blind) {
        Err(refusal) if refusal.reason.code == ReasonCode::LimitExceeded => Err(refusal),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Reads on until `bytes` holds `wanted` bytes or the file ends.
fn read_more(file: &mut File, bytes: &mut Vec<u8>, wanted: usize) -> Result<(), Refusal> {
    let missing = wanted.saturating_sub(bytes.len());
    file.take(missing as u64)
        .read_to_end(bytes)
        .map(|_| ())
        .map_err(|error| unreadable(&error))
}

fn unreadable(error: &std::io::Error) -> Refusal {
    Refusal::new(
        ReasonCode::InternalFault,
        format!("The stored file cannot be read: {error}."),
    )
}

#[cfg(test)]
mod tests;
