//! Part 10 files → a peer.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use pipeline::header::{META_BYTES_MAX, MetaParse, cut_short, parse_part10_meta};
use pipeline::uid::Uid;

use super::association::{ExchangeError, ObjectHead, ScuAssociation};
use super::{CONTEXTS_MAX, Destination, Proposal};
use crate::status::Status;

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The peer has it: C-STORE status 0x0000, or a warning 0xBxxx (PS3.4 B.2.3).
    Stored {
        /// The status.
        status: Status,
    },
    /// The peer refused it.
    Refused {
        /// The status.
        status: Status,
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

/// A file that can be sent: what its request says, and where its data set begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sendable {
    path: PathBuf,
    head: ObjectHead,
    data_set_offset: u64,
}

/// Sends the files in their order, over one association as long as [`CONTEXTS_MAX`] allows, and
/// tells `tell` what became of each.
///
/// # Errors
///
/// [`ScuError`] when there is no association, or it breaks off; what became of files before that has
/// been told. A file that is refused is no error here: see [`Sent`].
pub fn send_files(
    paths: &[PathBuf],
    to: &Destination,
    mut tell: impl FnMut(&Path, Sent),
) -> Result<(), ScuError> {
    let mut files = Vec::new();
    for path in paths {
        match read_head(path) {
            Ok(file) => files.push(file),
            Err(reason) => tell(path, Sent::Unreadable { reason }),
        }
    }
    for group in groups(&files) {
        send_group(group, to, &mut tell)?;
    }
    Ok(())
}

fn read_head(path: &Path) -> Result<Sendable, String> {
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
        } => Ok(Sendable {
            path: path.to_path_buf(),
            head: ObjectHead {
                proposal: Proposal {
                    sop_class_uid: sop_class,
                    transfer_syntax_uid: transfer_syntax,
                },
                sop_instance_uid: sop_instance,
            },
            data_set_offset: dataset_offset as u64,
        }),
        MetaParse::NeedMore => Err(cut_short(prefix.len() as u64).to_string()),
        MetaParse::Refusal(refusal) => Err(refusal.to_string()),
    }
}

/// Runs of files that need no more presentation contexts than an association has.
fn groups(files: &[Sendable]) -> Vec<&[Sendable]> {
    let mut groups = Vec::new();
    let mut start = 0;
    let mut proposals = BTreeSet::new();
    for (index, file) in files.iter().enumerate() {
        let proposal = &file.head.proposal;
        if proposals.len() == CONTEXTS_MAX && !proposals.contains(proposal) {
            groups.push(&files[start..index]);
            start = index;
            proposals.clear();
        }
        proposals.insert(proposal);
    }
    if start < files.len() {
        groups.push(&files[start..]);
    }
    groups
}

fn send_group(
    files: &[Sendable],
    to: &Destination,
    tell: &mut impl FnMut(&Path, Sent),
) -> Result<(), ScuError> {
    let proposals = files.iter().map(|file| file.head.proposal.clone());
    let mut association =
        ScuAssociation::open(to, &proposals.collect()).map_err(|error| ScuError::Association {
            address: to.address.clone(),
            called_ae: to.called_ae.clone(),
            reason: error.to_string(),
        })?;
    for file in files {
        match send_file(&mut association, file) {
            Ok(sent) => tell(&file.path, sent),
            Err(error) => {
                association.abort(&error);
                return Err(ScuError::Broken {
                    path: file.path.clone(),
                    reason: error.to_string(),
                });
            }
        }
    }
    if let Err(error) = association.release() {
        // Every file has been answered; a peer that hangs up instead of releasing loses nothing.
        tracing::warn!(%error, "the peer did not release the association");
    }
    Ok(())
}

fn send_file(association: &mut ScuAssociation, file: &Sendable) -> Result<Sent, ExchangeError> {
    let Proposal {
        sop_class_uid,
        transfer_syntax_uid,
    } = &file.head.proposal;
    if !association.takes(&file.head.proposal) {
        return Ok(Sent::NotNegotiated {
            sop_class: sop_class_uid.clone(),
            transfer_syntax: transfer_syntax_uid.clone(),
        });
    }
    let mut data_set = File::open(&file.path).map_err(ExchangeError::Source)?;
    data_set
        .seek(SeekFrom::Start(file.data_set_offset))
        .map_err(ExchangeError::Source)?;
    let answer = association.store(&file.head, data_set)?;
    let status = answer.status;
    Ok(if status.means_stored() {
        Sent::Stored { status }
    } else {
        Sent::Refused {
            status,
            comment: answer.comment,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).expect("a UID")
    }

    fn file(sop_class: &str, number: usize) -> Sendable {
        Sendable {
            path: PathBuf::from(format!("{number}.dcm")),
            head: ObjectHead {
                proposal: Proposal {
                    sop_class_uid: uid(sop_class),
                    transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
                },
                sop_instance_uid: uid(&format!("2.25.{number}")),
            },
            data_set_offset: 0,
        }
    }

    #[test]
    fn files_of_one_kind_share_an_association() {
        let files: Vec<Sendable> = (0..500).map(|number| file("1.2", number)).collect();
        assert_eq!(groups(&files).len(), 1);
    }

    #[test]
    fn no_association_needs_more_contexts_than_it_can_have() {
        let files: Vec<Sendable> = (0..300)
            .map(|number| file(&format!("1.2.{number}"), number))
            .collect();
        let sizes: Vec<usize> = groups(&files).iter().map(|group| group.len()).collect();
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
        send_files(&[file], &nowhere, |_, sent| told.push(sent))
            .expect("no association was needed");
        assert!(matches!(told[..], [Sent::Unreadable { .. }]), "{told:?}");
    }
}
