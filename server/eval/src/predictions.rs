//! Every answer as a row of a CSV file, so that others can draw curves and folds can be joined.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use models::findings::{Finding, FindingKind};
use models::report::ReportState;

use crate::Evaluated;
use crate::labels::SliceLabels;

/// `probability` of a study is calibrated and is what users see; of a slice it is the network's.
/// Empty cells: not known, or no answer.
const HEADER: &str = "level,path,state,sop_uid,frame,kind,label,probability,present";

/// Writes all answers and all labels without one; paths are those of studies.csv in `folder`.
///
/// # Errors
///
/// If `out` cannot be written.
pub fn write(
    out: &mut impl Write,
    folder: &Path,
    evaluated: &[Evaluated],
    slice_labels: Option<&SliceLabels>,
) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for study in evaluated {
        let path = &study.labelled.path;
        let path = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
        let start = format!("{},{}", quoted(&path), state(study));
        write_study(out, &start, study)?;
        write_slices(out, &start, study, slice_labels)?;
    }
    Ok(())
}

fn write_study(out: &mut impl Write, start: &str, study: &Evaluated) -> io::Result<()> {
    let findings: &[Finding] = study.report.as_ref().map_or(&[], |report| &report.findings);
    let answered = findings.iter().map(|finding| finding.kind);
    let labels = &study.labelled.labels;
    let kinds: BTreeSet<FindingKind> = answered.chain(labels.keys().copied()).collect();
    for kind in kinds {
        let finding = findings.iter().find(|finding| finding.kind == kind);
        writeln!(
            out,
            "study,{start},,,{},{},{},{}",
            kind.as_str(),
            bit(labels.get(&kind).copied()),
            finding.map_or_else(String::new, |one| one.probability.value().to_string()),
            bit(finding.map(|one| one.present)),
        )?;
    }
    Ok(())
}

fn write_slices(
    out: &mut impl Write,
    start: &str,
    study: &Evaluated,
    slice_labels: Option<&SliceLabels>,
) -> io::Result<()> {
    for slice in &study.slices {
        let labels = slice_labels.and_then(|labels| labels.get(&slice.sop_uid));
        for (kind, probability) in &slice.probability {
            writeln!(
                out,
                "slice,{start},{},{},{},{},{probability},",
                slice.sop_uid,
                slice.frame_index,
                kind.as_str(),
                bit(labels.and_then(|labels| labels.get(kind)).copied()),
            )?;
        }
    }
    Ok(())
}

fn state(study: &Evaluated) -> &'static str {
    match study.report.as_ref().map(|report| report.state) {
        Ok(ReportState::Analysed) => "analysed",
        Ok(ReportState::Partial) => "partial",
        Ok(ReportState::NotAnalysed) | Err(_) => "not_analysed",
    }
}

fn bit(flag: Option<bool>) -> &'static str {
    match flag {
        None => "",
        Some(false) => "0",
        Some(true) => "1",
    }
}

/// A cell by RFC 4180.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
