//! Which series of headers made by hand are chosen, and why others are not.

mod passes;

use std::path::PathBuf;

use crate::instance::{FrameHeader, PixelHeader, SeriesHeader};

use super::*;

/// Slice `index` (5 mm) of a plain head series that nothing is wrong with.
pub(crate) fn head_slice(series: u32, index: u32) -> Instance {
    let uid = |text: String| Uid::new(&text).unwrap();
    Instance {
        sop_instance_uid: uid(format!("1.2.{series}.{}", 1000 + index)),
        sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.2".to_owned()),
        study_uid: uid("1.2".to_owned()),
        series_uid: uid(format!("1.2.{series}")),
        transfer_syntax_uid: uid("1.2.840.10008.1.2.1".to_owned()),
        content: None,
        path: PathBuf::from(format!("{series}/{index}.dcm")),
        instance_number: Some(i64::from(index)),
        study: crate::instance::StudyHeader::default(),
        series: SeriesHeader {
            modality: "CT".to_owned(),
            series_number: Some(i64::from(series)),
            body_part: "HEAD".to_owned(),
            image_type: ["ORIGINAL", "PRIMARY", "AXIAL"].map(str::to_owned).to_vec(),
            kernel: "H31s".to_owned(),
            ..SeriesHeader::default()
        },
        pixels: Some(PixelHeader {
            rows: 512,
            columns: 512,
            frame_count: 1,
            samples_per_pixel: 1,
            bits_allocated: 16,
            bits_stored: 16,
            high_bit: 15,
            signed: true,
            photometric: "MONOCHROME2".to_owned(),
            padding_value: None,
            padding_limit: None,
            native_offset: None,
            native_length: None,
            lossy: false,
        }),
        frames: vec![FrameHeader {
            position_mm: Some([-120.0, -120.0, 5.0 * f64::from(index)]),
            orientation: Some([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
            spacing_mm: Some([0.47, 0.47]),
            thickness_mm: Some(5.0),
            instance_number: Some(i64::from(index)),
            acquisition_number: Some(1),
            ..FrameHeader::default()
        }],
    }
}

pub(crate) fn head_series(series: u32, count: u32) -> Vec<Instance> {
    (0..count).map(|index| head_slice(series, index)).collect()
}

fn changed(change: impl Fn(&mut Instance)) -> Vec<Instance> {
    let mut instances = head_series(1, 30);
    instances.iter_mut().for_each(change);
    instances
}

fn refusals(instances: &[Instance]) -> Vec<ReasonCode> {
    let candidates = candidates(instances, &Limits::default()).list;
    candidates[0]
        .refusals
        .iter()
        .map(|reason| reason.code)
        .collect()
}

fn remarks(instances: &[Instance]) -> Vec<ReasonCode> {
    let candidates = candidates(instances, &Limits::default()).list;
    assert!(candidates[0].usable());
    candidates[0]
        .remarks
        .iter()
        .map(|reason| reason.code)
        .collect()
}

#[test]
fn a_plain_head_series_is_usable_without_remark_and_in_order() {
    let mut instances = head_series(1, 30);
    instances.reverse();
    let candidates = candidates(&instances, &Limits::default()).list;
    assert_eq!(candidates.len(), 1);
    assert!(candidates[0].usable() && candidates[0].remarks.is_empty());
    let heights: Vec<f64> = candidates[0]
        .slices
        .iter()
        .map(|slice| slice.instance.frames[0].position_mm.unwrap()[2])
        .collect();
    assert!(heights.is_sorted());
    assert_eq!(heights.len(), 30);
}

#[test]
fn each_fault_of_a_header_is_refused_by_its_own_name() {
    type Change = fn(&mut Instance);
    let faults: [(ReasonCode, Change); 17] = [
        (ReasonCode::NotCt, |i| i.series.modality = "MR".into()),
        (ReasonCode::NotCt, |i| i.pixels = None),
        (ReasonCode::Derived, |i| {
            i.sop_class_uid = Uid::new("1.2.840.10008.5.1.4.1.1.7").unwrap();
        }),
        (ReasonCode::Localizer, |i| {
            i.series.image_type[2] = "LOCALIZER".into();
        }),
        (ReasonCode::Localizer, |i| {
            i.series.series_description = "Topogram 0.6".into();
        }),
        (ReasonCode::Derived, |i| {
            i.series.image_type[0] = "DERIVED".into();
        }),
        (ReasonCode::Derived, |i| {
            i.series.image_type[1] = "SECONDARY".into();
        }),
        (ReasonCode::Derived, |i| {
            i.series.image_type.push("MPR".into());
        }),
        (ReasonCode::Derived, |i| {
            i.series.image_type.push("CT_SOM5 MIP".into());
        }),
        (ReasonCode::Derived, |i| {
            i.series.series_description = "Dose Report".into();
        }),
        (ReasonCode::NotAxial, |i| {
            i.frames[0].orientation = Some([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]);
            let height = i.frames[0].position_mm.unwrap()[2];
            i.frames[0].position_mm = Some([0.0, height, 0.0]);
        }),
        (ReasonCode::BoneKernel, |i| {
            i.series.kernel = "BONEPLUS".into();
        }),
        (ReasonCode::Contrast, |i| {
            i.series.contrast_agent = "OMNIPAQUE".into();
        }),
        (ReasonCode::Contrast, |i| {
            i.series.series_description = "CTA 0.75".into();
        }),
        (ReasonCode::OtherBodyPart, |i| {
            i.series.body_part = "CHEST".into();
        }),
        (ReasonCode::SliceThicknessOutOfRange, |i| {
            i.frames[0].thickness_mm = Some(12.0);
        }),
        (ReasonCode::MissingGeometry, |i| {
            i.frames[0].position_mm = None;
        }),
    ];
    for (index, (code, change)) in faults.into_iter().enumerate() {
        assert_eq!(refusals(&changed(change)), [code], "fault {index}");
    }
}

#[test]
fn too_few_slices_and_too_many_are_refused() {
    assert_eq!(refusals(&head_series(1, 2)), [ReasonCode::TooFewSlices]);
    assert_eq!(
        refusals(&head_series(1, 2_001)),
        [ReasonCode::TooManySlices]
    );
}

#[test]
fn odd_but_legal_headers_pass_with_a_remark_at_most() {
    type Change = fn(&mut Instance);
    let oddities: [(&[ReasonCode], Change); 9] = [
        (&[], |i| i.series.body_part = String::new()),
        (&[], |i| i.series.body_part = "HEADNECK".into()),
        (&[], |i| i.series.body_part = "Голова".into()),
        (&[], |i| i.series.contrast_agent = "NONE".into()),
        (&[], |i| {
            i.series.series_description = "HEAD W/O CONTRAST".into();
        }),
        (&[], |i| i.series.modality = String::new()),
        (&[ReasonCode::OtherBodyPart], |i| {
            i.series.body_part = "UNKNOWN".into();
        }),
        (&[ReasonCode::BoneKernel], |i| {
            i.series.kernel = String::new();
        }),
        (&[ReasonCode::Derived], |i| i.series.image_type = Vec::new()),
    ];
    for (index, (codes, change)) in oddities.into_iter().enumerate() {
        assert_eq!(remarks(&changed(change)), codes, "oddity {index}");
    }
}

#[test]
fn a_plain_series_of_a_vessel_protocol_is_taken_only_if_it_says_that_it_is_plain() {
    let protocol = |description: &str| {
        changed(|instance| {
            instance.series.protocol_name = "STROKE CTA CTP".into();
            instance.series.series_description = description.into();
        })
    };
    assert_eq!(refusals(&protocol("Head native 5.0")), []);
    assert_eq!(refusals(&protocol("Head 5.0")), [ReasonCode::Contrast]);
}

#[test]
fn lossy_compression_alone_does_not_make_slices_derived() {
    let lossy = changed(|instance| {
        instance.series.image_type[0] = "DERIVED".into();
        instance.pixels.as_mut().unwrap().lossy = true;
    });
    assert_eq!(remarks(&lossy), [ReasonCode::Derived]);
}

#[test]
fn lossy_compression_is_remarked_also_where_the_image_type_is_silent() {
    assert_eq!(remarks(&changed(|_| ())), []);
    let lossy = changed(|instance| instance.pixels.as_mut().unwrap().lossy = true);
    assert_eq!(remarks(&lossy), [ReasonCode::Derived]);
}

#[test]
fn a_localiser_inside_the_series_becomes_a_stack_of_its_own() {
    let mut instances = head_series(1, 30);
    let mut scout = head_slice(1, 99);
    scout.series.image_type[2] = "LOCALIZER".into();
    scout.frames[0].orientation = Some([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]);
    instances.push(scout);
    let candidates = candidates(&instances, &Limits::default()).list;
    assert_eq!(candidates.len(), 2);
    assert_eq!(
        (candidates[0].usable(), candidates[0].slices.len()),
        (true, 30)
    );
    assert_eq!(candidates[1].refusals[0].code, ReasonCode::Localizer);
}

#[test]
fn two_acquisitions_of_one_place_are_two_stacks_but_blocks_of_one_scan_are_not() {
    let mut twice = head_series(1, 30);
    for index in 0..30 {
        let mut again = head_slice(1, index);
        again.sop_instance_uid = Uid::new(&format!("1.2.1.{}", 5000 + index)).unwrap();
        again.frames[0].acquisition_number = Some(2);
        twice.push(again);
    }
    let sizes = |instances: &[Instance]| -> Vec<usize> {
        let candidates = candidates(instances, &Limits::default()).list;
        candidates
            .iter()
            .map(|candidate| candidate.slices.len())
            .collect()
    };
    assert_eq!(sizes(&twice), [30, 30]);
    let mut blocks = head_series(1, 30);
    for (index, instance) in (0..).zip(&mut blocks) {
        instance.frames[0].acquisition_number = Some(index / 4);
    }
    assert_eq!(sizes(&blocks), [30]);
}

#[test]
fn each_time_point_is_a_stack_and_a_scan_of_its_own() {
    let mut instances = Vec::new();
    for time in 0..20 {
        for index in 0..8 {
            let mut slice = head_slice(1, index);
            slice.sop_instance_uid = Uid::new(&format!("1.2.1.{time}.{index}")).unwrap();
            slice.frames[0].acquisition_number = Some(time);
            instances.push(slice);
        }
    }
    let candidates = candidates(&instances, &Limits::default()).list;
    assert_eq!(candidates.len(), 20);
    for candidate in &candidates {
        assert!(candidate.usable() && candidate.slices.len() == 8);
        assert_eq!(candidate.notes[0].code, ReasonCode::PartedByHeader);
    }
    assert_eq!(scans_of(&candidates).len(), 20);
}

#[test]
fn a_slice_without_a_position_is_left_out_and_named() {
    let mut instances = head_series(1, 30);
    instances[3].frames[0].position_mm = None;
    let candidates = candidates(&instances, &Limits::default()).list;
    assert!(candidates[0].usable());
    assert_eq!(candidates[0].slices.len(), 29);
    assert_eq!(
        candidates[0].incomplete[0].code,
        ReasonCode::MissingGeometry
    );
    assert!(candidates[0].incomplete[0].text.contains("1.2.1.1003"));
}

#[test]
fn soft_goes_before_unknown_and_a_whole_head_before_half_of_one() {
    let mut instances = head_series(1, 12);
    instances.extend(head_series(2, 30));
    let mut unknown = head_series(3, 40);
    for instance in &mut unknown {
        instance.series.kernel = "X".into();
    }
    instances.extend(unknown);
    let mut bone = head_series(4, 40);
    for instance in &mut bone {
        instance.series.kernel = "BONE".into();
    }
    instances.extend(bone);
    let order: Vec<&str> = candidates(&instances, &Limits::default())
        .list
        .iter()
        .map(|candidate| candidate.series_uid.as_str())
        .collect();
    assert_eq!(order, ["1.2.2", "1.2.1", "1.2.3", "1.2.4"]);
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let mut instances = head_series(2, 20);
    instances.extend(head_series(1, 20));
    let names = |instances: &[Instance]| -> Vec<String> {
        candidates(instances, &Limits::default())
            .list
            .iter()
            .flat_map(|candidate| &candidate.slices)
            .map(|slice| slice.instance.sop_instance_uid.to_string())
            .collect()
    };
    let forward = names(&instances);
    instances.reverse();
    assert_eq!(names(&instances), forward);
}
