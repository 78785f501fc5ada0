//! ONNX Runtime's library, out of its Python wheel, pinned by hash.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian;
use crate::shell::{checkout, output, run, step, succeeds};

/// Which wheel, with its hash for each processor.
const REQUIREMENTS: &str = "xtask/requirements-ort.txt";

/// Takes the one file we want out of a wheel, which is a zip: argument 1 is the folder that holds
/// the wheel, argument 2 the file to write.
const EXTRACT: &str = "
import glob, re, shutil, sys, zipfile
wheel, = glob.glob(sys.argv[1] + '/*.whl')
with zipfile.ZipFile(wheel) as archive:
    name, = [n for n in archive.namelist() if re.search(r'/libonnxruntime\\.so\\.[0-9.]+$', n)]
    with archive.open(name) as source, open(sys.argv[2], 'wb') as target:
        shutil.copyfileobj(source, target)
";

/// Where the library is kept, below the checkout.
const FOLDER: &str = ".cache/onnxruntime";

/// The file, in its folder.
const LIBRARY: &str = "libonnxruntime.so";

/// Hashes of the library and of its pin, as `sha256sum` writes and checks them.
const NOTE: &str = ".cache/onnxruntime/sha256sums.txt";

/// Makes sure that the library is in the cache, and that it is the one that was put there.
pub(crate) fn ensure() -> Result<()> {
    let checkout = checkout()?;
    if is_current(&checkout) {
        return Ok(());
    }
    step("ONNX Runtime's library, from PyPI (17 MB)", || {
        fetch(&checkout)
    })
}

/// The library is there, unchanged since it was put there, and so is its pin.
fn is_current(checkout: &Path) -> bool {
    succeeds(
        Command::new("sha256sum")
            .args(["--check", "--strict", NOTE])
            .current_dir(checkout),
    )
}

/// Written beside its place, then renamed, so that a broken-off run leaves nothing half there.
fn fetch(checkout: &Path) -> Result<()> {
    let platforms = platforms()?;
    debian::ensure_pip()?;
    let folder = checkout.join(FOLDER);
    let scratch = folder.join(format!("fetch-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let fetched = download(&scratch, checkout, platforms).and_then(|()| extract(&scratch));
    if fetched.is_ok() {
        std::fs::rename(scratch.join(LIBRARY), folder.join(LIBRARY))?;
        take_note(checkout)?;
    }
    std::fs::remove_dir_all(&scratch)?;
    fetched
}

fn take_note(checkout: &Path) -> Result<()> {
    let library = format!("{FOLDER}/{LIBRARY}");
    let mut sums = Command::new("sha256sum");
    let sums = output(sums.args([&library, REQUIREMENTS]).current_dir(checkout))?;
    Ok(std::fs::write(checkout.join(NOTE), sums)?)
}

/// Names of manylinux platforms that pip may choose from, for the processor at hand.
fn platforms() -> Result<&'static [&'static str]> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok(&["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"]),
        ("linux", "aarch64") => Ok(&["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"]),
        (system, processor) => bail!(
            "no ONNX Runtime is pinned for {system} on {processor}: only Linux on x86_64 and \
             aarch64; add its wheel's hash to {REQUIREMENTS}"
        ),
    }
}

/// The wheel for Python 3.11, whatever Python runs pip: only the library inside is of use.
fn download(scratch: &Path, checkout: &Path, platforms: &[&str]) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
    ])
    .args(["--require-hashes", "--python-version", "311"])
    .args(["--implementation", "cp", "--abi", "cp311"]);
    for platform in platforms {
        pip.args(["--platform", platform]);
    }
    pip.arg("-r")
        .arg(checkout.join(REQUIREMENTS))
        .arg("-d")
        .arg(scratch);
    run(&mut pip).with_context(|| {
        format!(
            "ONNX Runtime's library is not in {FOLDER} and its wheel could not be fetched from \
             PyPI. Run `cargo xtask setup` once where there is a network, or copy that folder from \
             another checkout of the same version"
        )
    })
}

fn extract(scratch: &Path) -> Result<()> {
    run(Command::new("python3")
        .args(["-c", EXTRACT])
        .arg(scratch)
        .arg(scratch.join(LIBRARY)))
    .context("taking libonnxruntime.so out of the wheel")
}

/// Whether Python has pip.
pub(crate) fn has_pip() -> bool {
    succeeds(Command::new("python3").args(["-m", "pip", "--version"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(checkout: &Path, name: &str, text: &str) {
        let path = checkout.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("making a folder");
        std::fs::write(path, text).expect("writing");
    }

    #[test]
    fn a_library_is_current_only_while_it_and_its_pin_are_unchanged() {
        let checkout = tempfile::tempdir().expect("a scratch folder");
        let library = format!("{FOLDER}/{LIBRARY}");
        write(checkout.path(), REQUIREMENTS, "onnxruntime==1");
        assert!(!is_current(checkout.path()), "there is none");

        write(checkout.path(), &library, "library");
        assert!(!is_current(checkout.path()), "there is no note of it");
        take_note(checkout.path()).expect("both are there");
        assert!(is_current(checkout.path()));

        write(checkout.path(), &library, "damaged");
        assert!(!is_current(checkout.path()));

        write(checkout.path(), &library, "library");
        write(checkout.path(), REQUIREMENTS, "onnxruntime==2");
        assert!(!is_current(checkout.path()));
    }

    #[test]
    fn the_wheel_is_pinned_by_a_hash_for_each_processor() {
        let pin = std::fs::read_to_string(checkout().expect("run by cargo").join(REQUIREMENTS))
            .expect("the pin is in the tree");
        assert_eq!(pin.matches("--hash=sha256:").count(), 2);
    }
}
