//! Area under the curve of things that belong together, as the slices of one study do.

use super::Estimate;

/// Resamplings of one interval.
const RESAMPLINGS: usize = 2_000;
/// Where the random numbers begin: the same answers give the same interval.
const SEED: u64 = 20_200_514;

/// One scored thing: its cluster, whether it is positive, and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scored {
    /// Things with one number are drawn together.
    pub(crate) cluster: usize,
    /// Whether it is positive.
    pub(crate) truth: bool,
    /// Higher means more surely positive.
    pub(crate) score: f64,
}

/// Area under the curve over all of `things`, ties counting half; `None` without a positive or a
/// negative.
///
/// Its interval is the cluster bootstrap's: whole clusters are drawn with replacement, as many as
/// there are, 2,000 times from a fixed seed, and the 2.5th and 97.5th percentiles are taken. Draws
/// without a positive or a negative are left out. There is no interval with fewer than two clusters
/// that hold positives or two that hold negatives, nor for an area of exactly 0 or 1.
pub(crate) fn clustered_area(things: &[Scored]) -> Option<Estimate> {
    let mut sorted = things.to_vec();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    let clusters = sorted.iter().map(|one| one.cluster + 1).max().unwrap_or(0);
    let value = weighted_area(&sorted, &vec![1; clusters])?;
    let enough = [true, false].iter().all(|truth| {
        let mut of_truth: Vec<usize> = things
            .iter()
            .filter(|one| one.truth == *truth)
            .map(|one| one.cluster)
            .collect();
        of_truth.sort_unstable();
        of_truth.dedup();
        of_truth.len() >= 2
    });
    let interval = (enough && value > 0.0 && value < 1.0)
        .then(|| bootstrap(&sorted))
        .flatten();
    Some(Estimate {
        value,
        low: interval.map(|(low, _)| low),
        high: interval.map(|(_, high)| high),
    })
}

/// The area where each thing counts as often as its cluster was drawn. `sorted` is by score.
fn weighted_area(sorted: &[Scored], drawn: &[u32]) -> Option<f64> {
    let (mut positives, mut negatives, mut won) = (0.0, 0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.score.total_cmp(&b.score).is_eq()) {
        let weight = |truth: bool| -> f64 {
            let of_truth = tied.iter().filter(|one| one.truth == truth);
            of_truth.map(|one| f64::from(drawn[one.cluster])).sum()
        };
        let (tied_positives, tied_negatives) = (weight(true), weight(false));
        won += tied_positives * (negatives + tied_negatives / 2.0);
        positives += tied_positives;
        negatives += tied_negatives;
    }
    (positives > 0.0 && negatives > 0.0).then(|| won / (positives * negatives))
}

fn bootstrap(sorted: &[Scored]) -> Option<(f64, f64)> {
    let mut numbers: Vec<usize> = sorted.iter().map(|one| one.cluster).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut random = Random(SEED);
    let mut drawn = vec![0; numbers.last()? + 1];
    let mut areas = Vec::with_capacity(RESAMPLINGS);
    for _ in 0..RESAMPLINGS {
        drawn.fill(0);
        for _ in 0..numbers.len() {
            drawn[numbers[random.below(numbers.len())]] += 1;
        }
        areas.extend(weighted_area(sorted, &drawn));
    }
    areas.sort_by(f64::total_cmp);
    Some((percentile(&areas, 25)?, percentile(&areas, 975)?))
}

/// The value below which `per_mille` of a thousand lie.
fn percentile(sorted: &[f64], per_mille: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last * per_mille + 500) / 1000).copied()
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same numbers on every machine and in every version.
struct Random(u64);

impl Random {
    /// The next number below `bound`; the bias of at most `bound` in 2⁶⁴ is nothing here.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let scaled = (u128::from(mixed) * bound as u128) >> 64;
        usize::try_from(scaled).expect("it is below bound, which is a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(cluster: usize, truth: bool, score: f64) -> Scored {
        Scored {
            cluster,
            truth,
            score,
        }
    }

    /// `count` studies of ten slices; odd ones bleed in five of them, scored a little higher.
    fn studies(count: usize) -> Vec<Scored> {
        let mut random = Random(1);
        let mut things = Vec::new();
        for cluster in 0..count {
            let shift = random.below(100) as f64;
            for slice in 0..10 {
                let truth = cluster % 2 == 1 && slice < 5;
                let bonus = if truth { 60.0 } else { 0.0 };
                let score = shift + bonus + random.below(40) as f64;
                things.push(scored(cluster, truth, score));
            }
        }
        things
    }

    #[test]
    fn ties_count_half_and_every_thing_once() {
        // 0.9 beats all three, 0.5 ties with one, beats one, loses to 0.6: 3 + 1.5 of 6.
        let things = [
            scored(0, true, 0.9),
            scored(0, true, 0.5),
            scored(1, false, 0.5),
            scored(1, false, 0.1),
            scored(2, false, 0.6),
        ];
        let area = clustered_area(&things).unwrap();
        assert!((area.value - 4.5 / 6.0).abs() < 1e-12);
        // One cluster holds all positives: nothing is known of how they vary.
        assert_eq!(area.low, None);
        assert_eq!(clustered_area(&things[..2]), None);
        assert_eq!(clustered_area(&[]), None);
    }

    #[test]
    fn a_cluster_drawn_twice_counts_twice() {
        let mut sorted = [
            scored(0, true, 0.5),
            scored(1, false, 0.4),
            scored(2, false, 0.6),
        ];
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
        assert_eq!(weighted_area(&sorted, &[1, 3, 1]), Some(0.75));
        assert_eq!(weighted_area(&sorted, &[0, 1, 1]), None);
    }

    #[test]
    fn the_interval_is_the_same_each_time_and_holds_the_figure() {
        let things = studies(30);
        let area = clustered_area(&things).unwrap();
        assert_eq!(clustered_area(&things), Some(area));
        let (low, high) = (area.low.unwrap(), area.high.unwrap());
        assert!(low < area.value && area.value < high, "{area:?}");
    }

    #[test]
    fn slices_of_one_study_do_not_narrow_the_interval_as_studies_would() {
        let things = studies(30);
        let alone: Vec<Scored> = things
            .iter()
            .enumerate()
            .map(|(cluster, one)| Scored { cluster, ..*one })
            .collect();
        let width = |things: &[Scored]| {
            let area = clustered_area(things).unwrap();
            area.high.unwrap() - area.low.unwrap()
        };
        assert!(width(&things) > 1.5 * width(&alone));
    }
}
