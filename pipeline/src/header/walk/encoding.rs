//! How a data set is written down: with or without VRs, and in which order of bytes.

use dicom_core::{Tag, VR};

/// How a data set is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::header) enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

impl Encoding {
    pub(in crate::header) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::ImplicitLittle | Self::ExplicitLittle => u16::from_le_bytes(bytes),
            Self::ExplicitBig => u16::from_be_bytes(bytes),
        }
    }

    pub(in crate::header) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::ImplicitLittle | Self::ExplicitLittle => u32::from_le_bytes(bytes),
            Self::ExplicitBig => u32::from_be_bytes(bytes),
        }
    }

    pub(super) fn tag(self, [a, b, c, d]: [u8; 4]) -> Tag {
        Tag(self.u16([a, b]), self.u16([c, d]))
    }

    /// The transfer syntax that encodes so.
    pub(in crate::header) fn transfer_syntax(self) -> &'static str {
        match self {
            Self::ImplicitLittle => "1.2.840.10008.1.2",
            Self::ExplicitLittle => "1.2.840.10008.1.2.1",
            Self::ExplicitBig => "1.2.840.10008.1.2.2",
        }
    }

    /// What a data set's first element shows; `None` where it is none.
    pub(in crate::header) fn seen(first_bytes: &[u8]) -> Option<Self> {
        let head: [u8; 8] = first_bytes.get(..8)?.try_into().ok()?;
        let explicit = VR::from_binary([head[4], head[5]]).is_some();
        match ([head[0], head[1]], explicit) {
            // Group 0008 or a low one, high byte first.
            ([0, low], true) if low != 0 => Some(Self::ExplicitBig),
            ([_, 0], true) => Some(Self::ExplicitLittle),
            ([_, 0], false) => Some(Self::ImplicitLittle),
            _ => None,
        }
    }

    /// What the data set's first element shows, against what its transfer syntax says: writers
    /// that mistake implicit for explicit VR, or one order of bytes for the other, are not rare.
    pub(in crate::header) fn corrected(self, first_bytes: &[u8]) -> Self {
        match (self, Self::seen(first_bytes)) {
            // Retired, and never implicit: a first element without a VR is odd in another way.
            (Self::ExplicitBig, Some(Self::ImplicitLittle)) | (_, None) => self,
            (_, Some(seen)) => seen,
        }
    }
}

/// Whether elements of this VR have a length of two bytes (PS3.5 section 7.1.2).
pub(in crate::header) fn has_short_length(vr: [u8; 2]) -> bool {
    matches!(
        &vr,
        b"AE"
            | b"AS"
            | b"AT"
            | b"CS"
            | b"DA"
            | b"DS"
            | b"DT"
            | b"FL"
            | b"FD"
            | b"IS"
            | b"LO"
            | b"LT"
            | b"PN"
            | b"SH"
            | b"SL"
            | b"SS"
            | b"ST"
            | b"TM"
            | b"UI"
            | b"UL"
            | b"US"
    )
}
