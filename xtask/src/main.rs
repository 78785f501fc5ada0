//! `cargo xtask …`: every set-up and developer command of the checkout.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to people"
)]

mod checks;
mod debian;
mod demo;
mod onnxruntime;
mod peers;
mod postgres;
mod shell;
mod suite;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
Sets up, tries, tests and measures Tez from its checkout.

cargo xtask setup            brings what tests and demo need and the machine lacks: ONNX Runtime's
                             library (.cache/onnxruntime) and the Python peers (.cache/venv) from
                             PyPI, and other makers' DICOM programs and PostgreSQL from Debian, when
                             it is root.
                             A second run does nothing and needs no network
cargo xtask demo [--once]    starts Tez, sends it a synthetic head CT over DICOM, prints what it
                             finds, and goes on until Ctrl-C; data go to .cache/demo, emptied first.
                             --once: ends after the result, 0 if the study was analysed, else 1
cargo xtask test [--long]    every check and every test, after setup: what CI runs. Tests about state run
                             twice, on SQLite and on a PostgreSQL of their own. --long: tests that can
                             go on go on for longer, such as 20 rounds of a full disk
cargo xtask test --postgres  the second of these runs alone
cargo xtask kill-test [--kills N]
                             N kills (200) under load, each followed by a restart that must find every
                             acknowledged object; `test` does 20
cargo xtask check            the inner loop: format, lints, unit tests, the rules of the tree
cargo xtask docs             writes every document anew that is made from code or a model's card
cargo xtask bench [ARG…]     the benchmarks, optimised; arguments go to criterion, such as a filter

Demo and tests use one build profile (dev, optimised where it matters), so nothing is built twice.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["setup"] => checks::setup(),
        ["demo"] => demo::run(demo::Until::Interrupted),
        ["demo", "--once"] => demo::run(demo::Until::FirstResult),
        ["test"] => checks::test(suite::Form::Usual),
        ["test", "--long"] => checks::test(suite::Form::Long),
        ["test", "--postgres"] => checks::test_postgres(),
        ["kill-test"] => checks::kill_test("200"),
        ["kill-test", "--kills", kills] if kills.parse::<u32>().is_ok() => checks::kill_test(kills),
        ["check"] => checks::check(),
        ["docs"] => checks::docs(),
        ["bench", ref rest @ ..] => checks::bench(rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => bail!("`cargo xtask {}` is no command\n\n{HELP}", words.join(" ")),
    }
}
