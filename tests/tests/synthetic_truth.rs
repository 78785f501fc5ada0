//! The shipped model on synthetic heads whose truth is known: that its answer does not depend on how
//! a head is scanned. `--no-capture` prints every answer.
#![expect(
    clippy::print_stdout,
    reason = "every answer is worth reading when one is off"
)]

use fixtures::phantom::{Bleed, BleedKind, HeadPlan, Pose, Side as TrueSide, Subject};
use fixtures::plan::{SeriesPlan, Stack, Stepping, StudyPlan};
use fixtures::study::Studio;
use models::findings::Finding;
use models::report::ReportState;
use models::runtime::Network;
use tests::shipped::{network, report_of, side_of};

/// Largest difference that another scan of the same head may make.
const PROBABILITY_DIFFERENCE_MAX: f64 = 0.05;

/// One way to scan a head.
struct Scan {
    name: &'static str,
    stack: Stack,
    pose: Pose,
}

impl Scan {
    fn of(name: &'static str, stack: Stack) -> Self {
        Self {
            name,
            stack,
            pose: Pose::default(),
        }
    }

    fn posed(name: &'static str, pose: Pose) -> Self {
        Self {
            pose,
            ..Self::of(name, Stack::even(32, 5.0))
        }
    }
}

/// The first is what the others are held against.
fn scans() -> Vec<Scan> {
    let tilted = |tilt_deg| Stack::even(40, 5.0).tilted(tilt_deg, Stepping::Table);
    let turned = |turn_deg| Pose {
        turn_deg,
        ..Pose::default()
    };
    let mirrored = Pose {
        mirrored: true,
        ..Pose::default()
    };
    vec![
        Scan::of("5 mm", Stack::even(32, 5.0)),
        Scan::of("1.25 mm", Stack::even(128, 1.25)),
        Scan::of("8 mm", Stack::even(20, 8.0)),
        Scan::of("512 pixels", Stack::even(32, 5.0).matrix(512)),
        Scan::of("tilt 25°", tilted(25.0)),
        Scan::of("tilt -15°", tilted(-15.0)),
        Scan::posed("turned 10° to the left", turned(10.0)),
        Scan::posed("turned 10° to the right", turned(-10.0)),
        Scan::posed("mirrored", mirrored),
    ]
}

/// The answer to "any hemorrhage" for a head with `bleeds`, scanned like this.
fn answer(scan: &Scan, bleeds: &[Bleed], network: &mut Network) -> Finding {
    let head = HeadPlan {
        pose: scan.pose,
        bleeds: bleeds.to_vec(),
        ..HeadPlan::default()
    };
    let plan = StudyPlan::new("synthetic_truth", Subject::Head(head))
        .with_series(vec![SeriesPlan::axial(2, scan.stack.clone())]);
    let study = Studio::default().make(&plan).expect("a study");
    let folder = tempfile::tempdir().expect("a scratch folder");
    study.write(folder.path()).expect("written");
    let report = report_of(folder.path(), network);
    assert_eq!(
        report.state,
        ReportState::Analysed,
        "{}: {:?}",
        scan.name,
        report.reasons
    );
    let finding = report.findings[0].clone();
    println!(
        "{}: p {:.3}, {:?} mL, {:?}",
        scan.name,
        finding.probability.value(),
        finding.volume_ml,
        finding.side
    );
    finding
}

fn check(bleed: &Bleed) {
    println!("{bleed:?}");
    let (mut network, mut faults) = (network(2), Vec::new());
    let mut first: Option<f64> = None;
    for scan in scans() {
        let found = answer(&scan, std::slice::from_ref(bleed), &mut network);
        let probability = found.probability.value();
        let difference = (probability - *first.get_or_insert(probability)).abs();
        if difference > PROBABILITY_DIFFERENCE_MAX {
            faults.push(format!(
                "{}: p {probability}, {difference:.3} off",
                scan.name
            ));
        }
        if found.side != Some(side_of(bleed.side, scan.pose.mirrored)) {
            faults.push(format!("{}: {:?}", scan.name, found.side));
        }
    }
    assert!(faults.is_empty(), "{bleed:?}\n{}", faults.join("\n"));
}

#[test]
fn thirty_ml_in_the_tissue_are_the_same_however_they_are_scanned() {
    check(&Bleed::new(
        BleedKind::Intraparenchymal,
        TrueSide::Left,
        30.0,
    ));
}

#[test]
fn an_epidural_of_forty_ml_is_the_same_however_it_is_scanned() {
    check(&Bleed::new(BleedKind::Epidural, TrueSide::Right, 40.0));
}

#[test]
fn a_subdural_of_forty_ml_is_the_same_however_it_is_scanned() {
    check(&Bleed::new(BleedKind::Subdural, TrueSide::Left, 40.0));
}

#[test]
fn a_head_without_blood_does_not_alarm_however_it_is_scanned() {
    let mut network = network(2);
    let alarms: Vec<&str> = scans()
        .iter()
        .filter(|scan| answer(scan, &[], &mut network).present)
        .map(|scan| scan.name)
        .collect();
    assert!(alarms.is_empty(), "{alarms:?}");
}
