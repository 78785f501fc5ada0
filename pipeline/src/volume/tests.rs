//! Tests of the volume; filled below.
