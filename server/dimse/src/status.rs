//! Statuses of responses (PS3.7 annex C; those of storage, PS3.4 table B.2-1).

/// The Status of a response (0000,0900).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u16);

impl Status {
    /// The operation is done; an object is stored.
    pub const SUCCESS: Self = Self(0x0000);
    /// Processing failure: the fault is ours.
    pub const PROCESSING_FAILURE: Self = Self(0x0110);
    /// Invalid SOP instance: its UID is missing or is no UID.
    pub const INVALID_SOP_INSTANCE: Self = Self(0x0117);
    /// SOP class not supported.
    pub const SOP_CLASS_NOT_SUPPORTED: Self = Self(0x0122);
    /// Unrecognised operation.
    pub const UNRECOGNIZED_OPERATION: Self = Self(0x0211);
    /// Refused, out of resources: the same object may be sent again later.
    pub const OUT_OF_RESOURCES: Self = Self(0xA700);
    /// Error, cannot understand: the same object will be refused again.
    pub const CANNOT_UNDERSTAND: Self = Self(0xC000);

    /// The status with this code.
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// Its code.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether the peer has the object of a C-STORE: success, or a warning Bxxx.
    pub const fn means_stored(self) -> bool {
        self.0 == 0x0000 || self.0 & 0xF000 == 0xB000
    }
}

/// Why an operation was not done: what its response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status, which is not success.
    pub status: Status,
    /// Error Comment (0000,0902), for the people at the other end, who may be anyone: no path, no
    /// patient. Sent in ASCII, and cut after 64 characters.
    pub comment: String,
}

impl Failure {
    /// A failure with a comment.
    pub fn new(status: Status, comment: impl Into<String>) -> Self {
        let comment = comment.into();
        Self { status, comment }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_mean_stored_and_failures_do_not() {
        for (code, stored) in [
            (0x0000, true),
            (0xB000, true),
            (0xB007, true),
            (0x0110, false),
            (0xA700, false),
            (0xC000, false),
        ] {
            assert_eq!(Status::new(code).means_stored(), stored, "{code:#06x}");
        }
    }
}
