//! What we propose → the association request, and what its answer accepts.
//!
//! Data sets go out byte for byte, so each pair of SOP class and transfer syntax is proposed in a
//! presentation context of its own, and a peer that takes the class only in another syntax gets
//! nothing of it.

use std::collections::{BTreeMap, BTreeSet};

use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, PresentationContextProposed,
    PresentationContextResultReason as Verdict,
};
use pipeline::uid::Uid;

use super::{APPLICATION_CONTEXT, PROTOCOL_VERSION, our_user_variables, peer_pdu_bytes_max, trim};

/// Presentation contexts in one association: their ids are the odd numbers of one byte
/// (PS3.8 section 9.3.2.2).
pub const CONTEXTS_MAX: usize = 128;

/// What we want to send: one presentation context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proposal {
    /// SOP class, the abstract syntax.
    pub sop_class_uid: Uid,
    /// The one transfer syntax.
    pub transfer_syntax_uid: Uid,
}

/// Who asks whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Titles<'a> {
    pub(crate) calling: &'a str,
    pub(crate) called: &'a str,
}

/// The contexts that are proposed, by their id.
#[derive(Clone, Debug)]
pub(crate) struct Proposed(BTreeMap<u8, Proposal>);

/// What the peer accepted of them.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The id of each context.
    pub(crate) contexts: BTreeMap<Proposal, u8>,
    /// Longest P-DATA-TF that the peer takes, bytes without header; 0 for no limit.
    pub(crate) peer_pdu_bytes_max: u32,
}

impl Proposed {
    /// Gives an id to each of `proposals`, of which [`CONTEXTS_MAX`] are proposed at most.
    pub(crate) fn new(proposals: &BTreeSet<Proposal>) -> Self {
        let ids = (1..=u8::MAX).step_by(2);
        Self(ids.zip(proposals.iter().cloned()).collect())
    }

    /// The association request.
    pub(crate) fn request(&self, titles: Titles<'_>, pdu_bytes_max: u32) -> AssociationRQ {
        let contexts = self.0.iter().map(|(id, proposal)| {
            let transfer_syntax = proposal.transfer_syntax_uid.to_string();
            PresentationContextProposed {
                id: *id,
                abstract_syntax: proposal.sop_class_uid.to_string(),
                transfer_syntaxes: vec![transfer_syntax],
            }
        });
        AssociationRQ {
            protocol_version: PROTOCOL_VERSION,
            calling_ae_title: titles.calling.to_owned(),
            called_ae_title: titles.called.to_owned(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: contexts.collect(),
            user_variables: our_user_variables(pdu_bytes_max),
        }
    }

    /// What `acceptance` grants: a context in a transfer syntax that was not proposed is none.
    pub(crate) fn granted(self, acceptance: &AssociationAC) -> Granted {
        let mut proposed = self.0;
        let mut contexts = BTreeMap::new();
        for result in &acceptance.presentation_contexts {
            if result.reason != Verdict::Acceptance {
                continue;
            }
            if let Some(proposal) = proposed.remove(&result.id)
                && trim(&result.transfer_syntax) == proposal.transfer_syntax_uid.as_str()
            {
                contexts.insert(proposal, result.id);
            }
        }
        Granted {
            contexts,
            peer_pdu_bytes_max: peer_pdu_bytes_max(&acceptance.user_variables),
        }
    }
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::uids;
    use dicom_ul::pdu::PresentationContextResult;

    use super::*;

    fn proposal(number: usize) -> Proposal {
        Proposal {
            sop_class_uid: Uid::new(&format!("1.2.{number}")).unwrap(),
            transfer_syntax_uid: Uid::new(uids::EXPLICIT_VR_LITTLE_ENDIAN).unwrap(),
        }
    }

    fn request(count: usize) -> (Proposed, AssociationRQ) {
        let proposed = Proposed::new(&(0..count).map(proposal).collect());
        let titles = Titles {
            calling: "TEZ-SEND",
            called: "PACS",
        };
        let request = proposed.request(titles, 65_536);
        (proposed, request)
    }

    #[test]
    fn each_proposal_has_an_odd_id_of_its_own() {
        let (_, request) = request(CONTEXTS_MAX);
        let ids = request.presentation_contexts.iter().map(|it| it.id);
        assert!(ids.eq((1..=u8::MAX).step_by(2)));
    }

    #[test]
    fn what_is_accepted_as_it_was_proposed_is_granted_and_nothing_else() {
        let (proposed, request) = request(4);
        let answer = |id, reason, transfer_syntax: &str| PresentationContextResult {
            id,
            reason,
            transfer_syntax: transfer_syntax.to_owned(),
        };
        let acceptance = AssociationAC {
            protocol_version: 1,
            calling_ae_title: request.calling_ae_title,
            called_ae_title: request.called_ae_title,
            application_context_name: request.application_context_name,
            presentation_contexts: vec![
                answer(1, Verdict::Acceptance, "1.2.840.10008.1.2.1\0"),
                answer(3, Verdict::Acceptance, uids::IMPLICIT_VR_LITTLE_ENDIAN),
                answer(5, Verdict::NoReason, uids::EXPLICIT_VR_LITTLE_ENDIAN),
                answer(99, Verdict::Acceptance, uids::EXPLICIT_VR_LITTLE_ENDIAN),
            ],
            user_variables: Vec::new(),
        };
        let granted = proposed.granted(&acceptance);
        assert_eq!(granted.contexts, BTreeMap::from([(proposal(0), 1)]));
        assert_eq!(granted.peer_pdu_bytes_max, 0);
    }
}
