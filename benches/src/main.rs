//! Measures a released `tez` from outside, on loopback.
//!
//! Every figure is printed with what it was measured on; `benches/README.md` keeps a table of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;
use tests::peers::{self, Orthanc};
use tests::sender::{Outgoing, SUCCESS, Sender};
use tests::service::{Tez, pause, workspace_root};

/// Last slice to finding, memory and STOW-RS rate of a built `tez`.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program to measure.
    #[arg(long, default_value = "target/release/tez")]
    binary: PathBuf,
    /// How often each figure is taken; the median is printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Leave Orthanc's STOW-RS out.
    #[arg(long)]
    without_orthanc: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let binary = workspace_root().join(&arguments.binary);
    ensure!(
        binary.is_file(),
        "{} is missing: run `cargo build --release`",
        binary.display()
    );
    let scratch = tempfile::tempdir()?;
    let mut exceeded = Vec::new();
    for name in ["thick32", "thin300"] {
        let folder = scratch.path().join(name);
        fixtures::make(name, &folder).with_context(|| format!("making {name}"))?;
        exceeded.extend(last_slice_to_finding(
            &binary,
            name,
            &folder,
            arguments.runs,
        )?);
    }
    let thin = scratch.path().join("thin300");
    compressed(&binary, &thin, arguments.runs.min(PACED_RUNS_MAX))?;
    stow_rates(&binary, &thin, &arguments)?;
    ensure!(exceeded.is_empty(), "over budget: {}", exceeded.join("; "));
    Ok(())
}

/// How often the worklist is asked for: each question takes from the cores that the network runs on (every 2 ms: a quarter of
/// the inference on two slow ones).
const POLLED: Duration = Duration::from_millis(20);

/// A scanner's pace, slices each second, for compressed slices: they are decoded while others come.
const PACE: f64 = 25.0;
/// At that pace 300 slices take 12 seconds.
const PACED_RUNS_MAX: usize = 3;
/// Groups of ways to pack a study that `encode_study.py` knows, of lossless syntaxes.
const PACKED: [&str; 3] = ["jpeg_lossless", "jpeg_ls", "jpeg_2000"];

/// One study's times and the server's memory.
struct Run {
    association_s: f64,
    to_finding_ms: f64,
    inference_ms: f64,
    prepared_ms: f64,
    memory_mib: [f64; 2],
    worker_memory_mib: f64,
}

/// What each figure may be at most: by figure, then by study.
type Budgets = BTreeMap<String, toml::Value>;

fn budgets() -> Result<Budgets> {
    let path = workspace_root().join("benches/BUDGETS.toml");
    let text = std::fs::read_to_string(&path)?;
    toml::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// Prints the study's figures; returns those that exceed their budgets.
fn last_slice_to_finding(
    binary: &Path,
    name: &str,
    folder: &Path,
    runs: usize,
) -> Result<Vec<String>> {
    let objects = Outgoing::read_folder(folder)?;
    let runs: Vec<Run> = (0..runs)
        .map(|_| one_run(binary, &objects, Duration::ZERO))
        .collect::<Result<_>>()?;
    let median = |pick: fn(&Run) -> f64| median(runs.iter().map(pick).collect());
    let figures = [
        ("sending_s", median(|run| run.association_s)),
        ("to_finding_ms", median(|run| run.to_finding_ms)),
        ("inference_ms", median(|run| run.inference_ms)),
        (
            "to_finding_without_inference_ms",
            median(|run| run.to_finding_ms - run.inference_ms),
        ),
        ("decode_to_prepared_ms", median(|run| run.prepared_ms)),
        ("memory_at_rest_mib", median(|run| run.memory_mib[0])),
        ("memory_most_mib", median(|run| run.memory_mib[1])),
        (
            "worker_memory_most_mib",
            median(|run| run.worker_memory_mib),
        ),
    ];
    say(&format!(
        "{name}, {} slices, median of {} runs",
        objects.len(),
        runs.len()
    ));
    let budgets = budgets()?;
    let mut exceeded = Vec::new();
    for (figure, value) in figures {
        let budget = budgets.get(figure).and_then(|studies| studies.get(name));
        let budget = budget
            .and_then(toml::Value::as_integer)
            .map(|most| most as f64);
        say(&format!(
            "  {figure:34} {value:8.2}{}",
            budget.map_or(String::new(), |most| format!("  of {most}"))
        ));
        if budget.is_some_and(|most| value > most) {
            exceeded.push(format!("{name} {figure}: {value:.2}"));
        }
    }
    Ok(exceeded)
}

/// Sends `objects`, one each `interval`, and waits for their finding.
fn one_run(binary: &Path, objects: &[Outgoing], interval: Duration) -> Result<Run> {
    let scratch = tempfile::tempdir()?;
    let tez = Tez::start(binary, scratch.path(), "")?;
    let at_rest = memory_mib(tez.pid(), "VmRSS")?;
    let begin = Instant::now();
    let mut sender = Sender::connect(&tez.dicom, "BENCH", objects)?;
    let mut due = begin;
    for object in objects {
        pause(due.saturating_duration_since(Instant::now()));
        due += interval;
        ensure!(sender.store(object)? == SUCCESS, "an object was refused");
    }
    let last_slice = Instant::now();
    sender.release()?;
    let row = first_finished_row(&tez)?;
    let to_finding_ms = last_slice.elapsed().as_secs_f64() * 1e3;
    let uid = row["study_uid"].as_str().context("a study UID")?;
    let report = tez.report(uid, 1)?;
    let stage_ms = |stage: &str| {
        let time = report["report"]["timing_ms"][stage].as_f64();
        time.with_context(|| format!("no time of stage {stage}"))
    };
    Ok(Run {
        association_s: (last_slice - begin).as_secs_f64(),
        to_finding_ms,
        inference_ms: stage_ms("inference")?,
        prepared_ms: stage_ms("volume")? + stage_ms("prepare")?,
        memory_mib: [at_rest, memory_mib(tez.pid(), "VmHWM")?],
        worker_memory_mib: workers_memory_mib(&tez)?,
    })
}

/// The most that any worker of `tez` took.
fn workers_memory_mib(tez: &Tez) -> Result<f64> {
    let mut most = 0.0;
    for pid in tez.workers()? {
        most = f64::max(most, memory_mib(pid, "VmHWM")?);
    }
    Ok(most)
}

/// Prints how long the finding of 300 slices takes at a scanner's pace, in each compressed syntax.
fn compressed(binary: &Path, folder: &Path, runs: usize) -> Result<()> {
    say(&format!(
        "300 slices at {PACE} each second, last slice to finding, median of {runs} runs"
    ));
    let scratch = tempfile::tempdir()?;
    paced(binary, "uncompressed", folder, runs)?;
    for group in PACKED {
        let out = scratch.path().join(group);
        let made = peers::run(
            Command::new(peers::python()?)
                .arg(workspace_root().join("tests/peers/encode_study.py"))
                .arg(folder)
                .arg(&out)
                .arg(group),
        )?;
        let mut measured = BTreeSet::new();
        for line in String::from_utf8(made.stdout)?.lines() {
            let mut words = line.split(' ');
            let (Some(name), Some(syntax)) = (words.next(), words.next()) else {
                continue;
            };
            // The first way of each syntax has all slices.
            if measured.insert(syntax.to_owned()) {
                paced(binary, &format!("{name} ({syntax})"), &out.join(name), runs)?;
            }
        }
        std::fs::remove_dir_all(&out)?;
    }
    Ok(())
}

fn paced(binary: &Path, name: &str, folder: &Path, runs: usize) -> Result<()> {
    let objects = Outgoing::read_folder(folder)?;
    let interval = Duration::from_secs_f64(1.0 / PACE);
    let times: Vec<f64> = (0..runs)
        .map(|_| Ok(one_run(binary, &objects, interval)?.to_finding_ms))
        .collect::<Result<_>>()?;
    say(&format!("  {name:42} {:8.0} ms", median(times)));
    Ok(())
}

/// Asks for the worklist until its first study is finished.
fn first_finished_row(tez: &Tez) -> Result<Value> {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        let worklist = tez.get("/api/v1/worklist")?;
        if let Some(row) = worklist["studies"].get(0)
            && tests::service::is_terminal(row)
        {
            ensure!(row["state"] == "analysed", "the study ended as {row}");
            return Ok(row.clone());
        }
        ensure!(
            Instant::now() < end,
            "no study was finished: {worklist}\n{}",
            tez.log()
        );
        pause(POLLED);
    }
}

/// A line of `/proc/PID/status`, turned into MiB.
fn memory_mib(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .context("a memory figure")?;
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .context("a number")?
        .parse()?;
    Ok(kib / 1024.0)
}

/// One POST of the whole study, to Tez and to Orthanc in turn.
fn stow_rates(binary: &Path, folder: &Path, arguments: &Arguments) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let body = scratch.path().join("stow.bin");
    let slices = write_stow_body(folder, &body)?;
    let mut rates: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for run in 0..arguments.runs {
        let dir = scratch.path().join(format!("run-{run}"));
        std::fs::create_dir_all(dir.join("orthanc"))?;
        let tez = Tez::start(binary, &dir, "")?;
        rates[0].push(slices / stow_seconds(&format!("{}/dicom-web/studies", tez.http), &body)?);
        if !arguments.without_orthanc {
            let orthanc = Orthanc::start(&dir, tez.dicom_port())?;
            rates[1].push(slices / stow_seconds(&orthanc.stow_url(), &body)?);
        }
        std::fs::remove_dir_all(&dir)?;
    }
    let ours = median(rates[0].clone());
    if arguments.without_orthanc {
        say(&format!(
            "STOW-RS, one POST of {slices} slices: {ours:.0} slices/s"
        ));
    } else {
        let theirs = median(rates[1].clone());
        say(&format!(
            "STOW-RS, one POST of {slices} slices: Tez {ours:.0} slices/s, Orthanc {theirs:.0} slices/s, ratio {:.1}",
            ours / theirs
        ));
    }
    Ok(())
}

fn write_stow_body(folder: &Path, body: &Path) -> Result<f64> {
    let mut bytes = Vec::new();
    let mut slices = 0.0;
    for entry in std::fs::read_dir(folder)? {
        bytes.extend_from_slice(b"--BOUNDARY\r\nContent-Type: application/dicom\r\n\r\n");
        bytes.extend(std::fs::read(entry?.path())?);
        bytes.extend_from_slice(b"\r\n");
        slices += 1.0;
    }
    bytes.extend_from_slice(b"--BOUNDARY--\r\n");
    std::fs::write(body, bytes)?;
    Ok(slices)
}

fn stow_seconds(url: &str, body: &Path) -> Result<f64> {
    let begin = Instant::now();
    peers::run(
        Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail-with-body",
                "-H",
                "Expect:",
                "-o",
                "/dev/null",
                "-H",
            ])
            .arg("Content-Type: multipart/related; type=\"application/dicom\"; boundary=BOUNDARY")
            .args(["-H", "Accept: application/dicom+json", "--data-binary"])
            .arg(format!("@{}", body.display()))
            .arg(url),
    )?;
    Ok(begin.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::print_stdout, reason = "a program whose output is its figures")]
fn say(line: &str) {
    println!("{line}");
}
