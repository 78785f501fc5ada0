//! The DICOM storage user: sends files to another application entity by C-STORE, as they are.
//!
//! Blocking: a caller on the async edge gives it a thread of its own. Data sets go out byte for byte,
//! so each pair of SOP class and transfer syntax is proposed in a presentation context of its own,
//! and a peer that takes the class only in another syntax gets nothing of it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dicom_core::{DataElement, VR, dicom_value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;
use dicom_ul::association::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu, PresentationContextResultReason};
use pipeline::header::{META_BYTES_MAX, MetaParse, cut_short, parse_part10_meta};
use pipeline::uid::Uid;

/// Presentation contexts in one association: their ids are the odd numbers of one byte
/// (PS3.8 9.3.2.2).
const CONTEXTS_MAX: usize = 128;
/// How long to wait for a connection.
const CONNECT_SECONDS_MAX: u64 = 10;
/// How long to wait for the peer to take or send bytes; a peer may sync to a slow disk first.
const SILENCE_SECONDS_MAX: u64 = 60;
/// Bytes of a command set that are read at most; a C-STORE response has some 300.
const COMMAND_BYTES_MAX: usize = 64 * 1024;

/// Where to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Host and port, such as `127.0.0.1:11112`.
    pub address: String,
    /// The peer's AE title.
    pub called_ae: String,
    /// Our AE title.
    pub calling_ae: String,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The peer has it: C-STORE status 0x0000, or a warning 0xBxxx (PS3.4 B.2.3).
    Stored {
        /// The status.
        status: u16,
    },
    /// The peer refused it.
    Refused {
        /// The status.
        status: u16,
        /// The peer's own words, if it sent any.
        comment: String,
    },
    /// The peer does not take this SOP class in this transfer syntax.
    NotNegotiated {
        /// SOP class UID.
        sop_class: Uid,
        /// Transfer syntax UID.
        transfer_syntax: Uid,
    },
    /// It is no DICOM file that can be sent.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// Why sending ended before the last file.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// No association: no connection, or rejected.
    #[error("no association with {called_ae} at {address}: {reason}")]
    Association {
        /// Host and port.
        address: String,
        /// The peer's AE title.
        called_ae: String,
        /// What went wrong.
        reason: String,
    },
    /// The association broke off while `path` was being sent.
    #[error("the association broke off while sending {path}: {reason}")]
    Broken {
        /// The file whose fate is unknown.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
}

/// A file's head: what its C-STORE request says, and where its data set begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    path: PathBuf,
    context: Context,
    sop_instance: Uid,
    data_set_offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Context {
    sop_class: Uid,
    transfer_syntax: Uid,
}

/// Sends the files in their order, over one association as long as [`CONTEXTS_MAX`] allows, and
/// tells `tell` what became of each.
///
/// # Errors
///
/// [`ScuError`] when there is no association, or it breaks off; what became of files before that has
/// been told. A file that is refused is no error here: see [`Sent`].
pub fn send(
    paths: &[PathBuf],
    to: &Destination,
    mut tell: impl FnMut(&Path, Sent),
) -> Result<(), ScuError> {
    let mut heads = Vec::new();
    for path in paths {
        match read_head(path) {
            Ok(head) => heads.push(head),
            Err(reason) => tell(path, Sent::Unreadable { reason }),
        }
    }
    for group in groups(&heads) {
        send_group(group, to, &mut tell)?;
    }
    Ok(())
}

fn read_head(path: &Path) -> Result<Head, String> {
    let mut prefix = Vec::new();
    File::open(path)
        .and_then(|file| file.take(META_BYTES_MAX as u64).read_to_end(&mut prefix))
        .map_err(|error| format!("It cannot be read: {error}."))?;
    match parse_part10_meta(&prefix) {
        MetaParse::Meta {
            transfer_syntax,
            sop_class,
            sop_instance,
            dataset_offset,
        } => Ok(Head {
            path: path.to_path_buf(),
            context: Context {
                sop_class,
                transfer_syntax,
            },
            sop_instance,
            data_set_offset: dataset_offset as u64,
        }),
        MetaParse::NeedMore => Err(cut_short(prefix.len() as u64).to_string()),
        MetaParse::Refusal(refusal) => Err(refusal.to_string()),
    }
}

/// Runs of files that need no more presentation contexts than an association has.
fn groups(heads: &[Head]) -> Vec<&[Head]> {
    let mut groups = Vec::new();
    let mut start = 0;
    let mut contexts = BTreeSet::new();
    for (index, head) in heads.iter().enumerate() {
        if contexts.len() == CONTEXTS_MAX && !contexts.contains(&head.context) {
            groups.push(&heads[start..index]);
            start = index;
            contexts.clear();
        }
        contexts.insert(&head.context);
    }
    if start < heads.len() {
        groups.push(&heads[start..]);
    }
    groups
}

fn send_group(
    heads: &[Head],
    to: &Destination,
    tell: &mut impl FnMut(&Path, Sent),
) -> Result<(), ScuError> {
    let mut association = associate(heads, to)?;
    for (message_id, head) in (1..=u16::MAX).cycle().zip(heads) {
        let sent = store(&mut association, head, message_id).map_err(|error| ScuError::Broken {
            path: head.path.clone(),
            reason: with_causes(error.as_ref()),
        })?;
        tell(&head.path, sent);
    }
    if let Err(error) = association.release() {
        // Every file has been answered; a peer that hangs up instead of releasing loses nothing.
        tracing::warn!(error = %with_causes(&error), "the peer did not release the association");
    }
    Ok(())
}

fn associate(heads: &[Head], to: &Destination) -> Result<ClientAssociation<TcpStream>, ScuError> {
    let contexts: BTreeSet<&Context> = heads.iter().map(|head| &head.context).collect();
    let mut options = ClientAssociationOptions::new()
        .calling_ae_title(to.calling_ae.as_str())
        .called_ae_title(to.called_ae.as_str())
        .connection_timeout(Duration::from_secs(CONNECT_SECONDS_MAX))
        .read_timeout(Duration::from_secs(SILENCE_SECONDS_MAX))
        .write_timeout(Duration::from_secs(SILENCE_SECONDS_MAX));
    for context in contexts {
        options = options.with_presentation_context(
            context.sop_class.as_str(),
            vec![context.transfer_syntax.as_str()],
        );
    }
    let failed = |reason: String| ScuError::Association {
        address: to.address.clone(),
        called_ae: to.called_ae.clone(),
        reason,
    };
    let mut association = options
        .establish(to.address.as_str())
        .map_err(|error| failed(with_causes(&error)))?;
    // A request goes out in two writes; without this the second waits for the peer's delayed ACK.
    association
        .inner_stream()
        .set_nodelay(true)
        .map_err(|error| failed(error.to_string()))?;
    Ok(association)
}

fn store(
    association: &mut ClientAssociation<TcpStream>,
    head: &Head,
    message_id: u16,
) -> Result<Sent, Box<dyn std::error::Error>> {
    let Some(context_id) = accepted_context(association, &head.context) else {
        return Ok(Sent::NotNegotiated {
            sop_class: head.context.sop_class.clone(),
            transfer_syntax: head.context.transfer_syntax.clone(),
        });
    };
    let mut file = File::open(&head.path)?;
    file.seek(SeekFrom::Start(head.data_set_offset))?;
    association.send(&Pdu::PData {
        data: vec![PDataValue {
            presentation_context_id: context_id,
            value_type: PDataValueType::Command,
            is_last: true,
            data: store_request(head, message_id)?,
        }],
    })?;
    let mut data = association.send_pdata(context_id);
    std::io::copy(&mut file, &mut data)?;
    data.finish()?;
    acknowledge_at_once(association.inner_stream());
    answer(&receive_command(association)?, message_id)
}

/// Peers that leave Nagle's algorithm on hold the second half of a response back until the first is
/// acknowledged, which costs 40 ms an object. Linux forgets this with every read.
fn acknowledge_at_once(stream: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_quickack(true) {
        tracing::debug!(%error, "cannot set TCP_QUICKACK; slow peers stay slow");
    }
}

fn accepted_context(association: &ClientAssociation<TcpStream>, wanted: &Context) -> Option<u8> {
    association
        .presentation_contexts()
        .iter()
        .find_map(|context| {
            (context.reason == PresentationContextResultReason::Acceptance
                && context.abstract_syntax == wanted.sop_class.as_str()
                && context.transfer_syntax == wanted.transfer_syntax.as_str())
            .then_some(context.id)
        })
}

/// The command set of a C-STORE request (PS3.7 9.3.1.1), always in implicit little endian.
fn store_request(head: &Head, message_id: u16) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let uid = |tag, value: &str| DataElement::new(tag, VR::UI, dicom_value!(Str, value));
    let number = |tag, value: u16| DataElement::new(tag, VR::US, dicom_value!(U16, [value]));
    let command = InMemDicomObject::command_from_element_iter([
        uid(
            tags::AFFECTED_SOP_CLASS_UID,
            head.context.sop_class.as_str(),
        ),
        number(tags::COMMAND_FIELD, 0x0001), // C-STORE-RQ
        number(tags::MESSAGE_ID, message_id),
        number(tags::PRIORITY, 0x0000),              // medium
        number(tags::COMMAND_DATA_SET_TYPE, 0x0001), // anything but 0x0101: a data set follows
        uid(tags::AFFECTED_SOP_INSTANCE_UID, head.sop_instance.as_str()),
    ]);
    let mut bytes = Vec::new();
    command.write_dataset_with_ts(&mut bytes, &IMPLICIT_VR_LITTLE_ENDIAN.erased())?;
    Ok(bytes)
}

/// One command set, which may come in several fragments (PS3.8 annex E).
fn receive_command(
    association: &mut ClientAssociation<TcpStream>,
) -> Result<InMemDicomObject, Box<dyn std::error::Error>> {
    let mut bytes = Vec::new();
    loop {
        let fragments = match association.receive()? {
            Pdu::PData { data } => data,
            Pdu::AbortRQ { .. } => return Err("the peer aborted the association".into()),
            Pdu::ReleaseRQ => return Err("the peer wants to release without answering".into()),
            _ => return Err("the peer answered with a PDU that has no place here".into()),
        };
        for fragment in fragments {
            bytes.extend_from_slice(&fragment.data);
            if bytes.len() > COMMAND_BYTES_MAX {
                return Err(format!("an answer of more than {COMMAND_BYTES_MAX} bytes").into());
            }
            if fragment.is_last {
                let syntax = IMPLICIT_VR_LITTLE_ENDIAN.erased();
                return Ok(InMemDicomObject::read_dataset_with_ts(&bytes[..], &syntax)?);
            }
        }
    }
}

/// What a C-STORE response says (PS3.7 9.3.1.2 and annex C).
fn answer(
    response: &InMemDicomObject,
    message_id: u16,
) -> Result<Sent, Box<dyn std::error::Error>> {
    let command = response.element(tags::COMMAND_FIELD)?.to_int::<u16>()?;
    let answered = response
        .element(tags::MESSAGE_ID_BEING_RESPONDED_TO)?
        .to_int::<u16>()?;
    if command != 0x8001 || answered != message_id {
        return Err(format!(
            "message {message_id} was answered by command {command:#06x} for message {answered}"
        )
        .into());
    }
    let status = response.element(tags::STATUS)?.to_int::<u16>()?;
    if status == 0x0000 || status & 0xF000 == 0xB000 {
        return Ok(Sent::Stored { status });
    }
    let comment = response.element_opt(tags::ERROR_COMMENT)?;
    let comment = comment
        .map(DataElement::to_str)
        .transpose()?
        .unwrap_or_default();
    Ok(Sent::Refused {
        status,
        comment: comment.into_owned(),
    })
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).expect("a UID")
    }

    fn head(sop_class: &str, number: usize) -> Head {
        Head {
            path: PathBuf::from(format!("{number}.dcm")),
            context: Context {
                sop_class: uid(sop_class),
                transfer_syntax: uid("1.2.840.10008.1.2.1"),
            },
            sop_instance: uid(&format!("2.25.{number}")),
            data_set_offset: 0,
        }
    }

    fn response(command: u16, message_id: u16, status: u16) -> InMemDicomObject {
        let number = |tag, value: u16| DataElement::new(tag, VR::US, dicom_value!(U16, [value]));
        InMemDicomObject::command_from_element_iter([
            number(tags::COMMAND_FIELD, command),
            number(tags::MESSAGE_ID_BEING_RESPONDED_TO, message_id),
            number(tags::STATUS, status),
        ])
    }

    #[test]
    fn files_of_one_kind_share_an_association() {
        let heads: Vec<Head> = (0..500).map(|number| head("1.2", number)).collect();
        assert_eq!(groups(&heads).len(), 1);
    }

    #[test]
    fn no_association_needs_more_contexts_than_it_can_have() {
        let heads: Vec<Head> = (0..300)
            .map(|number| head(&format!("1.2.{number}"), number))
            .collect();
        let sizes: Vec<usize> = groups(&heads).iter().map(|group| group.len()).collect();
        assert_eq!(sizes, [128, 128, 44]);
    }

    #[test]
    fn nothing_to_send_needs_no_association() {
        let nowhere = Destination {
            address: "127.0.0.1:1".to_owned(),
            called_ae: "TEZ".to_owned(),
            calling_ae: "TEST".to_owned(),
        };
        let file = std::env::temp_dir().join("no-such-file-of-tez.dcm");
        let mut told = Vec::new();
        send(&[file], &nowhere, |_, sent| told.push(sent)).expect("no association was needed");
        assert!(matches!(told[..], [Sent::Unreadable { .. }]), "{told:?}");
    }

    #[test]
    fn a_request_says_what_is_sent_and_that_a_data_set_follows() {
        let bytes = store_request(&head("1.2.3", 7), 5).expect("a request");
        let syntax = IMPLICIT_VR_LITTLE_ENDIAN.erased();
        let command =
            InMemDicomObject::read_dataset_with_ts(&bytes[..], &syntax).expect("readable");
        let text = |tag| {
            command
                .element(tag)
                .expect("present")
                .to_str()
                .expect("text")
        };
        assert_eq!(text(tags::AFFECTED_SOP_CLASS_UID), "1.2.3");
        assert_eq!(text(tags::AFFECTED_SOP_INSTANCE_UID), "2.25.7");
        assert_ne!(text(tags::COMMAND_DATA_SET_TYPE), "257");
    }

    #[test]
    fn warnings_mean_stored_and_failures_mean_refused() {
        for (status, stored) in [
            (0x0000, true),
            (0xB000, true),
            (0xB007, true),
            (0xA700, false),
            (0xC000, false),
        ] {
            let sent = answer(&response(0x8001, 3, status), 3).expect("an answer");
            assert_eq!(matches!(sent, Sent::Stored { .. }), stored, "{status:#06x}");
        }
    }

    #[test]
    fn an_answer_to_another_message_is_none() {
        answer(&response(0x8001, 4, 0), 3).expect_err("another message");
        answer(&response(0x8030, 3, 0), 3).expect_err("another command");
    }
}
