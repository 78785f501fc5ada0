//! The provider with the intake behind it; the crate `dimse` tests the protocol.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dicom_dictionary_std::uids;
use dimse::scu::{
    AssociateError, Destination, ExchangeError, ObjectHead, Proposal, ScuAssociation,
};
use pipeline::header::Refusal;
use pipeline::reason::ReasonCode;
use pipeline::uid::Uid;
use store::objects::{ObjectStore, Step, StoreError, StoreLimits};
use store::receipt::Receipt;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;

use super::storage::failure;
use super::*;
use crate::intake::{IntakeError, IntakeEvent};
use crate::testing::open_state;

const LIMITS: StoreLimits = StoreLimits {
    object_bytes_max: 1 << 20,
    free_bytes_reserve: 0,
};

/// A provider on a free port.
struct Provider {
    runtime: Runtime,
    folder: tempfile::TempDir,
    address: SocketAddr,
    events: Receiver<IntakeEvent>,
    #[expect(dead_code, reason = "a sender that is gone stops the provider")]
    stop: watch::Sender<bool>,
    served: JoinHandle<io::Result<()>>,
}

impl Provider {
    fn start() -> Self {
        Self::start_with(ScpConfig::default(), 64, LIMITS)
    }

    /// With so many `places` in the queue to the assembly.
    fn start_with(config: ScpConfig, places: usize, limits: StoreLimits) -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path(), limits).unwrap();
        let (sender, events) = mpsc::channel(places);
        let (stop, shutdown) = watch::channel(false);
        let (address, served) = runtime.block_on(async {
            let state = open_state(folder.path()).await;
            let intake = Intake::new(store, state, sender, Duration::from_millis(20));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serving = serve(listener, config, intake, shutdown);
            (address, tokio::spawn(serving))
        });
        Self {
            runtime,
            folder,
            address,
            events,
            stop,
            served,
        }
    }

    fn open(&self, calling_ae: &str) -> Result<ScuAssociation, AssociateError> {
        let to = Destination {
            address: self.address.to_string(),
            called_ae: "TEZ".to_owned(),
            calling_ae: calling_ae.to_owned(),
        };
        ScuAssociation::open(&to, &BTreeSet::from([ct()]))
    }

    fn next_event(&mut self) -> IntakeEvent {
        self.runtime.block_on(self.events.recv()).unwrap()
    }

    fn files(&self, folder: &str) -> usize {
        walk(&self.folder.path().join(folder)).len()
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn ct() -> Proposal {
    let uid = |text| Uid::new(text).unwrap();
    Proposal {
        sop_class_uid: uid(uids::CT_IMAGE_STORAGE),
        transfer_syntax_uid: uid(uids::EXPLICIT_VR_LITTLE_ENDIAN),
    }
}

fn head(sop_instance: &str) -> ObjectHead {
    ObjectHead {
        proposal: ct(),
        sop_instance_uid: Uid::new(sop_instance).unwrap(),
    }
}

/// The code of the status.
fn store(association: &mut ScuAssociation, sop_instance: &str, data_set: impl Read) -> u16 {
    let answer = association.store(&head(sop_instance), data_set).unwrap();
    answer.status.code()
}

#[test]
fn an_object_is_stored_verbatim_then_announced_then_acknowledged() {
    let mut provider = Provider::start();
    let mut client = provider.open("CT1").unwrap();
    assert_eq!(store(&mut client, "1.2.34", &b"data set"[..]), 0);
    let IntakeEvent::Stored {
        peer,
        claim,
        object,
        receipt,
        ..
    } = provider.next_event()
    else {
        panic!("the object was not announced first");
    };
    assert_eq!((peer.as_str(), receipt), ("CT1", Receipt::New));
    assert_eq!(claim.sop_instance_uid.as_str(), "1.2.34");
    assert_eq!(claim.transfer_syntax_uid, ct().transfer_syntax_uid);
    assert!(std::fs::read(object.path).unwrap().ends_with(b"data set"));
    client.release().unwrap();
    assert!(matches!(
        provider.next_event(),
        IntakeEvent::SessionFinished { .. }
    ));
}

#[test]
fn an_abort_within_an_object_loses_only_that_and_breaks_the_session() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broke off"))
        }
    }
    let mut provider = Provider::start();
    let mut client = provider.open("CT1").unwrap();
    assert_eq!(store(&mut client, "1.2.34", &b"whole"[..]), 0);
    let source = io::repeat(1).take(300_000).chain(Broken);
    let error = client.store(&head("1.2.36"), source).unwrap_err();
    assert!(matches!(error, ExchangeError::Source(_)), "{error}");
    client.abort(&error);
    assert!(matches!(provider.next_event(), IntakeEvent::Stored { .. }));
    assert!(matches!(
        provider.next_event(),
        IntakeEvent::SessionBroken { .. }
    ));
    assert_eq!(provider.files("objects"), 1);
    assert_eq!(provider.files("incoming"), 0);
}

#[test]
fn refused_objects_have_their_status_and_the_association_goes_on() {
    let provider = Provider::start();
    let mut client = provider.open("CT1").unwrap();
    assert_eq!(store(&mut client, "1.2.34", io::repeat(0).take(200_000)), 0);
    assert_eq!(store(&mut client, "1.2.36", &b""[..]), 0xC000);
    assert_eq!(
        store(&mut client, "1.2.38", io::repeat(0).take(2 << 20)),
        0xA700
    );
    assert_eq!(store(&mut client, "1.2.42", &b"fine again"[..]), 0);
    client.release().unwrap();
    assert_eq!(provider.files("objects"), 2);
}

#[test]
fn a_full_disk_is_out_of_resources() {
    let limits = StoreLimits {
        free_bytes_reserve: u64::MAX,
        ..LIMITS
    };
    let provider = Provider::start_with(ScpConfig::default(), 8, limits);
    let mut client = provider.open("CT1").unwrap();
    let answer = client.store(&head("1.2.34"), &b"body"[..]).unwrap();
    assert_eq!(answer.status.code(), 0xA700);
    assert_eq!(answer.comment, "The disk is full");
    client.release().unwrap();
}

#[test]
fn an_assembly_that_is_behind_is_out_of_resources_until_it_catches_up() {
    let mut provider = Provider::start_with(ScpConfig::default(), 2, LIMITS);
    let mut client = provider.open("CT1").unwrap();
    assert_eq!(store(&mut client, "1.2.34", &b"one"[..]), 0);
    assert_eq!(store(&mut client, "1.2.36", &b"two"[..]), 0xA700);
    assert!(matches!(provider.next_event(), IntakeEvent::Stored { .. }));
    assert_eq!(store(&mut client, "1.2.36", &b"two"[..]), 0);
}

#[test]
fn four_senders_at_once_lose_nothing() {
    let mut provider = Provider::start();
    std::thread::scope(|scope| {
        for sender in 0..4_u16 {
            let mut client = provider.open("CT1").unwrap();
            scope.spawn(move || {
                for object in 0..10_u16 {
                    let instance = format!("1.2.{}", 1000 + sender * 100 + object);
                    assert_eq!(store(&mut client, &instance, instance.as_bytes()), 0);
                }
                client.release().unwrap();
            });
        }
    });
    let events: Vec<_> = (0..44).map(|_| provider.next_event()).collect();
    let finished = |event: &&IntakeEvent| matches!(event, IntakeEvent::SessionFinished { .. });
    assert_eq!(events.iter().filter(finished).count(), 4);
    assert_eq!(provider.files("objects"), 40);
}

#[test]
fn the_allow_list_decides_who_sends() {
    let config = ScpConfig {
        allow: vec![AllowedPeer {
            ae_title: "CT1".to_owned(),
            address: "127.0.0.1".parse().unwrap(),
        }],
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config.clone(), 8, LIMITS);
    provider.open("CT1").unwrap().release().unwrap();
    let error = provider.open("CT2").unwrap_err();
    assert!(matches!(error, AssociateError::Rejected { .. }), "{error}");

    let mut elsewhere = config;
    elsewhere.allow[0].address = "127.0.0.3".parse().unwrap();
    let provider = Provider::start_with(elsewhere, 8, LIMITS);
    let error = provider.open("CT1").unwrap_err();
    assert!(matches!(error, AssociateError::Wire(_)), "{error}");
}

#[test]
fn impossible_settings_do_not_serve() {
    let config = ScpConfig {
        ae_title: String::new(),
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 8, LIMITS);
    let error = provider
        .runtime
        .block_on(provider.served)
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn each_error_of_the_intake_has_its_status_and_a_comment_without_our_paths() {
    let failed = StoreError::Failed {
        step: Step::Sync,
        source: io::Error::other("/data/secret"),
    };
    let in_use = StoreError::InUse {
        path: PathBuf::from("/data/secret"),
    };
    let full = StoreError::Full {
        free_bytes: 1,
        reserve_bytes: 2,
    };
    for (error, status) in [
        (failed.into(), 0x0110),
        (in_use.into(), 0x0110),
        (full.into(), 0xA700),
        (StoreError::TooLarge { limit_bytes: 1 }.into(), 0xA700),
        (IntakeError::Busy, 0xA700),
        (IntakeError::Closing, 0xA700),
        (Refusal::new(ReasonCode::NotDicom, "no head").into(), 0xC000),
    ] {
        let failure = failure(&error);
        assert_eq!(failure.status.code(), status, "{error}");
        assert!(!failure.comment.contains("secret"), "{error}");
        assert!(failure.comment.chars().count() <= 64, "{error}");
    }
}
