//! JPEG of one component by Huffman codes: lossless (process 14, 2 to 16 bits) and sequential DCT
//! (processes 1, 2 and 4, 8 and 12 bits), after ITU-T T.81.
//!
//! A stream that ends early, lacks a restart marker or has more data than pixels is an error, never
//! a picture. Why it is our own: `docs/decisions/0017`.

mod entropy;
mod huffman;
mod lossless;
mod sequential;

use huffman::Huffman;

/// Why a JPEG stream cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum JpegError {
    /// It ends before its last pixel.
    #[error("the JPEG data ends before the last pixel")]
    Truncated,
    /// There is more data between two markers than pixels to decode.
    #[error("the JPEG data does not match its pixels: {0} bytes are left over")]
    LeftOver(usize),
    /// A restart marker is missing or out of order.
    #[error("the JPEG data lacks its restart marker RST{0}")]
    RestartMissing(u8),
    /// A bit sequence that is no code of the table.
    #[error("the JPEG data holds a code that its Huffman table lacks")]
    BadCode,
    /// A header field with an impossible value.
    #[error("its JPEG headers are damaged: {0}")]
    BadHeader(&'static str),
    /// A variant of JPEG that is not decoded here.
    #[error("this kind of JPEG is not supported: {0}")]
    Unsupported(&'static str),
}

type Result<T> = std::result::Result<T, JpegError>;

// Markers of ITU-T T.81 table B.1, without their 0xFF.
const SOF_BASELINE: u8 = 0xC0;
const SOF_EXTENDED: u8 = 0xC1;
const SOF_LOSSLESS: u8 = 0xC3;
const DHT: u8 = 0xC4;
const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const DQT: u8 = 0xDB;
const DRI: u8 = 0xDD;

/// Decodes one picture of `rows` × `columns` samples into `samples`, row by row.
///
/// A sample may have more bits than the precision that the stream states: differences are taken
/// modulo 2^16 (H.1.2.1), and some writers put sign-extended words into 12 bits.
///
/// # Errors
///
/// [`JpegError`]; `samples` then holds nothing of use.
pub(super) fn decode(
    bytes: &[u8],
    (rows, columns): (usize, usize),
    samples: &mut Vec<u16>,
) -> Result<()> {
    let (headers, scan) = Headers::read(bytes)?;
    let frame = headers.frame.ok_or(JpegError::BadHeader("no frame"))?;
    if (frame.rows, frame.columns) != (rows, columns) {
        return Err(JpegError::BadHeader("the frame has another size"));
    }
    samples.clear();
    samples.resize(rows * columns, 0);
    match frame.process {
        Process::Lossless => lossless::decode(&headers, &frame, &scan, samples),
        Process::Sequential => sequential::decode(&headers, &frame, &scan, samples),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// SOF0 and SOF1.
    Sequential,
    /// SOF3.
    Lossless,
}

/// A frame header of one component (B.2.2).
#[derive(Clone, Copy, Debug)]
struct Frame {
    process: Process,
    precision: u8,
    rows: usize,
    columns: usize,
    quantisation_table: usize,
}

/// A scan header of one component (B.2.3) and what follows it.
#[derive(Debug)]
struct Scan<'a> {
    dc_table: usize,
    ac_table: usize,
    /// Ss: the predictor of a lossless scan.
    selection: u8,
    /// Al: the point transform of a lossless scan.
    shift: u8,
    /// Entropy-coded data, and all after it.
    data: &'a [u8],
}

/// Everything before the entropy-coded data.
#[derive(Debug, Default)]
struct Headers {
    frame: Option<Frame>,
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    quantisation: [Option<[u16; 64]>; 4],
    /// In samples (lossless) or blocks (sequential); 0 for none.
    restart_interval: usize,
}

impl Headers {
    /// Reads marker segments up to the first scan.
    fn read(bytes: &[u8]) -> Result<(Self, Scan<'_>)> {
        let mut headers = Self::default();
        let mut rest = bytes
            .strip_prefix(&[0xFF, SOI])
            .ok_or(JpegError::BadHeader("no start of image"))?;
        loop {
            let marker;
            (marker, rest) = next_marker(rest)?;
            let segment;
            (segment, rest) = split_segment(rest)?;
            match marker {
                SOF_BASELINE | SOF_EXTENDED => headers.read_frame(segment, Process::Sequential)?,
                SOF_LOSSLESS => headers.read_frame(segment, Process::Lossless)?,
                DHT => headers.read_huffman(segment)?,
                DQT => headers.read_quantisation(segment)?,
                DRI => headers.restart_interval = usize::from(word(segment)?),
                SOS => {
                    let scan = read_scan(segment, rest)?;
                    return Ok((headers, scan));
                }
                0xC2 | 0xC6 => return Err(JpegError::Unsupported("progressive")),
                0xC5 | 0xC7 => return Err(JpegError::Unsupported("hierarchical")),
                0xC9..=0xCB | 0xCD..=0xCF => return Err(JpegError::Unsupported("arithmetic")),
                SOI | EOI | 0xD0..=0xD7 => return Err(JpegError::BadHeader("no scan")),
                // Applications, comments and what is reserved.
                _ => {}
            }
        }
    }

    fn read_frame(&mut self, segment: &[u8], process: Process) -> Result<()> {
        let &[precision, r1, r0, c1, c0, components, _, _, table] =
            segment.first_chunk().ok_or(JpegError::Truncated)?;
        let fits = match process {
            Process::Sequential => matches!(precision, 8 | 12),
            Process::Lossless => matches!(precision, 2..=16),
        };
        if !fits {
            return Err(JpegError::BadHeader("impossible precision"));
        }
        if components != 1 || self.frame.is_some() {
            return Err(JpegError::Unsupported("several components or frames"));
        }
        self.frame = Some(Frame {
            process,
            precision,
            rows: usize::from(u16::from_be_bytes([r1, r0])),
            columns: usize::from(u16::from_be_bytes([c1, c0])),
            quantisation_table: usize::from(table),
        });
        Ok(())
    }

    fn read_huffman(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((&class, rest)) = segment.split_first() {
            let (table, rest) = Huffman::read(rest)?;
            let tables = match class >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(JpegError::BadHeader("impossible Huffman table class")),
            };
            *tables
                .get_mut(usize::from(class & 15))
                .ok_or(JpegError::BadHeader("impossible Huffman table number"))? = Some(table);
            segment = rest;
        }
        Ok(())
    }

    fn read_quantisation(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((&kind, rest)) = segment.split_first() {
            let width = if kind >> 4 == 0 { 1 } else { 2 };
            let (values, rest) = rest
                .split_at_checked(64 * width)
                .ok_or(JpegError::Truncated)?;
            let mut table = [0; 64];
            for (entry, value) in table.iter_mut().zip(values.chunks_exact(width)) {
                *entry = value
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u16::from(*byte));
            }
            *self
                .quantisation
                .get_mut(usize::from(kind & 15))
                .ok_or(JpegError::BadHeader("impossible quantisation table"))? = Some(table);
            segment = rest;
        }
        Ok(())
    }
}

fn read_scan<'a>(segment: &[u8], data: &'a [u8]) -> Result<Scan<'a>> {
    let &[components, _, tables, selection, _, shift] =
        segment.first_chunk().ok_or(JpegError::Truncated)?;
    if components != 1 {
        return Err(JpegError::Unsupported("several components in one scan"));
    }
    Ok(Scan {
        dc_table: usize::from(tables >> 4),
        ac_table: usize::from(tables & 15),
        selection,
        shift: shift & 15,
        data,
    })
}

/// The next marker; fill bytes may stand before it (B.1.1.2).
fn next_marker(bytes: &[u8]) -> Result<(u8, &[u8])> {
    let mut rest = bytes
        .strip_prefix(&[0xFF])
        .ok_or(JpegError::BadHeader("no marker where one must stand"))?;
    loop {
        let (&marker, after) = rest.split_first().ok_or(JpegError::Truncated)?;
        if marker != 0xFF {
            return Ok((marker, after));
        }
        rest = after;
    }
}

/// A segment without its length, and what follows it.
fn split_segment(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let length = usize::from(word(bytes)?);
    let (segment, rest) = bytes.split_at_checked(length).ok_or(JpegError::Truncated)?;
    let segment = segment
        .get(2..)
        .ok_or(JpegError::BadHeader("a segment shorter than its length"))?;
    Ok((segment, rest))
}

fn word(bytes: &[u8]) -> Result<u16> {
    let field: &[u8; 2] = bytes.first_chunk().ok_or(JpegError::Truncated)?;
    Ok(u16::from_be_bytes(*field))
}

#[cfg(test)]
pub(super) mod tests;
