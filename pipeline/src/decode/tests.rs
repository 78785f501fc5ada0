//! Decoding: layouts, padding, refusals, and compressed frames made on the spot.

use std::fs;
use std::path::Path;

use dicom_core::value::{PixelFragmentSequence, PrimitiveValue};
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ndarray::{Array2, Array3};
use proptest::prelude::*;
use tempfile::TempDir;

use super::jpeg::tests::{LosslessPlan, PLAIN, lossless, sequential};
use super::source::frame_ranges;
use super::{Decoding, frame_hounsfield, stack_hounsfield};
use crate::instance::{FrameHeader, Instance};
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::series::Slice;
use crate::testing;
use crate::uid::Uid;

const JPEG_EXTENDED: &str = "1.2.840.10008.1.2.4.51";
const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.57";
const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
const RLE: &str = "1.2.840.10008.1.2.5";

/// A folder with one object of 2 × 3 pixels, signed, HU = stored - 10.
fn object(folder: &TempDir, bytes: &[u8]) -> Instance {
    let path = folder.path().join("object");
    fs::write(&path, bytes).unwrap();
    let mut instance = testing::instance("1.2.3", 2, 3);
    instance.path = path;
    instance.pixels.as_mut().unwrap().signed = true;
    instance.frames = vec![FrameHeader {
        rescale_slope: Some(1.0),
        rescale_intercept: Some(-10.0),
        ..FrameHeader::default()
    }];
    instance
}

fn decode(instance: &Instance, frame_index: usize) -> Result<Array2<i16>, Reason> {
    let slice = Slice::of(instance, frame_index);
    frame_hounsfield(&slice, Decoding::afresh(&Limits::default()))
}

fn code_of(instance: &Instance) -> ReasonCode {
    decode(instance, 0).unwrap_err().code
}

fn words(values: &[i16]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn flat(plane: Array2<i16>) -> Vec<i16> {
    plane.into_iter().collect()
}

#[test]
fn signed_words_are_rescaled_and_saturate() {
    let folder = TempDir::new().unwrap();
    let instance = object(&folder, &words(&[0, 1, -1, 1000, i16::MIN, i16::MAX]));
    let plane = decode(&instance, 0).unwrap();
    assert_eq!(plane.dim(), (2, 3));
    assert_eq!(flat(plane), [-10, -9, -11, 990, i16::MIN, i16::MAX - 10]);
}

#[test]
fn big_endian_words_are_swapped() {
    let folder = TempDir::new().unwrap();
    let bytes: Vec<u8> = [0_i16, 1, -1, 1000, 300, -300]
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect();
    let mut instance = object(&folder, &bytes);
    instance.transfer_syntax_uid = Uid::new("1.2.840.10008.1.2.2").unwrap();
    assert_eq!(
        flat(decode(&instance, 0).unwrap()),
        [-10, -9, -11, 990, 290, -310]
    );
}

#[test]
fn bytes_are_read_as_bytes() {
    let folder = TempDir::new().unwrap();
    let mut instance = object(&folder, &[0, 1, 0xFF, 0x7F, 0x80, 5]);
    let pixels = instance.pixels.as_mut().unwrap();
    (pixels.bits_allocated, pixels.bits_stored, pixels.high_bit) = (8, 8, 7);
    pixels.native_length = Some(6);
    assert_eq!(
        flat(decode(&instance, 0).unwrap()),
        [-10, -9, -11, 117, -138, -5]
    );
}

proptest! {
    #[test]
    fn bits_above_those_stored_change_nothing(
        values in prop::collection::vec(-2048_i16..2048, 6), junk in 0_u16..16, signed: bool
    ) {
        let folder = TempDir::new().unwrap();
        let stored: Vec<u8> = values
            .iter()
            .flat_map(|value| ((value.cast_unsigned() & 0x0FFF) | (junk << 12)).to_le_bytes())
            .collect();
        let mut instance = object(&folder, &stored);
        let pixels = instance.pixels.as_mut().unwrap();
        (pixels.bits_stored, pixels.high_bit, pixels.signed) = (12, 11, signed);
        let expected: Vec<i16> = values
            .iter()
            .map(|value| if signed { *value } else { value & 0x0FFF } - 10)
            .collect();
        prop_assert_eq!(flat(decode(&instance, 0).unwrap()), expected);
    }
}

#[test]
fn padding_becomes_air_before_the_rescale_also_outside_the_stored_bits() {
    let folder = TempDir::new().unwrap();
    let mut instance = object(&folder, &words(&[-2000, 0, -1990, 7, -2001, 100]));
    instance.pixels.as_mut().unwrap().padding_value = Some(-2000);
    assert_eq!(
        flat(decode(&instance, 0).unwrap()),
        [-1000, -10, -2000, -3, -2011, 90]
    );
    instance.pixels.as_mut().unwrap().padding_limit = Some(-1990);
    assert_eq!(
        flat(decode(&instance, 0).unwrap()),
        [-1000, -10, -1000, -3, -2011, 90]
    );
    let pixels = instance.pixels.as_mut().unwrap();
    (pixels.bits_stored, pixels.high_bit) = (11, 10);
    assert_eq!(flat(decode(&instance, 0).unwrap())[0], -1000);
}

#[test]
fn padding_that_would_be_tissue_is_not_believed() {
    let folder = TempDir::new().unwrap();
    let mut instance = object(&folder, &words(&[0, 1, 2, 3, 4, 5]));
    instance.pixels.as_mut().unwrap().padding_value = Some(0);
    assert_eq!(flat(decode(&instance, 0).unwrap())[0], -10);
}

#[test]
fn a_missing_rescale_is_refused_unless_the_values_are_plainly_hounsfield() {
    let folder = TempDir::new().unwrap();
    let mut instance = object(&folder, &words(&[0, 24, 1000, 1060, 1050, 2000]));
    instance.frames[0].rescale_slope = None;
    assert_eq!(code_of(&instance), ReasonCode::NotHounsfield);
    let mut instance = object(&folder, &words(&[-1000, -1001, 30, 40, 50, 900]));
    instance.frames[0].rescale_intercept = None;
    assert_eq!(flat(decode(&instance, 0).unwrap())[..2], [-1000, -1001]);
}

#[test]
fn another_unit_or_a_zero_slope_is_not_hounsfield() {
    let folder = TempDir::new().unwrap();
    let mut instance = object(&folder, &words(&[5; 6]));
    instance.frames[0].rescale_type = "MGML".to_owned();
    assert_eq!(code_of(&instance), ReasonCode::NotHounsfield);
    let mut instance = object(&folder, &words(&[5; 6]));
    instance.frames[0].rescale_slope = Some(0.0);
    assert_eq!(code_of(&instance), ReasonCode::NotHounsfield);
}

#[test]
fn colour_and_inverted_grey_are_refused() {
    let folder = TempDir::new().unwrap();
    for (photometric, samples) in [("MONOCHROME1", 1), ("RGB", 3)] {
        let mut instance = object(&folder, &words(&[5; 6]));
        let pixels = instance.pixels.as_mut().unwrap();
        pixels.photometric = photometric.to_owned();
        pixels.samples_per_pixel = samples;
        assert_eq!(code_of(&instance), ReasonCode::NotHounsfield);
    }
}

#[test]
fn a_wrong_length_names_both_numbers() {
    let folder = TempDir::new().unwrap();
    for length in [10, 18, 400] {
        let mut instance = object(&folder, &[0; 400]);
        instance.pixels.as_mut().unwrap().native_length = Some(length);
        let reason = decode(&instance, 0).unwrap_err();
        assert_eq!(reason.code, ReasonCode::WrongPixelSize);
        assert!(reason.text.contains(&length.to_string()), "{}", reason.text);
        assert!(reason.text.contains("12") && reason.text.contains("1.2.3"));
    }
}

#[test]
fn a_file_that_ends_early_is_truncated_and_not_zero() {
    let folder = TempDir::new().unwrap();
    let instance = object(&folder, &words(&[1, 2, 3, 4, 5]));
    assert_eq!(code_of(&instance), ReasonCode::Truncated);
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let folder = TempDir::new().unwrap();
    let mut instance = object(&folder, &[]);
    instance.pixels.as_mut().unwrap().columns = u32::MAX;
    assert_eq!(code_of(&instance), ReasonCode::LimitExceeded);
}

#[test]
fn frames_of_one_object_are_read_one_by_one_and_together() {
    let folder = TempDir::new().unwrap();
    let values: Vec<i16> = (0..18).collect();
    let mut instance = object(&folder, &words(&values));
    let pixels = instance.pixels.as_mut().unwrap();
    pixels.frame_count = 3;
    pixels.native_length = Some(36);
    instance.frames = vec![instance.frames[0].clone(); 3];
    instance.frames[2].rescale_intercept = Some(0.0);
    assert_eq!(flat(decode(&instance, 1).unwrap()), [-4, -3, -2, -1, 0, 1]);
    let slices: Vec<Slice<'_>> = (0..3)
        .map(|frame_index| Slice::of(&instance, frame_index))
        .collect();
    let mut planes = Array3::zeros((3, 2, 3));
    let verdicts = stack_hounsfield(&slices, Decoding::afresh(&Limits::default()), &mut planes);
    assert!(verdicts.iter().all(Result::is_ok));
    let expected: Vec<i16> = (0..18).map(|v| if v < 12 { v - 10 } else { v }).collect();
    assert_eq!(planes.into_iter().collect::<Vec<_>>(), expected);
}

/// Writes a Part 10 file with these fragments and gives its object.
fn encapsulated(folder: &TempDir, syntax: &str, fragments: Vec<Vec<u8>>) -> Instance {
    let path = folder.path().join("encapsulated");
    write_part10(&path, syntax, fragments);
    let mut instance = object(folder, &[]);
    instance.path = path;
    instance.transfer_syntax_uid = Uid::new(syntax).unwrap();
    let pixels = instance.pixels.as_mut().unwrap();
    (pixels.native_offset, pixels.native_length) = (None, None);
    instance
}

fn write_part10(path: &Path, syntax: &str, fragments: Vec<Vec<u8>>) {
    let mut object = InMemDicomObject::new_empty();
    object.put(DataElement::new(
        tags::SOP_INSTANCE_UID,
        VR::UI,
        PrimitiveValue::from("1.2.3"),
    ));
    object.put(DataElement::new(
        tags::PIXEL_DATA,
        VR::OB,
        PixelFragmentSequence::new_fragments(fragments),
    ));
    object
        .with_meta(
            FileMetaTableBuilder::new()
                .transfer_syntax(syntax)
                .media_storage_sop_class_uid("1.2.840.10008.5.1.4.1.1.2")
                .media_storage_sop_instance_uid("1.2.3"),
        )
        .unwrap()
        .write_to_file(path)
        .unwrap();
}

pub(super) fn jpeg_ls(values: &[u16], columns: u32, rows: u32) -> Vec<u8> {
    let mut encoded = Vec::new();
    jpegls::encode(values, columns, rows, &mut encoded).unwrap();
    if encoded.len() % 2 == 1 {
        encoded.push(0);
    }
    encoded
}

#[test]
fn jpeg_ls_is_decoded_also_in_pieces_and_with_fill_bytes() {
    let folder = TempDir::new().unwrap();
    let encoded = jpeg_ls(&[10, 11, 12, 13, 14, 4000], 3, 2);
    let expected = [0, 1, 2, 3, 4, 3990];
    let (first, second) = encoded.split_at(encoded.len() / 2 / 2 * 2);
    let mut instance = encapsulated(&folder, JPEG_LS, vec![first.to_vec(), second.to_vec()]);
    instance.pixels.as_mut().unwrap().signed = false;
    assert_eq!(flat(decode(&instance, 0).unwrap()), expected);
    let end = encoded.iter().rposition(|byte| *byte == 0xFF).unwrap();
    let mut filled = encoded[..end].to_vec();
    filled.extend([0xFF, 0xFF, 0xFF, 0xD9]);
    let mut instance = encapsulated(&folder, JPEG_LS, vec![filled]);
    instance.pixels.as_mut().unwrap().signed = false;
    assert_eq!(flat(decode(&instance, 0).unwrap()), expected);
}

#[test]
fn a_compressed_frame_of_another_size_is_named_and_not_filled_up() {
    let folder = TempDir::new().unwrap();
    let instance = encapsulated(&folder, JPEG_LS, vec![jpeg_ls(&[1, 2, 3, 4], 2, 2)]);
    assert_eq!(code_of(&instance), ReasonCode::WrongPixelSize);
    let instance = encapsulated(&folder, RLE, vec![rle(&[1, 2, 3])]);
    assert_eq!(code_of(&instance), ReasonCode::WrongPixelSize);
}

/// Two segments of literal bytes, high bytes first (PS3.5 annex G).
fn rle(values: &[u16]) -> Vec<u8> {
    let length = u8::try_from(values.len()).unwrap();
    let segment = |pick: fn(u16) -> u8| {
        let mut bytes = vec![length - 1];
        bytes.extend(values.iter().map(|value| pick(*value)));
        bytes.resize(bytes.len().next_multiple_of(2), 128);
        bytes
    };
    let high = segment(|value| value.to_be_bytes()[0]);
    let mut frame: Vec<u8> = [2, 64, 64 + u32::try_from(high.len()).unwrap()]
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect();
    frame.resize(64, 0);
    frame.extend(high);
    frame.extend(segment(|value| value.to_be_bytes()[1]));
    frame
}

#[test]
fn rle_is_decoded() {
    let folder = TempDir::new().unwrap();
    let instance = encapsulated(&folder, RLE, vec![rle(&[10, 11, 600, 13, 14, 4000])]);
    assert_eq!(flat(decode(&instance, 0).unwrap()), [0, 1, 590, 3, 4, 3990]);
}

proptest! {
    #[test]
    fn damaged_compressed_frames_never_panic(
        cut in 0_usize..90, place in 0_usize..90, byte: u8, lossless_jpeg: bool
    ) {
        let folder = TempDir::new().unwrap();
        let (syntax, mut frame) = if lossless_jpeg {
            (JPEG_LS, jpeg_ls(&[10, 11, 600, 13, 14, 4000], 3, 2))
        } else {
            (RLE, rle(&[10, 11, 600, 13, 14, 4000]))
        };
        let place = place % frame.len();
        frame[place] = byte;
        frame.truncate(frame.len() - cut % frame.len());
        let instance = encapsulated(&folder, syntax, vec![frame]);
        if let Ok(plane) = decode(&instance, 0) {
            prop_assert_eq!(plane.dim(), (2, 3));
        }
    }
}

#[test]
fn an_unknown_transfer_syntax_is_unsupported() {
    let folder = TempDir::new().unwrap();
    let mut instance = encapsulated(&folder, RLE, vec![vec![0; 4]]);
    instance.transfer_syntax_uid = Uid::new("1.2.3.4").unwrap();
    assert_eq!(code_of(&instance), ReasonCode::UnsupportedTransferSyntax);
    instance.transfer_syntax_uid = Uid::new("1.2.840.10008.1.2.4.100").unwrap();
    assert_eq!(code_of(&instance), ReasonCode::UnsupportedTransferSyntax);
}

#[test]
fn fragments_are_joined_to_frames_by_count_or_by_offsets() {
    let pieces = |lengths: &[usize]| -> Vec<Vec<u8>> {
        lengths.iter().map(|length| vec![0; *length]).collect()
    };
    let one = frame_ranges(1, &pieces(&[4, 6]), &[]).unwrap();
    assert_eq!((one.len(), one[0].clone()), (1, 0..2));
    assert_eq!(
        frame_ranges(2, &pieces(&[4, 6]), &[]).unwrap(),
        [0..1, 1..2]
    );
    let five = pieces(&[4, 6, 8, 2, 2]);
    assert_eq!(frame_ranges(2, &five, &[0, 26]).unwrap(), [0..2, 2..5]);
    for offsets in [&[][..], &[0, 27], &[26, 0], &[0]] {
        assert!(frame_ranges(2, &five, offsets).is_err(), "{offsets:?}");
    }
    assert!(frame_ranges(1, &[], &[]).is_err());
}

/// Bits stored, High Bit, signed.
fn with_layout(mut instance: Instance, (stored, high, signed): (u16, u16, bool)) -> Instance {
    let pixels = instance.pixels.as_mut().unwrap();
    (pixels.bits_stored, pixels.high_bit, pixels.signed) = (stored, high, signed);
    instance
}

fn even(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

/// A value of `bits` bits, as the sample of a picture that may be signed.
fn in_range(value: u16, bits: u16, signed: bool) -> i16 {
    let span = 1_i32 << bits;
    let value = i32::from(value) % span;
    let value = if signed && value >= span / 2 {
        value - span
    } else {
        value
    };
    i16::try_from(value).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_sample_is_read_where_the_high_bit_ends_it(
        values in prop::collection::vec(any::<u16>(), 6), junk: u16, stored in 8_u16..=14,
        above in 0_u16..=8, signed: bool
    ) {
        let high = (stored - 1 + above).min(15);
        let shift = high + 1 - stored;
        let expected: Vec<i16> = values.iter().map(|value| in_range(*value, stored, signed)).collect();
        let mask = ((1 << stored) - 1) << shift;
        // Something high stands in the first place: shifted or not cannot be taken for one another.
        let words: Vec<u8> = expected
            .iter()
            .flat_map(|value| ((value.cast_unsigned() << shift) & mask | junk & !mask).to_le_bytes())
            .collect();
        let folder = TempDir::new().unwrap();
        let instance = with_layout(object(&folder, &words), (stored, high, signed));
        let expected: Vec<i16> = expected.iter().map(|value| value - 10).collect();
        match decode(&instance, 0) {
            Ok(plane) => prop_assert_eq!(flat(plane), expected),
            // All of them lie in the lowest bits, and something is below the sample: no telling.
            Err(reason) => prop_assert!(
                shift > 0 && junk & ((1 << shift) - 1) != 0 && reason.text.contains("(0028,0102)"),
                "{}", reason.text
            ),
        }
    }

    #[test]
    fn lossless_jpeg_gives_the_native_picture_whatever_its_precision(
        values in prop::collection::vec(any::<u16>(), 6), precision in 8_u8..=16,
        wider in 0_u16..=8, signed: bool, left: bool, predictor in 1_u8..=7, restarts: bool,
        cut in 1_usize..40
    ) {
        // Code of `precision` bits in a picture that stores as many or more, wherever its High Bit.
        let bits = u16::from(precision);
        let stored = (bits + wider).min(16);
        let high = if left { 15 } else { stored - 1 };
        let samples: Vec<i16> = values
            .iter()
            .map(|value| in_range(*value, bits.min(15), signed))
            .collect();
        let mask = u16::MAX >> (16 - bits);
        let code: Vec<u16> = samples.iter().map(|value| value.cast_unsigned() & mask).collect();
        let plan = LosslessPlan { precision, predictor, restart_rows: restarts.into(), ..PLAIN };
        let encoded = even(lossless(&code, 3, plan));
        let (first, second) = encoded.split_at(cut.min(encoded.len() / 2) * 2);
        let folder = TempDir::new().unwrap();
        let instance = encapsulated(&folder, JPEG_LOSSLESS, vec![first.to_vec(), second.to_vec()]);
        let instance = with_layout(instance, (stored, high, signed));
        // A code as wide as the word holds the word, as it was, in its place.
        prop_assume!(bits <= high);
        let sign = |value: &i16| if signed { in_range(value.cast_unsigned() & mask, bits, true) } else { *value };
        let expected: Vec<i16> = samples.iter().map(|value| sign(value).saturating_sub(10)).collect();
        prop_assert_eq!(flat(decode(&instance, 0).unwrap()), expected);
    }
}

#[test]
fn words_coded_whole_are_read_where_their_high_bit_says() {
    let folder = TempDir::new().unwrap();
    for (signed, values) in [
        (false, [0, 1, 1000, 4095, 24, 2047]),
        (true, [0, 1, -1, -2048, 24, 2047]),
    ] {
        for high in 11..=15 {
            let words = values.map(|value: i16| (value << (high - 11)).cast_unsigned());
            let expected: Vec<i16> = values.iter().map(|value| value - 10).collect();
            let native = words
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect::<Vec<u8>>();
            let coded = [
                (JPEG_LOSSLESS, even(lossless(&words, 3, PLAIN))),
                (RLE, rle(&words)),
            ];
            let plain = with_layout(object(&folder, &native), (12, high, signed));
            assert_eq!(flat(decode(&plain, 0).unwrap()), expected);
            for (syntax, bytes) in coded {
                let instance = encapsulated(&folder, syntax, vec![bytes]);
                let instance = with_layout(instance, (12, high, signed));
                assert_eq!(
                    flat(decode(&instance, 0).unwrap()),
                    expected,
                    "{syntax} {high}"
                );
            }
        }
    }
}

#[test]
fn a_high_bit_that_cannot_be_is_named() {
    let folder = TempDir::new().unwrap();
    for (stored, high) in [(12, 10), (12, 16), (16, 11), (12, 0), (10, u16::MAX)] {
        let instance = with_layout(object(&folder, &words(&[5; 6])), (stored, high, false));
        let reason = decode(&instance, 0).unwrap_err();
        assert_eq!(reason.code, ReasonCode::UndecodablePixels);
        assert!(
            reason
                .text
                .contains(&format!("High Bit (0028,0102) is {high};")),
            "{}",
            reason.text
        );
    }
    let mut bytes = with_layout(object(&folder, &[0; 6]), (8, 8, false));
    let pixels = bytes.pixels.as_mut().unwrap();
    (pixels.bits_allocated, pixels.native_length) = (8, Some(6));
    assert_eq!(code_of(&bytes), ReasonCode::UndecodablePixels);
}

#[test]
fn pixels_in_the_lowest_bits_under_a_header_that_says_otherwise_are_refused() {
    let folder = TempDir::new().unwrap();
    let lowest = words(&[0, 24, 1064, 1065, 2047, 4095]);
    let instance = with_layout(object(&folder, &lowest), (12, 15, false));
    let reason = decode(&instance, 0).unwrap_err();
    assert!(
        reason.text.contains("do not belong together"),
        "{}",
        reason.text
    );
    let signed = words(&[0, -1000, 40, 35, 2047, -1]);
    let instance = with_layout(object(&folder, &signed), (12, 15, true));
    assert_eq!(code_of(&instance), ReasonCode::UndecodablePixels);
    let zeros = with_layout(object(&folder, &words(&[0; 6])), (12, 15, true));
    assert_eq!(flat(decode(&zeros, 0).unwrap()), [-10; 6]);
}

#[test]
fn a_code_whose_precision_fits_neither_the_bits_stored_nor_the_high_bit_is_refused() {
    let folder = TempDir::new().unwrap();
    let plan = LosslessPlan {
        precision: 14,
        ..PLAIN
    };
    let encoded = even(lossless(&[0, 1, 2, 3, 4, 5], 3, plan));
    let instance = encapsulated(&folder, JPEG_LOSSLESS, vec![encoded]);
    let reason = decode(&with_layout(instance.clone(), (12, 15, false)), 0).unwrap_err();
    assert!(reason.text.contains("14 bits"), "{}", reason.text);
    // Wider than both, it is taken as it is.
    let narrow = with_layout(instance, (12, 11, false));
    assert_eq!(flat(decode(&narrow, 0).unwrap()), [-10, -9, -8, -7, -6, -5]);
}

#[test]
fn a_sample_beyond_its_precision_is_damage_unless_it_is_a_sign() {
    let folder = TempDir::new().unwrap();
    let plan = LosslessPlan {
        precision: 12,
        ..PLAIN
    };
    let decoded = |values: [i16; 6], signed| {
        let words = values.map(i16::cast_unsigned);
        let instance = encapsulated(
            &folder,
            JPEG_LOSSLESS,
            vec![even(lossless(&words, 3, plan))],
        );
        decode(&with_layout(instance, (16, 15, signed)), 0)
    };
    let negative = [-1000, 5, -2, 2047, -2048, 0];
    assert_eq!(
        flat(decoded(negative, true).unwrap()),
        negative.map(|value| value - 10)
    );
    assert!(
        decoded(negative, false)
            .unwrap_err()
            .text
            .contains("damaged")
    );
    assert!(decoded([4096, 0, 0, 0, 0, 0], false).is_err());
    assert!(decoded([-2049, 0, 0, 0, 0, 0], true).is_err());
}

#[test]
fn jpeg_of_eight_and_of_twelve_bits_is_decoded_by_its_cosines() {
    let folder = TempDir::new().unwrap();
    for (precision, values) in [
        (8, [10, 20, 30, 40, 50, 60]),
        (12, [24, 1050, 1060, 1070, 1080, 4000]),
    ] {
        let encoded = even(sequential(&values, 3, precision, (1, 0)));
        let mut instance = encapsulated(&folder, JPEG_EXTENDED, vec![encoded]);
        instance.pixels.as_mut().unwrap().signed = false;
        let plane = flat(decode(&instance, 0).unwrap());
        for (hounsfield, value) in plane.iter().zip(values) {
            let expected = i16::try_from(value).unwrap() - 10;
            assert!((hounsfield - expected).abs() <= 1, "{plane:?}");
        }
    }
}

#[test]
fn frames_of_a_compressed_object_are_decoded_each_from_its_own_fragments() {
    let folder = TempDir::new().unwrap();
    let frames: Vec<Vec<u16>> = (0..3).map(|frame| vec![1000 * frame + 24; 6]).collect();
    let fragments = frames
        .iter()
        .map(|frame| even(lossless(frame, 3, PLAIN)))
        .collect();
    let mut instance = encapsulated(&folder, JPEG_LOSSLESS, fragments);
    instance.pixels.as_mut().unwrap().frame_count = 3;
    instance.frames = vec![instance.frames[0].clone(); 3];
    for (index, expected) in [14, 1014, 2014].into_iter().enumerate() {
        assert_eq!(flat(decode(&instance, index).unwrap()), [expected; 6]);
    }
}
