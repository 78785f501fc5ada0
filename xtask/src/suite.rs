//! Running the tests: which, on which database, and what they say of themselves.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::postgres::Postgres;
use crate::shell::{cargo, checkout, output, run, succeeds};

/// What a test prints that needs data beside the checkout and found none.
const LEFT_OUT: &str = "LEFT OUT:";

/// By this variable tests are told of the server on which each makes a database of its own.
const POSTGRES_VARIABLE: &str = "TEST_POSTGRES_URL";

/// Crates that keep state or use what is kept, and their folders.
const STATE_CRATES: [(&str, &str); 2] = [("server", "server"), ("store", "server/store")];

/// Tests of the whole service that are about state, in the crate and folder `tests`.
const STATE_TESTS: [&str; 3] = ["clients", "kill", "roads"];

/// By this variable the tests of the documents write them instead of comparing them.
const WRITE_VARIABLE: &str = "WRITE_DOCS";

/// Every document that is made from code, and the test that makes it.
const DOCUMENTS: [(&str, &str); 4] = [
    ("docs/config.md", "the_reference_is_what_the_types_say"),
    (
        "docs/openapi.json",
        "the_openapi_document_in_docs_is_the_one_of_the_code",
    ),
    ("docs/model-card.md", "the_document_is_what_the_card_says"),
    ("docs/priority-policy.md", "write_the_policy_document"),
];

/// How long tests go on that can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As long as every change needs.
    Usual,
    /// As long as a release needs.
    Long,
}

/// Which tests run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Selection<'a> {
    /// Those of the inner loop: unit tests and the rules of the tree.
    Inner,
    /// All of them.
    All,
    /// Those that keep state, on this server instead of in the data folder.
    State(&'a Postgres),
}

impl Selection<'_> {
    /// Cargo's targets. All are of the whole workspace: with `--package`, dependencies would have
    /// other features and be compiled anew.
    fn targets(self) -> &'static [&'static str] {
        match self {
            Self::Inner => &["--lib", "--bins", "--test", "tidy"],
            Self::All | Self::State(_) => &["--lib", "--bins", "--tests"],
        }
    }
}

/// Runs all tests of the selection, also after one has failed; returns how many said that they were
/// left out.
///
/// # Errors
///
/// When a test fails; which, stands in the last lines that are printed.
pub(crate) fn run_tests(selection: Selection<'_>, form: Form) -> Result<usize> {
    if succeeds(cargo()?.args(["nextest", "--version"])) {
        return with_nextest(selection, form);
    }
    println!("cargo-nextest is not installed: `cargo test` runs instead, one crate at a time");
    let told = match selection {
        Selection::Inner | Selection::All => {
            let mut command = cargo()?;
            command
                .args(["test", "--workspace", "--no-fail-fast", "--locked"])
                .args(selection.targets())
                .args(["--", "--show-output"]);
            follow(tell(&mut command, selection, form))?
        }
        Selection::State(_) => state_tests(selection, form)?,
    };
    told.left_out()
}

/// Writes every document anew.
pub(crate) fn write_documents() -> Result<()> {
    let mut command = cargo()?;
    command
        .args(["test", "--workspace", "--lib", "--locked", "--quiet"])
        .args(["--", "--include-ignored", "--format=pretty"])
        .args(DOCUMENTS.map(|(_, test)| test))
        .env(WRITE_VARIABLE, "1");
    let told = follow(&mut command)?;
    let unwritten = DOCUMENTS.iter().find(|(_, test)| {
        let has_passed = |name: &String| name.rsplit("::").next() == Some(test);
        !told.passed.iter().any(has_passed)
    });
    told.left_out()?;
    match unwritten {
        None => Ok(()),
        Some((document, test)) => bail!("{document} was not written: there is no test {test}"),
    }
}

/// The command, with what tests are to know in its environment.
fn tell<'c>(command: &'c mut Command, selection: Selection<'_>, form: Form) -> &'c mut Command {
    if form == Form::Long {
        command.env("TEST_LONG", "1");
    }
    match selection {
        Selection::State(server) => command.env(POSTGRES_VARIABLE, server.url()),
        Selection::Inner | Selection::All => command.env_remove(POSTGRES_VARIABLE),
    }
}

fn with_nextest(selection: Selection<'_>, form: Form) -> Result<usize> {
    let profile = match (selection, form) {
        (Selection::Inner, _) => "default",
        (_, Form::Usual) => "ci",
        (_, Form::Long) => "long",
    };
    let mut command = cargo()?;
    command
        .args(["nextest", "run", "--workspace", "--no-fail-fast"])
        .args(["--locked", "--profile", profile]);
    match selection {
        Selection::Inner => command
            .args(selection.targets())
            .args(["--test-threads", &inner_threads()?]),
        Selection::All => &mut command,
        Selection::State(_) => command.args(["--filterset", &state_filter()]),
    };
    run(tell(&mut command, selection, form))?;
    if let Selection::Inner = selection {
        return Ok(0);
    }
    let report = checkout()?.join(format!("target/nextest/{profile}/junit.xml"));
    let text = std::fs::read_to_string(&report)
        .with_context(|| format!("reading nextest's report {}", report.display()))?;
    Ok(text.matches(LEFT_OUT).count())
}

/// Two tests for each core: many of them wait, for the disk or for a time limit to run out.
fn inner_threads() -> Result<String> {
    let cores = std::thread::available_parallelism().context("counting cores")?;
    Ok((cores.get() * 2).to_string())
}

/// The tests about state in nextest's language, in which a name that is none is an error.
fn state_filter() -> String {
    let crates = STATE_CRATES.map(|(name, _)| format!("package({name})"));
    let tests = STATE_TESTS.map(|name| format!("binary({name})"));
    format!(
        "{} or (package(tests) and ({}))",
        crates.join(" or "),
        tests.join(" or ")
    )
}

/// What tests said.
#[derive(Debug, Default)]
struct Told {
    left_out: usize,
    passed: Vec<String>,
    failed: Vec<String>,
    /// How a program that ran tests ended, where it did not end well.
    ended: Option<String>,
}

impl Told {
    fn left_out(self) -> Result<usize> {
        match (self.failed.as_slice(), self.ended) {
            ([], None) => Ok(self.left_out),
            ([], Some(ended)) => bail!("the tests ended with {ended}"),
            (failed, _) => bail!("{} tests failed:\n  {}", failed.len(), failed.join("\n  ")),
        }
    }

    fn hear(&mut self, line: &str) {
        self.left_out += line.matches(LEFT_OUT).count();
        let result = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "));
        match result {
            Some((name, "FAILED")) => self.failed.push(name.to_owned()),
            Some((name, "ok")) => self.passed.push(name.to_owned()),
            _ => {}
        }
    }
}

/// Passes the output on, and hears what stands in it.
fn follow(command: &mut Command) -> Result<Told> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("starting tests")?;
    let mut told = Told::default();
    for line in BufReader::new(child.stdout.take().context("stdout is piped")?).lines() {
        let line = line?;
        told.hear(&line);
        println!("{line}");
    }
    let status = child.wait()?;
    told.ended = (!status.success()).then(|| status.to_string());
    Ok(told)
}

/// The programs that cargo made of the tests about state, one after the other.
fn state_tests(selection: Selection<'_>, form: Form) -> Result<Told> {
    let mut build = cargo()?;
    build.args(["test", "--workspace", "--locked", "--no-run"]);
    build.args(selection.targets());
    let messages = output(build.arg("--message-format=json-render-diagnostics"))?;
    let mut all = Told::default();
    for (folder, program) in state_programs(&messages, &checkout()?)? {
        println!("\n{}", program.display());
        let mut command = Command::new(program);
        command.arg("--show-output").current_dir(folder);
        let told = follow(tell(&mut command, selection, form))?;
        all.left_out += told.left_out;
        all.failed.extend(told.failed);
        all.ended = all.ended.or(told.ended);
    }
    Ok(all)
}

/// Folders and test programs out of cargo's messages, which are lines of JSON.
fn state_programs(messages: &str, checkout: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut programs = Vec::new();
    let mut tests = 0;
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("a message of cargo")?;
        let (Some(manifest), Some(program), Some(true)) = (
            message["manifest_path"].as_str(),
            message["executable"].as_str(),
            message["profile"]["test"].as_bool(),
        ) else {
            continue;
        };
        let folder = Path::new(manifest)
            .parent()
            .context("a manifest lies in a folder")?;
        let target = message["target"]["name"].as_str().unwrap_or_default();
        let is_test = folder == checkout.join("tests") && STATE_TESTS.contains(&target);
        let is_crate = STATE_CRATES
            .iter()
            .any(|(_, place)| folder == checkout.join(place));
        tests += usize::from(is_test);
        if is_test || is_crate {
            programs.push((folder.to_owned(), PathBuf::from(program)));
        }
    }
    if tests != STATE_TESTS.len() || programs.len() < tests + STATE_CRATES.len() {
        bail!("cargo made no program of some tests about state: {programs:?}");
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_that_failed_is_named_at_the_end() {
        let mut told = Told::default();
        for line in [
            "test a::b ... ok",
            "test a::c ... FAILED",
            "LEFT OUT: d needs ../shared",
            "test e ... FAILED",
            "test f says ... FAILED at it",
        ] {
            told.hear(line);
        }
        assert_eq!(told.left_out, 1);
        let error = told.left_out().expect_err("two failed").to_string();
        assert_eq!(error, "2 tests failed:\n  a::c\n  e");
    }

    #[test]
    fn tests_that_ended_otherwise_did_not_pass() {
        let told = follow(Command::new("sh").args(["-c", "echo x; exit 3"])).expect("it runs");
        told.left_out().expect_err("it ended with 3");
    }

    #[test]
    fn of_what_cargo_makes_the_tests_about_state_are_taken_and_none_may_be_missing() {
        let made = |place: &str, name: &str, test: bool| {
            serde_json::json!({
                "manifest_path": format!("/top/{place}/Cargo.toml"),
                "executable": format!("/top/target/{name}"),
                "target": {"name": name},
                "profile": {"test": test},
            })
            .to_string()
        };
        let mut lines = vec![
            made("server", "server", true),
            made("server", "tez", false),
            made("server/store", "store", true),
            made("models", "models", true),
            made("tests", "disk", true),
            r#"{"reason":"build-finished"}"#.to_owned(),
        ];
        lines.extend(STATE_TESTS.map(|name| made("tests", name, true)));
        let found = state_programs(&lines.join("\n"), Path::new("/top")).expect("all are there");
        let names: Vec<_> = found
            .iter()
            .filter_map(|(_, program)| program.file_name())
            .collect();
        assert_eq!(names, ["server", "store", "clients", "kill", "roads"]);
        lines.pop();
        state_programs(&lines.join("\n"), Path::new("/top")).expect_err("one is missing");
    }
}
