//! What stays of an analysis beside its report: for segmentation objects, structured reports and
//! overlays.
//!
//! Of every scan of the study: where its volume lay and of which slices it was made, and of each
//! finding the score of every slab and the voxels that it marks. Masks are packed: one bit a voxel,
//! eight to a byte, the first voxel in the lowest bit (as in PS3.5 section 8.1.1), then deflated.
//!
//! As bytes ([`StudyArtefacts::to_bytes`]) all of this is a sealed file ([`pipeline::sealed`]): the
//! length of a header (u64, little endian), the header, deflated JSON, and the masks one after the
//! other in the order in which the header names them, each as long as it says.

mod mask;

use ndarray::{Array2, Array4, Axis};
use pipeline::sealed::{self, SealError};
use pipeline::series::SeriesVerdict;
use pipeline::uid::Uid;
use pipeline::volume::{Grid, SourceSlice, Volume};
use serde::{Deserialize, Serialize};

use crate::findings::Finding;
use crate::output::FindingMap;
use crate::report::ModelIdentity;

pub use mask::Mask;

const KIND: sealed::Kind = *b"TEZ-ARTE";
const VERSION: u32 = 1;
/// A header of eight scans of 10,000 slices has some 20 MiB.
const JSON_BYTES_MAX: u64 = 256 << 20;

/// What stays of the analysis of one study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyArtefacts {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// The network; `None` when none ran on the scan that decides.
    pub model: Option<ModelIdentity>,
    /// A verdict for each series, in order of UID.
    pub series: Vec<SeriesVerdict>,
    /// Place in `scans` of the one that decides; `None` without any.
    pub deciding: Option<usize>,
    /// As in the report, in its order.
    pub scans: Vec<ScanArtefacts>,
}

/// What stays of one plain scan of the head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanArtefacts {
    /// Series of its reconstructions, the one that was analysed first.
    pub series_uids: Vec<Uid>,
    /// Where its volume lay; `None` when none could be made.
    pub volume: Option<VolumeGeometry>,
    /// What the network said; `None` when it did not run.
    pub answer: Option<ScanAnswer>,
}

/// Where a volume lies in the patient, and of what it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeGeometry {
    /// The volume's voxels.
    pub grid: Grid,
    /// Its slices, feet to head.
    pub sources: Vec<SourceSlice>,
}

/// What a network said of one scan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanAnswer {
    /// The voxels of the masks; its third axis counts slabs, feet to head.
    pub grid: Grid,
    /// In the order of the model's card.
    pub findings: Vec<FindingArtefact>,
}

/// What a network said of one kind of finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingArtefact {
    /// As in the report.
    pub finding: Finding,
    /// The score of each slab, feet to head, 0 to 1: averaged among neighbours as the card says, not
    /// calibrated.
    pub slab_scores: Vec<f32>,
    /// What it marks; `None` where it marks nothing.
    pub mask: Option<Mask>,
}

impl VolumeGeometry {
    /// The geometry of `volume`.
    pub fn of(volume: &Volume) -> Self {
        Self {
            grid: volume.grid,
            sources: volume.sources.clone(),
        }
    }
}

impl ScanAnswer {
    /// Keeps `findings` with the map from which they were read. Both are in the card's order.
    pub fn of(findings: &[Finding], map: &FindingMap) -> Self {
        let channels = map.marked.outer_iter().zip(map.slab_prob.columns());
        let findings = findings.iter().zip(channels);
        Self {
            grid: map.grid,
            findings: findings
                .map(|(finding, (marked, scores))| FindingArtefact {
                    finding: finding.clone(),
                    slab_scores: scores.to_vec(),
                    mask: marked.iter().any(|voxel| *voxel).then(|| Mask::of(&marked)),
                })
                .collect(),
        }
    }

    /// The map from which the findings were read.
    pub fn to_map(&self) -> FindingMap {
        let [columns, rows, slabs] = self.grid.size;
        let kinds = self.findings.len();
        let mut marked = Array4::from_elem((kinds, slabs, rows, columns), false);
        let mut slab_prob = Array2::zeros((slabs, kinds));
        for (channel, kept) in self.findings.iter().enumerate() {
            if let Some(mask) = &kept.mask {
                let mut channel = marked.index_axis_mut(Axis(0), channel);
                channel.assign(&mask.voxels());
            }
            for (slab, score) in kept.slab_scores.iter().enumerate().take(slabs) {
                slab_prob[[slab, channel]] = *score;
            }
        }
        FindingMap {
            grid: self.grid,
            kinds: self.findings.iter().map(|kept| kept.finding.kind).collect(),
            marked,
            slab_prob,
        }
    }

    /// Whether masks and scores are on the answer's own grid.
    fn fits(&self) -> bool {
        let [columns, rows, slabs] = self.grid.size;
        self.findings.iter().all(|kept| {
            let mask = kept.mask.as_ref();
            kept.slab_scores.len() == slabs
                && mask.is_none_or(|mask| mask.size() == [slabs, rows, columns])
        })
    }
}

impl StudyArtefacts {
    /// Of a study without any scan of the head.
    pub fn without_scans(study_uid: &Uid, series: Vec<SeriesVerdict>) -> Self {
        Self {
            study_uid: study_uid.clone(),
            model: None,
            series,
            deciding: None,
            scans: Vec::new(),
        }
    }

    /// What the network said of the scan that decides.
    pub fn deciding_answer(&self) -> Option<&ScanAnswer> {
        self.scans.get(self.deciding?)?.answer.as_ref()
    }

    /// All of it as bytes to be kept in a file: 2.2 KiB for a scan of 32 slices with a bleed of
    /// 30 mL, 5.4 KiB for one of 300.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Writing JSON to memory does not fail, and all keys are texts; if it did, the bytes would
        // be refused by who reads them.
        let header = serde_json::to_vec(self).unwrap_or_default();
        let header = sealed::deflated(&header);
        let length = u64::try_from(header.len()).unwrap_or(u64::MAX);
        let mut payload = length.to_le_bytes().to_vec();
        payload.extend(header);
        for mask in self.scans.iter().flat_map(ScanArtefacts::masks) {
            payload.extend(mask.bytes());
        }
        sealed::seal(KIND, VERSION, &payload)
    }

    /// Reads what [`Self::to_bytes`] gave.
    ///
    /// # Errors
    ///
    /// [`SealError`] for anything else: cut, altered, of another version or foreign.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let payload = sealed::open(KIND, VERSION, bytes)?;
        Self::of_payload(payload).ok_or(SealError::Damaged)
    }

    fn of_payload(payload: &[u8]) -> Option<Self> {
        let (length, rest) = payload.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (header, mut masks) = rest.split_at_checked(length)?;
        let header = sealed::inflated(header, JSON_BYTES_MAX)?;
        let mut artefacts: Self = serde_json::from_slice(&header).ok()?;
        let answers = artefacts
            .scans
            .iter_mut()
            .filter_map(|scan| scan.answer.as_mut());
        for answer in answers {
            for mask in answer
                .findings
                .iter_mut()
                .filter_map(|kept| kept.mask.as_mut())
            {
                masks = mask.take_bytes(masks)?;
            }
            if !answer.fits() {
                return None;
            }
        }
        masks.is_empty().then_some(artefacts)
    }
}

impl ScanArtefacts {
    fn masks(&self) -> impl Iterator<Item = &Mask> {
        let findings = self.answer.iter().flat_map(|answer| &answer.findings);
        findings.filter_map(|kept| kept.mask.as_ref())
    }
}

#[cfg(test)]
mod tests;
