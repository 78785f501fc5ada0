//! The model's input: averages, axes, windows, and the way back to the patient.

use ndarray::{Axis, s};
use proptest::prelude::*;

use super::*;
use crate::decode::Decoding;
use crate::limits::Limits;
use crate::testing::StackPlan;
use crate::volume;

fn contract() -> InputContract {
    InputContract {
        slab_mm: 5.0,
        side_px: 32,
        side_mm: 64.0,
        neighbours: 1,
        windows: vec![
            Window {
                low_hu: -1000.0,
                high_hu: 1000.0,
            },
            Window {
                low_hu: 0.0,
                high_hu: 80.0,
            },
        ],
    }
}

fn volume_of(plan: &StackPlan, hounsfield: impl Fn([f64; 3]) -> f64) -> Volume {
    let stack = plan.write(hounsfield);
    volume::build(&stack.slices(), Decoding::afresh(&Limits::default()))
        .unwrap()
        .0
}

fn heights(count: u32, step_mm: f64) -> Vec<f64> {
    (0..count).map(|index| f64::from(index) * step_mm).collect()
}

/// HU of the tensor's own slab, out of the wide window.
fn hounsfield(input: &ModelInput) -> Array3<f32> {
    let own = input.tensor.index_axis(Axis(1), 2);
    own.mapv(|value| value * 2000.0 - 1000.0)
}

const ORIGIN: PatientPoint = PatientPoint([0.0; 3]);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_constant_volume_stays_constant_inside(
        step in 0.4..6.0_f64, pixel in 0.3..2.5_f64, value in -200_i16..300
    ) {
        let plan = StackPlan::axial(40, pixel, &heights(8, step));
        let input = prepare_centred(&volume_of(&plan, |_| f64::from(value)), &contract(), ORIGIN)
            .unwrap();
        let inside = hounsfield(&input);
        let half_px = (40.0 * pixel / 2.0 / 2.0).floor().min(16.0);
        prop_assume!(half_px >= 2.0);
        for ((_, row, column), found) in inside.indexed_iter() {
            let from_middle = |at: usize| (at as f64 - 15.5).abs() + 0.5;
            if from_middle(row) <= half_px && from_middle(column) <= half_px {
                prop_assert!((f64::from(*found) - f64::from(value)).abs() < 0.01);
            }
        }
    }

    #[test]
    fn the_mean_is_kept(seed in 0_u32..1000, step in 1.0..2.5_f64) {
        // 20 slices make whole slabs of 5 mm only where the step divides them; so choose slabs.
        let plan = StackPlan::axial(32, 2.0, &heights(20, step));
        let noise = move |[x, y, z]: [f64; 3]| {
            ((x * 12.9 + y * 78.2 + z * 37.7 + f64::from(seed)).sin() * 400.0).round()
        };
        let volume = volume_of(&plan, noise);
        let slabs = InputContract { slab_mm: 4.0 * step, side_px: 16, ..contract() };
        let input = prepare_centred(&volume, &slabs, ORIGIN).unwrap();
        let mean = |sum: f64, count: usize| sum / count as f64;
        let before = mean(
            volume.hounsfield.iter().map(|v| f64::from(*v)).sum(),
            volume.hounsfield.len(),
        );
        let after = hounsfield(&input);
        let found = mean(after.iter().map(|v| f64::from(*v)).sum(), after.len());
        prop_assert!((before - found).abs() < 0.05, "{before} {found}");
    }

    #[test]
    fn a_bright_blob_is_found_where_the_patient_has_it(
        x in -20.0..20.0_f64, y in -20.0..20.0_f64, z in 18.0..42.0_f64, tilt in -25.0..25.0_f64
    ) {
        // Far enough from the ends of the stack that none of it is cut off where it is tilted.
        let blob = [x, y, z];
        let plan = StackPlan::axial(64, 1.0, &heights(24, 2.5)).tilted(tilt);
        let bright = move |point: [f64; 3]| {
            let square: f64 = (0..3).map(|axis| (point[axis] - blob[axis]).powi(2)).sum();
            600.0 * (-square / 50.0).exp()
        };
        let middle = PatientPoint([0.0, 0.0, 30.0]);
        let input = prepare_centred(&volume_of(&plan, bright), &contract(), middle).unwrap();
        let found = centroid(&input);
        for axis in 0..3 {
            prop_assert!((found[axis] - blob[axis]).abs() < 1.0, "{found:?} for {blob:?}");
        }
    }
}

/// Mean place of what is well above zero HU, weighted by it.
fn centroid(input: &ModelInput) -> [f64; 3] {
    let mut sum = [0.0; 3];
    let mut weight = 0.0;
    for ((slab, row, column), value) in hounsfield(input).indexed_iter() {
        let share = f64::from(value.max(60.0) - 60.0);
        let voxel = VoxelPoint([column as f64, row as f64, slab as f64]);
        let point = input.grid.patient_from_voxel(voxel).0;
        weight += share;
        for axis in 0..3 {
            sum[axis] += share * point[axis];
        }
    }
    sum.map(|total| total / weight)
}

fn lopsided([x, y, z]: [f64; 3]) -> f64 {
    (x * 3.0 + y * 5.0 + z * 2.0 + if x > 4.0 && y < -6.0 { 150.0 } else { 0.0 }).round()
}

#[test]
fn flipped_and_turned_acquisitions_give_the_same_tensor() {
    let plan = StackPlan::axial(32, 2.0, &heights(12, 2.5));
    let centre = PatientPoint([0.0, 0.0, 13.75]);
    let straight = prepare_centred(&volume_of(&plan, lopsided), &contract(), centre).unwrap();
    let corner = 31.0;
    let ways: [([[f64; 3]; 2], [f64; 2]); 4] = [
        ([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [corner, -corner]),
        ([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], [-corner, corner]),
        ([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]], [corner, corner]),
        ([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]], [corner, -corner]),
    ];
    for (orientation, [x, y]) in ways {
        let mut other = plan.clone();
        other.orientation = orientation;
        for position in &mut other.positions_mm {
            (position[0], position[1]) = (x, y);
        }
        let turned = prepare_centred(&volume_of(&other, lopsided), &contract(), centre).unwrap();
        assert_eq!(turned.tensor, straight.tensor, "{orientation:?}");
        for axis in 0..3 {
            assert!((turned.grid.origin_mm.0[axis] - straight.grid.origin_mm.0[axis]).abs() < 1e-9);
        }
    }
}

#[test]
fn slabs_of_a_coronal_stack_still_run_from_feet_to_head() {
    let mut plan = StackPlan::axial(32, 2.0, &heights(32, 2.0));
    plan.orientation = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]];
    for (index, position) in plan.positions_mm.iter_mut().enumerate() {
        *position = [-31.0, -31.0 + 2.0 * index as f64, 31.0];
    }
    let input = prepare_centred(&volume_of(&plan, lopsided), &contract(), ORIGIN).unwrap();
    assert!(input.grid.directions[2][2] > 0.99);
    let middle = hounsfield(&input)[(6, 16, 16)];
    let point = input.grid.patient_from_voxel(VoxelPoint([16.0, 16.0, 6.0]));
    assert!((f64::from(middle) - lopsided(point.0)).abs() < 2.0);
}

#[test]
fn beside_the_volume_lies_air_and_beyond_its_ends_the_end_slab_is_repeated() {
    let plan = StackPlan::axial(8, 2.0, &heights(6, 2.5));
    let input = prepare_centred(&volume_of(&plan, |_| 40.0), &contract(), ORIGIN).unwrap();
    assert_eq!(input.tensor.dim(), (3, 6, 32, 32));
    let own = hounsfield(&input);
    assert!((own[(0, 0, 0)] + 1000.0).abs() < 1e-3);
    assert!((own[(0, 16, 16)] - 40.0).abs() < 1e-2);
    let channels = |slab: usize, low: usize| input.tensor.slice(s![slab, low..low + 2, .., ..]);
    assert_eq!(channels(0, 0), channels(0, 2), "below the first slab");
    assert_eq!(channels(2, 4), channels(2, 2), "above the last slab");
    assert_eq!(
        channels(0, 4),
        channels(1, 2),
        "neighbours are shown in order"
    );
}

#[test]
fn an_end_slab_is_the_mean_of_the_part_inside() {
    let plan = StackPlan::axial(32, 2.0, &heights(5, 4.0));
    let input = prepare_centred(&volume_of(&plan, |_| 40.0), &contract(), ORIGIN).unwrap();
    let own = hounsfield(&input);
    assert_eq!(own.len_of(Axis(0)), 4);
    assert!(
        own.index_axis(Axis(1), 16)
            .index_axis(Axis(1), 16)
            .iter()
            .all(|v| (v - 40.0).abs() < 0.01)
    );
    let taller = StackPlan::axial(32, 2.0, &heights(6, 4.0));
    let input = prepare_centred(&volume_of(&taller, |_| 40.0), &contract(), ORIGIN).unwrap();
    let own = hounsfield(&input);
    assert_eq!(own.len_of(Axis(0)), 5);
    assert!((own[(0, 16, 16)] - 40.0).abs() < 0.01, "not diluted by air");
}

#[test]
fn windows_are_cut_after_averaging() {
    let plan = StackPlan::axial(64, 1.0, &heights(6, 2.5));
    let stripes = |[x, _, _]: [f64; 3]| {
        if x.rem_euclid(2.0) < 1.0 {
            200.0
        } else {
            -100.0
        }
    };
    let input = prepare_centred(&volume_of(&plan, stripes), &contract(), ORIGIN).unwrap();
    let value = input.tensor[(1, 3, 16, 16)];
    assert!((value - 50.0 / 80.0).abs() < 1e-4, "{value}");
}

#[test]
fn a_slab_knows_its_source_slice() {
    let volume = volume_of(&StackPlan::axial(32, 2.0, &heights(12, 2.5)), lopsided);
    let input = prepare_centred(&volume, &contract(), ORIGIN).unwrap();
    let source = input.source_of_slab(0, &volume).unwrap();
    assert!(source.slice_position <= 1.0);
    let source = input.source_of_slab(5, &volume).unwrap();
    assert!(source.slice_position >= 10.0);
}

#[test]
fn a_contract_that_cannot_be_met_is_refused() {
    let volume = volume_of(&StackPlan::axial(8, 2.0, &heights(6, 2.5)), |_| 40.0);
    let broken = [
        InputContract {
            slab_mm: 0.0,
            ..contract()
        },
        InputContract {
            side_px: 0,
            ..contract()
        },
        InputContract {
            side_mm: f64::NAN,
            ..contract()
        },
        InputContract {
            windows: Vec::new(),
            ..contract()
        },
        InputContract {
            windows: vec![Window {
                low_hu: 80.0,
                high_hu: 0.0,
            }],
            ..contract()
        },
    ];
    for contract in broken {
        let reason = prepare(&volume, &contract).unwrap_err();
        assert_eq!(reason.code, ReasonCode::OutsideModelContract);
    }
    let huge = InputContract {
        slab_mm: 1e-6,
        ..contract()
    };
    let reason = prepare(&volume, &huge).unwrap_err();
    assert_eq!(reason.code, ReasonCode::LimitExceeded);
}
