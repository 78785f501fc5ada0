//! DIMSE command sets (PS3.7 section 6.3 and annex E): one codec for both roles.
//!
//! A command set is always Implicit VR Little Endian, flat, and of group 0000 only (PS3.7 section
//! 6.3.1), so it is read here without recursion: a general reader would follow nested sequences
//! that a hostile peer may send and no command has. [`CommandSet`] is the bytes; [`Request`] and
//! [`Response`] are what they say.

use std::collections::BTreeMap;

use crate::status::{Failure, Status};

/// Set in the Command Field of every response (PS3.7 annex E.1).
const RESPONSE: u16 = 0x8000;
/// Command Data Set Type of a message without a data set (PS3.7 annex E.1); any other has one.
const NO_DATA_SET: u16 = 0x0101;
const DATA_SET: u16 = 0x0001;
/// Priority of a request that is as urgent as any other (PS3.7 annex E.1).
const MEDIUM: u16 = 0x0000;
/// Longest Error Comment: one LO value (PS3.5 section 6.2).
const COMMENT_CHARACTERS_MAX: usize = 64;

/// Which operation, request or response (PS3.7 annex E.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandField(u16);

impl CommandField {
    /// Storage request (PS3.7 section 9.3.1).
    pub(crate) const C_STORE_RQ: Self = Self(0x0001);
    /// Verification request (PS3.7 section 9.3.5).
    pub(crate) const C_ECHO_RQ: Self = Self(0x0030);
    /// Request to stop an operation; has no response (PS3.7 section 9.3.2.3).
    pub(crate) const C_CANCEL_RQ: Self = Self(0x0FFF);

    /// It answers a request.
    pub(crate) fn is_response(self) -> bool {
        self.0 & RESPONSE != 0
    }

    /// What answers this request.
    pub(crate) fn response(self) -> Self {
        Self(self.0 | RESPONSE)
    }

    /// Its code.
    pub(crate) fn code(self) -> u16 {
        self.0
    }
}

/// An element of group 0000 by its number (PS3.7 annex E.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Element(u16);

impl Element {
    const GROUP_LENGTH: Self = Self(0x0000);
    const AFFECTED_SOP_CLASS_UID: Self = Self(0x0002);
    const COMMAND_FIELD: Self = Self(0x0100);
    const MESSAGE_ID: Self = Self(0x0110);
    const MESSAGE_ID_BEING_RESPONDED_TO: Self = Self(0x0120);
    const PRIORITY: Self = Self(0x0700);
    const COMMAND_DATA_SET_TYPE: Self = Self(0x0800);
    const STATUS: Self = Self(0x0900);
    const ERROR_COMMENT: Self = Self(0x0902);
    const AFFECTED_SOP_INSTANCE_UID: Self = Self(0x1000);
}

/// A whole command set: the values of its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandSet(BTreeMap<Element, Vec<u8>>);

impl CommandSet {
    /// Reads a whole command set. `None` if it is cut short or holds other groups.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut set = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let split = split_element(rest)?;
            set.0.insert(split.element, split.value.to_vec());
            rest = split.after;
        }
        Some(set)
    }

    /// Its bytes, elements in ascending order behind the group length (PS3.7 section 6.3.1).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut elements = Vec::with_capacity(256);
        for (element, value) in &self.0 {
            if *element != Element::GROUP_LENGTH {
                push(&mut elements, *element, value);
            }
        }
        let length = u32::try_from(elements.len()).unwrap_or(u32::MAX); // a few short texts
        let mut whole = Vec::with_capacity(elements.len() + 12);
        push(&mut whole, Element::GROUP_LENGTH, &length.to_le_bytes());
        whole.extend_from_slice(&elements);
        whole
    }

    /// Which operation it is of.
    pub(crate) fn field(&self) -> Option<CommandField> {
        self.number(Element::COMMAND_FIELD).map(CommandField)
    }

    /// Whether a data set follows; `None` if it does not say.
    pub(crate) fn has_data_set(&self) -> Option<bool> {
        let kind = self.number(Element::COMMAND_DATA_SET_TYPE)?;
        Some(kind != NO_DATA_SET)
    }

    fn number(&self, element: Element) -> Option<u16> {
        let value = self.0.get(&element)?.as_slice();
        value.try_into().ok().map(u16::from_le_bytes)
    }

    /// A text without its padding; empty where absent.
    fn text(&self, element: Element) -> String {
        let value = self.0.get(&element).map_or(&[][..], Vec::as_slice);
        String::from_utf8_lossy(value)
            .trim_matches(['\0', ' '])
            .to_owned()
    }

    fn with_number(mut self, element: Element, value: u16) -> Self {
        self.0.insert(element, value.to_le_bytes().to_vec());
        self
    }

    /// `uid`, unless it is empty.
    fn with_uid(mut self, element: Element, uid: &str) -> Self {
        if !uid.is_empty() {
            self.0.insert(element, padded(uid, 0));
        }
        self
    }

    fn with_data_set(self, has_data_set: bool) -> Self {
        let kind = if has_data_set { DATA_SET } else { NO_DATA_SET };
        self.with_number(Element::COMMAND_DATA_SET_TYPE, kind)
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Which operation.
    pub(crate) field: CommandField,
    /// Its number, which the response repeats.
    pub(crate) message_id: u16,
    /// Affected SOP Class UID as sent, without padding; empty where absent.
    pub(crate) sop_class_uid: String,
    /// Affected SOP Instance UID as sent, without padding; empty where absent.
    pub(crate) sop_instance_uid: String,
    /// A data set follows.
    pub(crate) has_data_set: bool,
}

impl Request {
    /// What `set` asks. `None` if it is a response, or lacks its Command Field, its Message ID or
    /// its Command Data Set Type.
    pub(crate) fn read(set: &CommandSet) -> Option<Self> {
        let field = set.field().filter(|field| !field.is_response())?;
        // A C-CANCEL-RQ names the message that it stops instead.
        let has_no_id = field == CommandField::C_CANCEL_RQ;
        let message_id = set.number(Element::MESSAGE_ID);
        Some(Self {
            field,
            message_id: message_id.or(has_no_id.then_some(0))?,
            sop_class_uid: set.text(Element::AFFECTED_SOP_CLASS_UID),
            sop_instance_uid: set.text(Element::AFFECTED_SOP_INSTANCE_UID),
            has_data_set: set.has_data_set()?,
        })
    }

    /// The command set that asks for it.
    pub(crate) fn set(&self) -> CommandSet {
        let set = CommandSet::default()
            .with_uid(Element::AFFECTED_SOP_CLASS_UID, &self.sop_class_uid)
            .with_number(Element::COMMAND_FIELD, self.field.0)
            .with_number(Element::MESSAGE_ID, self.message_id)
            .with_data_set(self.has_data_set)
            .with_uid(Element::AFFECTED_SOP_INSTANCE_UID, &self.sop_instance_uid);
        if self.field == CommandField::C_STORE_RQ {
            return set.with_number(Element::PRIORITY, MEDIUM);
        }
        set
    }

    /// The command set of its response: success, or why not.
    pub(crate) fn response(&self, outcome: &Result<(), Failure>) -> CommandSet {
        let failure = outcome.as_ref().err();
        let status = failure.map_or(Status::SUCCESS, |failure| failure.status);
        let mut set = CommandSet::default()
            .with_uid(Element::AFFECTED_SOP_CLASS_UID, &self.sop_class_uid)
            .with_number(Element::COMMAND_FIELD, self.field.response().0)
            .with_number(Element::MESSAGE_ID_BEING_RESPONDED_TO, self.message_id)
            .with_data_set(false)
            .with_number(Element::STATUS, status.code())
            .with_uid(Element::AFFECTED_SOP_INSTANCE_UID, &self.sop_instance_uid);
        if let Some(failure) = failure {
            let comment = padded(&shortened(&failure.comment), b' ');
            set.0.insert(Element::ERROR_COMMENT, comment);
        }
        set
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Which operation.
    pub(crate) field: CommandField,
    /// The number of the request.
    pub(crate) message_id: u16,
    /// What became of it.
    pub(crate) status: Status,
    /// The peer's words for people; empty where absent.
    pub(crate) comment: String,
}

impl Response {
    /// What `set` answers. `None` if it is a request, or lacks its Command Field, its Message ID
    /// Being Responded To or its Status.
    pub(crate) fn read(set: &CommandSet) -> Option<Self> {
        Some(Self {
            field: set.field().filter(|field| field.is_response())?,
            message_id: set.number(Element::MESSAGE_ID_BEING_RESPONDED_TO)?,
            status: Status::new(set.number(Element::STATUS)?),
            comment: set.text(Element::ERROR_COMMENT),
        })
    }
}

/// The first element of a command set, and what follows it.
struct Split<'a> {
    element: Element,
    value: &'a [u8],
    after: &'a [u8],
}

fn split_element(bytes: &[u8]) -> Option<Split<'_>> {
    let (header, rest) = bytes.split_first_chunk::<8>()?;
    let [group_low, group_high, low, high, length @ ..] = *header;
    if [group_low, group_high] != [0, 0] {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    let (value, after) = rest.split_at_checked(length)?;
    Some(Split {
        element: Element(u16::from_le_bytes([low, high])),
        value,
        after,
    })
}

fn push(bytes: &mut Vec<u8>, element: Element, value: &[u8]) {
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&element.0.to_le_bytes());
    // Read from a command set, or shorter than one.
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(value);
}

/// Values have even length (PS3.5 section 7.1.1).
fn padded(text: &str, padding: u8) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(padding);
    }
    value
}

/// Error Comment is of the default repertoire, has no backslash and is at most 64 characters long.
fn shortened(comment: &str) -> String {
    comment
        .chars()
        .map(|character| match character {
            ' '..='~' if character != '\\' => character,
            _ => '?',
        })
        .take(COMMENT_CHARACTERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn echo() -> Vec<u8> {
        let mut set = Vec::new();
        let class = b"1.2.840.10008.1.1\0";
        push(&mut set, Element::AFFECTED_SOP_CLASS_UID, class);
        for (element, value) in [
            (Element::COMMAND_FIELD, 0x0030_u16),
            (Element::MESSAGE_ID, 7),
            (Element::COMMAND_DATA_SET_TYPE, NO_DATA_SET),
        ] {
            push(&mut set, element, &value.to_le_bytes());
        }
        set
    }

    fn read(bytes: &[u8]) -> Option<Request> {
        Request::read(&CommandSet::decode(bytes)?)
    }

    fn store() -> Request {
        Request {
            field: CommandField::C_STORE_RQ,
            message_id: 513,
            sop_class_uid: "1.2.3".to_owned(),
            sop_instance_uid: "1.2.3.4".to_owned(),
            has_data_set: true,
        }
    }

    #[test]
    fn a_request_is_read() {
        let expected = Request {
            field: CommandField::C_ECHO_RQ,
            message_id: 7,
            sop_class_uid: "1.2.840.10008.1.1".to_owned(),
            sop_instance_uid: String::new(),
            has_data_set: false,
        };
        assert_eq!(read(&echo()), Some(expected));
    }

    #[test]
    fn a_request_without_its_message_id_is_refused_but_for_a_cancellation() {
        let set = |field: CommandField| {
            CommandSet::default()
                .with_number(Element::COMMAND_FIELD, field.0)
                .with_data_set(false)
        };
        assert_eq!(Request::read(&set(CommandField::C_STORE_RQ)), None);
        assert!(Request::read(&set(CommandField::C_CANCEL_RQ)).is_some());
    }

    #[test]
    fn an_element_of_another_group_is_refused() {
        let mut set = echo();
        set.extend_from_slice(&[0x10, 0, 0x10, 0, 2, 0, 0, 0, b'A', b'B']);
        assert_eq!(CommandSet::decode(&set), None);
    }

    #[test]
    fn a_request_is_read_as_it_is_written_and_its_length_is_right() {
        let bytes = store().set().encode();
        assert_eq!(read(&bytes), Some(store()));
        let first = split_element(&bytes).unwrap();
        assert_eq!(first.element, Element::GROUP_LENGTH);
        let length = u32::from_le_bytes(first.value.try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), first.after.len());
        let set = CommandSet::decode(&bytes).unwrap();
        assert_eq!(set.number(Element::PRIORITY), Some(MEDIUM));
    }

    #[test]
    fn a_response_repeats_what_it_answers_and_its_comment_is_made_fit() {
        let failure = Failure::new(Status::OUT_OF_RESOURCES, "the disk is full\\é");
        let bytes = store().response(&Err(failure)).encode();
        let set = CommandSet::decode(&bytes).unwrap();
        assert_eq!(set.text(Element::AFFECTED_SOP_CLASS_UID), "1.2.3");
        assert_eq!(set.text(Element::AFFECTED_SOP_INSTANCE_UID), "1.2.3.4");
        assert_eq!(set.has_data_set(), Some(false));
        let expected = Response {
            field: CommandField(0x8001),
            message_id: 513,
            status: Status::OUT_OF_RESOURCES,
            comment: "the disk is full??".to_owned(),
        };
        assert_eq!(Response::read(&set), Some(expected));
        assert_eq!(Request::read(&set), None);
        let done = Response::read(&store().response(&Ok(()))).unwrap();
        assert_eq!(done.status, Status::SUCCESS);
        assert_eq!(done.comment, "");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn a_cut_command_is_refused_or_whole(cut in 0_usize..60) {
            let set = echo();
            let cut = cut.min(set.len() - 1);
            prop_assert_eq!(read(&set[..cut]), None);
        }
    }
}
