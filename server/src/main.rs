//! `tez`: stroke triage for head CT.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::cli::run()
}
