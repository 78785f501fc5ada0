//! Stored objects → studies: header read, assembled, queued.
