//! `tez eval`: runs the shipped path over labelled studies; [`eval`] says how well it did.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use clap::Args;
use eval::labels::{LabelledStudy, read_labels, read_slice_labels};
use eval::{Evaluated, Site, SliceAnswer, figures, predictions, table};
use models::findings::FindingKind;
use models::report::{ReportState, StudyReport};
use models::runtime::Network;
use pipeline::reason::{Reason, ReasonCode};

use super::input::{Study, gather};
use super::progress::Bar;
use super::triage::analyse_study;
use super::{ModelChoice, Settings, tell, usage_error};
use crate::config::Config;
use crate::inference::load_network;

/// Measure the shipped path on labelled studies.
#[derive(Args, Debug)]
#[command(after_help = "\
DIR/studies.csv has one row for each study: a column `path` (file, folder or zip, relative to
DIR), label columns named like the findings (intracranial_hemorrhage, subdural_hemorrhage, ...) with
0, 1 or nothing where it is not known, and if known `volume_ml`, the lesion's volume.
DIR/slices.csv, if it is there, has one row for each labelled slice: `sop_uid` (SOP Instance UID) and
the same label columns.

Examples:
  tez eval validation/
  tez eval validation/ --json --model new/card.toml > new.json
  tez eval validation/ --prevalence 0.08 --studies-per-day 35
  tez eval validation/ --prevalence 0.08 --prevalence subdural_hemorrhage=0.03
  tez eval fold0/ --model fold0.toml --predictions fold0.csv

Printed for each finding that the model answers:
- area under the curve (DeLong's 95 % interval on the logit scale), sensitivity and specificity
  (Wilson's), by lesion volume and slice thickness;
- whether probabilities mean what they say: ten bins, and the expected calibration error;
- with slices.csv the area under the curve by slice. A slice's probability is that of the slab
  that covers its middle, not calibrated. The interval draws whole studies 2,000 times from a fixed
  seed, since slices of one head are alike; studies count as patients, so name each patient once;
- with --prevalence what to expect at a place with that share of positives: predictive values,
  alarms and misses. Their intervals put in both ends of the intervals of sensitivity and
  specificity at once, and say nothing of how far that place's patients differ from these.
Studies without an answer (not analysed, or analysed in part without the finding) are counted
apart, never as negatives.

Exit status:
  0  every study was read and the figures printed
  2  wrong usage, or a table in DIR cannot be used")]
pub(super) struct EvalArgs {
    /// Folder with studies.csv.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Share of studies with the finding, above 0 and below 1: for every finding, or after KIND=
    /// for one.
    #[arg(long, value_name = "[KIND=]P")]
    prevalence: Vec<Prevalence>,
    /// Studies in a day, for --prevalence.
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = studies_per_day)]
    studies_per_day: f64,
    /// Write every probability to this CSV file, with its label: of studies as shown to users, of
    /// slices as the network gave it.
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    settings: Settings,
}

/// An assumed share of positive studies.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prevalence {
    /// Of this finding; `None` for all without one of their own.
    kind: Option<FindingKind>,
    share: f64,
}

impl FromStr for Prevalence {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (kind, share) = match text.split_once('=') {
            None => (None, text),
            Some((word, share)) => {
                let named = |kind: &FindingKind| kind.as_str() == word;
                let kind = FindingKind::ALL.into_iter().find(named);
                (
                    Some(kind.with_context(|| format!("{word:?} is no finding"))?),
                    share,
                )
            }
        };
        let share: f64 = share.parse().context("it is not a number")?;
        ensure!(share > 0.0 && share < 1.0, "it is not between 0 and 1");
        Ok(Self { kind, share })
    }
}

fn studies_per_day(text: &str) -> anyhow::Result<f64> {
    let studies: f64 = text.parse().context("it is not a number")?;
    ensure!(
        studies > 0.0 && studies <= 1e6,
        "it is not a number of studies"
    );
    Ok(studies)
}

impl EvalArgs {
    /// What is assumed of a place for `kind`; of several the last counts.
    fn site(&self, kind: FindingKind) -> Option<Site> {
        let of = |kind: Option<FindingKind>| self.prevalence.iter().rfind(|one| one.kind == kind);
        of(Some(kind)).or_else(|| of(None)).map(|one| Site {
            prevalence: one.share,
            studies_per_day: self.studies_per_day,
        })
    }
}

/// Runs the command.
///
/// # Errors
///
/// If the figures cannot be printed.
pub(super) fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let config = match super::load_config(&args.settings, &args.model) {
        Ok(config) => config,
        Err(error) => return Ok(usage_error(&error)),
    };
    let (labelled, unknown_columns) = match read_labels(&args.folder) {
        Ok(read) => read,
        Err(error) => return Ok(usage_error(&error)),
    };
    for column in unknown_columns {
        tell(&format!(
            "studies.csv: column {column:?} is no finding and is left out"
        ));
    }
    let slice_labels = match read_slice_labels(&args.folder) {
        Ok(labels) => labels,
        Err(error) => return Ok(usage_error(&error)),
    };
    if let Err(error) = load_network(&config.model) {
        return Ok(usage_error(&anyhow::Error::new(error)));
    }
    // Made first: hours of work must not end at a folder that is not there.
    let predictions = match args.predictions.as_ref().map(File::create).transpose() {
        Ok(file) => file,
        Err(error) => return Ok(usage_error(&anyhow::anyhow!("--predictions: {error}"))),
    };
    let evaluated = evaluate_all(&labelled, &config);
    if let Some(file) = predictions {
        let mut out = BufWriter::new(file);
        predictions::write(&mut out, &args.folder, &evaluated, slice_labels.as_ref())
            .and_then(|()| out.flush())
            .context("cannot write the predictions")?;
    }
    let evaluation = figures::figures(&evaluated, slice_labels.as_ref(), &|kind| args.site(kind));
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &evaluation)?;
        writeln!(out)?;
    } else {
        table::write(&mut out, &evaluation)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Analyses all studies on as many threads as the service would have workers, each with a network
/// of its own. The order of the result is that of `labelled`.
fn evaluate_all(labelled: &[LabelledStudy], config: &Config) -> Vec<Evaluated> {
    let bar = Bar::new("Studies", labelled.len());
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Evaluated>> = Mutex::default();
    let work = || {
        let mut network = load_network(&config.model).map_err(|error| error.reason());
        while let Some((index, study)) = take_next(&next, labelled) {
            let evaluated = evaluate(study, config, &mut network);
            say_unanswered(&bar, &evaluated);
            done.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .insert(index, evaluated);
            bar.step();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..config.model.workers().min(labelled.len()) {
            scope.spawn(work);
        }
    });
    let done = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    done.into_values().collect()
}

fn take_next<'a>(
    next: &AtomicUsize,
    labelled: &'a [LabelledStudy],
) -> Option<(usize, &'a LabelledStudy)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, labelled.get(index)?))
}

fn say_unanswered(bar: &Bar, evaluated: &Evaluated) {
    let reasons = match &evaluated.report {
        Ok(report) if report.state == ReportState::NotAnalysed => report.reasons.as_slice(),
        Ok(_) => return,
        Err(reason) => std::slice::from_ref(reason),
    };
    let why: Vec<&str> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    let path = evaluated.labelled.path.display();
    bar.aside(|| tell(&format!("not analysed: {path}: {}", why.join("; "))));
}

fn evaluate(
    labelled: &LabelledStudy,
    config: &Config,
    network: &mut Result<Network, Reason>,
) -> Evaluated {
    let mut evaluated = Evaluated {
        labelled: labelled.clone(),
        report: Err(Reason::new(ReasonCode::NotDicom, "no DICOM object found")),
        thickness_mm: None,
        slices: Vec::new(),
    };
    match gather(std::slice::from_ref(&labelled.path), config) {
        Err(error) => {
            evaluated.report = Err(Reason::new(ReasonCode::NotDicom, format!("{error:#}")));
        }
        Ok(input) => match input.studies.as_slice() {
            [] => {}
            [study] => {
                let analysis = analyse_study(study, &config.limits, network, &|_| {});
                evaluated.slices = SliceAnswer::of(&analysis);
                evaluated.thickness_mm = thickness_mm(study, &analysis.report);
                evaluated.report = Ok(analysis.report);
            }
            studies => {
                let text = format!("{} studies where one was named", studies.len());
                evaluated.report = Err(Reason::new(ReasonCode::BadIdentifier, text));
            }
        },
    }
    evaluated
}

/// Slice thickness of the chosen series as its header says, else its largest gap.
fn thickness_mm(study: &Study, report: &StudyReport) -> Option<f64> {
    let chosen = report.series.iter().find(|series| series.chosen)?;
    study
        .instances
        .iter()
        .filter(|instance| instance.series_uid == chosen.uid)
        .flat_map(|instance| &instance.frames)
        .find_map(|frame| frame.thickness_mm)
        .or_else(|| report.geometry.as_ref().map(|geometry| geometry.gap_mm[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICH: FindingKind = FindingKind::IntracranialHemorrhage;

    #[test]
    fn a_prevalence_is_for_one_finding_or_for_all_others() {
        let parse = |text: &str| text.parse::<Prevalence>();
        let args = |prevalence| EvalArgs {
            folder: PathBuf::new(),
            json: false,
            prevalence,
            studies_per_day: 20.0,
            predictions: None,
            model: ModelChoice {
                model: None,
                library: None,
            },
            settings: Settings { config: None },
        };
        let args = args(vec![
            parse("0.1").unwrap(),
            parse("mass_effect=0.03").unwrap(),
        ]);
        let share = |kind| args.site(kind).unwrap().prevalence;
        assert!((share(ICH) - 0.1).abs() < 1e-12);
        assert!((share(FindingKind::MassEffect) - 0.03).abs() < 1e-12);
        for wrong in ["0", "1", "10", "x", "bleed=0.1", "nan"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
