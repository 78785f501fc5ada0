//! A network's raw output → findings.
