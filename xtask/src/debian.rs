//! Debian's packages: programs of other makers that the tests talk to.

use std::process::Command;

use anyhow::{Result, bail};

use crate::onnxruntime::has_pip;
use crate::shell::{output, run, step, succeeds};

/// What the tests call: DICOM clients, servers, validators and converters of other makers.
const PACKAGES: &[&str] = &[
    "dcm2niix",
    "dcmtk",
    "dicom3tools",
    "libgdcm-tools",
    "orthanc",
    "orthanc-dicomweb",
    "orthanc-gdcm",
    "python3-venv",
];

/// Makes sure that the packages are installed.
pub(crate) fn ensure() -> Result<()> {
    install(&missing(PACKAGES))
}

/// Makes sure that `python3 -m pip` works.
pub(crate) fn ensure_pip() -> Result<()> {
    if !has_pip() {
        install(&["python3-pip"])?;
    }
    if has_pip() {
        return Ok(());
    }
    bail!("`python3 -m pip` does not work; Tez's set-up needs Python 3 with pip")
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect()
}

fn is_installed(package: &str) -> bool {
    let query = &mut Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    query.stderr(std::process::Stdio::null());
    query
        .output()
        .is_ok_and(|answer| answer.stdout == b"installed")
}

/// Installs `packages`, or says how.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !has_apt() {
        bail!("missing, and there is no apt-get to bring them; Debian calls them: {names}");
    }
    if !is_root()? {
        bail!("missing; run: sudo apt-get install --no-install-recommends {names}");
    }
    step(&format!("Debian packages: {names}"), || {
        // A fresh machine has no package lists, and a stale list names files that are gone.
        run(apt_get().args(["update", "-qq"]))?;
        run(apt_get()
            .args(["install", "-qq", "--no-install-recommends"])
            .args(packages))
    })
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Orthanc's and PostgreSQL's packages start a service when installed, except in single-user mode.
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    command
}

fn has_apt() -> bool {
    succeeds(Command::new("apt-get").arg("--version"))
}

/// Whether this runs as root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_does_not_exist_is_missing() {
        assert_eq!(
            missing(&["no-such-package-in-debian"]),
            ["no-such-package-in-debian"]
        );
    }

    #[test]
    fn nothing_missing_installs_nothing() {
        install(&[]).expect("nothing to do");
    }
}
