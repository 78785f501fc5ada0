//! PDUs as bytes (PS3.8 section 9.3): what is written, and the head of a presentation data value.

use dicom_ul::pdu::Pdu;

/// Type, a reserved byte and the length.
pub(crate) const PDU_HEADER_BYTES: usize = 6;
/// Length, presentation context and message control header.
pub(crate) const PDV_HEADER_BYTES: usize = 6;
/// Longest and shortest P-DATA-TF that we write, whatever the peer asks for, bytes without header.
const WRITTEN_PDU_BYTES_MAX: usize = 128 << 10;
const WRITTEN_PDU_BYTES_MIN: usize = 128;

/// The types of PDUs that are told apart before they are read.
pub(crate) mod kind {
    /// A-ASSOCIATE-RQ.
    pub(crate) const ASSOCIATE_RQ: u8 = 0x01;
    /// A-ASSOCIATE-AC.
    pub(crate) const ASSOCIATE_AC: u8 = 0x02;
    /// A-ASSOCIATE-RJ.
    pub(crate) const ASSOCIATE_RJ: u8 = 0x03;
    /// P-DATA-TF.
    pub(crate) const P_DATA_TF: u8 = 0x04;
    /// A-RELEASE-RQ.
    pub(crate) const RELEASE_RQ: u8 = 0x05;
    /// A-RELEASE-RP.
    pub(crate) const RELEASE_RP: u8 = 0x06;
    /// A-ABORT.
    pub(crate) const ABORT: u8 = 0x07;
}

/// The head of one presentation data value (PS3.8 section 9.3.5 and annex E): one fragment of a
/// command set or of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Presentation context.
    pub(crate) context_id: u8,
    /// Of a command set; else of a data set.
    pub(crate) is_command: bool,
    /// The last of its set.
    pub(crate) is_last: bool,
}

impl Fragment {
    /// What the context and the message control header say.
    pub(crate) fn read(context_id: u8, control: u8) -> Self {
        Self {
            context_id,
            is_command: control & 0x01 != 0,
            is_last: control & 0x02 != 0,
        }
    }

    fn control(self) -> u8 {
        u8::from(self.is_command) | u8::from(self.is_last) << 1
    }
}

/// The PDU as bytes. One that cannot be encoded becomes an abort, which always can.
pub(crate) fn encode(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = dicom_ul::write_pdu(&mut bytes, pdu) {
        tracing::error!(%error, "could not encode a PDU");
        bytes = vec![kind::ABORT, 0, 0, 0, 0, 4, 0, 0, 2, 0];
    }
    bytes
}

/// Most bytes of a fragment to a peer that takes P-DATA-TF of `peer_pdu_bytes_max`; 0: of any length.
pub(crate) fn fragment_bytes_max(peer_pdu_bytes_max: u32) -> usize {
    let taken = usize::try_from(peer_pdu_bytes_max)
        .ok()
        .filter(|bytes| *bytes != 0)
        .unwrap_or(usize::MAX);
    taken.clamp(WRITTEN_PDU_BYTES_MIN, WRITTEN_PDU_BYTES_MAX) - PDV_HEADER_BYTES
}

/// Appends a P-DATA-TF that holds one fragment, no longer than [`fragment_bytes_max`].
pub(crate) fn push_fragment(pdus: &mut Vec<u8>, fragment: Fragment, bytes: &[u8]) {
    let item_length = u32::try_from(bytes.len() + 2).unwrap_or(u32::MAX); // is not that long
    pdus.extend_from_slice(&[kind::P_DATA_TF, 0]);
    pdus.extend_from_slice(&(item_length + 4).to_be_bytes());
    pdus.extend_from_slice(&item_length.to_be_bytes());
    pdus.extend_from_slice(&[fragment.context_id, fragment.control()]);
    pdus.extend_from_slice(bytes);
}

/// A command set as one P-DATA-TF, or several where the peer takes only short ones; to be sent in
/// one write, lest Nagle's algorithm hold the second half of it back.
pub(crate) fn command_pdus(context_id: u8, set: &[u8], fragment_bytes_max: usize) -> Vec<u8> {
    let mut pdus = Vec::with_capacity(set.len() + 16);
    let mut pieces = set.chunks(fragment_bytes_max).peekable();
    while let Some(piece) = pieces.next() {
        let fragment = Fragment {
            context_id,
            is_command: true,
            is_last: pieces.peek().is_none(),
        };
        push_fragment(&mut pdus, fragment, piece);
    }
    pdus
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::{AbortRQSource, AssociationAC, PDataValueType};

    use super::*;

    #[test]
    fn a_response_is_cut_to_what_the_peer_takes_and_joins_again() {
        let set: Vec<u8> = (0..=255).collect();
        let bytes = command_pdus(5, &set, fragment_bytes_max(134));
        let mut rest = bytes.as_slice();
        let mut joined = Vec::new();
        while let Some(Pdu::PData { data }) = dicom_ul::read_pdu(&mut rest, 1024, true).unwrap() {
            for value in data {
                assert_eq!(value.presentation_context_id, 5);
                assert_eq!(value.value_type, PDataValueType::Command);
                assert!(value.data.len() <= 128);
                joined.extend_from_slice(&value.data);
                assert_eq!(value.is_last, joined.len() == set.len());
            }
        }
        assert_eq!(joined, set);
    }

    #[test]
    fn a_peer_without_a_limit_or_with_an_absurd_one_is_sent_what_is_usual() {
        assert_eq!(fragment_bytes_max(16_384), 16_378);
        assert_eq!(fragment_bytes_max(0), fragment_bytes_max(u32::MAX));
        assert_eq!(fragment_bytes_max(1), fragment_bytes_max(128));
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        for control in 0..4 {
            assert_eq!(Fragment::read(9, control).control(), control);
        }
    }

    #[test]
    fn the_fallback_of_the_encoder_is_an_abort() {
        let long = "TITLE OF MORE THAN SIXTEEN".to_owned();
        let unencodable = Pdu::AssociationAC(AssociationAC {
            protocol_version: 1,
            calling_ae_title: long.clone(),
            called_ae_title: long,
            application_context_name: String::new(),
            presentation_contexts: Vec::new(),
            user_variables: Vec::new(),
        });
        let bytes = encode(&unencodable);
        let pdu = dicom_ul::read_pdu(bytes.as_slice(), 1024, true).unwrap();
        assert!(matches!(
            pdu,
            Some(Pdu::AbortRQ {
                source: AbortRQSource::ServiceProvider(_)
            })
        ));
    }
}
