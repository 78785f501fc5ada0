//! Stages, measured one by one.
fn main() {}
