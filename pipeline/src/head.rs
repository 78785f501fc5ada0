//! Is this volume a head, and how much of one? Asked of the pixels, not of the header.
//!
//! A copy of 4 mm voxels is enough. Soft tissue that sees bone in most directions within its slice
//! is *enclosed*; the largest connected piece of it is the candidate for the inside of a skull. It
//! is one if it has the size and roundness of a brain, the density of brain, bone close around it
//! (a craniotomy's gap is tolerated), and little but scalp outside. A chest, a belly, a pelvis, a
//! knee, a neck and a phantom each fail one of these.

mod pieces;
mod pixels;

use ndarray::{Array3, ArrayView2, Axis};

use crate::prepare::average::PatientView;
use crate::reason::{Reason, ReasonCode};
use crate::volume::{Grid, PatientPoint, Volume, VoxelPoint};
pub(crate) use pieces::{bone_in_sight, largest_piece};
use pieces::{bounds, grown, sides_mm, touches_side};

/// Side of the copy's voxels, mm.
pub(crate) const VOXEL_MM: f64 = 4.0;
/// Slices and rows of a thin stack that are read for each voxel of the copy: noise matters little.
const SAMPLES_PER_VOXEL: f64 = 3.0;
/// At least this is bone after averaging over a voxel, HU.
const BONE_HU: f32 = 250.0;
/// Brain, fluid and blood after averaging, HU.
pub(crate) const BRAIN_HU: std::ops::RangeInclusive<f32> = -25.0..=110.0;
/// At least this is body and not air, HU.
const BODY_HU: f32 = -300.0;
/// Of eight directions within a slice, so many must meet bone.
pub(crate) const DIRECTIONS_MIN: u8 = 5;
/// How far a skull may lie from tissue that it encloses, mm.
const SIGHT_MM: f64 = 160.0;
/// Largest cross-section of the inside of a skull, newborn to adult, cm².
const AREA_CM2: std::ops::RangeInclusive<f64> = 45.0..=280.0;
/// Shorter and longer side of that cross-section, mm.
const SHORT_SIDE_MM: std::ops::RangeInclusive<f64> = 60.0..=190.0;
const LONG_SIDE_MM: std::ops::RangeInclusive<f64> = 75.0..=235.0;
/// Share of the cross-section's rectangle that it fills: an ellipse fills 0.79, a square all.
const ROUNDNESS: std::ops::RangeInclusive<f64> = 0.58..=0.92;
/// Mean density of the inside; water is nearer to 0.
const MEAN_HU: std::ops::RangeInclusive<f64> = 8.0..=65.0;
/// From this cross-section on a round ring of bone around tissue as dense as brain is taken for a
/// skull of an odd size, cm²; vertebrae and joints are smaller.
const SKULL_LIKE_CM2_MIN: f64 = 20.0;
/// Height over which the cross-section is at least half of the largest, as a share of that one's root.
/// Of 65 routine heads it is 0.49 to 0.81.
const HALF_HEIGHT_OF_SIDE: std::ops::RangeInclusive<f64> = 0.4..=1.0;
/// Planes with this share of the largest cross-section show the brain well.
const WIDE_SHARE: f64 = 0.4;
/// Largest step of the brain's middle density over 8 mm, HU. Of 65 routine heads, 28 of which bleed, it is
/// 7 at most.
const STEP_HU_MAX: f32 = 15.0;
/// A stack that shows a newborn's head from base to vertex is at least this high, mm.
const HEAD_MM_MIN: f64 = 60.0;
/// Bone lies this near to the inside's rim, voxels …
const RIM_VOXELS: usize = 3;
/// … along at least this share of the rim.
const RIM_SHARE_MIN: f64 = 0.55;
/// Area of the body over area of the inside, at most; an adult head has 1.6, a pelvis 5.
const BODY_RATIO_MAX: f64 = 2.6;
/// Brain in the topmost plane up to which the vertex is covered, cm². The cap above it is then at
/// most 5 mm high (area = 2π · radius · height, radius 75 mm): the last of thick slices often ends so.
pub(crate) const VERTEX_CM2: f64 = 25.0;
/// Up to here the end below the vertex is only remarked: the cap is at most 9 mm high. Of 64
/// routine heads in 5 mm slices 11 end between the two bounds and none above.
const VERTEX_REMARKED_CM2: f64 = 40.0;
/// Share of the largest cross-section in some plane below it down to which the base is covered.
/// Further down soft tissue between jaw and spine counts as enclosed again, so that the lowest plane
/// alone says nothing where the stack reaches the neck.
pub(crate) const BASE_SHARE: f64 = 0.25;
/// This share does where two more planes (8 mm) lie below: of 64 routine heads that reach the first
/// or second vertebra four never fall below 0.25, and all fall below 0.27.
const NECK_SHARE: f64 = 0.3;
const NECK_PLANES: usize = 2;

/// What the pixels say about the head.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadFacts {
    /// Whether this is a head, else why not ([`ReasonCode::NotHead`]).
    pub is_head: Result<(), Reason>,
    /// Whether what is inside can be read, else why not ([`ReasonCode::Contrast`]).
    pub readable: Result<(), Reason>,
    /// Middle of the skull's bounds; without a head, of the body's; in an empty volume, its own.
    pub centre_mm: PatientPoint,
    /// Opposite corners of the skull's bounds along the volume's axes (right, front, feet; then
    /// left, back, head), or of what `centre_mm` is the middle of.
    pub bounds_mm: [PatientPoint; 2],
    /// The stack ends above the brain.
    pub covers_vertex: bool,
    /// The stack begins at the skull base or below.
    pub covers_base: bool,
    /// The field of view cuts the skull.
    pub cut_by_field: bool,
    /// What is missing or hidden, as sentences: with any of them "nothing found" says nothing. Empty
    /// for what is no head.
    pub warnings: Vec<Reason>,
    /// What is worth saying and takes nothing from the result.
    pub remarks: Vec<Reason>,
}

impl HeadFacts {
    /// Whether the stack spans the head from base to vertex.
    pub fn is_whole(&self) -> bool {
        self.is_head.is_ok() && self.covers_vertex && self.covers_base && !self.cut_by_field
    }
}

/// Looks for a head in `volume`. Costs one pass over its voxels.
pub fn examine(volume: &Volume) -> HeadFacts {
    let coarse = Coarse::of(volume);
    let inside = coarse.inside();
    match coarse.judge(&inside) {
        Ok(()) => {
            let mut facts = coarse.head_facts(&inside);
            let seen = coarse.check_steps(&inside);
            match seen.and_then(|()| pixels::examine(volume, &coarse.grid, &inside)) {
                Ok(warnings) => facts.warnings.extend(warnings),
                Err(reason) => facts.readable = Err(reason),
            }
            facts
        }
        Err(reason) => coarse.other_facts(reason),
    }
}

/// The coarse copy; axes: z, y, x along the patient.
struct Coarse {
    hounsfield: Array3<f32>,
    grid: Grid,
}

/// The candidate for the inside of a skull.
struct Inside {
    mask: Array3<bool>,
    /// Cross-section of each plane, cm².
    areas_cm2: Vec<f64>,
    /// Plane of the largest one.
    widest: usize,
}

impl Inside {
    fn largest_cm2(&self) -> f64 {
        self.areas_cm2.get(self.widest).copied().unwrap_or(0.0)
    }

    fn topmost_cm2(&self) -> f64 {
        self.areas_cm2.last().copied().unwrap_or(0.0)
    }

    fn covers_vertex(&self) -> bool {
        self.topmost_cm2() <= VERTEX_REMARKED_CM2
    }

    fn covers_base(&self) -> bool {
        let below = || self.areas_cm2.iter().take(self.widest + 1).copied();
        below().any(|area| area <= BASE_SHARE * self.largest_cm2())
            || below()
                .skip(NECK_PLANES)
                .any(|area| area <= NECK_SHARE * self.largest_cm2())
    }

    /// A brain is about as high as it is wide. Positions in slice numbers or centimetres squash it,
    /// those of another step stretch it.
    fn check_height(&self) -> Result<(), Reason> {
        let half = HalfHeight::of(&self.areas_cm2, self.widest);
        let area_cm2 = self.largest_cm2();
        let side_mm = 10.0 * area_cm2.sqrt();
        let stack_mm = self.areas_cm2.len() as f64 * VOXEL_MM;
        let squashed = !half.is_cut && half.outer_mm < HALF_HEIGHT_OF_SIDE.start() * side_mm;
        let stretched = half.inner_mm > HALF_HEIGHT_OF_SIDE.end() * side_mm;
        let flat = stack_mm < HEAD_MM_MIN && self.covers_vertex() && self.covers_base();
        if !squashed && !flat && !stretched {
            return Ok(());
        }
        Err(Reason::new(
            ReasonCode::ImplausibleSize,
            format!(
                "The slices' positions make this stack {stack_mm:.0} mm high. That is no head's height: \
                 the wide part of this brain, {area_cm2:.0} cm² in a slice, would be {:.0} mm high, and \
                 it is {:.0} to {:.0} mm in a head of that width. Image Position (Patient) (0020,0032) \
                 does not hold millimetres.",
                half.outer_mm,
                HALF_HEIGHT_OF_SIDE.start() * side_mm,
                HALF_HEIGHT_OF_SIDE.end() * side_mm
            ),
        ))
    }
}

impl Coarse {
    fn of(volume: &Volume) -> Self {
        let view = PatientView::of(volume).thinned(VOXEL_MM / SAMPLES_PER_VOXEL);
        let size = [0, 1, 2]
            .map(|axis| boxes(view.grid.size[axis] as f64 * view.grid.spacing_mm[axis] / VOXEL_MM));
        let grid = view.lattice(view.grid.middle(), [VOXEL_MM; 3], size);
        Self {
            hounsfield: view.average(&grid),
            grid,
        }
    }

    fn plane_cm2() -> f64 {
        VOXEL_MM * VOXEL_MM / 100.0
    }

    /// Largest connected piece of enclosed soft tissue.
    fn inside(&self) -> Inside {
        let mut enclosed = Array3::from_elem(self.hounsfield.dim(), false);
        for (plane, mut out) in self.hounsfield.outer_iter().zip(enclosed.outer_iter_mut()) {
            let sight = bone_in_sight(&plane);
            for ((flag, hounsfield), seen) in out.iter_mut().zip(plane).zip(&sight) {
                *flag = BRAIN_HU.contains(hounsfield) && *seen >= DIRECTIONS_MIN;
            }
        }
        let mask = largest_piece(&enclosed);
        let areas_cm2: Vec<f64> = mask
            .outer_iter()
            .map(|plane| count(plane.iter().copied()) as f64 * Self::plane_cm2())
            .collect();
        let widest = (0..areas_cm2.len())
            .max_by(|a, b| areas_cm2[*a].total_cmp(&areas_cm2[*b]))
            .unwrap_or(0);
        Inside {
            mask,
            areas_cm2,
            widest,
        }
    }

    fn judge(&self, inside: &Inside) -> Result<(), Reason> {
        let area_cm2 = inside.largest_cm2();
        let mask = inside.mask.index_axis(Axis(0), inside.widest);
        let plane = self.hounsfield.index_axis(Axis(0), inside.widest);
        if !AREA_CM2.contains(&area_cm2) {
            return self.judge_size(inside, area_cm2);
        }
        check_shape(&mask, area_cm2)?;
        self.check_density(inside)?;
        check_rim(&mask, &plane).map_err(|reason| self.with_word_on_infants(reason))?;
        check_body(&plane, area_cm2)?;
        inside.check_height()
    }

    /// A ring of bone of another size than a skull's: one whose pixel spacing is wrong, a small
    /// child's, or no skull.
    fn judge_size(&self, inside: &Inside, area_cm2: f64) -> Result<(), Reason> {
        let mask = inside.mask.index_axis(Axis(0), inside.widest);
        let plane = self.hounsfield.index_axis(Axis(0), inside.widest);
        let [short_mm, long_mm] = sides_mm(&mask);
        let looks_like_a_skull = area_cm2 >= SKULL_LIKE_CM2_MIN
            && ROUNDNESS.contains(&roundness(area_cm2, short_mm, long_mm))
            && self.check_density(inside).is_ok()
            && check_rim(&mask, &plane).is_ok();
        if !looks_like_a_skull {
            let not_head = not_head(&format!(
                "the largest cross-section of soft tissue within bone is {area_cm2:.0} cm²; \
                 inside a skull it is {:.0} to {:.0} cm²",
                AREA_CM2.start(),
                AREA_CM2.end()
            ));
            return not_head.map_err(|reason| self.with_word_on_infants(reason));
        }
        Err(Reason::new(
            ReasonCode::ImplausibleSize,
            format!(
                "A ring of bone like a skull's is {short_mm:.0} × {long_mm:.0} mm inside \
                 ({area_cm2:.0} cm²); an adult's has {:.0} to {:.0} cm². Either Pixel Spacing \
                 (0028,0030) is wrong, or it is a small child's: children are outside the model's \
                 use.",
                AREA_CM2.start(),
                AREA_CM2.end()
            ),
        ))
    }

    /// Adds to a refusal for want of bone what it may mean where the body is as large and round as a
    /// head.
    fn with_word_on_infants(&self, reason: Reason) -> Reason {
        let body = self.hounsfield.mapv(|hounsfield| hounsfield > BODY_HU);
        let planes = body.outer_iter();
        let Some(widest) = planes.max_by_key(|plane| count(plane.iter().copied())) else {
            return reason;
        };
        let piece = largest_piece(&widest.to_owned().insert_axis(Axis(0)));
        let piece = piece.index_axis(Axis(0), 0);
        let area_cm2 = count(piece.iter().copied()) as f64 * Self::plane_cm2();
        let [short_mm, long_mm] = sides_mm(&piece);
        let is_head_sized = SHORT_SIDE_MM.contains(&short_mm)
            && LONG_SIDE_MM.contains(&long_mm)
            && ROUNDNESS.contains(&roundness(area_cm2, short_mm, long_mm));
        if !is_head_sized {
            return reason;
        }
        Reason::new(
            reason.code,
            format!(
                "{} The body is as large and round as a head ({short_mm:.0} × {long_mm:.0} mm): an \
                 infant's skull, thin and with open sutures, looks so. Children are outside the \
                 model's use.",
                reason.text
            ),
        )
    }

    /// The brain's middle density hardly changes from slice to slice; where it jumps, slices were
    /// scaled to Hounsfield units in different ways.
    fn check_steps(&self, inside: &Inside) -> Result<(), Reason> {
        let wide_cm2 = WIDE_SHARE * inside.largest_cm2();
        let middles_hu: Vec<f32> = self
            .hounsfield
            .outer_iter()
            .zip(inside.mask.outer_iter())
            .zip(&inside.areas_cm2)
            .filter(|(_, area_cm2)| **area_cm2 > wide_cm2)
            .map(|((plane, mask), _)| middle_hu(&plane, &mask))
            .collect();
        // Two planes apart: one between may hold a slice of either kind.
        let steps = middles_hu
            .windows(3)
            .map(|planes| (planes[2] - planes[0]).abs());
        let largest_hu = steps.fold(0.0, f32::max);
        if largest_hu <= STEP_HU_MAX {
            return Ok(());
        }
        Err(Reason::new(
            ReasonCode::ImplausiblePixels,
            format!(
                "The density of the brain jumps by {largest_hu:.0} HU from one slice to the next: some \
                 slices are not in Hounsfield units. Check Rescale Intercept (0028,1052) and Slope \
                 (0028,1053) of each."
            ),
        ))
    }

    fn check_density(&self, inside: &Inside) -> Result<(), Reason> {
        let values = || {
            self.hounsfield
                .iter()
                .zip(&inside.mask)
                .filter(|(_, is_inside)| **is_inside)
                .map(|(hounsfield, _)| f64::from(*hounsfield))
        };
        let mean_hu = values().sum::<f64>() / values().count() as f64;
        if MEAN_HU.contains(&mean_hu) {
            return Ok(());
        }
        not_head(&format!(
            "what the bone encloses has {mean_hu:.0} HU on average; a brain has {:.0} to {:.0}",
            MEAN_HU.start(),
            MEAN_HU.end()
        ))
    }

    fn head_facts(&self, inside: &Inside) -> HeadFacts {
        let skull = self.skull(inside);
        let bounds = bounds(&skull).unwrap_or([[0; 3]; 2]);
        let below = inside.areas_cm2.iter().take(inside.widest + 1).copied();
        let narrowest_cm2 = below.fold(f64::INFINITY, f64::min);
        let topmost_cm2 = inside.topmost_cm2();
        let covers_vertex = inside.covers_vertex();
        let covers_base = inside.covers_base();
        let cut_by_field = touches_side(&skull);
        HeadFacts {
            is_head: Ok(()),
            readable: Ok(()),
            centre_mm: self.centre_of(bounds),
            bounds_mm: self.corners_of(bounds),
            covers_vertex,
            covers_base,
            cut_by_field,
            warnings: coverage_warnings(
                (!covers_vertex).then_some(topmost_cm2),
                (!covers_base).then_some(narrowest_cm2),
                cut_by_field,
            ),
            remarks: (covers_vertex && topmost_cm2 > VERTEX_CM2)
                .then(|| ends_below_vertex(topmost_cm2))
                .into_iter()
                .collect(),
        }
    }

    fn other_facts(&self, reason: Reason) -> HeadFacts {
        let body = self.hounsfield.mapv(|hounsfield| hounsfield > BODY_HU);
        let whole = [[0; 3], self.grid.size.map(|side| side.saturating_sub(1))];
        let bounds = bounds(&body).unwrap_or(whole);
        HeadFacts {
            is_head: Err(reason),
            readable: Ok(()),
            centre_mm: self.centre_of(bounds),
            bounds_mm: self.corners_of(bounds),
            covers_vertex: false,
            covers_base: false,
            cut_by_field: false,
            warnings: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// The inside and the bone that lies close around it in each plane.
    fn skull(&self, inside: &Inside) -> Array3<bool> {
        let mut skull = inside.mask.clone();
        for ((mut out, mask), plane) in skull
            .outer_iter_mut()
            .zip(inside.mask.outer_iter())
            .zip(self.hounsfield.outer_iter())
        {
            let near = grown(&mask, RIM_VOXELS);
            for ((flag, near), hounsfield) in out.iter_mut().zip(&near).zip(plane) {
                *flag |= *near && *hounsfield >= BONE_HU;
            }
        }
        skull
    }

    fn centre_of(&self, [low, high]: [[usize; 3]; 2]) -> PatientPoint {
        let middle = std::array::from_fn(|axis| (low[axis] + high[axis]) as f64 / 2.0);
        self.grid.patient_from_voxel(VoxelPoint(middle))
    }

    fn corners_of(&self, [low, high]: [[usize; 3]; 2]) -> [PatientPoint; 2] {
        [
            low.map(|at| at as f64 - 0.5),
            high.map(|at| at as f64 + 0.5),
        ]
        .map(|corner| self.grid.patient_from_voxel(VoxelPoint(corner)))
    }
}

/// The part of the head in which the brain has at least half of its largest cross-section.
struct HalfHeight {
    /// Around the widest plane, without a break, mm.
    inner_mm: f64,
    /// From the first such plane to the last, whatever streaks of metal hide between them, mm.
    outer_mm: f64,
    /// Whether the stack ends within it.
    is_cut: bool,
}

impl HalfHeight {
    fn of(areas_cm2: &[f64], widest: usize) -> Self {
        let half_cm2 = areas_cm2.get(widest).copied().unwrap_or(0.0) / 2.0;
        let (below, from_widest) = areas_cm2.split_at(widest.min(areas_cm2.len()));
        let down = planes_to(below.iter().rev(), half_cm2).unwrap_or(below.len() as f64);
        let up = planes_to(from_widest.iter().skip(1), half_cm2);
        let up = up.unwrap_or(from_widest.len() as f64);
        let is_wide = |area_cm2: &f64| *area_cm2 > half_cm2;
        let first = areas_cm2.iter().position(is_wide).unwrap_or(0);
        let last = areas_cm2.iter().rposition(is_wide).unwrap_or(0);
        Self {
            inner_mm: (down + up) * VOXEL_MM,
            outer_mm: (down + up).max((last - first) as f64) * VOXEL_MM,
            is_cut: first == 0 || last + 1 == areas_cm2.len(),
        }
    }
}

/// Planes from the widest to where the cross-section falls to `half_cm2`, interpolated; `None` if it
/// does not.
fn planes_to<'a>(areas_cm2: impl Iterator<Item = &'a f64>, half_cm2: f64) -> Option<f64> {
    let mut before_cm2 = 2.0 * half_cm2;
    for (plane, area_cm2) in areas_cm2.enumerate() {
        if *area_cm2 <= half_cm2 {
            let part = (before_cm2 - half_cm2) / (before_cm2 - area_cm2).max(f64::EPSILON);
            return Some(plane as f64 + part);
        }
        before_cm2 = *area_cm2;
    }
    None
}

/// The middle density of what `mask` marks, HU; it marks something.
fn middle_hu(plane: &ArrayView2<'_, f32>, mask: &ArrayView2<'_, bool>) -> f32 {
    let mut marked: Vec<f32> = plane
        .iter()
        .zip(mask)
        .filter(|(_, is_marked)| **is_marked)
        .map(|(hounsfield, _)| *hounsfield)
        .collect();
    marked.sort_by(f32::total_cmp);
    marked.get(marked.len() / 2).copied().unwrap_or(0.0)
}

/// Whole boxes that cover a length; a sliver does not make one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a volume's side is limited and positive"
)]
fn boxes(length: f64) -> usize {
    (length - 0.1).ceil().max(1.0) as usize
}

fn count(flags: impl Iterator<Item = bool>) -> usize {
    flags.filter(|flag| *flag).count()
}

fn not_head(why: &str) -> Result<(), Reason> {
    Err(Reason::new(
        ReasonCode::NotHead,
        format!("By its pixels this is not a head: {why}."),
    ))
}

fn roundness(area_cm2: f64, short_mm: f64, long_mm: f64) -> f64 {
    area_cm2 * 100.0 / (short_mm * long_mm)
}

fn check_shape(mask: &ArrayView2<'_, bool>, area_cm2: f64) -> Result<(), Reason> {
    let [short_mm, long_mm] = sides_mm(mask);
    let roundness = roundness(area_cm2, short_mm, long_mm);
    if SHORT_SIDE_MM.contains(&short_mm)
        && LONG_SIDE_MM.contains(&long_mm)
        && ROUNDNESS.contains(&roundness)
    {
        return Ok(());
    }
    not_head(&format!(
        "what the bone encloses is {short_mm:.0} × {long_mm:.0} mm and fills {:.0} % of that \
         rectangle, which is not the shape of a skull's inside",
        100.0 * roundness
    ))
}

/// Bone must lie close along most of the rim.
fn check_rim(mask: &ArrayView2<'_, bool>, plane: &ArrayView2<'_, f32>) -> Result<(), Reason> {
    let bone = plane.mapv(|hounsfield| hounsfield >= BONE_HU);
    let near_bone = grown(&bone.view(), RIM_VOXELS);
    let outside = mask.mapv(|flag| !flag);
    let beside_outside = grown(&outside.view(), 1);
    let rim: Vec<bool> = mask
        .iter()
        .zip(&beside_outside)
        .zip(&near_bone)
        .filter(|((flag, beside), _)| **flag && **beside)
        .map(|(_, near)| *near)
        .collect();
    let share = count(rim.iter().copied()) as f64 / rim.len().max(1) as f64;
    if share >= RIM_SHARE_MIN {
        return Ok(());
    }
    not_head(&format!(
        "bone lies close to {:.0} % of the rim of what it encloses; a skull to nearly all",
        100.0 * share
    ))
}

/// Outside a skull lies little more than scalp.
fn check_body(plane: &ArrayView2<'_, f32>, area_cm2: f64) -> Result<(), Reason> {
    let body = plane.mapv(|hounsfield| hounsfield > BODY_HU);
    // The table is another piece than the head, or a thin part of it.
    let piece = largest_piece(&body.insert_axis(Axis(0)));
    let body_cm2 = count(piece.iter().copied()) as f64 * Coarse::plane_cm2();
    if body_cm2 <= BODY_RATIO_MAX * area_cm2 {
        return Ok(());
    }
    not_head(&format!(
        "the body's cross-section is {body_cm2:.0} cm² around {area_cm2:.0} cm² within bone"
    ))
}

fn ends_below_vertex(topmost_cm2: f64) -> Reason {
    Reason::new(
        ReasonCode::IncompleteHead,
        format!(
            "The stack ends below the vertex: its top plane still cuts {topmost_cm2:.0} cm² of \
             brain."
        ),
    )
}

fn coverage_warnings(
    topmost_cm2: Option<f64>,
    lowest_cm2: Option<f64>,
    cut_by_field: bool,
) -> Vec<Reason> {
    let mut warnings = Vec::new();
    warnings.extend(topmost_cm2.map(ends_below_vertex));
    if let Some(area) = lowest_cm2 {
        warnings.push(Reason::new(
            ReasonCode::IncompleteHead,
            format!(
                "The stack begins above the skull base: no plane below the widest cuts less than \
                 {area:.0} cm² of brain."
            ),
        ));
    }
    if cut_by_field {
        warnings.push(Reason::new(
            ReasonCode::IncompleteHead,
            "The field of view cuts the skull; what lies outside was not seen.",
        ));
    }
    warnings
}

#[cfg(test)]
pub(crate) mod tests;
