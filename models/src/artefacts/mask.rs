//! Which voxels are marked, in few bytes.

use ndarray::{Array3, ArrayView3};
use pipeline::sealed;
use serde::{Deserialize, Serialize};

/// Marked voxels; axes: slab (feet to head), row, column.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mask {
    /// Slabs, rows, columns.
    size: [usize; 3],
    /// Length of `deflated`.
    bytes: usize,
    /// Bits in the order of the axes, the first in the lowest bit of the first byte. Kept apart from
    /// the rest ([`super::StudyArtefacts::to_bytes`]).
    #[serde(skip)]
    deflated: Vec<u8>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, bytes, .. } = self;
        write!(formatter, "Mask({size:?} voxels in {bytes} bytes)")
    }
}

impl Mask {
    /// Packs `marked`; axes: slab, row, column.
    pub fn of(marked: &ArrayView3<'_, bool>) -> Self {
        let mut packed = vec![0_u8; marked.len().div_ceil(8)];
        for (index, _) in marked.iter().enumerate().filter(|(_, voxel)| **voxel) {
            packed[index / 8] |= 1 << (index % 8);
        }
        let deflated = sealed::deflated(&packed);
        Self {
            size: marked.dim().into(),
            bytes: deflated.len(),
            deflated,
        }
    }

    /// Slabs, rows, columns.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// Which voxels are marked; axes: slab, row, column.
    pub fn voxels(&self) -> Array3<bool> {
        let packed = self.packed();
        let mut index = 0..;
        // Bytes that were sealed are whole; what would lack is not marked.
        Array3::from_shape_simple_fn(self.size, || {
            let index: usize = index.next().unwrap_or_default();
            packed
                .get(index / 8)
                .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
        })
    }

    /// One bit a voxel, in the order of the axes, the first in the lowest bit of the first byte: as
    /// a segmentation object holds them, where no frame ends inside a byte.
    pub fn packed(&self) -> Vec<u8> {
        let voxels: usize = self.size.iter().product();
        let bytes = u64::try_from(voxels.div_ceil(8)).unwrap_or(u64::MAX);
        sealed::inflated(&self.deflated, bytes).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.deflated
    }

    /// Takes the mask's bytes from the front of `bytes` and gives the rest; `None` where they are
    /// not there or are not those of a mask of its size.
    pub(super) fn take_bytes<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (own, rest) = bytes.split_at_checked(self.bytes)?;
        self.deflated = own.to_vec();
        let voxels = self
            .size
            .iter()
            .try_fold(1_usize, |all, side| all.checked_mul(*side))?;
        (self.packed().len() == voxels.div_ceil(8)).then_some(rest)
    }
}
