//! `tez slabs`: studies as the slabs that a network sees.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use eval::slabs::{SlabStudy, write_study};
use models::card::{CardError, ModelCard};
use pipeline::prepare::InputContract;

use super::input::gather;
use super::progress::Bar;
use super::{ModelChoice, NOT_ANALYSED, Settings, tell, usage_error};
use crate::config::ModelConfig;

/// Write what a network sees of each study, for training one.
#[derive(Args, Debug)]
#[command(after_help = "\
For each study OUT gets two files named by the study's UID:
  UID.npy   float32 [slabs, side_px, side_px], Hounsfield units before any window; slabs run from
            feet to head, rows to the back, columns to the patient's left
  UID.json  the card's input contract; where the slabs lie in the patient (LPS, mm); for each slab
            the received slice nearest to its middle; what is missing from the head

Examples:
  tez slabs slabs/ dicom/
  tez slabs slabs/ head.zip --model models/weights/hemorrhage.toml

Exit status:
  0  every study was written
  3  at least one study has no usable series and was left out
  2  wrong usage, or an input or the card that cannot be read")]
pub(super) struct SlabsArgs {
    /// Folder to write to; made if need be.
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// DICOM files, folders with DICOM files anywhere below, or zips.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
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
pub(super) fn run(args: &SlabsArgs) -> anyhow::Result<ExitCode> {
    let config = match super::load_config(&args.settings, &args.model) {
        Ok(config) => config,
        Err(error) => return Ok(usage_error(&error)),
    };
    let contract = match contract_of(&config.model) {
        Ok(contract) => contract,
        Err(error) => return Ok(usage_error(&anyhow::Error::new(error))),
    };
    let input = match gather(&args.paths, &config) {
        Ok(input) => input,
        Err(error) => return Ok(usage_error(&error)),
    };
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let bar = Bar::new("studies", input.studies.len());
    let mut status = ExitCode::SUCCESS;
    for study in &input.studies {
        let slabs = SlabStudy {
            study_uid: &study.uid,
            file_uid: &study.file_uid,
            instances: &study.instances,
        };
        if let Some(why) = write_study(&args.out, slabs, &contract, &config.limits)? {
            bar.aside(|| tell(&format!("left out: {}: {why}", study.uid)));
            status = ExitCode::from(NOT_ANALYSED);
        }
        bar.step();
    }
    Ok(status)
}

fn contract_of(config: &ModelConfig) -> Result<InputContract, CardError> {
    let card = match &config.card {
        Some(path) => ModelCard::load(path)?,
        None => ModelCard::built_in()?,
    };
    Ok(card.input.contract)
}
