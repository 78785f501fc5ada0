//! `tez`: stroke triage for head CT.
fn main() {}
