//! Figures for people.

use std::io::{self, Write};

use crate::figures::{Evaluation, FindingFigures, SliceFigures};
use crate::metrics::{Estimate, Expected, Reliability, Share};

/// Writes all of `evaluation`.
///
/// # Errors
///
/// If `out` cannot be written.
pub fn write(out: &mut impl Write, evaluation: &Evaluation) -> io::Result<()> {
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
    write_line(out, "AUC", &plain(finding.auc))?;
    write_line(out, "sensitivity", &share_text(&finding.sensitivity))?;
    write_line(out, "specificity", &share_text(&finding.specificity))?;
    let found = share_text(&finding.found_of_all_positives);
    write_line(out, "found of all positives", &found)?;
    let bands = finding.by_volume.iter().chain(&finding.by_thickness);
    for band in bands.filter(|band| band.answers() > 0) {
        let sensitivity = share_text(&band.sensitivity);
        write_line(out, band.range, &format!("sensitivity {sensitivity}"))?;
        if let Some(specificity) = &band.specificity {
            write_line(out, "", &format!("specificity {}", share_text(specificity)))?;
        }
    }
    write_reliability(out, &finding.reliability)?;
    if let Some(slices) = &finding.by_slice {
        write_slices(out, slices)?;
    }
    if let Some(expected) = &finding.at_prevalence {
        write_expected(out, expected)?;
    }
    Ok(())
}

fn write_line(out: &mut impl Write, name: &str, text: &str) -> io::Result<()> {
    writeln!(out, "  {name:<22} {text}")
}

fn write_reliability(out: &mut impl Write, reliability: &Reliability) -> io::Result<()> {
    let Some(error) = reliability.expected_calibration_error else {
        return Ok(());
    };
    write_line(out, "calibration error", &format!("{error:.3}"))?;
    for bin in &reliability.bins {
        let name = format!("  said {:.1} to {:.1}", bin.from, bin.to);
        let said = 100.0 * bin.mean_probability;
        let was = share_text(&bin.positive);
        write_line(out, &name, &format!("mean {said:.1} %, was {was}"))?;
    }
    Ok(())
}

fn write_slices(out: &mut impl Write, slices: &SliceFigures) -> io::Result<()> {
    let SliceFigures {
        labelled,
        positive,
        without_answer,
        positive_studies,
        auc,
    } = slices;
    write_line(out, "AUC by slice", &plain(*auc))?;
    let text = format!(
        "{labelled} labelled, {positive} positive in {positive_studies} studies; \
         {without_answer} without an answer"
    );
    write_line(out, "", &text)
}

fn write_expected(out: &mut impl Write, expected: &Expected) -> io::Result<()> {
    let Expected {
        prevalence,
        studies_per_day,
        ..
    } = expected;
    let place = format!(
        "{:.1} % positive, {studies_per_day} studies a day",
        100.0 * prevalence
    );
    write_line(out, "expected at", &place)?;
    let percent = |of| estimate(of, 100.0, 1, " %");
    let count = |of| estimate(Some(of), 1.0, 2, "");
    for (name, text) in [
        ("PPV", percent(expected.positive_predictive_value)),
        ("NPV", percent(expected.negative_predictive_value)),
        ("alerts a day", count(expected.alerts_per_day)),
        ("false alerts a day", count(expected.false_alerts_per_day)),
        ("misses a day", count(expected.misses_per_day)),
        ("misses a year", count(expected.misses_per_year)),
    ] {
        write_line(out, &format!("  {name}"), &text)?;
    }
    Ok(())
}

fn share_text(share: &Share) -> String {
    let percent = estimate(share.estimate, 100.0, 1, " %");
    format!("{percent} ({} of {})", share.count, share.of)
}

/// A figure between 0 and 1.
fn plain(value: Option<Estimate>) -> String {
    estimate(value, 1.0, 3, "")
}

fn estimate(estimate: Option<Estimate>, factor: f64, digits: usize, unit: &str) -> String {
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
