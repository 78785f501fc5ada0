//! The service in this process, on ports of the system's choice.

use std::path::Path;

use models::analysis::StudyObjects;
use models::report::ModelIdentity;
use pipeline::decode::Decoding;
use pipeline::reason::{Reason, ReasonCode};

use tokio::net::TcpStream;

use super::*;
use crate::worker::tests::launch_thread;
use crate::worker::{Analyse, Answer, not_analysed};

struct NoModel;

impl Analyse for NoModel {
    fn analyse(&mut self, study: StudyObjects<'_>, _decoding: Decoding<'_>) -> Answer {
        let reasons = self.model().err().into_iter().collect();
        not_analysed(study.study_uid, reasons).into()
    }

    fn model(&self) -> Result<ModelIdentity, Reason> {
        let text = "a test has no model";
        Err(Reason::new(ReasonCode::ModelUnavailable, text))
    }
}

pub(super) fn config(folder: &Path) -> Config {
    let mut config = Config {
        data_dir: folder.to_owned(),
        ..Config::default()
    };
    config.dicom.bind.set_port(0);
    config.http.bind.set_port(0);
    config.storage.free_bytes_reserve = 0;
    config.database.url = fixtures::scratch_database::url(folder);
    config
}

async fn start(config: Config) -> Result<Service, ServiceError> {
    let launch = launch_thread(Arc::new(|| Box::new(NoModel)));
    Service::start_with(config, Clock::system(), launch).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_listens_holds_its_folder_and_gives_both_back_when_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(config(folder.path())).await.unwrap();
    let (dicom, http) = (service.dicom_address(), service.http_address());
    TcpStream::connect(dicom).await.unwrap();
    TcpStream::connect(http).await.unwrap();

    let again = start(config(folder.path())).await.unwrap_err().to_string();
    assert!(again.contains("in use by another Tez"), "{again}");
    assert_eq!(check(&config(folder.path()))[0].status, Status::Ok);

    service.stop().await;
    assert!(TcpStream::connect(dicom).await.is_err());
    start(config(folder.path())).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_an_error_that_names_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(folder.path());
    config.http.bind = taken.local_addr().unwrap();
    let error = start(config).await.unwrap_err().to_string();
    assert!(
        error.contains("http.bind") && error.contains("in use"),
        "{error}"
    );
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = start(config(&file.join("data")))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("data_dir") && error.contains("file/data"),
        "{error}"
    );
}

#[test]
fn a_port_that_needs_a_right_is_told_with_the_right_and_an_address_of_another_machine_as_that() {
    let cure = |kind| bind_cure(&io::Error::from(kind), "dicom.bind");
    let no_right = cure(io::ErrorKind::PermissionDenied);
    assert!(no_right.contains("CAP_NET_BIND_SERVICE") && no_right.contains("dicom.bind"));
    assert!(cure(io::ErrorKind::AddrNotAvailable).contains("no such address"));
    assert!(cure(io::ErrorKind::AddrInUse).contains("Stop what uses it"));
}
