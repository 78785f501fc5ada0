//! Findings read from raw outputs made by hand.

use std::path::Path;

use ndarray::{Array2, s};
use pipeline::volume::{PatientPoint, SourceSlice};

use super::*;
use crate::card::Calibration;

const SIDE_PX: usize = 40;

fn card() -> ModelCard {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/bootstrap.toml");
    ModelCard::load(&path).unwrap()
}

/// The same, asked for subdural blood too.
fn card_with_a_kind() -> ModelCard {
    let mut card = card();
    card.findings.push(CardFinding {
        kind: FindingKind::SubduralHemorrhage,
        ..card.findings[0]
    });
    card
}

/// 40 x 40 voxels of 5 mm, 10 slabs of 5 mm: 0.125 mL a voxel, middle at x = 0.
fn slab_grid() -> Grid {
    Grid {
        origin_mm: PatientPoint([-97.5, -97.5, 2.5]),
        directions: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        spacing_mm: [5.0; 3],
        size: [SIDE_PX, SIDE_PX, 10],
    }
}

/// 50 source slices of 1 mm, the first at z = 0.5.
fn volume() -> Volume {
    Volume {
        hounsfield: Array3::zeros((50, 2, 2)),
        grid: Grid {
            origin_mm: PatientPoint([-97.5, -97.5, 0.5]),
            spacing_mm: [100.0, 100.0, 1.0],
            size: [2, 2, 50],
            ..slab_grid()
        },
        sources: (0..50)
            .map(|index| SourceSlice {
                sop_instance_uid: Uid::new(&format!("1.{index}")).unwrap(),
                frame_index: 0,
                slice_position: f64::from(index),
                position_mm: PatientPoint([0.0; 3]),
            })
            .collect(),
    }
}

fn quiet() -> RawOutput {
    RawOutput {
        voxel_prob: Array4::zeros((10, 1, SIDE_PX, SIDE_PX)),
        slice_prob: Array2::zeros((10, 1)),
    }
}

/// Sure of any haemorrhage and of the kind of [`card_with_a_kind`], and marks neither.
fn sure_of_a_kind() -> RawOutput {
    RawOutput {
        voxel_prob: Array4::zeros((10, 2, SIDE_PX, SIDE_PX)),
        slice_prob: Array2::from_elem((10, 2), 0.9),
    }
}

fn read(raw: &RawOutput) -> (Finding, FindingMap) {
    let (mut findings, map) = read_findings(&card(), raw, &slab_grid(), &volume());
    assert_eq!(findings.len(), 1);
    (findings.remove(0), map)
}

#[test]
fn a_block_on_high_columns_is_on_the_left_with_its_volume_and_slices() {
    let mut raw = quiet();
    raw.voxel_prob
        .slice_mut(s![4..6, 0, 10..14, 30..34])
        .fill(0.9);
    raw.voxel_prob.slice_mut(s![4, 0, 14, 30]).fill(0.9);
    raw.slice_prob[[4, 0]] = 0.8;
    let (finding, map) = read(&raw);
    assert!(finding.present);
    // 33 voxels of 0.125 mL.
    assert_eq!(finding.volume_ml, Some(4.13));
    assert_eq!(finding.side, Some(Side::Left));
    // Slab 4 (centre z = 22.5, source 22) is larger than slab 5 (27.5, source 27).
    let uids: Vec<&str> = finding.key_slices.iter().map(Uid::as_str).collect();
    assert_eq!(uids, ["1.22", "1.27"]);
    assert_eq!(map.marked.iter().filter(|marked| **marked).count(), 33);
}

#[test]
fn a_volume_has_the_interval_of_its_card() {
    let mut raw = quiet();
    raw.slice_prob.fill(0.8);
    raw.voxel_prob
        .slice_mut(s![4..6, 0, 10..14, 30..34])
        .fill(0.9);
    assert_eq!(read(&raw).0.volume_interval_ml, None);
    let mut sure = card();
    sure.findings[0].volume_factor = Some(1.25);
    let (findings, _) = read_findings(&sure, &raw, &slab_grid(), &volume());
    // 4 mL: 32 voxels of 0.125 mL.
    assert_eq!(findings[0].volume_ml, Some(4.0));
    assert_eq!(findings[0].volume_interval_ml, Some([3.2, 5.0]));
}

#[test]
fn a_kind_is_present_only_where_blood_is() {
    let card = card_with_a_kind();
    let present = |any: f64, subdural: f64| {
        let probabilities = [any, subdural].map(|value| Probability::new(value).unwrap());
        [0, 1].map(|channel| is_present(&card, &probabilities, channel))
    };
    assert_eq!(present(0.4, 0.9), [false, false]);
    assert_eq!(present(0.6, 0.9), [true, true]);
    assert_eq!(present(0.6, 0.4), [true, false]);
}

#[test]
fn a_kind_is_named_only_where_it_is_marked() {
    let card = card_with_a_kind();
    let mut raw = sure_of_a_kind();
    let present = |raw: &RawOutput| {
        let (findings, _) = read_findings(&card, raw, &slab_grid(), &volume());
        assert!(findings.iter().all(|one| one.probability.value() > 0.8));
        [findings[0].present, findings[1].present]
    };
    assert_eq!(present(&raw), [true, false]);
    raw.voxel_prob.slice_mut(s![4, 1, 10..14, 30..34]).fill(0.9);
    assert_eq!(present(&raw), [true, true]);
}

#[test]
fn what_a_kind_marks_belongs_to_the_whole() {
    let card = card_with_a_kind();
    let mut raw = sure_of_a_kind();
    // 16 voxels by themselves, and 16 that are subdural: 2 mL each, 4 of them the same.
    raw.voxel_prob.slice_mut(s![4, 0, 10..14, 30..34]).fill(0.9);
    raw.voxel_prob.slice_mut(s![4, 1, 13..17, 30..34]).fill(0.9);
    let volumes = |raw: &RawOutput| {
        let (findings, map) = read_findings(&card, raw, &slab_grid(), &volume());
        let marked = [0, 1].map(|channel| map.marked.index_axis(Axis(0), channel).to_owned());
        let counts = marked.map(|marks| marks.iter().filter(|marked| **marked).count());
        ([findings[0].volume_ml, findings[1].volume_ml], counts)
    };
    assert_eq!(volumes(&raw), ([Some(3.5), Some(2.0)], [28, 16]));
    // Its blood is blood where the kind is not sure enough to be named.
    raw.slice_prob.column_mut(1).fill(0.1);
    assert_eq!(volumes(&raw), ([Some(3.5), None], [28, 0]));
}

#[test]
fn a_slab_counts_more_among_suspicious_neighbours() {
    let alone = ndarray::arr2(&[[0.1_f32], [0.9], [0.1], [0.1]]);
    assert_eq!(among_neighbours(&alone, 0.0), alone);
    let averaged = among_neighbours(&alone, 0.5);
    // Logits of 0.1 and 0.9 are -2.197 and 2.197: slab 0 takes itself twice, slab 1 both others.
    for (slab, expected) in [(0, 0.25), (1, 0.5), (2, 0.25), (3, 0.1)] {
        assert!((averaged[[slab, 0]] - expected).abs() < 1e-6, "{averaged}");
    }
    let sure = among_neighbours(&ndarray::arr2(&[[0.0_f32], [1.0]]), 0.5);
    assert!(sure.iter().all(|probability| probability.is_finite()));
}

#[test]
fn each_received_slice_has_the_slab_that_covers_its_middle() {
    let mut raw = quiet();
    raw.slice_prob[[4, 0]] = 0.8;
    let (_, map) = read(&raw);
    let volume = volume();
    let slab = |slice: usize| map.slab_of_source(&volume.sources[slice], &volume);
    // Slab 4 lies from z = 20 to 25, source 20 at 20.5 and source 24 at 24.5.
    assert_eq!([19, 20, 24, 25].map(slab), [3, 4, 4, 5]);
    assert_eq!([0, 49].map(slab), [0, 9]);
    assert!((map.slab_prob[[slab(22), 0]] - 0.8).abs() < 1e-6);
    // Beyond the ends the end slab answers.
    let beyond = SourceSlice {
        slice_position: 70.0,
        position_mm: PatientPoint([0.0; 3]),
        ..volume.sources[0].clone()
    };
    assert_eq!(map.slab_of_source(&beyond, &volume), 9);
}

#[test]
fn a_mirrored_grid_turns_the_side_because_the_patient_decides() {
    let mut raw = quiet();
    raw.voxel_prob
        .slice_mut(s![4..6, 0, 10..14, 30..34])
        .fill(0.9);
    raw.slice_prob.fill(0.8);
    let mirrored = Grid {
        origin_mm: PatientPoint([97.5, -97.5, 2.5]),
        directions: [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        ..slab_grid()
    };
    let (findings, _) = read_findings(&card(), &raw, &mirrored, &volume());
    assert_eq!(findings[0].side, Some(Side::Right));
}

#[test]
fn below_the_threshold_nothing_is_measured_or_marked() {
    let mut raw = quiet();
    raw.voxel_prob.fill(1.0);
    raw.slice_prob.fill(0.499);
    let (finding, map) = read(&raw);
    assert_eq!(finding, absent_finding(finding.kind, finding.probability));
    assert!(map.marked.iter().all(|marked| !marked));
}

#[test]
fn a_present_finding_without_marks_has_no_volume_but_key_slices() {
    let mut raw = quiet();
    raw.slice_prob[[7, 0]] = 0.9;
    raw.slice_prob[[2, 0]] = 0.6;
    let (finding, _) = read(&raw);
    assert!(finding.present);
    assert_eq!((finding.volume_ml, finding.side), (None, None));
    assert_eq!(finding.key_slices[0].as_str(), "1.37");
    assert_eq!(finding.key_slices[1].as_str(), "1.12");
}

#[test]
fn specks_are_dropped_and_what_touches_by_a_corner_is_one_piece() {
    let mut raw = quiet();
    raw.slice_prob.fill(0.9);
    // The card drops below 0.5 mL = 4 voxels. Three apart: dropped.
    raw.voxel_prob.slice_mut(s![1, 0, 5, 5..8]).fill(1.0);
    // Four that hang together by corners over two slabs: kept.
    for (slab, row, column) in [(4, 20, 20), (4, 21, 21), (5, 22, 22), (5, 23, 23)] {
        raw.voxel_prob[[slab, 0, row, column]] = 1.0;
    }
    assert_eq!(read(&raw).0.volume_ml, Some(0.5));
}

#[test]
fn sides_follow_the_documented_parts() {
    for (left, right, all, side) in [
        (0.0, 0.0, 0.0, None),
        (10.0, 0.0, 10.0, Some(Side::Left)),
        (0.0, 10.0, 10.0, Some(Side::Right)),
        (90.0, 10.0, 100.0, Some(Side::Bilateral)),
        (91.0, 9.0, 100.0, Some(Side::Left)),
        (10.0, 9.0, 100.0, Some(Side::Midline)),
        (10.0, 10.0, 100.0, Some(Side::Bilateral)),
    ] {
        assert_eq!(
            side_by_parts(left, right, all),
            side,
            "{left} {right} {all}"
        );
    }
}

#[test]
fn the_study_probability_is_the_mean_of_the_highest_slabs() {
    let task = card().findings[0];
    let slabs = ndarray::arr1(&[0.1_f32, 0.9, 0.5, 0.7]);
    let pooled = |count| study_probability(count, &task, &slabs.view()).value();
    assert!((pooled(1) - 0.9).abs() < 1e-6);
    assert!((pooled(2) - 0.8).abs() < 1e-6);
    assert!((pooled(9) - 0.55).abs() < 1e-6);
    let calibrated = CardFinding {
        calibration: Some(Calibration {
            slope: 1.0,
            offset: -100.0,
        }),
        ..task
    };
    assert!(study_probability(1, &calibrated, &slabs.view()).value() < 1e-6);
}
