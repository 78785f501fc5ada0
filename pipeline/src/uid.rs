//! DICOM unique identifiers, checked once at the door.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A DICOM UID: 1 to 64 characters of `[0-9.]` (PS3.5 section 9.1).
///
/// Leading zeros in a component are against the standard but common in the field, so they pass;
/// whatever could leave a path or a URL does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uid(String);

/// Why a text is not a UID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a UID: 1 to 64 characters of digits and dots are allowed")]
pub struct UidError {
    /// The text, shortened to 80 characters.
    pub text: String,
}

impl Uid {
    /// Checks `text`; padding (a trailing NUL or spaces, PS3.5 section 6.2) is taken off first.
    ///
    /// # Errors
    ///
    /// [`UidError`] if what remains is not `[0-9.]{1,64}`.
    pub fn new(text: &str) -> Result<Self, UidError> {
        let bare = text.trim_matches(['\0', ' ']);
        let legal = (1..=64).contains(&bare.len())
            && bare
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
            && bare.bytes().any(|byte| byte.is_ascii_digit());
        if legal {
            Ok(Self(bare.to_owned()))
        } else {
            Err(UidError {
                text: text.chars().take(80).collect(),
            })
        }
    }

    /// A UID derived from a number, as from a UUID (PS3.5 annex B.2).
    pub fn of_number(number: u128) -> Self {
        Self(format!("2.25.{number}"))
    }

    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Uid {
    type Err = UidError;
    fn from_str(text: &str) -> Result<Self, UidError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Uid {
    type Error = UidError;
    fn try_from(text: String) -> Result<Self, UidError> {
        Self::new(&text)
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> Self {
        uid.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_taken_off() {
        assert_eq!(Uid::new("1.2.840\0").unwrap().as_str(), "1.2.840");
    }

    #[test]
    fn a_uid_that_could_leave_a_path_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "1/2",
            "../1",
            "1.2\n",
            "1.2 3",
            "١.٢",
            &"1".repeat(65),
        ] {
            assert!(Uid::new(text).is_err(), "{text:?}");
        }
    }
}
