//! Slices that lie over each other → the passes over the head in which they were scanned.
//!
//! One series may hold the head more than once: before and after contrast, time points, two
//! acquisitions, a second pass half a gap beside the first. What tells passes apart is tried in
//! order of its weight ([`TellTale::ALL`]): slices are put in the order of that attribute, and where
//! the scan turns back over places that it has passed, a new pass begins. A scan that goes on where
//! another ended, sharing a place or two, is a further block of the same head; a rotation that was
//! repeated replaces the first try. A tell-tale that leaves the slices in disorder is not believed.

use std::cmp::Ordering;

use super::stacks::{Geometry, SAME_PLACE_MM};

/// A pass with this share of all places, or of the largest pass, is a scan …
const SCAN_SHARE: f64 = 0.5;
/// … and what is smaller than this share of a scan was repeated, and replaces the first try.
const REPEAT_SHARE: f64 = 0.1;
/// Blocks of one head share at most this share of the smaller one's slices …
const SHARED_SHARE: f64 = 0.25;
/// … and of this share of all.
const SHARED_OF_ALL: f64 = 0.1;
/// With more than this share of all slices in several small parts the order is none.
const DISORDER_SHARE: f64 = 0.25;
/// More runs than this …
const RUNS_BELIEVED: usize = 8;
/// … with fewer slices than this in each on average are no passes over a head.
const RUN_SLICES_MIN: usize = 3;
/// A pass whose gaps are this many times its slices' thickness is only part of a stack: slices were
/// numbered in another order.
const SPARSE_GAPS: f64 = 1.5;

/// An attribute that may tell passes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TellTale {
    TemporalPosition,
    AcquisitionNumber,
    AcquisitionTime,
    ContentTime,
    TubeVoltage,
    Exposure,
    ImageType,
    InstanceNumber,
}

/// One pass over the head, or the blocks of one.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    /// Feet to head.
    pub(super) slices: Vec<Geometry<'a>>,
    /// Slices that were scanned again: the later ones are among `slices`, not these.
    pub(super) replaced: usize,
    /// What told it from the others, in words.
    pub(super) told_by: Vec<&'static str>,
}

/// The passes of `slices`, which are alike by direction, matrix and kind. What cannot be told apart
/// stays together, several slices at one place.
pub(super) fn passes(slices: Vec<Geometry<'_>>) -> Vec<Pass<'_>> {
    told_apart(slices, &TellTale::ALL)
}

fn told_apart<'a>(mut slices: Vec<Geometry<'a>>, tell_tales: &[TellTale]) -> Vec<Pass<'a>> {
    slices.sort_by(by_place);
    let crowded = crowded(&slices);
    for (index, tell_tale) in tell_tales.iter().enumerate() {
        if !crowded && !tell_tale.suffices_alone() {
            continue;
        }
        let Some(runs) = parted(&slices, *tell_tale, crowded) else {
            continue;
        };
        return runs
            .into_iter()
            .flat_map(|run| {
                told_apart(run.slices, &tell_tales[index + 1..])
                    .into_iter()
                    .map(move |mut pass| {
                        pass.replaced += run.replaced;
                        pass.told_by.insert(0, tell_tale.words());
                        pass
                    })
            })
            .collect();
    }
    vec![Pass {
        slices,
        replaced: 0,
        told_by: Vec::new(),
    }]
}

pub(super) fn by_place(a: &Geometry<'_>, b: &Geometry<'_>) -> Ordering {
    a.along_mm
        .total_cmp(&b.along_mm)
        .then_with(|| a.slice.compare_names(&b.slice))
}

/// Whether two of `slices`, in order, lie at one place.
fn crowded(slices: &[Geometry<'_>]) -> bool {
    slices
        .windows(2)
        .any(|pair| pair[1].along_mm - pair[0].along_mm < SAME_PLACE_MM)
}

impl TellTale {
    /// In order of weight.
    const ALL: [Self; 8] = [
        Self::TemporalPosition,
        Self::AcquisitionNumber,
        Self::AcquisitionTime,
        Self::ContentTime,
        Self::TubeVoltage,
        Self::Exposure,
        Self::ImageType,
        Self::InstanceNumber,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::TemporalPosition => "temporal position",
            Self::AcquisitionNumber => "acquisition number",
            Self::AcquisitionTime => "acquisition time",
            Self::ContentTime => "content time",
            Self::TubeVoltage => "tube voltage",
            Self::Exposure => "exposure",
            Self::ImageType => "image type",
            Self::InstanceNumber => "instance number",
        }
    }

    /// Whether it is believed where no two slices lie at one place. Reconstruction may finish slices
    /// in any order, and exposure follows the patient's shape.
    fn suffices_alone(self) -> bool {
        match self {
            Self::TemporalPosition
            | Self::AcquisitionNumber
            | Self::AcquisitionTime
            | Self::TubeVoltage
            | Self::InstanceNumber => true,
            Self::ContentTime | Self::Exposure | Self::ImageType => false,
        }
    }

    /// Whether it may count slices that were not scanned apart: numbers may run over every second
    /// slice first.
    fn follows_places(self) -> bool {
        match self {
            Self::InstanceNumber => true,
            Self::TemporalPosition
            | Self::AcquisitionNumber
            | Self::AcquisitionTime
            | Self::ContentTime
            | Self::TubeVoltage
            | Self::Exposure
            | Self::ImageType => false,
        }
    }

    /// Whether a higher value means that a slice was scanned later, and may replace a first try.
    fn tells_what_came_later(self) -> bool {
        match self {
            Self::TemporalPosition
            | Self::AcquisitionNumber
            | Self::AcquisitionTime
            | Self::ContentTime => true,
            Self::TubeVoltage | Self::Exposure | Self::ImageType | Self::InstanceNumber => false,
        }
    }

    /// The order of two slices by this attribute; one that lacks it comes first.
    fn compare(self, a: &Geometry<'_>, b: &Geometry<'_>) -> Ordering {
        let number = |a: Option<f64>, b: Option<f64>| {
            a.unwrap_or(f64::NEG_INFINITY)
                .total_cmp(&b.unwrap_or(f64::NEG_INFINITY))
        };
        let (first, second) = (a.frame, b.frame);
        match self {
            Self::TemporalPosition => first.temporal_position.cmp(&second.temporal_position),
            Self::AcquisitionNumber => first.acquisition_number.cmp(&second.acquisition_number),
            Self::AcquisitionTime => first.acquired.cmp(&second.acquired),
            Self::ContentTime => first.content_made.cmp(&second.content_made),
            Self::TubeVoltage => number(first.tube_voltage_kv, second.tube_voltage_kv),
            Self::Exposure => number(first.exposure_mas, second.exposure_mas),
            Self::ImageType => a.image_type().cmp(b.image_type()),
            Self::InstanceNumber => first.instance_number.cmp(&second.instance_number),
        }
    }
}

/// Slices in the order in which they were scanned, and where they lie.
#[derive(Clone, Debug)]
struct Run<'a> {
    slices: Vec<Geometry<'a>>,
    low_mm: f64,
    high_mm: f64,
    replaced: usize,
}

impl<'a> Run<'a> {
    fn of(slices: Vec<Geometry<'a>>) -> Self {
        let places = || slices.iter().map(|slice| slice.along_mm);
        Self {
            low_mm: places().fold(f64::INFINITY, f64::min),
            high_mm: places().fold(f64::NEG_INFINITY, f64::max),
            slices,
            replaced: 0,
        }
    }

    fn spans(&self, slice: &Geometry<'_>) -> bool {
        (self.low_mm - SAME_PLACE_MM..=self.high_mm + SAME_PLACE_MM).contains(&slice.along_mm)
    }

    fn touches(&self, other: &Self) -> bool {
        other.low_mm <= self.high_mm + SAME_PLACE_MM && other.high_mm >= self.low_mm - SAME_PLACE_MM
    }

    /// How many slices of `other` lie within this run.
    fn holds(&self, other: &Self) -> usize {
        let slices = other.slices.iter();
        slices.filter(|slice| self.spans(slice)).count()
    }

    /// Slices at different places.
    fn places(&self) -> usize {
        let mut places_mm: Vec<f64> = self.slices.iter().map(|slice| slice.along_mm).collect();
        places_mm.sort_by(f64::total_cmp);
        places_mm.dedup_by(|next, kept| *next - *kept < SAME_PLACE_MM);
        places_mm.len()
    }

    fn extend(&mut self, other: Self) {
        self.low_mm = self.low_mm.min(other.low_mm);
        self.high_mm = self.high_mm.max(other.high_mm);
        self.slices.extend(other.slices);
    }

    /// Whether `next`, which was scanned later, is a further block of the same head.
    fn goes_on_with(&self, next: &Self) -> bool {
        let shared = self.holds(next).min(next.holds(self));
        let (ours, theirs) = (self.slices.len(), next.slices.len());
        let smaller = ours.min(theirs);
        let allowed = (SHARED_SHARE * smaller as f64).min(SHARED_OF_ALL * (ours + theirs) as f64);
        shared as f64 <= allowed.max(1.0) && 2 * shared <= smaller
    }

    /// Where blocks share places, keeps the slices of the later block.
    fn without_earlier_twins(mut self, tell_tale: TellTale) -> Self {
        let mut kept: Vec<Geometry<'a>> = Vec::with_capacity(self.slices.len());
        for slice in std::mem::take(&mut self.slices).into_iter().rev() {
            let scanned_again = kept.iter().any(|later| {
                (later.along_mm - slice.along_mm).abs() < SAME_PLACE_MM
                    && tell_tale.compare(&slice, later) == Ordering::Less
            });
            if scanned_again {
                self.replaced += 1;
            } else {
                kept.push(slice);
            }
        }
        self.slices = kept;
        self
    }

    /// The same with what `part` shows in the place of its own: all that a block spans, of single
    /// slices their places.
    fn with(&self, part: &Self) -> Self {
        let is_block = 2 * part.places() > part.holds(self);
        let shows = |slice: &Geometry<'_>| {
            let same_place =
                |other: &Geometry<'_>| (other.along_mm - slice.along_mm).abs() < SAME_PLACE_MM;
            (is_block && part.spans(slice)) || part.slices.iter().any(same_place)
        };
        let mut slices: Vec<Geometry<'a>> = self.slices.clone();
        slices.retain(|slice| !shows(slice));
        let replaced = self.slices.len() - slices.len();
        slices.extend(part.slices.iter().cloned());
        Self {
            replaced: self.replaced + replaced,
            ..Self::of(slices)
        }
    }

    fn is_sparse(&self) -> bool {
        let thickness_mm = self
            .slices
            .iter()
            .filter_map(|slice| slice.frame.thickness_mm);
        let thickest_mm = thickness_mm.fold(0.0, f64::max);
        let gaps = self.slices.len().saturating_sub(1).max(1);
        let gap_mm = (self.high_mm - self.low_mm) / gaps as f64;
        thickest_mm > 0.0 && gap_mm > SPARSE_GAPS * thickest_mm
    }
}

/// The runs into which an attribute parts `slices`; `None` if it does not part them, or leaves them
/// in disorder.
fn parted<'a>(slices: &[Geometry<'a>], tell_tale: TellTale, crowded: bool) -> Option<Vec<Run<'a>>> {
    let turns = turns(bursts(slices, tell_tale));
    let scattered = turns.len() > RUNS_BELIEVED && RUN_SLICES_MIN * turns.len() > slices.len();
    if turns.len() < 2 || scattered {
        return None;
    }
    let joined: Vec<Run<'_>> = blocks_joined(turns)
        .into_iter()
        .map(|run| run.without_earlier_twins(tell_tale))
        .collect();
    let in_order =
        |run: &Run<'_>| run.replaced as f64 <= (SHARED_SHARE * run.slices.len() as f64).max(2.0);
    if !joined.iter().all(in_order) {
        return None;
    }
    let runs = with_repeats(joined, tell_tale)?;
    let replaces = runs.iter().any(|run| run.replaced > 0);
    let parts = runs.len() > 1 || replaces;
    let whole = crowded || !tell_tale.follows_places() || !runs.iter().any(Run::is_sparse);
    let believed = !replaces || tell_tale.tells_what_came_later();
    (parts && whole && believed).then_some(runs)
}

/// Slices of one value each, in the attribute's order.
fn bursts<'a>(slices: &[Geometry<'a>], tell_tale: TellTale) -> Vec<Run<'a>> {
    let mut ordered = slices.to_vec();
    // Stable: slices of one value stay in the order of their places.
    ordered.sort_by(|a, b| tell_tale.compare(a, b));
    ordered
        .chunk_by(|a, b| tell_tale.compare(a, b) == Ordering::Equal)
        .map(|burst| Run::of(burst.to_vec()))
        .collect()
}

/// A new run begins where the scan turns back over places that it has passed.
fn turns(bursts: Vec<Run<'_>>) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for burst in bursts {
        match runs.last_mut() {
            Some(run) if !run.touches(&burst) => run.extend(burst),
            Some(_) | None => runs.push(burst),
        }
    }
    runs
}

/// Joins the blocks of one head: each run to the latest one that it goes on from.
fn blocks_joined(runs: Vec<Run<'_>>) -> Vec<Run<'_>> {
    let mut joined: Vec<Run<'_>> = Vec::new();
    for run in runs {
        let before = joined
            .iter_mut()
            .rev()
            .find(|before| before.goes_on_with(&run));
        match before {
            Some(before) => before.extend(run),
            None => joined.push(run),
        }
    }
    joined
}

/// Puts a repeated rotation in the place of the first try. A larger part that was scanned twice
/// gives a further run: which try shows more is not for the header to say. `None` if so much is in
/// small parts that the order is none.
fn with_repeats(joined: Vec<Run<'_>>, tell_tale: TellTale) -> Option<Vec<Run<'_>>> {
    let all = Run::of(joined.iter().flat_map(|run| run.slices.clone()).collect());
    let count = all.slices.len();
    // Passes beside each other have places of their own: then the largest is the measure.
    let places = if tell_tale.tells_what_came_later() {
        joined.iter().map(Run::places).max()?
    } else {
        all.places()
    };
    let is_scan = |run: &Run<'_>| run.places() as f64 >= SCAN_SHARE * places as f64;
    let (mut scans, parts): (Vec<_>, Vec<_>) = joined
        .into_iter()
        .enumerate()
        .partition(|(_, run)| is_scan(run));
    let in_parts: usize = parts.iter().map(|(_, run)| run.slices.len()).sum();
    if parts.len() > 1 && in_parts as f64 > DISORDER_SHARE * count as f64 {
        return None;
    }
    let mut tried_again: Vec<Run<'_>> = Vec::new();
    for (order, part) in parts {
        // The scan that was under way, or the first.
        let under_way = scans
            .iter()
            .rposition(|(begun, _)| *begun < order)
            .unwrap_or(0);
        let (begun, scan) = scans.get_mut(under_way)?;
        let repeat = part.places() as f64 <= (REPEAT_SHARE * scan.places() as f64).max(2.0);
        match (repeat, *begun < order) {
            (true, true) => *scan = scan.with(&part),
            (true, false) => scan.replaced += part.slices.len(),
            (false, _) => tried_again.push(scan.with(&part)),
        }
    }
    Some(
        scans
            .into_iter()
            .map(|(_, run)| run)
            .chain(tried_again)
            .collect(),
    )
}
