//! The commands of `tez`.
