//! What `tez check` looks at: each thing that the service needs, with its cure.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use models::runtime::{LoadError, Network};
use ndarray::Array4;
use pipeline::prepare::ModelInput;
use pipeline::volume::{Grid, PatientPoint};
use serde::Serialize;

use crate::config::Config;
use crate::inference::load_network;
use store::state::{State, Trouble};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It works.
    Ok,
    /// It works, but somebody should know.
    Warn,
    /// The service cannot do its work so.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which: `data_dir`, `disk_space`, `database`, `dicom_port`, `http_port`, `dicom_senders`,
    /// `http_clients`, `model`, `inference`.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found.
    pub text: String,
    /// What to do; `null` where nothing is to be done.
    pub cure: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: Status, text: impl Into<String>, cure: &str) -> Self {
        Self {
            name,
            status,
            text: text.into(),
            cure: (!cure.is_empty()).then(|| cure.to_owned()),
        }
    }
}

/// Looks at everything that the service needs. May be called while a service runs with the same
/// settings: what that one holds is not touched.
pub fn check(config: &Config) -> Vec<Check> {
    let (data_dir, running) = check_data_dir(config);
    let mut checks = vec![data_dir];
    if checks[0].status != Status::Fail {
        checks.push(check_space(config));
        checks.push(check_database(config, running));
    }
    let http = config.http.bind;
    checks.push(check_port(
        "dicom_port",
        config.dicom.bind,
        running,
        "dicom.bind",
    ));
    checks.push(check_port("http_port", http, running, "http.bind"));
    checks.push(check_senders(config));
    checks.push(check_http_clients(config));
    checks.extend(check_model(config));
    checks
}

/// Whether the folder takes files, and whether another Tez works in it.
fn check_data_dir(config: &Config) -> (Check, bool) {
    let path = config.data_dir.display();
    let check = |status, text: String, cure| Check::new("data_dir", status, text, cure);
    if let Err(error) = try_folder(config) {
        let text = format!("{path} takes no files: {error}.");
        let cure = "Give Tez's user the right to write there, or set data_dir to another folder.";
        return (check(Status::Fail, text, cure), false);
    }
    if !config.data_dir.is_dir() {
        let text = format!("{path} is not there yet; the first start makes it.");
        return (check(Status::Ok, text, ""), false);
    }
    if is_locked(config) {
        let text = format!("{path} is in use by a running Tez.");
        return (check(Status::Ok, text, ""), true);
    }
    if let Some(owner) = other_owner(config) {
        let text = format!(
            "{path} belongs to the user with number {owner}, and this is another one: whether that \
             user can write there is not known."
        );
        let cure = "Call tez check as the user that runs the service.";
        return (check(Status::Warn, text, cure), false);
    }
    let text = format!("{path} takes files and syncs them.");
    (check(Status::Ok, text, ""), false)
}

/// Leaves nothing behind, whoever calls it: what root would make here, the service's user could not
/// open.
fn try_folder(config: &Config) -> io::Result<()> {
    let mut folder = config.data_dir.as_path();
    while !folder.try_exists()? {
        folder = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    let mut file = tempfile::tempfile_in(folder)?;
    file.write_all(b"tez check")?;
    file.sync_all()
}

/// Whether somebody else will run the service: what holds for us may not hold for them.
fn other_owner(config: &Config) -> Option<u32> {
    let owner = fs::metadata(&config.data_dir).ok()?.uid();
    let ours = rustix::process::geteuid().as_raw();
    (owner != ours).then_some(owner)
}

/// The lock that the object store of a running service holds.
fn is_locked(config: &Config) -> bool {
    File::open(config.data_dir.join("incoming"))
        .is_ok_and(|folder| matches!(folder.try_lock(), Err(TryLockError::WouldBlock)))
}

fn check_space(config: &Config) -> Check {
    let reserve = config.storage.free_bytes_reserve;
    let cure = "Free some space, move data_dir, or lower storage.free_bytes_reserve.";
    let check = |status, text, cure| Check::new("disk_space", status, text, cure);
    let there = config.data_dir.is_dir();
    let folder = if there {
        &config.data_dir
    } else {
        Path::new(".")
    };
    let free =
        rustix::fs::statvfs(folder).map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    match free {
        Err(error) => check(
            Status::Warn,
            format!("The free space is not known: {error}."),
            "",
        ),
        Ok(free) if free < reserve => {
            let text = format!(
                "{} MB are free; {} MB are kept in reserve, so no object is \
                accepted.",
                free >> 20,
                reserve >> 20
            );
            check(Status::Fail, text, cure)
        }
        Ok(free) if free < reserve.saturating_mul(2) => {
            let text = format!(
                "{} MB are free, of which {} MB are kept in reserve.",
                free >> 20,
                reserve >> 20
            );
            check(Status::Warn, text, cure)
        }
        Ok(free) => check(Status::Ok, format!("{} MB are free.", free >> 20), ""),
    }
}

fn check_database(config: &Config, running: bool) -> Check {
    let check = |status, text: String, cure: &str| Check::new("database", status, text, cure);
    if running {
        return check(Status::Ok, "In use by the running Tez.".to_owned(), "");
    }
    let inspected = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .map(|runtime| {
            runtime.block_on(State::inspect(
                &config.database.database(),
                &config.data_dir,
            ))
        });
    let inspected = match inspected {
        Ok(inspected) => inspected,
        Err(error) => return check(Status::Fail, format!("It was not tried: {error}."), ""),
    };
    match inspected {
        Ok(None) => check(
            Status::Ok,
            "There is none yet; the first start makes it.".to_owned(),
            "",
        ),
        Ok(Some(total)) => check(Status::Ok, format!("{total} studies are known."), ""),
        Err(error) => {
            let cure = Trouble::of(&error).map_or_else(String::new, |trouble| trouble.to_string());
            check(Status::Fail, format!("It cannot be used: {error}."), &cure)
        }
    }
}

fn check_port(name: &'static str, address: SocketAddr, running: bool, setting: &str) -> Check {
    match TcpListener::bind(address) {
        Ok(_listener) => Check::new(name, Status::Ok, format!("{address} is free."), ""),
        Err(error) if running && error.kind() == io::ErrorKind::AddrInUse => {
            let text = format!("{address} is in use while a Tez runs in the data folder.");
            Check::new(name, Status::Ok, text, "")
        }
        Err(error) => {
            let cure = super::bind_cure(&error, setting);
            Check::new(
                name,
                Status::Fail,
                format!("{address} cannot be listened on: {error}."),
                &cure,
            )
        }
    }
}

/// Whether senders beyond this machine can reach Tez, and whether that was meant.
fn check_senders(config: &Config) -> Check {
    let name = "dicom_senders";
    let dicom = &config.dicom;
    let allowed = dicom.allow.len();
    if allowed == 0 {
        let cure = "Add the senders' AE titles and addresses to dicom.allow.";
        return Check::new(
            name,
            Status::Fail,
            "Nobody may send: dicom.allow is empty.",
            cure,
        );
    }
    if dicom.bind.ip().is_loopback() {
        let text = "Only programs on this machine can send over DICOM.";
        let cure = "For other senders set dicom.bind and name them in dicom.allow.";
        return Check::new(name, Status::Warn, text, cure);
    }
    if dicom.allow.iter().all(|peer| peer.address.is_loopback()) {
        let text = format!(
            "Tez listens on {}, but dicom.allow names this machine only: nobody else may send.",
            dicom.bind
        );
        let cure = "Add the senders' AE titles and addresses to dicom.allow.";
        return Check::new(name, Status::Warn, text, cure);
    }
    let text = format!(
        "{allowed} entries of dicom.allow say who may send to {}.",
        dicom.bind
    );
    Check::new(name, Status::Ok, text, "")
}

/// Whether others than this machine can open the worklist: there is no login yet.
fn check_http_clients(config: &Config) -> Check {
    let bind = config.http.bind;
    if bind.ip().is_loopback() {
        let text = "Only programs on this machine reach the worklist and can upload.";
        return Check::new("http_clients", Status::Ok, text, "");
    }
    let text = format!(
        "There is no login: whoever reaches {bind} sees every patient and can send studies."
    );
    let cure = "Bind to 127.0.0.1 and put a reverse proxy with a login before it, or let a firewall \
                pass only those who may see patients.";
    Check::new("http_clients", Status::Warn, text, cure)
}

fn check_model(config: &Config) -> Vec<Check> {
    let mut network = match load_network(&config.model) {
        Ok(network) => network,
        Err(error) => return vec![not_loaded(&error)],
    };
    let card = network.card().clone();
    let text = format!(
        "{} {}, SHA-256 {}, as its card says.",
        card.name, card.version, card.sha256
    );
    let model = if card.trained {
        Check::new("model", Status::Ok, text, "")
    } else {
        let text = format!("{text} It is not a trained model: it exercises the path, no more.");
        Check::new(
            "model",
            Status::Warn,
            text,
            "Set model.card to a trained model's card.",
        )
    };
    vec![model, check_inference(&mut network)]
}

fn not_loaded(error: &LoadError) -> Check {
    let cure = "Until then every study ends as not analysed; a running Tez tries again with \
                every study.";
    Check::new("model", Status::Fail, format!("{error}."), cure)
}

/// Runs the network on one slab of zeros.
fn check_inference(network: &mut Network) -> Check {
    let contract = &network.card().input.contract;
    let side = contract.side_px;
    let pixel_mm = contract.side_mm / side as f64;
    let input = ModelInput {
        tensor: Array4::zeros((1, contract.channels(), side, side)),
        grid: Grid {
            origin_mm: PatientPoint([0.0; 3]),
            directions: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            spacing_mm: [pixel_mm, pixel_mm, contract.slab_mm],
            size: [side, side, 1],
        },
    };
    match network.run(&input) {
        Ok(_) => Check::new("inference", Status::Ok, "The model runs.", ""),
        Err(error) => {
            let cure = "Fetch the model and its card again, or another version of ONNX Runtime.";
            Check::new("inference", Status::Fail, format!("{error}."), cure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> Config {
        let mut config = super::super::tests::config(folder);
        config.model.library = Some("/no/such/libonnxruntime.so".into());
        config
    }

    fn named<'a>(checks: &'a [Check], name: &str) -> &'a Check {
        checks.iter().find(|check| check.name == name).unwrap()
    }

    #[test]
    fn a_fresh_folder_works_and_a_missing_library_fails_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let checks = check(&config(&folder.path().join("new")));
        for name in [
            "data_dir",
            "disk_space",
            "database",
            "dicom_port",
            "http_port",
        ] {
            assert_eq!(named(&checks, name).status, Status::Ok, "{name}");
        }
        assert_eq!(named(&checks, "dicom_senders").status, Status::Warn);
        let model = named(&checks, "model");
        assert_eq!(model.status, Status::Fail);
        assert!(
            model.text.contains("/no/such/libonnxruntime.so"),
            "{}",
            model.text
        );
    }

    #[test]
    fn what_fails_says_how_it_is_cured() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = config(folder.path());
        config.dicom.bind = taken.local_addr().unwrap();
        config.dicom.allow.clear();
        config.storage.free_bytes_reserve = u64::MAX;
        config.http.bind = "0.0.0.0:0".parse().unwrap();
        let checks = check(&config);
        let http = named(&checks, "http_clients");
        assert_eq!(http.status, Status::Warn);
        assert!(http.text.contains("no login"), "{}", http.text);
        for name in ["dicom_port", "dicom_senders", "disk_space", "model"] {
            let check = named(&checks, name);
            assert_eq!(check.status, Status::Fail, "{name}");
            assert!(check.cure.is_some(), "{name}");
        }
        fs::write(folder.path().join("file"), "").unwrap();
        config.data_dir = folder.path().join("file/below-a-file");
        let checks = check(&config);
        assert_eq!(checks[0].name, "data_dir");
        assert_eq!(checks[0].status, Status::Fail);
    }
}
