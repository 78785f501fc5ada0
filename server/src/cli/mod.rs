//! The commands of `tez`.

mod check;
mod eval;
mod input;
mod nifti;
mod overlay;
mod progress;
mod send;
mod slabs;
mod table;
mod triage;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::Config;

/// Exit status: wrong usage or an input that cannot be read.
const USAGE: u8 = 2;
/// Exit status: at least one study was not analysed.
const NOT_ANALYSED: u8 = 3;

/// Stroke triage for head CT without contrast: moves studies with suspected bleeding up the
/// worklist.
///
/// Triage only. Tez takes nothing off a list and is not a diagnosis; it is not cleared for clinical
/// use.
#[derive(Debug, Parser)]
#[command(name = "tez", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArgs),
    Triage(triage::TriageArgs),
    Eval(eval::EvalArgs),
    Check(check::CheckArgs),
    Send(send::SendArgs),
    Slabs(slabs::SlabsArgs),
    /// Analyse what `tez serve` gives: it starts this by itself.
    #[command(hide = true)]
    Worker,
}

/// Where settings come from.
#[derive(Args, Debug)]
struct Settings {
    /// Settings file (TOML). Without one the defaults hold; `TEZ_<SECTION>__<SETTING>` in the
    /// environment overrides both.
    #[arg(long, env = "TEZ_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Run the service: DICOM in, worklist out.
#[derive(Args, Debug)]
#[command(after_help = "\
Without a settings file it listens for DICOM on 127.0.0.1:11112 (AE title TEZ) and for HTTP on
127.0.0.1:8080, and keeps its data in ./data. It runs until SIGTERM or Ctrl-C.

Examples:
  tez serve
  tez serve --config /etc/tez/tez.toml
  TEZ_DATA_DIR=/srv/tez TEZ_MODEL__WORKERS=2 tez serve

Exit status:
  0  it was told to stop
  1  it could not start, or a listener failed
  2  wrong usage, or the settings cannot be used")]
struct ServeArgs {
    #[command(flatten)]
    settings: Settings,
}

/// Which model runs, for commands that run one themselves.
#[derive(Args, Debug)]
struct ModelChoice {
    /// Model card (TOML) with its ONNX file beside it, in place of `model.card`; without either
    /// the model inside the program runs.
    #[arg(long, value_name = "CARD")]
    model: Option<PathBuf>,
    /// ONNX Runtime's shared library, in place of `model.library`; without either it is looked for
    /// beside the program and in .cache/onnxruntime/.
    #[arg(long, value_name = "SO")]
    library: Option<PathBuf>,
}

/// Runs the command that the program was called with.
pub fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Triage(args) => triage::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Slabs(args) => slabs::run(&args),
        Command::Worker => work(),
    };
    result.unwrap_or_else(|error| {
        let closed = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        if closed {
            // Whoever read our output has seen enough, as in `tez triage ... | head`.
            return ExitCode::SUCCESS;
        }
        tell(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = match Config::load(args.settings.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return Ok(usage_error(&anyhow::Error::new(error))),
    };
    crate::service::run(config)?;
    Ok(ExitCode::SUCCESS)
}

fn work() -> anyhow::Result<ExitCode> {
    crate::worker::run().context("`tez worker` is started by `tez serve`, not by hand")?;
    Ok(ExitCode::SUCCESS)
}

fn load_config(settings: &Settings, model: &ModelChoice) -> anyhow::Result<Config> {
    let mut config =
        Config::load(settings.config.as_deref()).context("the settings cannot be used")?;
    config.model.card = model.model.clone().or(config.model.card);
    config.model.library = model.library.clone().or(config.model.library);
    Ok(config)
}

/// Says what is wrong with the call or its input.
fn usage_error(error: &anyhow::Error) -> ExitCode {
    tell(&format!("error: {error:#}"));
    ExitCode::from(USAGE)
}

/// A line on standard error. If nobody reads there, nobody is to be told.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_model_named_in_the_call_goes_before_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tez.toml");
        std::fs::write(&file, "[model]\ncard = \"a.toml\"\nlibrary = \"a.so\"\n").unwrap();
        let settings = Settings { config: Some(file) };
        let choice = ModelChoice {
            model: Some(PathBuf::from("b.toml")),
            library: None,
        };
        let model = load_config(&settings, &choice).unwrap().model;
        assert_eq!(model.card, Some(PathBuf::from("b.toml")));
        assert_eq!(model.library, Some(PathBuf::from("a.so")));
    }
}
