//! A compressed frame → its samples, by dicom-rs' codecs held on a short leash.
//!
//! What a frame says of its own size is compared with the header first ([`codestream`]). The codecs
//! also panic on some damaged input; that is caught.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::value::C;
use dicom_encoding::adapters::{DynPixelDataReader, PixelDataObject, RawPixelData};

use super::source::chain;
use super::{FrameShape, codestream};
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
        let widen = codestream::check(&self.transfer_syntax_uid, frame.bytes, shape)?;
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
            Ok(Err(error)) => Err(self.failed(&chain(&error))),
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
    u16::try_from(side).map_err(|_| {
        Reason::new(
            ReasonCode::LimitExceeded,
            format!("a side of {side} pixels"),
        )
    })
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
