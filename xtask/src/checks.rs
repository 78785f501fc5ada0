//! The checks: what a developer runs, and what CI runs.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::postgres::{self, Postgres};
use crate::shell::{cargo, checkout, run, step};
use crate::suite::{Form, Selection, run_tests, write_documents};
use crate::{debian, onnxruntime, peers};

/// Everything that tests and demo need.
pub(crate) fn setup() -> Result<()> {
    onnxruntime::ensure()?;
    debian::ensure().context("Debian packages for the tests")?;
    postgres::ensure()?;
    peers::ensure()?;
    println!("set up: ONNX Runtime, Debian packages, PostgreSQL, Python peers");
    Ok(())
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
    let left_out = step("tests", || run_tests(Selection::All, form))? + tests_on_postgres(form)?;
    println!("{}", left_out_line(left_out, &checkout()?)?);
    Ok(())
}

/// The tests about state, on PostgreSQL.
pub(crate) fn test_postgres() -> Result<()> {
    onnxruntime::ensure()?;
    let left_out = tests_on_postgres(Form::Usual)?;
    println!("{}", left_out_line(left_out, &checkout()?)?);
    Ok(())
}

fn tests_on_postgres(form: Form) -> Result<usize> {
    let server = step("a PostgreSQL server for the tests", Postgres::start)?;
    step("tests about state, on PostgreSQL", || {
        run_tests(Selection::State(&server), form)
    })
}

/// What an edit can break most easily.
pub(crate) fn check() -> Result<()> {
    onnxruntime::ensure()?;
    format_and_lints()?;
    step("unit tests and rules of the tree", || {
        run_tests(Selection::Inner, Form::Usual)
    })?;
    Ok(())
}

/// Writes every generated document anew.
pub(crate) fn docs() -> Result<()> {
    onnxruntime::ensure()?;
    step("documents", write_documents)?;
    println!("look at the difference: git diff docs");
    Ok(())
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
