//! How well probabilities and answers fit labels, with 95 % intervals.

mod clustered;
mod reliability;
mod site;

pub(crate) use clustered::{Scored, clustered_area};
pub(crate) use reliability::{Reliability, reliability};
pub(crate) use site::Expected;
pub use site::Site;

use serde::Serialize;

/// 97.5th percentile of the normal distribution: 95 % lie within it on both sides.
const Z_95: f64 = 1.959_963_984_540_054;

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Estimate {
    /// The figure.
    pub(crate) value: f64,
    /// Lower end of the interval; `None` where none can be given.
    pub(crate) low: Option<f64>,
    /// Upper end of the interval; `None` where none can be given.
    pub(crate) high: Option<f64>,
}

/// A share of counted things.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    /// How many are so.
    pub(crate) count: usize,
    /// Of how many.
    pub(crate) of: usize,
    /// The share; `None` of nothing.
    #[serde(flatten)]
    pub(crate) estimate: Option<Estimate>,
}

/// `count` of `of` with Wilson's score interval (Wilson 1927), which holds its 95 % also for few
/// cases and at 0 and 100 %, where the common interval has no width.
pub(crate) fn share(count: usize, of: usize) -> Share {
    let estimate = (of > 0).then(|| {
        let (n, p) = (of as f64, count as f64 / of as f64);
        let z2 = Z_95 * Z_95;
        let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = Z_95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Estimate {
            value: p,
            low: Some((middle - half).max(0.0)),
            high: Some((middle + half).min(1.0)),
        }
    });
    Share {
        count,
        of,
        estimate,
    }
}

/// Area under the receiver operating characteristic: the chance that a positive scores above a
/// negative, ties counting half. `None` without a positive or a negative.
///
/// Its interval is DeLong's (DeLong 1988, Biometrics 44:837) on the logit scale, so that it stays
/// within 0 and 1. There is none with fewer than two positives or negatives, nor for an area of
/// exactly 0 or 1, where the method has no width.
pub(crate) fn area_under_curve(positives: &[f64], negatives: &[f64]) -> Option<Estimate> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    let above = |score: &f64, others: &[f64]| -> f64 {
        let wins: f64 = others.iter().map(|other| win(*score, *other)).sum();
        wins / others.len() as f64
    };
    let of_positives: Vec<f64> = positives
        .iter()
        .map(|score| above(score, negatives))
        .collect();
    let of_negatives: Vec<f64> = negatives
        .iter()
        .map(|score| 1.0 - above(score, positives))
        .collect();
    let value = mean(&of_positives);
    let interval = variance_of_mean(&of_positives)
        .zip(variance_of_mean(&of_negatives))
        .and_then(|(a, b)| logit_interval(value, a + b));
    Some(Estimate {
        value,
        low: interval.map(|(low, _)| low),
        high: interval.map(|(_, high)| high),
    })
}

/// 1 if `score` is above `other`, one half if they are equal.
fn win(score: f64, other: f64) -> f64 {
    match score.total_cmp(&other) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample variance over the number of values; `None` for fewer than two.
fn variance_of_mean(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let (n, middle) = (values.len() as f64, mean(values));
    let squares: f64 = values.iter().map(|value| (value - middle).powi(2)).sum();
    Some(squares / (n - 1.0) / n)
}

/// The 95 % interval around `value` by the delta method on the logit scale.
fn logit_interval(value: f64, variance: f64) -> Option<(f64, f64)> {
    if value <= 0.0 || value >= 1.0 {
        return None;
    }
    let logit = (value / (1.0 - value)).ln();
    let half = Z_95 * variance.sqrt() / (value * (1.0 - value));
    let probability = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    Some((probability(logit - half), probability(logit + half)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-6)
    }

    #[test]
    fn wilsons_interval_is_as_in_the_tables() {
        // Newcombe 1998 (Stat Med 17:857), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (count, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0000, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let estimate = share(count, of).estimate.unwrap();
            assert!(
                (estimate.low.unwrap() - low).abs() < 5e-5,
                "{count}/{of}: {estimate:?}"
            );
            assert!(
                (estimate.high.unwrap() - high).abs() < 5e-5,
                "{count}/{of}: {estimate:?}"
            );
        }
        assert_eq!(share(0, 0).estimate, None);
    }

    #[test]
    fn the_area_counts_pairs_with_ties_as_half() {
        // Pairs: 0.9 beats 3; 0.5 ties one, beats one, loses to 0.6: 3 + 1.5 of 6.
        let area = area_under_curve(&[0.9, 0.5], &[0.5, 0.1, 0.6]).unwrap();
        assert!(near(Some(area.value), 4.5 / 6.0), "{area:?}");
        assert_eq!(area_under_curve(&[], &[0.5]), None);
    }

    #[test]
    fn delongs_interval_is_as_computed_by_hand() {
        // Placements of the positives 1 and 0.5: mean 0.75, variance 0.125, over 2: 0.0625.
        // Placements of the negatives 0.75, 1, 0.5: variance 0.0625, over 3: 0.0208333.
        // Standard error 0.2886751; logit 1.0986123 +- 1.959964 * 0.2886751 / 0.1875 = 3.0175620.
        let area = area_under_curve(&[0.9, 0.5], &[0.5, 0.1, 0.6]).unwrap();
        assert!(near(area.low, 0.127_978_7), "{area:?}");
        assert!(near(area.high, 0.983_954_9), "{area:?}");
    }

    #[test]
    fn a_perfect_or_tiny_sample_has_no_interval() {
        let perfect = area_under_curve(&[0.8, 0.9], &[0.1, 0.2]).unwrap();
        assert!(near(Some(perfect.value), 1.0));
        assert_eq!((perfect.low, perfect.high), (None, None));
        let tiny = area_under_curve(&[0.5], &[0.1, 0.6]).unwrap();
        assert_eq!(tiny.low, None);
    }
}
