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

/// A head of 30 slices whose object numbers begin at `first`, changed slice by slice.
fn pass(first: u32, change: impl Fn(usize, &mut Instance)) -> Vec<Instance> {
    let mut instances = head_series(1, 30);
    for (index, instance) in instances.iter_mut().enumerate() {
        let number = first + u32::try_from(index).unwrap();
        instance.sop_instance_uid = Uid::new(&format!("1.2.1.{number}")).unwrap();
        change(index, instance);
    }
    instances
}

/// Object numbers of each usable stack, in thousands: which pass each slice is from.
fn stacks_by_pass(instances: &[Instance]) -> Vec<Vec<u32>> {
    let candidates = candidates(instances, &Limits::default()).list;
    let usable = candidates.iter().filter(|candidate| candidate.usable());
    let mut stacks: Vec<Vec<u32>> = usable
        .map(|candidate| {
            let numbers = candidate.slices.iter().map(|slice| {
                let uid = slice.instance.sop_instance_uid.as_str();
                uid.rsplit('.').next().unwrap().parse::<u32>().unwrap() / 1000
            });
            numbers.collect()
        })
        .collect();
    stacks.sort();
    stacks
}

fn at(seconds: f64) -> Option<jiff::civil::DateTime> {
    let start = jiff::civil::date(2026, 1, 15).at(8, 0, 0, 0);
    start
        .checked_add(jiff::SignedDuration::from_secs_f64(seconds))
        .ok()
}

/// Two passes over the same places come apart clean, whichever came first.
fn assert_parted(name: &str, first: Vec<Instance>, second: Vec<Instance>) {
    let mut both = [first, second].concat();
    for _ in 0..2 {
        assert_eq!(stacks_by_pass(&both), [vec![1; 30], vec![2; 30]], "{name}");
        both.reverse();
    }
}

#[test]
fn passes_over_the_same_places_are_told_apart_by_each_attribute() {
    type Change = fn(usize, &mut Instance);
    let changes: [(&str, Change, Change); 9] = [
        (
            "temporal position",
            |_, i| i.frames[0].temporal_position = Some(1),
            |_, i| i.frames[0].temporal_position = Some(2),
        ),
        (
            "acquisition number",
            |_, i| i.frames[0].acquisition_number = Some(7),
            |_, i| i.frames[0].acquisition_number = Some(3),
        ),
        (
            "one has no acquisition number",
            |_, i| i.frames[0].acquisition_number = None,
            |_, i| i.frames[0].acquisition_number = Some(3),
        ),
        (
            "acquisition time of each slice",
            |index, i| i.frames[0].acquired = at(1.5 * index as f64),
            |index, i| i.frames[0].acquired = at(300.0 + 1.5 * index as f64),
        ),
        (
            "acquisition time, up and down again",
            |index, i| i.frames[0].acquired = at(1.5 * index as f64),
            |index, i| i.frames[0].acquired = at(100.0 - 1.5 * index as f64),
        ),
        (
            "content time",
            |_, i| i.frames[0].content_made = at(0.0),
            |_, i| i.frames[0].content_made = at(60.0),
        ),
        (
            "tube voltage",
            |_, i| i.frames[0].tube_voltage_kv = Some(80.0),
            |_, i| i.frames[0].tube_voltage_kv = Some(140.0),
        ),
        (
            "exposure",
            |_, i| i.frames[0].exposure_mas = Some(150.0),
            |_, i| i.frames[0].exposure_mas = Some(300.0),
        ),
        (
            "instance number",
            |index, i| i.frames[0].instance_number = i64::try_from(index + 1).ok(),
            |index, i| i.frames[0].instance_number = i64::try_from(index + 101).ok(),
        ),
    ];
    for (name, first, second) in changes {
        assert_parted(name, pass(1000, first), pass(2000, second));
    }
}

#[test]
fn slices_of_another_kind_are_never_in_one_stack() {
    type Change = fn(&mut Instance);
    let changes: [(&str, Change); 5] = [
        ("derived", |i| i.series.image_type[0] = "DERIVED".into()),
        ("contrast", |i| i.series.contrast_agent = "IOHEXOL".into()),
        ("kernel", |i| i.series.kernel = "H60s".into()),
        ("said contrast", |i| {
            i.series.series_description = "HEAD POST CONTRAST".into();
        }),
        ("contrast of the frame", |i| {
            i.frames[0].contrast_administered = Some(true);
        }),
    ];
    for (name, change) in changes {
        let plain = pass(1000, |_, _| {});
        let other = pass(2000, |_, instance| change(instance));
        assert_eq!(
            stacks_by_pass(&[plain, other].concat()),
            [vec![1; 30]],
            "{name}"
        );
    }
    let frame_of_reference = |uid: &'static str| {
        move |_: usize, i: &mut Instance| i.series.frame_of_reference_uid = uid.into()
    };
    assert_parted(
        "frame of reference",
        pass(1000, frame_of_reference("1.5")),
        pass(2000, frame_of_reference("1.6")),
    );
}

#[test]
fn a_writer_that_gives_each_slice_a_frame_of_reference_of_its_own_means_nothing_by_it() {
    let head = pass(1000, |index, instance| {
        instance.series.frame_of_reference_uid = format!("1.5.{index}");
    });
    assert_eq!(stacks_by_pass(&head), [vec![1; 30]]);
}

#[test]
fn a_pass_half_a_gap_beside_the_first_is_a_stack_of_its_own() {
    let beside = |index: usize, instance: &mut Instance| {
        instance.frames[0].position_mm = Some([-120.0, -120.0, 2.5 + 5.0 * index as f64]);
        instance.frames[0].acquired = at(300.0);
    };
    let first = pass(1000, |_, instance| instance.frames[0].acquired = at(0.0));
    assert_parted("half a gap", first, pass(2000, beside));
    // Overlapping slices of one scan look the same but for the time.
    let one_time = |index: usize, instance: &mut Instance| {
        beside(index, instance);
        instance.frames[0].acquired = at(0.0);
        instance.frames[0].instance_number = None;
    };
    let first = pass(1000, |_, instance| {
        instance.frames[0].acquired = at(0.0);
        instance.frames[0].instance_number = None;
    });
    let overlapping = [first, pass(2000, one_time)].concat();
    assert_eq!(stacks_by_pass(&overlapping)[0].len(), 60);
}

#[test]
fn thin_slices_that_were_scanned_twice_are_parted_although_each_pass_has_gaps() {
    let thin = |seconds: f64, shift_mm: f64| {
        move |index: usize, instance: &mut Instance| {
            let frame = &mut instance.frames[0];
            frame.position_mm = Some([-120.0, -120.0, shift_mm + 5.0 * index as f64]);
            frame.thickness_mm = Some(2.5);
            frame.acquired = at(seconds);
        }
    };
    let (first, second) = (pass(1000, thin(0.0, 0.0)), pass(2000, thin(300.0, 2.5)));
    assert_parted("half a gap", first, second);
    let three = [
        pass(1000, thin(0.0, 0.0)),
        pass(2000, thin(300.0, 1.6)),
        pass(3000, thin(600.0, 3.2)),
    ];
    let expected = [vec![1; 30], vec![2; 30], vec![3; 30]];
    assert_eq!(stacks_by_pass(&three.concat()), expected);
}

#[test]
fn passes_that_lie_beside_each_other_or_cover_a_part_are_scans_of_their_own() {
    let beside = |index: usize, instance: &mut Instance| {
        let frame = &mut instance.frames[0];
        frame.position_mm = Some([-120.0, -120.0, 0.3 + 5.0 * index as f64]);
        frame.temporal_position = Some(2);
        frame.acquired = at(0.0);
    };
    let first = |_: usize, instance: &mut Instance| {
        instance.frames[0].temporal_position = Some(1);
        instance.frames[0].acquired = at(0.0);
    };
    let count =
        |instances: &[Instance]| scans_of(&candidates(instances, &Limits::default()).list).len();
    assert_eq!(count(&[pass(1000, first), pass(2000, beside)].concat()), 2);
    let mut part = pass(2000, first);
    part.truncate(12);
    for instance in &mut part {
        instance.series_uid = Uid::new("1.2.3").unwrap();
    }
    assert_eq!(count(&[pass(1000, first), part].concat()), 2);
}

#[test]
fn what_nothing_tells_apart_stays_together() {
    let first = pass(1000, |index, i| {
        i.frames[0].exposure_mas = Some(((index * 7919) % 31) as f64);
    });
    let second = pass(2000, |index, i| {
        i.frames[0].exposure_mas = Some(((index * 104_729) % 37) as f64 + 0.5);
    });
    let stacks = stacks_by_pass(&[first, second].concat());
    assert_eq!(stacks.len(), 1);
    assert_eq!(stacks[0].len(), 60);
}

#[test]
fn blocks_and_repeated_rotations_do_not_part_a_head() {
    // Each rotation has a number; the sixth is repeated at once, or after the last.
    for again in [65, 990] {
        let head = pass(1000, |index, i| {
            i.frames[0].acquisition_number = i64::try_from(10 * (index / 2 + 1)).ok();
        });
        let mut repeat = pass(2000, |_, i| i.frames[0].acquisition_number = Some(again));
        repeat.truncate(12);
        let stacks = stacks_by_pass(&[head, repeat.split_off(10)].concat());
        let expected: Vec<u32> = (0..30)
            .map(|index| if index / 2 == 5 { 2 } else { 1 })
            .collect();
        assert_eq!(stacks, [expected], "{again}");
    }
    for border in [6, 12, 20] {
        let mut base = pass(1000, |_, i| i.frames[0].acquisition_number = Some(1));
        let mut vault = pass(2000, |_, i| i.frames[0].acquisition_number = Some(2));
        base.truncate(border + 1);
        let vault = vault.split_off(border);
        let stacks = stacks_by_pass(&[base, vault].concat());
        assert_eq!(stacks.len(), 1, "{border}");
        assert_eq!(stacks[0].len(), 30);
        assert_eq!(stacks[0][border], 2);
    }
}

#[test]
fn a_larger_part_that_was_scanned_again_gives_two_stacks_one_with_each_try() {
    let head = pass(1000, |_, i| i.frames[0].acquisition_number = Some(1));
    let mut again = pass(2000, |_, i| i.frames[0].acquisition_number = Some(2));
    let again = again.split_off(18);
    let second: Vec<u32> = (0..30)
        .map(|index| if index < 18 { 1 } else { 2 })
        .collect();
    assert_eq!(
        stacks_by_pass(&[head, again].concat()),
        [vec![1; 30], second]
    );
}

#[test]
fn reconstructions_of_one_scan_are_one_and_the_rest_are_scans_of_their_own() {
    let thin = |seconds: f64| {
        let mut series = head_series(2, 150);
        for (index, instance) in series.iter_mut().enumerate() {
            let frame = &mut instance.frames[0];
            frame.position_mm = Some([-120.0, -120.0, index as f64]);
            frame.thickness_mm = Some(1.0);
            frame.acquired = at(seconds);
        }
        series
    };
    let thick = || pass(1000, |_, instance| instance.frames[0].acquired = at(0.0));
    let count =
        |instances: &[Instance]| scans_of(&candidates(instances, &Limits::default()).list).len();
    assert_eq!(count(&[thick(), thin(0.6)].concat()), 1);
    assert_eq!(count(&[thick(), thin(60.0)].concat()), 2);
    // Nothing shows that they are one.
    let untimed: Vec<Instance> = [thick(), thin(0.0)]
        .concat()
        .into_iter()
        .map(|mut instance| {
            instance.frames[0].acquired = None;
            instance
        })
        .collect();
    assert_eq!(count(&untimed), 2);
    // One run of the tube, whatever the times say.
    let one_event: Vec<Instance> = [thick(), thin(60.0)]
        .concat()
        .into_iter()
        .map(|mut instance| {
            instance.series.irradiation_event_uid = "1.7".into();
            instance
        })
        .collect();
    assert_eq!(count(&one_event), 1);
    // The same reconstruction twice is no reconstruction of one scan.
    let mut again = thick();
    for instance in &mut again {
        instance.series_uid = Uid::new("1.2.3").unwrap();
    }
    assert_eq!(count(&[thick(), again].concat()), 2);
}

#[test]
fn frames_of_one_enhanced_object_are_parted_like_slices() {
    let mut object = head_slice(1, 0);
    let frames = |number: i64| {
        head_series(1, 30)
            .into_iter()
            .map(move |slice| FrameHeader {
                acquisition_number: Some(number),
                contrast_administered: Some(number == 3),
                ..slice.frames[0].clone()
            })
    };
    object.series.contrast_agent = "IOHEXOL".to_owned();
    object.frames = (1..=3).flat_map(frames).collect();
    let instances = [object];
    let candidates = candidates(&instances, &Limits::default()).list;
    let usable: Vec<usize> = candidates
        .iter()
        .filter(|candidate| candidate.usable())
        .map(|candidate| candidate.slices.len())
        .collect();
    // The third acquisition is the one with contrast, whatever the object says of all.
    assert_eq!(usable, [30, 30]);
    assert_eq!(candidates[2].refusals[0].code, ReasonCode::Contrast);
}
