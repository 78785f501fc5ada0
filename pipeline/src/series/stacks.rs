//! A series' frames → stacks: one direction, one matrix, one kernel, one acquisition where more
//! than one lies at the same place. Reads headers only.

use crate::instance::{FrameHeader, Instance, PixelHeader};

use super::Slice;

/// Directions further apart than this are not one stack; a little wider than what `volume` takes.
const SAME_DIRECTION_COSINE: f64 = 0.9999;
/// Pixel spacings further apart than this are not one stack, mm.
const SAME_SPACING_MM: f64 = 0.002;
/// Slices nearer than this lie at the same place, mm.
pub(crate) const SAME_PLACE_MM: f64 = 0.05;

/// A slice and its distance along the stack's normal, mm, growing towards the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlacedSlice<'a> {
    pub(crate) slice: Slice<'a>,
    pub(crate) along_mm: f64,
}

/// Frames that could be one volume, feet to head.
#[derive(Clone, Debug)]
pub(crate) struct FrameStack<'a> {
    pub(crate) slices: Vec<PlacedSlice<'a>>,
    /// Unit normal, pointing to the head where the stack is axial.
    pub(crate) normal: [f64; 3],
}

/// The stacks of one series and the frames that lack what a place in the patient needs.
#[derive(Debug, Default)]
pub(crate) struct SeriesStacks<'a> {
    pub(crate) stacks: Vec<FrameStack<'a>>,
    pub(crate) without_geometry: Vec<Slice<'a>>,
}

struct Geometry<'a> {
    slice: Slice<'a>,
    frame: &'a FrameHeader,
    pixels: &'a PixelHeader,
    position_mm: [f64; 3],
    directions: [[f64; 3]; 2],
    spacing_mm: [f64; 2],
}

impl<'a> Geometry<'a> {
    fn of(slice: Slice<'a>) -> Option<Self> {
        let frame = slice.instance.frames.get(slice.frame_index)?;
        Some(Self {
            slice,
            frame,
            pixels: slice.instance.pixels.as_ref()?,
            position_mm: frame.position_mm?,
            directions: frame.orientation.filter(is_orthonormal)?,
            spacing_mm: frame.spacing_mm?,
        })
    }

    /// Whether both belong to one stack by all but their acquisition.
    fn alike(&self, other: &Self) -> bool {
        let parallel = |axis: usize| {
            dot(&self.directions[axis], &other.directions[axis]) > SAME_DIRECTION_COSINE
        };
        let same_spacing =
            |axis: usize| (self.spacing_mm[axis] - other.spacing_mm[axis]).abs() < SAME_SPACING_MM;
        (parallel(0) && parallel(1))
            && (same_spacing(0) && same_spacing(1))
            && (self.pixels.rows, self.pixels.columns) == (other.pixels.rows, other.pixels.columns)
            && self.slice.instance.series.kernel == other.slice.instance.series.kernel
            && self.image_kind() == other.image_kind()
    }

    /// AXIAL, LOCALIZER … (PS3.3 C.8.2.1.1.1); a localiser may share a series with its slices.
    fn image_kind(&self) -> Option<&str> {
        image_type(self.slice).get(2).map(String::as_str)
    }
}

/// Image Type of the frame, or else of its object.
pub(super) fn image_type(slice: Slice<'_>) -> &[String] {
    match slice.instance.frames.get(slice.frame_index) {
        Some(frame) if !frame.image_type.is_empty() => &frame.image_type,
        Some(_) | None => &slice.instance.series.image_type,
    }
}

/// Sorts the frames of `instances`, all of one series, into stacks; largest first.
pub(crate) fn stacks_of<'a>(instances: &[&'a Instance]) -> SeriesStacks<'a> {
    let mut result = SeriesStacks::default();
    let mut groups: Vec<Vec<Geometry<'a>>> = Vec::new();
    for slice in instances.iter().flat_map(|instance| frames_of(instance)) {
        let Some(geometry) = Geometry::of(slice) else {
            result.without_geometry.push(slice);
            continue;
        };
        match groups.iter_mut().find(|group| group[0].alike(&geometry)) {
            Some(group) => group.push(geometry),
            None => groups.push(vec![geometry]),
        }
    }
    result.stacks = groups.into_iter().flat_map(by_acquisition).collect();
    // A stable sort: equals keep the order of their SOP Instance UIDs.
    result
        .stacks
        .sort_by_key(|stack| std::cmp::Reverse(stack.slices.len()));
    result
}

/// `slices` in order; `None` if there are none or one lacks a place in the patient.
pub(crate) fn stack_of<'a>(slices: &[Slice<'a>]) -> Option<FrameStack<'a>> {
    let group: Vec<Geometry<'a>> = slices
        .iter()
        .map(|slice| Geometry::of(*slice))
        .collect::<Option<_>>()?;
    (!group.is_empty()).then(|| ordered(&group))
}

fn frames_of(instance: &Instance) -> impl Iterator<Item = Slice<'_>> {
    (0..instance.frames.len()).map(move |frame_index| Slice {
        instance,
        frame_index,
    })
}

/// Splits by acquisition only where acquisitions overlap: a sequential scan numbers each block or
/// even each slice of one stack anew.
fn by_acquisition(group: Vec<Geometry<'_>>) -> Vec<FrameStack<'_>> {
    let whole = ordered(&group);
    let overlap = whole.slices.windows(2).any(|pair| {
        pair[1].along_mm - pair[0].along_mm < SAME_PLACE_MM
            && acquisition(pair[0].slice) != acquisition(pair[1].slice)
    });
    if !overlap {
        return vec![whole];
    }
    let mut parts: Vec<Vec<Geometry<'_>>> = Vec::new();
    for geometry in group {
        let number = geometry.frame.acquisition_number;
        match parts
            .iter_mut()
            .find(|part| part[0].frame.acquisition_number == number)
        {
            Some(part) => part.push(geometry),
            None => parts.push(vec![geometry]),
        }
    }
    parts.sort_by_key(|part| part[0].frame.acquisition_number);
    parts.iter().map(|part| ordered(part)).collect()
}

fn acquisition(slice: Slice<'_>) -> Option<i64> {
    slice.instance.frames[slice.frame_index].acquisition_number
}

fn ordered<'a>(group: &[Geometry<'a>]) -> FrameStack<'a> {
    // A group is made from its first member.
    let normal = headward_normal(&group[0].directions);
    let mut slices: Vec<PlacedSlice<'a>> = group
        .iter()
        .map(|geometry| PlacedSlice {
            slice: geometry.slice,
            along_mm: dot(&geometry.position_mm, &normal),
        })
        .collect();
    slices.sort_by(|a, b| {
        let name = |placed: &PlacedSlice<'a>| {
            (
                &placed.slice.instance.sop_instance_uid,
                placed.slice.frame_index,
            )
        };
        a.along_mm
            .total_cmp(&b.along_mm)
            .then_with(|| name(a).cmp(&name(b)))
    });
    FrameStack { slices, normal }
}

/// The slices' normal, turned towards the head (PS3.3 C.7.6.2.1.1: z grows that way).
fn headward_normal([row, column]: &[[f64; 3]; 2]) -> [f64; 3] {
    let normal = [
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    ];
    if normal[2] < 0.0 {
        normal.map(|component| -component)
    } else {
        normal
    }
}

fn is_orthonormal([row, column]: &[[f64; 3]; 2]) -> bool {
    let unit = |direction: &[f64; 3]| (dot(direction, direction) - 1.0).abs() < 0.02;
    unit(row) && unit(column) && dot(row, column).abs() < 0.01
}

fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl FrameStack<'_> {
    /// From the first slice's centre to the last one's, mm along the normal.
    pub(crate) fn span_mm(&self) -> f64 {
        match (self.slices.first(), self.slices.last()) {
            (Some(first), Some(last)) => last.along_mm - first.along_mm,
            (None, _) | (_, None) => 0.0,
        }
    }

    /// Slices at different places.
    pub(crate) fn places(&self) -> usize {
        let steps = self.slices.windows(2);
        let apart = steps.filter(|pair| pair[1].along_mm - pair[0].along_mm >= SAME_PLACE_MM);
        apart.count() + usize::from(!self.slices.is_empty())
    }

    /// The middle one of the slices' thicknesses; where none states it, of their gaps. mm.
    pub(crate) fn thickness_mm(&self) -> Option<f64> {
        let stated = self.slices.iter().filter_map(|placed| {
            placed.slice.instance.frames[placed.slice.frame_index].thickness_mm
        });
        median(stated.collect()).or_else(|| {
            let gaps = self
                .slices
                .windows(2)
                .map(|pair| pair[1].along_mm - pair[0].along_mm);
            median(gaps.filter(|gap| *gap >= SAME_PLACE_MM).collect())
        })
    }
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}
