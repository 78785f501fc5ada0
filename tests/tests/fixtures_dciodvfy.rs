//! David Clunie's `dciodvfy` finds no error in any synthetic study.

use std::path::Path;
use std::process::Command;

use fixtures::catalogue;
use fixtures::phantom::{HeadPlan, Subject};
use fixtures::plan::Syntax;
use fixtures::study::{Studio, Study};

#[test]
fn dciodvfy_finds_no_error_in_any_study_of_the_catalogue() {
    let studio = Studio::default();
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut errors = Vec::new();
    for entry in catalogue::all()
        .iter()
        .filter(|entry| !entry.is_for_benches)
    {
        // What the checker looks at depends neither on the matrix nor on what is in the head: a
        // small healthy one is quick to make.
        let mut plan = entry.plan.clone();
        plan.subject = Subject::Head(HeadPlan::default());
        for series in &mut plan.series {
            series.stack.side_px = 16;
            // The checker cannot inflate, neither ours nor DCMTK's: it sees the same data set plain.
            if series.syntax == Syntax::Deflated {
                series.syntax = Syntax::ExplicitLittle;
            }
        }
        let study = studio.make(&plan).expect("a study");
        let folder = scratch.path().join(entry.name);
        errors.extend(
            errors_in(&study, &folder)
                .into_iter()
                .map(|error| format!("{}: {error}", entry.name)),
        );
    }
    assert!(errors.is_empty(), "\n{}\n", errors.join("\n"));
}

/// What is wrong with the first and the last object of a study.
fn errors_in(study: &Study, folder: &Path) -> Vec<String> {
    study.write(folder).expect("written");
    let ends = [study.files.first(), study.files.last()];
    let checked = ends
        .into_iter()
        .flatten()
        .map(|file| folder.join(&file.name));
    checked.flat_map(|path| complaints(&path)).collect()
}

/// `dciodvfy` always ends with status 0: its words count (PS3 checks go to standard error).
fn complaints(path: &Path) -> Vec<String> {
    let output = Command::new("dciodvfy")
        .arg(path)
        .output()
        .expect("dciodvfy of Debian's dicom3tools: run `cargo xtask setup` first");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("CTImage") || text.contains("EnhancedCT"),
        "dciodvfy did not check {}: {text}",
        path.display()
    );
    text.lines()
        .filter(|line| line.starts_with("Error"))
        .map(str::to_owned)
        .collect()
}
