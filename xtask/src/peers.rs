//! The Python programs that the tests talk to, in a virtual environment of the checkout.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{cache, checkout, run, step};

const REQUIREMENTS: &str = "tests/requirements.txt";

/// Makes sure that `.cache/venv` holds what `tests/requirements.txt` asks for.
pub(crate) fn ensure() -> Result<()> {
    let folder = cache()?.join("venv");
    let requirements = checkout()?.join(REQUIREMENTS);
    // Copied here after a full installation: its presence and content say that all is there.
    let installed = folder.join("installed-requirements.txt");
    let wanted = std::fs::read(&requirements).with_context(|| format!("reading {REQUIREMENTS}"))?;
    if std::fs::read(&installed).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    step("Python peers, from PyPI (about 130 MB)", || {
        install(&folder, &requirements)
    })?;
    std::fs::write(&installed, wanted)?;
    Ok(())
}

fn install(folder: &Path, requirements: &Path) -> Result<()> {
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(folder))
    .context("making the virtual environment; Debian needs the package python3-venv")?;
    run(Command::new(folder.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "-r",
        ])
        .arg(requirements))
    .context(
        "the Python peers of the tests are not in .cache/venv and could not be fetched from PyPI; \
         run `cargo xtask setup` once where there is a network",
    )
}
