//! The gaps between neighbouring slices: which are usual, which are not, and what to call them.

use crate::reason::{Reason, ReasonCode};

use super::stack::Placed;

/// Gaps that differ by less than this share of their length are the same gap.
const SAME_GAP: f64 = 0.02;
/// … or by less than this, mm: positions are often rounded to a hundredth.
const SAME_GAP_MM: f64 = 0.02;
/// How far a slice may lie from its place in an even stack, in steps …
const EVEN_STEPS: f64 = 0.05;
/// … or in mm, whichever is more: positions of thin slices are rounded to a tenth.
const EVEN_MM: f64 = 0.05;
/// How far from a whole number of steps a gap may be, in steps.
const WHOLE_GAPS: f64 = 0.1;
/// A gap of this many usual gaps or more means a missing slice, unless it goes on …
const WIDE_GAPS: f64 = 1.5;
/// … for so many gaps in a row: a block with a coarser step.
const BLOCK_GAPS: usize = 3;
/// A gap of this many times its slices' thickness or more leaves out more than half a slice of the
/// patient, however usual it is.
const WIDE_THICKNESSES: f64 = 1.8;
/// With more than this share of gaps that are like no other, slices may be missing anywhere.
const IRREGULAR_SHARE: f64 = 0.5;
/// Coarsest grid of a stack whose gaps differ, mm. Slices then fall between the grid's planes, and
/// whoever samples the volume again blurs them twice: on the real head of 4 and 7 mm a 4 mm grid was
/// 9.4 HU from dcm2niix's 2.6 mm one, where the slices themselves are 5.9 HU from it.
const UNEVEN_STEP_MM_MAX: f64 = 2.0;
/// Most places that a sentence lists.
const PLACES_LISTED_MAX: usize = 5;

/// What the gaps of a stack are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gaps {
    /// Smallest and largest, mm.
    pub(super) range_mm: [f64; 2],
    /// Whether the slices lie on an even grid of [`Gaps::step_mm`].
    pub(super) even: bool,
    /// Step of the volume's grid, mm: the mean of even gaps; the usual gap where slices are missing;
    /// else the usual gap of the thinnest block, in parts of at most [`UNEVEN_STEP_MM_MAX`]. An odd
    /// step between two blocks does not set it.
    pub(super) step_mm: f64,
    /// What is odd about them.
    pub(super) warnings: Vec<Reason>,
}

/// Judges the gaps of `slices`, which lie in order; at least two.
pub(super) fn examine(slices: &[Placed<'_>]) -> Gaps {
    let gaps_mm: Vec<f64> = slices
        .windows(2)
        .map(|pair| pair[1].along_mm - pair[0].along_mm)
        .collect();
    let range_mm = [
        gaps_mm.iter().copied().fold(f64::INFINITY, f64::min),
        gaps_mm.iter().copied().fold(0.0, f64::max),
    ];
    let total_mm: f64 = gaps_mm.iter().sum();
    let mean_mm = total_mm / gaps_mm.len() as f64;
    if is_even(&gaps_mm, mean_mm) {
        let verdicts: Vec<Verdict> = slices
            .windows(2)
            .zip(&gaps_mm)
            .map(|(pair, gap)| unscanned(pair, *gap).unwrap_or(Verdict::Usual))
            .collect();
        return Gaps {
            range_mm,
            even: true,
            step_mm: mean_mm,
            warnings: missing(&verdicts, &gaps_mm).into_iter().collect(),
        };
    }
    let blocks = Blocks::of(slices, &gaps_mm);
    let verdicts = blocks.judge(slices, &gaps_mm);
    let thinnest_mm = blocks.thinnest_mm(&gaps_mm);
    let uneven = uneven(&blocks, &verdicts, &gaps_mm, fine(thinnest_mm));
    // Where whole numbers of slices are missing, the others lie on the grid of the usual gap.
    let step_mm = if uneven.is_some() || is_off_grid(&verdicts, &gaps_mm, thinnest_mm) {
        fine(thinnest_mm)
    } else {
        thinnest_mm
    };
    let mut warnings = Vec::new();
    warnings.extend(missing(&verdicts, &gaps_mm));
    warnings.extend(irregular(&verdicts, range_mm));
    warnings.extend(uneven);
    Gaps {
        range_mm,
        even: false,
        step_mm,
        warnings,
    }
}

/// Whether slices above a hole lie between the planes of a grid of `step_mm`.
fn is_off_grid(verdicts: &[Verdict], gaps_mm: &[f64], step_mm: f64) -> bool {
    verdicts.iter().zip(gaps_mm).any(|(verdict, gap)| {
        let steps = gap / step_mm;
        matches!(verdict, Verdict::Missing { .. }) && (steps - steps.round()).abs() > WHOLE_GAPS
    })
}

/// `usual_mm` in as few equal parts as make each at most [`UNEVEN_STEP_MM_MAX`].
fn fine(usual_mm: f64) -> f64 {
    usual_mm / (usual_mm / UNEVEN_STEP_MM_MAX).ceil().max(1.0)
}

fn is_even(gaps_mm: &[f64], mean_mm: f64) -> bool {
    let tolerance_mm = EVEN_MM.max(EVEN_STEPS * mean_mm);
    let mut drift_mm: f64 = 0.0;
    gaps_mm.iter().all(|gap| {
        drift_mm += gap - mean_mm;
        drift_mm.abs() <= tolerance_mm
    })
}

fn same(a_mm: f64, b_mm: f64) -> bool {
    (a_mm - b_mm).abs() <= SAME_GAP_MM.max(SAME_GAP * a_mm.max(b_mm))
}

/// The gap that most of `gaps_mm` share, and how many do; the smallest of those that tie.
fn usual(gaps_mm: &[f64]) -> Option<(f64, usize)> {
    let mut sorted = gaps_mm.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut best: Option<&[f64]> = None;
    for (start, low) in sorted.iter().enumerate() {
        let count = sorted[start..]
            .iter()
            .take_while(|gap| same(*low, **gap))
            .count();
        if best.is_none_or(|best| count > best.len()) {
            best = Some(&sorted[start..start + count]);
        }
    }
    best.map(|gaps| (gaps[gaps.len() / 2], gaps.len()))
}

/// Slices of one thickness and their usual gap.
struct Block {
    thickness_mm: Option<f64>,
    usual_mm: f64,
    gap_count: usize,
}

struct Blocks(Vec<Block>);

/// What one gap is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// As usual in its block, or between two blocks' usual gaps.
    Usual,
    /// Slices are missing.
    Missing {
        /// So many.
        slices: u32,
        /// So much of the patient is not in the images, mm.
        unscanned_mm: f64,
    },
    /// Neither.
    Odd,
}

impl Blocks {
    fn of(slices: &[Placed<'_>], gaps_mm: &[f64]) -> Self {
        let mut blocks: Vec<(Option<f64>, Vec<f64>)> = Vec::new();
        for (pair, gap) in slices.windows(2).zip(gaps_mm) {
            if !same_thickness(pair[0].thickness_mm, pair[1].thickness_mm) {
                continue;
            }
            let known = blocks
                .iter_mut()
                .find(|(thickness, _)| same_thickness(*thickness, pair[0].thickness_mm));
            match known {
                Some((_, gaps)) => gaps.push(*gap),
                None => blocks.push((pair[0].thickness_mm, vec![*gap])),
            }
        }
        Self(
            blocks
                .into_iter()
                .filter_map(|(thickness_mm, gaps)| {
                    let (usual_mm, gap_count) = usual(&gaps)?;
                    Some(Block {
                        thickness_mm,
                        usual_mm,
                        gap_count,
                    })
                })
                .collect(),
        )
    }

    fn usual_mm(&self, thickness_mm: Option<f64>) -> Option<f64> {
        self.0
            .iter()
            .find(|block| same_thickness(block.thickness_mm, thickness_mm))
            .map(|block| block.usual_mm)
    }

    /// The smallest usual gap of a block of at least three slices; without one, of all gaps.
    fn thinnest_mm(&self, gaps_mm: &[f64]) -> f64 {
        let thinnest = self
            .0
            .iter()
            .filter(|block| block.gap_count >= 2)
            .map(|block| block.usual_mm)
            .min_by(f64::total_cmp);
        thinnest
            .or_else(|| usual(gaps_mm).map(|(gap, _)| gap))
            .unwrap_or(1.0)
    }

    fn judge(&self, slices: &[Placed<'_>], gaps_mm: &[f64]) -> Vec<Verdict> {
        slices
            .windows(2)
            .enumerate()
            .map(|(index, pair)| {
                let gap = gaps_mm[index];
                if let Some(unscanned) = unscanned(pair, gap) {
                    return unscanned;
                }
                let sides = [pair[0].thickness_mm, pair[1].thickness_mm];
                let inside = same_thickness(sides[0], sides[1]);
                match (self.usual_mm(sides[0]), self.usual_mm(sides[1])) {
                    (Some(usual_mm), _) if inside => {
                        inside_verdict(gap, usual_mm, goes_on(gaps_mm, index))
                    }
                    (Some(below_mm), Some(above_mm)) => border_verdict(gap, below_mm, above_mm),
                    (Some(usual_mm), None) | (None, Some(usual_mm)) => {
                        border_verdict(gap, usual_mm, usual_mm)
                    }
                    (None, None) => Verdict::Odd,
                }
            })
            .collect()
    }
}

/// Whether the gap at `index` is one of several equal ones in a row.
fn goes_on(gaps_mm: &[f64], index: usize) -> bool {
    let alike = |gap: &&f64| same(**gap, gaps_mm[index]);
    let after = gaps_mm[index..].iter().take_while(alike).count();
    let before = gaps_mm[..index].iter().rev().take_while(alike).count();
    before + after >= BLOCK_GAPS
}

/// What lies between two slices that are thinner than their gap is wide.
fn unscanned(pair: &[Placed<'_>], gap_mm: f64) -> Option<Verdict> {
    let (below_mm, above_mm) = (pair[0].thickness_mm?, pair[1].thickness_mm?);
    let (thick_mm, mean_mm) = (below_mm.max(above_mm), f64::midpoint(below_mm, above_mm));
    (gap_mm >= WIDE_THICKNESSES * thick_mm).then(|| Verdict::Missing {
        slices: count((gap_mm / mean_mm - 1.0).round().max(1.0)),
        unscanned_mm: gap_mm - mean_mm,
    })
}

fn same_thickness(a_mm: Option<f64>, b_mm: Option<f64>) -> bool {
    match (a_mm, b_mm) {
        (Some(a), Some(b)) => same(a, b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn inside_verdict(gap_mm: f64, usual_mm: f64, goes_on: bool) -> Verdict {
    let ratio = gap_mm / usual_mm;
    if (ratio - 1.0).abs() <= EVEN_STEPS || same(gap_mm, usual_mm) {
        Verdict::Usual
    } else if ratio >= WIDE_GAPS && !goes_on {
        wide_verdict(gap_mm, usual_mm)
    } else {
        Verdict::Odd
    }
}

fn wide_verdict(gap_mm: f64, usual_mm: f64) -> Verdict {
    Verdict::Missing {
        slices: count((gap_mm / usual_mm - 1.0).round().max(1.0)),
        unscanned_mm: gap_mm - usual_mm,
    }
}

fn border_verdict(gap_mm: f64, below_mm: f64, above_mm: f64) -> Verdict {
    let (low_mm, high_mm) = (below_mm.min(above_mm), below_mm.max(above_mm));
    if gap_mm >= WIDE_GAPS * high_mm {
        return wide_verdict(gap_mm, high_mm);
    }
    let between = gap_mm > low_mm && gap_mm < high_mm;
    if between || same(gap_mm, low_mm) || same(gap_mm, high_mm) {
        Verdict::Usual
    } else {
        Verdict::Odd
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates; a number of missing slices is small and not negative"
)]
fn count(slices: f64) -> u32 {
    slices as u32
}

/// A place where slices are missing.
struct Hole {
    /// The slice below it, counted from the feet.
    after_slice: usize,
    /// Where that slice lies, mm above the lowest one.
    from_mm: f64,
    gap_mm: f64,
    slices: u32,
    unscanned_mm: f64,
}

fn holes(verdicts: &[Verdict], gaps_mm: &[f64]) -> Vec<Hole> {
    let mut from_mm = 0.0;
    let mut holes = Vec::new();
    for (index, (verdict, gap_mm)) in verdicts.iter().zip(gaps_mm).enumerate() {
        match verdict {
            Verdict::Missing {
                slices,
                unscanned_mm,
            } => holes.push(Hole {
                after_slice: index + 1,
                from_mm,
                gap_mm: *gap_mm,
                slices: *slices,
                unscanned_mm: *unscanned_mm,
            }),
            Verdict::Usual | Verdict::Odd => {}
        }
        from_mm += gap_mm;
    }
    holes
}

/// Says where slices are missing, how many, and how much of the patient they would show.
fn missing(verdicts: &[Verdict], gaps_mm: &[f64]) -> Option<Reason> {
    let holes = holes(verdicts, gaps_mm);
    if holes.is_empty() {
        return None;
    }
    let total: u64 = holes.iter().map(|hole| u64::from(hole.slices)).sum();
    let total_mm: f64 = holes.iter().map(|hole| hole.unscanned_mm).sum();
    let listed: Vec<String> = holes
        .iter()
        .take(PLACES_LISTED_MAX)
        .map(|hole| {
            format!(
                "{} after slice {} (from {} to {} above the lowest slice)",
                hole.slices,
                hole.after_slice,
                millimetres(hole.from_mm),
                millimetres(hole.from_mm + hole.gap_mm)
            )
        })
        .collect();
    let rest = match holes.len().saturating_sub(PLACES_LISTED_MAX) {
        0 => String::new(),
        more => format!(" and at {more} more places"),
    };
    Some(Reason::new(
        ReasonCode::MissingSlices,
        format!(
            "{total} {} missing among {} counted from the feet: {}{rest}; {} of the patient {} not \
             in the images, and a finding there can be missed.",
            if total == 1 { "slice is" } else { "slices are" },
            gaps_mm.len() + 1,
            listed.join(", "),
            millimetres(total_mm),
            if holes.len() == 1 { "is" } else { "in all are" },
        ),
    ))
}

/// Says that most gaps are like no other.
fn irregular(verdicts: &[Verdict], [low_mm, high_mm]: [f64; 2]) -> Option<Reason> {
    let usual = verdicts
        .iter()
        .filter(|one| **one == Verdict::Usual)
        .count();
    let unusual = verdicts.len() - usual;
    (unusual as f64 > IRREGULAR_SHARE * verdicts.len() as f64).then(|| {
        Reason::new(
            ReasonCode::MissingSlices,
            format!(
                "{unusual} of {} gaps between slices are like no other ({} to {}): slices may be \
                 missing anywhere.",
                verdicts.len(),
                millimetres(low_mm),
                millimetres(high_mm)
            ),
        )
    })
}

/// Says that the usual gaps differ from block to block, or that single gaps are odd.
fn uneven(blocks: &Blocks, verdicts: &[Verdict], gaps_mm: &[f64], step_mm: f64) -> Option<Reason> {
    let mut usual_mm: Vec<f64> = Vec::new();
    for block in &blocks.0 {
        if !usual_mm.iter().any(|known| same(*known, block.usual_mm)) {
            usual_mm.push(block.usual_mm);
        }
    }
    let odd: Vec<(usize, f64)> = verdicts
        .iter()
        .zip(gaps_mm)
        .enumerate()
        .filter(|(_, (verdict, _))| **verdict == Verdict::Odd)
        .map(|(index, (_, gap))| (index + 1, *gap))
        .collect();
    if odd.is_empty() && usual_mm.len() < 2 {
        return None;
    }
    let usual_text: Vec<String> = usual_mm.iter().map(|mm| millimetres(*mm)).collect();
    Some(Reason::new(
        ReasonCode::UnevenSpacing,
        format!(
            "Gaps between slices are {}{}; resampled evenly to {}.",
            usual_text.join(" and "),
            odd_text(&odd),
            millimetres(step_mm)
        ),
    ))
}

fn odd_text(odd: &[(usize, f64)]) -> String {
    match odd {
        [] => String::new(),
        [(after, gap)] => format!(" with the {} step after slice {after}", millimetres(*gap)),
        _ if odd.len() <= PLACES_LISTED_MAX => {
            let steps: Vec<String> = odd
                .iter()
                .map(|(after, gap)| format!("{} after slice {after}", millimetres(*gap)))
                .collect();
            format!(" with steps of {}", steps.join(", "))
        }
        _ => {
            let low = odd
                .iter()
                .map(|(_, gap)| *gap)
                .fold(f64::INFINITY, f64::min);
            let high = odd.iter().map(|(_, gap)| *gap).fold(0.0, f64::max);
            format!(
                " with {} other gaps from {} to {}",
                odd.len(),
                millimetres(low),
                millimetres(high)
            )
        }
    }
}

/// `mm` to two decimals without trailing zeros, such as `1.08 mm`.
pub(super) fn millimetres(mm: f64) -> String {
    let text = format!("{mm:.2}");
    format!("{} mm", text.trim_end_matches('0').trim_end_matches('.'))
}
