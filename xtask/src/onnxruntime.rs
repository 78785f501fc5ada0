//! ONNX Runtime's library, out of PyPI's wheel, pinned by hash.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::debian;
use crate::shell::{cache, checkout, run, step, succeeds};

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

/// Makes sure that the library is in the cache, and that it is the one that was put there.
pub(crate) fn ensure() -> Result<PathBuf> {
    let folder = cache()?.join("onnxruntime");
    let library = folder.join("libonnxruntime.so");
    let requirements = checkout()?.join(REQUIREMENTS);
    if is_current(&library, &requirements)? {
        return Ok(library);
    }
    step("ONNX Runtime's library, from PyPI (17 MB)", || {
        fetch(&folder, &library, &requirements)
    })?;
    println!("{}", library.display());
    Ok(library)
}

/// The library is there, unchanged since it was put there, and from the wheel that is asked for.
fn is_current(library: &Path, requirements: &Path) -> Result<bool> {
    let Ok(noted) = std::fs::read_to_string(note(library)) else {
        return Ok(false);
    };
    let Ok(bytes) = std::fs::read(library) else {
        return Ok(false);
    };
    Ok(noted == note_text(&bytes, &std::fs::read(requirements)?))
}

fn note(library: &Path) -> PathBuf {
    library.with_extension("so.sha256")
}

fn note_text(library: &[u8], requirements: &[u8]) -> String {
    format!(
        "{}  libonnxruntime.so\n{}  {REQUIREMENTS}\n",
        hexadecimal(&Sha256::digest(library)),
        hexadecimal(&Sha256::digest(requirements)),
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fetch(folder: &Path, library: &Path, requirements: &Path) -> Result<()> {
    let platform = platform()?;
    debian::ensure_pip()?;
    let scratch = folder.join(format!("fetch-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let fetched = download(&scratch, requirements, platform)
        .and_then(|()| extract(&scratch, library, requirements));
    std::fs::remove_dir_all(&scratch)?;
    fetched
}

/// Names of manylinux platforms that pip may choose from, for the processor at hand.
fn platform() -> Result<&'static [&'static str]> {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok(&["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"]),
        ("linux", "aarch64") => Ok(&["manylinux_2_28_aarch64", "manylinux_2_27_aarch64"]),
        (system, processor) => bail!(
            "no ONNX Runtime is pinned for {system} on {processor}: only Linux on x86_64 and \
             aarch64; add its wheel's hash to {REQUIREMENTS}"
        ),
    }
}

/// The wheel for CPython 3.11, whatever Python runs pip: only the library inside is of use.
fn download(scratch: &Path, requirements: &Path, platforms: &[&str]) -> Result<()> {
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
    pip.arg("-r").arg(requirements).arg("-d").arg(scratch);
    run(&mut pip).with_context(|| {
        "ONNX Runtime's library is not in .cache/onnxruntime and its wheel could not be fetched \
         from PyPI. Run `cargo xtask setup` once where there is a network, or copy that folder \
         from another checkout of the same version"
    })
}

/// Written beside its place, then renamed, so that a broken-off run leaves nothing half there.
fn extract(scratch: &Path, library: &Path, requirements: &Path) -> Result<()> {
    let unpacked = scratch.join("libonnxruntime.so");
    run(Command::new("python3")
        .args(["-c", EXTRACT])
        .arg(scratch)
        .arg(&unpacked))
    .context("taking libonnxruntime.so out of the wheel")?;
    let text = note_text(&std::fs::read(&unpacked)?, &std::fs::read(requirements)?);
    std::fs::rename(&unpacked, library)?;
    std::fs::write(note(library), text)?;
    Ok(())
}

/// Whether Python has pip.
pub(crate) fn has_pip() -> bool {
    succeeds(Command::new("python3").args(["-m", "pip", "--version"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_current_only_while_it_and_its_pin_are_unchanged() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let library = folder.path().join("libonnxruntime.so");
        let pin = folder.path().join("pin.txt");
        std::fs::write(&pin, "onnxruntime==1").expect("writing");
        assert!(!is_current(&library, &pin).expect("no library is no error"));

        std::fs::write(&library, "library").expect("writing");
        std::fs::write(note(&library), note_text(b"library", b"onnxruntime==1")).expect("writing");
        assert!(is_current(&library, &pin).expect("all is there"));

        std::fs::write(&library, "damaged").expect("writing");
        assert!(!is_current(&library, &pin).expect("all is there"));

        std::fs::write(&library, "library").expect("writing");
        std::fs::write(&pin, "onnxruntime==2").expect("writing");
        assert!(!is_current(&library, &pin).expect("all is there"));
    }

    #[test]
    fn the_wheel_is_pinned_by_a_hash_for_each_processor() {
        let pin = std::fs::read_to_string(checkout().expect("run by cargo").join(REQUIREMENTS))
            .expect("the pin is in the tree");
        assert_eq!(pin.matches("--hash=sha256:").count(), 2);
    }
}
