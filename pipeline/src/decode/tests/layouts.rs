//! Where samples lie in their words, natively and compressed, and frames in their fragments.

use super::*;

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
