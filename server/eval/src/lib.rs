//! Measuring a model: labels and answers → figures with their intervals.
//!
//! A study that was not analysed has no answer. It is counted as such and never as a negative:
//! figures over answered studies stand beside the share of all positives that was found.
//!
//! Whoever runs the studies ([`Evaluated`] is one of them) is not this crate: it knows neither the
//! service nor its commands.

pub mod figures;
pub mod labels;
mod metrics;
pub mod predictions;
pub mod slabs;
pub mod table;

use std::collections::BTreeMap;

use models::analysis::Analysis;
use models::findings::FindingKind;
use models::report::StudyReport;
use pipeline::reason::Reason;
use pipeline::uid::Uid;

pub use metrics::Site;

use labels::LabelledStudy;

/// What came of one labelled study.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Where it lies, and what is known of it.
    pub labelled: LabelledStudy,
    /// The answer; if no study could be read, the reason.
    pub report: Result<StudyReport, Reason>,
    /// Slice thickness, mm.
    pub thickness_mm: Option<f64>,
    /// What the network said of each received slice, feet to head.
    pub slices: Vec<SliceAnswer>,
}

/// What a network said of one received slice.
#[derive(Clone, Debug)]
pub struct SliceAnswer {
    /// SOP Instance UID.
    pub sop_uid: Uid,
    /// Zero-based frame of the object.
    pub frame_index: usize,
    /// Not calibrated.
    pub probability: BTreeMap<FindingKind, f64>,
}

impl SliceAnswer {
    /// What the network said of the slab that covers each received slice's middle.
    pub fn of(analysis: &Analysis) -> Vec<Self> {
        let (Some(map), Some(volume)) = (analysis.map(), &analysis.volume) else {
            return Vec::new();
        };
        let answer = |source| {
            let slab_prob = map.slab_prob.row(map.slab_of_source(source, volume));
            let probabilities = slab_prob.iter().copied().map(f64::from);
            Self {
                sop_uid: source.sop_instance_uid.clone(),
                frame_index: source.frame_index,
                probability: map.kinds.iter().copied().zip(probabilities).collect(),
            }
        };
        volume.sources.iter().map(answer).collect()
    }
}

#[cfg(test)]
mod tests;
