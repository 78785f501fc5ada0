//! Association request → accepted contexts, or the rejection (PS3.8 sections 7.1.1 and 9.3).
//!
//! dicom-ul has an acceptor of its own. Its rules do not fit a store that keeps everything: it takes
//! only transfer syntaxes that it can decode, either listed or all abstract syntaxes, and cannot
//! reject for a full house. So its types and its codec are used, and the decisions are made here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason,
    AssociationRJSource, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason as Verdict, UserVariableItem,
};
use pipeline::uid::Uid;

use super::config::ScpConfig;

/// The one application context of DICOM (PS3.7 annex A.2.1).
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Bit 0 stands for the one version of the protocol; the others are not tested (PS3.8 9.3.2).
const PROTOCOL_VERSION: u16 = 1;
/// This implementation: a UUID-derived UID (PS3.5 annex B.2), the one in our Part 10 heads.
const IMPLEMENTATION_CLASS_UID: &str = "2.25.315368784507966248759709516525212333189";
const IMPLEMENTATION_VERSION_NAME: &str = "TEZ_0_1";
/// Retired, but alive in archives.
const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// Root of everything that the standard defines.
const STANDARD_ROOT: &str = "1.2.840.10008.";
/// Root of the standard's storage SOP classes, those to come included.
const STORAGE_ROOT: &str = "1.2.840.10008.5.1.4.1.1.";

/// Storage SOP classes of the standard that stand outside [`STORAGE_ROOT`].
const STORAGE_ELSEWHERE: [&str; 11] = [
    "1.2.840.10008.5.1.1.27", // Stored Print Storage, retired
    "1.2.840.10008.5.1.1.29", // Hardcopy Grayscale Image Storage, retired
    "1.2.840.10008.5.1.1.30", // Hardcopy Color Image Storage, retired
    uids::RT_BEAMS_DELIVERY_INSTRUCTION_STORAGE,
    "1.2.840.10008.5.1.4.34.1", // RT Beams Delivery Instruction Storage, trial
    uids::RT_BRACHY_APPLICATION_SETUP_DELIVERY_INSTRUCTION_STORAGE,
    uids::HANGING_PROTOCOL_STORAGE,
    uids::COLOR_PALETTE_STORAGE,
    uids::GENERIC_IMPLANT_TEMPLATE_STORAGE,
    uids::IMPLANT_ASSEMBLY_TEMPLATE_STORAGE,
    uids::IMPLANT_TEMPLATE_GROUP_STORAGE,
];

/// Transfer syntaxes whose pixels the pipeline decodes. Others are kept, but taken only where the
/// sender offers none of these.
const DECODABLE: [&str; 17] = [
    uids::IMPLICIT_VR_LITTLE_ENDIAN,
    uids::EXPLICIT_VR_LITTLE_ENDIAN,
    uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    uids::RLE_LOSSLESS,
    uids::JPEG_BASELINE8_BIT,
    uids::JPEG_EXTENDED12_BIT,
    uids::JPEG_LOSSLESS,
    uids::JPEG_LOSSLESS_SV1,
    uids::JPEGLS_LOSSLESS,
    uids::JPEGLS_NEAR_LOSSLESS,
    uids::JPEG2000_LOSSLESS,
    uids::JPEG2000,
    uids::HTJ2K_LOSSLESS,
    uids::HTJ2K_LOSSLESS_RPCL,
    uids::HTJ2K,
    uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN,
];

/// An accepted presentation context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// Objects may be stored through it; otherwise it is for verification.
    pub(super) is_storage: bool,
    /// The encoding of its data sets.
    pub(super) transfer_syntax_uid: Uid,
}

/// What both sides agreed on.
#[derive(Debug)]
pub(super) struct Agreement {
    /// Who calls.
    pub(super) calling_ae_title: String,
    /// The accepted contexts by their id.
    pub(super) contexts: BTreeMap<u8, Context>,
    /// Longest P-DATA-TF that the peer takes, bytes without header; 0 for no limit.
    pub(super) peer_pdu_bytes_max: u32,
    /// The answer.
    pub(super) acceptance: AssociationAC,
}

/// Why an association is refused: the PDU to send, and a word for metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) pdu: AssociationRJ,
    pub(super) label: &'static str,
}

impl Rejection {
    fn permanent(source: AssociationRJSource, label: &'static str) -> Self {
        let result = AssociationRJResult::Permanent;
        let pdu = AssociationRJ { result, source };
        Self { pdu, label }
    }

    /// All associations are taken; the peer may come again.
    pub(super) fn local_limit_exceeded() -> Self {
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

/// Decides on a request that came from `address`.
pub(super) fn negotiate(
    request: &AssociationRQ,
    address: IpAddr,
    config: &ScpConfig,
) -> Result<Agreement, Rejection> {
    check_request(request, address, config)?;
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
        calling_ae_title: request.calling_ae_title.clone(),
        contexts,
        peer_pdu_bytes_max: peer_pdu_bytes_max(&request.user_variables),
        acceptance: AssociationAC {
            protocol_version: PROTOCOL_VERSION,
            calling_ae_title: request.calling_ae_title.clone(),
            called_ae_title: request.called_ae_title.clone(),
            application_context_name: APPLICATION_CONTEXT.to_owned(),
            presentation_contexts: results,
            user_variables: vec![
                UserVariableItem::MaxLength(config.pdu_bytes_max),
                UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
                UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
            ],
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

/// The reasons of PS3.8 table 9-21, from the protocol up to the peer.
fn check_request(
    request: &AssociationRQ,
    address: IpAddr,
    config: &ScpConfig,
) -> Result<(), Rejection> {
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
    if !config.accept_any_called_ae && request.called_ae_title != config.ae_title {
        return user(Reason::CalledAETitleNotRecognized, "called_ae_title");
    }
    // The standard has no reason for an address: a title from elsewhere is not recognised either.
    if !config.allows(&request.calling_ae_title, address) {
        return user(Reason::CallingAETitleNotRecognized, "calling_ae_title");
    }
    Ok(())
}

fn decide(proposed: &PresentationContextProposed) -> Result<Context, Verdict> {
    let abstract_syntax = trim(&proposed.abstract_syntax);
    let is_storage = is_storage(abstract_syntax);
    if !is_storage && abstract_syntax != uids::VERIFICATION {
        return Err(Verdict::AbstractSyntaxNotSupported);
    }
    let transfer_syntax_uid = choose_transfer_syntax(&proposed.transfer_syntaxes)
        .ok_or(Verdict::TransferSyntaxesNotSupported)?;
    Ok(Context {
        is_storage,
        transfer_syntax_uid,
    })
}

/// The sender's first choice among those that can be decoded, else its first choice.
///
/// Only: where a native syntax would be taken and the sender also offers Explicit VR Little Endian,
/// that is taken, because the others lose the VRs of private elements or cost a conversion.
fn choose_transfer_syntax(offered: &[String]) -> Option<Uid> {
    let offered: Vec<Uid> = offered
        .iter()
        .filter_map(|text| Uid::new(text).ok())
        .collect();
    let decodable = |uid: &&Uid| DECODABLE.contains(&uid.as_str());
    let first = offered.iter().find(decodable).or(offered.first())?;
    let better = offered
        .iter()
        .find(|uid| is_native(first) && uid.as_str() == uids::EXPLICIT_VR_LITTLE_ENDIAN);
    Some(better.unwrap_or(first).clone())
}

fn is_native(transfer_syntax: &Uid) -> bool {
    [
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
    ]
    .contains(&transfer_syntax.as_str())
}

/// Whether objects of this SOP class are taken.
///
/// Of the standard's classes those for storage. Of private ones all: what a maker's class is for
/// cannot be told from its UID, and an object that is refused is lost, while an operation other
/// than C-STORE is refused when it is asked for.
fn is_storage(sop_class: &str) -> bool {
    if Uid::new(sop_class).is_err() {
        return false;
    }
    !sop_class.starts_with(STANDARD_ROOT)
        || sop_class.starts_with(STORAGE_ROOT)
        || STORAGE_ELSEWHERE.contains(&sop_class)
}

fn result(id: u8, decision: &Result<Context, Verdict>) -> PresentationContextResult {
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

fn peer_pdu_bytes_max(user_variables: &[UserVariableItem]) -> u32 {
    user_variables
        .iter()
        .find_map(|variable| match variable {
            UserVariableItem::MaxLength(bytes) => Some(*bytes),
            _ => None,
        })
        .unwrap_or(0)
}

fn trim(uid: &str) -> &str {
    uid.trim_matches(['\0', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn ask(request: &AssociationRQ) -> Result<Agreement, Rejection> {
        let loopback = "127.0.0.1".parse().unwrap();
        negotiate(request, loopback, &ScpConfig::default())
    }

    fn decide_on(abstract_syntax: &str, transfer_syntaxes: &[&str]) -> Result<Context, Verdict> {
        decide(&PresentationContextProposed {
            id: 1,
            abstract_syntax: abstract_syntax.to_owned(),
            transfer_syntaxes: transfer_syntaxes.iter().map(ToString::to_string).collect(),
        })
    }

    fn chosen(offered: &[&str]) -> String {
        let context = decide_on(uids::CT_IMAGE_STORAGE, offered).unwrap();
        context.transfer_syntax_uid.to_string()
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
            let rejection = ask(&request).unwrap_err();
            assert_eq!(
                rejection.pdu.source,
                AssociationRJSource::ServiceUser(reason)
            );
            assert_eq!(rejection.pdu.result, AssociationRJResult::Permanent);
        }
        let mut wrong_version = request();
        wrong_version.protocol_version = 2;
        assert_eq!(ask(&wrong_version).unwrap_err().label, "protocol_version");
    }

    #[test]
    fn any_id_of_a_context_is_taken() {
        let mut request = request();
        let ids = [1, 2, 127, 128, 129, 200, 255];
        request.presentation_contexts = ids
            .iter()
            .map(|id| PresentationContextProposed {
                id: *id,
                abstract_syntax: uids::CT_IMAGE_STORAGE.to_owned(),
                transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned()],
            })
            .collect();
        let agreement = ask(&request).unwrap();
        assert!(agreement.contexts.keys().copied().eq(ids));
        let answered = agreement.acceptance.presentation_contexts.iter();
        assert!(answered.map(|context| context.id).eq(ids));
    }

    #[test]
    fn a_caller_without_a_title_is_taken_where_any_title_is() {
        let mut nameless = request();
        nameless.calling_ae_title = String::new();
        assert!(ask(&nameless).is_ok());
        let config = ScpConfig {
            allow: vec![super::super::config::AllowedPeer {
                ae_title: "CT1".to_owned(),
                address: "127.0.0.0/8".parse().unwrap(),
            }],
            ..ScpConfig::default()
        };
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(negotiate(&nameless, loopback, &config).is_err());
        assert!(negotiate(&request(), loopback, &config).is_ok());
    }

    #[test]
    fn further_protocol_versions_beside_the_first_do_not_matter() {
        let mut both = request();
        both.protocol_version = 3;
        assert!(ask(&both).is_ok());
    }

    #[test]
    fn an_address_off_the_list_is_a_calling_title_not_recognised() {
        let elsewhere = "192.0.2.1".parse().unwrap();
        let rejection = negotiate(&request(), elsewhere, &ScpConfig::default()).unwrap_err();
        let reason = AssociationRJServiceUserReason::CallingAETitleNotRecognized;
        assert_eq!(
            rejection.pdu.source,
            AssociationRJSource::ServiceUser(reason)
        );
    }

    #[test]
    fn storage_verification_and_private_classes_are_taken_others_not() {
        let syntax = [uids::IMPLICIT_VR_LITTLE_ENDIAN];
        for class in [
            uids::CT_IMAGE_STORAGE,
            uids::ENHANCED_CT_IMAGE_STORAGE,
            uids::X_RAY_RADIATION_DOSE_SR_STORAGE,
            uids::HANGING_PROTOCOL_STORAGE,
            "1.2.840.10008.5.1.4.1.1.999.1",
            "1.3.12.2.1107.5.9.1", // Siemens CSA Non-Image Storage
            "1.2.840.10008.5.1.4.1.1.2\0",
        ] {
            assert!(decide_on(class, &syntax).unwrap().is_storage, "{class}");
        }
        assert!(!decide_on(uids::VERIFICATION, &syntax).unwrap().is_storage);
        for class in [
            uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND,
            uids::MODALITY_WORKLIST_INFORMATION_MODEL_FIND,
            uids::STORAGE_COMMITMENT_PUSH_MODEL,
            uids::MEDIA_STORAGE_DIRECTORY_STORAGE,
            "",
            "not a uid",
        ] {
            let verdict = decide_on(class, &syntax).unwrap_err();
            assert_eq!(verdict, Verdict::AbstractSyntaxNotSupported, "{class}");
        }
    }

    #[test]
    fn the_senders_first_decodable_syntax_is_taken() {
        let (j2k, explicit) = (uids::JPEG2000_LOSSLESS, uids::EXPLICIT_VR_LITTLE_ENDIAN);
        assert_eq!(chosen(&[j2k, explicit]), j2k);
        assert_eq!(chosen(&[uids::MPEG2MPML, j2k]), j2k);
        assert_eq!(chosen(&["1.2.840.113619.5.2"]), "1.2.840.113619.5.2");
        assert_eq!(chosen(&["1.2.840.10008.1.2.1\0"]), explicit);
    }

    #[test]
    fn explicit_little_endian_stands_before_the_other_native_ones() {
        let explicit = uids::EXPLICIT_VR_LITTLE_ENDIAN;
        assert_eq!(
            chosen(&[uids::IMPLICIT_VR_LITTLE_ENDIAN, explicit]),
            explicit
        );
        assert_eq!(chosen(&[EXPLICIT_VR_BIG_ENDIAN, explicit]), explicit);
    }

    #[test]
    fn a_context_without_a_transfer_syntax_is_refused() {
        for offered in [&[][..], &["x"]] {
            let verdict = decide_on(uids::CT_IMAGE_STORAGE, offered).unwrap_err();
            assert_eq!(verdict, Verdict::TransferSyntaxesNotSupported);
        }
    }

    #[test]
    fn contexts_are_answered_one_by_one() {
        let context = |id, abstract_syntax: &str| PresentationContextProposed {
            id,
            abstract_syntax: abstract_syntax.to_owned(),
            transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned()],
        };
        let mut request = request();
        request.presentation_contexts = vec![
            context(1, uids::CT_IMAGE_STORAGE),
            context(3, uids::STORAGE_COMMITMENT_PUSH_MODEL),
        ];
        let agreement = ask(&request).unwrap();
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
