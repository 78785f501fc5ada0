//! Workers die, stop and hang: nobody who sends notices, and every study ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::sender::{Outgoing, SUCCESS, Sender};
use tests::service::{Tez, pause};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
const SENDERS: u64 = 4;
const STUDIES_OF_EACH: u64 = 3;

struct Study {
    uid: String,
    folder: PathBuf,
    objects: Vec<Outgoing>,
}

impl Study {
    fn make(dir: &Path, seed: u64) -> Self {
        let folder = dir.join(format!("study-{seed}"));
        let paths = fixtures::make_with_seed("small_head", &folder, seed).expect("a fixture");
        let limits = pipeline::limits::Limits::default();
        let header = pipeline::header::read_instance(&paths[0], &limits).expect("a header");
        Self {
            uid: header.study_uid.to_string(),
            objects: Outgoing::read_folder(&folder).expect("Part 10 files"),
            folder,
        }
    }

    /// Sends all of it; every object must be acknowledged.
    fn send(&self, tez: &Tez, title: &str) {
        let mut sender = Sender::connect(&tez.dicom, title, &self.objects).expect("an association");
        for object in &self.objects {
            assert_eq!(sender.store(object).expect("an answer"), SUCCESS);
        }
        sender.release().expect("a release");
    }
}

/// Sends `signal` to every worker. How many there were.
fn signal(tez: &Tez, signal: &str) -> usize {
    let workers = tez.workers().expect("the service runs");
    for pid in &workers {
        // It may have ended since.
        drop(
            Command::new("kill")
                .args([signal, &pid.to_string()])
                .output(),
        );
    }
    workers.len()
}

fn codes(study: &Value) -> Vec<&str> {
    let reasons = study["report"]["reasons"].as_array().expect("reasons");
    let codes = reasons.iter().map(|reason| reason["code"].as_str());
    codes.map(|code| code.expect("a code")).collect()
}

#[test]
fn workers_that_are_killed_or_stopped_cost_no_object_and_every_study_ends() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let tez = Tez::start(Path::new(TEZ), dir.path(), "[model]\nworkers = 2").expect("tez starts");
    let studies: Vec<Study> = (0..SENDERS * STUDIES_OF_EACH)
        .map(|seed| Study::make(dir.path(), 500 + seed))
        .collect();
    let (tez, signalled) = std::thread::scope(|scope| {
        let service = &tez;
        for (number, some) in studies.chunks(3).enumerate() {
            scope.spawn(move || {
                let title = format!("SENDER{number}");
                for study in some {
                    study.send(service, &title);
                }
            });
        }
        let mut signalled = 0;
        for round in 0..6 {
            pause(Duration::from_millis(700));
            signalled += signal(service, if round % 2 == 0 { "-SEGV" } else { "-STOP" });
        }
        (service, signalled)
    });
    assert!(signalled >= 6, "only {signalled} workers were met");
    let mut analysed = 0;
    for study in &studies {
        let ended = tez.report(&study.uid, 240).expect("it ends");
        assert_eq!(ended["counts"]["objects"], study.objects.len());
        if ended["state"] == "analysed" {
            analysed += 1;
        } else {
            assert_eq!(codes(&ended), ["worker_died"], "{}", ended["report"]);
        }
    }
    assert!(analysed > 0, "a worker that is left alone works");
    println!(
        "{signalled} signals, {analysed} of {} analysed",
        studies.len()
    );
}

#[test]
fn a_hang_and_an_abort_end_their_studies_with_the_reason_and_the_next_is_analysed() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let [hangs, aborts, good] = [601, 602, 603].map(|seed| Study::make(dir.path(), seed));
    let planted = format!("hang={},abort={}", hangs.uid, aborts.uid);
    let settings = "[model]\nworkers = 1\nanalysis_seconds_max = 8";
    let tez = Tez::start_with(
        Path::new(TEZ),
        dir.path(),
        settings,
        &[("TEST_PLANTED", &planted)],
    )
    .expect("tez starts");
    for (study, code) in [(&hangs, "analysis_timed_out"), (&aborts, "worker_died")] {
        study.send(&tez, "CT1");
        let ended = tez.report(&study.uid, 60).expect("it ends");
        assert_eq!(ended["state"], "not_analysed");
        assert_eq!(ended["priority"], "unknown");
        assert_eq!(codes(&ended), [code]);
        let text = ended["report"]["reasons"][0]["text"]
            .as_str()
            .expect("a text");
        assert!(text.contains("2 times"), "{text}");
    }
    good.send(&tez, "CT1");
    let ended = tez.report(&good.uid, 60).expect("it ends");
    assert_eq!(ended["state"], "analysed", "{}", good.folder.display());
    tez.stop().expect("it stops");
}
