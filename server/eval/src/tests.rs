use std::path::PathBuf;

use models::findings::{Finding, Outcome, Probability};
use pipeline::reason::ReasonCode;

use super::figures::Evaluation;
use super::*;
use crate::labels::{Labels, SliceLabels};

fn figures(evaluated: &[Evaluated]) -> Evaluation {
    figures::figures(evaluated, None, &|_| None)
}

const ICH: FindingKind = FindingKind::IntracranialHemorrhage;

fn finding(probability: f64) -> Finding {
    Finding {
        kind: ICH,
        present: probability >= 0.5,
        probability: Probability::new(probability).unwrap(),
        volume_ml: None,
        volume_interval_ml: None,
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
        slices: Vec::new(),
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
    table::write(&mut text, &figures(&[analysed(true, 0.9)])).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("AUC                    -"), "{text}");
    assert!(
        text.contains("sensitivity            100.0 % [20.7, 100.0] (1 of 1)"),
        "{text}"
    );
    assert!(text.contains("specificity            - (0 of 0)"), "{text}");
}

/// A study whose slices, named `prefix.0`, `prefix.1`, …, have these probabilities.
fn with_slices(mut study: Evaluated, prefix: &str, probabilities: &[f64]) -> Evaluated {
    let slice = |(index, probability): (usize, &f64)| SliceAnswer {
        sop_uid: Uid::new(&format!("{prefix}.{index}")).unwrap(),
        frame_index: 0,
        probability: BTreeMap::from([(ICH, *probability)]),
    };
    study.slices = probabilities.iter().enumerate().map(slice).collect();
    study
}

fn slice_labels(rows: &[(&str, bool)]) -> SliceLabels {
    let row = |(uid, truth): &(&str, bool)| (Uid::new(uid).unwrap(), Labels::from([(ICH, *truth)]));
    rows.iter().map(row).collect()
}

#[test]
fn slices_have_figures_of_their_own_and_those_without_an_answer_are_counted() {
    let evaluated = [
        with_slices(analysed(true, 0.9), "1", &[0.9, 0.2, 0.5]),
        with_slices(analysed(true, 0.9), "2", &[0.4, 0.1]),
        with_slices(analysed(false, 0.1), "3", &[0.3]),
    ];
    let labels = slice_labels(&[
        ("1.0", true),
        ("1.1", false),
        ("2.0", true),
        ("2.1", false),
        ("3.0", false),
        ("4.0", true),
    ]);
    let evaluation = figures::figures(&evaluated, Some(&labels), &|_| None);
    let slices = evaluation.findings[0].by_slice.as_ref().unwrap();
    assert_eq!(
        (slices.labelled, slices.positive, slices.without_answer),
        (6, 3, 1)
    );
    assert_eq!(slices.positive_studies, 2);
    // 0.9 and 0.4 stand above 0.2, 0.1 and 0.3; slice 1.2 has no label.
    assert!((slices.auc.unwrap().value - 1.0).abs() < 1e-12);
}

#[test]
fn of_an_object_with_frames_the_highest_speaks() {
    let mut frames = with_slices(analysed(true, 0.9), "1", &[0.1, 0.8, 0.3]);
    for (index, slice) in frames.slices.iter_mut().enumerate() {
        slice.sop_uid = Uid::new("1.5").unwrap();
        slice.frame_index = index;
    }
    let other = with_slices(analysed(false, 0.1), "2", &[0.7]);
    let labels = slice_labels(&[("1.5", true), ("2.0", false)]);
    let evaluation = figures::figures(&[frames, other], Some(&labels), &|_| None);
    let slices = evaluation.findings[0].by_slice.as_ref().unwrap();
    assert_eq!(slices.without_answer, 0);
    assert!((slices.auc.unwrap().value - 1.0).abs() < 1e-12);
}

#[test]
fn the_table_shows_calibration_and_what_a_site_must_expect() {
    let evaluated = [
        analysed(true, 0.9),
        analysed(true, 0.2),
        analysed(false, 0.1),
        analysed(false, 0.3),
    ];
    let site = Site {
        prevalence: 0.1,
        studies_per_day: 20.0,
    };
    let mut text = Vec::new();
    let evaluation = figures::figures(&evaluated, None, &|_| Some(site));
    table::write(&mut text, &evaluation).unwrap();
    let text = String::from_utf8(text).unwrap();
    // Off by 0.1, 0.8, 0.1 and 0.3.
    assert!(text.contains("calibration error      0.325"), "{text}");
    assert!(
        text.contains("said 0.2 to 0.3      mean 20.0 %, was 100.0 %"),
        "{text}"
    );
    // Half of two positives are missed, and no negative alarms.
    assert!(text.contains("  misses a day         1.00 ["), "{text}");
    assert!(text.contains("  PPV                  100.0 % ["), "{text}");
    assert!(text.contains("  false alerts a day   0.00 ["), "{text}");
}

#[test]
fn predictions_hold_every_answer_and_every_label_without_one() {
    let mut first = with_slices(analysed(true, 0.9), "1", &[0.25]);
    first.labelled.path = PathBuf::from("/d/a, b");
    let mut second = study(false, Outcome::NotAnalysed { reasons: reasons() });
    second.labelled.path = PathBuf::from("/d/c");
    let labels = slice_labels(&[("1.0", true)]);
    let mut text = Vec::new();
    let folder = std::path::Path::new("/d");
    predictions::write(&mut text, folder, &[first, second], Some(&labels)).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "study,\"a, b\",analysed,,,intracranial_hemorrhage,1,0.9,1",
            "study,\"a, b\",analysed,,,mass_effect,1,,",
            "slice,\"a, b\",analysed,1.0,0,intracranial_hemorrhage,1,0.25,",
            "study,c,not_analysed,,,intracranial_hemorrhage,0,,",
            "study,c,not_analysed,,,mass_effect,0,,",
        ]
    );
    assert_eq!(text.lines().next().unwrap().split(',').count(), 9);
}
