//! `tez triage`: studies from disk, analysed without the service.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use models::analysis::{Analysis, Stage, Watch, analyse};
use models::report::ReportState;
use models::runtime::{LoadError, Network};
use pipeline::decode::Decoding;
use pipeline::limits::Limits;
use pipeline::reason::Reason;
use pipeline::uid::Uid;

use super::input::{Input, LeftOut, Study, gather};
use super::nifti::write_volume;
use super::overlay::write_pictures;
use super::progress::Bar;
use super::table::{NOT_A_DIAGNOSIS, describe};
use super::{ModelChoice, NOT_ANALYSED, Settings, tell, usage_error};
use crate::clock::Clock;
use crate::inference::load_network;

/// Files that are left out are named one by one up to this many.
const LEFT_OUT_NAMED_MAX: usize = 20;

/// Analyse DICOM files, folders or zips without the service.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tez triage /media/cdrom
  tez triage head.zip --json
  tez triage a/ b/ --json | jq 'select(.priority == \"critical\").study_uid'
  tez triage head.zip --overlay pictures/
  tez triage head/ --volume-out volumes/ --model models/weights/hemorrhage.toml

Every study found in the given paths is analysed by itself. What is no DICOM object is named on
standard error and left out. A DICOM object that cannot be read counts: its study is partial at
most, and one that names no study stands for a study that is not analysed.

Exit status:
  0  every study was analysed, wholly or in part (`state` says which)
  3  at least one study was not analysed; its `reasons` say why
  2  wrong usage, an input that cannot be read, or no DICOM object in it")]
pub(super) struct TriageArgs {
    /// DICOM files, folders with DICOM files anywhere below, or zips.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print one JSON object for each study, one on a line.
    #[arg(long)]
    json: bool,
    /// Write each study's rectified volume to this folder, named by the study's UID (NIfTI-1,
    /// Hounsfield units).
    #[arg(long, value_name = "DIR")]
    volume_out: Option<PathBuf>,
    /// Write each finding's key slices to this folder (PNG): plain on the left, with the marks
    /// outlined on the right.
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the command.
///
/// # Errors
///
/// If an output cannot be written.
pub(super) fn run(args: &TriageArgs) -> anyhow::Result<ExitCode> {
    let config = match super::load_config(&args.settings, &args.model) {
        Ok(config) => config,
        Err(error) => return Ok(usage_error(&error)),
    };
    let input = match gather(&args.paths, &config) {
        Ok(input) => input,
        Err(error) => return Ok(usage_error(&error)),
    };
    name_left_out(&input.left_out);
    if input.studies.is_empty() {
        return Ok(usage_error(&anyhow::anyhow!(
            "no DICOM object found in the given paths"
        )));
    }
    let mut network = load_network(&config.model).map_err(|error| told(&error));
    triage_all(&input, args, &config.limits, &mut network)
}

fn told(error: &LoadError) -> Reason {
    tell(&format!("warning: no study will be analysed: {error}"));
    error.reason()
}

fn triage_all(
    input: &Input,
    args: &TriageArgs,
    limits: &Limits,
    network: &mut Result<Network, Reason>,
) -> anyhow::Result<ExitCode> {
    for folder in [&args.volume_out, &args.overlay].into_iter().flatten() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut status = ExitCode::SUCCESS;
    for study in &input.studies {
        let analysis = analyse_shown(study, limits, network);
        if analysis.report.state == ReportState::NotAnalysed {
            status = ExitCode::from(NOT_ANALYSED);
        }
        write_out(&analysis, &study.file_uid, args, network)?;
    }
    if !args.json {
        writeln!(io::stdout().lock(), "{NOT_A_DIAGNOSIS}")?;
    }
    Ok(status)
}

fn analyse_shown(
    study: &Study,
    limits: &Limits,
    network: &mut Result<Network, Reason>,
) -> Analysis {
    let line = Bar::line(study.uid.to_string());
    let entered = |stage: Stage| line.say(format!("{} {}", study.uid, stage.as_str()));
    analyse_study(study, limits, network, &entered)
}

/// Analyses one study; both commands go this way.
pub(super) fn analyse_study(
    study: &Study,
    limits: &Limits,
    network: &mut Result<Network, Reason>,
    entered: &(dyn Fn(Stage) + Sync),
) -> Analysis {
    let clock = Clock::system();
    let elapsed_ms = || clock.monotonic().as_secs_f64() * 1000.0;
    let watch = Watch {
        elapsed_ms: &elapsed_ms,
        entered,
    };
    let network = network.as_mut().map_err(|reason| &*reason);
    analyse(study.objects(), network, Decoding::afresh(limits), watch)
}

fn write_out(
    analysis: &Analysis,
    file_uid: &Uid,
    args: &TriageArgs,
    network: &Result<Network, Reason>,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &analysis.report)?;
        writeln!(out)?;
    } else {
        let card = network.as_ref().ok().map(Network::card);
        writeln!(out, "{}\n", describe(&analysis.report, card))?;
    }
    if let (Some(folder), Some(volume)) = (&args.volume_out, &analysis.volume) {
        let path = write_volume(folder, file_uid, volume)
            .with_context(|| format!("cannot write a volume to {}", folder.display()))?;
        tell(&format!("volume written to {}", path.display()));
    }
    if let Some(folder) = &args.overlay {
        for path in write_pictures(folder, file_uid, analysis)? {
            tell(&format!("picture written to {}", path.display()));
        }
    }
    Ok(())
}

fn name_left_out(left_out: &[LeftOut]) {
    for LeftOut { name, why } in left_out.iter().take(LEFT_OUT_NAMED_MAX) {
        tell(&format!("left out: {name}: {why}"));
    }
    if left_out.len() > LEFT_OUT_NAMED_MAX {
        let more = left_out.len() - LEFT_OUT_NAMED_MAX;
        tell(&format!(
            "left out: {more} more files that are no readable DICOM objects"
        ));
    }
}
