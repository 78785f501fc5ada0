//! What full, locked, damaged and closed disks do to a running service: it says so, loses nothing
//! that it acknowledged, and goes on by itself.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::peers::python;
use tests::random::Random;
use tests::sender::{Outgoing, SUCCESS, Sender};
use tests::service::{Tez, long_form, pause};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");
const SEED: u64 = 20_261_130;
/// Longest wait for what must happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_mins(2);
/// PS3.4 table B.2-1: out of resources, the sender may come again.
const OUT_OF_RESOURCES: u16 = 0xA700;
/// The test's disk, megabytes.
const DISK_MB: u64 = 160;

/// A study that is sent until all of it is acknowledged.
struct Load {
    study_uid: String,
    objects: Vec<Outgoing>,
}

fn load(dir: &Path, name: &str, number: u64) -> Load {
    let folder = dir.join(format!("study-{number}"));
    fixtures::make_with_seed(name, &folder, number).expect("a fixture");
    let first = fs::read_dir(&folder)
        .expect("a folder")
        .next()
        .expect("a file")
        .expect("an entry");
    let limits = pipeline::limits::Limits::default();
    let header = pipeline::header::read_instance(&first.path(), &limits).expect("a header");
    Load {
        study_uid: header.study_uid.to_string(),
        objects: Outgoing::read_folder(&folder).expect("Part 10 files"),
    }
}

/// Sends object after object until each is acknowledged; notes every status on the way.
fn push(address: &str, load: &Load, statuses: &Mutex<BTreeMap<u16, usize>>) {
    let end = Instant::now() + PATIENCE;
    let mut sent = 0;
    while sent < load.objects.len() {
        assert!(Instant::now() < end, "not acknowledged: {statuses:?}");
        let Ok(mut sender) = Sender::connect(address, "SENDER", &load.objects) else {
            pause(Duration::from_millis(100));
            continue;
        };
        while let Some(object) = load.objects.get(sent) {
            let Ok(status) = sender.store(object) else {
                break;
            };
            *statuses
                .lock()
                .expect("no sender panics")
                .entry(status)
                .or_default() += 1;
            if status == SUCCESS {
                sent += 1;
            } else {
                pause(Duration::from_millis(50));
            }
        }
        if sent == load.objects.len() {
            // Whether the release is answered does not matter: all is acknowledged.
            drop(sender.release());
        }
    }
}

/// Says whether the service is ready, and all that it says of itself.
fn readiness(tez: &Tez) -> (bool, String) {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent();
    let Ok(mut answer) = agent.get(format!("{}/readyz", tez.http)).call() else {
        return (false, String::new());
    };
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    (answer.status() == 200, text)
}

fn until(what: &str, tez: &Tez, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}; its log:\n{}", tez.log());
        pause(Duration::from_millis(50));
    }
}

/// A script that runs `tez` with a small disk of its own, or as another user. Everything that it
/// made goes with the process.
fn wrapper(dir: &Path, line: &str) -> PathBuf {
    let path = dir.join("tez-wrapped");
    fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("a script");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a script that runs");
    path
}

/// How a namespace with a mount of its own is had here: as root, else as a user of one's own.
fn unshare() -> Option<&'static str> {
    let may = |flags: &str| {
        let try_out = format!("unshare {flags} mount -t tmpfs tmpfs /mnt");
        let tried = Command::new("sh").args(["-c", &try_out]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    ["--mount", "--user --map-root-user --mount"]
        .into_iter()
        .find(|flags| may(flags))
}

/// Fills the disk to its last byte and keeps it full; free again when dropped.
struct Filler<'a> {
    path: PathBuf,
    stop: &'a AtomicBool,
}

impl Filler<'_> {
    fn run(&self) {
        let mut file = File::create(&self.path).expect("a file on the small disk");
        let block = vec![7; 64 << 10];
        while !self.stop.load(Ordering::Acquire) {
            let mut length = block.len();
            while length > 0 {
                if file.write_all(&block[..length]).is_err() {
                    length /= 2;
                }
            }
            pause(Duration::from_millis(2));
        }
        drop(file);
        fs::remove_file(&self.path).expect("the filler goes");
    }
}

/// Every object of `loads` lies below `data`, byte for byte.
fn check_objects<'a>(data: &Path, loads: impl Iterator<Item = &'a Load>) {
    let mut kept = BTreeMap::new();
    for folder in fs::read_dir(data.join("objects")).expect("the object store") {
        for file in fs::read_dir(folder.expect("an entry").path()).expect("a folder") {
            let object = Outgoing::read(&file.expect("an entry").path()).expect("a Part 10 file");
            kept.insert(object.sop_instance_uid, object.data_set);
        }
    }
    for object in loads.flat_map(|load| &load.objects) {
        assert!(
            kept.get(&object.sop_instance_uid) == Some(&object.data_set),
            "acknowledged object {} is not what was sent",
            object.sop_instance_uid
        );
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_nothing_but_the_while() {
    let rounds = if long_form() { 20 } else { 3 };
    let Some(flags) = unshare() else {
        eprintln!("LEFT OUT: the full disk needs leave to mount a small one");
        return;
    };
    let dir = tempfile::tempdir().expect("a scratch folder");
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a folder to mount on");
    let line = format!(
        "exec unshare {flags} sh -c 'mount -t tmpfs -o size={DISK_MB}m,mode=700 tmpfs {} && exec {TEZ} \"$@\"' sh \"$@\"",
        data.display()
    );
    let script = wrapper(dir.path(), &line);
    let tez = Tez::start(&script, dir.path(), "[storage]\nfree_bytes_reserve = 0\n").expect("tez");
    // The disk as the service sees it.
    let data = PathBuf::from(format!("/proc/{}/root{}", tez.pid(), data.display()));
    let mut random = Random(SEED);
    let mut loads = Vec::new();
    let statuses = Mutex::new(BTreeMap::new());
    let mut worst = Duration::ZERO;
    for round in 0..rounds {
        let new: Vec<Load> = (1..=3)
            .map(|number| load(dir.path(), "small_head", 3 * round + number))
            .collect();
        let full_from = Duration::from_millis(random.below(1_200));
        let full_for =
            Duration::from_millis(random.below(if long_form() { 12_000 } else { 3_000 }));
        let recovered = one_round(&tez, &data, (&new, &statuses), (full_from, full_for));
        worst = worst.max(recovered);
        loads.extend(new);
        check_objects(&data, loads.iter());
    }
    let metrics = tez.get_text("/metrics").expect("metrics");
    let failures = metrics.lines().find_map(|line| {
        line.strip_prefix("tez_database_failures_total{why=\"full\"} ")
            .and_then(|text| text.parse::<u64>().ok())
    });
    let failures = failures.expect("the database met the full disk");
    println!(
        "{rounds} rounds, {} studies, {} objects acknowledged and found, every study ended; \
         statuses {:?}; {failures} failed writes; ready again after {:.1} s at most",
        loads.len(),
        loads.iter().map(|load| load.objects.len()).sum::<usize>(),
        statuses.lock().expect("no sender panics"),
        worst.as_secs_f64()
    );
    let met = statuses.lock().expect("no sender panics").clone();
    let others = met
        .keys()
        .any(|status| ![SUCCESS, OUT_OF_RESOURCES].contains(status));
    assert!(met.contains_key(&OUT_OF_RESOURCES) && !others, "{met:x?}");
    stops_while_full(tez, &data);
}

/// Sends while the disk fills and frees again; then every study ends. Returns how long after there
/// was room the service was ready.
fn one_round(
    tez: &Tez,
    data: &Path,
    (loads, statuses): (&[Load], &Mutex<BTreeMap<u16, usize>>),
    (full_from, full_for): (Duration, Duration),
) -> Duration {
    let stop = AtomicBool::new(false);
    let filler = Filler {
        path: data.join("filler"),
        stop: &stop,
    };
    // At first the database's log has to grow with every write, so a full disk fails each. Later
    // small writes go over old ones, and only the store may notice.
    let is_first = statuses.lock().expect("no sender panics").is_empty();
    let wanted = if is_first {
        "studies are not kept up to date"
    } else {
        "the disk is full"
    };
    let recovered = std::thread::scope(|scope| {
        let (late, early) = loads.split_first().expect("there are loads");
        for load in early {
            scope.spawn(|| push(&tez.dicom, load, statuses));
        }
        pause(full_from);
        let filling = scope.spawn(|| filler.run());
        let full_since = Instant::now();
        until("it does not say that it is not ready", tez, || {
            let (ready, text) = readiness(tez);
            !ready && text.to_lowercase().contains(wanted)
        });
        scope.spawn(|| push(&tez.dicom, late, statuses));
        let list = tez.get("/api/v1/worklist").expect("the worklist");
        let told = list["problems"].as_array().expect("a list");
        assert!(!told.is_empty(), "the worklist says nothing of it");
        pause(full_for.saturating_sub(full_since.elapsed()));
        stop.store(true, Ordering::Release);
        filling.join().expect("the filler ends");
        let free_since = Instant::now();
        until("it is not ready again", tez, || readiness(tez).0);
        free_since.elapsed()
    });
    for load in loads {
        let study = tez.report(&load.study_uid, 120).expect("a terminal state");
        assert_eq!(study["state"], "analysed", "{study}");
    }
    recovered
}

fn stops_while_full(tez: Tez, data: &Path) {
    let stop = AtomicBool::new(false);
    let filler = Filler {
        path: data.join("filler"),
        stop: &stop,
    };
    std::thread::scope(|scope| {
        // The disk goes with the process; whatever happens then to the filler's file is well.
        scope.spawn(|| filler.run());
        until("it does not say that it is not ready", &tez, || {
            !readiness(&tez).0
        });
        stop.store(true, Ordering::Release);
    });
    let mut rest = File::create(data.join("rest")).expect("a file");
    while rest.write_all(&[7; 4096]).is_ok() {}
    let since = Instant::now();
    tez.stop().expect("it ends when it is told to");
    assert!(since.elapsed() < Duration::from_secs(45));
}

/// Another program that holds the database's lock for writing until it is dropped.
struct Holder {
    child: Child,
    hold: Option<ChildStdin>,
}

impl Holder {
    fn start(database: &Path) -> Self {
        let program = "import sqlite3, sys\n\
                       c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n\
                       c.execute('BEGIN IMMEDIATE')\n\
                       print('held', flush=True)\n\
                       sys.stdin.read()\n";
        let mut child = Command::new(python().expect("Python"))
            .args(["-c", program])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let mut said = [0; 5];
        let out = child.stdout.as_mut().expect("piped");
        out.read_exact(&mut said).expect("the lock is held");
        let hold = child.stdin.take();
        Self { child, hold }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.hold.take());
        drop(self.child.wait());
    }
}

#[test]
fn a_database_that_another_program_locks_is_waited_for_and_stopping_stops() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let tez = Tez::start(Path::new(TEZ), dir.path(), "").expect("tez");
    let database = dir.path().join("data/tez.sqlite");
    let new = load(dir.path(), "small_head", 1);
    let statuses = Mutex::new(BTreeMap::new());
    let held = Holder::start(&database);
    push(&tez.dicom, &new, &statuses);
    until("it does not say what is wrong", &tez, || {
        let (ready, text) = readiness(&tez);
        !ready && text.contains("Another program holds the database")
    });
    drop(held);
    let study = tez.report(&new.study_uid, 120).expect("a terminal state");
    assert_eq!(study["state"], "analysed", "{study}");
    until("it is not ready again", &tez, || readiness(&tez).0);

    let _held = Holder::start(&database);
    push(&tez.dicom, &load(dir.path(), "small_head", 2), &statuses);
    let since = Instant::now();
    tez.stop().expect("it ends when it is told to");
    assert!(since.elapsed() < Duration::from_secs(45));
}

#[test]
fn a_folder_that_turns_read_only_is_told_and_waited_for() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let data = dir.path().join("data");
    fs::create_dir(&data).expect("a folder");
    let as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let may = format!("{as_nobody} true && chown 65534:65534 {}", data.display());
    let may = Command::new("sh").args(["-c", &may]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("LEFT OUT: a folder that turns read-only needs root, to be another user");
        return;
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("a way to it");
    let script = wrapper(dir.path(), &format!("exec {as_nobody} {TEZ} \"$@\""));
    let tez = Tez::start(&script, dir.path(), "").expect("tez");
    let first = load(dir.path(), "small_head", 1);
    let folders = ["", "incoming", "spool"].map(|name| data.join(name));
    let give = |mode| {
        for folder in &folders {
            fs::set_permissions(folder, Permissions::from_mode(mode)).expect("root may");
        }
    };
    give(0o500);
    let (ready, text) = readiness(&tez);
    assert!(!ready && text.contains("No object is taken"), "{text}");
    let mut sender = Sender::connect(&tez.dicom, "SENDER", &first.objects).expect("an association");
    let status = sender.store(&first.objects[0]).expect("an answer");
    assert!(
        status != SUCCESS && status != OUT_OF_RESOURCES,
        "{status:04x}"
    );
    sender.release().expect("a release");
    give(0o700);
    push(&tez.dicom, &first, &Mutex::new(BTreeMap::new()));
    let study = tez.report(&first.study_uid, 120).expect("a terminal state");
    assert_eq!(study["state"], "analysed", "{study}");
    assert!(readiness(&tez).0);
    give(0o500);
    tez.stop().expect("it ends when it is told to");
}

/// Overwrites the middle of every page from the second on.
fn damage(database: &Path) {
    let mut bytes = fs::read(database).expect("the database");
    assert!(bytes.len() > 8 * 4096, "enough to damage");
    for page in bytes.chunks_mut(4096).skip(1) {
        page[..2048].fill(0xA5);
    }
    fs::write(database, bytes).expect("written");
}

/// The worklist from top to bottom: each study, and when its first and last object came, in seconds
/// of the day.
fn order(tez: &Tez) -> Vec<(String, [i64; 2])> {
    let list = tez.get("/api/v1/worklist").expect("the worklist");
    let studies = list["studies"].as_array().expect("a list");
    let entry = |study: &Value| {
        let uid = study["study_uid"].as_str().expect("a UID").to_owned();
        let times = ["received_first", "received_last"];
        (uid, times.map(|name| second_of_day(&study["times"][name])))
    };
    studies.iter().map(entry).collect()
}

/// Of a time such as `2026-11-30T16:15:49.123Z`.
fn second_of_day(time: &Value) -> i64 {
    let clock = time.as_str().and_then(|text| text.get(11..19));
    let fields = clock.expect("a time").split(':');
    fields.fold(0, |sum, field| {
        sum * 60 + field.parse::<i64>().expect("a number")
    })
}

/// Whether two seconds of the day lie as close as the writing of a file and of its row.
fn is_close(one: i64, other: i64) -> bool {
    let apart = (one - other).rem_euclid(86_400);
    apart.min(86_400 - apart) <= 3
}

#[test]
fn a_damaged_database_is_told_with_its_cure_and_made_again_from_the_objects() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let data = dir.path().join("data");
    let tez = Tez::start(Path::new(TEZ), dir.path(), "").expect("tez");
    let statuses = Mutex::new(BTreeMap::new());
    for number in 1..=3 {
        let new = load(dir.path(), "small_head", number);
        push(&tez.dicom, &new, &statuses);
        tez.report(&new.study_uid, 120).expect("a terminal state");
    }
    let before = order(&tez);
    assert_eq!(before.len(), 3);
    tez.stop().expect("tez stops");
    // Long enough for the time of the start to be told from those of receipt.
    pause(Duration::from_secs(5));

    damage(&data.join("tez.sqlite"));
    let refused = Tez::start(Path::new(TEZ), dir.path(), "").expect_err("it cannot start so");
    let refused = format!("{refused:#}");
    let cure = "move tez.sqlite, tez.sqlite-wal and tez.sqlite-shm out of the data folder";
    assert!(refused.contains(cure), "{refused}");
    let check = Command::new(TEZ)
        .args(["check", "--json", "--config"])
        .arg(dir.path().join("tez.toml"))
        .output()
        .expect("tez check runs");
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    let database = said.lines().find(|line| line.contains("\"database\""));
    let database = database.unwrap_or_else(|| panic!("no such check: {said}"));
    assert!(
        database.contains("\"fail\"") && database.contains("damaged"),
        "{database}"
    );
    assert!(database.contains("tez.sqlite-wal"), "{database}");

    for name in ["tez.sqlite", "tez.sqlite-wal", "tez.sqlite-shm"] {
        if data.join(name).try_exists().expect("the folder is read") {
            fs::rename(data.join(name), dir.path().join(name)).expect("moved away");
        }
    }
    let tez = Tez::start(Path::new(TEZ), dir.path(), "").expect("tez starts without it");
    for (uid, ..) in &before {
        let study = tez.report(uid, 120).expect("a terminal state");
        assert_eq!(study["state"], "analysed", "{study}");
    }
    let after = order(&tez);
    for ((uid, times), (other_uid, other_times)) in before.iter().zip(&after) {
        assert_eq!(uid, other_uid, "the order is kept");
        let kept = times
            .iter()
            .zip(other_times)
            .all(|(one, other)| is_close(*one, *other));
        assert!(kept, "times of receipt are kept: {before:?}, {after:?}");
    }
    tez.stop().expect("tez stops");
}

/// Every file and folder below `folder`, itself too, with owner and rights.
fn rights(folder: &Path) -> BTreeMap<PathBuf, (u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder");
            left.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        seen.insert(path, (metadata.uid(), metadata.mode() & 0o777));
    }
    seen
}

/// No right for anybody but the owner.
fn is_private(mode: u32) -> bool {
    mode | 0o700 == 0o700
}

#[test]
fn data_are_the_services_own_and_a_check_by_root_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let data = dir.path().join("data");
    let as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let may = Command::new("sh")
        .args(["-c", &format!("{as_nobody} true")])
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("LEFT OUT: a check by root needs root");
        return;
    }
    let settings = dir.path().join("tez.toml");
    let text = format!("data_dir = {:?}\n", data.display().to_string());
    fs::write(&settings, text).expect("settings");
    let check = || {
        let run = Command::new(TEZ)
            .args(["check", "--config"])
            .arg(&settings)
            .output();
        String::from_utf8_lossy(&run.expect("tez check runs").stdout).into_owned()
    };
    let said = check();
    assert!(said.contains("is not there yet"), "{said}");
    assert!(!data.try_exists().expect("the folder is read"), "{said}");

    // As an earlier version made it: open to all.
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("a way to it");
    fs::create_dir(&data).expect("a folder");
    fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("open");
    std::os::unix::fs::chown(&data, Some(65_534), Some(65_534)).expect("root may");
    let script = wrapper(
        dir.path(),
        &format!("umask 022; exec {as_nobody} {TEZ} \"$@\""),
    );
    let tez = Tez::start(&script, dir.path(), "").expect("tez");
    let new = load(dir.path(), "small_head", 1);
    push(&tez.dicom, &new, &Mutex::new(BTreeMap::new()));
    tez.report(&new.study_uid, 120).expect("a terminal state");
    let live = rights(&data);
    assert!(
        live.contains_key(&data.join("tez.sqlite-wal")),
        "{:?}",
        live.keys()
    );
    for (path, (owner, mode)) in &live {
        assert!(
            *owner == 65_534 && is_private(*mode),
            "{}: {mode:o}",
            path.display()
        );
    }
    tez.kill().expect("killed: the log of the database stays");
    let said = check();
    assert!(said.contains("1 studies are known"), "{said}");
    assert!(
        said.contains("belongs to the user with number 65534"),
        "{said}"
    );
    for (path, (owner, mode)) in rights(&data) {
        assert!(
            owner == 65_534 && is_private(mode),
            "{}: {mode:o}",
            path.display()
        );
    }
    let tez = Tez::start(&script, dir.path(), "").expect("it starts after the check");
    tez.report(&new.study_uid, 120).expect("what it knew");
    tez.stop().expect("tez stops");
}
