//! The demo: a service, a synthetic head CT sent to it over DICOM, and what it finds.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::onnxruntime;
use crate::shell::{self, cache, cargo, checkout, step};

/// How long a start or a result may take on a slow, loaded machine.
const WAIT_SECONDS_MAX: u64 = 120;
/// How often the worklist is asked for a result.
const POLL_MS: u64 = 100;
/// The synthetic study that is sent.
const STUDY: &str = "bleed_intraparenchymal_left";

/// When the demo ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Ctrl-C.
    Interrupted,
    /// The first result.
    FirstResult,
}

/// Sets up what is missing, and shows the way from a DICOM sender to the worklist.
pub(crate) fn run(until: Until) -> Result<()> {
    onnxruntime::ensure()?;
    let programs = build()?;
    let folder = cache()?.join("demo");
    if folder.try_exists()? {
        std::fs::remove_dir_all(&folder).context("emptying the folder of the last demo")?;
    }
    std::fs::create_dir_all(&folder)?;
    let study = folder.join("sent");
    step(&format!("a synthetic head CT: {STUDY}"), || {
        shell::run(
            Command::new(programs.join("fixtures"))
                .args(["make", STUDY])
                .arg(&study),
        )
    })?;
    let mut service = step("tez serve", || Service::start(&programs, &folder))?;
    step("tez send", || {
        let to = ["--to", &service.dicom, "--called", "TEZ"];
        shell::run(
            Command::new(programs.join("tez"))
                .arg("send")
                .arg(&study)
                .args(to),
        )
    })?;
    let report = step("result", || service.first_report())?;
    println!("\n{}", summary(&report, &service.http));
    match until {
        Until::Interrupted => service.wait(),
        Until::FirstResult => {
            service.stop()?;
            let state = report["state"].as_str().unwrap_or_default();
            if state == "analysed" {
                Ok(())
            } else {
                bail!("the study ended {state}")
            }
        }
    }
}

/// Builds the programs and returns their folder: that of this one, built in the same profile.
fn build() -> Result<PathBuf> {
    // The whole workspace is named so that dependencies get the features that the tests use too.
    let arguments = [
        "build",
        "--workspace",
        "--bin",
        "tez",
        "--bin",
        "fixtures",
        "--locked",
    ];
    step("build (the first one takes some minutes)", || {
        shell::run(cargo()?.args(arguments))
    })?;
    let this = std::env::current_exe()?;
    Ok(this
        .parent()
        .context("this program lies in a folder")?
        .to_path_buf())
}

/// A running `tez serve`; killed when dropped.
#[derive(Debug)]
struct Service {
    child: Child,
    /// Host and port of its DICOM side.
    dicom: String,
    /// Its address for browsers, without a slash at the end.
    http: String,
    log: PathBuf,
}

impl Service {
    /// Starts it on free ports of the loopback interface, with its data in `folder`.
    fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let settings = folder.join("tez.toml");
        let data = folder.join("data");
        let text = format!(
            "data_dir = {:?}\n[dicom]\nbind = \"127.0.0.1:0\"\n[http]\nbind = \"127.0.0.1:0\"\n",
            data.display().to_string()
        );
        std::fs::write(&settings, text)?;
        let log = folder.join("tez.log");
        let mut child = Command::new(programs.join("tez"))
            .args(["serve", "--config"])
            .arg(&settings)
            .current_dir(checkout()?)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting tez")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let mut service = Self {
            child,
            dicom: String::new(),
            http: String::new(),
            log,
        };
        let ready = follow(stderr, File::create(&service.log)?);
        let Ok((dicom, http)) = ready.recv_timeout(Duration::from_secs(WAIT_SECONDS_MAX)) else {
            bail!("tez did not start; see its log {}", service.log.display());
        };
        (service.dicom, service.http) = (dicom, http);
        println!(
            "DICOM: {}, AE title TEZ; log: {}",
            service.dicom,
            service.log.display()
        );
        Ok(service)
    }

    /// Waits until the one study in the worklist has a result.
    fn first_report(&mut self) -> Result<Value> {
        let end = Instant::now() + Duration::from_secs(WAIT_SECONDS_MAX);
        while Instant::now() < end {
            let list = get(&self.http, "/api/v1/worklist")?;
            let study = &list["studies"][0];
            if let (Some("analysed" | "partial" | "not_analysed"), Some(uid)) =
                (study["state"].as_str(), study["study_uid"].as_str())
            {
                return Ok(get(&self.http, &format!("/api/v1/studies/{uid}"))?["report"].take());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "tez ended with {status}; see its log {}",
                    self.log.display()
                );
            }
            pause();
        }
        bail!(
            "no result after {WAIT_SECONDS_MAX} s; see the log {}",
            self.log.display()
        )
    }

    /// Goes on until the service ends; Ctrl-C reaches it as well as this program.
    fn wait(mut self) -> Result<()> {
        println!("\nThe service goes on; Ctrl-C ends it.");
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            bail!("tez ended with {status}")
        }
    }

    /// Ends it as an operator would.
    fn stop(mut self) -> Result<()> {
        shell::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            bail!("tez ended with {status}")
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that it has ended already.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "another process has no condition to wait on"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(POLL_MS));
}

/// Copies what the service says to its log, and sends its addresses once it is ready. The channel
/// closes when the service ends.
fn follow(stderr: ChildStderr, mut log: File) -> Receiver<(String, String)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let written = writeln!(log, "{line}");
            let told = addresses(&line).map(|addresses| sender.send(addresses));
            if written.is_err() || told.is_some_and(|told| told.is_err()) {
                return;
            }
        }
    });
    receiver
}

/// `tez ready dicom=127.0.0.1:11112 http=http://127.0.0.1:8080` → both addresses.
fn addresses(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line
        .strip_prefix("tez ready ")?
        .split_whitespace()
        .collect();
    let value = |key: &str| words.iter().find_map(|word| word.strip_prefix(key));
    Some((value("dicom=")?.to_owned(), value("http=")?.to_owned()))
}

/// `GET`, and the answer as JSON. HTTP 1.0: the answer ends where the connection ends.
fn get(http: &str, path: &str) -> Result<Value> {
    let host = http
        .strip_prefix("http://")
        .context("the service speaks plain HTTP")?;
    let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("GET {path}: {answer}");
    }
    serde_json::from_str(body).with_context(|| format!("GET {path} answered {body}"))
}

/// The report in a few lines for people.
fn summary(report: &Value, http: &str) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let mut lines = vec![format!(
        "{}, priority {}: {}",
        text(&report["state"]),
        text(&report["priority"]),
        list(&report["priority_because"], &text).join("; ")
    )];
    lines.extend(list(&report["reasons"], &|reason| text(&reason["text"])));
    lines.extend(list(&report["findings"], &finding));
    lines.push(model(&report["model"]));
    lines.push("Triage aid, not a medical device, not for diagnosis.".to_owned());
    lines.push(format!("worklist: {http}/"));
    lines.join("\n")
}

fn model(model: &Value) -> String {
    let (Some(name), Some(version)) = (model["name"].as_str(), model["version"].as_str()) else {
        return "model: none ran".to_owned();
    };
    let note = if name == "bootstrap" {
        ", a fixed filter for bright tissue: NOT a trained model"
    } else {
        ""
    };
    format!("model: {name} {version}{note}")
}

fn list(values: &Value, shown: &dyn Fn(&Value) -> String) -> Vec<String> {
    values
        .as_array()
        .map_or_else(Vec::new, |values| values.iter().map(shown).collect())
}

fn finding(finding: &Value) -> String {
    let kind = finding["kind"].as_str().unwrap_or("-");
    let present = if finding["present"] == true {
        "present"
    } else {
        "not seen by this model"
    };
    let volume = finding["volume_ml"]
        .as_f64()
        .map(|volume_ml| format!(", {volume_ml:.1} mL"));
    let side = finding["side"].as_str().map(|side| format!(", {side}"));
    format!(
        "  {kind}: {present}{}{}",
        volume.unwrap_or_default(),
        side.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_ready_line_names_both_addresses() {
        let line = "tez ready dicom=127.0.0.1:11112 http=http://127.0.0.1:8080";
        let found = addresses(line).expect("both are there");
        assert_eq!(
            found,
            (
                "127.0.0.1:11112".to_owned(),
                "http://127.0.0.1:8080".to_owned()
            )
        );
        assert_eq!(addresses("tez is getting ready"), None);
    }

    #[test]
    fn a_study_that_was_not_analysed_is_told_with_its_reason() {
        let report = json!({
            "state": "not_analysed", "priority": "unknown", "priority_because": ["not analysed"],
            "reasons": [{ "code": "no_library", "text": "there is no ONNX Runtime" }],
            "findings": [], "model": null,
        });
        let text = summary(&report, "http://127.0.0.1:1");
        assert!(
            text.starts_with("not_analysed, priority unknown: not analysed"),
            "{text}"
        );
        assert!(text.contains("there is no ONNX Runtime"), "{text}");
    }

    #[test]
    fn the_bootstrap_model_is_never_passed_off_as_trained() {
        let text = model(&json!({ "name": "bootstrap", "version": "1" }));
        assert!(text.contains("NOT a trained model"), "{text}");
        assert_eq!(model(&Value::Null), "model: none ran");
    }

    #[test]
    fn a_finding_is_told_with_volume_and_side() {
        let found = json!({
            "kind": "intracranial_hemorrhage", "present": true, "volume_ml": 12.34, "side": "left",
        });
        assert_eq!(
            finding(&found),
            "  intracranial_hemorrhage: present, 12.3 mL, left"
        );
    }
}
