//! Whether kept pixels are what decoding gives, and whether a study comes out the same with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use dicom_core::value::{PixelFragmentSequence, PrimitiveValue};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, open_file};
use proptest::prelude::*;

use super::*;
use crate::decode::frame_hounsfield;
use crate::decode::jpeg::tests::{PLAIN, lossless};
use crate::decode::tests::jpeg_ls;
use crate::header::read_instance;
use crate::study::StudyScans;
use crate::study::tests::fixture;

/// Objects in memory, as they come back from bytes; counts how many were given.
#[derive(Default)]
struct Memory {
    objects: BTreeMap<ContentHash, Arc<DecodedObject>>,
    given: AtomicUsize,
}

impl Memory {
    fn of<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Self {
        let keep = |instance: &Instance| {
            let decoded = decode_object(instance, &Limits::default());
            let back = DecodedObject::from_bytes(&decoded.to_bytes()).unwrap();
            assert_eq!(back, decoded);
            (instance.content.unwrap(), Arc::new(back))
        };
        Self {
            objects: instances.into_iter().map(keep).collect(),
            given: AtomicUsize::new(0),
        }
    }
}

impl DecodedSlices for Memory {
    fn get(&self, content: ContentHash) -> Option<Arc<DecodedObject>> {
        let object = self.objects.get(&content).map(Arc::clone);
        self.given
            .fetch_add(usize::from(object.is_some()), Ordering::Relaxed);
        object
    }
}

/// Gives each instance the name of its content.
fn named(mut instances: Vec<Instance>) -> Vec<Instance> {
    for instance in &mut instances {
        let hash = blake3::hash(&fs::read(&instance.path).unwrap());
        instance.content = ContentHash::from_hex(hash.to_hex().as_str());
    }
    instances
}

/// All that comes of a study, in words and voxels.
fn outcome(instances: &[Instance], decoded: &dyn DecodedSlices) -> (Vec<String>, Vec<i16>) {
    let limits = Limits::default();
    let decoding = Decoding {
        limits: &limits,
        decoded,
    };
    let mut study = StudyScans::of(instances, decoding);
    let (mut words, mut voxels) = (Vec::new(), Vec::new());
    while let Some(mut scan) = study.next_scan() {
        if let Ok(head) = &mut scan.volume {
            voxels.extend(std::mem::take(&mut head.volume.hounsfield));
        }
        words.push(format!("{scan:?}"));
    }
    words.push(format!("{:?}", study.verdicts()));
    (words, voxels)
}

/// `instances` in another order.
fn shuffled(instances: &[Instance], seed: usize) -> Vec<Instance> {
    let mut order: Vec<usize> = (0..instances.len()).collect();
    order.sort_by_key(|index| (index + 1).wrapping_mul(2 * seed + 1) * 7919 % 1009);
    order
        .into_iter()
        .map(|index| instances[index].clone())
        .collect()
}

/// Compares a study decoded afresh with the same study of which nothing, a part or all is kept.
fn assert_same(name: &str, instances: Vec<Instance>) {
    let instances = named(instances);
    let expected = outcome(&instances, &NothingDecoded);
    for (seed, every) in [(1, 1), (2, 2), (3, 5)] {
        let instances = shuffled(&instances, seed);
        let memory = Memory::of(instances.iter().step_by(every));
        assert_eq!(
            outcome(&instances, &memory),
            expected,
            "{name}, 1 of {every}"
        );
        assert!(memory.given.into_inner() > 0, "{name}: nothing was taken");
    }
}

#[test]
fn a_study_comes_out_the_same_whatever_is_kept_of_it() {
    for name in [
        "small_head",
        "enhanced_ct",
        "deflated",
        "big_endian",
        "padded_circle",
        "scale_per_slice",
        "tilt_steep",
        "duplicate_slices",
    ] {
        let (_folder, instances) = fixture(name);
        assert_same(name, instances);
    }
}

#[test]
fn two_contents_under_one_name_are_kept_apart() {
    let (_folder, instances) = fixture("conflicting_objects");
    let instances = named(instances);
    let memory = Memory::of(&instances);
    assert_eq!(
        outcome(&instances, &memory),
        outcome(&instances, &NothingDecoded)
    );
}

type Encoder = fn(&[u16], [u32; 2]) -> Vec<u8>;

/// Bytes as they are, 128 at a time (PS3.5 annex G), high bytes first.
fn rle(values: &[u16], _size: [u32; 2]) -> Vec<u8> {
    let segment = |pick: fn(u16) -> u8| {
        let bytes: Vec<u8> = values.iter().map(|value| pick(*value)).collect();
        let runs = bytes.chunks(128).flat_map(|run| {
            let length = u8::try_from(run.len() - 1).unwrap();
            [&[length], run].concat()
        });
        let mut segment: Vec<u8> = runs.collect();
        segment.resize(segment.len().next_multiple_of(2), 128);
        segment
    };
    let high = segment(|value| value.to_be_bytes()[0]);
    let second = 64 + u32::try_from(high.len()).unwrap();
    let mut frame: Vec<u8> = [2, 64, second]
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    frame.resize(64, 0);
    frame.extend(high);
    frame.extend(segment(|value| value.to_be_bytes()[1]));
    frame
}

fn jpeg_lossless(values: &[u16], [_, columns]: [u32; 2]) -> Vec<u8> {
    lossless(values, usize::try_from(columns).unwrap(), PLAIN)
}

const SYNTAXES: [(&str, Encoder); 3] = [
    ("1.2.840.10008.1.2.4.80", |values, [rows, columns]| {
        jpeg_ls(values, columns, rows)
    }),
    ("1.2.840.10008.1.2.5", rle),
    ("1.2.840.10008.1.2.4.57", jpeg_lossless),
];

/// Writes the object at `path` again, compressed.
fn compress(path: &Path, syntax: &str, encode: Encoder) {
    let mut object = open_file(path).unwrap().into_inner();
    let size = [tags::ROWS, tags::COLUMNS]
        .map(|tag| object.element(tag).unwrap().to_int::<u32>().unwrap());
    let pixels = object.take_element(tags::PIXEL_DATA).unwrap();
    let values: Vec<u16> = pixels.to_multi_int().unwrap();
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PixelFragmentSequence::new_fragments(vec![encode(&values, size)]),
    ));
    object.put(DataElement::new(
        tags::PIXEL_REPRESENTATION,
        VR::US,
        PrimitiveValue::from(0_u16),
    ));
    let meta = FileMetaTableBuilder::new().transfer_syntax(syntax);
    let object = object.with_meta(meta).unwrap();
    object.write_to_file(path).unwrap();
}

fn compressed(instances: &[Instance], syntax: &str, encode: Encoder) -> Vec<Instance> {
    let again = |instance: &Instance| {
        compress(&instance.path, syntax, encode);
        read_instance(&instance.path, &Limits::default()).unwrap()
    };
    instances.iter().map(again).collect()
}

#[test]
fn a_compressed_study_comes_out_the_same_also_with_damaged_slices() {
    for (syntax, encode) in SYNTAXES {
        let (_folder, instances) = fixture("small_head");
        let native = outcome(&instances, &NothingDecoded).1;
        let instances = compressed(&instances, syntax, encode);
        assert!(instances.iter().all(is_slow));
        assert_eq!(outcome(&instances, &NothingDecoded).1, native, "{syntax}");
        for damaged in [0, 9] {
            let path = &instances[damaged].path;
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() - 64;
            bytes[middle..].fill(0xFF);
            fs::write(path, bytes).unwrap();
        }
        assert_same(syntax, instances);
    }
}

#[test]
fn a_refused_frame_says_why_and_is_decoded_again() {
    let (_folder, mut instances) = fixture("small_head");
    instances.truncate(1);
    instances[0].frames[0].rescale_slope = Some(-1.0);
    let instances = named(instances);
    let decoded = decode_object(&instances[0], &Limits::default());
    let reason = decoded.hounsfield(0).unwrap().unwrap_err();
    assert_eq!(reason.code, ReasonCode::NotHounsfield);
    let again = DecodedObject::from_bytes(&decoded.to_bytes()).unwrap();
    assert_eq!(again, decoded);
    assert!(!again.is_whole() && again.hounsfield(1).is_none());
    let memory = Memory::of(&instances);
    let limits = Limits::default();
    let decoding = Decoding {
        limits: &limits,
        decoded: &memory,
    };
    assert!(decoding.kept(&instances[0]).is_none());
}

#[test]
fn what_was_decoded_with_another_header_or_other_limits_is_not_taken() {
    let (_folder, instances) = fixture("small_head");
    let instance = &named(instances)[0];
    let limits = Limits::default();
    let decoded = decode_object(instance, &limits);
    assert!(decoded.is_of(instance, &limits));
    let mut moved = instance.clone();
    moved.path = "elsewhere".into();
    moved.pixels.as_mut().unwrap().native_offset = Some(7);
    assert!(decoded.is_of(&moved, &limits));
    let mut steeper = instance.clone();
    steeper.frames[0].rescale_slope = Some(2.0);
    let mut other = instance.clone();
    other.content = None;
    let narrow = Limits {
        frame_side_max: 16,
        ..Limits::default()
    };
    assert!(!decoded.is_of(&steeper, &limits) && !decoded.is_of(&other, &limits));
    assert!(!decoded.is_of(instance, &narrow));
}

#[test]
fn a_kept_object_takes_two_bytes_a_voxel() {
    let (_folder, instances) = fixture("enhanced_ct");
    let instance = &instances[0];
    let decoded = decode_object(instance, &Limits::default());
    let kept = u64::try_from(decoded.to_bytes().len()).unwrap();
    assert!((decoded_bytes(instance)..decoded_bytes(instance) + 200).contains(&kept));
    for frame_index in [0, decoded.frame_count() - 1] {
        let slice = Slice::of(instance, frame_index);
        let alone = frame_hounsfield(&slice, Decoding::afresh(&Limits::default())).unwrap();
        assert_eq!(decoded.hounsfield(frame_index).unwrap().unwrap(), alone);
    }
}

proptest! {
    #[test]
    fn foreign_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(DecodedObject::from_bytes(&bytes).is_err());
        // Also under a seal that holds.
        let sealed = sealed::seal(KIND, VERSION, &bytes);
        if let Ok(object) = DecodedObject::from_bytes(&sealed) {
            prop_assert_eq!(object.to_bytes(), sealed);
        }
    }
}
