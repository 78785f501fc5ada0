//! What a compressed frame says of its own size.
//!
//! The codecs write into a zeroed buffer of the size that the header states, so a compressed
//! picture smaller than that would end in zeros (0 HU: water) without a word. Hence a frame's own
//! statement is read first and compared.

use super::FrameShape;
use crate::reason::{Reason, ReasonCode};

/// Codecs whose frames state their own size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// JPEG and JPEG-LS: a frame header `SOFn` (ITU-T T.81 B.2.2, T.87 C.2.2).
    Jpeg,
    /// JPEG 2000 and HTJ2K: a SIZ segment (ITU-T T.800 A.5.1).
    Jpeg2000,
    /// RLE: segments that decode to one byte a pixel (PS3.5 annex G).
    Rle,
}

impl Family {
    fn of(transfer_syntax_uid: &str) -> Option<Self> {
        if transfer_syntax_uid == "1.2.840.10008.1.2.5" {
            return Some(Self::Rle);
        }
        let number = transfer_syntax_uid.strip_prefix("1.2.840.10008.1.2.4.")?;
        match number.parse().ok()? {
            50..=81 => Some(Self::Jpeg),
            90..=93 | 201..=203 => Some(Self::Jpeg2000),
            _ => None,
        }
    }
}

/// What a compressed frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnSize {
    rows: u32,
    columns: u32,
    components: u16,
    /// Bits of a sample.
    precision: u8,
}

/// Compares what a compressed frame says of itself with the header's `shape`; gives the bits of its
/// samples where it states them.
pub(super) fn check(
    transfer_syntax_uid: &str,
    bytes: &[u8],
    shape: FrameShape,
) -> Result<Option<u8>, Reason> {
    let own = match Family::of(transfer_syntax_uid) {
        None => return Ok(None),
        Some(Family::Rle) => return check_rle(bytes, shape).map(|()| None),
        Some(Family::Jpeg) => jpeg_size(bytes),
        Some(Family::Jpeg2000) => jpeg_2000_size(bytes),
    };
    let own = own.ok_or_else(|| damaged(bytes, "has no frame header"))?;
    let (rows, columns) = (own.rows as usize, own.columns as usize);
    if (rows, columns, own.components) != (shape.rows, shape.columns, 1) {
        return Err(Reason::new(
            ReasonCode::WrongPixelSize,
            format!(
                "its compressed frame holds {rows} rows × {columns} columns × {} samples where the \
                 header says {} × {} × 1",
                own.components, shape.rows, shape.columns
            ),
        ));
    }
    let bits_allocated = shape.word.bits_allocated;
    if !(1..=bits_allocated).contains(&own.precision.into()) {
        return Err(Reason::new(
            ReasonCode::UndecodablePixels,
            format!(
                "its compressed samples have {} bits where the header allocates {bits_allocated}",
                own.precision
            ),
        ));
    }
    Ok(Some(own.precision))
}

fn damaged(bytes: &[u8], what: &str) -> Reason {
    Reason::new(
        ReasonCode::UndecodablePixels,
        format!("its compressed frame of {} bytes {what}", bytes.len()),
    )
}

/// Every segment must give at least one byte a pixel; dicom-rs' decoder panics otherwise.
fn check_rle(bytes: &[u8], shape: FrameShape) -> Result<(), Reason> {
    let header: &[u8; 64] = bytes
        .first_chunk()
        .ok_or_else(|| damaged(bytes, "is too short for an RLE header"))?;
    let words: Vec<usize> = header
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word) as usize)
        .collect();
    let count = words.first().copied().unwrap_or(0);
    if count != shape.word.bytes() {
        return Err(damaged(
            bytes,
            &format!(
                "has {count} RLE segments where {} are needed",
                shape.word.bytes()
            ),
        ));
    }
    let offsets = &words[1..=count];
    let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
    for (start, end) in offsets.iter().zip(ends) {
        let segment = bytes
            .get(*start..end)
            .ok_or_else(|| damaged(bytes, "has RLE segments beyond its end"))?;
        let decoded = unpacked_length(segment);
        if decoded < shape.pixels() {
            return Err(Reason::new(
                ReasonCode::WrongPixelSize,
                format!(
                    "an RLE segment of its frame decodes to {decoded} bytes where {} are needed",
                    shape.pixels()
                ),
            ));
        }
    }
    Ok(())
}

/// Bytes that an RLE segment decodes to (`PackBits`, PS3.5 section G.3.2).
fn unpacked_length(mut segment: &[u8]) -> usize {
    let mut length = 0;
    while let Some((code, rest)) = segment.split_first() {
        let code = usize::from(*code);
        let (given, taken) = match code {
            0..=127 => ((code + 1).min(rest.len()), code + 1),
            128 => (0, 0),
            _ => ((257 - code) * usize::from(!rest.is_empty()), 1),
        };
        length += given;
        segment = rest.get(taken..).unwrap_or_default();
    }
    length
}

/// Walks the marker segments of a JPEG stream to its frame header.
fn jpeg_size(bytes: &[u8]) -> Option<OwnSize> {
    let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        let (&[mark, marker], after) = rest.split_first_chunk()?;
        match (mark, marker) {
            // Fill bytes may precede a marker.
            (0xFF, 0xFF) => {
                rest = rest.get(1..)?;
                continue;
            }
            // SOF0–SOF15 but for DHT, JPG and DAC; SOF55 is JPEG-LS.
            (0xFF, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF | 0xF7) => {
                let segment: &[u8; 8] = after.first_chunk()?;
                let [_, _, precision, high, low, wide, narrow, components] = *segment;
                return Some(OwnSize {
                    rows: u16::from_be_bytes([high, low]).into(),
                    columns: u16::from_be_bytes([wide, narrow]).into(),
                    components: components.into(),
                    precision,
                });
            }
            (0xFF, 0xDA | 0xD9) => return None,
            (0xFF, _) => {}
            _ => return None,
        }
        let length = u16::from_be_bytes(*after.first_chunk()?);
        rest = after.get(usize::from(length)..)?;
    }
}

/// Finds the SIZ segment, which follows SOC at once; a JP2 box may stand before it.
fn jpeg_2000_size(bytes: &[u8]) -> Option<OwnSize> {
    const SOC_SIZ: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];
    let head = bytes.get(..bytes.len().min(4096))?;
    let start = head.windows(4).position(|window| window == SOC_SIZ)?;
    let siz = bytes.get(start + 4..)?;
    let word = |at: usize| {
        let field: &[u8; 4] = siz.get(at..)?.first_chunk()?;
        Some(u32::from_be_bytes(*field))
    };
    // Lsiz 0, Rsiz 2, Xsiz 4, Ysiz 8, XOsiz 12, YOsiz 16, tiles 20–35, Csiz 36, Ssiz 38.
    Some(OwnSize {
        columns: word(4)?.checked_sub(word(12)?)?,
        rows: word(8)?.checked_sub(word(16)?)?,
        components: u16::from_be_bytes(*siz.get(36..)?.first_chunk()?),
        precision: (siz.get(38)? & 0x7F) + 1,
    })
}
