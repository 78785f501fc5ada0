//! The head of a Part 10 file: preamble, `DICM` and the file meta group (PS3.10 section 7.1).
//!
//! Old writers leave the preamble out, or the whole head, or write the group in implicit VR. Where
//! the group is missing or lacks what it must have, the data set behind it is asked.

use crate::reason::ReasonCode;
use crate::uid::Uid;

use super::Refusal;
use super::walk::{Encoding, has_short_length};

/// Most bytes of preamble and file meta group together.
pub const META_BYTES_MAX: usize = 64 << 10;

/// Who wrote the file meta group: a UUID-derived UID of this project (PS3.5 annex B.2).
const IMPLEMENTATION_CLASS_UID: &str = "2.25.315368784507966248759709516525212333189";
/// Which version of it; at most 16 characters.
const IMPLEMENTATION_VERSION_NAME: &str = "TEZ_0_1";

const PREAMBLE_BYTES: usize = 128;
const DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1.99";
const MAGIC: &[u8] = b"DICM";

/// What the first bytes of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaParse {
    /// The file meta group goes on beyond these bytes. At the end of the file: see [`cut_short`].
    NeedMore,
    /// The file meta group is whole.
    Meta {
        /// Transfer Syntax UID (0002,0010) of the data set.
        transfer_syntax: Uid,
        /// Media Storage SOP Class UID (0002,0002).
        sop_class: Uid,
        /// Media Storage SOP Instance UID (0002,0003).
        sop_instance: Uid,
        /// Where the data set begins, bytes from the start of the file.
        dataset_offset: usize,
    },
    /// No Part 10 file, or one that is not taken.
    Refusal(Refusal),
}

/// The preamble and file meta group to be put before a data set that came without them, as in
/// C-STORE. The same claim gives the same bytes.
pub fn part10_head(sop_class: &Uid, sop_instance: &Uid, transfer_syntax: &Uid) -> Vec<u8> {
    let mut group = Vec::with_capacity(256);
    // FileMetaInformationVersion is the one element here with the long form of a length.
    group.extend_from_slice(b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01");
    push_text(&mut group, 0x0002, *b"UI", sop_class.as_str());
    push_text(&mut group, 0x0003, *b"UI", sop_instance.as_str());
    push_text(&mut group, 0x0010, *b"UI", transfer_syntax.as_str());
    push_text(&mut group, 0x0012, *b"UI", IMPLEMENTATION_CLASS_UID);
    push_text(&mut group, 0x0013, *b"SH", IMPLEMENTATION_VERSION_NAME);

    let mut head = vec![0; PREAMBLE_BYTES];
    head.extend_from_slice(b"DICM\x02\x00\x00\x00UL\x04\x00");
    let group_bytes = u32::try_from(group.len()).unwrap_or(u32::MAX); // five texts of ≤ 64 bytes
    head.extend_from_slice(&group_bytes.to_le_bytes());
    head.extend_from_slice(&group);
    head
}

/// Appends element (0002,`element`), padded to even length as its VR asks (PS3.5 section 6.2).
fn push_text(group: &mut Vec<u8>, element: u16, vr: [u8; 2], text: &str) {
    let padding: &[u8] = match (text.len() % 2, &vr) {
        (0, _) => b"",
        (_, b"UI") => b"\0",
        _ => b" ",
    };
    let length = u16::try_from(text.len() + padding.len()).unwrap_or(u16::MAX); // a Uid has ≤ 64
    group.extend_from_slice(&[2, 0]);
    group.extend_from_slice(&element.to_le_bytes());
    group.extend_from_slice(&vr);
    group.extend_from_slice(&length.to_le_bytes());
    group.extend_from_slice(text.as_bytes());
    group.extend_from_slice(padding);
}

/// Reads preamble and file meta group from the first bytes of a file.
///
/// Never needs more than [`META_BYTES_MAX`] bytes: given that many it does not answer
/// [`MetaParse::NeedMore`].
pub fn parse_part10_meta(prefix: &[u8]) -> MetaParse {
    let prefix = &prefix[..prefix.len().min(META_BYTES_MAX)];
    match scan_group(prefix) {
        Ok(Some(group)) => group.into_parse(),
        Ok(None) if prefix.len() < META_BYTES_MAX => MetaParse::NeedMore,
        Ok(None) => MetaParse::Refusal(Refusal::new(
            ReasonCode::LimitExceeded,
            format!("The file meta group is longer than {META_BYTES_MAX} bytes."),
        )),
        Err(refusal) => MetaParse::Refusal(refusal),
    }
}

/// The refusal for a file that ended, after `file_bytes`, while its head still needed more.
pub fn cut_short(file_bytes: u64) -> Refusal {
    let least = PREAMBLE_BYTES + 4;
    if file_bytes < least as u64 {
        return Refusal::new(
            ReasonCode::NotDicom,
            format!("Not a DICOM file: {file_bytes} bytes, and the head of one alone has {least}."),
        );
    }
    Refusal::new(
        ReasonCode::Truncated,
        format!(
            "The file ends after {file_bytes} bytes, inside its file meta group. Send it again."
        ),
    )
}

/// The elements of the group that matter here.
#[derive(Default)]
struct MetaGroup {
    transfer_syntax: Option<String>,
    sop_class: Option<String>,
    sop_instance: Option<String>,
    end: usize,
}

impl MetaGroup {
    /// Takes from the data set what the group lacks. `false`: more bytes are needed.
    fn complete(&mut self, prefix: &[u8]) -> bool {
        let lacks = [&self.transfer_syntax, &self.sop_class, &self.sop_instance];
        if self.is_deflated() || lacks.iter().all(|one| one.is_some()) {
            return true;
        }
        let data_set = &prefix[self.end..];
        let Some(encoding) = Encoding::seen(data_set) else {
            return data_set.len() >= FIRST_ELEMENT_BYTES;
        };
        let Some(said) = DataSetSays::read(data_set, encoding) else {
            return false;
        };
        let syntax = encoding.transfer_syntax().to_owned();
        self.transfer_syntax.get_or_insert(syntax);
        self.sop_class = self.sop_class.take().or(said.sop_class);
        self.sop_instance = self.sop_instance.take().or(said.sop_instance);
        true
    }

    fn is_deflated(&self) -> bool {
        let named = self.transfer_syntax.as_deref();
        named.map(|uid| uid.trim_end_matches('\0')) == Some(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    }

    fn into_parse(self) -> MetaParse {
        let uids = (
            checked_uid("Transfer Syntax UID (0002,0010)", self.transfer_syntax),
            checked_uid("Media Storage SOP Class UID (0002,0002)", self.sop_class),
            checked_uid(
                "Media Storage SOP Instance UID (0002,0003)",
                self.sop_instance,
            ),
        );
        match uids {
            (Ok(transfer_syntax), Ok(sop_class), Ok(sop_instance)) => MetaParse::Meta {
                transfer_syntax,
                sop_class,
                sop_instance,
                dataset_offset: self.end,
            },
            (Err(refusal), _, _) | (_, Err(refusal), _) | (_, _, Err(refusal)) => {
                MetaParse::Refusal(refusal)
            }
        }
    }
}

/// Bytes that show how a data set is encoded: a tag, and a VR with a length or a length alone.
const FIRST_ELEMENT_BYTES: usize = 8;

/// What a data set says of itself at its beginning.
#[derive(Default)]
struct DataSetSays {
    sop_class: Option<String>,
    sop_instance: Option<String>,
}

impl DataSetSays {
    /// Reads up to SOP Instance UID (0008,0018), or to where it should stand. `None`: more bytes
    /// are needed.
    fn read(data_set: &[u8], encoding: Encoding) -> Option<Self> {
        let mut says = Self::default();
        let mut rest = data_set;
        loop {
            let head: [u8; FIRST_ELEMENT_BYTES] =
                rest.get(..FIRST_ELEMENT_BYTES)?.try_into().ok()?;
            let [g0, g1, e0, e1, vr0, vr1, l0, l1] = head;
            let tag = (encoding.u16([g0, g1]), encoding.u16([e0, e1]));
            // A VR with a long length is none of those that stand before: a sequence.
            let length = match encoding {
                Encoding::ImplicitLittle => encoding.u32([vr0, vr1, l0, l1]),
                Encoding::ExplicitLittle | Encoding::ExplicitBig => {
                    u32::from(encoding.u16([l0, l1]))
                }
            };
            let has_length = encoding == Encoding::ImplicitLittle || has_short_length([vr0, vr1]);
            if tag > (0x0008, 0x0018) || !has_length || length > 1 << 16 {
                return Some(says);
            }
            let end = FIRST_ELEMENT_BYTES + usize::try_from(length).ok()?;
            let text = || Some(String::from_utf8_lossy(&rest[FIRST_ELEMENT_BYTES..end]).into());
            rest.get(..end)?;
            match tag {
                (0x0008, 0x0016) => says.sop_class = text(),
                (0x0008, 0x0018) => says.sop_instance = text(),
                _ => {}
            }
            rest = &rest[end..];
        }
    }
}

/// `text` as a UID, or the sentence that says which attribute is wrong.
pub(super) fn checked_uid(attribute: &str, text: Option<String>) -> Result<Uid, Refusal> {
    let Some(text) = text else {
        return Err(Refusal::new(
            ReasonCode::BadIdentifier,
            format!("{attribute} is missing; without it the object cannot be filed."),
        ));
    };
    Uid::new(&text)
        .map_err(|error| Refusal::new(ReasonCode::BadIdentifier, format!("{attribute}: {error}.")))
}

/// Where the file meta group begins. `None`: more bytes are needed.
fn group_start(prefix: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some(magic) = prefix.get(PREAMBLE_BYTES..PREAMBLE_BYTES + MAGIC.len()) else {
        return Ok(None);
    };
    if magic == MAGIC {
        return Ok(Some(PREAMBLE_BYTES + MAGIC.len()));
    }
    if prefix.starts_with(MAGIC) {
        return Ok(Some(MAGIC.len()));
    }
    let begins = |groups: &[[u8; 2]]| groups.iter().any(|group| prefix.starts_with(group));
    // Without a preamble the group stands first, or, without the group, the data set, which an
    // element of group 0008 begins (PS3.3 C.12.1: SOP Common is mandatory).
    if begins(&[[2, 0], [8, 0], [0, 8]]) && Encoding::seen(prefix).is_some() {
        return Ok(Some(0));
    }
    Err(Refusal::new(
        ReasonCode::NotDicom,
        "Not a DICOM Part 10 file: \"DICM\" is not at byte 128, and no data set begins at byte 0.",
    ))
}

/// Walks over the group's elements. `None`: more is needed.
fn scan_group(prefix: &[u8]) -> Result<Option<MetaGroup>, Refusal> {
    let Some(start) = group_start(prefix)? else {
        return Ok(None);
    };
    let mut group = MetaGroup {
        end: start,
        ..MetaGroup::default()
    };
    let mut stated_end = None;
    loop {
        let Some(number) = prefix.get(group.end..group.end + 2) else {
            return Ok(None);
        };
        // A deflated data set may begin with any bytes, also with those of group 0002: there the
        // stated group length is believed. Elsewhere it is not, for it is often wrong.
        let ended = group.is_deflated() && stated_end.is_some_and(|end| group.end >= end);
        if number != [2, 0] || ended {
            return Ok(group.complete(prefix).then_some(group));
        }
        let Some(element) = MetaElement::read(prefix, group.end)? else {
            return Ok(None);
        };
        let text = || String::from_utf8_lossy(element.value).into_owned();
        group.end = element.end;
        match element.number {
            0x0000 => stated_end = element.as_u32().map(|length| element.end + length),
            0x0002 => group.sop_class = Some(text()),
            0x0003 => group.sop_instance = Some(text()),
            0x0010 => group.transfer_syntax = Some(text()),
            _ => {}
        }
    }
}

struct MetaElement<'a> {
    number: u16,
    value: &'a [u8],
    end: usize,
}

impl<'a> MetaElement<'a> {
    /// Reads the element that begins at `start`. `None`: more bytes are needed.
    fn read(prefix: &'a [u8], start: usize) -> Result<Option<Self>, Refusal> {
        let Some(head) = prefix.get(start..start + 8) else {
            return Ok(None);
        };
        let explicit = head[4..6].iter().all(u8::is_ascii_uppercase);
        let (value_start, length) = if !explicit {
            // Against PS3.10 section 7.1, but written: the group in implicit VR.
            let bytes = [head[4], head[5], head[6], head[7]];
            let length = usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
            (start + 8, length)
        } else if has_short_length([head[4], head[5]]) {
            (
                start + 8,
                usize::from(u16::from_le_bytes([head[6], head[7]])),
            )
        } else {
            let Some(&[a, b, c, d]) = prefix.get(start + 8..start + 12) else {
                return Ok(None);
            };
            let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            (start + 12, length)
        };
        if length > META_BYTES_MAX {
            return Err(Refusal::new(
                ReasonCode::LimitExceeded,
                format!(
                    "An element of the file meta group claims {length} bytes; {META_BYTES_MAX} are allowed."
                ),
            ));
        }
        let end = value_start + length;
        Ok(prefix.get(value_start..end).map(|value| Self {
            number: u16::from_le_bytes([head[2], head[3]]),
            value,
            end,
        }))
    }

    fn as_u32(&self) -> Option<usize> {
        let bytes: [u8; 4] = self.value.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn head() -> Vec<u8> {
        part10_head(
            &uid("1.2.840.10008.5.1.4.1.1.2"),
            &uid("1.2.3.45"),
            &uid("1.2.840.10008.1.2.1"),
        )
    }

    #[test]
    fn a_head_that_tez_writes_is_read_back_and_ends_where_the_data_set_begins() {
        let head = head();
        let mut file = head.clone();
        file.extend_from_slice(&[8, 0, 5, 0]);
        assert_eq!(
            parse_part10_meta(&file),
            MetaParse::Meta {
                transfer_syntax: uid("1.2.840.10008.1.2.1"),
                sop_class: uid("1.2.840.10008.5.1.4.1.1.2"),
                sop_instance: uid("1.2.3.45"),
                dataset_offset: head.len(),
            }
        );
    }

    #[test]
    fn the_head_is_one_that_dicom_object_reads_too() {
        let head = head();
        let table = dicom_object::FileMetaTable::from_reader(&head[PREAMBLE_BYTES..]).unwrap();
        assert_eq!(table.media_storage_sop_instance_uid(), "1.2.3.45");
        assert_eq!(
            table.implementation_version_name.as_deref().map(str::trim),
            Some("TEZ_0_1")
        );
        assert!(Uid::new(IMPLEMENTATION_CLASS_UID).is_ok());
    }

    #[test]
    fn every_shorter_prefix_asks_for_more() {
        let mut file = head();
        file.extend_from_slice(&[8, 0]);
        for length in 0..file.len() {
            assert_eq!(
                parse_part10_meta(&file[..length]),
                MetaParse::NeedMore,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_deflated_data_set_that_begins_like_a_meta_element_is_not_taken_for_one() {
        let mut file = part10_head(&uid("1.2"), &uid("1.3"), &uid("1.2.840.10008.1.2.1.99"));
        let offset = file.len();
        file.extend_from_slice(b"\x02\x00\x10\x00UI\x02\x00XX");
        let MetaParse::Meta { dataset_offset, .. } = parse_part10_meta(&file) else {
            panic!("the head was not read");
        };
        assert_eq!(dataset_offset, offset);
    }

    #[test]
    fn a_uid_with_slashes_is_refused_with_the_attributes_name() {
        let mut file = head();
        let at = file
            .windows(8)
            .position(|window| window == b"1.2.3.45")
            .unwrap();
        file[at..at + 8].copy_from_slice(b"../../et");
        file.extend_from_slice(&[8, 0]);
        let MetaParse::Refusal(refusal) = parse_part10_meta(&file) else {
            panic!("taken");
        };
        assert_eq!(refusal.reason.code, ReasonCode::BadIdentifier);
        assert!(
            refusal.reason.text.contains("(0002,0003)"),
            "{}",
            refusal.reason.text
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut file = vec![0; PREAMBLE_BYTES];
            file.extend_from_slice(b"DICM");
            file.extend_from_slice(&bytes);
            parse_part10_meta(&bytes);
            parse_part10_meta(&file);
        }

        #[test]
        fn a_damaged_head_never_panics(at in 132_usize..300, value in any::<u8>()) {
            let mut file = head();
            let at = at.min(file.len() - 1);
            file[at] = value;
            file.resize(META_BYTES_MAX, 0);
            prop_assert_ne!(parse_part10_meta(&file), MetaParse::NeedMore);
        }
    }
}
