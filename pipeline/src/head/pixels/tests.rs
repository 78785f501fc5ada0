//! Heads that cannot be read, or not wholly, and those that look as if and can.

use super::*;
use crate::head::{HeadFacts, tests};
use crate::testing::{StackPlan, head_hounsfield};

/// What a whole head of these values shows.
fn facts(hounsfield: impl Fn([f64; 3]) -> f64) -> HeadFacts {
    let plan = StackPlan::axial(240, 1.0, &tests::heights(-92.0, 92.0, 4.0));
    let facts = tests::facts(&plan, hounsfield);
    assert_eq!(facts.is_head, Ok(()));
    facts
}

fn codes(facts: &HeadFacts) -> Vec<ReasonCode> {
    facts.warnings.iter().map(|one| one.code).collect()
}

/// A head with `blood_hu` in a sagittal sinus 10 mm wide and 8 mm deep.
fn with_sinus(blood_hu: f64) -> impl Fn([f64; 3]) -> f64 {
    move |point| {
        let hounsfield = head_hounsfield(point, 1.0);
        let brain = hounsfield > 0.0 && hounsfield < 50.0 && point[1] > 0.0;
        let outer = head_hounsfield([point[0], point[1] + 8.0, point[2]], 1.0) > 500.0;
        let sinus = brain && outer && point[0].abs() < 5.0 && point[2].abs() < 60.0;
        if sinus { blood_hu } else { hounsfield }
    }
}

#[test]
fn contrast_shows_in_the_sinus_and_dense_blood_is_not_taken_for_it() {
    let readable = |blood_hu| facts(with_sinus(blood_hu)).readable;
    assert_eq!(readable(180.0).unwrap_err().code, ReasonCode::Contrast);
    // A haematocrit of 0.6, or a clot.
    assert_eq!(readable(90.0), Ok(()));
    assert_eq!(facts(|point| head_hounsfield(point, 1.0)).readable, Ok(()));
}

#[test]
fn in_coarse_pixels_bone_is_not_taken_for_contrast() {
    for (side, pixel_mm) in [(160, 1.5), (96, 2.5), (64, 3.75)] {
        let plan = StackPlan::axial(side, pixel_mm, &tests::heights(-92.0, 92.0, 4.0));
        let found = tests::facts(&plan, |point| head_hounsfield(point, 1.0));
        assert_eq!(found.readable, Ok(()), "{pixel_mm} mm");
    }
}

#[test]
fn a_calcified_falx_in_some_slabs_is_no_contrast() {
    let calcified = |point: [f64; 3]| {
        if point[2] > 20.0 && point[2] < 40.0 {
            with_sinus(400.0)(point)
        } else {
            with_sinus(60.0)(point)
        }
    };
    assert_eq!(facts(calcified).readable, Ok(()));
}

/// White noise of deviation 1 at a place.
fn noise(point: [f64; 3]) -> f64 {
    let mixed = point.iter().fold(0_u64, |mixed, part| {
        (mixed ^ part.to_bits())
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    });
    let uniform = |bits: u64| f64::from(u32::try_from(bits & 0xffff).unwrap()) / 65_536.0;
    // The sum of twelve uniform numbers has a variance of 1; four have a third of that.
    let sum: f64 = (0..4).map(|part| uniform(mixed >> (16 * part))).sum();
    (sum - 2.0) * 3.0_f64.sqrt()
}

#[test]
fn noise_is_measured_and_much_of_it_takes_the_negative_answer_away() {
    let noisy = |deviation_hu: f64| {
        facts(move |point| head_hounsfield(point, 1.0) + deviation_hu * noise(point))
    };
    assert_eq!(codes(&noisy(3.0)), []);
    let found = noisy(14.0);
    assert_eq!(codes(&found), [ReasonCode::Noise]);
    assert!(found.warnings[0].text.contains(" 1"), "{found:?}");
    assert!(found.is_whole(), "noise is not a missing part");
}

#[test]
fn streaks_of_metal_over_much_of_the_brain_are_told_and_a_clip_is_not() {
    let with_metal = |radius_mm: f64, streaks_hu: f64| {
        facts(move |point| {
            let [x, y, z] = point;
            let distance = (x * x + y * y + z * z).sqrt();
            let streak = (8.0 * y.atan2(x)).cos() * streaks_hu;
            match head_hounsfield(point, 1.0) {
                _ if distance < radius_mm => 3000.0,
                hounsfield if z.abs() < 10.0 && hounsfield > -500.0 => hounsfield + streak,
                hounsfield => hounsfield,
            }
        })
    };
    assert_eq!(codes(&with_metal(5.0, 40.0)), []);
    assert_eq!(codes(&with_metal(8.0, 300.0)), [ReasonCode::MetalArtefact]);
}

#[test]
fn a_head_that_lies_elsewhere_from_one_slice_to_the_next_has_moved() {
    let moved = |by_mm: f64| {
        facts(move |point| {
            let shift_mm = if point[2] > 22.0 { by_mm } else { 0.0 };
            head_hounsfield([point[0] - shift_mm, point[1], point[2]], 1.0)
        })
    };
    assert_eq!(codes(&moved(3.0)), []);
    assert_eq!(codes(&moved(16.0)), [ReasonCode::Motion]);
}

#[test]
fn a_head_that_leans_has_not_moved() {
    let leaning = facts(|[x, y, z]| head_hounsfield([x - 0.3 * z, y - 0.2 * z, z], 1.0));
    assert_eq!(codes(&leaning), []);
    assert_eq!(leaning.readable, Ok(()));
}
