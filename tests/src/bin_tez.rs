//! The `tez` command, built again here so that these tests always run the code beside them.

fn main() -> std::process::ExitCode {
    server::cli::run()
}
