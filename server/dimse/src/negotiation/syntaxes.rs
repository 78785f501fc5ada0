//! Which abstract syntaxes an acceptor takes, and in which transfer syntax.

use dicom_dictionary_std::uids;
use pipeline::uid::Uid;

use super::trim;

/// Retired, but alive in archives.
pub(super) const EXPLICIT_VR_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
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

/// What a presentation context is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To see whether we answer.
    Verification,
    /// To store objects.
    Storage,
}

impl Purpose {
    /// What the abstract syntax is for; `None` if it is not taken.
    ///
    /// Storage are, of the standard's classes, those for storage; of private ones all: what a
    /// maker's class is for cannot be told from its UID, and an object that is refused is lost,
    /// while an operation other than C-STORE is refused when it is asked for.
    pub(super) fn of(abstract_syntax: &str) -> Option<Self> {
        let class = trim(abstract_syntax);
        if class == uids::VERIFICATION {
            return Some(Self::Verification);
        }
        let is_storage = !class.starts_with(STANDARD_ROOT)
            || class.starts_with(STORAGE_ROOT)
            || STORAGE_ELSEWHERE.contains(&class);
        (is_storage && Uid::new(class).is_ok()).then_some(Self::Storage)
    }
}

/// The sender's first choice among those that can be decoded, else its first choice.
///
/// Only: where a native syntax would be taken and the sender also offers Explicit VR Little Endian,
/// that is taken, because the others lose the VRs of private elements or cost a conversion.
pub(super) fn choose_transfer_syntax(offered: &[String]) -> Option<Uid> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(offered: &[&str]) -> String {
        let offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
        choose_transfer_syntax(&offered).unwrap().to_string()
    }

    #[test]
    fn storage_verification_and_private_classes_are_taken_others_not() {
        for class in [
            uids::CT_IMAGE_STORAGE,
            uids::ENHANCED_CT_IMAGE_STORAGE,
            uids::X_RAY_RADIATION_DOSE_SR_STORAGE,
            uids::HANGING_PROTOCOL_STORAGE,
            "1.2.840.10008.5.1.4.1.1.999.1",
            "1.3.12.2.1107.5.9.1", // Siemens CSA Non-Image Storage
            "1.2.840.10008.5.1.4.1.1.2\0",
        ] {
            assert_eq!(Purpose::of(class), Some(Purpose::Storage), "{class}");
        }
        let verification = Purpose::of(uids::VERIFICATION);
        assert_eq!(verification, Some(Purpose::Verification));
        for class in [
            uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND,
            uids::MODALITY_WORKLIST_INFORMATION_MODEL_FIND,
            uids::STORAGE_COMMITMENT_PUSH_MODEL,
            uids::MEDIA_STORAGE_DIRECTORY_STORAGE,
            "",
            "not a uid",
        ] {
            assert_eq!(Purpose::of(class), None, "{class}");
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
}
