//! An association request → the accepted contexts, or the rejection.

use std::collections::BTreeMap;

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason,
    AssociationRJSource, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason as Verdict,
};
use pipeline::uid::Uid;

pub(crate) use super::syntaxes::Purpose;
use super::syntaxes::choose_transfer_syntax;
use super::{APPLICATION_CONTEXT, PROTOCOL_VERSION, our_user_variables, peer_pdu_bytes_max, trim};

/// What an acceptor holds against a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    /// The AE title that must be called; `None`: any.
    pub(crate) called_ae_title: Option<&'a str>,
    /// Whether the calling AE title may send from where it calls.
    pub(crate) caller_is_admitted: bool,
    /// Longest P-DATA-TF that we take, bytes without header.
    pub(crate) pdu_bytes_max: u32,
}

/// An accepted presentation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedContext {
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// The encoding of its data sets.
    pub(crate) transfer_syntax_uid: Uid,
}

/// What both sides agreed on.
#[derive(Debug)]
pub(crate) struct Agreement {
    /// The accepted contexts by their id.
    pub(crate) contexts: BTreeMap<u8, AcceptedContext>,
    /// Longest P-DATA-TF that the peer takes, bytes without header; 0 for no limit.
    pub(crate) peer_pdu_bytes_max: u32,
    /// The answer.
    pub(crate) acceptance: AssociationAC,
}

/// Why an association is refused: the PDU to send, and a word for metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) pdu: AssociationRJ,
    pub(crate) label: &'static str,
}

impl Rejection {
    fn permanent(source: AssociationRJSource, label: &'static str) -> Self {
        let result = AssociationRJResult::Permanent;
        let pdu = AssociationRJ { result, source };
        Self { pdu, label }
    }

    /// All associations are taken; the peer may come again.
    pub(crate) fn local_limit_exceeded() -> Self {
        let reason = AssociationRJServiceProviderPresentationReason::LocalLimitExceeded;
        let pdu = AssociationRJ {
            result: AssociationRJResult::Transient,
            source: AssociationRJSource::ServiceProviderPresentation(reason),
        };
        Self {
            pdu,
            label: "local_limit_exceeded",
        }
    }
}

/// Decides on a request.
///
/// # Errors
///
/// The [`Rejection`], in the order of PS3.8 table 9-21 from the protocol up to the peer.
pub(crate) fn accept(request: &AssociationRQ, terms: &Terms<'_>) -> Result<Agreement, Rejection> {
    check_request(request, terms)?;
    let mut contexts = BTreeMap::new();
    let mut results = Vec::new();
    for proposed in &request.presentation_contexts {
        let decision = decide(proposed);
        results.push(result(proposed.id, &decision));
        if let Ok(context) = decision {
            remark_even_id(proposed.id, request);
            contexts.insert(proposed.id, context);
        }
    }
    Ok(Agreement {
        contexts,
        peer_pdu_bytes_max: peer_pdu_bytes_max(&request.user_variables),
        acceptance: AssociationAC {
            protocol_version: PROTOCOL_VERSION,
            calling_ae_title: request.calling_ae_title.clone(),
            called_ae_title: request.called_ae_title.clone(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: results,
            user_variables: our_user_variables(terms.pdu_bytes_max),
        },
    })
}

/// PS3.8 section 9.3.2.2 has odd ids from 1 to 255. Some senders count one by one; nothing is unclear
/// about which context they mean.
fn remark_even_id(id: u8, request: &AssociationRQ) {
    if id.is_multiple_of(2) {
        let calling_ae_title = request.calling_ae_title.as_str();
        tracing::info!(
            calling_ae_title,
            id,
            "took a presentation context with an even id, against PS3.8 section 9.3.2.2"
        );
    }
}

fn check_request(request: &AssociationRQ, terms: &Terms<'_>) -> Result<(), Rejection> {
    use AssociationRJServiceUserReason as Reason;
    let user = |reason, label| {
        let source = AssociationRJSource::ServiceUser(reason);
        Err(Rejection::permanent(source, label))
    };
    if request.protocol_version & PROTOCOL_VERSION == 0 {
        let reason = AssociationRJServiceProviderASCEReason::ProtocolVersionNotSupported;
        let source = AssociationRJSource::ServiceProviderASCE(reason);
        return Err(Rejection::permanent(source, "protocol_version"));
    }
    if trim(&request.application_context_name) != APPLICATION_CONTEXT {
        let reason = Reason::ApplicationContextNameNotSupported;
        return user(reason, "application_context");
    }
    let called = request.called_ae_title.as_str();
    if terms.called_ae_title.is_some_and(|title| title != called) {
        return user(Reason::CalledAETitleNotRecognized, "called_ae_title");
    }
    // The standard has no reason for an address: a title from elsewhere is not recognised either.
    if !terms.caller_is_admitted {
        return user(Reason::CallingAETitleNotRecognized, "calling_ae_title");
    }
    Ok(())
}

fn decide(proposed: &PresentationContextProposed) -> Result<AcceptedContext, Verdict> {
    let purpose =
        Purpose::of(&proposed.abstract_syntax).ok_or(Verdict::AbstractSyntaxNotSupported)?;
    let transfer_syntax_uid = choose_transfer_syntax(&proposed.transfer_syntaxes)
        .ok_or(Verdict::TransferSyntaxesNotSupported)?;
    Ok(AcceptedContext {
        purpose,
        transfer_syntax_uid,
    })
}

fn result(id: u8, decision: &Result<AcceptedContext, Verdict>) -> PresentationContextResult {
    let (reason, transfer_syntax) = match decision {
        Ok(context) => (Verdict::Acceptance, context.transfer_syntax_uid.as_str()),
        // Not significant with a rejection (PS3.8 9.3.3.2), but some peers parse it.
        Err(reason) => (reason.clone(), uids::IMPLICIT_VR_LITTLE_ENDIAN),
    };
    PresentationContextResult {
        id,
        reason,
        transfer_syntax: transfer_syntax.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use dicom_ul::pdu::UserVariableItem;

    use super::*;

    const TERMS: Terms<'static> = Terms {
        called_ae_title: Some("TEZ"),
        caller_is_admitted: true,
        pdu_bytes_max: 65_536,
    };

    fn request() -> AssociationRQ {
        AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "CT1".to_owned(),
            called_ae_title: "TEZ".to_owned(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: Vec::new(),
            user_variables: vec![UserVariableItem::MaxLength(16_384)],
        }
    }

    fn context(id: u8, abstract_syntax: &str) -> PresentationContextProposed {
        PresentationContextProposed {
            id,
            abstract_syntax: abstract_syntax.to_owned(),
            transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned()],
        }
    }

    #[test]
    fn each_fault_of_a_request_has_its_own_reason() {
        use AssociationRJServiceUserReason as Reason;
        let mut wrong_called = request();
        wrong_called.called_ae_title = "PACS".to_owned();
        let mut wrong_context = request();
        wrong_context.application_context_name = "1.2.3".to_owned();
        for (request, reason) in [
            (wrong_called, Reason::CalledAETitleNotRecognized),
            (wrong_context, Reason::ApplicationContextNameNotSupported),
        ] {
            let rejection = accept(&request, &TERMS).unwrap_err();
            let source = AssociationRJSource::ServiceUser(reason);
            assert_eq!(rejection.pdu.source, source);
            assert_eq!(rejection.pdu.result, AssociationRJResult::Permanent);
        }
        let mut wrong_version = request();
        wrong_version.protocol_version = 2;
        let rejection = accept(&wrong_version, &TERMS).unwrap_err();
        assert_eq!(rejection.label, "protocol_version");
    }

    #[test]
    fn any_called_title_is_taken_where_none_is_asked_for() {
        let mut request = request();
        request.called_ae_title = "PACS".to_owned();
        let terms = Terms {
            called_ae_title: None,
            ..TERMS
        };
        assert!(accept(&request, &terms).is_ok());
    }

    #[test]
    fn a_caller_that_is_not_admitted_is_a_calling_title_not_recognised() {
        let terms = Terms {
            caller_is_admitted: false,
            ..TERMS
        };
        let rejection = accept(&request(), &terms).unwrap_err();
        let reason = AssociationRJServiceUserReason::CallingAETitleNotRecognized;
        let source = AssociationRJSource::ServiceUser(reason);
        assert_eq!(rejection.pdu.source, source);
    }

    #[test]
    fn any_id_of_a_context_is_taken() {
        let mut request = request();
        let ids = [1, 2, 127, 128, 129, 200, 255];
        request.presentation_contexts = ids
            .iter()
            .map(|id| context(*id, uids::CT_IMAGE_STORAGE))
            .collect();
        let agreement = accept(&request, &TERMS).unwrap();
        assert!(agreement.contexts.keys().copied().eq(ids));
        let answered = agreement.acceptance.presentation_contexts.iter();
        assert!(answered.map(|context| context.id).eq(ids));
    }

    #[test]
    fn further_protocol_versions_beside_the_first_do_not_matter() {
        let mut both = request();
        both.protocol_version = 3;
        assert!(accept(&both, &TERMS).is_ok());
    }

    #[test]
    fn a_context_without_a_transfer_syntax_is_refused() {
        for offered in [&[][..], &["x".to_owned()]] {
            let mut proposed = context(1, uids::CT_IMAGE_STORAGE);
            proposed.transfer_syntaxes = offered.to_vec();
            let verdict = decide(&proposed).unwrap_err();
            assert_eq!(verdict, Verdict::TransferSyntaxesNotSupported);
        }
    }

    #[test]
    fn contexts_are_answered_one_by_one() {
        let mut request = request();
        request.presentation_contexts = vec![
            context(1, uids::CT_IMAGE_STORAGE),
            context(3, uids::STORAGE_COMMITMENT_PUSH_MODEL),
        ];
        let agreement = accept(&request, &TERMS).unwrap();
        assert_eq!(agreement.contexts.keys().collect::<Vec<_>>(), [&1]);
        assert_eq!(agreement.peer_pdu_bytes_max, 16_384);
        let verdicts: Vec<_> = agreement
            .acceptance
            .presentation_contexts
            .iter()
            .map(|result| (result.id, result.reason.clone()))
            .collect();
        assert_eq!(
            verdicts,
            [
                (1, Verdict::Acceptance),
                (3, Verdict::AbstractSyntaxNotSupported)
            ]
        );
    }
}
