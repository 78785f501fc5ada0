//! Real clients and servers of other makers, as `cargo xtask setup` installs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

use crate::service::workspace_root;

/// DCMTK's `storescu` by its full path: pynetdicom installs another program of that name.
pub const STORESCU: &str = "/usr/bin/storescu";

/// The Python with pydicom, pynetdicom and dicomweb-client.
///
/// # Errors
///
/// When `cargo xtask setup` has not made it: a missing peer is a failed test, not a skipped one.
pub fn python() -> Result<PathBuf> {
    let python = workspace_root().join(".cache/venv/bin/python");
    if python.is_file() {
        Ok(python)
    } else {
        bail!("{} is missing: run `cargo xtask setup`", python.display())
    }
}

/// Runs a peer to its end and returns its output.
///
/// # Errors
///
/// When it cannot be started or does not end well; the text holds what it said.
pub fn run(command: &mut Command) -> Result<Output> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| {
        format!("{name} cannot be started: run `cargo xtask setup`, which installs the test peers")
    })?;
    if !output.status.success() {
        bail!(
            "{name} ended with {}:\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// Sends the folder by DCMTK's `storescu`, every storage class proposed as the files need it.
///
/// # Errors
///
/// When an object was not accepted.
pub fn storescu(port: &str, folder: &Path) -> Result<Output> {
    run(Command::new(STORESCU)
        .args([
            "-aec",
            "TEZ",
            "-aet",
            "STORESCU",
            "+sd",
            "+r",
            "-R",
            "127.0.0.1",
            port,
        ])
        .arg(folder))
}

/// An Orthanc on loopback with an empty store; killed when dropped.
#[derive(Debug)]
pub struct Orthanc {
    child: std::process::Child,
    http: String,
}

impl Orthanc {
    /// Starts one that knows Tez, at `tez_dicom_port`, as a modality.
    ///
    /// # Errors
    ///
    /// When it is not installed or does not answer in time.
    pub fn start(dir: &Path, tez_dicom_port: &str) -> Result<Self> {
        let [http_port, dicom_port] = free_ports()?;
        let settings = dir.join("orthanc.json");
        let store = dir.join("orthanc");
        let tez_port: u16 = tez_dicom_port.parse()?;
        let text = serde_json::json!({
            "Name": "PACS", "StorageDirectory": store, "IndexDirectory": store,
            "HttpPort": http_port, "DicomPort": dicom_port, "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": false, "AuthenticationEnabled": false,
            "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
            "DicomModalities": { "TEZ": ["TEZ", "127.0.0.1", tez_port] },
        });
        std::fs::write(&settings, serde_json::to_vec(&text)?)?;
        let log = std::fs::File::create(dir.join("orthanc.log"))?;
        let child = Command::new("/usr/sbin/Orthanc")
            .arg(&settings)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("Orthanc is missing: run `cargo xtask setup`")?;
        let orthanc = Self {
            child,
            http: format!("http://127.0.0.1:{http_port}"),
        };
        orthanc.wait()?;
        Ok(orthanc)
    }

    fn wait(&self) -> Result<()> {
        for _ in 0..300 {
            if ureq::get(format!("{}/system", self.http)).call().is_ok() {
                return Ok(());
            }
            crate::service::pause(std::time::Duration::from_millis(100));
        }
        bail!("Orthanc did not answer at {}", self.http)
    }

    /// Where it takes STOW-RS.
    pub fn stow_url(&self) -> String {
        format!("{}/dicom-web/studies", self.http)
    }

    /// Puts the folder's files into Orthanc, then lets it send them to Tez by C-STORE.
    ///
    /// # Errors
    ///
    /// When Orthanc refuses a file or its C-STORE fails.
    pub fn forward(&self, folder: &Path) -> Result<()> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let bytes = std::fs::read(entry?.path())?;
            let text = ureq::post(format!("{}/instances", self.http))
                .send(&bytes[..])?
                .body_mut()
                .read_to_string()?;
            let answer: serde_json::Value = serde_json::from_str(&text)?;
            ids.push(
                answer["ID"]
                    .as_str()
                    .context("Orthanc gave no id")?
                    .to_owned(),
            );
        }
        ureq::post(format!("{}/modalities/TEZ/store", self.http))
            .send(serde_json::to_string(&ids)?)
            .context("Orthanc's C-STORE to Tez")?;
        Ok(())
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// Ports that were free a moment ago.
///
/// # Errors
///
/// When the system has none to give.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
