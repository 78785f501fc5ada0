//! Whatever happens to a study on its way: a bleed of 10 mL or more never ends `routine`, and a head
//! without blood never `critical`.

use fixtures::catalogue::{self, Entry};
use fixtures::phantom::Subject;
use fixtures::random::mix_two;
use fixtures::study::Studio;
use models::report::StudyReport;
use models::runtime::Network;
use models::triage::Priority;
use pipeline::decode::Decoding;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::patient::by_patient;
use pipeline::study::{HeadVolume, ScanVolume, StudyScans};
use tests::mishaps::{ALL, Mishap, Scene};
use tests::shipped::{instances_of, network, reports_of};

/// From here on a bleed must not be missed, mL.
const BLEED_ML: f64 = 10.0;
/// Combinations of mishaps that the network is asked about in the usual run, and in the long one
/// (`TEST_LONG=1`).
const COMBINATIONS: [u64; 2] = [12, 500];
/// The same without the network, where blood in the volume stands for its answer.
const COMBINATIONS_UNASKED: [u64; 2] = [60, 10_000];
/// Share of a head's blood that has to be in the volume of a study that ends whole.
const BLOOD_SHARE: f64 = 0.25;
/// Blood that shows in fewer voxels than this is no yardstick, mL.
const BLOOD_SHOWN_ML: f64 = 3.0;
/// Pixels on a side of what is made without the network, which needs no more: ten thousand of them
/// take a while.
const SIDE_UNASKED_PX: usize = 256;
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
    let mut network = network(1);
    let wrong: Vec<String> = subjects()
        .iter()
        .flat_map(|entry| wrong_ends(entry, &mut network))
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn mishaps_may_come_together() {
    let subjects: Vec<(Entry, Made)> = made(subjects());
    let mut network = network(1);
    let wrong = wrong_together(COMBINATIONS, subjects.len(), |subject, mishaps, seed| {
        let (entry, made) = &subjects[subject];
        wrong_end(entry, made, mishaps, seed, &mut network)
    });
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn blood_is_in_the_volume_of_whatever_ends_whole() {
    let mut subjects = made(subjects().into_iter().map(coarse).collect());
    subjects.retain(|(_, made)| made.bleed_ml >= BLEED_ML && made.shown_ml() >= BLOOD_SHOWN_ML);
    assert!(subjects.len() >= 8, "{} heads with blood", subjects.len());
    let yardsticks: Vec<f64> = subjects.iter().map(|(_, made)| made.shown_ml()).collect();
    let wrong = wrong_together(
        COMBINATIONS_UNASKED,
        subjects.len(),
        |subject, mishaps, seed| {
            let (entry, made) = &subjects[subject];
            let bound_ml = BLOOD_SHARE * yardsticks[subject];
            let hides = made.after(mishaps, seed, |instances| {
                !instances.is_empty() && hides_blood(instances, bound_ml)
            });
            hides.then(|| {
                format!(
                    "{} {mishaps:?} (seed {seed}): whole and without blood",
                    entry.name
                )
            })
        },
    );
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Lets mishaps come together, and gathers what `judge` says of the subject, the mishaps, the seed.
fn wrong_together(
    counts: [u64; 2],
    subjects: usize,
    mut judge: impl FnMut(usize, &[Mishap], u64) -> Option<String>,
) -> Vec<String> {
    let all = 0..counts[usize::from(is_long())];
    let seeds = one_seed().map_or(all, |seed| seed..seed + 1);
    seeds
        .filter_map(|seed| {
            let number = |step: u64, end: usize| {
                let drawn = mix_two(seed, step) % end as u64;
                usize::try_from(drawn).expect("below a length")
            };
            let together = 1 + number(1, TOGETHER_MAX);
            let mishaps: Vec<Mishap> = (0..together)
                .map(|step| ALL[number(2 + step as u64, ALL.len())])
                .collect();
            judge(number(0, subjects), &mishaps, seed)
        })
        .collect()
}

/// Whether every scan of the study is whole, and none of them shows `bound_ml` of blood: it would
/// end as routine.
fn hides_blood(instances: Vec<Instance>, bound_ml: f64) -> bool {
    let patients = by_patient(instances, Vec::new());
    let [patient] = patients.as_slice() else {
        return false;
    };
    let limits = Limits::default();
    let mut study = StudyScans::of(&patient.instances, Decoding::afresh(&limits));
    let scans: Vec<ScanVolume> = std::iter::from_fn(|| study.next_scan()).collect();
    let is_quiet = |scan: &ScanVolume| {
        let head = scan.volume.as_ref();
        scan.incomplete.is_empty() && head.is_ok_and(|head| shown_ml(head) < bound_ml)
    };
    !scans.is_empty() && scans.iter().all(is_quiet)
}

/// Blood in the volume, mL: voxels as dense as blood whose neighbours in the slice are as dense, so
/// that the blurred rim of bone does not count.
fn shown_ml(head: &HeadVolume) -> f64 {
    const BLOOD_HU: std::ops::RangeInclusive<i16> = 50..=95;
    let [x, y, z] = head.volume.grid.spacing_mm;
    let windows = head.volume.hounsfield.windows((1, 3, 3));
    let dense = windows.into_iter().filter(|window| {
        window
            .iter()
            .all(|hounsfield| BLOOD_HU.contains(hounsfield))
    });
    dense.count() as f64 * x * y * z / 1000.0
}

fn made(entries: Vec<Entry>) -> Vec<(Entry, Made)> {
    let made = |entry: Entry| {
        let made = Made::of(&entry);
        (entry, made)
    };
    entries.into_iter().map(made).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the test, not of the program under test"
)]
fn switch(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn is_long() -> bool {
    switch("TEST_LONG").is_some_and(|value| value == "1")
}

/// `TEST_SEED=N` tries one combination again, such as one that a long run names.
fn one_seed() -> Option<u64> {
    switch("TEST_SEED")?.parse().ok()
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

/// The same head in a smaller matrix.
fn coarse(mut entry: Entry) -> Entry {
    for series in &mut entry.plan.series {
        series.stack = series.stack.clone().matrix(SIDE_UNASKED_PX);
    }
    entry
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

    /// What `judge` says of the objects once `mishaps` have happened to them.
    fn after<T>(&self, mishaps: &[Mishap], seed: u64, judge: impl FnOnce(Vec<Instance>) -> T) -> T {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let mut scene = Scene::new(self.instances.clone(), folder.path(), seed);
        for mishap in mishaps {
            scene.suffer(*mishap);
        }
        judge(scene.instances)
    }

    /// Blood that the volume shows before anything has happened, mL.
    fn shown_ml(&self) -> f64 {
        let limits = Limits::default();
        let scan = StudyScans::of(&self.instances, Decoding::afresh(&limits)).next_scan();
        let head = scan.and_then(|scan| scan.volume.ok());
        head.as_ref().map_or(0.0, shown_ml)
    }
}

fn every_mishap_happens_to(name: &str) {
    let entry = catalogue::find(name).expect("in the catalogue");
    let wrong = wrong_ends(&entry, &mut network(1));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// What is wrong after each mishap alone.
fn wrong_ends(entry: &Entry, network: &mut Network) -> Vec<String> {
    let made = Made::of(entry);
    ALL.iter()
        .filter_map(|mishap| wrong_end(entry, &made, &[*mishap], 1, network))
        .collect()
}

/// What is wrong with how a study ends to which `mishaps` happened.
fn wrong_end(
    entry: &Entry,
    made: &Made,
    mishaps: &[Mishap],
    seed: u64,
    network: &mut Network,
) -> Option<String> {
    let reports = made.after(mishaps, seed, |instances| {
        (!instances.is_empty()).then(|| reports_of(instances, network))
    })?;
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
