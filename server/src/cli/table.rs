//! A study's result for people.

use std::fmt::Write as _;

use models::analysis::Stage;
use models::card::ModelCard;
use models::findings::Finding;
use models::report::{ReportState, ScanReport, StudyReport};
use models::triage::Priority;
use pipeline::uid::Uid;

/// Said with every result.
pub(super) const NOT_A_DIAGNOSIS: &str =
    "Tez orders a worklist. It is not a diagnosis, and `routine` is not a negative read.";

/// Every place stands in a line of its own, so that "no finding" and "not analysed" cannot be
/// taken for one another. `card` is the model's, if one ran.
pub(super) fn describe(report: &StudyReport, card: Option<&ModelCard>) -> String {
    let mut lines = vec![
        format!("Study      {}", report.study_uid),
        format!("State      {}", state(report.state)),
        format!(
            "Priority   {}: {}",
            priority(report.priority),
            report.priority_because.join("; ")
        ),
    ];
    lines.extend(
        report
            .reasons
            .iter()
            .map(|reason| format!("Reason     {}", reason.text)),
    );
    lines.extend(report.findings.iter().map(finding));
    if report.scans.len() > 1 {
        lines.extend(report.scans.iter().map(scan));
    }
    lines.extend(report.series.iter().map(|series| {
        let mark = if series.chosen {
            "analysed"
        } else {
            "left out"
        };
        let why: Vec<&str> = series
            .reasons
            .iter()
            .map(|reason| reason.text.as_str())
            .collect();
        format!("Series     {} {mark}: {}", series.uid, why.join("; "))
    }));
    lines.extend(report.geometry.as_ref().map(|geometry| {
        let [x, y] = geometry.spacing_mm;
        let [smallest, largest] = geometry.gap_mm;
        let rectified = if geometry.rectified {
            ", rectified"
        } else {
            ""
        };
        format!(
            "Geometry   {} slices of {x:.3} x {y:.3} mm, gaps {smallest:.2} to {largest:.2} mm, \
             tilt {:.1} degrees{rectified}",
            geometry.slices, geometry.tilt_deg
        )
    }));
    let warnings = report
        .geometry
        .iter()
        .flat_map(|geometry| &geometry.warnings);
    lines.extend(warnings.map(|warning| format!("           {}", warning.text)));
    lines.extend(report.model.as_ref().map(|model| {
        let untrained = card.is_some_and(|card| !card.trained);
        let note = if untrained {
            ", NOT a trained model"
        } else {
            ""
        };
        format!("Model      {} {}{note}", model.name, model.version)
    }));
    lines.push(format!("Time       {}", times(report)));
    lines.join("\n")
}

fn state(state: ReportState) -> &'static str {
    match state {
        ReportState::Analysed => "analysed",
        ReportState::Partial => "PARTIAL: something is missing or in doubt",
        ReportState::NotAnalysed => "NOT ANALYSED",
    }
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Critical => "CRITICAL",
        Priority::Urgent => "URGENT",
        Priority::Unknown => "unknown",
        Priority::Routine => "routine",
    }
}

/// One of several scans of a study.
fn scan(scan: &ScanReport) -> String {
    let acquired = scan.acquired.as_deref().unwrap_or("at an unknown time");
    let series: Vec<&str> = scan.series_uids.iter().map(Uid::as_str).collect();
    let mut line = format!(
        "Scan       {acquired}: {}, {}; series {}",
        state(scan.state),
        priority(scan.priority),
        series.join(", ")
    );
    for reason in &scan.reasons {
        append(&mut line, format_args!("\n           {}", reason.text));
    }
    let present = scan.findings.iter().filter(|finding| finding.present);
    for finding in present {
        let volume = finding
            .volume_ml
            .map_or_else(String::new, |ml| format!(", {ml:.1} mL"));
        append(
            &mut line,
            format_args!("\n           {}{volume}", finding.kind.label()),
        );
    }
    line
}

fn finding(finding: &Finding) -> String {
    let answer = if finding.present {
        "PRESENT"
    } else {
        "not found"
    };
    let mut line = format!(
        "Finding    {}: {answer}, probability {:.2}",
        finding.kind.label(),
        finding.probability.value()
    );
    if let Some(volume_ml) = finding.volume_ml {
        append(&mut line, format_args!(", {volume_ml:.1} mL"));
    }
    if let Some([low_ml, high_ml]) = finding.volume_interval_ml {
        append(
            &mut line,
            format_args!(" (likely {low_ml:.1} to {high_ml:.1})"),
        );
    }
    if let Some(shift_mm) = finding.shift_mm {
        append(&mut line, format_args!(", {shift_mm:.1} mm"));
    }
    if let Some(side) = finding.side {
        let side = format!("{side:?}").to_lowercase();
        append(&mut line, format_args!(", {side}"));
    }
    for slice in &finding.key_slices {
        append(&mut line, format_args!("\n           see {slice}"));
    }
    line
}

fn append(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text)
        .expect("writing to a string cannot fail");
}

/// Times in the order in which they were spent.
fn times(report: &StudyReport) -> String {
    let stages = Stage::ALL.map(Stage::as_str);
    let texts: Vec<String> = stages
        .into_iter()
        .chain(["total"])
        .filter_map(|stage| {
            let spent_ms = report.timing_ms.get(stage)?;
            Some(format!("{stage} {spent_ms:.0} ms"))
        })
        .collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use models::findings::{FindingKind, Outcome, Probability, Side};
    use pipeline::reason::{Reason, ReasonCode};
    use pipeline::uid::Uid;

    use super::*;

    fn text(outcome: Outcome) -> String {
        let uid = Uid::new("1.2.3").unwrap();
        describe(&StudyReport::of_outcome(&uid, outcome), None)
    }

    fn finding(present: bool) -> Finding {
        Finding {
            kind: FindingKind::IntracranialHemorrhage,
            present,
            probability: Probability::new(0.5).unwrap(),
            volume_ml: present.then_some(12.34),
            volume_interval_ml: None,
            shift_mm: None,
            side: present.then_some(Side::Left),
            key_slices: vec![uid(); usize::from(present)],
        }
    }

    fn uid() -> Uid {
        Uid::new("1.2.3.4").unwrap()
    }

    #[test]
    fn a_finding_is_told_with_its_size_side_and_slices() {
        let text = text(Outcome::Analysed(vec![finding(true)]));
        assert!(
            text.contains("PRESENT, probability 0.50, 12.3 mL, left"),
            "{text}"
        );
        assert!(text.contains("see 1.2.3.4"), "{text}");
    }

    #[test]
    fn not_analysed_is_never_told_as_no_finding() {
        let reasons = vec![Reason::new(ReasonCode::NotCt, "no CT")];
        let unanalysed = text(Outcome::NotAnalysed { reasons });
        assert!(
            unanalysed.contains("NOT ANALYSED") && unanalysed.contains("no CT"),
            "{unanalysed}"
        );
        assert!(!unanalysed.contains("routine") && !unanalysed.contains("not found"));
        let quiet = text(Outcome::Analysed(vec![finding(false)]));
        assert!(
            quiet.contains("not found") && quiet.contains("routine"),
            "{quiet}"
        );
    }
}
