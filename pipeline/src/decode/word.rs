//! Where a sample lies within its stored word.

use crate::instance::PixelHeader;
use crate::reason::{Reason, ReasonCode};

/// The layout of a stored word (PS3.5 section 8.1.1): the sample's bits end at the High Bit; what
/// lies above and below them (once overlays) is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredWord {
    /// 8 or 16.
    pub(super) bits_allocated: u16,
    /// 1 to `bits_allocated`.
    bits_stored: u16,
    /// `bits_stored - 1` to `bits_allocated - 1`.
    high_bit: u16,
    signed: bool,
}

impl StoredWord {
    /// Takes the layout from the header.
    pub(super) fn of(pixels: &PixelHeader) -> Result<Self, Reason> {
        let (allocated, stored) = (pixels.bits_allocated, pixels.bits_stored);
        if !matches!(allocated, 8 | 16) || !(1..=allocated).contains(&stored) {
            return undecodable(format!(
                "it has {stored} bits stored of {allocated} allocated; 8 or 16 can be read"
            ));
        }
        if !(stored - 1..allocated).contains(&pixels.high_bit) {
            return undecodable(format!(
                "its High Bit (0028,0102) is {}; with {stored} bits stored of {allocated} \
                 allocated it must be {} to {}",
                pixels.high_bit,
                stored - 1,
                allocated - 1
            ));
        }
        Ok(Self {
            bits_allocated: allocated,
            bits_stored: stored,
            high_bit: pixels.high_bit,
            signed: pixels.signed,
        })
    }

    /// 1 or 2.
    pub(super) fn bytes(self) -> usize {
        usize::from(self.bits_allocated / 8)
    }

    /// Bits below the sample.
    fn shift(self) -> u16 {
        self.high_bit + 1 - self.bits_stored
    }

    /// The sample in `raw`.
    pub(super) fn sample(self, raw: u16) -> i32 {
        low_bits(raw >> self.shift(), self.bits_stored, self.signed)
    }

    /// All allocated bits of `raw` as a number.
    pub(super) fn whole(self, raw: u16) -> i32 {
        low_bits(raw, self.bits_allocated, self.signed)
    }

    /// Checks that words whose header puts the sample above the lowest bits do not hold it there:
    /// pixels that were shifted without their header, or the other way round, would be read 16 times
    /// too low.
    pub(super) fn check_place(self, stored: &[u8]) -> Result<(), Reason> {
        let below = (1_u16 << self.shift()) - 1;
        let is_lowest = |raw: u16| low_bits(raw, self.bits_stored, self.signed) == self.whole(raw);
        if self.shift() == 0
            || self.raws(stored).all(|raw| raw & below == 0)
            || !self.raws(stored).all(is_lowest)
        {
            return Ok(());
        }
        undecodable(format!(
            "its High Bit (0028,0102) is {} with {} bits stored, but its samples lie in the lowest \
             {} bits: header and pixels do not belong together",
            self.high_bit, self.bits_stored, self.bits_stored
        ))
    }

    fn raws(self, stored: &[u8]) -> impl Iterator<Item = u16> {
        let (bytes, words) = match self.bytes() {
            1 => (stored, &[][..]),
            _ => (&[][..], stored.as_chunks().0),
        };
        let words = words.iter().copied().map(u16::from_le_bytes);
        bytes.iter().copied().map(u16::from).chain(words)
    }

    /// How samples of `precision` bits, as a decoder gives them in the lowest bits, become stored
    /// words.
    pub(super) fn placement(self, precision: u8) -> Result<Placement, Reason> {
        let precision = u16::from(precision);
        let right_justified = precision <= self.bits_stored;
        if !right_justified && precision <= self.high_bit {
            return undecodable(format!(
                "its compressed samples have {precision} bits where the header says {} bits stored \
                 and High Bit (0028,0102) {}",
                self.bits_stored, self.high_bit
            ));
        }
        Ok(Placement {
            precision,
            signed: self.signed,
            // A code with as many bits as reach up to the High Bit holds the words as they were.
            shift: if precision > self.high_bit {
                0
            } else {
                self.shift()
            },
        })
    }
}

/// What is done to the samples of a compressed frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    precision: u16,
    signed: bool,
    shift: u16,
}

impl Placement {
    /// Whether words stay as they are, if all of them have no more bits than the precision.
    fn is_plain(self) -> bool {
        self.precision >= 16 || (self.shift == 0 && !self.signed)
    }

    /// Places samples of two bytes each.
    pub(super) fn apply(self, words: &mut [[u8; 2]]) -> Result<(), Reason> {
        let used = words
            .iter()
            .fold([0; 2], |all, word| [all[0] | word[0], all[1] | word[1]]);
        let fits = self.precision >= 16 || u16::from_le_bytes(used) >> self.precision == 0;
        if fits && self.is_plain() {
            return Ok(());
        }
        for word in words {
            *word = self.place(u16::from_le_bytes(*word))?.to_le_bytes();
        }
        Ok(())
    }

    /// A signed sample is extended to all 16 bits: its code may have fewer bits than are stored
    /// (PS3.5 section 8.2.1 lets a code be as narrow as its values). A sample with bits beyond the
    /// code's precision that are not its sign comes from damaged data.
    fn place(self, sample: u16) -> Result<u16, Reason> {
        let extended = low_bits(sample, self.precision, self.signed);
        let whole = low_bits(sample, 16, self.signed);
        let is_inside = self.precision >= 16 || sample >> self.precision == 0;
        if !is_inside && extended != whole {
            return undecodable(format!(
                "its compressed pixels are damaged: a sample of {} bits decodes to {sample}; send \
                 the object again",
                self.precision
            ));
        }
        Ok(low_word(extended) << self.shift)
    }
}

/// The low `bits` of `raw` as a number.
fn low_bits(raw: u16, bits: u16, signed: bool) -> i32 {
    let span = 1_i32 << bits.min(16);
    let masked = i32::from(raw) & (span - 1);
    if signed && masked >= span / 2 {
        masked - span
    } else {
        masked
    }
}

/// The lowest 16 bits of `value`.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "two's complement: the sign is in the header, and JPEG counts samples modulo 2^16"
)]
pub(super) fn low_word(value: i32) -> u16 {
    value as u16
}

fn undecodable<T>(text: String) -> Result<T, Reason> {
    Err(Reason::new(ReasonCode::UndecodablePixels, text))
}
