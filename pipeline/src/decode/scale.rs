//! Stored samples → Hounsfield units by one table a scale.

use super::word::StoredWord;
use crate::instance::{FrameHeader, PixelHeader};
use crate::reason::{Reason, ReasonCode};
use crate::series::Slice;

/// What padding becomes.
pub(super) const AIR_HU: i16 = -1000;

/// Padding inside this range is not believed: it would turn tissue to air (some anonymisers write
/// Pixel Padding Value 0 into images whose zero is water).
const TISSUE_HU: std::ops::RangeInclusive<f64> = -200.0..=3000.0;

/// How a frame's samples become Hounsfield units (PS3.3 C.7.6.3, C.11.1 and C.7.5.1.1.2).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    word: StoredWord,
    /// Stored values that are padding, both ends included.
    padding: Option<(i32, i32)>,
    slope: f64,
    intercept: f64,
    /// Whether the header says that the result is Hounsfield units.
    declared: bool,
}

impl Scale {
    /// Takes the scale from the headers of `slice`.
    pub(super) fn of(slice: &Slice<'_>) -> Result<Self, Reason> {
        let (Some(pixels), Some(frame)) = (
            slice.instance.pixels.as_ref(),
            slice.instance.frames.get(slice.frame_index),
        ) else {
            let text = format!("it has no frame {}", slice.frame_index + 1);
            return Err(Reason::new(ReasonCode::UndecodablePixels, text));
        };
        let (slope, intercept, declared) = rescale(frame)?;
        let scale = Self {
            word: StoredWord::of(pixels)?,
            padding: None,
            slope,
            intercept,
            declared,
        };
        let padding = padding_range(pixels).filter(|range| !scale.is_tissue(*range));
        Ok(Self { padding, ..scale })
    }

    fn is_tissue(&self, (low, high): (i32, i32)) -> bool {
        [low, high]
            .iter()
            .any(|stored| TISSUE_HU.contains(&(self.slope * f64::from(*stored) + self.intercept)))
    }

    fn hounsfield(&self, raw: u16) -> i16 {
        let stored = self.word.sample(raw);
        // Padding may lie outside the stored bits (GE: -2000 beside 12 stored bits).
        let whole = self.word.whole(raw);
        let is_padding = |(low, high): (i32, i32)| {
            (low..=high).contains(&stored) || (low..=high).contains(&whole)
        };
        if self.padding.is_some_and(is_padding) {
            return AIR_HU;
        }
        saturate(self.slope * f64::from(stored) + self.intercept)
    }
}

fn rescale(frame: &FrameHeader) -> Result<(f64, f64, bool), Reason> {
    let kind = frame.rescale_type.trim();
    let unit_is_hu = matches!(kind, "" | "HU" | "HU_MOD");
    match (frame.rescale_slope, frame.rescale_intercept) {
        (Some(slope), Some(intercept)) if slope > 0.0 => Ok((slope, intercept, unit_is_hu)),
        (Some(slope), Some(_)) => Err(Reason::new(
            ReasonCode::NotHounsfield,
            format!("its Rescale Slope (0028,1053) is {slope}"),
        )),
        (None, _) | (_, None) => Ok((1.0, 0.0, false)),
    }
}

fn padding_range(pixels: &PixelHeader) -> Option<(i32, i32)> {
    let value = pixels.padding_value?;
    let limit = pixels.padding_limit.unwrap_or(value);
    Some((value.min(limit), value.max(limit)))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float cast saturates, which is what is wanted of values beyond 16 bits"
)]
fn saturate(hounsfield: f64) -> i16 {
    hounsfield.round() as i16
}

/// The Hounsfield units of every sample that a scale can meet.
pub(super) struct HounsfieldTable {
    scale: Scale,
    table: Vec<i16>,
}

impl HounsfieldTable {
    pub(super) fn new(scale: Scale) -> Self {
        let raw_max = if scale.word.bits_allocated == 8 {
            u16::from(u8::MAX)
        } else {
            u16::MAX
        };
        let table = (0..=raw_max).map(|raw| scale.hounsfield(raw)).collect();
        Self { scale, table }
    }

    pub(super) fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Turns `stored` (little endian) into `plane`; the two have the same number of samples.
    pub(super) fn apply(&self, stored: &[u8], plane: &mut [i16]) -> Result<(), Reason> {
        if self.scale.word.bits_allocated == 8 {
            for (out, byte) in plane.iter_mut().zip(stored) {
                *out = self.table[usize::from(*byte)];
            }
        } else {
            let table: &[i16; 1 << 16] = self.table.as_slice().try_into().map_err(|_| {
                Reason::new(
                    ReasonCode::InternalFault,
                    "the Hounsfield table has another size",
                )
            })?;
            for (out, bytes) in plane.iter_mut().zip(stored.as_chunks().0) {
                *out = table[usize::from(u16::from_le_bytes(*bytes))];
            }
        }
        if self.scale.declared || is_plainly_hounsfield(plane) {
            return Ok(());
        }
        Err(Reason::new(
            ReasonCode::NotHounsfield,
            "Rescale Slope, Intercept or Type (0028,1053, 1052, 1054) is missing or names another \
             unit, and the values do not look like Hounsfield units",
        ))
    }
}

/// Whether values without a declared unit are Hounsfield units beyond doubt: air lies where air
/// lies on that scale, in at least a fiftieth of the picture, and nothing lies far below it.
fn is_plainly_hounsfield(plane: &[i16]) -> bool {
    let air = plane
        .iter()
        .filter(|value| (-1050..=-950).contains(*value))
        .count();
    let below = plane.iter().filter(|value| **value < -1100).count();
    50 * air >= plane.len() && below == 0
}
