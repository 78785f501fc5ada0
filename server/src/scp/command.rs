//! DIMSE command sets: the few elements that storage needs, and the responses to them.
//!
//! A command set is always Implicit VR Little Endian, flat, and of group 0000 only (PS3.7 section
//! 6.3.1), so it is read here without recursion: a general reader would follow nested sequences
//! that a hostile peer may send and no command has.

/// Verification request (PS3.7 section 9.3.5).
pub(super) const C_ECHO_RQ: u16 = 0x0030;
/// Storage request (PS3.7 section 9.3.1).
pub(super) const C_STORE_RQ: u16 = 0x0001;
/// Request to stop an operation; has no response (PS3.7 section 9.3.2.3).
pub(super) const C_CANCEL_RQ: u16 = 0x0FFF;
/// Set in the Command Field of every response (PS3.7 annex E.1).
const RESPONSE: u16 = 0x8000;
/// Command Data Set Type of a message without a data set (PS3.7 annex E.1).
const NO_DATA_SET: u16 = 0x0101;
/// Longest Error Comment: one LO value (PS3.5 section 6.2).
const COMMENT_CHARACTERS_MAX: usize = 64;

// Element numbers in group 0000 (PS3.7 annex E.1).
const GROUP_LENGTH: u16 = 0x0000;
const AFFECTED_SOP_CLASS_UID: u16 = 0x0002;
const COMMAND_FIELD: u16 = 0x0100;
const MESSAGE_ID: u16 = 0x0110;
const MESSAGE_ID_BEING_RESPONDED_TO: u16 = 0x0120;
const COMMAND_DATA_SET_TYPE: u16 = 0x0800;
const STATUS: u16 = 0x0900;
const ERROR_COMMENT: u16 = 0x0902;
const AFFECTED_SOP_INSTANCE_UID: u16 = 0x1000;

/// What a peer asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// Which operation.
    pub(super) field: u16,
    /// Its number, which the response repeats.
    pub(super) message_id: u16,
    /// Affected SOP Class UID as sent, without padding; empty where absent.
    pub(super) sop_class_uid: String,
    /// Affected SOP Instance UID as sent, without padding; empty where absent.
    pub(super) sop_instance_uid: String,
    /// A data set follows.
    pub(super) has_data_set: bool,
}

impl Command {
    /// Reads a whole command set. `None` if it is cut short, holds other groups, or lacks its
    /// Command Field, its Message ID or its Command Data Set Type.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut command = Self::default();
        let (mut field, mut message_id, mut data_set_type) = (None, None, None);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (element, value, after) = split_element(rest)?;
            rest = after;
            match element {
                COMMAND_FIELD => field = Some(read_u16(value)?),
                MESSAGE_ID => message_id = Some(read_u16(value)?),
                COMMAND_DATA_SET_TYPE => data_set_type = Some(read_u16(value)?),
                AFFECTED_SOP_CLASS_UID => command.sop_class_uid = read_text(value),
                AFFECTED_SOP_INSTANCE_UID => command.sop_instance_uid = read_text(value),
                _ => {}
            }
        }
        command.field = field?;
        // A C-CANCEL-RQ and a response name the message they belong to instead.
        let has_no_id = command.field == C_CANCEL_RQ || command.is_response();
        command.message_id = message_id.or(has_no_id.then_some(0))?;
        command.has_data_set = data_set_type? != NO_DATA_SET;
        Some(command)
    }

    /// It answers a request, and we made none.
    pub(super) fn is_response(&self) -> bool {
        self.field & RESPONSE != 0
    }

    /// The command set of the response: `status`, with a comment for people if there is one.
    pub(super) fn response(&self, status: u16, comment: Option<&str>) -> Vec<u8> {
        let mut set = Vec::with_capacity(256);
        if !self.sop_class_uid.is_empty() {
            push(
                &mut set,
                AFFECTED_SOP_CLASS_UID,
                &padded(&self.sop_class_uid, 0),
            );
        }
        push_u16(&mut set, COMMAND_FIELD, self.field | RESPONSE);
        push_u16(&mut set, MESSAGE_ID_BEING_RESPONDED_TO, self.message_id);
        push_u16(&mut set, COMMAND_DATA_SET_TYPE, NO_DATA_SET);
        push_u16(&mut set, STATUS, status);
        if let Some(comment) = comment {
            push(&mut set, ERROR_COMMENT, &padded(&shortened(comment), b' '));
        }
        if !self.sop_instance_uid.is_empty() {
            let uid = padded(&self.sop_instance_uid, 0);
            push(&mut set, AFFECTED_SOP_INSTANCE_UID, &uid);
        }
        let length = u32::try_from(set.len()).unwrap_or(u32::MAX); // three short texts
        let mut whole = Vec::with_capacity(set.len() + 12);
        push(&mut whole, GROUP_LENGTH, &length.to_le_bytes());
        whole.extend_from_slice(&set);
        whole
    }
}

/// Splits the first element off: its number in group 0000, its value, and what follows.
fn split_element(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<8>()?;
    let [group_low, group_high, low, high, length @ ..] = *header;
    if [group_low, group_high] != [0, 0] {
        return None;
    }
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    let (value, after) = rest.split_at_checked(length)?;
    Some((u16::from_le_bytes([low, high]), value, after))
}

fn read_u16(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_le_bytes)
}

fn read_text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_matches(['\0', ' '])
        .to_owned()
}

fn push(set: &mut Vec<u8>, element: u16, value: &[u8]) {
    set.extend_from_slice(&[0, 0]);
    set.extend_from_slice(&element.to_le_bytes());
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX); // read from, or shorter than, a command set
    set.extend_from_slice(&length.to_le_bytes());
    set.extend_from_slice(value);
}

fn push_u16(set: &mut Vec<u8>, element: u16, value: u16) {
    push(set, element, &value.to_le_bytes());
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
        push(&mut set, AFFECTED_SOP_CLASS_UID, b"1.2.840.10008.1.1\0");
        push_u16(&mut set, COMMAND_FIELD, C_ECHO_RQ);
        push_u16(&mut set, MESSAGE_ID, 7);
        push_u16(&mut set, COMMAND_DATA_SET_TYPE, NO_DATA_SET);
        set
    }

    #[test]
    fn a_command_is_read() {
        let command = Command::read(&echo()).unwrap();
        let expected = Command {
            field: C_ECHO_RQ,
            message_id: 7,
            sop_class_uid: "1.2.840.10008.1.1".to_owned(),
            sop_instance_uid: String::new(),
            has_data_set: false,
        };
        assert_eq!(command, expected);
    }

    #[test]
    fn a_command_without_its_message_id_is_refused() {
        let mut set = Vec::new();
        push_u16(&mut set, COMMAND_FIELD, C_STORE_RQ);
        push_u16(&mut set, COMMAND_DATA_SET_TYPE, 0);
        assert_eq!(Command::read(&set), None);
    }

    #[test]
    fn an_element_of_another_group_is_refused() {
        let mut set = echo();
        set.extend_from_slice(&[0x10, 0, 0x10, 0, 2, 0, 0, 0, b'A', b'B']);
        assert_eq!(Command::read(&set), None);
    }

    #[test]
    fn a_response_repeats_what_it_answers_and_its_length_is_right() {
        let request = Command {
            field: C_STORE_RQ,
            message_id: 513,
            sop_class_uid: "1.2.3".to_owned(),
            sop_instance_uid: "1.2.3.4".to_owned(),
            has_data_set: true,
        };
        let response = request.response(0xA700, Some("the disk is full\\é"));
        let (element, length, rest) = split_element(&response).unwrap();
        assert_eq!(element, GROUP_LENGTH);
        let length = u32::from_le_bytes(length.try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), rest.len());

        let read = Command::read(&response).unwrap();
        assert_eq!(read.field, 0x8001);
        assert_eq!(read.sop_class_uid, "1.2.3");
        assert_eq!(read.sop_instance_uid, "1.2.3.4");
        assert!(!read.has_data_set);
        let find = |wanted: u16| {
            let mut rest = response.as_slice();
            while let Some((element, value, after)) = split_element(rest) {
                if element == wanted {
                    return Some(value);
                }
                rest = after;
            }
            None
        };
        assert_eq!(find(STATUS), Some(&0xA700_u16.to_le_bytes()[..]));
        let answered = find(MESSAGE_ID_BEING_RESPONDED_TO);
        assert_eq!(answered, Some(&513_u16.to_le_bytes()[..]));
        assert_eq!(find(ERROR_COMMENT), Some(&b"the disk is full??"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::read(&bytes);
        }

        #[test]
        fn a_cut_command_is_refused_or_whole(cut in 0_usize..60) {
            let set = echo();
            let cut = cut.min(set.len() - 1);
            prop_assert_eq!(Command::read(&set[..cut]), None);
        }
    }
}
