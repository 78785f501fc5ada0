//! A running `tez serve`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fixtures::scratch_database;
use serde_json::Value;

/// How long a start may take on a loaded machine.
const START_SECONDS_MAX: u64 = 60;

/// A service under test; killed when dropped.
#[derive(Debug)]
pub struct Tez {
    child: Child,
    /// Where it listens for DICOM, such as `127.0.0.1:40123`.
    pub dicom: String,
    /// Its address for HTTP, such as `http://127.0.0.1:40124`.
    pub http: String,
    log: PathBuf,
}

impl Tez {
    /// Starts `binary serve` with its data in `dir/data` and `extra` lines in its settings. Where
    /// `TEST_POSTGRES_URL` is set, its state lies in a database of this folder's own.
    ///
    /// # Errors
    ///
    /// When it does not say that it is ready in time; the text holds the end of its log.
    pub fn start(binary: &Path, dir: &Path, extra: &str) -> Result<Self> {
        Self::start_with(binary, dir, extra, &[])
    }

    /// The same with `variables` in its environment.
    ///
    /// # Errors
    ///
    /// As [`Tez::start`].
    pub fn start_with(
        binary: &Path,
        dir: &Path,
        extra: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let settings = dir.join("tez.toml");
        std::fs::write(&settings, settings_text(dir, extra))?;
        let log = dir.join("tez.log");
        let mut child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&settings)
            .envs(variables.iter().copied())
            .envs(scratch_database::url(dir).map(|url| ("TEZ_DATABASE__URL", url)))
            .current_dir(workspace_root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let ready = follow(stderr, log.clone());
        if let Ok((dicom, http)) = ready.recv_timeout(Duration::from_secs(START_SECONDS_MAX)) {
            return Ok(Self {
                child,
                dicom,
                http,
                log,
            });
        }
        let ended = child.try_wait()?;
        child.kill()?;
        child.wait()?;
        bail!(
            "tez was not ready (ended: {ended:?}); its log:\n{}",
            tail(&log)
        )
    }

    /// Port of the DICOM listener.
    pub fn dicom_port(&self) -> &str {
        self.dicom.rsplit(':').next().unwrap_or_default()
    }

    /// `GET path` as JSON.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is not 2xx or not JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let text = self.get_text(path)?;
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
    }

    /// `GET path` as text.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is not 2xx.
    pub fn get_text(&self, path: &str) -> Result<String> {
        let mut answer = ureq::get(format!("{}{path}", self.http))
            .call()
            .with_context(|| format!("GET {path}"))?;
        Ok(answer.body_mut().read_to_string()?)
    }

    /// Waits until the study has a report, and returns what `/api/v1/studies/{uid}` says.
    ///
    /// # Errors
    ///
    /// When it has none after `seconds`; the text holds the end of the service's log.
    pub fn report(&self, study_uid: &str, seconds: u64) -> Result<Value> {
        let path = format!("/api/v1/studies/{study_uid}");
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let last = self.get(&path);
            if let Ok(study) = &last
                && is_terminal(study)
            {
                return last;
            }
            if Instant::now() > end {
                bail!(
                    "study {study_uid} did not end: {last:?}\n{}",
                    tail(&self.log)
                );
            }
            pause(Duration::from_millis(50));
        }
    }

    /// Ends it as a power cut would: SIGKILL.
    ///
    /// # Errors
    ///
    /// When the process cannot be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as an operator would: SIGTERM, and waits for it.
    ///
    /// # Errors
    ///
    /// When it does not end well.
    pub fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("tez ended with {status}; its log:\n{}", tail(&self.log));
        }
        Ok(())
    }

    /// Process id, for measuring.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process ids of its workers, as they are now.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let mut workers = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            // A thread may have ended since.
            let children = std::fs::read_to_string(task?.path().join("children"));
            let children = children.unwrap_or_default();
            workers.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        Ok(workers)
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Tez {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Whether a study's answer holds a finished report and nothing is on its way.
pub fn is_terminal(study: &Value) -> bool {
    matches!(
        study["state"].as_str(),
        Some("analysed" | "partial" | "not_analysed")
    )
}

/// The report's part that must not differ between runs and roads.
pub fn findings_json(study: &Value) -> Value {
    let mut report = study["report"].clone();
    if let Some(fields) = report.as_object_mut() {
        fields.remove("timing_ms");
    }
    report
}

/// The checkout's top folder.
///
/// # Panics
///
/// Never: this crate's folder has a parent.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

/// The folder of real data beside the checkout, if it is there. Says so where it is not, so that
/// `cargo xtask test` can count what was left out.
#[expect(
    clippy::print_stderr,
    reason = "it is how a test says that it was left out"
)]
pub fn shared_data(test: &str) -> Option<PathBuf> {
    let shared = workspace_root().parent()?.join("shared");
    if shared.join("data").is_dir() {
        return Some(shared);
    }
    eprintln!("LEFT OUT: {test} needs ../shared beside the checkout");
    None
}

/// Whether the long form of tests was asked for: `cargo xtask test --long`.
pub fn long_form() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the long form is asked for by the environment"
    )]
    let asked = std::env::var("TEST_LONG");
    asked.is_ok_and(|text| text == "1")
}

/// Waits without a condition: for polling a service from outside.
pub fn pause(time: Duration) {
    #[expect(
        clippy::disallowed_methods,
        reason = "polling a process from outside has no condition to wait on"
    )]
    std::thread::sleep(time);
}

fn settings_text(dir: &Path, extra: &str) -> String {
    // `extra` comes first: its bare keys belong to the top, and its sections may not repeat ours.
    let data_dir = dir.join("data");
    let mut text = format!("data_dir = {:?}\n{extra}\n", data_dir.display().to_string());
    for (section, line) in [
        ("[dicom]", "bind = \"127.0.0.1:0\""),
        ("[http]", "bind = \"127.0.0.1:0\""),
    ] {
        if !extra.contains(section) {
            text.extend([section, "\n", line, "\n"]);
        }
    }
    text
}

/// Copies the service's log to a file and sends the two addresses once it is ready.
fn follow(stderr: std::process::ChildStderr, log: PathBuf) -> mpsc::Receiver<(String, String)> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let Ok(mut file) = std::fs::File::create(&log) else {
            return;
        };
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(addresses) = ready_line(&line) {
                drop(sender.send(addresses));
            }
            drop(std::io::Write::write_all(
                &mut file,
                format!("{line}\n").as_bytes(),
            ));
        }
    });
    receiver
}

fn ready_line(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("tez ready ")?;
    let field = |name: &str| {
        rest.split_whitespace()
            .find_map(|word| word.strip_prefix(name))
            .map(str::to_owned)
    };
    Some((field("dicom=")?, field("http=")?))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
