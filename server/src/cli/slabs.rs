//! `tez slabs`: studies as the slabs that a network sees, in Hounsfield units, for training one.
//!
//! Training reads what the shipped path wrote, so that there is one definition of the geometry.
//! Only the card's windows remain to be cut, and the sidecar names them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use models::card::{CardError, ModelCard};
use ndarray::{Array4, Axis};
use pipeline::limits::Limits;
use pipeline::prepare::{InputContract, ModelInput, Window, prepare_centred};
use pipeline::study::StudyScans;
use serde::Serialize;

use super::input::{Study, gather};
use super::progress::Bar;
use super::{ModelChoice, NOT_ANALYSED, Settings, tell, usage_error};
use crate::config::ModelConfig;

/// All that a scanner writes becomes one channel, from which Hounsfield units come back.
const WHOLE_RANGE: Window = Window {
    low_hu: -1024.0,
    high_hu: 3071.0,
};

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

/// What stands beside the slabs.
#[derive(Serialize)]
struct Sidecar<'a> {
    study_uid: &'a str,
    contract: &'a InputContract,
    /// Centre of the first slab's first pixel, mm.
    origin_mm: [f64; 3],
    /// Unit vectors along columns, rows and slabs.
    directions: [[f64; 3]; 3],
    /// Between centres along columns, rows and slabs, mm.
    spacing_mm: [f64; 3],
    /// One for each slab: SOP Instance UID of the nearest received slice.
    nearest_slices: Vec<&'a str>,
    incomplete: Vec<String>,
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
        if let Some(why) = write_study(&args.out, study, &contract, &config.limits)? {
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

/// Writes the two files of `study`; gives the reason if it cannot be analysed.
fn write_study(
    out: &Path,
    study: &Study,
    contract: &InputContract,
    limits: &Limits,
) -> anyhow::Result<Option<String>> {
    let mut scans = StudyScans::of(&study.instances, limits);
    // A network learns from the scan that suits best.
    let first = scans.next_scan();
    let incomplete = first.as_ref().map(|scan| scan.incomplete.clone());
    let head = match first.map_or_else(|| Err(scans.no_usable_series()), |scan| scan.volume) {
        Ok(head) => head,
        Err(reasons) => {
            let texts: Vec<String> = reasons.into_iter().map(|reason| reason.text).collect();
            return Ok(Some(texts.join(" ")));
        }
    };
    let whole = InputContract {
        neighbours: 0,
        windows: vec![WHOLE_RANGE],
        ..contract.clone()
    };
    let input = match prepare_centred(&head.volume, &whole, head.facts.centre_mm) {
        Ok(input) => input,
        Err(reason) => return Ok(Some(reason.text)),
    };
    let incomplete = incomplete.unwrap_or_default();
    let incomplete = incomplete.into_iter().map(|reason| reason.text);
    let sidecar = Sidecar {
        study_uid: study.uid.as_str(),
        contract,
        origin_mm: input.grid.origin_mm.0,
        directions: input.grid.directions,
        spacing_mm: input.grid.spacing_mm,
        nearest_slices: (0..input.tensor.len_of(Axis(0)))
            .filter_map(|slab| input.source_of_slab(slab, &head.volume))
            .map(|source| source.sop_instance_uid.as_str())
            .collect(),
        incomplete: incomplete.collect(),
    };
    // A UID is digits and dots, so it cannot lead out of the folder.
    let path = |extension: &str| out.join(format!("{}.{extension}", study.file_uid));
    write_slabs(&path("npy"), &input).context("cannot write slabs")?;
    let json = serde_json::to_vec_pretty(&sidecar)?;
    fs::write(path("json"), json).context("cannot write a sidecar")?;
    Ok(None)
}

fn write_slabs(path: &Path, input: &ModelInput) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    write_npy(&mut file, &input.tensor)?;
    file.flush()
}

/// `NumPy`'s format 1.0: magic, version, length of the header, header, values.
fn write_npy(out: &mut impl Write, whole_range: &Array4<f32>) -> io::Result<()> {
    let (slabs, _, rows, columns) = whole_range.dim();
    let fields = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({slabs}, {rows}, {columns}), }}"
    );
    // Ten bytes before it and one line end after it; values begin at a multiple of 64.
    let header = format!("{fields:<117}\n");
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&118_u16.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let width_hu = WHOLE_RANGE.high_hu - WHOLE_RANGE.low_hu;
    for part in whole_range {
        out.write_all(&(part * width_hu + WHOLE_RANGE.low_hu).to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_fixture_is_written_as_an_array_of_hounsfield_units_with_its_slices() {
        let folder = tempfile::tempdir().unwrap();
        fixtures::make("small_head", &folder.path().join("dicom")).unwrap();
        let limits = Limits::default();
        let input = gather(&[folder.path().join("dicom")], &Config::default()).unwrap();
        let contract = ModelCard::built_in().unwrap().input.contract;
        let study = &input.studies[0];
        let left_out = write_study(folder.path(), study, &contract, &limits).unwrap();
        assert_eq!(left_out, None);
        let path = |extension: &str| folder.path().join(format!("{}.{extension}", study.uid));
        let bytes = fs::read(path("npy")).unwrap();
        assert_eq!(bytes.len(), 128 + 4 * 32 * 256 * 256);
        let header = String::from_utf8_lossy(&bytes[10..128]);
        assert!(header.contains("'shape': (32, 256, 256)"), "{header}");
        assert!(header.ends_with('\n'), "{header}");
        let hounsfield = |slab: usize, row: usize, column: usize| {
            let at = 128 + 4 * ((slab * 256 + row) * 256 + column);
            f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
        };
        // Air in the corner, and brain beside the falx in the middle of the head.
        assert!((hounsfield(16, 0, 0) + 1000.0).abs() < 15.0);
        let brain = hounsfield(20, 128, 160);
        assert!((15.0..50.0).contains(&brain), "{brain} HU");
        let sidecar: serde_json::Value =
            serde_json::from_slice(&fs::read(path("json")).unwrap()).unwrap();
        assert_eq!(sidecar["nearest_slices"].as_array().unwrap().len(), 32);
        assert_eq!(sidecar["spacing_mm"][2], 5.0);
    }

    #[test]
    fn a_study_without_a_head_is_left_out_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        fixtures::make("chest", folder.path()).unwrap();
        let limits = Limits::default();
        let input = gather(&[folder.path().to_owned()], &Config::default()).unwrap();
        let contract = ModelCard::built_in().unwrap().input.contract;
        let why = write_study(folder.path(), &input.studies[0], &contract, &limits).unwrap();
        assert!(why.is_some_and(|why| !why.is_empty()));
    }
}
