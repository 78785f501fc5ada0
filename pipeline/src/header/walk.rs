//! A bounded walk over the elements of a data set (PS3.5 section 7), without recursion.
//!
//! The general readers of dicom-rs build a tree by recursion, which ten thousand nested sequences
//! overflow; so every object passes here first, and what passes is shallow enough for them.
//!
//! Writers err, and archives keep what they wrote: where an element contradicts its own form, the
//! bytes behind it are looked at, and the reading that they fit is taken. Well-formed data sets
//! never come so far, but for the first element of each item.

mod encoding;
mod reading;

use std::collections::VecDeque;
use std::io::Read;

use dicom_core::dictionary::DataDictionary;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use crate::limits::Limits;
use crate::reason::ReasonCode;

use super::Refusal;

pub(super) use encoding::{Encoding, has_short_length};

/// Longest value that is kept, bytes. No attribute that matters here comes near.
const KEPT_VALUE_BYTES_MAX: u32 = 16 << 10;

const UNDEFINED_LENGTH: u32 = u32::MAX;
/// How far ahead is looked for the element behind one of doubtful form, bytes.
const LOOK_AHEAD_BYTES_MAX: usize = 128 << 10;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_DELIMITATION_ITEM: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_DELIMITATION_ITEM: Tag = Tag(0xFFFE, 0xE0DD);

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
    /// Of the heads of its items.
    encoding: Encoding,
    /// Of what the present item holds.
    item_encoding: Encoding,
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
    /// Bytes beyond `position` that were looked at and not yet taken.
    ahead: VecDeque<u8>,
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
            ahead: VecDeque::new(),
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
            let Some(tag) = self.read_tag(self.present_encoding())? else {
                // Also where sequences are not closed, which much in the field does not do at the
                // end; an image without its pixels is refused later.
                return Ok(WalkEnd::EndOfData);
            };
            if self.is_padding(tag) {
                return Ok(WalkEnd::EndOfData);
            }
            self.count_element()?;
            self.leave_unclosed_sequences(tag);
            let encoding = self.present_encoding();
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

    fn present_encoding(&self) -> Encoding {
        match self.path.last() {
            None => self.encoding,
            Some(level) => match level.item {
                Item::Between => level.encoding,
                Item::Inside { .. } => level.item_encoding,
            },
        }
    }

    /// Zeros where an element should stand: what some writers fill their last block with.
    fn is_padding(&self, tag: Tag) -> bool {
        self.path.is_empty() && tag == Tag(0, 0) && self.elements > 0
    }

    /// An element that stands where an item should: the sequence is shorter than it says, or its
    /// end was left out. Elements ascend (PS3.5 section 7.1), so one behind the sequence's own tag
    /// belongs to the level above.
    fn leave_unclosed_sequences(&mut self, tag: Tag) {
        while tag.group() != 0xFFFE
            && self
                .path
                .last()
                .is_some_and(|level| matches!(level.item, Item::Between) && tag > level.tag)
        {
            self.path.pop();
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
        self.between_items_at(tag, encoding, length)
    }

    fn between_items_at(
        &mut self,
        tag: Tag,
        encoding: Encoding,
        length: u32,
    ) -> Result<(), Refusal> {
        let end = self.end_of(length);
        let Some(level) = self.path.last_mut() else {
            return Ok(());
        };
        match tag {
            ITEM if level.fragments => self.skip(length),
            ITEM => {
                level.item = Item::Inside { end };
                let seen = self.encoding_of_item(encoding, end)?;
                if let Some(level) = self.path.last_mut() {
                    level.item_encoding = seen;
                }
                Ok(())
            }
            SEQUENCE_DELIMITATION_ITEM => {
                self.path.pop();
                Ok(())
            }
            // An item of defined length that is closed all the same.
            ITEM_DELIMITATION_ITEM if length == 0 => Ok(()),
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
            // The next item begins, and the last one was not closed.
            (ITEM, Some(level)) if !level.fragments => {
                level.item_index += 1;
                self.between_items_at(tag, encoding, length)
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
        let encoding = self.encoding_of_sequence(head.vr, encoding)?;
        if head.length != UNDEFINED_LENGTH && !self.item_follows(encoding)? {
            // By the dictionary a sequence, but something else, or nothing, was written.
            return self.skip(head.length);
        }
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
            encoding,
            item_encoding: encoding,
            fragments,
        });
        Ok(())
    }

    /// How the heads of a sequence's items are encoded. PS3.5 section 6.2.2: what an unknown VR of
    /// undefined length holds is implicit; what stands there goes before.
    fn encoding_of_sequence(&mut self, vr: VR, outer: Encoding) -> Result<Encoding, Refusal> {
        if vr != VR::UN {
            return Ok(outer);
        }
        let kept = outer == Encoding::ExplicitBig && self.item_follows(outer)?;
        Ok(if kept {
            outer
        } else {
            Encoding::ImplicitLittle
        })
    }

    fn item_follows(&mut self, encoding: Encoding) -> Result<bool, Refusal> {
        let next = self.look_ahead(4)?;
        let tag = next.try_into().ok().map(|bytes| encoding.tag(bytes));
        Ok(matches!(tag, Some(ITEM | SEQUENCE_DELIMITATION_ITEM)))
    }

    /// How the elements of an item that ends at `end` are encoded, by the first of them.
    fn encoding_of_item(&mut self, usual: Encoding, end: Option<u64>) -> Result<Encoding, Refusal> {
        let head = <[u8; 8]>::try_from(self.look_ahead(8)?);
        let (Ok(head), true) = (head, self.left(end) >= 8) else {
            return Ok(usual);
        };
        let [t0, t1, t2, t3, a, b, c, d] = head;
        let tag = usual.tag([t0, t1, t2, t3]);
        if tag.group() == 0xFFFE {
            return Ok(usual);
        }
        let vr = VR::from_binary([a, b]);
        match (usual, vr) {
            (Encoding::ExplicitLittle, None) => {
                let length = usual.u32([a, b, c, d]);
                let fits = length == UNDEFINED_LENGTH || u64::from(length) <= self.left(end);
                let well = fits && self.fits(tag, 8, length, Encoding::ImplicitLittle)?;
                Ok(if well {
                    Encoding::ImplicitLittle
                } else {
                    usual
                })
            }
            (Encoding::ImplicitLittle, Some(vr)) => {
                let stated = StandardDataDictionary
                    .by_tag(tag)
                    .map(|entry| entry.vr.relaxed());
                let explicit = Encoding::ExplicitLittle;
                let well = stated == Some(vr)
                    || (has_short_length([a, b])
                        && self.fits(tag, 8, u32::from(usual.u16([c, d])), explicit)?);
                Ok(if well { explicit } else { usual })
            }
            (Encoding::ExplicitLittle | Encoding::ExplicitBig, _)
            | (Encoding::ImplicitLittle, None) => Ok(usual),
        }
    }

    /// Bytes up to `end`, or to the end of the data set.
    fn left(&self, end: Option<u64>) -> u64 {
        let end = end.or(self.length).unwrap_or(self.limits.header_bytes_max);
        end.saturating_sub(self.position)
    }

    /// Whether an element `tag`, whose value begins `offset` bytes ahead and has `length`, is
    /// followed by what may follow it: an element of a higher tag, a delimiter, or the end.
    fn fits(
        &mut self,
        tag: Tag,
        offset: usize,
        length: u32,
        encoding: Encoding,
    ) -> Result<bool, Refusal> {
        let next = if length == UNDEFINED_LENGTH {
            offset
        } else {
            offset.saturating_add(usize::try_from(length).unwrap_or(usize::MAX))
        };
        if next > LOOK_AHEAD_BYTES_MAX {
            return Ok(false);
        }
        let (inside, ends) = (!self.path.is_empty(), self.ends_at(next));
        let ahead = self.look_ahead(next + 8)?;
        if length != UNDEFINED_LENGTH && (ends || ahead.len() == next) {
            return Ok(ahead.len() >= next);
        }
        let Some(Ok([t0, t1, t2, t3, a, b, ..])) = ahead.get(next..).map(<[u8; 8]>::try_from)
        else {
            return Ok(false);
        };
        let next_tag = encoding.tag([t0, t1, t2, t3]);
        if length == UNDEFINED_LENGTH {
            return Ok(next_tag == ITEM);
        }
        if next_tag.group() == 0xFFFE {
            return Ok(inside);
        }
        let has_form = encoding == Encoding::ImplicitLittle || looks_like_vr([a, b]);
        Ok(next_tag > tag && has_form)
    }

    /// Whether an item or a sequence of defined length ends `offset` bytes ahead.
    fn ends_at(&self, offset: usize) -> bool {
        let at = Some(self.position + offset as u64);
        self.path.iter().any(|level| {
            level.end == at
                || matches!(level.item, Item::Inside { end } if end.is_some() && end == at)
        })
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
            4 => Ok(Some(encoding.tag(bytes))),
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
        match VR::from_binary(code) {
            Some(vr) => Ok(ElementHead {
                tag,
                vr,
                length: encoding.u32(self.read_array()?),
            }),
            None => self.head_without_vr(tag, bytes, encoding),
        }
    }

    /// The head of an element whose VR is none: blank, in small letters, of a later standard, or
    /// left out. `form` is what stands behind its tag. Of the forms that it may have, the first
    /// that what follows fits is taken.
    fn head_without_vr(
        &mut self,
        tag: Tag,
        form: [u8; 4],
        encoding: Encoding,
    ) -> Result<ElementHead, Refusal> {
        let [a, b, c, d] = form;
        let short = u32::from(encoding.u16([c, d]));
        let implicit = encoding.u32(form);
        let ahead = self.look_ahead(4)?.try_into().ok();
        let long = ahead.map(|bytes| encoding.u32(bytes));
        // PS3.5 section 7.1.2: VRs to come have long lengths.
        let is_later = looks_like_vr([a, b]) && [c, d] == [0, 0];
        let long_fits = match long {
            Some(length) if [c, d] == [0, 0] => self.fits(tag, 4, length, encoding)?,
            Some(_) | None => false,
        };
        let (length, passed) = if is_later && long_fits {
            (long, 4)
        } else if self.fits(tag, 0, short, encoding)? {
            (Some(short), 0)
        } else if long_fits {
            (long, 4)
        } else if encoding != Encoding::ExplicitBig
            && (self.fits(tag, 0, implicit, encoding)?
                || self.fits(tag, 0, implicit, Encoding::ImplicitLittle)?)
        {
            (Some(implicit), 0)
        } else if is_later {
            (long, 4)
        } else {
            (None, 0)
        };
        let Some(length) = length else {
            return Err(self.malformed(&format!("{tag} has no value representation")));
        };
        self.skip(passed)?;
        Ok(ElementHead {
            tag,
            vr: implicit_vr(tag, length),
            length,
        })
    }
}

/// Pixel Data, or Float or Double Float Pixel Data.
fn is_pixel_data(tag: Tag) -> bool {
    matches!(
        tag,
        tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA
    )
}

/// Two capital letters, or the two question marks of a writer that did not know.
fn looks_like_vr(code: [u8; 2]) -> bool {
    VR::from_binary(code).is_some() || code == *b"??" || code.iter().all(u8::is_ascii_uppercase)
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
