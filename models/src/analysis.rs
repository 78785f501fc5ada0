//! Instances of one study → its report: the straight way through all stages.
