//! Running other programs, and telling what runs and how long it took.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The checkout's top folder.
pub(crate) fn checkout() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: start this as `cargo xtask …`")?;
    let root = Path::new(&manifest)
        .parent()
        .context("xtask/ lies in the checkout")?;
    Ok(root.to_path_buf())
}

/// The folder for what is fetched and kept, below the checkout.
pub(crate) fn cache() -> Result<PathBuf> {
    Ok(checkout()?.join(".cache"))
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Ok(in_checkout(program, checkout()?))
}

fn in_checkout(program: impl AsRef<OsStr>, root: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// Does `work` under a heading, and tells how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n== {what}");
    let start = Instant::now();
    let done = work().with_context(|| format!("step \"{what}\" failed"))?;
    println!("== {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(done)
}

/// Runs `command` to its end; its output goes to the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs `command` to its end and returns what it printed; errors go to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", shown(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {}", shown(command)))
}

/// Whether `command` can be started and ends well; its output is thrown away.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_arguments() {
        let error = run(Command::new("false").arg("x")).expect_err("false fails");
        assert!(
            error.to_string().starts_with("false x ended with"),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_is_not_there_does_not_succeed() {
        assert!(!succeeds(&mut Command::new(
            "no-such-program-on-this-machine"
        )));
    }

    #[test]
    fn a_step_says_which_one_failed() {
        let error = step("stand on one leg", || -> Result<()> { bail!("fell") });
        assert_eq!(
            format!("{:#}", error.expect_err("it fell")),
            "step \"stand on one leg\" failed: fell"
        );
    }
}
