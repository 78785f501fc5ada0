//! Objects that share a SOP Instance UID: the same object again, or another one under its name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use crate::content::{ContentHash, ContentHasher};
use crate::instance::Instance;
use crate::intake::{META_BYTES_MAX, MetaParse, parse_part10_meta};
use crate::reason::{Reason, ReasonCode};
use crate::uid::Uid;

/// A study's objects, each content once, and what was odd about their names.
#[derive(Debug, Default)]
pub(super) struct Distinct<'a> {
    /// In order of UID, then of content.
    pub(super) kept: Vec<&'a Instance>,
    /// By series: what came more than once.
    pub(super) repeated: BTreeMap<&'a Uid, Vec<Reason>>,
    /// By series: different slices that came under one UID. Whoever names them wrongly may have
    /// lost others on the way, so with these the result is a partial one.
    pub(super) shared: BTreeMap<&'a Uid, Vec<Reason>>,
}

/// Sorts out `instances`. Different contents under one UID are all kept: the pixels decide what they
/// are worth.
pub(super) fn distinct(instances: &[Instance]) -> Distinct<'_> {
    let mut by_uid: BTreeMap<&Uid, Vec<&Instance>> = BTreeMap::new();
    for instance in instances {
        by_uid
            .entry(&instance.sop_instance_uid)
            .or_default()
            .push(instance);
    }
    let mut distinct = Distinct::default();
    for (uid, same) in by_uid {
        match same.as_slice() {
            [only] => distinct.kept.push(only),
            _ => distinct.add_group(uid, &same),
        }
    }
    distinct
}

impl<'a> Distinct<'a> {
    fn add_group(&mut self, uid: &Uid, same: &[&'a Instance]) {
        let mut hashed: Vec<_> = same.iter().map(|one| (content_of(one), *one)).collect();
        hashed.sort_by_key(|(hash, one)| (*hash, &one.path));
        let count = hashed.len();
        // What cannot be read has no hash and is nobody's copy.
        hashed.dedup_by(|next, kept| next.0.is_some() && next.0 == kept.0);
        let contents: Vec<&Instance> = hashed.into_iter().map(|(_, one)| one).collect();
        let Some(first) = contents.first() else {
            return;
        };
        let series = &first.series_uid;
        let copies = count - contents.len();
        if copies > 0 {
            let text = format!(
                "Object {uid} came {} times with the same content.",
                copies + 1
            );
            self.repeated
                .entry(series)
                .or_default()
                .push(Reason::new(ReasonCode::Duplicate, text));
        }
        if contents.len() > 1 {
            let elsewhere = contents.iter().any(|other| !same_place(first, other));
            let list = if elsewhere {
                &mut self.shared
            } else {
                &mut self.repeated
            };
            list.entry(series)
                .or_default()
                .push(conflicting(uid, contents.len(), elsewhere));
        }
        self.kept.extend(contents);
    }
}

fn conflicting(uid: &Uid, count: usize, elsewhere: bool) -> Reason {
    let what = if elsewhere {
        "for different slices; each is used, but others may have been lost where UIDs are taken for \
         names. Ask the sender"
    } else {
        "for the same slice"
    };
    Reason::new(
        ReasonCode::ConflictingDuplicate,
        format!("Object {uid} came with {count} different contents {what}."),
    )
}

/// Whether two objects show the same places of one series.
fn same_place(a: &Instance, b: &Instance) -> bool {
    let places = |instance: &Instance| -> Vec<_> {
        let frames = instance.frames.iter();
        frames
            .map(|frame| (frame.position_mm, frame.orientation))
            .collect()
    };
    a.series_uid == b.series_uid && places(a) == places(b)
}

/// The content hash that is known, or that of the file; `None` if the file cannot be read.
fn content_of(instance: &Instance) -> Option<ContentHash> {
    instance.content.or_else(|| {
        let mut file = File::open(&instance.path).ok()?;
        let mut bytes = Vec::with_capacity(META_BYTES_MAX);
        (&mut file)
            .take(META_BYTES_MAX as u64)
            .read_to_end(&mut bytes)
            .ok()?;
        let MetaParse::Meta { dataset_offset, .. } = parse_part10_meta(&bytes) else {
            return None;
        };
        let mut hasher = ContentHasher::new(instance.transfer_syntax_uid.as_str());
        hasher.update(&bytes[dataset_offset..]);
        loop {
            bytes.clear();
            if (&mut file)
                .take(META_BYTES_MAX as u64)
                .read_to_end(&mut bytes)
                .ok()?
                == 0
            {
                return Some(hasher.finish());
            }
            hasher.update(&bytes);
        }
    })
}
