//! Which series of a study is analysed, and why the others are not.

use serde::Serialize;

use crate::instance::Instance;
use crate::reason::Reason;
use crate::uid::Uid;

/// What was decided about one series. Goes into the result as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeriesVerdict {
    /// Series Instance UID.
    pub uid: Uid,
    /// Whether this series was analysed.
    pub chosen: bool,
    /// Why, or why not; never empty.
    pub reasons: Vec<Reason>,
}

/// One frame of an instance: the unit of which a series' stack is made.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// The object that holds the frame.
    pub instance: &'a Instance,
    /// Zero-based frame of it.
    pub frame_index: usize,
}
