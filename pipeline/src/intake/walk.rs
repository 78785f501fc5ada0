//! A bounded walk over the elements of a data set (PS3.5 section 7), without recursion.
//!
//! The general readers of dicom-rs build a tree by recursion, which ten thousand nested sequences
//! overflow; so every object passes here first, and what passes is shallow enough for them.

use std::io::{ErrorKind, Read};

use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use crate::limits::Limits;
use crate::reason::ReasonCode;

use super::Refusal;

/// Longest value that is kept, bytes. No attribute that matters here comes near.
const KEPT_VALUE_BYTES_MAX: u32 = 16 << 10;

const UNDEFINED_LENGTH: u32 = u32::MAX;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITATION_ITEM: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITATION_ITEM: Tag = Tag(0xFFFE, 0xE0DD);

/// How a data set is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

impl Encoding {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::ImplicitLittle | Self::ExplicitLittle => u16::from_le_bytes(bytes),
            Self::ExplicitBig => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::ImplicitLittle | Self::ExplicitLittle => u32::from_le_bytes(bytes),
            Self::ExplicitBig => u32::from_be_bytes(bytes),
        }
    }

    /// What the data set's first element shows, against what its transfer syntax says: writers
    /// that mistake implicit for explicit VR, and the other way round, are not rare.
    pub(super) fn corrected(self, first_bytes: &[u8]) -> Self {
        let Some(vr) = first_bytes.get(4..6) else {
            return self;
        };
        let explicit = VR::from_binary([vr[0], vr[1]]).is_some();
        match (self, explicit) {
            (Self::ImplicitLittle, true) => Self::ExplicitLittle,
            (Self::ExplicitLittle, false) => Self::ImplicitLittle,
            (Self::ImplicitLittle | Self::ExplicitBig, false)
            | (Self::ExplicitLittle | Self::ExplicitBig, true) => self,
        }
    }
}

/// Whether elements of this VR have a length of two bytes (PS3.5 section 7.1.2).
pub(super) fn has_short_length(vr: [u8; 2]) -> bool {
    matches!(
        &vr,
        b"AE"
            | b"AS"
            | b"AT"
            | b"CS"
            | b"DA"
            | b"DS"
            | b"DT"
            | b"FL"
            | b"FD"
            | b"IS"
            | b"LO"
            | b"LT"
            | b"PN"
            | b"SH"
            | b"SL"
            | b"SS"
            | b"ST"
            | b"TM"
            | b"UI"
            | b"UL"
            | b"US"
    )
}

/// The value of one element, as its bytes lie in the data set.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) vr: VR,
    pub(super) encoding: Encoding,
    pub(super) bytes: Vec<u8>,
}

/// A sequence that the walk is inside of, and in which item.
#[derive(Clone, Debug)]
pub(super) struct Level {
    /// The sequence.
    pub(super) tag: Tag,
    /// Zero-based item.
    pub(super) item_index: usize,
    /// Where the sequence ends, if it says so.
    end: Option<u64>,
    item: Item,
    encoding: Encoding,
    /// Items are fragments of pixels, not data sets.
    fragments: bool,
}

#[derive(Clone, Copy, Debug)]
enum Item {
    Between,
    Inside { end: Option<u64> },
}

/// Who is shown the elements.
pub(super) trait Visitor {
    /// Whether the value of `tag` below `path` is to be read.
    fn wants(&self, path: &[Level], tag: Tag) -> bool;
    /// Takes the value, cut to a sane length.
    fn take(&mut self, path: &[Level], tag: Tag, value: Value);
}

/// Sees nothing: for walks that only check.
pub(super) struct Blind;

impl Visitor for Blind {
    fn wants(&self, _: &[Level], _: Tag) -> bool {
        false
    }
    fn take(&mut self, _: &[Level], _: Tag, _: Value) {}
}

/// Where a walk came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalkEnd {
    /// Before the value of the pixel data.
    PixelData {
        /// Where the value begins, bytes from the start of the data set.
        offset: u64,
        /// Its length; `None` if undefined.
        length: Option<u32>,
    },
    /// At the end of the data set.
    EndOfData,
}

/// A reader of one data set that counts what it reads and refuses what goes beyond the limits.
pub(super) struct Walker<'a, R> {
    source: R,
    encoding: Encoding,
    limits: &'a Limits,
    /// Bytes of the data set read so far.
    position: u64,
    /// Length of the data set, if known.
    length: Option<u64>,
    elements: usize,
    path: Vec<Level>,
}

/// Tag, VR and length of an element.
struct ElementHead {
    tag: Tag,
    vr: VR,
    length: u32,
}

impl<'a, R: Read> Walker<'a, R> {
    /// A walk over `source`, which holds a data set of `length` bytes.
    pub(super) fn new(
        source: R,
        encoding: Encoding,
        length: Option<u64>,
        limits: &'a Limits,
    ) -> Self {
        Self {
            source,
            encoding,
            limits,
            position: 0,
            length,
            elements: 0,
            path: Vec::new(),
        }
    }

    /// Walks up to the pixel data or to the end, showing the elements to `visitor`.
    pub(super) fn run(&mut self, visitor: &mut impl Visitor) -> Result<WalkEnd, Refusal> {
        loop {
            self.leave_what_has_ended();
            let encoding = self
                .path
                .last()
                .map_or(self.encoding, |level| level.encoding);
            let Some(tag) = self.read_tag(encoding)? else {
                return if self.path.is_empty() {
                    Ok(WalkEnd::EndOfData)
                } else {
                    Err(self.truncated("a sequence is not closed"))
                };
            };
            self.count_element()?;
            match self.path.last().map(|level| level.item) {
                Some(Item::Between) => self.between_items(tag, encoding)?,
                _ if tag.group() == 0xFFFE => self.delimiter(tag, encoding)?,
                _ => {
                    let head = self.read_head(tag, encoding)?;
                    if self.path.is_empty() && is_pixel_data(tag) {
                        return Ok(WalkEnd::PixelData {
                            offset: self.position,
                            length: (head.length != UNDEFINED_LENGTH).then_some(head.length),
                        });
                    }
                    self.element(&head, encoding, visitor)?;
                }
            }
        }
    }

    /// Closes items and sequences of defined length that end here.
    fn leave_what_has_ended(&mut self) {
        while let Some(level) = self.path.last_mut() {
            let reached = |end: Option<u64>| end.is_some_and(|end| self.position >= end);
            match level.item {
                Item::Inside { end } if reached(end) => {
                    level.item = Item::Between;
                    level.item_index += 1;
                }
                Item::Between if reached(level.end) => {
                    self.path.pop();
                }
                Item::Inside { .. } | Item::Between => return,
            }
        }
    }

    fn count_element(&mut self) -> Result<(), Refusal> {
        self.elements += 1;
        if self.elements > self.limits.header_elements_max {
            return Err(Refusal::new(
                ReasonCode::LimitExceeded,
                format!(
                    "The header has more than {} data elements (limits.header_elements_max).",
                    self.limits.header_elements_max
                ),
            ));
        }
        Ok(())
    }

    /// Inside a sequence: an item begins, or the sequence ends.
    fn between_items(&mut self, tag: Tag, encoding: Encoding) -> Result<(), Refusal> {
        let length = encoding.u32(self.read_array()?);
        let end = self.end_of(length);
        let Some(level) = self.path.last_mut() else {
            return Ok(());
        };
        match tag {
            ITEM if level.fragments => self.skip(length),
            ITEM => {
                level.item = Item::Inside { end };
                Ok(())
            }
            SEQUENCE_DELIMITATION_ITEM => {
                self.path.pop();
                Ok(())
            }
            _ => Err(self.malformed(&format!("{tag} stands where an item should"))),
        }
    }

    /// Inside an item, or outside any: the item of undefined length ends.
    fn delimiter(&mut self, tag: Tag, encoding: Encoding) -> Result<(), Refusal> {
        let length = encoding.u32(self.read_array()?);
        match (tag, self.path.last_mut()) {
            (ITEM_DELIMITATION_ITEM, Some(level)) => {
                level.item = Item::Between;
                level.item_index += 1;
                Ok(())
            }
            // A sequence closed without closing its last item: seen in the field, and plain enough.
            (SEQUENCE_DELIMITATION_ITEM, Some(_)) => {
                self.path.pop();
                Ok(())
            }
            (ITEM_DELIMITATION_ITEM | SEQUENCE_DELIMITATION_ITEM, None) if length == 0 => Ok(()),
            _ => Err(self.malformed(&format!("{tag} stands outside a sequence"))),
        }
    }

    /// Enters a sequence, or reads or skips a value.
    fn element(
        &mut self,
        head: &ElementHead,
        encoding: Encoding,
        visitor: &mut impl Visitor,
    ) -> Result<(), Refusal> {
        let undefined = head.length == UNDEFINED_LENGTH;
        let fragments = undefined && matches!(head.vr, VR::OB | VR::OW);
        if head.vr == VR::SQ || undefined {
            return self.enter(head, encoding, fragments);
        }
        if !visitor.wants(&self.path, head.tag) {
            return self.skip(head.length);
        }
        self.refuse_beyond_end(head.length)?;
        let kept = head.length.min(KEPT_VALUE_BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(kept).unwrap_or(0)];
        self.read_exact(&mut bytes)?;
        self.skip(head.length - kept)?;
        visitor.take(
            &self.path,
            head.tag,
            Value {
                vr: head.vr,
                encoding,
                bytes,
            },
        );
        Ok(())
    }

    fn enter(
        &mut self,
        head: &ElementHead,
        encoding: Encoding,
        fragments: bool,
    ) -> Result<(), Refusal> {
        if self.path.len() >= self.limits.nesting_depth_max {
            return Err(Refusal::new(
                ReasonCode::LimitExceeded,
                format!(
                    "Sequences are nested more than {} deep, at {}.",
                    self.limits.nesting_depth_max, head.tag
                ),
            ));
        }
        self.path.push(Level {
            tag: head.tag,
            item_index: 0,
            end: self.end_of(head.length),
            item: Item::Between,
            // PS3.5 section 6.2.2: what an unknown VR of undefined length holds is implicit.
            encoding: if head.vr == VR::UN {
                Encoding::ImplicitLittle
            } else {
                encoding
            },
            fragments,
        });
        Ok(())
    }

    fn end_of(&self, length: u32) -> Option<u64> {
        (length != UNDEFINED_LENGTH).then(|| self.position + u64::from(length))
    }

    /// The next tag; `None` at the end of the data set.
    fn read_tag(&mut self, encoding: Encoding) -> Result<Option<Tag>, Refusal> {
        let mut bytes = [0; 4];
        let count = self.read_up_to(&mut bytes)?;
        match count {
            0 => Ok(None),
            4 => Ok(Some(Tag(
                encoding.u16([bytes[0], bytes[1]]),
                encoding.u16([bytes[2], bytes[3]]),
            ))),
            _ => Err(self.truncated("it breaks off inside a tag")),
        }
    }

    fn read_head(&mut self, tag: Tag, encoding: Encoding) -> Result<ElementHead, Refusal> {
        let bytes: [u8; 4] = self.read_array()?;
        if encoding == Encoding::ImplicitLittle {
            let length = encoding.u32(bytes);
            return Ok(ElementHead {
                tag,
                vr: implicit_vr(tag, length),
                length,
            });
        }
        let code = [bytes[0], bytes[1]];
        if has_short_length(code) {
            return Ok(ElementHead {
                tag,
                vr: VR::from_binary(code).unwrap_or(VR::UN),
                length: u32::from(encoding.u16([bytes[2], bytes[3]])),
            });
        }
        if !code
            .iter()
            .all(|byte| byte.is_ascii_uppercase() || *byte == b'?')
        {
            return Err(self.malformed(&format!("{tag} has no value representation")));
        }
        Ok(ElementHead {
            tag,
            vr: VR::from_binary(code).unwrap_or(VR::UN),
            length: encoding.u32(self.read_array()?),
        })
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        if self.read_up_to(bytes)? == bytes.len() {
            Ok(())
        } else {
            Err(self.truncated("it breaks off inside an element"))
        }
    }

    /// Fills `bytes` as far as the source goes.
    fn read_up_to(&mut self, bytes: &mut [u8]) -> Result<usize, Refusal> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.source.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(&error)),
            }
        }
        self.advance(filled as u64)?;
        Ok(filled)
    }

    /// Passes over `length` bytes without keeping them.
    pub(super) fn skip(&mut self, length: u32) -> Result<(), Refusal> {
        self.refuse_beyond_end(length)?;
        let length = u64::from(length);
        let within = self.limits.header_bytes_max.saturating_sub(self.position);
        let mut part = (&mut self.source).take(length.min(within + 1));
        let skipped = std::io::copy(&mut part, &mut std::io::sink())
            .map_err(|error| self.unreadable(&error))?;
        self.advance(skipped)?;
        if skipped < length {
            return Err(self.truncated("it breaks off inside an element"));
        }
        Ok(())
    }

    /// Passes over pixel data of `pixel_bytes` and walks what follows it, under the limit for
    /// whole objects.
    pub(super) fn check_rest(mut self, pixel_bytes: u32) -> Result<(), Refusal> {
        let object_limits = Limits {
            header_bytes_max: self.limits.object_bytes_max,
            header_elements_max: usize::MAX,
            ..self.limits.clone()
        };
        self.position = 0;
        let mut rest = Walker {
            limits: &object_limits,
            source: self.source,
            ..self
        };
        rest.skip(pixel_bytes)?;
        match rest.run(&mut Blind) {
            Err(refusal) if refusal.reason.code == ReasonCode::LimitExceeded => Err(refusal),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn advance(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.position += bytes;
        if self.position > self.limits.header_bytes_max {
            return Err(Refusal::new(
                ReasonCode::LimitExceeded,
                format!(
                    "The header is longer than {} bytes.",
                    self.limits.header_bytes_max
                ),
            ));
        }
        Ok(())
    }

    /// Refuses a value that claims more bytes than there are, before any memory is taken for it.
    fn refuse_beyond_end(&self, length: u32) -> Result<(), Refusal> {
        match self.length {
            Some(total) if self.position + u64::from(length) > total => {
                Err(self.truncated(&format!(
                    "an element claims {length} bytes, {} are left",
                    total - self.position
                )))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn truncated(&self, what: &str) -> Refusal {
        Refusal::new(
            ReasonCode::Truncated,
            format!(
                "The header ends too soon: {what}, at byte {} of the data set. Send the object again.",
                self.position
            ),
        )
    }

    fn malformed(&self, what: &str) -> Refusal {
        Refusal::new(
            ReasonCode::NotDicom,
            format!("Not a DICOM data set: {what}, at byte {}.", self.position),
        )
    }

    fn unreadable(&self, error: &std::io::Error) -> Refusal {
        Refusal::new(
            ReasonCode::Truncated,
            format!(
                "The data set cannot be read beyond byte {}: {error}.",
                self.position
            ),
        )
    }
}

/// Pixel Data, or Float or Double Float Pixel Data.
fn is_pixel_data(tag: Tag) -> bool {
    matches!(
        tag,
        tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA
    )
}

/// The VR that the dictionary gives; a sequence where the length says so.
fn implicit_vr(tag: Tag, length: u32) -> VR {
    let known = StandardDataDictionary
        .by_tag(tag)
        .map(|entry| entry.vr.relaxed());
    match known {
        Some(vr) => vr,
        None if length == UNDEFINED_LENGTH => VR::SQ,
        None => VR::UN,
    }
}
