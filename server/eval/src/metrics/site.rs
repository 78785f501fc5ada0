//! What a sensitivity and a specificity would mean at a place where another share of studies is
//! positive.

use serde::Serialize;

use super::{Estimate, Share};

const DAYS_PER_YEAR: f64 = 365.25;

/// A place: how much comes, and how much of it is positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Site {
    /// Share of studies with the finding.
    pub prevalence: f64,
    /// Studies in a day.
    pub studies_per_day: f64,
}

/// What is to be expected there.
///
/// Intervals put both ends of the intervals of sensitivity and specificity in at once: they are
/// rather too wide than too narrow, and say nothing of how far the place's patients differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Expected {
    /// Share of studies with the finding that was assumed.
    pub(crate) prevalence: f64,
    /// Studies in a day that were assumed.
    pub(crate) studies_per_day: f64,
    /// Of alarms, the share that is right.
    pub(crate) positive_predictive_value: Option<Estimate>,
    /// Of studies without an alarm, the share without the finding.
    pub(crate) negative_predictive_value: Option<Estimate>,
    /// Alarms in a day, right or wrong.
    pub(crate) alerts_per_day: Estimate,
    /// Of those the wrong ones.
    pub(crate) false_alerts_per_day: Estimate,
    /// Positive studies in a day without an alarm.
    pub(crate) misses_per_day: Estimate,
    /// The same in a year of 365.25 days.
    pub(crate) misses_per_year: Estimate,
}

impl Site {
    /// What `sensitivity` and `specificity` mean here; `None` if one of them is not known.
    pub(crate) fn expects(&self, sensitivity: &Share, specificity: &Share) -> Option<Expected> {
        let rates = Rates::of(sensitivity.estimate?, specificity.estimate?);
        let positives = self.prevalence * self.studies_per_day;
        let negatives = self.studies_per_day - positives;
        let found = |rate: Rate| positives * rate.sensitivity;
        let missed = |rate: Rate| positives * (1.0 - rate.sensitivity);
        let alarmed = |rate: Rate| negatives * (1.0 - rate.specificity);
        let passed = |rate: Rate| negatives * rate.specificity;
        Some(Expected {
            prevalence: self.prevalence,
            studies_per_day: self.studies_per_day,
            positive_predictive_value: a_number(
                rates.through(|rate| part(found(rate), alarmed(rate))),
            ),
            negative_predictive_value: a_number(
                rates.through(|rate| part(passed(rate), missed(rate))),
            ),
            alerts_per_day: rates.through(|rate| found(rate) + alarmed(rate)),
            false_alerts_per_day: rates.through(alarmed),
            misses_per_day: rates.through(missed),
            misses_per_year: rates.through(|rate| DAYS_PER_YEAR * missed(rate)),
        })
    }
}

/// `right` of `right` and `wrong`; not a number of nothing.
fn part(right: f64, wrong: f64) -> f64 {
    right / (right + wrong)
}

fn a_number(estimate: Estimate) -> Option<Estimate> {
    estimate.value.is_finite().then_some(estimate)
}

#[derive(Clone, Copy)]
struct Rate {
    sensitivity: f64,
    specificity: f64,
}

/// The rates, and the corners of their intervals.
struct Rates {
    value: Rate,
    corners: Vec<Rate>,
}

impl Rates {
    fn of(sensitivity: Estimate, specificity: Estimate) -> Self {
        let ends = |estimate: Estimate| [estimate.low, estimate.high].into_iter().flatten();
        let corners = ends(sensitivity).flat_map(|sensitivity| {
            ends(specificity).map(move |specificity| Rate {
                sensitivity,
                specificity,
            })
        });
        Self {
            value: Rate {
                sensitivity: sensitivity.value,
                specificity: specificity.value,
            },
            corners: corners.collect(),
        }
    }

    /// `figure` of the rates, between its least and its greatest value at the corners: every figure
    /// here rises or falls with each rate, so that the extremes lie there.
    fn through(&self, figure: impl Fn(Rate) -> f64) -> Estimate {
        let at_corners = || {
            let figures = self.corners.iter().map(|rate| figure(*rate));
            figures.filter(|value| value.is_finite())
        };
        Estimate {
            value: figure(self.value),
            low: at_corners().min_by(f64::total_cmp),
            high: at_corners().max_by(f64::total_cmp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::share;
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} and {expected}");
    }

    fn exactly(value: f64) -> Share {
        Share {
            count: 0,
            of: 0,
            estimate: Some(Estimate {
                value,
                low: Some(value - 0.1),
                high: Some(value + 0.1),
            }),
        }
    }

    #[test]
    fn figures_are_as_counted_by_hand() {
        // Of 100 studies a day 10 are positive: 9 found, 1 missed; of 90 negatives 18 alarm.
        let site = Site {
            prevalence: 0.1,
            studies_per_day: 100.0,
        };
        let expected = site.expects(&exactly(0.9), &exactly(0.8)).unwrap();
        let ppv = expected.positive_predictive_value.unwrap();
        near(ppv.value, 9.0 / 27.0);
        // Worst: 8 found and 27 false alarms; best: 10 found and 9 false alarms.
        near(ppv.low.unwrap(), 8.0 / 35.0);
        near(ppv.high.unwrap(), 10.0 / 19.0);
        near(
            expected.negative_predictive_value.unwrap().value,
            72.0 / 73.0,
        );
        near(expected.alerts_per_day.value, 27.0);
        near(expected.alerts_per_day.low.unwrap(), 17.0);
        near(expected.alerts_per_day.high.unwrap(), 37.0);
        near(expected.false_alerts_per_day.value, 18.0);
        near(expected.misses_per_day.value, 1.0);
        near(expected.misses_per_day.high.unwrap(), 2.0);
        near(expected.misses_per_year.value, 365.25);
    }

    #[test]
    fn without_both_rates_or_alarms_nothing_is_made_up() {
        let site = Site {
            prevalence: 0.1,
            studies_per_day: 10.0,
        };
        assert_eq!(site.expects(&share(1, 1), &share(0, 0)), None);
        // Nothing is ever called: there are no alarms that could be right.
        let silent = Estimate {
            value: 0.0,
            low: Some(0.0),
            high: Some(0.0),
        };
        let never = Share {
            count: 0,
            of: 1,
            estimate: Some(silent),
        };
        let always = Share {
            estimate: Some(Estimate {
                value: 1.0,
                low: Some(1.0),
                high: Some(1.0),
            }),
            ..never
        };
        let expected = site.expects(&never, &always).unwrap();
        assert_eq!(expected.positive_predictive_value, None);
        near(expected.misses_per_day.value, 1.0);
    }
}
