//! Heads of all ages and views, and what is not one.

use super::*;
use crate::decode::Decoding;
use crate::limits::Limits;
use crate::testing::{StackPlan, head_hounsfield};
use crate::volume;

fn volume_of(plan: &StackPlan, hounsfield: impl Fn([f64; 3]) -> f64) -> Volume {
    let stack = plan.write(hounsfield);
    volume::build(&stack.slices(), Decoding::afresh(&Limits::default()))
        .unwrap()
        .0
}

/// Heights from `low` to `high`.
pub(super) fn heights(low_mm: f64, high_mm: f64, step_mm: f64) -> Vec<f64> {
    let mut heights = vec![low_mm];
    while let Some(last) = heights.last()
        && last + step_mm <= high_mm
    {
        heights.push(last + step_mm);
    }
    heights
}

/// A field of 240 mm from 92 mm below to 92 mm above the middle of the head.
fn whole() -> StackPlan {
    StackPlan::axial(96, 2.5, &heights(-92.0, 92.0, 4.0))
}

pub(super) fn facts(plan: &StackPlan, hounsfield: impl Fn([f64; 3]) -> f64) -> HeadFacts {
    examine(&volume_of(plan, hounsfield))
}

fn ellipse(point: [f64; 3], centre: [f64; 2], radii: [f64; 2]) -> bool {
    (0..2)
        .map(|axis| ((point[axis] - centre[axis]) / radii[axis]).powi(2))
        .sum::<f64>()
        < 1.0
}

#[test]
fn heads_from_infant_to_adult_are_heads_and_their_middle_is_found() {
    for scale in [0.7, 0.85, 1.0, 1.1] {
        let shift = [12.0, -8.0, 3.0];
        let moved = move |point: [f64; 3]| {
            head_hounsfield(std::array::from_fn(|axis| point[axis] - shift[axis]), scale)
        };
        let plan = StackPlan::axial(112, 2.5, &heights(-108.0, 112.0, 4.0));
        let found = facts(&plan, moved);
        assert_eq!(found.is_head, Ok(()), "{scale}");
        assert!(found.is_whole(), "{scale}: {found:?}");
        for (found_mm, shift_mm) in found.centre_mm.0.iter().zip(shift) {
            assert!((found_mm - shift_mm).abs() < 3.0, "{found:?}");
        }
    }
}

#[test]
fn thick_and_thin_slices_are_judged_alike() {
    for step_mm in [1.0, 2.5, 5.0, 8.0] {
        let plan = StackPlan::axial(96, 2.5, &heights(-92.0, 92.0, step_mm));
        let found = facts(&plan, |point| head_hounsfield(point, 1.0));
        assert!(found.is_whole(), "{step_mm} mm: {found:?}");
    }
}

#[test]
fn a_tilted_mirrored_head_on_a_table_is_a_head() {
    let with_table = |point: [f64; 3]| {
        let table = point[1] > 100.0 && point[1] < 106.0 && point[0].abs() < 90.0;
        if table {
            120.0
        } else {
            head_hounsfield(point, 1.0)
        }
    };
    let found = facts(&whole().tilted(15.0), with_table);
    assert_eq!(found.is_head, Ok(()));
    let mut mirrored = whole();
    mirrored.orientation[0] = [-1.0, 0.0, 0.0];
    mirrored
        .positions_mm
        .iter_mut()
        .for_each(|position| position[0] = -position[0]);
    assert_eq!(facts(&mirrored, with_table).is_head, Ok(()));
}

#[test]
fn a_craniotomy_leaves_a_head() {
    let open = |point: [f64; 3]| {
        let hounsfield = head_hounsfield(point, 1.0);
        let flap = point[0] > 20.0 && point[1].abs() < 50.0 && point[2] > 0.0;
        if flap && hounsfield > 500.0 {
            35.0
        } else {
            hounsfield
        }
    };
    assert_eq!(facts(&whole(), open).is_head, Ok(()));
}

#[test]
fn partial_heads_are_heads_that_say_what_is_missing() {
    let head = |point| head_hounsfield(point, 1.0);
    let top_cut = facts(&StackPlan::axial(96, 2.5, &heights(-92.0, 40.0, 4.0)), head);
    assert_eq!(top_cut.is_head, Ok(()));
    assert!(!top_cut.covers_vertex && top_cut.covers_base);
    assert_eq!(top_cut.warnings.len(), 1);
    assert_eq!(top_cut.warnings[0].code, ReasonCode::IncompleteHead);

    let base_cut = facts(&StackPlan::axial(96, 2.5, &heights(-30.0, 92.0, 4.0)), head);
    assert!(base_cut.covers_vertex && !base_cut.covers_base);

    let narrow = facts(
        &StackPlan::axial(56, 2.5, &heights(-92.0, 92.0, 4.0)),
        |point| head_hounsfield([point[0], point[1] - 25.0, point[2]], 1.0),
    );
    assert_eq!(narrow.is_head, Ok(()), "{narrow:?}");
    assert!(narrow.cut_by_field && !narrow.is_whole());
}

#[test]
fn a_stack_that_reaches_the_neck_covers_the_base_although_the_jaw_encloses_tissue() {
    let with_neck = |point: [f64; 3]| {
        let spinal_canal = ellipse(point, [0.0, 0.0], [14.0, 14.0]) && point[2] < -60.0;
        let jaw = point[2] < -96.0 && ellipse(point, [0.0, 0.0], [60.0, 60.0]);
        if spinal_canal {
            35.0
        } else if jaw && ellipse(point, [0.0, 0.0], [50.0, 50.0]) {
            55.0
        } else if jaw {
            900.0
        } else {
            head_hounsfield(point, 1.0)
        }
    };
    let found = facts(
        &StackPlan::axial(96, 2.5, &heights(-132.0, 92.0, 4.0)),
        with_neck,
    );
    assert!(found.is_whole(), "{found:?}");
    let jaw_only_below = facts(
        &StackPlan::axial(96, 2.5, &heights(-40.0, 92.0, 4.0)),
        with_neck,
    );
    assert!(!jaw_only_below.covers_base, "{jaw_only_below:?}");
}

#[test]
fn a_sliver_missing_at_the_vertex_is_remarked_and_takes_nothing_from_the_result() {
    let head = |point| head_hounsfield(point, 1.0);
    let found = facts(&StackPlan::axial(96, 2.5, &heights(-92.0, 68.0, 4.0)), head);
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.remarks[0].code, ReasonCode::IncompleteHead);
    assert_eq!(facts(&whole(), head).remarks, []);
}

#[test]
fn a_chest_is_not_a_head() {
    let chest = |point: [f64; 3]| {
        if !ellipse(point, [0.0, 0.0], [160.0, 110.0]) {
            return -1000.0;
        }
        let rib = !ellipse(point, [0.0, 0.0], [148.0, 98.0])
            && ellipse(point, [0.0, 0.0], [156.0, 106.0])
            && (point[2] / 12.0).rem_euclid(2.0) < 1.2;
        if rib || ellipse(point, [0.0, 70.0], [20.0, 18.0]) {
            600.0
        } else if ellipse(point, [-80.0, 0.0], [55.0, 80.0])
            || ellipse(point, [80.0, 0.0], [55.0, 80.0])
        {
            -850.0
        } else {
            45.0
        }
    };
    let plan = StackPlan::axial(96, 4.0, &heights(0.0, 200.0, 5.0));
    assert_eq!(
        facts(&plan, chest).is_head.unwrap_err().code,
        ReasonCode::NotHead
    );
}

#[test]
fn a_pelvis_is_not_a_head_although_its_ring_is_bone() {
    let pelvis = |point: [f64; 3]| {
        if ellipse(point, [0.0, 0.0], [60.0, 55.0]) {
            35.0
        } else if ellipse(point, [0.0, 0.0], [72.0, 67.0]) {
            700.0
        } else if ellipse(point, [0.0, 0.0], [180.0, 120.0]) {
            50.0
        } else {
            -1000.0
        }
    };
    let plan = StackPlan::axial(96, 4.0, &heights(0.0, 100.0, 5.0));
    let reason = facts(&plan, pelvis).is_head.unwrap_err();
    assert!(reason.text.contains("cm² around"), "{}", reason.text);
}

#[test]
fn a_belly_a_neck_and_knees_are_not_heads() {
    let belly = |point: [f64; 3]| {
        if ellipse(point, [0.0, 80.0], [22.0, 20.0]) {
            500.0
        } else if ellipse(point, [0.0, 0.0], [170.0, 120.0]) {
            45.0
        } else {
            -1000.0
        }
    };
    let neck = |point: [f64; 3]| {
        if ellipse(point, [0.0, 15.0], [8.0, 9.0]) {
            20.0
        } else if ellipse(point, [0.0, 15.0], [22.0, 18.0]) {
            600.0
        } else if ellipse(point, [0.0, 0.0], [60.0, 60.0]) {
            50.0
        } else {
            -1000.0
        }
    };
    let knees = |point: [f64; 3]| {
        for side in [-70.0, 70.0] {
            if ellipse(point, [side, 0.0], [38.0, 30.0]) {
                return 90.0;
            }
            if ellipse(point, [side, 0.0], [42.0, 34.0]) {
                return 900.0;
            }
            if ellipse(point, [side, 0.0], [60.0, 60.0]) {
                return 40.0;
            }
        }
        -1000.0
    };
    let plan = StackPlan::axial(96, 4.0, &heights(0.0, 150.0, 5.0));
    let all: [&dyn Fn([f64; 3]) -> f64; 3] = [&belly, &neck, &knees];
    for body in all {
        assert_eq!(
            facts(&plan, body).is_head.unwrap_err().code,
            ReasonCode::NotHead
        );
    }
}

#[test]
fn phantoms_cubes_and_air_are_not_heads() {
    let water = |point: [f64; 3]| {
        if ellipse(point, [0.0; 2], [100.0; 2]) {
            0.0
        } else {
            -1000.0
        }
    };
    let ringed_water = |point: [f64; 3]| {
        if ellipse(point, [0.0; 2], [75.0; 2]) {
            0.0
        } else if ellipse(point, [0.0; 2], [85.0; 2]) {
            950.0
        } else {
            -1000.0
        }
    };
    let cube = |point: [f64; 3]| {
        let side = point[0].abs().max(point[1].abs());
        if side < 65.0 {
            40.0
        } else if side < 75.0 {
            900.0
        } else {
            -1000.0
        }
    };
    let solid = |point: [f64; 3]| {
        if point[0].abs().max(point[1].abs()) < 70.0 {
            1000.0
        } else {
            -1000.0
        }
    };
    let air = |_: [f64; 3]| -1000.0;
    let all: [&dyn Fn([f64; 3]) -> f64; 5] = [&water, &ringed_water, &cube, &solid, &air];
    for (index, body) in all.into_iter().enumerate() {
        let found = facts(&whole(), body);
        assert!(found.is_head.is_err(), "{index}");
        assert!(!found.is_whole());
        assert!(
            found.centre_mm.0.iter().all(|mm| mm.abs() < 5.0),
            "{found:?}"
        );
    }
}

fn refusal(plan: &StackPlan, hounsfield: impl Fn([f64; 3]) -> f64) -> Reason {
    facts(plan, hounsfield).is_head.unwrap_err()
}

#[test]
fn a_head_is_about_as_high_as_it_is_wide() {
    // Of slices 4 mm apart: their numbers, half and a third of it, centimetres; then too far apart.
    for step_mm in [1.0, 0.5, 0.3, 0.4, 8.0, 12.0] {
        let mut squashed = whole();
        let first_mm = squashed.positions_mm[0][2];
        let truth = move |[x, y, z]: [f64; 3]| {
            head_hounsfield([x, y, first_mm + (z - first_mm) * 4.0 / step_mm], 1.0)
        };
        for (index, position) in squashed.positions_mm.iter_mut().enumerate() {
            position[2] = first_mm + step_mm * index as f64;
        }
        let reason = refusal(&squashed, truth);
        assert_eq!(reason.code, ReasonCode::ImplausibleSize, "{step_mm}");
        assert!(reason.text.contains("mm high"), "{}", reason.text);
    }
}

#[test]
fn a_skull_of_another_size_says_its_size_and_that_children_are_outside_the_use() {
    for scale in [0.5, 0.4, 1.6] {
        let reach_mm = 90.0 * scale;
        let field = StackPlan::axial(80, 4.0, &heights(-reach_mm, reach_mm, 4.0));
        let reason = refusal(&field, |point| head_hounsfield(point, scale));
        assert_eq!(
            reason.code,
            ReasonCode::ImplausibleSize,
            "{scale}: {}",
            reason.text
        );
        assert!(reason.text.contains("children"), "{}", reason.text);
    }
}

#[test]
fn an_infants_open_skull_is_no_head_and_says_what_it_may_be() {
    // Bone of 2 mm with wide sutures: after averaging little of it is as dense as bone.
    let infant = |point: [f64; 3]| {
        let hounsfield = head_hounsfield(point, 0.8);
        let is_suture = point[0].abs() < 12.0 || point[1].abs() < 12.0;
        match (hounsfield > 500.0, is_suture) {
            (true, true) => 35.0,
            (true, false) => 180.0,
            (false, _) => hounsfield,
        }
    };
    let reason = refusal(&whole(), infant);
    assert_eq!(reason.code, ReasonCode::NotHead);
    assert!(reason.text.contains("infant"), "{}", reason.text);
    let knee = |point: [f64; 3]| {
        if ellipse(point, [0.0, 0.0], [25.0, 25.0]) {
            40.0
        } else {
            -1000.0
        }
    };
    let reason = refusal(&whole(), knee);
    assert!(!reason.text.contains("infant"), "{}", reason.text);
}

#[test]
fn slices_on_another_scale_than_the_rest_are_told() {
    let shifted = |by_hu: f64| {
        move |point: [f64; 3]| {
            let is_shifted = (0.0..40.0).contains(&point[2]);
            head_hounsfield(point, 1.0) + if is_shifted { by_hu } else { 0.0 }
        }
    };
    for by_hu in [-40.0, -28.0, 28.0, 40.0] {
        let found = facts(&whole(), shifted(by_hu));
        assert_eq!(found.is_head, Ok(()), "{by_hu}");
        assert_eq!(
            found.readable.unwrap_err().code,
            ReasonCode::ImplausiblePixels,
            "{by_hu}"
        );
    }
    assert_eq!(facts(&whole(), shifted(5.0)).readable, Ok(()));
}
