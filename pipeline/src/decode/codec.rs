//! A compressed frame → its samples: JPEG by our own decoder ([`jpeg`]), all else by dicom-rs'
//! codecs held on a short leash.
//!
//! What a frame says of its own size is compared with the header first ([`codestream`]). The codecs
//! also panic on some damaged input; that is caught.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dicom_core::value::C;
use dicom_encoding::TransferSyntax;
use dicom_encoding::adapters::{DynPixelDataReader, PixelDataObject, RawPixelData};

use super::source::chain;
use super::{FrameShape, codestream, jpeg};
use crate::reason::{Reason, ReasonCode};

/// What undoes a compression.
#[derive(Clone, Copy)]
pub(super) enum Decoder {
    /// JPEG of every kind that the standard allows, but JPEG-LS.
    Jpeg,
    /// Any other, from dicom-rs' registry.
    Registered(&'static DynPixelDataReader),
}

impl Decoder {
    /// The decoder of a transfer syntax; `None` if there is none.
    pub(super) fn of(syntax: &'static TransferSyntax) -> Option<Self> {
        // Baseline, Extended, Lossless, and Lossless with the first predictor.
        const JPEG: [&str; 4] = [
            "1.2.840.10008.1.2.4.50",
            "1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.57",
            "1.2.840.10008.1.2.4.70",
        ];
        if JPEG.contains(&syntax.uid()) {
            return Some(Self::Jpeg);
        }
        syntax.pixel_data_reader().map(Self::Registered)
    }
}

/// The compressed frames of one object.
pub(super) struct EncodedFrames {
    transfer_syntax_uid: String,
    decoder: Decoder,
    frames: Vec<Vec<u8>>,
}

impl EncodedFrames {
    pub(super) fn new(transfer_syntax_uid: &str, decoder: Decoder, frames: Vec<Vec<u8>>) -> Self {
        Self {
            transfer_syntax_uid: transfer_syntax_uid.to_owned(),
            decoder,
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
        let bytes = self.frames.get(frame_index).map_or(&[][..], Vec::as_slice);
        let precision = codestream::check(&self.transfer_syntax_uid, bytes, shape)?;
        let placement = precision.map(|bits| shape.word.placement(bits));
        let placement = placement.transpose()?;
        stored.clear();
        match self.decoder {
            Decoder::Jpeg => self.decode_jpeg(bytes, shape, stored)?,
            Decoder::Registered(reader) => self.decode_by(reader, bytes, shape, stored)?,
        }
        match placement {
            Some(placement) if shape.word.bytes() == 2 => placement.apply(stored.as_chunks_mut().0),
            Some(_) | None => Ok(()),
        }
    }

    fn decode_jpeg(
        &self,
        bytes: &[u8],
        shape: FrameShape,
        stored: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let mut samples = Vec::new();
        jpeg::decode(bytes, (shape.rows, shape.columns), &mut samples)
            .map_err(|error| self.failed(&error.to_string()))?;
        if shape.word.bytes() == 1 {
            // Their precision, 8 or less, was checked against the header.
            stored.extend(samples.iter().map(|sample| sample.to_le_bytes()[0]));
        } else {
            stored.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        }
        Ok(())
    }

    fn decode_by(
        &self,
        reader: &DynPixelDataReader,
        bytes: &[u8],
        shape: FrameShape,
        stored: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let frame = EncodedFrame {
            transfer_syntax_uid: &self.transfer_syntax_uid,
            bytes,
            rows: fits(shape.rows)?,
            columns: fits(shape.columns)?,
            bits_allocated: shape.word.bits_allocated,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| reader.decode_frame(&frame, 0, stored)));
        match outcome {
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
