//! `studies.csv` and `slices.csv` of `tez eval`: which studies, and what is known of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use models::findings::FindingKind;
use pipeline::uid::Uid;

/// Longest table, bytes.
const BYTES_MAX: u64 = 64 << 20;

/// What is known; a kind whose cell is empty is not here.
pub type Labels = BTreeMap<FindingKind, bool>;
/// What is known of slices, by SOP Instance UID.
pub type SliceLabels = BTreeMap<Uid, Labels>;

/// One row of `studies.csv`.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledStudy {
    /// Where the study lies.
    pub path: PathBuf,
    /// What is known of it.
    pub labels: Labels,
    /// Volume of the lesion, mL, where it is known.
    pub volume_ml: Option<f64>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Column {
    Path,
    SopUid,
    VolumeMl,
    Label(FindingKind),
    Other,
}

/// Reads `folder/studies.csv`. Gives the rows, and the names of columns that mean nothing here.
///
/// # Errors
///
/// If it is missing, has no column `path` or no label column, or a cell is not what it should be.
pub fn read_labels(folder: &Path) -> anyhow::Result<(Vec<LabelledStudy>, Vec<String>)> {
    let path = folder.join("studies.csv");
    parse(&read_table(&path)?, folder).with_context(|| format!("{} cannot be used", path.display()))
}

/// Reads `folder/slices.csv`; `None` if there is none. Columns without a meaning are left out.
///
/// # Errors
///
/// If it has no column `sop_uid` or no label column, or a cell is not what it should be.
pub fn read_slice_labels(folder: &Path) -> anyhow::Result<Option<SliceLabels>> {
    let path = folder.join("slices.csv");
    if !path.try_exists()? {
        return Ok(None);
    }
    parse_slices(&read_table(&path)?)
        .map(Some)
        .with_context(|| format!("{} cannot be used", path.display()))
}

fn read_table(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    ensure!(
        bytes <= BYTES_MAX,
        "{} has more than {BYTES_MAX} bytes",
        path.display()
    );
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A table whose columns are known, its rows with the lines on which they begin.
struct Table {
    columns: Vec<Column>,
    rows: Vec<(usize, Vec<String>)>,
    /// Names of columns that mean nothing here.
    others: Vec<String>,
}

impl Table {
    /// Reads `text`, which must have one column `key` and a label column.
    fn of(text: &str, key: Column, key_name: &str) -> anyhow::Result<Self> {
        let mut rows = records(text)?.into_iter();
        let (_, names) = rows.next().context("it is empty")?;
        let columns: Vec<Column> = names.iter().map(|name| column(name)).collect();
        let keys = columns.iter().filter(|column| **column == key).count();
        ensure!(
            keys == 1,
            "it needs one column `{key_name}`, and has {keys}"
        );
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
        Ok(Self {
            others: others.map(|(name, _)| name.clone()).collect(),
            rows: rows.collect(),
            columns,
        })
    }

    /// Calls `cell` with each cell of a row, trimmed, and its column; errors name the row's line.
    fn read_row(
        &self,
        (line, cells): &(usize, Vec<String>),
        mut cell: impl FnMut(Column, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut read = || -> anyhow::Result<()> {
            ensure!(
                cells.len() == self.columns.len(),
                "it has {} cells where the first line has {}",
                cells.len(),
                self.columns.len()
            );
            let mut pairs = self.columns.iter().zip(cells);
            pairs.try_for_each(|(column, text)| cell(*column, text.trim()))
        };
        read().with_context(|| format!("line {line}"))
    }
}

fn parse(text: &str, folder: &Path) -> anyhow::Result<(Vec<LabelledStudy>, Vec<String>)> {
    let table = Table::of(text, Column::Path, "path")?;
    let rows = table.rows.iter();
    let studies: Vec<_> = rows
        .map(|row| study(&table, row, folder))
        .collect::<anyhow::Result<_>>()?;
    ensure!(!studies.is_empty(), "it names no study");
    Ok((studies, table.others))
}

fn study(
    table: &Table,
    row: &(usize, Vec<String>),
    folder: &Path,
) -> anyhow::Result<LabelledStudy> {
    let mut study = LabelledStudy {
        path: folder.to_owned(),
        labels: Labels::new(),
        volume_ml: None,
    };
    table.read_row(row, |column, cell| {
        match column {
            Column::Path => {
                ensure!(!cell.is_empty(), "the path is empty");
                study.path = folder.join(cell);
            }
            Column::VolumeMl => study.volume_ml = volume(cell)?,
            Column::Label(kind) => study.labels.extend(label(cell)?.map(|label| (kind, label))),
            Column::SopUid | Column::Other => {}
        }
        Ok(())
    })?;
    Ok(study)
}

fn parse_slices(text: &str) -> anyhow::Result<SliceLabels> {
    let table = Table::of(text, Column::SopUid, "sop_uid")?;
    let mut slices = SliceLabels::new();
    for row in &table.rows {
        let (mut uid, mut labels) = (None, Labels::new());
        table.read_row(row, |column, cell| {
            match column {
                Column::SopUid => uid = Some(Uid::new(cell)?),
                Column::Label(kind) => labels.extend(label(cell)?.map(|label| (kind, label))),
                Column::Path | Column::VolumeMl | Column::Other => {}
            }
            Ok(())
        })?;
        let uid = uid.context("it has no SOP Instance UID")?;
        ensure!(
            slices.insert(uid.clone(), labels).is_none(),
            "line {}: slice {uid} has a line before",
            row.0
        );
    }
    Ok(slices)
}

fn column(name: &str) -> Column {
    match name.trim() {
        "path" => Column::Path,
        "sop_uid" => Column::SopUid,
        "volume_ml" => Column::VolumeMl,
        name => FindingKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .map_or(Column::Other, Column::Label),
    }
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
    fn slices_are_known_by_their_uids() {
        let text =
            "study_uid,sop_uid,intracranial_hemorrhage\n1.2,1.2.1,1\n1.2,1.2.2,0\n1.2,1.2.3,\n";
        let slices = parse_slices(text).unwrap();
        let of = |uid| {
            slices[&Uid::new(uid).unwrap()]
                .values()
                .copied()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            [of("1.2.1"), of("1.2.2"), of("1.2.3")],
            [vec![true], vec![false], vec![]]
        );
        for (text, part) in [
            ("uid,mass_effect\n1.2,1", "column `sop_uid`"),
            ("sop_uid,mass_effect\n../x,1", "line 2"),
            (
                "sop_uid,mass_effect\n1.2,1\n1.2,1",
                "line 3: slice 1.2 has a line before",
            ),
        ] {
            let error = format!("{:#}", parse_slices(text).unwrap_err());
            assert!(error.contains(part), "{text:?}: {error}");
        }
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
