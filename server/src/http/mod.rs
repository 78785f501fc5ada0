//! HTTP in and out.

pub mod body;
pub mod media;
pub mod multipart;
pub mod problem;
