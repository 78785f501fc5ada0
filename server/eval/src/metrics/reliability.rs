//! Whether probabilities mean what they say.

use serde::Serialize;

use super::{Share, share};

/// Bins of equal width between 0 and 1.
const BINS: usize = 10;

/// Probabilities against what was so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Reliability {
    /// Mean distance between a bin's probability and its share of positives, weighted by the bins'
    /// answers (Naeini 2015); `None` without an answer. It has no interval; with few answers it is
    /// above 0 also for perfect probabilities.
    pub(crate) expected_calibration_error: Option<f64>,
    /// Bins that hold an answer, from 0 to 1.
    pub(crate) bins: Vec<Bin>,
}

/// Answers whose probabilities are alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Bin {
    /// From this probability on.
    pub(crate) from: f64,
    /// Up to this one; the last bin holds it too.
    pub(crate) to: f64,
    /// Mean of the answers' probabilities.
    pub(crate) mean_probability: f64,
    /// How many of them were so.
    pub(crate) positive: Share,
}

/// Bins answers, each a probability and whether it was so.
pub(crate) fn reliability(answers: &[(f64, bool)]) -> Reliability {
    let bins: Vec<Bin> = (0..BINS).filter_map(|bin| bin_of(bin, answers)).collect();
    let distance = |bin: &Bin| {
        let share = bin.positive.count as f64 / bin.positive.of as f64;
        bin.positive.of as f64 * (bin.mean_probability - share).abs()
    };
    let error = bins.iter().map(distance).sum::<f64>() / answers.len() as f64;
    Reliability {
        expected_calibration_error: (!answers.is_empty()).then_some(error),
        bins,
    }
}

fn bin_of(bin: usize, answers: &[(f64, bool)]) -> Option<Bin> {
    let (from, to) = (bin as f64 / BINS as f64, (bin + 1) as f64 / BINS as f64);
    let last = bin + 1 == BINS;
    let inside: Vec<&(f64, bool)> = answers
        .iter()
        .filter(|(probability, _)| *probability >= from && (*probability < to || last))
        .collect();
    let sum: f64 = inside.iter().map(|(probability, _)| probability).sum();
    let positives = inside.iter().filter(|(_, truth)| *truth).count();
    (!inside.is_empty()).then(|| Bin {
        from,
        to,
        mean_probability: sum / inside.len() as f64,
        positive: share(positives, inside.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_and_their_error_are_as_counted_by_hand() {
        // 0.02 and 0.06: mean 0.04, none so, off by 0.04. 0.9, 0.95 and 1: mean 0.95, two of three
        // so, off by 0.28333. Over five answers: (2 * 0.04 + 3 * 0.28333) / 5 = 0.186.
        let answers = [
            (0.02, false),
            (0.06, false),
            (0.9, true),
            (0.95, false),
            (1.0, true),
        ];
        let found = reliability(&answers);
        assert!((found.expected_calibration_error.unwrap() - 0.186).abs() < 1e-12);
        let bins: Vec<(usize, usize)> = found
            .bins
            .iter()
            .map(|bin| (bin.positive.count, bin.positive.of))
            .collect();
        assert_eq!(bins, [(0, 2), (2, 3)]);
        assert!((found.bins[0].mean_probability - 0.04).abs() < 1e-12);
        assert!((found.bins[1].from - 0.9).abs() < 1e-12);
    }

    #[test]
    fn probabilities_that_hold_have_no_error() {
        let answers = [(0.5, true), (0.5, false), (0.0, false)];
        let error = reliability(&answers).expected_calibration_error;
        assert!(error.unwrap() < 1e-12);
        assert_eq!(reliability(&[]).expected_calibration_error, None);
    }
}
