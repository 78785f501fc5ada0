//! Whatever happens to a study on its way: a bleed of 10 mL or more never ends `routine`, and a head
//! without blood never `critical`.

use fixtures::catalogue::{self, Entry};
use fixtures::phantom::Subject;
use fixtures::random::mix_two;
use fixtures::study::Studio;
use models::report::StudyReport;
use models::runtime::Network;
use models::triage::Priority;
use pipeline::instance::Instance;
use tests::mishaps::{ALL, Mishap, Scene};
use tests::shipped::{instances_of, network, reports_of};

/// From here on a bleed must not be missed, mL.
const BLEED_ML: f64 = 10.0;
/// Combinations of mishaps in the usual run, and in the long one (`TEST_LONG=1`).
const COMBINATIONS: [u64; 2] = [16, 10_000];
/// Most mishaps that happen to one study.
const TOGETHER_MAX: usize = 3;

#[test]
fn a_bleed_in_the_tissue_is_never_routine_whatever_happens_to_its_study() {
    every_mishap_happens_to("bleed_intraparenchymal_left");
}

#[test]
fn a_bleed_beside_the_brain_is_never_routine_whatever_happens_to_its_study() {
    every_mishap_happens_to("bleed_subdural_left");
}

#[test]
fn a_healthy_head_is_never_critical_whatever_happens_to_its_study() {
    every_mishap_happens_to("head");
}

#[test]
fn every_study_of_the_catalogue_survives_every_mishap() {
    if !is_long() {
        return;
    }
    for entry in subjects() {
        every_mishap_happens_to(entry.name);
    }
}

#[test]
fn mishaps_may_come_together() {
    let count = COMBINATIONS[usize::from(is_long())];
    let subjects: Vec<(Entry, Made)> = subjects()
        .into_iter()
        .map(|one| (one.clone(), Made::of(&one)))
        .collect();
    let mut network = network(1);
    let mut wrong = Vec::new();
    for seed in 0..count {
        let number = |step: u64, end: usize| {
            usize::try_from(mix_two(seed, step) % end as u64).expect("below a length")
        };
        let (entry, made) = &subjects[number(0, subjects.len())];
        let together = 1 + number(1, TOGETHER_MAX);
        let mishaps: Vec<Mishap> = (0..together)
            .map(|step| ALL[number(2 + step as u64, ALL.len())])
            .collect();
        wrong.extend(wrong_end(entry, made, &mishaps, seed, &mut network));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the test, not of the program under test"
)]
fn is_long() -> bool {
    std::env::var("TEST_LONG").is_ok_and(|value| value == "1")
}

/// Heads whose end is known: native pixels, one object a slice.
fn subjects() -> Vec<Entry> {
    [
        catalogue::healthy(),
        catalogue::bleeds_in_brain(),
        catalogue::bleeds_around_brain(),
        catalogue::lookalikes(),
        catalogue::tilts_and_gaps(),
    ]
    .concat()
}

/// A study on disk, read.
struct Made {
    instances: Vec<Instance>,
    bleed_ml: f64,
    _folder: tempfile::TempDir,
}

impl Made {
    fn of(entry: &Entry) -> Self {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let study = Studio::default().make(&entry.plan).expect("a study");
        study.write(folder.path()).expect("written");
        Self {
            instances: instances_of(folder.path()),
            bleed_ml: study.truth.bleeds.iter().map(|bleed| bleed.volume_ml).sum(),
            _folder: folder,
        }
    }
}

fn every_mishap_happens_to(name: &str) {
    let entry = catalogue::find(name).expect("in the catalogue");
    let made = Made::of(&entry);
    let mut network = network(1);
    let wrong: Vec<String> = ALL
        .iter()
        .filter_map(|mishap| wrong_end(&entry, &made, &[*mishap], 1, &mut network))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// What is wrong with how a study ends to which `mishaps` happened.
fn wrong_end(
    entry: &Entry,
    made: &Made,
    mishaps: &[Mishap],
    seed: u64,
    network: &mut Network,
) -> Option<String> {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let mut scene = Scene::new(made.instances.clone(), folder.path(), seed);
    for mishap in mishaps {
        scene.suffer(*mishap);
    }
    if scene.instances.is_empty() {
        return None;
    }
    let reports = reports_of(scene.instances, network);
    let worst = reports.iter().map(|report| report.priority).min()?;
    let bloodless = matches!(&entry.plan.subject, Subject::Head(plan) if plan.bleeds.is_empty());
    let missed = made.bleed_ml >= BLEED_ML && worst == Priority::Routine;
    let alarmed = bloodless && worst == Priority::Critical;
    (missed || alarmed).then(|| {
        let ends: Vec<String> = reports.iter().map(end).collect();
        format!(
            "{} {mishaps:?} (seed {seed}): {}",
            entry.name,
            ends.join("; ")
        )
    })
}

fn end(report: &StudyReport) -> String {
    let present: Vec<String> = report
        .findings
        .iter()
        .filter(|finding| finding.present)
        .map(|finding| format!("{} {:?} mL", finding.kind.as_str(), finding.volume_ml))
        .collect();
    format!(
        "{:?} {:?} {present:?} {:?}",
        report.state, report.priority, report.reasons
    )
}
