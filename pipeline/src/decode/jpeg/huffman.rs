//! Huffman tables (ITU-T T.81 annex C and F.2.2.3).

use super::entropy::Bits;
use super::{JpegError, Result};

/// Codes up to this length are found by one look into a table.
const SHORT_BITS: u32 = 10;

/// A table that turns codes into values.
#[derive(Clone, Debug)]
pub(super) struct Huffman {
    /// For each sequence of [`SHORT_BITS`] bits the length and value of the code that it begins
    /// with; length 0 where that code is longer.
    short: Vec<(u8, u8)>,
    /// For each length: codes up to it, written from the left into 16 bits, lie below this.
    bound: [u32; 17],
    /// For each length: its first code, and where that one's value stands.
    first: [(u32, usize); 17],
    values: Vec<u8>,
}

impl Huffman {
    /// Reads a table without its class and number (B.2.4.2); gives what follows it, too.
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let (counts, rest) = bytes.split_first_chunk().ok_or(JpegError::Truncated)?;
        let total = counts.iter().map(|count| usize::from(*count)).sum();
        let (values, rest) = rest.split_at_checked(total).ok_or(JpegError::Truncated)?;
        Ok((Self::new(counts, values)?, rest))
    }

    fn new(counts: &[u8; 16], values: &[u8]) -> Result<Self> {
        let mut table = Self {
            short: vec![(0, 0); 1 << SHORT_BITS],
            bound: [0; 17],
            first: [(0, 0); 17],
            values: values.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, count) in (1_u8..).zip(counts) {
            let at = usize::from(length);
            table.first[at] = (code, index);
            for _ in 0..*count {
                table.put_short(code, length, values[index]);
                (code, index) = (code + 1, index + 1);
            }
            if code > 1 << length {
                return Err(JpegError::BadHeader("a Huffman table with too many codes"));
            }
            table.bound[at] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    fn put_short(&mut self, code: u32, length: u8, value: u8) {
        let Some(spare) = SHORT_BITS.checked_sub(u32::from(length)) else {
            return;
        };
        let start = (code << spare) as usize;
        // A code beyond the table is told by the caller.
        if let Some(entries) = self.short.get_mut(start..start + (1 << spare)) {
            entries.fill((length, value));
        }
    }

    /// Takes one code from `bits`, which hold 16 bits or more.
    #[inline]
    pub(super) fn take(&self, bits: &mut Bits<'_>) -> Result<u8> {
        let next = bits.peek(16);
        let (length, value) = self.short[(next >> (16 - SHORT_BITS)) as usize];
        if length > 0 {
            bits.skip(u32::from(length));
            return Ok(value);
        }
        self.take_long(bits, next)
    }

    #[cold]
    fn take_long(&self, bits: &mut Bits<'_>, next: u32) -> Result<u8> {
        for length in SHORT_BITS + 1..=16 {
            let at = length as usize;
            if next < self.bound[at] {
                bits.skip(length);
                let (code, index) = self.first[at];
                // Codes of this length begin where all shorter ones end.
                let step = (next >> (16 - length)).checked_sub(code);
                let value = step.and_then(|step| self.values.get(index + step as usize));
                return value.copied().ok_or(JpegError::BadCode);
            }
        }
        Err(JpegError::BadCode)
    }
}
