//! Everything together: what `tez serve` starts and stops.
