//! `cargo xtask …`: every set-up and developer command of the checkout.
#![expect(
    clippy::print_stdout,
    reason = "a command-line program talks on standard output"
)]

mod checks;
mod debian;
mod demo;
mod onnxruntime;
mod peers;
mod shell;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Sets up, tries, tests and measures Tez from its checkout.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Brings what tests and demo need and the machine lacks; a second run does nothing.
    ///
    /// ONNX Runtime's library goes to `.cache/onnxruntime`, the Python peers to `.cache/venv`, both
    /// from PyPI; the DICOM programs of other makers come from Debian's packages, when it is root.
    Setup,
    /// Starts Tez, sends it a synthetic head CT over DICOM and prints what it finds.
    ///
    /// Needs no set-up before it. Builds in the profile that the tests use, so that nothing is
    /// built twice. Data go to a temporary folder, which is removed at the end.
    Demo {
        /// Ends after the first result: 0 if the study was analysed, 1 if not.
        #[arg(long)]
        once: bool,
    },
    /// Runs every check and every test, after `setup`. What CI runs.
    Test,
    /// The inner loop: format, lints, unit tests, and the rules of the tree; no set-up.
    Check,
    /// Runs the benchmarks, optimised.
    Bench {
        /// Passed on to criterion, such as a filter.
        arguments: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Task::Setup => checks::setup(),
        Task::Demo { once } => demo::run(once),
        Task::Test => checks::test(),
        Task::Check => checks::check(),
        Task::Bench { arguments } => checks::bench(&arguments),
    }
}
