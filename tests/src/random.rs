//! Randomness with a state, for moments and places that a test chooses.

use fixtures::random::mix;

/// `SplitMix64` from a seed: the same numbers on every run.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let mixed = mix(self.0);
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed % bound
    }
}
