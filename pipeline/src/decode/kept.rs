//! Pixels that were decoded before, and may be kept until the study is analysed.
//!
//! What is taken from there changes no result, only how long it takes. A kept object is named by
//! the content of its file and by all that decoding asks of header and limits besides
//! ([`DecodedObject::is_of`]), so that a kept object that no longer fits is simply decoded again.
//! So is one with a frame that could not be decoded: the fault may have been the disk's.
//!
//! Slices of 512 × 512, milliseconds each on one core (dev profile): JPEG 2000 39, JPEG-LS 15,
//! HTJ2K 12, JPEG lossless 4, RLE 3, deflated 2, uncompressed 0.7; reading back what was kept, 0.5.
//! So it pays for compressed and deflated pixels only ([`is_slow`]); keeping others does no harm.

use std::sync::Arc;

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::{FrameShape, PixelSource, Workspace, decode_frame};
use crate::content::ContentHash;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::sealed::{self, SealError};
use crate::series::Slice;

const KIND: sealed::Kind = *b"TEZ-HU16";
const VERSION: u32 = 1;
/// To be raised when the same bytes decode to other Hounsfield units than before: then nothing that
/// was kept is used.
const DECODING_VERSION: u32 = 1;
const FINGERPRINT_BYTES: usize = blake3::OUT_LEN;

/// How pixels are come to: within limits, and with what was decoded before.
#[derive(Clone, Copy)]
pub struct Decoding<'a> {
    /// What may be decoded.
    pub limits: &'a Limits,
    /// Where objects are that were decoded before.
    pub decoded: &'a dyn DecodedSlices,
}

/// Keeps objects that were decoded.
pub trait DecodedSlices: Sync {
    /// The object of this content, if it is kept. May be asked for many objects at once.
    fn get(&self, content: ContentHash) -> Option<Arc<DecodedObject>>;
}

/// Keeps nothing: every object is decoded when it is needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingDecoded;

impl DecodedSlices for NothingDecoded {
    fn get(&self, _content: ContentHash) -> Option<Arc<DecodedObject>> {
        None
    }
}

impl<'a> Decoding<'a> {
    /// Decodes everything when it is needed.
    pub fn afresh(limits: &'a Limits) -> Self {
        Self {
            limits,
            decoded: &NothingDecoded,
        }
    }

    /// What is kept of `instance`, if it can be used.
    pub(super) fn kept(&self, instance: &Instance) -> Option<Arc<DecodedObject>> {
        self.decoded
            .get(instance.content?)
            .filter(|kept| kept.is_whole() && kept.is_of(instance, self.limits))
    }
}

impl std::fmt::Debug for Decoding<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Decoding")
            .field("limits", self.limits)
            .finish_non_exhaustive()
    }
}

/// The decoded pixels of one object: the Hounsfield units of each frame, or why it has none.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodedObject {
    fingerprint: [u8; FINGERPRINT_BYTES],
    rows: usize,
    columns: usize,
    /// Of each frame its Hounsfield units, row by row.
    frames: Vec<Result<Vec<i16>, Reason>>,
}

impl std::fmt::Debug for DecodedObject {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            rows,
            columns,
            frames,
            ..
        } = self;
        let frames = frames.len();
        write!(
            formatter,
            "DecodedObject({frames} × {rows} × {columns} voxels)"
        )
    }
}

/// Decodes all frames of `instance`, as the analysis of its study does.
///
/// Never fails: what cannot be decoded says why. Many frames are decoded on all cores. Takes
/// [`decoded_bytes`] of memory.
pub fn decode_object(instance: &Instance, limits: &Limits) -> DecodedObject {
    let count = instance.frames.len();
    let fingerprint = fingerprint(instance, limits);
    let opened = FrameShape::of(instance, limits)
        .and_then(|shape| Ok((shape, PixelSource::open(instance, shape, limits)?)));
    let (shape, source) = match opened {
        Ok(opened) => opened,
        Err(reason) => {
            return DecodedObject {
                fingerprint,
                rows: 0,
                columns: 0,
                frames: vec![Err(reason); count],
            };
        }
    };
    let decode = |workspace: &mut Workspace, frame_index: usize| {
        let slice = Slice::of(instance, frame_index);
        let mut plane = vec![0; shape.pixels()];
        decode_frame(&source, shape, &slice, &mut plane, workspace).map(|()| plane)
    };
    let frames = match count {
        1 => vec![decode(&mut Workspace::default(), 0)],
        _ => (0..count)
            .into_par_iter()
            .map_init(Workspace::default, decode)
            .collect(),
    };
    DecodedObject {
        fingerprint,
        rows: shape.rows,
        columns: shape.columns,
        frames,
    }
}

/// How many bytes the decoded pixels of `instance` take by its header: two a voxel.
pub fn decoded_bytes(instance: &Instance) -> u64 {
    let frames = u64::try_from(instance.frames.len()).unwrap_or(u64::MAX);
    instance.pixels.as_ref().map_or(0, |pixels| {
        let voxels = u64::from(pixels.rows).saturating_mul(u64::from(pixels.columns));
        voxels.saturating_mul(frames).saturating_mul(2)
    })
}

/// Whether keeping the decoded pixels of `instance` saves time: they are compressed or deflated.
/// Those that lie in the file as they are decode as fast as a kept object is read.
pub fn is_slow(instance: &Instance) -> bool {
    let pixels = instance.pixels.as_ref();
    pixels.is_some_and(|pixels| pixels.native_offset.is_none())
}

/// All that decides what an object decodes to: what its bytes are, what was read from its header,
/// and the limits. Not where its file lies, nor how much of a file meta group stands before it.
fn fingerprint(instance: &Instance, limits: &Limits) -> [u8; FINGERPRINT_BYTES] {
    let mut pixels = instance.pixels.clone();
    if let Some(pixels) = &mut pixels {
        pixels.native_offset = pixels.native_offset.map(|_| 0);
    }
    let scales = instance.frames.iter().map(|frame| {
        (
            frame.rescale_slope.map(f64::to_bits),
            frame.rescale_intercept.map(f64::to_bits),
            frame.rescale_type.as_str(),
        )
    });
    let asked = (
        DECODING_VERSION,
        instance.content,
        &instance.transfer_syntax_uid,
        pixels,
        scales.collect::<Vec<_>>(),
        [limits.object_bytes_max, limits.header_bytes_max],
        limits.frame_side_max,
    );
    *blake3::hash(format!("{asked:?}").as_bytes()).as_bytes()
}

impl DecodedObject {
    /// Whether these are the pixels of `instance`, decoded as they would be now.
    pub fn is_of(&self, instance: &Instance, limits: &Limits) -> bool {
        self.fingerprint == fingerprint(instance, limits)
    }

    /// Whether every frame could be decoded.
    pub fn is_whole(&self) -> bool {
        self.frames.iter().all(Result::is_ok)
    }

    /// Frames of the object.
    pub fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// Rows and columns of each frame; 0 if no frame could be decoded.
    pub fn size(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The Hounsfield units of a frame, rounded; axes: row, column. Padding is air (-1000). `None`
    /// for a frame that the object does not have.
    ///
    /// # Errors
    ///
    /// The [`Reason`] why it could not be decoded.
    pub fn hounsfield(&self, frame_index: usize) -> Option<Result<ArrayView2<'_, i16>, &Reason>> {
        let frame = match self.frames.get(frame_index)? {
            Ok(frame) => frame,
            Err(reason) => return Some(Err(reason)),
        };
        ArrayView2::from_shape((self.rows, self.columns), frame)
            .ok()
            .map(Ok)
    }

    /// Puts a frame into `plane`, as decoding does.
    pub(super) fn copy_frame(&self, frame_index: usize, plane: &mut [i16]) -> Result<(), Reason> {
        let Some(frame) = self.frames.get(frame_index) else {
            let text = format!(
                "frame {} is asked of {}",
                frame_index + 1,
                self.frames.len()
            );
            return Err(Reason::new(ReasonCode::WrongPixelSize, text));
        };
        super::check_plane(plane, self.rows * self.columns)?;
        plane.copy_from_slice(frame.as_ref().map_err(Clone::clone)?);
        Ok(())
    }

    /// The object as bytes to be kept in a file: two a voxel, and a hundred or so.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut payload =
            Vec::with_capacity(128 + 2 * self.rows * self.columns * self.frames.len());
        payload.extend(self.fingerprint);
        for number in [self.rows, self.columns, self.frames.len()] {
            put_number(&mut payload, number);
        }
        for frame in &self.frames {
            match frame {
                Ok(frame) => {
                    payload.push(DECODED);
                    payload.extend(frame.iter().flat_map(|value| value.to_le_bytes()));
                }
                Err(reason) => {
                    let json = serde_json::to_vec(reason).unwrap_or_default();
                    payload.push(REFUSED);
                    put_number(&mut payload, json.len());
                    payload.extend(json);
                }
            }
        }
        sealed::seal(KIND, VERSION, &payload)
    }

    /// Reads what [`Self::to_bytes`] gave.
    ///
    /// # Errors
    ///
    /// [`SealError`] for anything else: cut, altered, of another version or foreign.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let payload = sealed::open(KIND, VERSION, bytes)?;
        Payload(payload).object().ok_or(SealError::Damaged)
    }
}

/// What stands before a frame that could be decoded, and before one that could not.
const DECODED: u8 = 0;
const REFUSED: u8 = 1;

fn put_number(payload: &mut Vec<u8>, number: usize) {
    payload.extend(u64::try_from(number).unwrap_or(u64::MAX).to_le_bytes());
}

/// What is still to be read.
struct Payload<'a>(&'a [u8]);

impl<'a> Payload<'a> {
    /// `None` for what no version wrote.
    fn object(mut self) -> Option<DecodedObject> {
        let fingerprint = *self.take(FINGERPRINT_BYTES)?.first_chunk()?;
        let (rows, columns) = (self.number()?, self.number()?);
        let count = self.number()?;
        // Each frame takes a byte or more.
        if count > self.0.len() {
            return None;
        }
        let frame_bytes = rows.checked_mul(columns)?.checked_mul(2)?;
        let frames = (0..count)
            .map(|_| self.frame(frame_bytes))
            .collect::<Option<_>>()?;
        self.0.is_empty().then_some(DecodedObject {
            fingerprint,
            rows,
            columns,
            frames,
        })
    }

    fn frame(&mut self, frame_bytes: usize) -> Option<Result<Vec<i16>, Reason>> {
        match self.take(1)? {
            [DECODED] => {
                let words = self.take(frame_bytes)?.as_chunks().0;
                Some(Ok(words.iter().copied().map(i16::from_le_bytes).collect()))
            }
            [REFUSED] => {
                let length = self.number()?;
                let reason = serde_json::from_slice(self.take(length)?).ok()?;
                Some(Err(reason))
            }
            _ => None,
        }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        let bytes = *self.take(size_of::<u64>())?.first_chunk()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }
}

#[cfg(test)]
mod tests;
