//! JPEG-LS for dicom-rs, by a decoder that needs no C++ compiler.
//!
//! The adapter takes the place of the two stubs in dicom-rs' registry, so that whatever reads pixel
//! data through that registry finds it.

use dicom_encoding::adapters::{
    DecodeError, DecodeResult, NeverPixelAdapter, PixelDataObject, PixelDataReader, decode_error,
};
use dicom_encoding::snafu::OptionExt;
use dicom_encoding::submit_transfer_syntax;
use dicom_encoding::transfer_syntax::{Codec, NeverAdapter, TransferSyntax};

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
