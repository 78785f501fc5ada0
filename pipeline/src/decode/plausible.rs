//! Could a CT scanner have made these pixels?
//!
//! A decoder that goes wrong without a word gives bands, noise, values at a limit or the same slice
//! over and over, and all of that once looked like blood. Bounds stand far from what is real: beside
//! each stands the worst of 65 heads (64 patients of CT-ICH, one of GE) and of the fixtures with
//! noise, metal, motion and tilt.

use ndarray::{Array3, ArrayView2, Axis};
use rayon::prelude::*;

use super::mixed::mixed;
use super::overwritten::overwritten;
use crate::reason::{Reason, ReasonCode};

/// Slices that are looked at, evenly spread.
const SLICES: usize = 12;
/// Above this is no tissue; dense metal on an extended scale is, in a few voxels, HU …
const DENSEST_HU: i16 = 4000;
/// … but in no more than this share of the voxels (65 heads: none).
const DENSEST_SHARE_MAX: f64 = 0.05;
/// Below air; padding that the header does not declare has one value there, HU …
const EMPTY_HU: i16 = -1500;
/// … and at most this share of the voxels has others (65 heads: none).
const EMPTY_SHARE_MAX: f64 = 0.05;
/// Denser than air, also where a writer cut that off at -500 HU (one of CT-ICH): of those values at
/// most this share of all voxels has one and the same, since tissue has noise (65 heads: 0.024).
pub(super) const NOT_AIR_HU: i16 = -300;
const SAME_SHARE_MAX: f64 = 0.25;
/// Neighbours within a slice that differ by more than bone from air, HU, in at most this share (65
/// heads: 0.001).
pub(super) const JUMP_HU: u16 = 1000;
const JUMP_SHARE_MAX: f64 = 0.05;
/// Neighbours of which one is emptier than air and the other as dense as bone come of a sign bit that
/// is none; metal or a field's edge make few (65 heads: 0.00001).
const FLIPPED_BONE_HU: i16 = 500;
const FLIPPED_SHARE_MAX: f64 = 0.0005;
/// Two rows (or columns) are a step if at least this share of their pixels differ by so much in the
/// same direction, HU. A table that is flat across the picture makes a few; anatomy none …
const STEP_HU: i16 = 4;
const STEP_SHARE: f64 = 0.7;
/// … and half of the slices have fewer than this many (65 heads: one, in one slice).
const STEPS_MIN: usize = 2;
/// Neighbouring slices that are the same, voxel by voxel: from this share of the stack on nothing of
/// it is believed (65 heads: none).
const REPEATED_SHARE_MAX: f64 = 0.2;
/// A slice with less than this share of body may be nothing but air at the lowest value.
const BODY_HU: i16 = -300;
const BODY_SHARE_MIN: f64 = 0.02;

/// Looks for what no scanner makes in a stack (axes: slice, row, column; HU). Gives what makes
/// "nothing found" worth less: single slices that are there twice at different places, that were
/// painted over in part, or that look like those of two scans in turn.
///
/// # Errors
///
/// [`ReasonCode::ImplausiblePixels`], with what was seen.
pub(crate) fn check(hounsfield: &Array3<i16>) -> Result<Vec<Reason>, Reason> {
    let repeated = repeated(hounsfield);
    let pairs = hounsfield.len_of(Axis(0)).saturating_sub(1);
    if repeated as f64 > REPEATED_SHARE_MAX * pairs as f64 {
        return implausible(&format!(
            "{repeated} of {pairs} slices are the same as the one below, voxel by voxel"
        ));
    }
    check_values(hounsfield)?;
    check_steps(hounsfield)?;
    let repeated = (repeated > 0).then(|| {
        Reason::new(
            ReasonCode::ImplausiblePixels,
            format!(
                "{repeated} of {pairs} slices are the same as the one below, voxel by voxel: what \
                 lies there was not seen. Send the series again."
            ),
        )
    });
    Ok(repeated
        .into_iter()
        .chain(overwritten(hounsfield))
        .chain(mixed(hounsfield))
        .collect())
}

fn implausible<T>(what: &str) -> Result<T, Reason> {
    Err(Reason::new(
        ReasonCode::ImplausiblePixels,
        format!(
            "No CT scanner makes such pixels: {what}. They were damaged or are not what their \
             header says; send the series again, uncompressed."
        ),
    ))
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Slices with a body that are the same as the one before.
fn repeated(hounsfield: &Array3<i16>) -> usize {
    let is_body = |plane: &ArrayView2<'_, i16>| {
        let body = plane.iter().filter(|value| **value > BODY_HU).count();
        share(body, plane.len()) >= BODY_SHARE_MIN
    };
    let above = hounsfield.outer_iter().skip(1);
    hounsfield
        .outer_iter()
        .zip(above)
        .filter(|(plane, next)| plane == next && is_body(plane))
        .count()
}

/// At most `slices_max` slices, evenly spread.
pub(super) fn looked_at(hounsfield: &Array3<i16>, slices_max: usize) -> Vec<ArrayView2<'_, i16>> {
    let count = hounsfield.len_of(Axis(0));
    let looks = count.min(slices_max);
    (0..looks)
        .map(|look| hounsfield.index_axis(Axis(0), (2 * look + 1) * count / (2 * looks)))
        .collect()
}

fn check_values(hounsfield: &Array3<i16>) -> Result<(), Reason> {
    let slices = looked_at(hounsfield, SLICES);
    let whole: usize = slices.iter().map(ArrayView2::len).sum();
    let counts = Counts::of(&slices);
    let densest = share(counts.within(DENSEST_HU + 1, i16::MAX), whole);
    if densest > DENSEST_SHARE_MAX {
        return implausible(&format!(
            "{:.0} % of the voxels are above {DENSEST_HU} HU",
            100.0 * densest
        ));
    }
    let (padding, _) = counts.most_common(i16::MIN, EMPTY_HU);
    let empty = share(counts.within(i16::MIN, EMPTY_HU) - padding, whole);
    if empty > EMPTY_SHARE_MAX {
        return implausible(&format!(
            "{:.0} % of the voxels are below {EMPTY_HU} HU, at many values",
            100.0 * empty
        ));
    }
    let (same, value) = counts.most_common(NOT_AIR_HU, i16::MAX);
    let same = share(same, whole);
    if same > SAME_SHARE_MAX {
        return implausible(&format!(
            "{:.0} % of the voxels have the same value of {value} HU",
            100.0 * same
        ));
    }
    Ok(())
}

/// How often each value occurs.
struct Counts(Vec<usize>);

impl Counts {
    fn of(slices: &[ArrayView2<'_, i16>]) -> Self {
        let mut counts = vec![0; 1 << 16];
        for value in slices.iter().flatten() {
            counts[Self::place(*value)] += 1;
        }
        Self(counts)
    }

    fn place(value: i16) -> usize {
        usize::from(value.cast_unsigned() ^ 0x8000)
    }

    fn within(&self, low: i16, high: i16) -> usize {
        self.0[Self::place(low)..=Self::place(high)].iter().sum()
    }

    /// How often the most common value occurs, and that value.
    fn most_common(&self, low: i16, high: i16) -> (usize, i16) {
        (low..=high)
            .map(|value| (self.0[Self::place(value)], value))
            .max()
            .unwrap_or((0, low))
    }
}

/// What one slice shows between its rows, or its columns.
#[derive(Clone, Copy, Default)]
struct Seams {
    jumps: usize,
    flips: usize,
    pairs: usize,
    /// Steps; such as lie side by side count once.
    steps: usize,
}

fn check_steps(hounsfield: &Array3<i16>) -> Result<(), Reason> {
    let slices = looked_at(hounsfield, SLICES);
    let seams: Vec<[Seams; 2]> = slices
        .par_iter()
        .map(|plane| [Seams::of_rows(plane), Seams::of_columns(plane)])
        .collect();
    let jumps = seams.iter().flatten().map(|one| one.jumps).sum();
    let pairs = seams.iter().flatten().map(|one| one.pairs).sum();
    let flips = seams.iter().flatten().map(|one| one.flips).sum();
    let flips = share(flips, pairs);
    if flips > FLIPPED_SHARE_MAX {
        return implausible(&format!(
            "bone lies beside voxels below {EMPTY_HU} HU at {:.2} % of neighbours, as if its sign \
             were lost",
            100.0 * flips
        ));
    }
    let jumps = share(jumps, pairs);
    if jumps > JUMP_SHARE_MAX {
        return implausible(&format!(
            "{:.0} % of neighbouring voxels differ by more than {JUMP_HU} HU",
            100.0 * jumps
        ));
    }
    for (axis, name) in ["rows", "columns"].into_iter().enumerate() {
        let mut steps: Vec<usize> = seams.iter().map(|both| both[axis].steps).collect();
        steps.sort_unstable();
        let median = steps.get(steps.len() / 2).copied().unwrap_or(0);
        if median >= STEPS_MIN {
            return implausible(&format!(
                "a typical slice has {median} bands, between which whole {name} are denser"
            ));
        }
    }
    Ok(())
}

impl Seams {
    fn of_rows(plane: &ArrayView2<'_, i16>) -> Self {
        let mut seams = Self::default();
        let rows = lines_of(plane);
        let steps = rows.windows(2).map(|pair| {
            seams.compare(pair[0], pair[1]);
            let up = count_of(pair[0], pair[1], |value, next| {
                next.saturating_sub(value) >= STEP_HU
            });
            let down = count_of(pair[0], pair[1], |value, next| {
                value.saturating_sub(next) >= STEP_HU
            });
            share(up.max(down), pair[0].len()) >= STEP_SHARE
        });
        let steps: Vec<bool> = steps.collect();
        seams.steps = runs(&steps);
        seams
    }

    fn of_columns(plane: &ArrayView2<'_, i16>) -> Self {
        let mut seams = Self::default();
        let (rows, columns) = plane.dim();
        // For each column, in how many rows the next one is denser, and less dense.
        let mut denser = vec![[0_u16; 2]; columns.saturating_sub(1)];
        for row in plane.outer_iter() {
            let Some((left, right)) = row
                .to_slice()
                .and_then(|row| Some((row.get(..columns.saturating_sub(1))?, row.get(1..)?)))
            else {
                continue;
            };
            seams.compare(left, right);
            for ((up_down, value), next) in denser.iter_mut().zip(left).zip(right) {
                up_down[0] += u16::from(next.saturating_sub(*value) >= STEP_HU);
                up_down[1] += u16::from(value.saturating_sub(*next) >= STEP_HU);
            }
        }
        let is_step = |[up, down]: &[u16; 2]| share((*up).max(*down).into(), rows) >= STEP_SHARE;
        let steps: Vec<bool> = denser.iter().map(is_step).collect();
        seams.steps = runs(&steps);
        seams
    }

    fn compare(&mut self, values: &[i16], next: &[i16]) {
        self.pairs += values.len();
        self.jumps += count_of(values, next, |one, other| one.abs_diff(other) > JUMP_HU);
        self.flips += count_of(values, next, |one, other| {
            (one.min(other) < EMPTY_HU) & (one.max(other) > FLIPPED_BONE_HU)
        });
    }
}

/// The rows of a slice.
pub(super) fn lines_of<'a>(plane: &'a ArrayView2<'_, i16>) -> Vec<&'a [i16]> {
    let rows = plane.rows().into_iter();
    rows.filter_map(|row| row.to_slice()).collect()
}

/// Pairs of which `holds` is true. Counted so that the compiler takes many at a time.
#[inline]
pub(super) fn count_of(values: &[i16], next: &[i16], holds: impl Fn(i16, i16) -> bool) -> usize {
    let pairs = values.iter().zip(next);
    let count: u32 = pairs
        .map(|(one, other)| u32::from(holds(*one, *other)))
        .sum();
    count as usize
}

/// How many runs of `true` there are.
fn runs(flags: &[bool]) -> usize {
    let begins = flags.windows(2).filter(|pair| !pair[0] && pair[1]).count();
    begins + usize::from(flags.first() == Some(&true))
}

#[cfg(test)]
mod tests {
    use ndarray::s;
    use proptest::prelude::*;

    use super::*;
    use crate::decode::Decoding;
    use crate::instance::Instance;
    use crate::limits::Limits;
    use crate::study::tests::fixture;
    use crate::study::{ScanVolume, StudyScans};

    /// The voxels of a fixture.
    fn volume(name: &str) -> Array3<i16> {
        let (_folder, instances) = fixture(name);
        scan(&instances).volume.unwrap().volume.hounsfield
    }

    fn scan(instances: &[Instance]) -> ScanVolume {
        let limits = Limits::default();
        StudyScans::of(instances, Decoding::afresh(&limits))
            .next_scan()
            .unwrap()
    }

    fn stored(hounsfield: i16) -> u16 {
        (hounsfield + 1024).clamp(0, 4095).cast_unsigned()
    }

    fn read_as(stored: i32) -> i16 {
        i16::try_from(stored - 1024).unwrap_or(i16::MAX)
    }

    /// Refused with a text that holds `what`.
    fn is_refused(hounsfield: &Array3<i16>, what: &str) -> bool {
        let reason = check(hounsfield).unwrap_err();
        reason.code == ReasonCode::ImplausiblePixels && reason.text.contains(what)
    }

    #[test]
    fn heads_that_were_decoded_rightly_are_plausible() {
        for name in [
            "small_head",
            "metal_clip",
            "noisy",
            "motion",
            "tilt_steep",
            "padded_circle",
            "scale_per_slice",
            "uneven_gaps",
        ] {
            assert_eq!(check(&volume(name)), Ok(Vec::new()), "{name}");
        }
    }

    /// What forgetting a restart of lossless JPEG does, and once did: each band is denser than the
    /// one above by the stored value at the edge of the picture.
    #[test]
    fn drifting_bands_are_implausible() {
        let head = volume("small_head");
        for rows in [6, 12, 16, 24] {
            let mut banded = head.clone();
            for ((slice, row, _), value) in banded.indexed_iter_mut() {
                let bands = i32::try_from(row / rows).unwrap();
                let edge = i32::from(stored(head[(slice, 0, 0)]));
                *value = read_as((i32::from(stored(*value)) + bands * edge.max(8)) & 0x0FFF);
            }
            assert!(is_refused(&banded, "bands"), "{rows}");
            let columns = banded
                .permuted_axes([0, 2, 1])
                .as_standard_layout()
                .into_owned();
            assert!(is_refused(&columns, "whole columns"), "{rows}");
        }
    }

    #[test]
    fn swapped_bytes_are_implausible() {
        let head = volume("small_head");
        let swapped = head.mapv(|value| read_as(stored(value).swap_bytes().into()));
        assert!(is_refused(&swapped, "above 4000 HU"));
        let masked = head.mapv(|value| read_as(i32::from(stored(value).swap_bytes() & 0x0FFF)));
        assert!(check(&masked).is_err());
    }

    #[test]
    fn shifted_words_are_implausible() {
        let head = volume("small_head");
        for shift in [3, 4] {
            let shifted = head.mapv(|value| read_as(i32::from(stored(value)) << shift));
            assert!(is_refused(&shifted, "above 4000 HU"));
        }
    }

    #[test]
    fn wrong_signs_are_implausible() {
        let head = volume("small_head");
        // Signed Hounsfield units, read as unsigned.
        let unsigned = head.mapv(|value| i16::try_from(value.cast_unsigned()).unwrap_or(i16::MAX));
        assert!(is_refused(&unsigned, "above 4000 HU"));
        // 11 bits, read as signed: all from 0 HU on lies below air.
        let signed = head.mapv(|value| {
            let stored = stored(value).min(2047);
            read_as(i32::from(stored) - 2048 * i32::from(stored >= 1024))
        });
        assert!(check(&signed).is_err());
        // 12 bits without a sign, read as if they had one: only the densest bone is lost.
        // The fixture's is thinner than that of most heads.
        let flipped = head.mapv(|value| {
            let stored = i32::from(stored(value)) + 500 * i32::from(value > 600);
            read_as(stored - 4096 * i32::from(stored >= 2048))
        });
        assert!(is_refused(&flipped, "as if its sign were lost"));
    }

    #[test]
    fn a_stack_of_one_slice_is_implausible_and_one_slice_repeated_is_said() {
        let head = volume("small_head");
        let mut repeated = head.clone();
        let one = head.slice(s![12, .., ..]).to_owned();
        repeated.slice_mut(s![13, .., ..]).assign(&one);
        let warnings = check(&repeated).unwrap();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].code, ReasonCode::ImplausiblePixels);
        for mut plane in repeated.outer_iter_mut() {
            plane.assign(&one);
        }
        assert!(is_refused(&repeated, "the same as the one below"));
    }

    #[test]
    fn a_study_with_a_slice_repeated_is_partial_and_one_of_one_slice_is_not_analysed() {
        let (_folder, instances) = fixture("small_head");
        let pixels = |index: usize| {
            let instance = &instances[index];
            let offset = instance.pixels.as_ref().unwrap().native_offset.unwrap();
            let bytes = std::fs::read(&instance.path).unwrap();
            (usize::try_from(offset).unwrap(), bytes)
        };
        let (from, source) = pixels(12);
        let overwrite = |index: usize| {
            let (to, mut bytes) = pixels(index);
            bytes.splice(to.., source[from..].iter().copied());
            std::fs::write(&instances[index].path, bytes).unwrap();
        };
        let codes = |reasons: &[Reason]| -> Vec<ReasonCode> {
            reasons.iter().map(|reason| reason.code).collect()
        };
        overwrite(13);
        let partial = scan(&instances);
        assert!(partial.volume.is_ok());
        assert_eq!(codes(&partial.incomplete), [ReasonCode::ImplausiblePixels]);
        (0..instances.len()).for_each(overwrite);
        let refused = scan(&instances).volume.unwrap_err();
        assert_eq!(codes(&refused), [ReasonCode::ImplausiblePixels]);
    }

    #[test]
    fn most_of_a_picture_at_one_value_is_implausible() {
        let mut head = volume("small_head");
        let rows = head.len_of(Axis(1));
        head.slice_mut(s![.., ..rows / 3, ..]).fill(0);
        assert!(is_refused(&head, "the same value of 0 HU"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn noise_and_other_air_do_not_make_a_head_implausible(
            noise in 1_i16..120, lowest in -2100_i16..-990, seed: u32
        ) {
            // A disc of tissue in air and a bone ring around it, as coarse as it may be.
            let mut state = seed | 1;
            let mut draw = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let step = i32::try_from(state >> 16).unwrap() % (2 * i32::from(noise) + 1);
                i16::try_from(step).unwrap() - noise
            };
            let head = Array3::from_shape_fn((8, 96, 96), |(_, row, column)| {
                let radius = (row as f64 - 47.5).hypot(column as f64 - 47.5);
                match radius {
                    ..36.0 => 35 + draw(),
                    ..40.0 => 1000 + draw(),
                    ..48.0 => (draw() - 1000).max(lowest),
                    _ => lowest,
                }
            });
            prop_assert_eq!(check(&head), Ok(Vec::new()));
        }

        #[test]
        fn noise_instead_of_a_picture_is_implausible(bits in 12_u32..=16, seed: u32) {
            let mut state = seed | 1;
            let noise = Array3::from_shape_fn((6, 64, 64), |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                read_as(i32::try_from(state >> (32 - bits)).unwrap())
            });
            prop_assert!(check(&noise).is_err());
        }
    }
}
