//! Bytes that are kept in a file and read back later: what they are, in which version, and whether
//! they are all there.
//!
//! In order: eight bytes that name the kind, the version (u32), the length of the payload (u64),
//! the BLAKE3 hash of all of this and the payload, and the payload. Numbers are little endian.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Eight bytes that name what is kept.
pub type Kind = [u8; 8];

const KIND_BYTES: usize = size_of::<Kind>();
/// Kind, version and length.
const PLAIN_BYTES: usize = KIND_BYTES + size_of::<u32>() + size_of::<u64>();
const HEAD_BYTES: usize = PLAIN_BYTES + blake3::OUT_LEN;

/// Why kept bytes are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Something else stands there.
    #[error("they are of another kind")]
    Foreign,
    /// Another version of Tez wrote them.
    #[error("they have version {found}; {expected} can be read")]
    OtherVersion {
        /// The version that they have.
        found: u32,
        /// The version that is read.
        expected: u32,
    },
    /// They were made under another setting of the service.
    #[error("they were made under another setting")]
    OtherSetting,
    /// They are cut, longer than they should be, or altered.
    #[error("they are cut or altered")]
    Damaged,
}

/// `payload` as it is kept: of `kind`, in `version`.
pub fn seal(kind: Kind, version: u32, payload: &[u8]) -> Vec<u8> {
    let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
    bytes.extend(kind);
    bytes.extend(version.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    let hash = hash_of(&bytes, payload);
    bytes.extend(hash);
    bytes.extend(payload);
    bytes
}

/// The payload of `bytes`, which must be of `kind` and of `version`.
///
/// # Errors
///
/// [`SealError`] for anything but what [`seal`] gave for this kind and version.
pub fn open(kind: Kind, version: u32, bytes: &[u8]) -> Result<&[u8], SealError> {
    let (head, payload) = bytes
        .split_at_checked(HEAD_BYTES)
        .ok_or_else(|| cut_or_foreign(kind, bytes))?;
    let (plain, hash) = head.split_at(PLAIN_BYTES);
    let Some((found_kind, numbers)) = plain.split_first_chunk::<KIND_BYTES>() else {
        return Err(SealError::Damaged);
    };
    if *found_kind != kind {
        return Err(SealError::Foreign);
    }
    if hash_of(plain, payload) != hash {
        return Err(SealError::Damaged);
    }
    // The hash holds, so these are the numbers that were written.
    let found = numbers.first_chunk().copied().map_or(0, u32::from_le_bytes);
    if found != version {
        return Err(SealError::OtherVersion {
            found,
            expected: version,
        });
    }
    Ok(payload)
}

/// `bytes` deflated, to be sealed.
pub fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail; if it did, the bytes would be refused by who reads them.
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .unwrap_or_default()
}

/// What was [`deflated`]; `None` where it was not, or has more than `bytes_max`.
pub fn inflated(deflated: &[u8], bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut decoder = DeflateDecoder::new(deflated).take(bytes_max.saturating_add(1));
    decoder.read_to_end(&mut bytes).ok()?;
    let length = u64::try_from(bytes.len()).ok()?;
    (length <= bytes_max).then_some(bytes)
}

fn cut_or_foreign(kind: Kind, bytes: &[u8]) -> SealError {
    let begun = bytes.len().min(KIND_BYTES);
    if bytes[..begun] == kind[..begun] {
        SealError::Damaged
    } else {
        SealError::Foreign
    }
}

fn hash_of(plain: &[u8], payload: &[u8]) -> [u8; blake3::OUT_LEN] {
    *blake3::Hasher::new()
        .update(plain)
        .update(payload)
        .finalize()
        .as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = *b"TEZ-TEST";

    #[test]
    fn what_was_sealed_is_opened_and_says_its_version() {
        let sealed = seal(KIND, 3, b"payload");
        assert_eq!(open(KIND, 3, &sealed), Ok(&b"payload"[..]));
        let other = SealError::OtherVersion {
            found: 3,
            expected: 4,
        };
        assert_eq!(open(KIND, 4, &sealed), Err(other));
        assert_eq!(open(*b"TEZ-ELSE", 3, &sealed), Err(SealError::Foreign));
    }

    #[test]
    fn what_is_cut_longer_or_altered_is_refused() {
        let sealed = seal(KIND, 1, b"payload");
        for end in 0..sealed.len() {
            assert_eq!(open(KIND, 1, &sealed[..end]), Err(SealError::Damaged));
        }
        let longer = [sealed.as_slice(), b"."].concat();
        assert_eq!(open(KIND, 1, &longer), Err(SealError::Damaged));
        for byte in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[byte] ^= 1;
            assert!(open(KIND, 1, &altered).is_err(), "byte {byte}");
        }
    }
}
