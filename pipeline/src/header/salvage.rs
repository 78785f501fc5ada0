//! What can be saved of an object that cannot be read: above all, which study it belongs to.
//!
//! The walk gives what stands before the fault. Where the fault stands before the Study Instance
//! UID, the bytes behind it are searched for that element beside the series' own: as a pair they
//! are hardly met by chance, and hardly part of a reference to another study.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::Refusal;
use crate::uid::Uid;
use crate::unread::UnreadObject;

/// How much of a file is searched, bytes: far more than stands before the Study Instance UID.
const SEARCHED_BYTES_MAX: u64 = 1 << 20;
/// Longest UID with its padding, bytes (PS3.5 section 9.1).
const UID_BYTES_MAX: usize = 64;

/// Elements (0020,000D) and (0020,000E).
const STUDY: u16 = 0x000D;
const SERIES: u16 = 0x000E;

/// The object at `path`, the head of whose file cannot be read.
pub(super) fn without_head(path: &Path, refusal: Refusal) -> Box<UnreadObject> {
    with_header(UnreadObject::unknown(path.to_path_buf(), refusal.reason))
}

/// Adds the study and series where the header's walk did not come so far.
pub(super) fn with_header(mut unread: UnreadObject) -> Box<UnreadObject> {
    if unread.study_uid.is_none()
        && let Some((study, series)) = study_and_series(&begun(&unread.path))
    {
        unread.study_uid = Some(study);
        unread.series_uid = Some(series);
    }
    Box::new(unread)
}

/// The first bytes of the file, as many as can be read.
fn begun(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is searched all the same.
        drop(file.take(SEARCHED_BYTES_MAX).read_to_end(&mut bytes));
    }
    bytes
}

/// The first Study Instance UID that a Series Instance UID follows.
fn study_and_series(bytes: &[u8]) -> Option<(Uid, Uid)> {
    (0..bytes.len()).find_map(|at| {
        let (study, next) = uid_element(bytes, at, STUDY)?;
        let (series, _) = uid_element(bytes, next, SERIES)?;
        Some((study, series))
    })
}

/// The UID of element (0020,`element`) at `at`, in any encoding, and where the next one begins.
fn uid_element(bytes: &[u8], at: usize, element: u16) -> Option<(Uid, usize)> {
    let head: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
    let [g0, g1, e0, e1, length @ ..] = head;
    let little = [g0, g1] == [0x20, 0] && [e0, e1] == element.to_le_bytes();
    let big = [g0, g1] == [0, 0x20] && [e0, e1] == element.to_be_bytes();
    let length = match length {
        [b'U', b'I', a, b] if little => u32::from(u16::from_le_bytes([a, b])),
        [b'U', b'I', a, b] if big => u32::from(u16::from_be_bytes([a, b])),
        implicit if little => u32::from_le_bytes(implicit),
        _ => return None,
    };
    let length = usize::try_from(length).ok()?;
    if length > UID_BYTES_MAX {
        return None;
    }
    let value = bytes.get(at + 8..at + 8 + length)?;
    let uid = Uid::new(std::str::from_utf8(value).ok()?).ok()?;
    Some((uid, at + 8 + length))
}
