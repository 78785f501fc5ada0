//! Tests of decoding; filled below.
