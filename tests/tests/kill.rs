//! `kill -9` while four senders push: nothing acknowledged is lost, every complete study ends.
//!
//! Twenty kills by default; `TEST_KILLS` sets another count (`cargo xtask kill-test`).
#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use pipeline::content::{ContentHash, ContentHasher};
use tests::random::Random;
use tests::sender::{Outgoing, SUCCESS, Sender};
use tests::service::{Tez, pause};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
const SENDERS: usize = 4;
const SEED: u64 = 20_261_123;

/// What one sender has to bring over, again and again, until all of it is acknowledged.
struct Load {
    study_uid: String,
    objects: Vec<Outgoing>,
    acknowledged: Mutex<BTreeMap<String, ContentHash>>,
}

#[test]
fn nothing_acknowledged_is_lost_over_kills() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the long form is asked for by the environment"
    )]
    let kills: u64 = std::env::var("TEST_KILLS").map_or(20, |text| text.parse().expect("a count"));
    let dir = tempfile::tempdir().expect("a scratch folder");
    let mut random = Random(SEED);
    let mut ended = Vec::new();
    let mut generation = 0;
    let mut loads = make_loads(dir.path(), generation);
    for kill in 1..=kills {
        let tez = Tez::start(Path::new(TEZ), dir.path(), "").expect("tez starts after a kill");
        let patience = Duration::from_millis(5 + random.below(600));
        push_until_killed(tez, &loads, patience);
        check_objects(&dir.path().join("data"), ended.iter().chain(&loads));
        // Fresh studies now and then, so that kills meet every part of a study's life.
        if kill % 5 == 0 {
            generation += 1;
            ended.append(&mut loads);
            loads = make_loads(dir.path(), generation);
        }
    }
    ended.append(&mut loads);
    finish(dir.path(), &ended);
    println!(
        "{kills} kills, {} studies, {} objects acknowledged and found",
        ended.len(),
        acknowledged(&ended)
    );
}

/// Four studies of their own content.
fn make_loads(dir: &Path, generation: u64) -> Vec<Load> {
    (0..SENDERS)
        .map(|sender| {
            let folder = dir.join(format!("study-{generation}-{sender}"));
            let seed = generation * 100 + sender as u64;
            fixtures::make_with_seed("small_head", &folder, seed).expect("a fixture");
            let objects = Outgoing::read_folder(&folder).expect("Part 10 files");
            let study_uid = study_uid_of(&folder);
            Load {
                study_uid,
                objects,
                acknowledged: Mutex::new(BTreeMap::new()),
            }
        })
        .collect()
}

fn study_uid_of(folder: &Path) -> String {
    let first = std::fs::read_dir(folder)
        .expect("a folder")
        .next()
        .expect("a file")
        .expect("an entry");
    let header =
        pipeline::header::read_instance(&first.path(), &pipeline::limits::Limits::default());
    header.expect("a header").study_uid.to_string()
}

/// Lets four senders push, and kills the service after `patience`.
fn push_until_killed(tez: Tez, loads: &[Load], patience: Duration) {
    let address = tez.dicom.clone();
    std::thread::scope(|scope| {
        for (index, load) in loads.iter().enumerate() {
            let address = &address;
            // The service dies under the sender: an error here is what the test is about.
            scope.spawn(move || drop(push(address, &format!("SENDER{index}"), load)));
        }
        pause(patience);
        tez.kill().expect("killed");
    });
}

/// Sends what is not acknowledged yet, and notes what is.
fn push(address: &str, title: &str, load: &Load) -> anyhow::Result<()> {
    let mut sender = Sender::connect(address, title, &load.objects)?;
    for object in &load.objects {
        let known = load
            .acknowledged
            .lock()
            .expect("no sender panics")
            .contains_key(&object.sop_instance_uid);
        if !known && sender.store(object)? == SUCCESS {
            let hash = content_hash(&object.transfer_syntax_uid, &object.data_set);
            load.acknowledged
                .lock()
                .expect("no sender panics")
                .insert(object.sop_instance_uid.clone(), hash);
        }
    }
    sender.release()
}

fn content_hash(transfer_syntax_uid: &str, data_set: &[u8]) -> ContentHash {
    let mut hasher = ContentHasher::new(transfer_syntax_uid);
    hasher.update(data_set);
    hasher.finish()
}

/// Every acknowledged object lies on disk with the bytes that were sent.
fn check_objects<'a>(data: &Path, loads: impl Iterator<Item = &'a Load>) {
    let mut on_disk = BTreeMap::new();
    for path in files_below(&data.join("objects")) {
        let object =
            Outgoing::read(&path).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
        let hash = content_hash(&object.transfer_syntax_uid, &object.data_set);
        on_disk.insert(object.sop_instance_uid, hash);
    }
    for load in loads {
        for (uid, hash) in load.acknowledged.lock().expect("no sender panics").iter() {
            assert_eq!(
                on_disk.get(uid),
                Some(hash),
                "acknowledged object {uid} of study {}",
                load.study_uid
            );
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// Brings the rest over undisturbed; then every study has a report.
fn finish(dir: &Path, loads: &[Load]) {
    let tez = Tez::start(Path::new(TEZ), dir, "").expect("tez starts");
    for (index, load) in loads.iter().enumerate() {
        push(&tez.dicom, &format!("SENDER{}", index % SENDERS), load).expect("the rest goes over");
        let acknowledged = load.acknowledged.lock().expect("no sender panics").len();
        assert_eq!(acknowledged, load.objects.len(), "study {}", load.study_uid);
    }
    for load in loads {
        let study = tez.report(&load.study_uid, 120).expect("a terminal state");
        assert_eq!(study["state"], "analysed", "{study}");
    }
    check_objects(&dir.join("data"), loads.iter());
    tez.stop().expect("tez stops");
}

fn acknowledged(loads: &[Load]) -> usize {
    loads
        .iter()
        .map(|load| load.acknowledged.lock().expect("no sender panics").len())
        .sum()
}
