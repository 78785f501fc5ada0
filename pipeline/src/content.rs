//! What an object's bytes are, whatever road they came by.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::uid::Uid;

/// BLAKE3 over the transfer syntax UID, a NUL, and the data set's bytes as received.
///
/// The preamble and the file meta group are left out, so the same object is recognised whether it
/// came by C-STORE (which carries neither) or as a Part 10 file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash as 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            for nibble in [byte >> 4, byte & 0xF] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or_default());
            }
        }
        text
    }

    /// A UID made from the hash (PS3.5 annex B.2), for what has none of its own.
    pub fn to_uid(self) -> Uid {
        let [first, ..] = self.0.as_chunks::<16>().0 else {
            return Uid::of_number(0);
        };
        Uid::of_number(u128::from_be_bytes(*first))
    }

    /// Reads 64 hexadecimal digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ContentHash({})", self.to_hex())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

impl Serialize for ContentHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom("not a content hash: 64 hexadecimal digits"))
    }
}

/// Hashes an object as its bytes stream by.
#[derive(Clone, Debug)]
pub struct ContentHasher(Box<blake3::Hasher>);

impl ContentHasher {
    /// Starts the hash of an object encoded in `transfer_syntax_uid`.
    pub fn new(transfer_syntax_uid: &str) -> Self {
        let mut hash = Box::new(blake3::Hasher::new());
        hash.update(transfer_syntax_uid.trim_end_matches(['\0', ' ']).as_bytes());
        hash.update(&[0]);
        Self(hash)
    }

    /// Takes the next bytes of the data set.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The finished hash.
    pub fn finish(self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }
}
