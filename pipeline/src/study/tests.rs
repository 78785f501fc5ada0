//! Studies of the catalogue on their way to volumes, and what their verdicts say.

use tempfile::TempDir;

use super::*;
use crate::header::read_instance;

/// The instances of a study of the catalogue, in order.
pub(crate) fn fixture(name: &str) -> (TempDir, Vec<Instance>) {
    let folder = TempDir::new().unwrap();
    let paths = fixtures::make(name, folder.path()).unwrap();
    assert!(!paths.is_empty(), "{name} has no objects");
    let limits = Limits::default();
    let instances = paths
        .iter()
        .map(|path| read_instance(path, &limits).unwrap())
        .collect();
    (folder, instances)
}

fn codes(reasons: &[Reason]) -> Vec<ReasonCode> {
    reasons.iter().map(|reason| reason.code).collect()
}

/// All scans, and the verdicts.
fn scans(instances: &[Instance], limits: &Limits) -> (Vec<ScanVolume>, Vec<SeriesVerdict>) {
    let mut study = StudyScans::of(instances, Decoding::afresh(limits));
    let scans = std::iter::from_fn(|| study.next_scan()).collect();
    (scans, study.verdicts())
}

/// The one scan of a study, and the verdicts.
fn only_scan(instances: &[Instance]) -> (ScanVolume, Vec<SeriesVerdict>) {
    let (mut scans, verdicts) = scans(instances, &Limits::default());
    assert_eq!(scans.len(), 1);
    (scans.remove(0), verdicts)
}

fn no_scan(instances: &[Instance], limits: &Limits) -> Vec<Reason> {
    let mut study = StudyScans::of(instances, Decoding::afresh(limits));
    assert!(study.next_scan().is_none());
    study.no_usable_series()
}

#[test]
fn a_whole_head_is_chosen_and_nothing_is_missing() {
    let (_folder, instances) = fixture("small_head");
    let (scan, verdicts) = only_scan(&instances);
    assert_eq!(scan.incomplete, []);
    assert_eq!(scan.volume.unwrap().certificate.slices, instances.len());
    assert_eq!(scan.series_uids, [instances[0].series_uid.clone()]);
    assert_eq!(scan.acquired.unwrap().to_string(), "2026-01-15T08:00:10");
    assert_eq!(verdicts.len(), 1);
    assert!(verdicts[0].chosen);
    assert_eq!(verdicts[0].reasons[0].code, ReasonCode::Chosen);
}

#[test]
fn a_missing_slice_makes_the_result_partial() {
    let (_folder, mut instances) = fixture("small_head");
    instances.remove(12);
    let (scan, _) = only_scan(&instances);
    assert!(scan.volume.is_ok());
    assert_eq!(codes(&scan.incomplete), [ReasonCode::MissingSlices]);
}

#[test]
fn a_child_is_outside_the_models_use() {
    let (_folder, mut instances) = fixture("small_head");
    for instance in &mut instances {
        instance.study.patient_age = "011Y".to_owned();
    }
    let (scan, _) = only_scan(&instances);
    assert_eq!(codes(&scan.incomplete), [ReasonCode::OutsideModelContract]);
    assert!(scan.incomplete[0].text.contains("11 years"));
}

#[test]
fn the_order_of_arrival_does_not_change_the_voxels() {
    let (_folder, mut instances) = fixture("small_head");
    let (forward, verdicts) = only_scan(&instances);
    instances.reverse();
    let (backward, reversed) = only_scan(&instances);
    assert_eq!(verdicts, reversed);
    let (forward, backward) = (forward.volume.unwrap(), backward.volume.unwrap());
    assert_eq!(forward.volume.hounsfield, backward.volume.hounsfield);
}

#[test]
fn what_comes_twice_is_counted_once_and_what_conflicts_is_named() {
    let (folder, mut instances) = fixture("small_head");
    let count = instances.len();
    instances.push(instances[3].clone());
    let (scan, verdicts) = only_scan(&instances);
    assert_eq!(scan.volume.unwrap().certificate.slices, count);
    assert_eq!(scan.incomplete, []);
    assert!(codes(&verdicts[0].reasons).contains(&ReasonCode::Duplicate));

    let mut bytes = std::fs::read(&instances[3].path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let path = folder.path().join("other.bin");
    std::fs::write(&path, bytes).unwrap();
    instances[count].path = path;
    let (scan, forward) = only_scan(&instances);
    assert!(codes(&forward[0].reasons).contains(&ReasonCode::ConflictingDuplicate));
    assert_eq!(codes(&scan.incomplete), [ReasonCode::OverlappingSlices]);
    let warnings = scan.volume.unwrap().certificate.warnings;
    assert!(codes(&warnings).contains(&ReasonCode::ConflictingDuplicate));
    instances.reverse();
    assert_eq!(only_scan(&instances).1, forward);
}

#[test]
fn different_slices_under_one_uid_are_all_used_and_the_result_is_partial() {
    let (_folder, mut instances) = fixture("small_head");
    let count = instances.len();
    for pair in instances.chunks_mut(2) {
        let uid = pair[0].sop_instance_uid.clone();
        for instance in pair {
            instance.sop_instance_uid = uid.clone();
        }
    }
    let (scan, _) = only_scan(&instances);
    assert_eq!(scan.volume.unwrap().certificate.slices, count);
    let found = codes(&scan.incomplete);
    assert!(
        found.contains(&ReasonCode::ConflictingDuplicate),
        "{found:?}"
    );
}

#[test]
fn without_a_usable_series_each_series_says_why() {
    let (_folder, mut instances) = fixture("small_head");
    for instance in &mut instances {
        instance.series.kernel = "BONE".into();
        instance.frames[0].kernel = "BONE".into();
    }
    let reasons = no_scan(&instances, &Limits::default());
    assert_eq!(
        codes(&reasons),
        [ReasonCode::NoUsableSeries, ReasonCode::BoneKernel]
    );
}

#[test]
fn an_empty_study_and_one_beyond_the_limit_have_reasons_and_no_volume() {
    let limits = Limits::default();
    assert_eq!(codes(&no_scan(&[], &limits)), [ReasonCode::NoUsableSeries]);
    let many = crate::series::tests::head_series(1, 5);
    let limits = Limits {
        study_instances_max: 4,
        ..limits
    };
    assert_eq!(codes(&no_scan(&many, &limits)), [ReasonCode::LimitExceeded]);
    let mut one = many[0].clone();
    one.frames = vec![one.frames[0].clone(); 5];
    assert_eq!(
        codes(&no_scan(&[one], &limits)),
        [ReasonCode::LimitExceeded]
    );
}

#[test]
fn what_is_no_head_by_its_pixels_is_no_scan_of_one() {
    let (_folder, head) = fixture("small_head");
    let (_other, mut not_head) = fixture("chest_called_head");
    for instance in &mut not_head {
        // Ranked first, by its series number.
        instance.series = head[0].series.clone();
        instance.series.series_number = Some(0);
    }
    let expected = head[0].series_uid.clone();
    let instances = [head, not_head].concat();
    let (scan, verdicts) = only_scan(&instances);
    assert!(scan.volume.is_ok());
    for verdict in &verdicts {
        assert_eq!(verdict.chosen, verdict.uid == expected);
        let says_not_head = codes(&verdict.reasons).contains(&ReasonCode::NotHead);
        assert_eq!(says_not_head, !verdict.chosen, "{:?}", verdict.reasons);
    }
}

/// The same head again `later` hours later, as another series.
fn repeated(instances: &[Instance], later: i8) -> Vec<Instance> {
    let mut again = instances.to_vec();
    for instance in &mut again {
        let number = later.to_string();
        instance.sop_instance_uid = renamed(&instance.sop_instance_uid, &number);
        instance.series_uid = renamed(&instance.series_uid, &number);
        let acquired = &mut instance.frames[0].acquired;
        *acquired = acquired.map(|at| at.with().hour(at.hour() + later).build().unwrap());
    }
    again
}

fn renamed(uid: &Uid, number: &str) -> Uid {
    Uid::new(&format!(
        "2.25.{}{number}",
        &uid.as_str()[uid.as_str().len() - 20..].replace('.', "")
    ))
    .unwrap()
}

#[test]
fn a_repeat_hours_later_is_a_scan_of_its_own() {
    let (_folder, instances) = fixture("small_head");
    let both = [instances.clone(), repeated(&instances, 4)].concat();
    let (scans, verdicts) = scans(&both, &Limits::default());
    assert_eq!(scans.len(), 2);
    let mut times: Vec<String> = scans
        .iter()
        .map(|scan| scan.acquired.unwrap().to_string())
        .collect();
    times.sort();
    assert_eq!(times, ["2026-01-15T08:00:10", "2026-01-15T12:00:10"]);
    assert!(scans.iter().all(|scan| scan.volume.is_ok()));
    assert!(verdicts.iter().all(|verdict| verdict.chosen));
}

#[test]
fn scans_beyond_the_limit_are_said_and_not_analysed() {
    let (_folder, instances) = fixture("small_head");
    let study: Vec<Instance> = (0..5)
        .flat_map(|later| repeated(&instances, later))
        .collect();
    let limits = Limits {
        scans_max: 3,
        ..Limits::default()
    };
    let (scans, _) = scans(&study, &limits);
    assert_eq!(scans.len(), 4);
    assert!(scans[..3].iter().all(|scan| scan.volume.is_ok()));
    let reasons = scans[3].volume.as_ref().unwrap_err();
    assert_eq!(codes(reasons), [ReasonCode::LimitExceeded]);
    assert!(
        reasons[0].text.contains("2 further scans"),
        "{}",
        reasons[0].text
    );
    assert_eq!(scans[3].series_uids.len(), 2);
}

#[test]
fn what_came_of_a_further_scan_is_told_however_little_it_is() {
    let (_folder, instances) = fixture("small_head");
    // A few slices in the middle, and the vertex, which is no head by its pixels.
    for kept in [12..14, 24..32] {
        let again: Vec<Instance> = repeated(&instances, 4)
            .into_iter()
            .enumerate()
            .filter(|(index, _)| kept.contains(index))
            .map(|(_, instance)| instance)
            .collect();
        let slices = again.len();
        let (scans, _) = scans(&[instances.clone(), again].concat(), &Limits::default());
        assert_eq!(scans.len(), 2, "{slices}");
        assert!(scans[0].volume.is_ok());
        assert!(scans[1].volume.is_err() || !scans[1].incomplete.is_empty());
    }
    // All of it with a bone kernel: hours later it is another scan, else one that was read.
    for (later, expected) in [(4, 2), (0, 1)] {
        let mut sharp = repeated(&instances, later);
        for one in &mut sharp {
            "H60s".clone_into(&mut one.series.kernel);
            one.frames[0].kernel.clear();
        }
        let (scans, _) = scans(&[instances.clone(), sharp].concat(), &Limits::default());
        assert_eq!(scans.len(), expected);
    }
    // A slice at the neck, below the head: as before contrast comes.
    let mut below = repeated(&instances[..1], 4);
    let frame = &mut below[0].frames[0];
    frame.position_mm = frame.position_mm.map(|[x, y, z]| [x, y, z - 80.0]);
    let (scans, _) = scans(&[instances, below].concat(), &Limits::default());
    assert_eq!(scans.len(), 1);
}

/// A whole head, and one slice of it that came a second time with other pixels: both in the order
/// of receipt, the second last.
fn with_a_conflict(folder: &TempDir, mut instances: Vec<Instance>) -> Vec<Instance> {
    let mut second = instances[12].clone();
    let mut bytes = std::fs::read(&second.path).unwrap();
    let half = bytes.len() - bytes.len() / 4;
    bytes[half..].fill(0);
    second.path = folder.path().join("second.dcm");
    std::fs::write(&second.path, bytes).unwrap();
    instances.push(second);
    instances
}

/// The voxels of the one scan, what its geometry warns of, and the verdicts.
fn told(instances: &[Instance]) -> (Vec<i16>, Vec<Reason>, Vec<SeriesVerdict>) {
    let (scan, verdicts) = only_scan(instances);
    let head = scan.volume.unwrap();
    let voxels = head.volume.hounsfield.into_iter().collect();
    (voxels, head.certificate.warnings, verdicts)
}

#[test]
fn of_two_contents_under_one_uid_at_one_place_the_first_received_counts_and_no_other_order_does() {
    let (folder, plain) = fixture("small_head");
    let whole = told(&plain).0;
    let instances = with_a_conflict(&folder, plain);
    let last = instances.len() - 1;
    let (first_voxels, warnings, verdicts) = told(&instances);
    assert!(first_voxels == whole);
    let conflict = warnings
        .iter()
        .find(|reason| reason.code == ReasonCode::ConflictingDuplicate)
        .unwrap();
    assert!(
        conflict.text.contains("first that was received"),
        "{}",
        conflict.text
    );
    // Any other order, as long as slice 12 comes before its second.
    for seed in 1..4 {
        let mut order: Vec<usize> = (0..=last).collect();
        order.sort_by_key(|index| (index + 1) * (2 * seed + 1) * 7919 % 1009);
        let place = |wanted: usize| order.iter().position(|index| *index == wanted).unwrap();
        let (first, second) = (place(12), place(last));
        if first > second {
            order.swap(first, second);
        }
        let shuffled: Vec<Instance> = order
            .iter()
            .map(|index| instances[*index].clone())
            .collect();
        let (voxels, said, decided) = told(&shuffled);
        assert!(voxels == whole, "{seed}");
        assert_eq!((&said, &decided), (&warnings, &verdicts), "{seed}");
    }
    // The other one first: its pixels count, and the same is said.
    let mut swapped = instances;
    swapped.swap(12, last);
    let (second_voxels, swapped_warnings, swapped_verdicts) = told(&swapped);
    assert!(second_voxels != whole);
    assert_eq!((swapped_warnings, swapped_verdicts), (warnings, verdicts));
}
