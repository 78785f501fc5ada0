//! The decoder against an encoder written from the standard for this purpose, and against damage.

use proptest::prelude::*;

use super::{JpegError, decode};

/// How a lossless picture is written.
#[derive(Clone, Copy, Debug)]
pub(in crate::decode) struct LosslessPlan {
    pub(in crate::decode) precision: u8,
    pub(in crate::decode) predictor: u8,
    /// Lowest bits that are not coded.
    pub(in crate::decode) shift: u8,
    /// 0 for no restarts.
    pub(in crate::decode) restart_rows: usize,
    /// One code has one bit, the next two and so on up to 16, instead of five bits each.
    pub(in crate::decode) long_codes: bool,
}

pub(in crate::decode) const PLAIN: LosslessPlan = LosslessPlan {
    precision: 16,
    predictor: 1,
    shift: 0,
    restart_rows: 0,
    long_codes: false,
};

/// Bits into bytes, with a zero stuffed behind each 0xFF.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    bits: Vec<bool>,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.bits.push(value >> bit & 1 == 1);
            if self.bits.len() == 8 {
                let byte = self
                    .bits
                    .drain(..)
                    .fold(0, |sum, bit| sum << 1 | u8::from(bit));
                self.bytes.push(byte);
                if byte == 0xFF {
                    self.bytes.push(0);
                }
            }
        }
    }

    /// Fills up the last byte with ones, and adds a marker.
    fn mark(&mut self, marker: u8) {
        while !self.bits.is_empty() {
            self.put(1, 1);
        }
        self.bytes.extend([0xFF, marker]);
    }

    /// A category by its code, then the difference's own bits.
    fn put_difference(&mut self, difference: i32, codes: &[(u32, u32)]) {
        let category = 32 - difference.unsigned_abs().leading_zeros();
        let (code, length) = codes[category as usize];
        self.put(code, length);
        if category < 16 {
            let negative = i32::from(difference < 0);
            let own = (difference - negative).cast_unsigned();
            self.put(own & ((1 << category) - 1), category);
        }
    }
}

/// The 17 categories: how many codes of each length, and the codes.
fn categories(long_codes: bool) -> ([u8; 16], Vec<(u32, u32)>) {
    let mut counts = [0; 16];
    if !long_codes {
        counts[4] = 17;
        return (counts, (0..17).map(|code| (code, 5)).collect());
    }
    counts[..15].fill(1);
    counts[15] = 2;
    let mut codes: Vec<(u32, u32)> = (1..=16).map(|length| ((1 << length) - 2, length)).collect();
    codes.push(((1 << 16) - 1, 16));
    // A code of ones only is forbidden, but some writers use it; it must not hurt.
    (counts, codes)
}

fn segment(out: &mut Vec<u8>, marker: u8, content: &[u8]) {
    let length = u16::try_from(content.len() + 2).unwrap();
    out.extend([0xFF, marker]);
    out.extend(length.to_be_bytes());
    out.extend(content);
}

/// What comes before the scan's data, in the order of the standard's figures.
fn headers(sof: u8, precision: u8, (rows, columns): (usize, usize), restart: usize) -> Vec<u8> {
    let mut out = vec![0xFF, 0xD8];
    segment(&mut out, 0xFE, b"a comment");
    let side = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let ([r1, r0], [c1, c0]) = (side(rows), side(columns));
    segment(&mut out, sof, &[precision, r1, r0, c1, c0, 1, 1, 0x11, 0]);
    if restart > 0 {
        segment(
            &mut out,
            0xDD,
            &u16::try_from(restart).unwrap().to_be_bytes(),
        );
    }
    out
}

/// Writes `samples` of `columns` a row.
pub(in crate::decode) fn lossless(samples: &[u16], columns: usize, plan: LosslessPlan) -> Vec<u8> {
    let rows = samples.len() / columns;
    let (counts, codes) = categories(plan.long_codes);
    let restart = plan.restart_rows * columns;
    let mut out = headers(0xC3, plan.precision, (rows, columns), restart);
    let values: Vec<u8> = (0..17).collect();
    segment(&mut out, 0xC4, &[&[0][..], &counts, &values].concat());
    segment(&mut out, 0xDA, &[1, 1, 0, plan.predictor, 0, plan.shift]);
    let mut writer = BitWriter::default();
    for row in 0..rows {
        if plan.restart_rows > 0 && row > 0 && row % plan.restart_rows == 0 {
            let number = row / plan.restart_rows - 1;
            writer.mark(0xD0 + u8::try_from(number % 8).unwrap());
        }
        for column in 0..columns {
            let difference = difference(samples, columns, (row, column), plan);
            writer.put_difference(difference, &codes);
        }
    }
    writer.mark(0xD9);
    out.extend(writer.bytes);
    out
}

/// −32767 to 32768 (H.1.2.2).
fn difference(samples: &[u16], columns: usize, place: (usize, usize), plan: LosslessPlan) -> i32 {
    let (row, column) = place;
    let at = |up: usize, left: usize| {
        i32::from(samples[(row - up) * columns + column - left] >> plan.shift)
    };
    let begins = row == 0 || plan.restart_rows > 0 && row.is_multiple_of(plan.restart_rows);
    let prediction = match (begins, column) {
        (true, 0) => 1 << (plan.precision - plan.shift - 1),
        (true, _) => at(0, 1),
        (false, 0) => at(1, 0),
        (false, _) => {
            let (a, b, c) = (at(0, 1), at(1, 0), at(1, 1));
            match plan.predictor {
                1 => a,
                2 => b,
                3 => c,
                4 => a + b - c,
                5 => a + ((b - c) >> 1),
                6 => b + ((a - c) >> 1),
                _ => (a + b) >> 1,
            }
        }
    };
    let difference = (at(0, 0) - prediction).rem_euclid(1 << 16);
    if difference > 1 << 15 {
        difference - (1 << 16)
    } else {
        difference
    }
}

fn decoded(bytes: &[u8], size: (usize, usize)) -> Result<Vec<u16>, JpegError> {
    let mut samples = Vec::new();
    decode(bytes, size, &mut samples).map(|()| samples)
}

/// A picture, its width, and a way to write it.
fn pictures() -> impl Strategy<Value = (Vec<u16>, usize, LosslessPlan)> {
    let plan = (2_u8..=16, 1_u8..=7, 0_u8..4, 0_usize..6, any::<bool>());
    (1_usize..24, 1_usize..24, plan, any::<bool>()).prop_flat_map(
        |(rows, columns, (precision, predictor, shift, restart_rows, long_codes), smooth)| {
            let plan = LosslessPlan {
                precision,
                predictor,
                shift: shift.min(precision - 1),
                restart_rows,
                long_codes,
            };
            let most = if smooth { 7 } else { u16::MAX };
            let noise = prop::collection::vec(0..=most, rows * columns);
            noise.prop_map(move |noise| {
                let mask = u16::MAX >> (16 - plan.precision) >> plan.shift << plan.shift;
                let ramp = |place: usize| u16::try_from(100 + 3 * (place % columns)).unwrap();
                let values = noise.iter().enumerate();
                let picture = values.map(|(place, value)| value.wrapping_add(ramp(place)) & mask);
                (picture.collect(), columns, plan)
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn every_lossless_picture_comes_back_bit_for_bit((picture, columns, plan) in pictures()) {
        let bytes = lossless(&picture, columns, plan);
        let size = (picture.len() / columns, columns);
        prop_assert_eq!(decoded(&bytes, size), Ok(picture));
    }

    #[test]
    fn a_cut_lossless_picture_is_an_error_or_whole(
        (picture, columns, plan) in pictures(), cut: prop::sample::Index
    ) {
        let bytes = lossless(&picture, columns, plan);
        let size = (picture.len() / columns, columns);
        let outcome = decoded(&bytes[..cut.index(bytes.len())], size);
        prop_assert!(outcome.is_err() || outcome == Ok(picture));
    }

    #[test]
    fn damaged_lossless_pictures_neither_panic_nor_grow(
        (picture, columns, plan) in pictures(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)
    ) {
        let mut bytes = lossless(&picture, columns, plan);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(samples) = decoded(&bytes, (picture.len() / columns, columns)) {
            prop_assert_eq!(samples.len(), picture.len());
        }
    }

    #[test]
    fn noise_is_no_picture(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decoded(&bytes, (4, 4)).is_err());
        prop_assert!(decoded(&[&[0xFF, 0xD8][..], &bytes].concat(), (4, 4)).is_err());
    }
}

/// The ramp that the tests below write: 12 rows of 5.
fn ramp() -> Vec<u16> {
    (0..60).map(|value| 1000 + 17 * value).collect()
}

const RESTARTS: LosslessPlan = LosslessPlan {
    restart_rows: 3,
    ..PLAIN
};

/// Where restart markers stand.
fn restarts(bytes: &[u8]) -> Vec<usize> {
    let is_restart = |pair: &[u8]| pair[0] == 0xFF && (0xD0..=0xD7).contains(&pair[1]);
    let pairs = bytes.windows(2).enumerate();
    pairs
        .filter(|(_, pair)| is_restart(pair))
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn a_restart_marker_that_is_missing_or_out_of_order_is_an_error() {
    let whole = lossless(&ramp(), 5, RESTARTS);
    assert_eq!(decoded(&whole, (12, 5)), Ok(ramp()));
    let places = restarts(&whole);
    assert_eq!(places.len(), 3);
    for place in places {
        let mut missing = whole.clone();
        missing.drain(place..place + 2);
        assert!(decoded(&missing, (12, 5)).is_err());
        let mut other = whole.clone();
        other[place + 1] ^= 4;
        let expected = JpegError::RestartMissing(whole[place + 1] - 0xD0);
        assert_eq!(decoded(&other, (12, 5)), Err(expected));
    }
    // Without the header's word no marker may stand there.
    let at = whole
        .windows(2)
        .position(|pair| pair == [0xFF, 0xDD])
        .unwrap();
    let mut unannounced = whole.clone();
    unannounced[at + 4..at + 6].fill(0);
    assert!(decoded(&unannounced, (12, 5)).is_err());
}

#[test]
fn a_restart_interval_lost_or_repeated_is_an_error() {
    let whole = lossless(&ramp(), 5, RESTARTS);
    let places = restarts(&whole);
    let mut lost = whole.clone();
    lost.drain(places[0]..places[1]);
    assert!(decoded(&lost, (12, 5)).is_err());
    let mut repeated = whole.clone();
    repeated.splice(places[1]..places[1], whole[places[0]..places[1]].to_vec());
    assert!(decoded(&repeated, (12, 5)).is_err());
}

#[test]
fn a_restart_interval_that_is_not_whole_rows_is_refused_as_the_standard_forbids_it() {
    let mut bytes = lossless(&ramp(), 5, RESTARTS);
    let at = bytes
        .windows(2)
        .position(|pair| pair == [0xFF, 0xDD])
        .unwrap();
    bytes[at + 5] = 7;
    let expected = JpegError::Unsupported("restart intervals that are not whole rows");
    assert_eq!(decoded(&bytes, (12, 5)), Err(expected));
}

#[test]
fn what_writers_put_around_the_data_does_not_matter() {
    let plain = lossless(&ramp(), 5, RESTARTS);
    let end = plain.len() - 2;
    // Fill bytes before markers (B.1.1.2), padding behind the end, no end at all, a last restart.
    let mut filled = plain.clone();
    for place in restarts(&plain).into_iter().rev().chain([2]) {
        filled.splice(place..place, [0xFF, 0xFF]);
    }
    let variants = [
        filled,
        [&plain[..], &[0, 0, 0]].concat(),
        plain[..end].to_vec(),
        [&plain[..end], &[0xFF]].concat(),
        [&plain[..end], &[0xFF, 0xD3, 0xFF, 0xD9]].concat(),
        [&plain[..end], &[0, 0, 0xFF, 0xD9]].concat(),
    ];
    for (number, bytes) in variants.iter().enumerate() {
        assert_eq!(decoded(bytes, (12, 5)), Ok(ramp()), "variant {number}");
    }
    let longer = [&plain[..end], &[0x12, 0x34, 0xFF, 0xD9]].concat();
    assert_eq!(decoded(&longer, (12, 5)), Err(JpegError::LeftOver(2)));
}

#[test]
fn another_size_or_kind_of_picture_is_an_error() {
    let plain = lossless(&ramp(), 5, PLAIN);
    assert!(decoded(&plain, (5, 12)).is_err());
    let at = plain
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC3])
        .unwrap();
    for (offset, value) in [(1, 0xC2), (1, 0xC7), (1, 0xCB), (4, 17), (4, 1), (9, 3)] {
        let mut other = plain.clone();
        other[at + offset] = value;
        assert!(decoded(&other, (12, 5)).is_err(), "{offset} {value}");
    }
    let scan = plain
        .windows(2)
        .position(|pair| pair == [0xFF, 0xDA])
        .unwrap();
    for (offset, value) in [(4, 2), (6, 0x10), (7, 0), (7, 8)] {
        let mut other = plain.clone();
        other[scan + offset] = value;
        assert!(decoded(&other, (12, 5)).is_err(), "{offset} {value}");
    }
}

/// Writes `samples` by a DCT whose coefficients are divided by `quantum`.
pub(in crate::decode) fn sequential(
    samples: &[u16],
    columns: usize,
    precision: u8,
    (quantum, restart_blocks): (u8, usize),
) -> Vec<u8> {
    let rows = samples.len() / columns;
    let mut out = headers(0xC1, precision, (rows, columns), restart_blocks);
    segment(&mut out, 0xDB, &[&[0][..], &[quantum; 64]].concat());
    let (counts, codes) = categories(false);
    let values: Vec<u8> = (0..17).collect();
    segment(&mut out, 0xC4, &[&[0][..], &counts, &values].concat());
    // All runs of zeros and all sizes, in eight bits; one of ones only is left free.
    let values: Vec<u8> = (0..255).collect();
    let mut counts = [0; 16];
    counts[7] = 255;
    segment(&mut out, 0xC4, &[&[0x10][..], &counts, &values].concat());
    segment(&mut out, 0xDA, &[1, 1, 0, 0, 63, 0]);
    let mut writer = BitWriter::default();
    let (across, down) = (columns.div_ceil(8), rows.div_ceil(8));
    let mut before = 0;
    for block in 0..across * down {
        if restart_blocks > 0 && block > 0 && block % restart_blocks == 0 {
            let number = block / restart_blocks - 1;
            writer.mark(0xD0 + u8::try_from(number % 8).unwrap());
            before = 0;
        }
        let corner = (block / across * 8, block % across * 8);
        let coefficients = forward(samples, (rows, columns), corner, (precision, quantum));
        writer.put_difference(coefficients[0] - before, &codes);
        before = coefficients[0];
        put_ac(&mut writer, &coefficients);
    }
    writer.mark(0xD9);
    out.extend(writer.bytes);
    out
}

fn put_ac(writer: &mut BitWriter, coefficients: &[i32; 64]) {
    let mut run = 0;
    for value in &coefficients[1..] {
        if *value == 0 {
            run += 1;
            continue;
        }
        while run > 15 {
            writer.put(0xF0, 8);
            run -= 16;
        }
        let size = 32 - value.unsigned_abs().leading_zeros();
        writer.put(run << 4 | size, 8);
        let own = (value - i32::from(*value < 0)).cast_unsigned();
        writer.put(own & ((1 << size) - 1), size);
        run = 0;
    }
    if run > 0 {
        writer.put(0, 8);
    }
}

/// The coefficients of one block in zigzag order, by the formula of A.3.3.
#[expect(clippy::cast_possible_truncation, reason = "coefficients are small")]
fn forward(
    samples: &[u16],
    (rows, columns): (usize, usize),
    (row, column): (usize, usize),
    (precision, quantum): (u8, u8),
) -> [i32; 64] {
    let middle = f64::from(1_u32 << (precision - 1));
    let at = |y: usize, x: usize| {
        let place = (row + y).min(rows - 1) * columns + (column + x).min(columns - 1);
        f64::from(samples[place]) - middle
    };
    let wave = |x: usize, u: usize| {
        let scale = if u == 0 { 0.5_f64.sqrt() } else { 1.0 };
        scale / 2.0 * (((2 * x + 1) * u) as f64 * std::f64::consts::PI / 16.0).cos()
    };
    // Diagonals from the corner, every second one upwards (figure A.6).
    let mut order: Vec<(usize, usize)> = (0..64).map(|place| (place / 8, place % 8)).collect();
    order.sort_by_key(|(v, u)| (v + u, if (v + u) % 2 == 0 { *u } else { *v }));
    let mut coefficients = [0; 64];
    for (coefficient, (v, u)) in coefficients.iter_mut().zip(order) {
        let mut sum = 0.0;
        for (y, x) in (0..64).map(|place| (place / 8, place % 8)) {
            sum += at(y, x) * wave(y, v) * wave(x, u);
        }
        *coefficient = (sum / f64::from(quantum)).round() as i32;
    }
    coefficients
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_sequential_picture_comes_back_within_one(
        columns in 1_usize..40, twelve: bool, restart_blocks in 0_usize..7,
        noise in prop::collection::vec(0_u16..4096, 1..600)
    ) {
        let rows = noise.len().div_ceil(columns);
        let (precision, most) = if twelve { (12, 4095) } else { (8, 255) };
        let values = (0..rows * columns).map(|place| {
            let ramp = u16::try_from(place % columns * 5).unwrap();
            (noise[place % noise.len()] / 16 + ramp).min(most)
        });
        let picture: Vec<u16> = values.collect();
        let bytes = sequential(&picture, columns, precision, (1, restart_blocks));
        let back = decoded(&bytes, (rows, columns)).unwrap();
        for (one, other) in back.iter().zip(&picture) {
            prop_assert!(one.abs_diff(*other) <= 1, "{} {}", one, other);
        }
        for cut in [bytes.len() / 2, bytes.len() - 3, 20] {
            let outcome = decoded(&bytes[..cut], (rows, columns));
            prop_assert!(outcome.is_err() || outcome == Ok(back.clone()));
        }
    }

    #[test]
    fn damaged_sequential_pictures_neither_panic_nor_grow(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)
    ) {
        let mut bytes = sequential(&ramp(), 5, 12, (3, 1));
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(samples) = decoded(&bytes, (12, 5)) {
            prop_assert_eq!(samples.len(), 60);
        }
    }
}

#[test]
fn a_damaged_restart_in_a_sequential_picture_is_an_error() {
    let whole = sequential(&ramp(), 5, 12, (3, 1));
    let places = restarts(&whole);
    assert_eq!(places.len(), 1);
    let mut missing = whole.clone();
    missing.drain(places[0]..places[0] + 2);
    assert!(decoded(&missing, (12, 5)).is_err());
}
