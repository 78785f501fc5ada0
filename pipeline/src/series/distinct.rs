//! Objects that share a SOP Instance UID: the same object again, or another one under its name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use crate::content::{ContentHash, ContentHasher};
use crate::header::{META_BYTES_MAX, MetaParse, parse_part10_meta};
use crate::instance::Instance;
use crate::reason::{Reason, ReasonCode};
use crate::uid::Uid;

use super::Slice;

/// An object, and when it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a> {
    pub(crate) instance: &'a Instance,
    /// Its place in the order of receipt; of copies that of the first.
    pub(crate) received: usize,
}

impl<'a> Object<'a> {
    /// Its frames, in order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = Slice<'a>> + use<'a> {
        let Self { instance, received } = *self;
        (0..instance.frames.len()).map(move |frame_index| Slice {
            instance,
            frame_index,
            received,
        })
    }
}

/// A study's objects, each content once, and what was odd about their names.
#[derive(Debug, Default)]
pub(super) struct Distinct<'a> {
    /// In order of UID, then of content.
    pub(super) kept: Vec<Object<'a>>,
    /// By series: what came more than once.
    pub(super) repeated: BTreeMap<&'a Uid, Vec<Reason>>,
    /// By series: different slices that came under one UID. Whoever names them wrongly may have
    /// lost others on the way, so with these the result is a partial one.
    pub(super) shared: BTreeMap<&'a Uid, Reason>,
}

/// UIDs of one series that each name more than one object.
#[derive(Debug, Default)]
struct Misnamed<'a> {
    uids: Vec<&'a Uid>,
    slices: usize,
}

/// Sorts out `instances`, which come in the order of receipt. Different contents under one UID are
/// all kept: at different places each is a slice of its own, at one place the first received is
/// preferred, and the pixels decide how far they differ.
pub(super) fn distinct(instances: &[Instance]) -> Distinct<'_> {
    let mut by_uid: BTreeMap<&Uid, Vec<Object<'_>>> = BTreeMap::new();
    for (received, instance) in instances.iter().enumerate() {
        by_uid
            .entry(&instance.sop_instance_uid)
            .or_default()
            .push(Object { instance, received });
    }
    let mut distinct = Distinct::default();
    let mut misnamed: BTreeMap<&Uid, Misnamed<'_>> = BTreeMap::new();
    for (uid, same) in by_uid {
        match same.as_slice() {
            [only] => distinct.kept.push(*only),
            _ => distinct.add_group(uid, &same, &mut misnamed),
        }
    }
    distinct.shared = misnamed
        .into_iter()
        .map(|(series, misnamed)| (series, misnamed.reason()))
        .collect();
    distinct
}

impl Misnamed<'_> {
    fn reason(&self) -> Reason {
        let first = self.uids.first().map_or("", |uid| uid.as_str());
        Reason::new(
            ReasonCode::ConflictingDuplicate,
            format!(
                "{} SOP Instance UIDs name {} different slices, the first {first}. Each is used, but \
                 others may have been lost where UIDs are taken for names: ask the sender.",
                self.uids.len(),
                self.slices
            ),
        )
    }
}

impl<'a> Distinct<'a> {
    fn add_group(
        &mut self,
        uid: &'a Uid,
        same: &[Object<'a>],
        misnamed: &mut BTreeMap<&'a Uid, Misnamed<'a>>,
    ) {
        let contents = contents_of(same);
        let Some(first) = contents.first() else {
            return;
        };
        let series = &first.instance.series_uid;
        let times = same.len();
        if contents
            .iter()
            .any(|other| !same_place(first.instance, other.instance))
        {
            let entry = misnamed.entry(series).or_default();
            entry.uids.push(uid);
            entry.slices += contents.len();
        } else {
            let (code, what) = if contents.len() > 1 {
                let what = "different content; the first that was received is preferred";
                (ReasonCode::ConflictingDuplicate, what)
            } else {
                (ReasonCode::Duplicate, "the same content")
            };
            let text = format!("Object {uid} came {times} times with {what}.");
            self.repeated
                .entry(series)
                .or_default()
                .push(Reason::new(code, text));
        }
        self.kept.extend(contents);
    }
}

/// One of each content, in an order that does not depend on which came first.
fn contents_of<'a>(same: &[Object<'a>]) -> Vec<Object<'a>> {
    let mut hashed: Vec<_> = same
        .iter()
        .map(|one| (content_of(one.instance), *one))
        .collect();
    hashed.sort_by_key(|(hash, one)| (*hash, &one.instance.path));
    hashed.dedup_by(|(next_hash, next), (hash, kept)| {
        // What cannot be read has no hash and is nobody's copy.
        let is_copy = next_hash.is_some() && next_hash == hash;
        if is_copy {
            kept.received = kept.received.min(next.received);
        }
        is_copy
    });
    hashed.into_iter().map(|(_, one)| one).collect()
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
