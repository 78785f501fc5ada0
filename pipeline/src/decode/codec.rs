//! A compressed frame → its samples, by dicom-rs' codecs held on a short leash.
//!
//! The codecs write into a zeroed buffer of the size that the header states, so a compressed
//! picture smaller than that would end in zeros (0 HU: water) without a word. Hence a frame's own
//! statement of its size is read first and compared. They also panic on some input; that is caught.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::value::C;
use dicom_encoding::adapters::{DynPixelDataReader, PixelDataObject, RawPixelData};

use super::FrameShape;
use crate::reason::{Reason, ReasonCode};

/// The compressed frames of one object.
pub(super) struct EncodedFrames {
    transfer_syntax_uid: String,
    reader: &'static DynPixelDataReader,
    frames: Vec<Vec<u8>>,
}

impl EncodedFrames {
    pub(super) fn new(
        transfer_syntax_uid: &str,
        reader: &'static DynPixelDataReader,
        frames: Vec<Vec<u8>>,
    ) -> Self {
        Self {
            transfer_syntax_uid: transfer_syntax_uid.to_owned(),
            reader,
            frames,
        }
    }

    /// Decodes one frame into `stored`, little endian.
    pub(super) fn decode(
        &self,
        frame_index: usize,
        shape: FrameShape,
        stored: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let mut frame = EncodedFrame {
            transfer_syntax_uid: &self.transfer_syntax_uid,
            bytes: self.frames.get(frame_index).map_or(&[][..], Vec::as_slice),
            rows: fits(shape.rows)?,
            columns: fits(shape.columns)?,
            bits_allocated: if shape.bytes_per_sample == 1 { 8 } else { 16 },
        };
        let widen = match Family::of(&self.transfer_syntax_uid) {
            Some(family) => check_own_size(family, &frame)?,
            None => false,
        };
        if widen {
            frame.bits_allocated = 8;
        }
        stored.clear();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.reader.decode_frame(&frame, 0, stored)
        }));
        match outcome {
            Ok(Ok(())) if widen => {
                *stored = stored.iter().flat_map(|byte| [*byte, 0]).collect();
                Ok(())
            }
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed(&error.to_string())),
            Err(_) => Err(self.failed("the decoder gave up on damaged data")),
        }
    }

    fn failed(&self, why: &str) -> Reason {
        Reason::new(
            ReasonCode::UndecodablePixels,
            format!(
                "its pixels, compressed as {}, cannot be decoded: {why}; send it uncompressed",
                self.transfer_syntax_uid
            ),
        )
    }
}

fn fits(side: usize) -> Result<u16, Reason> {
    u16::try_from(side)
        .map_err(|_| Reason::new(ReasonCode::LimitExceeded, format!("a side of {side} pixels")))
}

/// One compressed frame, shown to a codec as an object of its own.
struct EncodedFrame<'a> {
    transfer_syntax_uid: &'a str,
    bytes: &'a [u8],
    rows: u16,
    columns: u16,
    bits_allocated: u16,
}

impl PixelDataObject for EncodedFrame<'_> {
    fn transfer_syntax_uid(&self) -> &str {
        self.transfer_syntax_uid
    }
    fn rows(&self) -> Option<u16> {
        Some(self.rows)
    }
    fn cols(&self) -> Option<u16> {
        Some(self.columns)
    }
    fn samples_per_pixel(&self) -> Option<u16> {
        Some(1)
    }
    fn bits_allocated(&self) -> Option<u16> {
        Some(self.bits_allocated)
    }
    fn bits_stored(&self) -> Option<u16> {
        Some(self.bits_allocated)
    }
    fn photometric_interpretation(&self) -> Option<&str> {
        Some("MONOCHROME2")
    }
    fn number_of_frames(&self) -> Option<u32> {
        Some(1)
    }
    fn number_of_fragments(&self) -> Option<u32> {
        Some(1)
    }
    fn fragment(&self, fragment: usize) -> Option<Cow<'_, [u8]>> {
        (fragment == 0).then_some(Cow::Borrowed(self.bytes))
    }
    fn offset_table(&self) -> Option<Cow<'_, [u32]>> {
        Some(Cow::Borrowed(&[]))
    }
    fn raw_pixel_data(&self) -> Option<RawPixelData> {
        Some(RawPixelData {
            fragments: C::from_elem(self.bytes.to_vec(), 1),
            offset_table: C::new(),
        })
    }
}

/// Codecs whose frames state their own size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// JPEG and JPEG-LS: a frame header SOFn (ITU-T T.81 B.2.2, T.87 C.2.2).
    Jpeg,
    /// JPEG 2000 and HTJ2K: a SIZ segment (ITU-T T.800 A.5.1).
    Jpeg2000,
}

impl Family {
    fn of(transfer_syntax_uid: &str) -> Option<Self> {
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

/// Compares the frame's own statement with the header's; true if its samples come in one byte each
/// although the header allocates two (JPEG decoders do so up to eight bits).
fn check_own_size(family: Family, frame: &EncodedFrame<'_>) -> Result<bool, Reason> {
    let own = match family {
        Family::Jpeg => jpeg_size(frame.bytes),
        Family::Jpeg2000 => jpeg_2000_size(frame.bytes),
    }
    .ok_or_else(|| {
        Reason::new(
            ReasonCode::UndecodablePixels,
            format!("its compressed frame of {} bytes has no frame header", frame.bytes.len()),
        )
    })?;
    let (rows, columns) = (u32::from(frame.rows), u32::from(frame.columns));
    if (own.rows, own.columns, own.components) != (rows, columns, 1) {
        return Err(Reason::new(
            ReasonCode::WrongPixelSize,
            format!(
                "its compressed frame holds {} rows × {} columns × {} samples where the header \
                 says {rows} × {columns} × 1",
                own.rows, own.columns, own.components
            ),
        ));
    }
    if u16::from(own.precision) > frame.bits_allocated {
        return Err(Reason::new(
            ReasonCode::UndecodablePixels,
            format!(
                "its compressed samples have {} bits where the header allocates {}",
                own.precision, frame.bits_allocated
            ),
        ));
    }
    Ok(family == Family::Jpeg && own.precision <= 8 && frame.bits_allocated == 16)
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
