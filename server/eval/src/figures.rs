//! Answers → figures.

use std::collections::BTreeMap;

use models::findings::FindingKind;
use models::report::{ModelIdentity, ReportState};
use pipeline::uid::Uid;
use serde::Serialize;

use crate::Evaluated;
use crate::labels::SliceLabels;
use crate::metrics::{
    Estimate, Expected, Reliability, Scored, Share, Site, area_under_curve, clustered_area,
    reliability, share,
};

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

/// An answer to one question about one study.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    truth: bool,
    probability: f64,
    called: bool,
    volume_ml: Option<f64>,
    thickness_mm: Option<f64>,
}

/// All figures, as `--json` prints them.
#[derive(Debug, Serialize)]
pub struct Evaluation {
    pub(crate) model: Option<ModelIdentity>,
    pub(crate) studies: Counts,
    pub(crate) findings: Vec<FindingFigures>,
    /// Labelled kinds that the model does not answer.
    pub(crate) kinds_not_answered: Vec<FindingKind>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) total: usize,
    pub(crate) analysed: usize,
    pub(crate) partial: usize,
    pub(crate) not_analysed: usize,
    /// Why studies were not analysed; one study may have several reasons.
    pub(crate) not_analysed_by_reason: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FindingFigures {
    pub(crate) kind: FindingKind,
    /// Studies labelled for this kind.
    pub(crate) labelled: usize,
    /// Labelled positive, without an answer.
    pub(crate) positives_without_answer: usize,
    /// Labelled negative, without an answer.
    pub(crate) negatives_without_answer: usize,
    /// Of answered studies.
    pub(crate) auc: Option<Estimate>,
    /// Of answered positives.
    pub(crate) sensitivity: Share,
    /// Of answered negatives.
    pub(crate) specificity: Share,
    /// Found, of all positives: one without an answer was not found.
    pub(crate) found_of_all_positives: Share,
    /// Sensitivity by the lesion's volume, where it is known.
    pub(crate) by_volume: Vec<Band>,
    /// By slice thickness.
    pub(crate) by_thickness: Vec<Band>,
    /// Whether the answered studies' probabilities mean what they say.
    pub(crate) reliability: Reliability,
    /// What to expect where another share of studies is positive; without one named, nothing.
    pub(crate) at_prevalence: Option<Expected>,
    /// Of single slices; without their labels, nothing.
    pub(crate) by_slice: Option<SliceFigures>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SliceFigures {
    /// Slices labelled for this kind.
    pub(crate) labelled: usize,
    /// Of them positive.
    pub(crate) positive: usize,
    /// Of them without an answer: their study was not analysed, or they were left out of it.
    pub(crate) without_answer: usize,
    /// Studies with a positive slice that has an answer.
    pub(crate) positive_studies: usize,
    /// Of slices with an answer, not calibrated; whole studies are drawn for the interval.
    pub(crate) auc: Option<Estimate>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Band {
    pub(crate) range: &'static str,
    pub(crate) sensitivity: Share,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) specificity: Option<Share>,
}

/// All figures. `site` tells what is assumed of a place for a kind.
pub fn figures(
    evaluated: &[Evaluated],
    slice_labels: Option<&SliceLabels>,
    site: &dyn Fn(FindingKind) -> Option<Site>,
) -> Evaluation {
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
            .map(|kind| FindingFigures {
                by_slice: slice_labels.map(|labels| slice_figures(kind, evaluated, labels)),
                ..figures_of(kind, evaluated, site(kind))
            })
            .collect(),
        kinds_not_answered,
    }
}

impl Band {
    /// Answers in it.
    pub(crate) fn answers(&self) -> usize {
        self.sensitivity.of + self.specificity.map_or(0, |specificity| specificity.of)
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

fn figures_of(kind: FindingKind, evaluated: &[Evaluated], site: Option<Site>) -> FindingFigures {
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
    let specificity = specificity(&answers);
    let probabilities: Vec<(f64, bool)> = answers
        .iter()
        .map(|answer| (answer.probability, answer.truth))
        .collect();
    FindingFigures {
        kind,
        labelled: labelled.len(),
        positives_without_answer: unanswered(true),
        negatives_without_answer: unanswered(false),
        auc: area_under_curve(&scores(true), &scores(false)),
        sensitivity,
        specificity,
        found_of_all_positives: share(sensitivity.count, sensitivity.of + unanswered(true)),
        by_volume: bands(VOLUME_BANDS_ML, &answers, |answer| answer.volume_ml, false),
        by_thickness: bands(
            THICKNESS_BANDS_MM,
            &answers,
            |answer| answer.thickness_mm,
            true,
        ),
        reliability: reliability(&probabilities),
        at_prevalence: site.and_then(|site| site.expects(&sensitivity, &specificity)),
        by_slice: None,
    }
}

fn slice_figures(
    kind: FindingKind,
    evaluated: &[Evaluated],
    slice_labels: &SliceLabels,
) -> SliceFigures {
    let truths = || slice_labels.values().filter_map(|labels| labels.get(&kind));
    let mut scored: BTreeMap<&Uid, Scored> = BTreeMap::new();
    for (cluster, study) in evaluated.iter().enumerate() {
        for slice in &study.slices {
            let labels = slice_labels.get(&slice.sop_uid);
            let truth = labels.and_then(|labels| labels.get(&kind)).copied();
            let Some((truth, score)) = truth.zip(slice.probability.get(&kind).copied()) else {
                continue;
            };
            // Of an object with several frames the highest speaks.
            let one = scored.entry(&slice.sop_uid).or_insert(Scored {
                cluster,
                truth,
                score,
            });
            one.score = one.score.max(score);
        }
    }
    let scored: Vec<Scored> = scored.into_values().collect();
    let mut positive_studies: Vec<usize> = scored
        .iter()
        .filter(|one| one.truth)
        .map(|one| one.cluster)
        .collect();
    positive_studies.sort_unstable();
    positive_studies.dedup();
    SliceFigures {
        labelled: truths().count(),
        positive: truths().filter(|truth| **truth).count(),
        without_answer: truths().count() - scored.len(),
        positive_studies: positive_studies.len(),
        auc: clustered_area(&scored),
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
