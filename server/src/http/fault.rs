//! Why a file of a request was not taken, and whose fault it is.

use pipeline::header::Refusal;
use pipeline::reason::{Reason, ReasonCode};

use super::spool::SpoolError;
use crate::archive::ArchiveError;
use crate::intake::{Claim, IntakeError};
use store::objects::StoreError;

/// Why a file was not taken. Nothing of it remains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFiled {
    /// What its file meta group says, if it can be read.
    pub claim: Option<Claim>,
    /// What is wrong, for people.
    pub reason: Reason,
    /// Whose fault it is.
    pub fault: Fault,
}

/// Whose fault it is that a file was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file: it cannot be filed, now or later.
    File,
    /// The file belongs to another study than the request.
    OtherStudy,
    /// The file is larger than a limit.
    TooLarge,
    /// The zip: entries of it may not have been read at all.
    Archive,
    /// The zip exceeds a limit: entries of it were not read at all.
    ArchiveTooLarge,
    /// Tez is busy: the same file may come again.
    Busy,
    /// The disk is full: the same file may come again.
    DiskFull,
    /// Tez failed.
    Inside,
}

impl Fault {
    /// Whether objects may be missing that the sender has, and would send again.
    pub fn may_lose_objects(self) -> bool {
        match self {
            Self::File | Self::OtherStudy | Self::TooLarge => false,
            Self::Archive | Self::ArchiveTooLarge | Self::Busy | Self::DiskFull | Self::Inside => {
                true
            }
        }
    }

    /// Which of several faults answers for the request: the one with the highest gravity. A fault
    /// of one file says less than one of the zip around it, and that less than one of ours.
    pub fn gravity(self) -> u8 {
        match self {
            Self::File => 0,
            Self::OtherStudy => 1,
            Self::TooLarge => 2,
            Self::Archive => 3,
            Self::ArchiveTooLarge => 4,
            Self::Busy => 5,
            Self::DiskFull => 6,
            Self::Inside => 7,
        }
    }
}

impl NotFiled {
    pub(super) fn new(fault: Fault, code: ReasonCode, text: impl Into<String>) -> Self {
        Self {
            claim: None,
            reason: Reason::new(code, text),
            fault,
        }
    }
}

impl From<Refusal> for NotFiled {
    fn from(refusal: Refusal) -> Self {
        Self {
            claim: None,
            reason: refusal.reason,
            fault: Fault::File,
        }
    }
}

impl From<IntakeError> for NotFiled {
    fn from(error: IntakeError) -> Self {
        let fault = match &error {
            IntakeError::Store(StoreError::TooLarge { .. }) => Fault::TooLarge,
            IntakeError::Store(StoreError::Full { .. }) => Fault::DiskFull,
            IntakeError::Busy | IntakeError::Closing => Fault::Busy,
            IntakeError::Store(StoreError::Failed { .. } | StoreError::InUse { .. }) => {
                tracing::error!(%error, "an object could not be stored");
                return Self::inside();
            }
            IntakeError::Refused(refusal) => return refusal.clone().into(),
        };
        Self::new(fault, ReasonCode::LimitExceeded, format!("{error}."))
    }
}

impl From<SpoolError> for NotFiled {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Full { .. } => Self::new(
                Fault::DiskFull,
                ReasonCode::LimitExceeded,
                format!("{error}."),
            ),
            SpoolError::Failed(_) => {
                tracing::error!(%error, "an upload could not be spooled");
                Self::inside()
            }
        }
    }
}

impl From<ArchiveError> for NotFiled {
    fn from(error: ArchiveError) -> Self {
        let (fault, code) = match &error {
            ArchiveError::Unreadable(_) => {
                tracing::error!(%error, "a spooled archive could not be read");
                return Self::inside();
            }
            ArchiveError::Broken(_) => (Fault::Archive, ReasonCode::NotDicom),
            ArchiveError::TooManyEntries { .. }
            | ArchiveError::EntryTooLarge { .. }
            | ArchiveError::TooLarge { .. } => (Fault::ArchiveTooLarge, ReasonCode::LimitExceeded),
        };
        Self::new(fault, code, format!("{error}."))
    }
}

impl NotFiled {
    pub(super) fn inside() -> Self {
        let text = "Tez could not store it; its log says why. Send it again.";
        Self::new(Fault::Inside, ReasonCode::InternalFault, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_lose_objects_is_graver_than_what_does_not() {
        let kept = [Fault::File, Fault::OtherStudy, Fault::TooLarge];
        let lost = [
            Fault::Archive,
            Fault::ArchiveTooLarge,
            Fault::Busy,
            Fault::DiskFull,
            Fault::Inside,
        ];
        assert!(kept.iter().all(|fault| !fault.may_lose_objects()));
        assert!(lost.iter().all(|fault| fault.may_lose_objects()));
        let gravest_kept = kept.iter().map(|fault| fault.gravity()).max();
        let least_lost = lost.iter().map(|fault| fault.gravity()).min();
        assert!(gravest_kept < least_lost);
    }

    #[test]
    fn each_error_of_the_intake_has_its_fault() {
        let full = StoreError::Full {
            free_bytes: 1,
            reserve_bytes: 2,
        };
        let failed = StoreError::Failed {
            step: store::objects::Step::Sync,
            source: std::io::Error::other("the disk failed"),
        };
        for (error, fault) in [
            (full.into(), Fault::DiskFull),
            (failed.into(), Fault::Inside),
            (
                StoreError::TooLarge { limit_bytes: 1 }.into(),
                Fault::TooLarge,
            ),
            (IntakeError::Busy, Fault::Busy),
            (IntakeError::Closing, Fault::Busy),
            (
                Refusal::new(ReasonCode::NotDicom, "no head").into(),
                Fault::File,
            ),
        ] {
            assert_eq!(NotFiled::from(error).fault, fault);
        }
    }
}
