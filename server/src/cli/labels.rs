//! `studies.csv` of `tez eval`: which studies, and what is known of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use models::findings::FindingKind;

/// Longest `studies.csv`, bytes.
const BYTES_MAX: u64 = 64 << 20;

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LabelledStudy {
    /// Where the study lies.
    pub(super) path: PathBuf,
    /// What is known; a kind whose cell is empty is not here.
    pub(super) labels: BTreeMap<FindingKind, bool>,
    /// Volume of the lesion, mL, where it is known.
    pub(super) volume_ml: Option<f64>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Column {
    Path,
    VolumeMl,
    Label(FindingKind),
    Other,
}

/// Reads `folder/studies.csv`. Gives the rows, and the names of columns that mean nothing here.
///
/// # Errors
///
/// If it is missing, has no column `path` or no label column, or a cell is not what it should be.
pub(super) fn read_labels(folder: &Path) -> anyhow::Result<(Vec<LabelledStudy>, Vec<String>)> {
    let path = folder.join("studies.csv");
    let bytes = std::fs::metadata(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    ensure!(
        bytes <= BYTES_MAX,
        "{} has more than {BYTES_MAX} bytes",
        path.display()
    );
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, folder).with_context(|| format!("{} cannot be used", path.display()))
}

fn parse(text: &str, folder: &Path) -> anyhow::Result<(Vec<LabelledStudy>, Vec<String>)> {
    let mut rows = records(text)?.into_iter();
    let (_, names) = rows.next().context("it is empty")?;
    let columns: Vec<Column> = names.iter().map(|name| column(name)).collect();
    let paths = columns
        .iter()
        .filter(|column| **column == Column::Path)
        .count();
    ensure!(paths == 1, "it needs one column `path`, and has {paths}");
    let has_labels = columns
        .iter()
        .any(|column| matches!(column, Column::Label(_)));
    let known: Vec<&str> = FindingKind::ALL.iter().map(|kind| kind.as_str()).collect();
    ensure!(
        has_labels,
        "it has no label column; known are {}",
        known.join(", ")
    );
    let others = names
        .iter()
        .zip(&columns)
        .filter(|(_, column)| **column == Column::Other);
    let others = others.map(|(name, _)| name.clone()).collect();
    let studies = rows
        .map(|(line, cells)| row(&columns, &cells, folder).with_context(|| format!("line {line}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!studies.is_empty(), "it names no study");
    Ok((studies, others))
}

fn column(name: &str) -> Column {
    match name.trim() {
        "path" => Column::Path,
        "volume_ml" => Column::VolumeMl,
        name => FindingKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .map_or(Column::Other, Column::Label),
    }
}

fn row(columns: &[Column], cells: &[String], folder: &Path) -> anyhow::Result<LabelledStudy> {
    ensure!(
        cells.len() == columns.len(),
        "it has {} cells where the first line has {}",
        cells.len(),
        columns.len()
    );
    let mut study = LabelledStudy {
        path: folder.to_owned(),
        labels: BTreeMap::new(),
        volume_ml: None,
    };
    for (column, cell) in columns.iter().zip(cells) {
        let cell = cell.trim();
        match column {
            Column::Path => {
                ensure!(!cell.is_empty(), "the path is empty");
                study.path = folder.join(cell);
            }
            Column::VolumeMl => study.volume_ml = volume(cell)?,
            Column::Label(kind) => {
                study
                    .labels
                    .extend(label(cell)?.map(|label| (*kind, label)));
            }
            Column::Other => {}
        }
    }
    Ok(study)
}

fn label(cell: &str) -> anyhow::Result<Option<bool>> {
    match cell {
        "" => Ok(None),
        "0" => Ok(Some(false)),
        "1" => Ok(Some(true)),
        _ => bail!("label {cell:?} is neither 0, 1 nor empty"),
    }
}

fn volume(cell: &str) -> anyhow::Result<Option<f64>> {
    if cell.is_empty() {
        return Ok(None);
    }
    let volume_ml: f64 = cell
        .parse()
        .with_context(|| format!("volume {cell:?} is not a number"))?;
    ensure!(
        (0.0..=10_000.0).contains(&volume_ml),
        "a volume of {cell} mL cannot be"
    );
    Ok(Some(volume_ml))
}

/// The records of RFC 4180 text, each with the line on which it begins; empty lines are left out.
fn records(text: &str) -> anyhow::Result<Vec<(usize, Vec<String>)>> {
    let mut records = Vec::new();
    let mut cells = vec![String::new()];
    let (mut quoted, mut line, mut first_line) = (false, 1, 1);
    // A byte order mark is what spreadsheets write first.
    let mut characters = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(character) = characters.next() {
        let cell = cells.last_mut().expect("there is always a cell");
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' => {
                line += 1;
                if quoted {
                    cell.push(character);
                } else {
                    records.push((
                        first_line,
                        std::mem::replace(&mut cells, vec![String::new()]),
                    ));
                    first_line = line;
                }
            }
            _ => cell.push(character),
        }
    }
    ensure!(
        !quoted,
        "line {first_line} opens a quote that is never closed"
    );
    records.push((first_line, cells));
    records.retain(|(_, cells)| cells.iter().any(|cell| !cell.trim().is_empty()));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", parse(text, Path::new("/d")).unwrap_err())
    }

    #[test]
    fn rows_have_paths_labels_and_volumes_and_what_is_empty_is_unknown() {
        let text = "\u{feff}path,intracranial_hemorrhage,volume_ml,note,midline_shift\r\n\
                    a,1,12.5,\"x, \"\"y\"\"\",\r\n\r\n\"b, c\",0,,,1\n";
        let (studies, others) = parse(text, Path::new("/d")).unwrap();
        assert_eq!(others, ["note"]);
        assert_eq!(studies[0].path, Path::new("/d/a"));
        assert_eq!(studies[0].volume_ml, Some(12.5));
        assert_eq!(
            studies[0].labels,
            BTreeMap::from([(FindingKind::IntracranialHemorrhage, true)])
        );
        assert_eq!(studies[1].path, Path::new("/d/b, c"));
        assert_eq!(studies[1].volume_ml, None);
        assert_eq!(studies[1].labels.len(), 2);
    }

    #[test]
    fn quotes_hold_commas_quotes_and_line_ends() {
        let found = records("a,\"b\"\"c,\nd\"\ne,f").unwrap();
        let cells = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            found,
            [(1, cells(["a", "b\"c,\nd"])), (3, cells(["e", "f"]))]
        );
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        for (text, part) in [
            ("", "empty"),
            ("file,midline_shift\na,1", "column `path`"),
            ("path,bleed\na,1", "no label column"),
            ("path,midline_shift\n", "names no study"),
            ("path,midline_shift\na,1\nb,yes", "line 3: label \"yes\""),
            ("path,midline_shift\na", "line 2: it has 1 cells"),
            ("path,midline_shift,volume_ml\na,1,-3", "cannot be"),
            ("path,midline_shift\n\"a,1", "never closed"),
            ("path,midline_shift\n,1", "the path is empty"),
        ] {
            let error = error(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
