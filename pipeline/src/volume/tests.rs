//! Volumes of small synthetic stacks.

use proptest::prelude::*;

use super::*;
use crate::testing::{StackPlan, TestStack};

/// Smooth in every direction, so that interpolation has one right answer.
fn ramp([x, y, z]: [f64; 3]) -> f64 {
    2.0 * x + 3.0 * y + 4.0 * z
}

fn heights(count: u32, step_mm: f64) -> Vec<f64> {
    (0..count).map(|index| f64::from(index) * step_mm).collect()
}

fn built(stack: &TestStack) -> (Volume, GeometryCertificate) {
    build(&stack.slices(), Decoding::afresh(&Limits::default())).unwrap()
}

fn error_of(stack: &TestStack) -> Reason {
    build(&stack.slices(), Decoding::afresh(&Limits::default()))
        .unwrap_err()
        .reason
}

fn codes(certificate: &GeometryCertificate) -> Vec<ReasonCode> {
    certificate
        .warnings
        .iter()
        .map(|reason| reason.code)
        .collect()
}

fn text_of(certificate: &GeometryCertificate, code: ReasonCode) -> &str {
    let reason = certificate
        .warnings
        .iter()
        .find(|reason| reason.code == code);
    &reason
        .unwrap_or_else(|| panic!("{code:?} in {certificate:?}"))
        .text
}

/// Voxels beside which air may have been mixed in: shears of neighbouring slices differ by less.
const RIM: usize = 3;

/// The largest difference between the volume and `truth`, away from what no slice covers.
fn largest_error(volume: &Volume, truth: impl Fn([f64; 3]) -> f64) -> f64 {
    let mut largest: f64 = 0.0;
    for ((slice, row, column), value) in volume.hounsfield.indexed_iter() {
        if is_covered(volume, [slice, row, column]) {
            let voxel = VoxelPoint([column as f64, row as f64, slice as f64]);
            let point = volume.grid.patient_from_voxel(voxel);
            largest = largest.max((f64::from(*value) - truth(point.0)).abs());
        }
    }
    largest
}

fn is_covered(volume: &Volume, [slice, row, column]: [usize; 3]) -> bool {
    let plane = volume.hounsfield.index_axis(Axis(0), slice);
    let near = |at: usize, length: usize| at.saturating_sub(RIM)..(at + RIM + 1).min(length);
    near(row, plane.nrows())
        .flat_map(|row| near(column, plane.ncols()).map(move |column| (row, column)))
        .all(|place| plane[place] > -500)
}

#[test]
fn an_even_stack_is_kept_as_it_is() {
    let stack = StackPlan::axial(8, 0.5, &heights(5, 2.5)).write(ramp);
    let (volume, certificate) = built(&stack);
    assert_eq!(volume.hounsfield.dim(), (5, 8, 8));
    assert!(!certificate.rectified);
    assert!(certificate.warnings.is_empty(), "{certificate:?}");
    assert_eq!(certificate.slices, 5);
    assert!((volume.grid.spacing_mm[2] - 2.5).abs() < 1e-9);
    assert!(certificate.tilt_deg.abs() < 1e-9);
    assert!(largest_error(&volume, ramp) <= 0.5);
    let places: Vec<f64> = volume
        .sources
        .iter()
        .map(|source| source.slice_position)
        .collect();
    assert_eq!(places, [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn positions_order_slices_and_not_instance_numbers_or_arrival() {
    let mut stack = StackPlan::axial(4, 1.0, &heights(6, 3.0)).write(ramp);
    let (straight, _) = built(&stack);
    stack.instances[1].frames[0].instance_number = Some(40);
    let mut shuffled = stack.slices();
    shuffled.reverse();
    shuffled.swap(0, 3);
    let (volume, certificate) = build(&shuffled, Decoding::afresh(&Limits::default())).unwrap();
    assert_eq!(volume.hounsfield, straight.hounsfield);
    assert_eq!(volume.sources, straight.sources);
    assert_eq!(codes(&certificate), [ReasonCode::InstanceNumbersOutOfOrder]);
}

#[test]
fn a_mirrored_acquisition_runs_from_feet_to_head_too() {
    let mut plan = StackPlan::axial(6, 1.0, &heights(4, 2.0));
    plan.orientation[0] = [-1.0, 0.0, 0.0];
    plan.positions_mm
        .iter_mut()
        .for_each(|position| position[0] = 2.5);
    let (volume, certificate) = built(&plan.write(ramp));
    assert!(volume.grid.directions[2][2] > 0.99);
    assert!(largest_error(&volume, ramp) <= 0.5);
    assert!(certificate.warnings.is_empty());
}

#[test]
fn tilt_is_measured_and_its_shear_taken_out() {
    let stack = StackPlan::axial(24, 1.0, &heights(9, 4.0))
        .tilted(18.5)
        .write(ramp);
    let (volume, certificate) = built(&stack);
    assert!((certificate.tilt_deg - 18.5).abs() < 1e-6);
    assert!(certificate.rectified);
    assert_eq!(codes(&certificate), [ReasonCode::GantryTilt]);
    let (_, rows, columns) = volume.hounsfield.dim();
    assert_eq!(columns, 24);
    assert!(rows > 24 && rows < 38, "{rows}");
    // The first and last rows of a slice mix with air.
    let mut inner = volume.clone();
    for side in [0, rows - 1] {
        inner.hounsfield.index_axis_mut(Axis(1), side).fill(-1000);
    }
    assert!(largest_error(&inner, ramp) <= 1.5);
    let corner = volume.hounsfield[(0, 0, 0)];
    assert_eq!(corner, -1000, "what no slice covers is air");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tilt_and_any_gaps_put_every_voxel_where_the_patient_has_it(
        x_tilt in -0.4..0.4_f64, y_tilt in -0.4..0.4_f64,
        gaps in prop::collection::vec(0.5..4.0_f64, 4..8)
    ) {
        let mut plan = StackPlan::axial(12, 1.5, &[0.0]);
        let first = plan.positions_mm[0];
        let mut along = 0.0;
        for gap in gaps {
            along += gap;
            plan.positions_mm.push([
                first[0] + x_tilt * along, first[1] + y_tilt * along, along,
            ]);
        }
        let (volume, certificate) = built(&plan.write(ramp));
        let tilt_deg = x_tilt.hypot(y_tilt).atan().to_degrees();
        prop_assert!((certificate.tilt_deg - tilt_deg).abs() < 1e-6);
        // The last plane may lie beyond the last slice, which it then repeats; and only what lies
        // far from the sides is free of air.
        let mut inner = volume.clone();
        inner.hounsfield.slice_axis_inplace(Axis(0), (..-1).into());
        for axis in [Axis(1), Axis(2)] {
            for side in [0, inner.hounsfield.len_of(axis) - 1] {
                inner.hounsfield.index_axis_mut(axis, side).fill(-1000);
            }
        }
        prop_assert!(largest_error(&inner, ramp) <= 1.6);
    }
}

#[test]
fn a_tag_that_disagrees_with_the_positions_is_stated() {
    let mut stack = StackPlan::axial(4, 1.0, &heights(4, 2.0)).write(ramp);
    for instance in &mut stack.instances {
        instance.series.nominal_tilt_deg = Some(-18.5);
    }
    let (_, certificate) = built(&stack);
    assert_eq!(codes(&certificate), [ReasonCode::TiltTagDisagrees]);
    let mut tilted = StackPlan::axial(4, 1.0, &heights(4, 2.0))
        .tilted(18.5)
        .write(ramp);
    tilted.instances[0].series.nominal_tilt_deg = Some(-18.5);
    assert_eq!(codes(&built(&tilted).1), [ReasonCode::GantryTilt]);
}

#[test]
fn two_blocks_with_an_odd_step_become_one_even_grid_finer_than_both() {
    let mut stack =
        StackPlan::axial(4, 1.0, &[0.0, 4.0, 8.0, 12.0, 13.08, 20.08, 27.08, 34.08]).write(ramp);
    for (index, instance) in stack.instances.iter_mut().enumerate() {
        instance.frames[0].thickness_mm = Some(if index < 4 { 4.0 } else { 7.0 });
    }
    let (volume, certificate) = built(&stack);
    assert!(certificate.rectified);
    assert!((volume.grid.spacing_mm[2] - 2.0).abs() < 1e-9);
    assert!((certificate.gap_mm[0] - 1.08).abs() < 1e-9);
    assert!((certificate.gap_mm[1] - 7.0).abs() < 1e-9);
    assert_eq!(codes(&certificate), [ReasonCode::UnevenSpacing]);
    let text = text_of(&certificate, ReasonCode::UnevenSpacing);
    assert!(
        text.contains("4 mm and 7 mm with the 1.08 mm step"),
        "{text}"
    );
    assert_eq!(volume.hounsfield.dim().0, 19);
    assert!((volume.sources[4].slice_position - 6.54).abs() < 1e-9);
}

#[test]
fn missing_slices_are_counted_placed_and_filled_from_their_neighbours() {
    let stack = StackPlan::axial(4, 1.0, &[0.0, 5.0, 10.0, 20.0, 25.0, 40.0]).write(ramp);
    let (volume, certificate) = built(&stack);
    assert_eq!(codes(&certificate), [ReasonCode::MissingSlices]);
    let text = text_of(&certificate, ReasonCode::MissingSlices);
    assert!(text.contains("3 slices are missing"), "{text}");
    assert!(
        text.contains("1 after slice 3 (from 10 mm to 20 mm above the lowest slice)"),
        "{text}"
    );
    assert!(
        text.contains("15 mm of the patient in all are not in the images"),
        "{text}"
    );
    assert_eq!(volume.hounsfield.dim().0, 9);
    assert!(certificate.rectified);
    assert!(largest_error(&volume, ramp) <= 1.0);
}

#[test]
fn rounded_positions_are_even() {
    let rounded: Vec<f64> = (0..40)
        .map(|k| (f64::from(k) * 6.25).round() / 10.0)
        .collect();
    let (volume, certificate) = built(&StackPlan::axial(4, 0.5, &rounded).write(ramp));
    assert!(!certificate.rectified, "{certificate:?}");
    assert!((volume.grid.spacing_mm[2] - 0.625).abs() < 2e-3);
}

#[test]
fn doubled_slices_are_dropped_and_the_later_acquisition_is_kept() {
    let plan = StackPlan::axial(4, 1.0, &[0.0, 2.0, 4.0, 6.0, 2.0, 4.0]);
    let stack = plan.write(ramp);
    let (volume, certificate) = built(&stack);
    assert_eq!(volume.hounsfield.dim().0, 4);
    assert_eq!(codes(&certificate), [ReasonCode::DuplicateSlice]);
    assert_eq!(volume.sources[1].sop_instance_uid.as_str(), "1.2.3.2");

    let mut stack = plan.write(ramp);
    std::fs::write(&stack.instances[4].path, vec![0; 32]).unwrap();
    stack.instances[1].frames[0].acquisition_number = Some(1);
    stack.instances[4].frames[0].acquisition_number = Some(2);
    let (volume, certificate) = built(&stack);
    assert_eq!(
        codes(&certificate)[..2],
        [ReasonCode::DuplicateSlice, ReasonCode::OverlappingSlices]
    );
    assert_eq!(volume.sources[1].sop_instance_uid.as_str(), "1.2.3.5");
    assert_eq!(volume.hounsfield[(1, 0, 0)], -1024);
}

#[test]
fn slices_with_other_pixels_over_most_places_are_no_volume() {
    let places = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    let stack = StackPlan::axial(4, 1.0, &[places, places].concat()).write(ramp);
    for other in &stack.instances[6..] {
        std::fs::write(&other.path, vec![0; 32]).unwrap();
    }
    let reason = error_of(&stack);
    assert_eq!(reason.code, ReasonCode::OverlappingSlices);
    assert!(reason.text.contains("6 of 6 places"), "{}", reason.text);
}

fn said_of_gaps(places_mm: &[f64], thickness_mm: Option<f64>) -> Option<Reason> {
    let mut plan = StackPlan::axial(4, 1.0, places_mm);
    plan.thickness_mm = thickness_mm;
    let (_, certificate) = built(&plan.write(ramp));
    let mut warnings = certificate.warnings.into_iter();
    warnings.find(|reason| reason.code == ReasonCode::MissingSlices)
}

#[test]
fn a_hole_that_is_no_whole_number_of_gaps_is_stated_in_millimetres() {
    for hole_mm in [8.0, 9.3, 22.0, 42.0, 52.0] {
        let mut places = heights(8, 5.0);
        let top_mm = places[7];
        places.extend((0..8).map(|slice| top_mm + hole_mm + 5.0 * f64::from(slice)));
        for thickness_mm in [None, Some(5.0)] {
            let reason = said_of_gaps(&places, thickness_mm).expect("a hole");
            let range = format!("from 35 mm to {} mm", 35.0 + hole_mm);
            assert!(reason.text.contains(&range), "{}", reason.text);
        }
    }
}

#[test]
fn slices_that_are_thinner_than_their_gaps_are_wide_are_not_whole() {
    for gap_mm in [10.0, 15.0, 20.0] {
        let reason = said_of_gaps(&heights(8, gap_mm), Some(5.0)).expect("holes");
        let unscanned = format!(
            "{} mm of the patient in all are not in the images",
            7.0 * (gap_mm - 5.0)
        );
        assert!(reason.text.contains(&unscanned), "{}", reason.text);
    }
    assert_eq!(said_of_gaps(&heights(8, 5.0), Some(5.0)), None);
    assert_eq!(said_of_gaps(&heights(8, 2.5), Some(5.0)), None);
    assert_eq!(said_of_gaps(&heights(8, 6.0), Some(5.0)), None);
    assert_eq!(said_of_gaps(&heights(8, 10.0), None), None);
}

#[test]
fn gaps_that_are_like_no_other_mean_that_slices_may_be_missing_anywhere() {
    let mut places = vec![0.0];
    for gap_mm in [5.0, 6.1, 4.2, 7.3, 5.5, 3.1, 6.7, 4.8, 7.0] {
        places.push(places[places.len() - 1] + gap_mm);
    }
    let mut plan = StackPlan::axial(4, 1.0, &places);
    plan.thickness_mm = Some(5.0);
    let warnings = built(&plan.write(ramp)).1.warnings;
    let said = |reason: &Reason| reason.text.contains("missing anywhere");
    assert!(warnings.iter().any(said), "{warnings:?}");
}

#[test]
fn a_doubled_slice_stands_in_for_one_that_cannot_be_decoded() {
    let stack = StackPlan::axial(4, 1.0, &[0.0, 2.0, 4.0, 6.0, 2.0]).write(ramp);
    std::fs::write(&stack.instances[1].path, [0; 3]).unwrap();
    let (volume, certificate) = built(&stack);
    assert_eq!(codes(&certificate)[0], ReasonCode::DuplicateSlice);
    assert_eq!(volume.sources[1].sop_instance_uid.as_str(), "1.2.3.5");
    assert!(largest_error(&volume, ramp) <= 0.5);
}

#[test]
fn a_minority_that_cannot_be_decoded_is_left_out_and_named() {
    let stack = StackPlan::axial(4, 1.0, &heights(8, 2.0)).write(ramp);
    for lost in [3, 7] {
        std::fs::write(&stack.instances[lost].path, [0; 3]).unwrap();
    }
    let (volume, certificate) = built(&stack);
    assert_eq!(certificate.slices, 6);
    assert_eq!(
        codes(&certificate),
        [
            ReasonCode::UndecodablePixels,
            ReasonCode::MissingSlices,
            ReasonCode::MissingSlices
        ]
    );
    let text = text_of(&certificate, ReasonCode::UndecodablePixels);
    assert!(
        text.contains("2 of 8") && text.contains("1.2.3.4"),
        "{text}"
    );
    assert_eq!(volume.hounsfield.dim().0, 7);
    assert!(
        largest_error(&volume, ramp) <= 1.0,
        "the gap is interpolated, not zero"
    );
}

#[test]
fn a_majority_that_cannot_be_decoded_is_no_volume() {
    let stack = StackPlan::axial(4, 1.0, &heights(6, 2.0)).write(ramp);
    for lost in 0..4 {
        std::fs::write(&stack.instances[lost].path, [0; 3]).unwrap();
    }
    let reason = error_of(&stack);
    assert_eq!(reason.code, ReasonCode::Truncated);
    assert!(reason.text.contains("4 of 6"), "{}", reason.text);
}

#[test]
fn unusable_geometry_names_the_first_slice_and_the_count() {
    type Fault = fn(&mut crate::instance::FrameHeader);
    let faults: [Fault; 7] = [
        |frame| frame.position_mm = None,
        |frame| frame.position_mm = Some([0.0, f64::NAN, 0.0]),
        |frame| frame.orientation = None,
        |frame| frame.orientation = Some([[0.0; 3]; 2]),
        |frame| frame.spacing_mm = None,
        |frame| frame.spacing_mm = Some([0.0, 1.0]),
        |frame| frame.spacing_mm = Some([1.0, -1.0]),
    ];
    for fault in faults {
        let mut stack = StackPlan::axial(4, 1.0, &heights(5, 2.0)).write(ramp);
        for index in [2, 4] {
            fault(&mut stack.instances[index].frames[0]);
        }
        let reason = error_of(&stack);
        assert_eq!(reason.code, ReasonCode::MissingGeometry);
        assert!(reason.text.contains("2 of 5"), "{}", reason.text);
        assert!(reason.text.contains("1.2.3.3"), "{}", reason.text);
    }
}

#[test]
fn mixed_directions_and_matrices_are_refused() {
    let mut stack = StackPlan::axial(4, 1.0, &heights(5, 2.0)).write(ramp);
    stack.instances[3].frames[0].orientation = Some([[1.0, 0.0, 0.0], [0.0, 0.9999, 0.0141]]);
    assert_eq!(error_of(&stack).code, ReasonCode::MixedOrientations);
    let mut stack = StackPlan::axial(4, 1.0, &heights(5, 2.0)).write(ramp);
    stack.instances[3].frames[0].spacing_mm = Some([1.0, 1.02]);
    assert_eq!(error_of(&stack).code, ReasonCode::MixedMatrix);
    let mut stack = StackPlan::axial(4, 1.0, &heights(5, 2.0)).write(ramp);
    stack.instances[3].pixels.as_mut().unwrap().rows = 8;
    assert_eq!(error_of(&stack).code, ReasonCode::MixedMatrix);
}

#[test]
fn too_few_too_many_and_too_large_are_refused() {
    let limits = Limits {
        slices_max: 10,
        volume_voxels_max: 4 * 4 * 9,
        ..Limits::default()
    };
    let refused = |heights_mm: &[f64]| {
        let stack = StackPlan::axial(4, 1.0, heights_mm).write(ramp);
        build(&stack.slices(), Decoding::afresh(&limits))
            .unwrap_err()
            .reason
            .code
    };
    assert_eq!(refused(&[]), ReasonCode::TooFewSlices);
    assert_eq!(refused(&[1.0]), ReasonCode::TooFewSlices);
    assert_eq!(refused(&[1.0, 1.0, 1.0, 1.0]), ReasonCode::TooFewSlices);
    assert_eq!(refused(&heights(11, 1.0)), ReasonCode::TooManySlices);
    assert_eq!(refused(&heights(10, 1.0)), ReasonCode::LimitExceeded);
    // Six slices fit, but not the even grid that they need.
    assert_eq!(
        refused(&[0.0, 1.0, 2.0, 3.0, 4.0, 400.0]),
        ReasonCode::LimitExceeded
    );
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let stack = StackPlan::axial(16, 1.0, &[0.0, 3.0, 6.0, 11.0, 14.0])
        .tilted(10.0)
        .write(ramp);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| built(&stack))
    };
    let (one, four) = (run(1), run(4));
    assert_eq!(one.0.hounsfield, four.0.hounsfield);
    assert_eq!(one.1, four.1);
}

#[test]
fn the_nearest_source_is_found_from_a_place_in_the_patient() {
    let (volume, _) = built(
        &StackPlan::axial(4, 1.0, &heights(5, 4.0))
            .tilted(20.0)
            .write(ramp),
    );
    for source in &volume.sources {
        let point = volume
            .grid
            .patient_from_voxel(VoxelPoint([3.0, 9.0, source.slice_position]));
        assert_eq!(volume.nearest_source(point), Some(source));
    }
}
