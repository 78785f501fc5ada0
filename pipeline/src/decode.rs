//! Pixel data → Hounsfield units, one frame at a time, on all cores.
//!
//! A frame passes through three steps: [`source`] finds its bytes in the file, [`codec`] undoes
//! the compression where there is one, [`scale`] turns stored samples into Hounsfield units. What was
//! decoded before may be [`kept`]. Every step checks sizes against the header: a frame that is too short is an error, never zeros.

mod codec;
mod codestream;
mod jpeg;
mod jpeg_ls;
mod kept;
mod mixed;
mod overwritten;
pub(crate) mod plausible;
mod scale;
mod source;
mod word;

use std::collections::BTreeMap;

use ndarray::{Array2, Array3, Axis};
use rayon::prelude::*;

use crate::instance::{Instance, PixelHeader};
use crate::limits::Limits;
use crate::reason::{Reason, ReasonCode};
use crate::series::Slice;
use scale::{HounsfieldTable, Scale};
use source::PixelSource;
use word::StoredWord;

pub use kept::{
    DecodedObject, DecodedSlices, Decoding, NothingDecoded, decode_object, decoded_bytes, is_slow,
};

/// Reads one frame as Hounsfield units, rounded; axes: row, column. Padding becomes air (-1000).
///
/// # Errors
///
/// [`Reason`] naming the object: pixels that are cut off, have another size than the header says,
/// cannot be decoded, or are not Hounsfield units.
pub fn frame_hounsfield(slice: &Slice<'_>, decoding: Decoding<'_>) -> Result<Array2<i16>, Reason> {
    let shape =
        FrameShape::of(slice.instance, decoding.limits).map_err(|reason| about(slice, &reason))?;
    let mut plane = vec![0; shape.pixels()];
    match decoding.kept(slice.instance) {
        Some(kept) => kept.copy_frame(slice.frame_index, &mut plane),
        None => decode_alone(
            slice,
            decoding.limits,
            &mut plane,
            &mut Workspace::default(),
        ),
    }
    .map_err(|reason| about(slice, &reason))?;
    Array2::from_shape_vec((shape.rows, shape.columns), plane)
        .map_err(|error| Reason::new(ReasonCode::InternalFault, error.to_string()))
}

/// Reads `slices` in parallel into `planes` (axes: slice, row, column), one verdict a slice.
///
/// A multi-frame object is opened once. The plane of a slice that fails keeps what it held.
///
/// # Panics
///
/// Never: a plane that does not fit its slice is a [`ReasonCode::WrongPixelSize`].
pub fn stack_hounsfield(
    slices: &[Slice<'_>],
    decoding: Decoding<'_>,
    planes: &mut Array3<i16>,
) -> Vec<Result<(), Reason>> {
    let mut groups: BTreeMap<_, Vec<FrameTask<'_>>> = BTreeMap::new();
    for ((index, slice), plane) in slices.iter().enumerate().zip(planes.axis_iter_mut(Axis(0))) {
        let key = (&slice.instance.sop_instance_uid, &slice.instance.path);
        groups.entry(key).or_default().push(FrameTask {
            index,
            slice: *slice,
            plane: plane.into_slice().unwrap_or_default(),
        });
    }
    let mut verdicts: Vec<(usize, Result<(), Reason>)> = groups
        .into_values()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map_init(Workspace::default, |workspace, tasks| {
            decode_group(tasks, decoding, workspace)
        })
        .flatten()
        .collect();
    verdicts.sort_by_key(|(index, _)| *index);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

/// A frame to decode and the memory that it goes to.
struct FrameTask<'a> {
    index: usize,
    slice: Slice<'a>,
    plane: &'a mut [i16],
}

/// Memory that a thread keeps from one frame to the next.
#[derive(Default)]
struct Workspace {
    stored: Vec<u8>,
    table: Option<HounsfieldTable>,
}

/// Rows and columns of a frame, and how its samples are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameShape {
    rows: usize,
    columns: usize,
    frames: usize,
    word: StoredWord,
}

impl FrameShape {
    fn of(instance: &Instance, limits: &Limits) -> Result<Self, Reason> {
        let pixels = instance.pixels.as_ref().ok_or_else(|| {
            Reason::new(ReasonCode::UndecodablePixels, "it holds no image pixels")
        })?;
        check_grey(pixels)?;
        check_side("Rows (0028,0010)", pixels.rows, limits)?;
        check_side("Columns (0028,0011)", pixels.columns, limits)?;
        Ok(Self {
            rows: side(pixels.rows)?,
            columns: side(pixels.columns)?,
            frames: side(pixels.frame_count)?,
            word: StoredWord::of(pixels)?,
        })
    }

    fn pixels(self) -> usize {
        self.rows * self.columns
    }

    fn frame_bytes(self) -> usize {
        self.pixels() * self.word.bytes()
    }
}

fn side(value: u32) -> Result<usize, Reason> {
    usize::try_from(value)
        .map_err(|error| Reason::new(ReasonCode::LimitExceeded, error.to_string()))
}

/// A CT slice is one grey sample a pixel, MONOCHROME2 (PS3.3 C.8.2.1.1.2).
fn check_grey(pixels: &PixelHeader) -> Result<(), Reason> {
    let photometric = pixels.photometric.trim();
    if pixels.samples_per_pixel == 1 && photometric == "MONOCHROME2" {
        return Ok(());
    }
    Err(Reason::new(
        ReasonCode::NotHounsfield,
        format!(
            "its Photometric Interpretation (0028,0004) is {photometric:?} with {} samples a \
             pixel; a CT slice in Hounsfield units is MONOCHROME2 with one",
            pixels.samples_per_pixel
        ),
    ))
}

fn check_side(name: &str, value: u32, limits: &Limits) -> Result<(), Reason> {
    if value == 0 {
        let text = format!("{name} is 0");
        return Err(Reason::new(ReasonCode::WrongPixelSize, text));
    }
    if value > limits.frame_side_max {
        let text = format!("{name} is {value}; the limit is {}", limits.frame_side_max);
        return Err(Reason::new(ReasonCode::LimitExceeded, text));
    }
    Ok(())
}

fn decode_group(
    mut tasks: Vec<FrameTask<'_>>,
    decoding: Decoding<'_>,
    workspace: &mut Workspace,
) -> Vec<(usize, Result<(), Reason>)> {
    let Some(instance) = tasks.first().map(|task| task.slice.instance) else {
        return Vec::new();
    };
    if let Some(kept) = decoding.kept(instance) {
        return tasks
            .into_iter()
            .map(|task| {
                let verdict = kept.copy_frame(task.slice.frame_index, task.plane);
                (
                    task.index,
                    verdict.map_err(|reason| about(&task.slice, &reason)),
                )
            })
            .collect();
    }
    let limits = decoding.limits;
    if let [task] = tasks.as_mut_slice() {
        let verdict = decode_alone(&task.slice, limits, task.plane, workspace);
        return vec![(
            task.index,
            verdict.map_err(|reason| about(&task.slice, &reason)),
        )];
    }
    let opened = FrameShape::of(instance, limits)
        .and_then(|shape| Ok((shape, PixelSource::open(instance, shape, limits)?)));
    tasks
        .into_par_iter()
        .map_init(Workspace::default, |workspace, task| {
            let verdict = match &opened {
                Ok((shape, source)) => {
                    decode_frame(source, *shape, &task.slice, task.plane, workspace)
                }
                Err(reason) => Err(reason.clone()),
            };
            (
                task.index,
                verdict.map_err(|reason| about(&task.slice, &reason)),
            )
        })
        .collect()
}

fn decode_alone(
    slice: &Slice<'_>,
    limits: &Limits,
    plane: &mut [i16],
    workspace: &mut Workspace,
) -> Result<(), Reason> {
    let shape = FrameShape::of(slice.instance, limits)?;
    let source = PixelSource::open(slice.instance, shape, limits)?;
    decode_frame(&source, shape, slice, plane, workspace)
}

fn decode_frame(
    source: &PixelSource<'_>,
    shape: FrameShape,
    slice: &Slice<'_>,
    plane: &mut [i16],
    workspace: &mut Workspace,
) -> Result<(), Reason> {
    check_plane(plane, shape.pixels())?;
    let scale = Scale::of(slice)?;
    source.read_frame(slice.frame_index, shape, &mut workspace.stored)?;
    shape.word.check_place(&workspace.stored)?;
    let table = match workspace.table.take() {
        Some(table) if table.scale() == &scale => table,
        _ => HounsfieldTable::new(scale),
    };
    let verdict = table.apply(&workspace.stored, plane);
    workspace.table = Some(table);
    verdict
}

/// Checks that a frame of so many pixels fits its place in the volume.
fn check_plane(plane: &[i16], pixels: usize) -> Result<(), Reason> {
    if plane.len() == pixels {
        return Ok(());
    }
    let text = format!(
        "it has {pixels} pixels where the volume has {}",
        plane.len()
    );
    Err(Reason::new(ReasonCode::WrongPixelSize, text))
}

/// Says which object `reason` is about.
fn about(slice: &Slice<'_>, reason: &Reason) -> Reason {
    let frame = match slice.instance.frames.len() {
        0 | 1 => String::new(),
        _ => format!(", frame {}", slice.frame_index + 1),
    };
    Reason::new(
        reason.code,
        format!(
            "object {}{frame}: {}",
            slice.instance.sop_instance_uid, reason.text
        ),
    )
}

#[cfg(test)]
mod tests;
