//! JPEG-LS for dicom-rs, by a decoder that needs no C++ compiler.
//!
//! The adapter takes the place of the two stubs in dicom-rs' registry, so that whatever reads pixel
//! data through that registry finds it.

use std::borrow::Cow;

use dicom_encoding::adapters::{
    DecodeError, DecodeResult, NeverPixelAdapter, PixelDataObject, PixelDataReader, decode_error,
};
use dicom_encoding::snafu::OptionExt;
use dicom_encoding::submit_transfer_syntax;
use dicom_encoding::transfer_syntax::{Codec, NeverAdapter, TransferSyntax};

const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];

/// Decodes JPEG-LS frames of one component, lossless and near-lossless.
#[derive(Clone, Copy, Debug)]
struct JpegLsAdapter;

impl PixelDataReader for JpegLsAdapter {
    fn decode_frame(
        &self,
        source: &dyn PixelDataObject,
        frame: u32,
        stored: &mut Vec<u8>,
    ) -> DecodeResult<()> {
        let rows = source
            .rows()
            .context(decode_error::MissingAttributeSnafu { name: "Rows" })?;
        let columns = source
            .cols()
            .context(decode_error::MissingAttributeSnafu { name: "Columns" })?;
        let encoded = source
            .frame_pixel_data(frame)
            .context(decode_error::FrameRangeOutOfBoundsSnafu)?;
        let encoded = without_fill(&encoded);
        let (samples, ..) = jpegls::decode(&encoded, columns.into(), rows.into())
            .map_err(|error| custom(error.to_string()))?;
        match source.bits_allocated() {
            Some(8) => {
                for sample in samples {
                    let byte = u8::try_from(sample).map_err(|error| custom(error.to_string()))?;
                    stored.push(byte);
                }
            }
            _ => stored.extend(samples.iter().flat_map(|sample| sample.to_le_bytes())),
        }
        Ok(())
    }
}

/// Takes fill bytes (0xFF) from before the end marker: DCMTK writes one to make the length even, and
/// the decoder does not skip them as ITU-T T.81 B.1.1.2 asks.
fn without_fill(encoded: &[u8]) -> Cow<'_, [u8]> {
    let unpadded = encoded.strip_suffix(&[0]).unwrap_or(encoded);
    let Some(mut scan) = unpadded.strip_suffix(&END_OF_IMAGE) else {
        return Cow::Borrowed(encoded);
    };
    if scan.last() != Some(&0xFF) {
        return Cow::Borrowed(encoded);
    }
    // No scan ends in 0xFF: the coder stuffs a bit after it (ITU-T T.87 A.1).
    while let Some(shorter) = scan.strip_suffix(&[0xFF]) {
        scan = shorter;
    }
    Cow::Owned([scan, &END_OF_IMAGE].concat())
}

fn custom(message: String) -> DecodeError {
    DecodeError::Custom {
        message,
        source: None,
    }
}

type JpegLs = TransferSyntax<NeverAdapter, JpegLsAdapter, NeverPixelAdapter>;

submit_transfer_syntax!(JpegLs::new_ele(
    "1.2.840.10008.1.2.4.80",
    "JPEG-LS Lossless Image Compression",
    Codec::EncapsulatedPixelData(Some(JpegLsAdapter), None),
));

submit_transfer_syntax!(JpegLs::new_ele(
    "1.2.840.10008.1.2.4.81",
    "JPEG-LS Lossy (Near-Lossless) Image Compression",
    Codec::EncapsulatedPixelData(Some(JpegLsAdapter), None),
));
