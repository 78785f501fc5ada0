//! The checks: what a developer runs, and what CI runs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, checkout, run, step, succeeds};
use crate::{debian, onnxruntime, peers};

/// What a test prints that needs data beside the checkout and found none.
const LEFT_OUT: &str = "LEFT OUT:";

/// Everything that tests and demo need.
pub(crate) fn setup() -> Result<()> {
    onnxruntime::ensure()?;
    debian::ensure().context("Debian packages for the tests")?;
    peers::ensure()?;
    println!("set up: ONNX Runtime, Debian packages, Python peers");
    Ok(())
}

/// How long tests go on that can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As long as every change needs.
    Usual,
    /// As long as a release needs.
    Long,
}

/// Everything; the tests last, so that their result closes the output.
pub(crate) fn test(form: Form) -> Result<()> {
    step("setup", setup)?;
    format_and_lints()?;
    // Dependencies of lints and documentation are only checked; from here on they are compiled.
    cargo_step(&[
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
    ])?;
    cargo_step(&["test", "--workspace", "--doc", "--locked"])?;
    // In the tests' profile: whether the benchmarks run, not how fast.
    cargo_step(&["test", "--workspace", "--bench", "*", "--locked"])?;
    let left_out = step("tests", || all_tests(form))?;
    println!("{}", left_out_line(left_out, &checkout()?)?);
    Ok(())
}

/// What an edit can break most easily.
pub(crate) fn check() -> Result<()> {
    onnxruntime::ensure()?;
    format_and_lints()?;
    let runner: &[&str] = if has_nextest()? {
        &["nextest", "run"]
    } else {
        &["test"]
    };
    let what = [
        "--workspace",
        "--lib",
        "--bins",
        "--test",
        "tidy",
        "--locked",
    ];
    cargo_step(&[runner, &what].concat())
}

/// The kill test in its long form, without the time limit of a test.
pub(crate) fn kill_test(kills: &str) -> Result<()> {
    onnxruntime::ensure()?;
    let mut command = cargo()?;
    command.args([
        "test",
        "--package",
        "tests",
        "--test",
        "kill",
        "--locked",
        "--",
        "--nocapture",
    ]);
    step(&format!("{kills} kills"), || {
        run(command.env("TEST_KILLS", kills))
    })
}

/// The benchmarks, in the profile of a release.
pub(crate) fn bench(arguments: &[&str]) -> Result<()> {
    onnxruntime::ensure()?;
    let mut command = cargo()?;
    command
        .args(["bench", "--package", "benches", "--locked", "--"])
        .args(arguments);
    step("benchmarks", || run(&mut command))?;
    cargo_step(&["build", "--release", "--package", "server", "--locked"])?;
    cargo_step(&[
        "run",
        "--release",
        "--package",
        "benches",
        "--bin",
        "service-bench",
        "--locked",
    ])
}

fn format_and_lints() -> Result<()> {
    cargo_step(&["fmt", "--all", "--check"])?;
    cargo_step(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])
}

fn cargo_step(arguments: &[&str]) -> Result<()> {
    let mut command = cargo()?;
    command.args(arguments).env("RUSTDOCFLAGS", "-D warnings");
    step(&format!("cargo {}", arguments.join(" ")), || {
        run(&mut command)
    })
}

/// Runs the tests of all crates; returns how many said that they were left out.
fn all_tests(form: Form) -> Result<usize> {
    if !has_nextest()? {
        println!("cargo-nextest is not installed: `cargo test` runs instead, one crate at a time");
        return tests_without_nextest(form);
    }
    let profile = match form {
        Form::Usual => "ci",
        Form::Long => "long",
    };
    let mut command = cargo_for(form)?;
    run(command.args([
        "nextest",
        "run",
        "--workspace",
        "--profile",
        profile,
        "--locked",
    ]))?;
    let report = checkout()?.join(format!("target/nextest/{profile}/junit.xml"));
    let text = std::fs::read_to_string(&report)
        .with_context(|| format!("reading nextest's report {}", report.display()))?;
    Ok(text.matches(LEFT_OUT).count())
}

/// Cargo, with the word to tests that they may go on for long.
fn cargo_for(form: Form) -> Result<Command> {
    let mut command = cargo()?;
    if form == Form::Long {
        command.env("TEST_LONG", "1");
    }
    Ok(command)
}

fn has_nextest() -> Result<bool> {
    Ok(succeeds(cargo()?.args(["nextest", "--version"])))
}

/// Passes the output on, and counts in it.
fn tests_without_nextest(form: Form) -> Result<usize> {
    let mut command = cargo_for(form)?;
    command.args([
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
    ]);
    command
        .args(["--locked", "--", "--show-output"])
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo test")?;
    let mut left_out = 0;
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        let line = line?;
        left_out += line.matches(LEFT_OUT).count();
        println!("{line}");
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test ended with {status}");
    }
    Ok(left_out)
}

fn left_out_line(left_out: usize, checkout: &Path) -> Result<String> {
    let data = checkout
        .parent()
        .context("the checkout lies in a folder")?
        .join("shared/data");
    Ok(match (data.try_exists()?, left_out) {
        (true, 0) => "no test was left out".to_owned(),
        (false, count) => format!("{count} tests were left out: no ../shared beside the checkout"),
        (true, count) => bail!("{count} tests were left out although ../shared/data is there"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_may_be_left_out_only_without_shared_data() {
        let place = tempfile::tempdir().expect("a scratch folder");
        let checkout = place.path().join("checkout");
        let line = left_out_line(3, &checkout).expect("a stranger's clone passes");
        assert!(line.starts_with("3 tests were left out"), "{line}");

        std::fs::create_dir_all(place.path().join("shared/data")).expect("making a folder");
        assert_eq!(
            left_out_line(0, &checkout).expect("complete"),
            "no test was left out"
        );
        left_out_line(1, &checkout).expect_err("the data are there");
    }
}
