//! Every limit of the pipeline, with its unit, in one place.

use serde::{Deserialize, Serialize};

use crate::header::FallbackCharset;

/// What the pipeline refuses to exceed. Full means a clear refusal, never a guess.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest object taken in, bytes.
    pub object_bytes_max: u64,
    /// Deepest nesting of sequences that is read.
    pub nesting_depth_max: usize,
    /// Most data elements of one header that are read. An Enhanced CT has dozens for each frame.
    pub header_elements_max: usize,
    /// Most bytes of one header (everything before the pixel data) that are read.
    pub header_bytes_max: u64,
    /// Most frames of one series that become a volume.
    pub slices_max: usize,
    /// Most scans of one study that are analysed; with more of them the study is analysed in part.
    pub scans_max: usize,
    /// Most instances of one study; each frame of a multi-frame object counts as one.
    pub study_instances_max: usize,
    /// Fewest slices that can be called a volume.
    pub slices_min: usize,
    /// Most rows or columns of one frame.
    pub frame_side_max: u32,
    /// Most voxels of one volume, rectified or not.
    pub volume_voxels_max: usize,
    /// No limit, but wanted wherever headers are read within limits: how text without a right
    /// character set is read. Set by `dicom.fallback_charset`.
    #[serde(skip)]
    pub fallback_charset: FallbackCharset,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            object_bytes_max: 2 << 30,
            nesting_depth_max: 64,
            header_elements_max: 2_000_000,
            header_bytes_max: 64 << 20,
            slices_max: 2_000,
            scans_max: 8,
            study_instances_max: 10_000,
            slices_min: 3,
            frame_side_max: 2_048,
            volume_voxels_max: 600 << 20,
            fallback_charset: FallbackCharset::default(),
        }
    }
}
