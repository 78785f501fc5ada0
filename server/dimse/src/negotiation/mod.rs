//! Which presentation contexts both sides agree on (PS3.8 sections 7.1.1 and 9.3; PS3.7 annex D).
//!
//! [`acceptor`] decides on a request, [`requestor`] makes one and reads its answer, [`syntaxes`]
//! says which abstract and transfer syntaxes are taken. dicom-ul has an acceptor of its own; its
//! rules do not fit a store that keeps everything: it takes only transfer syntaxes that it can
//! decode, and cannot reject for a full house. So its types and its codec are used, and the
//! decisions are made here.

pub(crate) mod acceptor;
pub(crate) mod requestor;
mod syntaxes;

use dicom_ul::pdu::UserVariableItem;

/// The one application context of DICOM (PS3.7 annex A.2.1).
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Bit 0 stands for the one version of the protocol; the others are not tested (PS3.8 9.3.2).
const PROTOCOL_VERSION: u16 = 1;
/// This implementation: a UUID-derived UID (PS3.5 annex B.2), the one in our Part 10 heads.
const IMPLEMENTATION_CLASS_UID: &str = "2.25.315368784507966248759709516525212333189";
const IMPLEMENTATION_VERSION_NAME: &str = "TEZ_0_1";

/// What we say of ourselves, in either role (PS3.7 annex D.3.3).
fn our_user_variables(pdu_bytes_max: u32) -> Vec<UserVariableItem> {
    vec![
        UserVariableItem::MaxLength(pdu_bytes_max),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ]
}

/// Longest P-DATA-TF that the peer takes, bytes without header; 0 for no limit (PS3.8 annex D.1).
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
