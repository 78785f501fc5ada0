//! Lossless scans (ITU-T T.81 annex H).

use std::ops::Range;

use super::entropy::{Bits, each_interval};
use super::huffman::Huffman;
use super::{Frame, Headers, JpegError, Result, Scan};
use crate::decode::word::low_word;

/// Decodes a scan into `samples`, which has the frame's size.
pub(super) fn decode(
    headers: &Headers,
    frame: &Frame,
    scan: &Scan<'_>,
    samples: &mut [u16],
) -> Result<()> {
    // Where an interval begins in the midst of a row, the standard does not say what its next row is
    // predicted from; it forbids such intervals (H.1.1), and other decoders refuse them.
    if !headers.restart_interval.is_multiple_of(frame.columns) {
        return Err(JpegError::Unsupported(
            "restart intervals that are not whole rows",
        ));
    }
    let start = frame
        .precision
        .checked_sub(scan.shift + 1)
        .map(|bits| 1_u16 << bits)
        .ok_or(JpegError::BadHeader("impossible point transform"))?;
    let table = headers.dc.get(scan.dc_table).and_then(Option::as_ref);
    let rows = Rows {
        table: table.ok_or(JpegError::BadHeader("a missing Huffman table"))?,
        columns: frame.columns,
        start,
    };
    each_interval(
        scan.data,
        samples.len(),
        headers.restart_interval,
        |bits, range| rows.decode_by(scan.selection, bits, range, samples),
    )?;
    if scan.shift > 0 {
        for sample in samples {
            *sample <<= scan.shift;
        }
    }
    Ok(())
}

/// What all rows of a scan share.
struct Rows<'a> {
    table: &'a Huffman,
    columns: usize,
    /// The prediction of an interval's first sample.
    start: u16,
}

impl Rows<'_> {
    /// Decodes the rows at `range` of `samples` by predictor `selection` of table H.1.
    fn decode_by(
        &self,
        selection: u8,
        bits: &mut Bits<'_>,
        range: Range<usize>,
        samples: &mut [u16],
    ) -> Result<()> {
        let out = &mut samples[range];
        // a: left, b: above, c: above and left.
        match selection {
            1 => self.decode(bits, out, |a, _, _| a),
            2 => self.decode(bits, out, |_, b, _| b),
            3 => self.decode(bits, out, |_, _, c| c),
            4 => self.decode(bits, out, |a, b, c| a + b - c),
            5 => self.decode(bits, out, |a, b, c| a + ((b - c) >> 1)),
            6 => self.decode(bits, out, |a, b, c| b + ((a - c) >> 1)),
            7 => self.decode(bits, out, |a, b, _| (a + b) >> 1),
            _ => Err(JpegError::BadHeader("impossible predictor")),
        }
    }

    fn decode(
        &self,
        bits: &mut Bits<'_>,
        out: &mut [u16],
        predict: impl Fn(i32, i32, i32) -> i32,
    ) -> Result<()> {
        let mut rows = out.chunks_exact_mut(self.columns);
        let Some(mut above) = rows.next() else {
            return Ok(());
        };
        self.first_row(bits, above)?;
        for row in rows {
            self.row(bits, above, row, &predict)?;
            above = row;
        }
        Ok(())
    }

    /// An interval's first row is predicted from the left, whatever the predictor (H.1.2.1).
    fn first_row(&self, bits: &mut Bits<'_>, row: &mut [u16]) -> Result<()> {
        let mut left = self.start;
        for sample in row {
            left = left.wrapping_add(self.difference(bits)?);
            *sample = left;
        }
        Ok(())
    }

    /// Any other row's first sample is predicted from the one above it.
    #[inline]
    fn row(
        &self,
        bits: &mut Bits<'_>,
        above: &[u16],
        row: &mut [u16],
        predict: &impl Fn(i32, i32, i32) -> i32,
    ) -> Result<()> {
        let mut corner = above[0];
        let mut left = corner.wrapping_add(self.difference(bits)?);
        row[0] = left;
        for (sample, up) in row.iter_mut().zip(above).skip(1) {
            let prediction = predict(i32::from(left), i32::from(*up), i32::from(corner));
            left = low_word(prediction).wrapping_add(self.difference(bits)?);
            *sample = left;
            corner = *up;
        }
        Ok(())
    }

    /// A difference modulo 2^16 (table H.2).
    #[inline]
    fn difference(&self, bits: &mut Bits<'_>) -> Result<u16> {
        bits.refill();
        match self.table.take(bits)? {
            category @ 0..=15 => Ok(low_word(bits.take_signed(u32::from(category)))),
            16 => Ok(1 << 15),
            _ => Err(JpegError::BadCode),
        }
    }
}
