//! `tez eval`: the shipped path over labelled studies, and how well it did.
//!
//! A study that was not analysed has no answer. It is counted as such and never as a negative:
//! figures over answered studies stand beside the share of all positives that was found.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use models::findings::FindingKind;
use models::report::{ModelIdentity, ReportState, StudyReport};
use models::runtime::Network;
use pipeline::reason::{Reason, ReasonCode};
use serde::Serialize;

use super::input::{Study, gather};
use super::labels::{LabelledStudy, read_labels};
use super::metrics::{Estimate, Share, area_under_curve, share};
use super::progress::Bar;
use super::triage::analyse_study;
use super::{ModelChoice, Settings, tell, usage_error};
use crate::config::{Config, ModelConfig};
use crate::inference::load_network;

/// Bands of a number: its name and from where on.
type Bands = &'static [(&'static str, f64)];

/// Lesion volumes, mL.
const VOLUME_BANDS_ML: Bands = &[
    ("under 5 mL", 0.0),
    ("5 to 10 mL", 5.0),
    ("10 to 30 mL", 10.0),
    ("30 mL and more", 30.0),
];
/// Slice thickness, mm.
const THICKNESS_BANDS_MM: Bands = &[
    ("under 1.5 mm", 0.0),
    ("1.5 to 3 mm", 1.5),
    ("3 mm and more", 3.0),
];

/// Measure the shipped path on labelled studies.
#[derive(Args, Debug)]
#[command(after_help = "\
DIR/studies.csv has one row for each study: a column `path` (file, folder or zip, relative to
DIR), label columns named like the findings (intracranial_hemorrhage, subdural_hemorrhage, ...) with
0, 1 or nothing where it is not known, and if known `volume_ml`, the lesion's volume.

Examples:
  tez eval validation/
  tez eval validation/ --json --model new/card.toml > new.json

Printed for each finding that the model answers: area under the curve (DeLong's 95 % interval on
the logit scale), sensitivity and specificity (Wilson's), by lesion volume and slice thickness.
Studies without an answer (not analysed, or analysed in part without the finding) are counted
apart, never as negatives.

Exit status:
  0  every study was read and the figures printed
  2  wrong usage, or DIR/studies.csv cannot be used")]
pub(super) struct EvalArgs {
    /// Folder with studies.csv.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    settings: Settings,
}

/// What came of one labelled study.
#[derive(Clone, Debug)]
struct Evaluated {
    labelled: LabelledStudy,
    /// `None` if no study could be read; the reason says why.
    report: Result<StudyReport, Reason>,
    thickness_mm: Option<f64>,
}

/// An answer to one question about one study.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    truth: bool,
    probability: f64,
    called: bool,
    volume_ml: Option<f64>,
    thickness_mm: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Evaluation {
    model: Option<ModelIdentity>,
    studies: Counts,
    findings: Vec<FindingFigures>,
    /// Labelled kinds that the model does not answer.
    kinds_not_answered: Vec<FindingKind>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    total: usize,
    analysed: usize,
    partial: usize,
    not_analysed: usize,
    /// Why studies were not analysed; one study may have several reasons.
    not_analysed_by_reason: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct FindingFigures {
    kind: FindingKind,
    /// Studies labelled for this kind.
    labelled: usize,
    /// Labelled positive, without an answer.
    positives_without_answer: usize,
    /// Labelled negative, without an answer.
    negatives_without_answer: usize,
    /// Of answered studies.
    auc: Option<Estimate>,
    /// Of answered positives.
    sensitivity: Share,
    /// Of answered negatives.
    specificity: Share,
    /// Found, of all positives: one without an answer was not found.
    found_of_all_positives: Share,
    /// Sensitivity by the lesion's volume, where it is known.
    by_volume: Vec<Band>,
    /// By slice thickness.
    by_thickness: Vec<Band>,
}

#[derive(Debug, Serialize)]
struct Band {
    range: &'static str,
    sensitivity: Share,
    #[serde(skip_serializing_if = "Option::is_none")]
    specificity: Option<Share>,
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
    if let Err(error) = load_network(&config.model) {
        return Ok(usage_error(&anyhow::Error::new(error)));
    }
    let evaluated = evaluate_all(&labelled, &config);
    let evaluation = figures(&evaluated);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &evaluation)?;
        writeln!(out)?;
    } else {
        write_table(&mut out, &evaluation)?;
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
        for _ in 0..threads(&config.model).min(labelled.len()) {
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

/// As many as the service has workers.
fn threads(config: &ModelConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.workers.unwrap_or((cores / 2).max(1))
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
    };
    match gather(std::slice::from_ref(&labelled.path), config) {
        Err(error) => {
            evaluated.report = Err(Reason::new(ReasonCode::NotDicom, format!("{error:#}")));
        }
        Ok(input) => match input.studies.as_slice() {
            [] => {}
            [study] => {
                let report = analyse_study(study, &config.limits, network, &|_| {}).report;
                evaluated.thickness_mm = thickness_mm(study, &report);
                evaluated.report = Ok(report);
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

fn figures(evaluated: &[Evaluated]) -> Evaluation {
    let reports = || {
        evaluated
            .iter()
            .filter_map(|study| study.report.as_ref().ok())
    };
    let answers_kind = |kind: FindingKind| {
        reports().any(|report| report.findings.iter().any(|finding| finding.kind == kind))
    };
    let labelled_kinds = FindingKind::ALL.into_iter().filter(|kind| {
        evaluated
            .iter()
            .any(|study| study.labelled.labels.contains_key(kind))
    });
    let (answered, kinds_not_answered): (Vec<_>, Vec<_>) =
        labelled_kinds.partition(|kind| answers_kind(*kind));
    Evaluation {
        model: reports().find_map(|report| report.model.clone()),
        studies: count(evaluated),
        findings: answered
            .into_iter()
            .map(|kind| figures_of(kind, evaluated))
            .collect(),
        kinds_not_answered,
    }
}

fn count(evaluated: &[Evaluated]) -> Counts {
    let mut counts = Counts {
        total: evaluated.len(),
        ..Counts::default()
    };
    for study in evaluated {
        let reasons = match &study.report {
            Ok(report) => match report.state {
                ReportState::Analysed => {
                    counts.analysed += 1;
                    continue;
                }
                ReportState::Partial => {
                    counts.partial += 1;
                    continue;
                }
                ReportState::NotAnalysed => report.reasons.as_slice(),
            },
            Err(reason) => std::slice::from_ref(reason),
        };
        counts.not_analysed += 1;
        for reason in reasons {
            let word = serde_json::to_value(reason.code).unwrap_or_default();
            let word = word.as_str().unwrap_or("unknown").to_owned();
            *counts.not_analysed_by_reason.entry(word).or_default() += 1;
        }
    }
    counts
}

fn figures_of(kind: FindingKind, evaluated: &[Evaluated]) -> FindingFigures {
    let labelled: Vec<(bool, Option<Answer>)> = evaluated
        .iter()
        .filter_map(|study| {
            let truth = *study.labelled.labels.get(&kind)?;
            Some((truth, answer(kind, truth, study)))
        })
        .collect();
    let answers: Vec<Answer> = labelled.iter().filter_map(|(_, answer)| *answer).collect();
    let unanswered = |of: bool| {
        let without = labelled
            .iter()
            .filter(|(truth, answer)| *truth == of && answer.is_none());
        without.count()
    };
    let scores = |of: bool| -> Vec<f64> {
        let of_truth = answers.iter().filter(|answer| answer.truth == of);
        of_truth.map(|answer| answer.probability).collect()
    };
    let sensitivity = sensitivity(&answers);
    FindingFigures {
        kind,
        labelled: labelled.len(),
        positives_without_answer: unanswered(true),
        negatives_without_answer: unanswered(false),
        auc: area_under_curve(&scores(true), &scores(false)),
        sensitivity,
        specificity: specificity(&answers),
        found_of_all_positives: share(sensitivity.count, sensitivity.of + unanswered(true)),
        by_volume: bands(VOLUME_BANDS_ML, &answers, |answer| answer.volume_ml, false),
        by_thickness: bands(
            THICKNESS_BANDS_MM,
            &answers,
            |answer| answer.thickness_mm,
            true,
        ),
    }
}

/// The answer that `study` got, if it got one: of a part of a head, "not found" is none.
fn answer(kind: FindingKind, truth: bool, study: &Evaluated) -> Option<Answer> {
    let report = study.report.as_ref().ok()?;
    let finding = report
        .findings
        .iter()
        .find(|finding| finding.kind == kind)?;
    let counts = match report.state {
        ReportState::Analysed => true,
        ReportState::Partial => finding.present,
        ReportState::NotAnalysed => false,
    };
    counts.then_some(Answer {
        truth,
        probability: finding.probability.value(),
        called: finding.present,
        volume_ml: study.labelled.volume_ml,
        thickness_mm: study.thickness_mm,
    })
}

fn sensitivity(answers: &[Answer]) -> Share {
    let positives = answers.iter().filter(|answer| answer.truth);
    share(
        positives.clone().filter(|answer| answer.called).count(),
        positives.count(),
    )
}

fn specificity(answers: &[Answer]) -> Share {
    let negatives = answers.iter().filter(|answer| !answer.truth);
    share(
        negatives.clone().filter(|answer| !answer.called).count(),
        negatives.count(),
    )
}

fn bands(
    bands: Bands,
    answers: &[Answer],
    number: impl Fn(&Answer) -> Option<f64>,
    with_specificity: bool,
) -> Vec<Band> {
    let band_of = |number: f64| bands.iter().rfind(|(_, from)| number >= *from);
    bands
        .iter()
        .map(|(name, _)| {
            let within: Vec<Answer> = answers
                .iter()
                .filter(|answer| {
                    let band = number(answer).and_then(band_of);
                    band.is_some_and(|(band, _)| band == name)
                })
                .copied()
                .collect();
            Band {
                range: name,
                sensitivity: sensitivity(&within),
                specificity: with_specificity.then(|| specificity(&within)),
            }
        })
        .collect()
}

fn write_table(out: &mut impl Write, evaluation: &Evaluation) -> io::Result<()> {
    let studies = &evaluation.studies;
    if let Some(model) = &evaluation.model {
        writeln!(
            out,
            "Model    {} {} ({})",
            model.name, model.version, model.sha256
        )?;
    }
    writeln!(
        out,
        "Studies  {}: {} analysed, {} in part, {} not analysed",
        studies.total, studies.analysed, studies.partial, studies.not_analysed
    )?;
    for (reason, count) in &studies.not_analysed_by_reason {
        writeln!(out, "         not analysed by {reason}: {count}")?;
    }
    for finding in &evaluation.findings {
        write_finding(out, finding)?;
    }
    for kind in &evaluation.kinds_not_answered {
        writeln!(out, "\n{}: not answered by this model", kind.label())?;
    }
    Ok(())
}

fn write_finding(out: &mut impl Write, finding: &FindingFigures) -> io::Result<()> {
    writeln!(
        out,
        "\n{}: {} labelled; without an answer {} positive, {} negative",
        finding.kind.label(),
        finding.labelled,
        finding.positives_without_answer,
        finding.negatives_without_answer
    )?;
    writeln!(
        out,
        "  AUC                    {}",
        estimate(finding.auc, 1.0, "")
    )?;
    writeln!(
        out,
        "  sensitivity            {}",
        share_text(&finding.sensitivity)
    )?;
    writeln!(
        out,
        "  specificity            {}",
        share_text(&finding.specificity)
    )?;
    writeln!(
        out,
        "  found of all positives {}",
        share_text(&finding.found_of_all_positives)
    )?;
    for band in finding.by_volume.iter().chain(&finding.by_thickness) {
        writeln!(
            out,
            "  {:<22} sensitivity {}",
            band.range,
            share_text(&band.sensitivity)
        )?;
        if let Some(specificity) = &band.specificity {
            writeln!(out, "  {:<22} specificity {}", "", share_text(specificity))?;
        }
    }
    Ok(())
}

fn share_text(share: &Share) -> String {
    let percent = estimate(share.estimate, 100.0, " %");
    format!("{percent} ({} of {})", share.count, share.of)
}

fn estimate(estimate: Option<Estimate>, factor: f64, unit: &str) -> String {
    let digits = if factor > 1.0 { 1 } else { 3 };
    let text = |value: f64| format!("{:.digits$}", value * factor);
    match estimate {
        None => "-".to_owned(),
        Some(Estimate {
            value,
            low: Some(low),
            high: Some(high),
        }) => format!("{}{unit} [{}, {}]", text(value), text(low), text(high)),
        Some(Estimate { value, .. }) => format!("{}{unit} [no interval]", text(value)),
    }
}

#[cfg(test)]
mod tests {
    use models::findings::{Finding, Outcome, Probability};
    use pipeline::uid::Uid;

    use super::*;

    const ICH: FindingKind = FindingKind::IntracranialHemorrhage;

    fn finding(probability: f64) -> Finding {
        Finding {
            kind: ICH,
            present: probability >= 0.5,
            probability: Probability::new(probability).unwrap(),
            volume_ml: None,
            shift_mm: None,
            side: None,
            key_slices: Vec::new(),
        }
    }

    fn reasons() -> Vec<Reason> {
        vec![Reason::new(ReasonCode::MissingSlices, "slices are missing")]
    }

    fn study(truth: bool, outcome: Outcome) -> Evaluated {
        let uid = Uid::new("1.2.3").unwrap();
        Evaluated {
            labelled: LabelledStudy {
                path: PathBuf::from("a"),
                labels: BTreeMap::from([(ICH, truth), (FindingKind::MassEffect, truth)]),
                volume_ml: truth.then_some(7.0),
            },
            report: Ok(StudyReport::of_outcome(&uid, outcome)),
            thickness_mm: Some(5.0),
        }
    }

    fn analysed(truth: bool, probability: f64) -> Evaluated {
        study(truth, Outcome::Analysed(vec![finding(probability)]))
    }

    fn partial(truth: bool, probability: f64) -> Evaluated {
        let findings = vec![finding(probability)];
        study(
            truth,
            Outcome::Partial {
                findings,
                reasons: reasons(),
            },
        )
    }

    #[test]
    fn a_study_without_an_answer_is_neither_a_negative_nor_forgotten() {
        let unread = Evaluated {
            report: Err(Reason::new(ReasonCode::NotDicom, "nothing there")),
            ..analysed(true, 0.9)
        };
        let evaluated = [
            analysed(true, 0.9),
            analysed(true, 0.2),
            analysed(false, 0.1),
            analysed(false, 0.3),
            study(true, Outcome::NotAnalysed { reasons: reasons() }),
            study(false, Outcome::NotAnalysed { reasons: reasons() }),
            unread,
        ];
        let evaluation = figures(&evaluated);
        assert_eq!(evaluation.studies.total, 7);
        assert_eq!(evaluation.studies.not_analysed, 3);
        assert_eq!(
            evaluation.studies.not_analysed_by_reason["missing_slices"],
            2
        );
        let found = &evaluation.findings[0];
        assert_eq!((found.sensitivity.count, found.sensitivity.of), (1, 2));
        assert_eq!((found.specificity.count, found.specificity.of), (2, 2));
        assert_eq!(
            (
                found.positives_without_answer,
                found.negatives_without_answer
            ),
            (2, 1)
        );
        let all = found.found_of_all_positives;
        assert_eq!((all.count, all.of), (1, 4));
        // Pairs: 0.9 beats both, 0.2 beats one of two.
        assert!((found.auc.unwrap().value - 0.75).abs() < 1e-9);
    }

    #[test]
    fn of_a_part_of_a_head_only_a_finding_is_an_answer() {
        let evaluation = figures(&[partial(true, 0.9), partial(false, 0.1), partial(true, 0.1)]);
        assert_eq!(evaluation.studies.partial, 3);
        let found = &evaluation.findings[0];
        assert_eq!((found.sensitivity.count, found.sensitivity.of), (1, 1));
        assert_eq!(found.specificity.of, 0);
        assert_eq!(
            (
                found.positives_without_answer,
                found.negatives_without_answer
            ),
            (1, 1)
        );
    }

    #[test]
    fn a_kind_that_the_model_does_not_answer_is_named_without_figures() {
        let evaluation = figures(&[analysed(true, 0.9), analysed(false, 0.1)]);
        assert_eq!(evaluation.findings.len(), 1);
        assert_eq!(evaluation.kinds_not_answered, [FindingKind::MassEffect]);
    }

    #[test]
    fn bands_take_their_lower_bound_and_unknown_is_in_none() {
        let with_volume = |volume_ml| {
            let mut study = analysed(true, 0.9);
            study.labelled.volume_ml = volume_ml;
            study
        };
        let volumes = [
            Some(0.0),
            Some(4.99),
            Some(5.0),
            Some(30.0),
            Some(300.0),
            None,
        ];
        let evaluated: Vec<Evaluated> = volumes.into_iter().map(with_volume).collect();
        let bands = &figures(&evaluated).findings[0].by_volume;
        let counts: Vec<usize> = bands.iter().map(|band| band.sensitivity.of).collect();
        assert_eq!(counts, [2, 1, 0, 2]);
    }

    #[test]
    fn the_table_shows_what_has_no_figure_as_a_dash() {
        let mut text = Vec::new();
        write_table(&mut text, &figures(&[analysed(true, 0.9)])).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("AUC                    -"), "{text}");
        assert!(
            text.contains("sensitivity            100.0 % [20.7, 100.0] (1 of 1)"),
            "{text}"
        );
        assert!(text.contains("specificity            - (0 of 0)"), "{text}");
    }
}
