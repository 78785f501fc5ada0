//! Sequential DCT scans (ITU-T T.81 annexes A and F).

use super::entropy::{Bits, each_interval};
use super::huffman::Huffman;
use super::{Frame, Headers, JpegError, Result, Scan};

/// Samples along the side of a block.
const SIDE: usize = 8;

/// A DC coefficient of 12-bit samples has 15 bits and a sign; beyond twice that the data are damaged.
const DC_MAX: i32 = 1 << 16;

/// Where the k-th coefficient of a block stands, row by row (figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Decodes a scan into `samples`, which has the frame's size.
pub(super) fn decode(
    headers: &Headers,
    frame: &Frame,
    scan: &Scan<'_>,
    samples: &mut [u16],
) -> Result<()> {
    let table = |tables: &'_ [Option<Huffman>; 4], number: usize| {
        let found = tables.get(number).and_then(Option::clone);
        found.ok_or(JpegError::BadHeader("a missing Huffman table"))
    };
    let quantisation = headers.quantisation.get(frame.quantisation_table);
    let coder = BlockCoder {
        dc: table(&headers.dc, scan.dc_table)?,
        ac: table(&headers.ac, scan.ac_table)?,
        quantisation: quantisation
            .copied()
            .flatten()
            .ok_or(JpegError::BadHeader("a missing quantisation table"))?,
    };
    let cosines = cosines();
    // A scan of one component is not interleaved: its unit is one block, whatever the sampling
    // factors say (A.2.2).
    let across = frame.columns.div_ceil(SIDE);
    let total = across * frame.rows.div_ceil(SIDE);
    each_interval(scan.data, total, headers.restart_interval, |bits, range| {
        let mut dc = 0;
        for block in range {
            let coefficients = coder.take(bits, &mut dc)?;
            let values = inverse(&coefficients, &cosines);
            let corner = (block / across * SIDE, block % across * SIDE);
            put(frame, corner, &values, samples);
        }
        Ok(())
    })
}

/// What all blocks of a scan share.
struct BlockCoder {
    dc: Huffman,
    ac: Huffman,
    /// In zigzag order.
    quantisation: [u16; 64],
}

impl BlockCoder {
    /// Takes one block (F.2.2) and gives its coefficients, row by row; `dc` goes on from block to
    /// block.
    fn take(&self, bits: &mut Bits<'_>, dc: &mut i32) -> Result<[f32; 64]> {
        let mut coefficients = [0.0; 64];
        bits.refill();
        let count = self.dc.take(bits)?;
        if count > 16 {
            return Err(JpegError::BadCode);
        }
        *dc += bits.take_signed(u32::from(count));
        if dc.abs() > DC_MAX {
            return Err(JpegError::BadCode);
        }
        coefficients[0] = self.scaled(0, *dc);
        let mut at = 1;
        while at < coefficients.len() {
            bits.refill();
            let code = self.ac.take(bits)?;
            let (run, count) = (usize::from(code >> 4), u32::from(code & 15));
            match (run, count) {
                (0, 0) => break,
                (15, 0) => at += 16,
                (_, 0) => return Err(JpegError::BadCode),
                (..) => {
                    at += run;
                    let place = ZIGZAG.get(at).ok_or(JpegError::BadCode)?;
                    let value = bits.take_signed(count);
                    coefficients[usize::from(*place)] = self.scaled(at, value);
                    at += 1;
                }
            }
        }
        Ok(coefficients)
    }

    fn scaled(&self, at: usize, value: i32) -> f32 {
        value as f32 * f32::from(self.quantisation[at])
    }
}

/// `cosines()[x][u]` is C(u)/2 · cos((2x+1)uπ/16) (A.3.3).
fn cosines() -> [[f32; SIDE]; SIDE] {
    std::array::from_fn(|x| {
        std::array::from_fn(|u| {
            let scale = if u == 0 { 0.125_f64.sqrt() } else { 0.5 };
            let angle = ((2 * x + 1) * u) as f64 * std::f64::consts::PI / 16.0;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "24 bits are twice what samples need"
            )]
            let cosine = (scale * angle.cos()) as f32;
            cosine
        })
    })
}

/// The inverse transform: along rows, then along columns.
fn inverse(coefficients: &[f32; 64], cosines: &[[f32; SIDE]; SIDE]) -> [f32; 64] {
    let mut half = [[0.0_f32; SIDE]; SIDE];
    for (row, out) in coefficients.as_chunks::<SIDE>().0.iter().zip(&mut half) {
        if row.iter().any(|value| value.abs() > 0.0) {
            for (value, waves) in out.iter_mut().zip(cosines) {
                *value = row.iter().zip(waves).map(|(a, b)| a * b).sum();
            }
        }
    }
    let mut whole = [0.0; 64];
    for (out, waves) in whole.as_chunks_mut::<SIDE>().0.iter_mut().zip(cosines) {
        for (row, wave) in half.iter().zip(waves) {
            for (value, part) in out.iter_mut().zip(row) {
                *value += wave * part;
            }
        }
    }
    whole
}

/// Writes a block at `corner` (row, column), level-shifted and clamped, as far as it lies inside.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the precision"
)]
fn put(frame: &Frame, corner: (usize, usize), values: &[f32; 64], samples: &mut [u16]) {
    let middle = f32::from(1_u16 << (frame.precision - 1));
    let (row, column) = corner;
    let width = SIDE.min(frame.columns - column);
    let lines = samples.chunks_exact_mut(frame.columns).skip(row);
    for (line, values) in lines.zip(values.as_chunks::<SIDE>().0) {
        for (sample, value) in line[column..column + width].iter_mut().zip(values) {
            *sample = (value + middle).round().clamp(0.0, 2.0 * middle - 1.0) as u16;
        }
    }
}
