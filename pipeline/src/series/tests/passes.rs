//! Passes over the same places, and reconstructions of one scan.

use super::*;

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
