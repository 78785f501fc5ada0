//! `tez check`: what the service needs, and whether it is there.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::{Settings, usage_error};
use crate::config::Config;
use crate::service::{Check, Status, check};

/// Say whether settings, model, library, disk and ports are usable, each with its cure.
#[derive(Args, Debug)]
#[command(after_help = "\
May be called while the service runs with the same settings.

Examples:
  tez check
  tez check --config /etc/tez/tez.toml
  tez check --json | jq -r 'select(.status == \"fail\").cure'

Exit status:
  0  the service can do its work; warnings may have been printed
  1  it cannot; the lines with FAIL say why, and what to do
  2  wrong usage, or the settings cannot be used")]
pub(super) struct CheckArgs {
    /// Print one JSON object for each thing looked at, one on a line: name, status (ok, warn,
    /// fail), text, cure.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
///
/// # Errors
///
/// If the result cannot be printed.
pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = match Config::load(args.settings.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return Ok(usage_error(&anyhow::Error::new(error))),
    };
    let checks = check(&config);
    let mut out = io::stdout().lock();
    for check in &checks {
        if args.json {
            serde_json::to_writer(&mut out, check)?;
            writeln!(out)?;
        } else {
            write_check(&mut out, check)?;
        }
    }
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    Ok(ExitCode::from(u8::from(failed)))
}

fn write_check(out: &mut impl Write, check: &Check) -> io::Result<()> {
    let status = match check.status {
        Status::Ok => "ok",
        Status::Warn => "WARN",
        Status::Fail => "FAIL",
    };
    writeln!(out, "{status:<5} {:<14} {}", check.name, check.text)?;
    if let Some(cure) = &check.cure {
        writeln!(out, "{:<20} {cure}", "")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_cure() {
        let failed = Check {
            name: "disk_space",
            status: Status::Fail,
            text: "0 bytes are free.".to_owned(),
            cure: Some("Make room.".to_owned()),
        };
        let mut text = Vec::new();
        write_check(&mut text, &failed).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("FAIL  disk_space     0 bytes are free.\n"),
            "{text}"
        );
        assert!(
            text.contains("\n                     Make room.\n"),
            "{text}"
        );
    }
}
