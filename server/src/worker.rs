//! Queued studies → reports.
