//! Raw clients against a running provider.

use std::io::{Read, Write};
use std::net::TcpStream as Socket;

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AbortRQSource, AssociationRJ, AssociationRQ, PDataValue, PDataValueType, Pdu,
    PresentationContextProposed, PresentationContextResultReason,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use super::*;
use crate::intake::IntakeEvent;
use crate::testing::open_state;
use store::objects::{ObjectStore, StoreLimits};
use store::receipt::Receipt;

const VERIFICATION_CONTEXT: u8 = 1;
const CT_CONTEXT: u8 = 3;

/// A provider on a free port.
struct Provider {
    runtime: Runtime,
    folder: tempfile::TempDir,
    address: SocketAddr,
    events: Receiver<IntakeEvent>,
    stop: watch::Sender<bool>,
    served: JoinHandle<io::Result<()>>,
}

impl Provider {
    fn start() -> Self {
        Self::start_with(ScpConfig::default(), 64)
    }

    fn start_with(config: ScpConfig, places: usize) -> Self {
        let limits = StoreLimits {
            object_bytes_max: 1 << 20,
            free_bytes_reserve: 0,
        };
        Self::start_with_limits(config, places, limits)
    }

    fn start_with_limits(config: ScpConfig, places: usize, limits: StoreLimits) -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(folder.path(), limits).unwrap();
        let (sender, events) = tokio::sync::mpsc::channel(places);
        let (stop, shutdown) = watch::channel(false);
        let (address, served) = runtime.block_on(async {
            let state = open_state(folder.path()).await;
            let intake = Intake::new(store, state, sender, Duration::from_millis(20));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            (
                address,
                tokio::spawn(serve(listener, config, intake, shutdown)),
            )
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

    fn connect(&self) -> Client {
        let socket = Socket::connect(self.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client {
            socket,
            received: Vec::new(),
        }
    }

    /// As another host.
    fn connect_from(&self, host: &str) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let own: SocketAddr = format!("{host}:0").parse().unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let socket = Socket::from(socket);
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client {
            socket,
            received: Vec::new(),
        }
    }

    fn associate_from(&self, host: &str) -> Client {
        let mut client = self.connect_from(host);
        client.send(&request("CT1", "TEZ"));
        assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
        client
    }

    fn associate(&self) -> Client {
        let mut client = self.connect();
        client.send(&request("CT1", "TEZ"));
        assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
        client
    }

    fn next_event(&mut self) -> IntakeEvent {
        self.runtime.block_on(self.events.recv()).unwrap()
    }

    fn stored_files(&self) -> usize {
        walk(&self.folder.path().join("objects")).len()
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
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

struct Client {
    socket: Socket,
    received: Vec<u8>,
}

impl Client {
    fn send(&mut self, pdu: &Pdu) {
        self.send_bytes(&bytes_of(pdu));
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next PDU; `None` once the provider has hung up.
    fn receive(&mut self) -> Option<Pdu> {
        loop {
            let mut rest = self.received.as_slice();
            if let Some(pdu) = dicom_ul::read_pdu(&mut rest, 1 << 20, true).unwrap() {
                self.received = rest.to_vec();
                return Some(pdu);
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => panic!("the provider does not answer: {error}"),
            }
        }
    }

    /// Command Field, Message ID Being Responded To and Status of the next response.
    fn response(&mut self) -> (u16, u16, u16) {
        let Some(Pdu::PData { data }) = self.receive() else {
            panic!("no response");
        };
        assert!(data[0].is_last && data[0].value_type == PDataValueType::Command);
        let number = |element| element_u16(&data[0].data, element).unwrap();
        (number(0x0100), number(0x0120), number(0x0900))
    }

    fn store(&mut self, message_id: u16, instance: &str, body: &[u8]) -> u16 {
        self.send_bytes(&store_bytes(message_id, instance, body));
        let (field, answered, status) = self.response();
        assert_eq!((field, answered), (0x8001, message_id));
        status
    }

    fn release(mut self) {
        self.send(&Pdu::ReleaseRQ);
        assert_eq!(self.receive(), Some(Pdu::ReleaseRP));
    }

    fn expect_abort(&mut self) {
        let pdu = self.receive();
        let from_provider =
            |source: &AbortRQSource| matches!(source, AbortRQSource::ServiceProvider(_));
        assert!(
            matches!(&pdu, Some(Pdu::AbortRQ { source }) if from_provider(source)),
            "{pdu:?}"
        );
    }

    fn expect_rejection(&mut self) -> AssociationRJ {
        match self.receive() {
            Some(Pdu::AssociationRJ(rejection)) => rejection,
            pdu => panic!("no rejection but {pdu:?}"),
        }
    }
}

fn bytes_of(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    dicom_ul::write_pdu(&mut bytes, pdu).unwrap();
    bytes
}

fn request(calling: &str, called: &str) -> Pdu {
    let context = |id, abstract_syntax: &str| PresentationContextProposed {
        id,
        abstract_syntax: abstract_syntax.to_owned(),
        transfer_syntaxes: vec![uids::EXPLICIT_VR_LITTLE_ENDIAN.to_owned()],
    };
    Pdu::AssociationRQ(AssociationRQ {
        protocol_version: 1,
        calling_ae_title: calling.to_owned(),
        called_ae_title: called.to_owned(),
        application_context_name: "1.2.840.10008.3.1.1.1".to_owned(),
        presentation_contexts: vec![
            context(VERIFICATION_CONTEXT, uids::VERIFICATION),
            context(CT_CONTEXT, uids::CT_IMAGE_STORAGE),
            context(5, uids::STUDY_ROOT_QUERY_RETRIEVE_INFORMATION_MODEL_FIND),
        ],
        user_variables: Vec::new(),
    })
}

fn element(number: u16, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    [
        &[0, 0][..],
        &number.to_le_bytes(),
        &length.to_le_bytes(),
        value,
    ]
    .concat()
}

fn element_u16(mut set: &[u8], wanted: u16) -> Option<u16> {
    while set.len() >= 8 {
        let number = u16::from_le_bytes([set[2], set[3]]);
        let length = u32::from_le_bytes([set[4], set[5], set[6], set[7]]);
        let length = usize::try_from(length).unwrap();
        if number == wanted {
            return Some(u16::from_le_bytes([set[8], set[9]]));
        }
        set = &set[8 + length..];
    }
    None
}

/// A command set; `class` and `instance` have even lengths.
fn command(field: u16, message_id: u16, instance: Option<&str>) -> Vec<u8> {
    let data_set_type: u16 = if field == 0x0001 { 0x0001 } else { 0x0101 };
    let mut set = element(0x0002, b"1.2.840.10008.5.1.4.1.1.2\0");
    set.extend(element(0x0100, &field.to_le_bytes()));
    set.extend(element(0x0110, &message_id.to_le_bytes()));
    set.extend(element(0x0800, &data_set_type.to_le_bytes()));
    if let Some(instance) = instance {
        set.extend(element(0x1000, instance.as_bytes()));
    }
    set
}

fn fragment(context: u8, kind: PDataValueType, is_last: bool, data: &[u8]) -> PDataValue {
    PDataValue {
        presentation_context_id: context,
        value_type: kind,
        is_last,
        data: data.to_vec(),
    }
}

fn pdata(values: Vec<PDataValue>) -> Vec<u8> {
    bytes_of(&Pdu::PData { data: values })
}

fn command_bytes(context: u8, set: &[u8]) -> Vec<u8> {
    pdata(vec![fragment(context, PDataValueType::Command, true, set)])
}

fn echo_bytes(message_id: u16) -> Vec<u8> {
    command_bytes(VERIFICATION_CONTEXT, &command(0x0030, message_id, None))
}

fn store_bytes(message_id: u16, instance: &str, body: &[u8]) -> Vec<u8> {
    let set = command(0x0001, message_id, Some(instance));
    let mut bytes = command_bytes(CT_CONTEXT, &set);
    bytes.extend(pdata(vec![fragment(
        CT_CONTEXT,
        PDataValueType::Data,
        true,
        body,
    )]));
    bytes
}

#[test]
fn an_echo_is_answered_with_its_own_id() {
    let provider = Provider::start();
    let mut client = provider.associate();
    for message_id in [7, 65_535, 0] {
        client.send_bytes(&echo_bytes(message_id));
        assert_eq!(client.response(), (0x8030, message_id, 0));
    }
    client.release();
}

#[test]
fn an_object_is_stored_verbatim_then_announced_then_acknowledged() {
    let mut provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(9, "1.2.34", b"data set"), 0);
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
    assert!(std::fs::read(object.path).unwrap().ends_with(b"data set"));
    client.release();
    assert!(matches!(
        provider.next_event(),
        IntakeEvent::SessionFinished { .. }
    ));
}

#[test]
fn titles_padded_with_nuls_are_the_same_titles_and_go_on_without_padding() {
    let mut provider = Provider::start();
    let mut bytes = bytes_of(&request("CT1", "TEZ"));
    for (at, title) in [(10, b"TEZ"), (26, b"CT1")] {
        bytes[at..at + 16].fill(0);
        bytes[at..at + 3].copy_from_slice(title);
    }
    let mut client = provider.connect();
    client.send_bytes(&bytes);
    assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
    assert_eq!(client.store(1, "1.2.34", b"data set"), 0);
    let IntakeEvent::Stored { peer, .. } = provider.next_event() else {
        panic!("not announced");
    };
    assert_eq!(peer, "CT1");
    client.release();
}

#[test]
fn objects_are_stored_through_contexts_of_any_id() {
    for id in [2, 129, 255] {
        let provider = Provider::start();
        let Pdu::AssociationRQ(mut asked) = request("CT1", "TEZ") else {
            panic!("no request");
        };
        asked.presentation_contexts[1].id = id;
        let mut client = provider.connect();
        client.send(&Pdu::AssociationRQ(asked));
        assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
        client.send_bytes(&command_bytes(id, &command(0x0001, 1, Some("1.2.34"))));
        let value = fragment(id, PDataValueType::Data, true, b"data set");
        client.send_bytes(&pdata(vec![value]));
        assert_eq!(client.response(), (0x8001, 1, 0), "{id}");
        assert_eq!(provider.stored_files(), 1);
        client.release();
    }
}

#[test]
fn contexts_are_accepted_one_by_one() {
    use PresentationContextResultReason::{AbstractSyntaxNotSupported, Acceptance};
    let provider = Provider::start();
    let mut client = provider.connect();
    client.send(&request("CT1", "TEZ"));
    let Some(Pdu::AssociationAC(acceptance)) = client.receive() else {
        panic!("not accepted");
    };
    let verdicts: Vec<_> = acceptance
        .presentation_contexts
        .iter()
        .map(|context| context.reason.clone())
        .collect();
    assert_eq!(
        verdicts,
        [Acceptance, Acceptance, AbstractSyntaxNotSupported]
    );
}

#[test]
fn a_stranger_and_a_wrong_number_are_rejected() {
    let allow = vec![AllowedPeer {
        ae_title: "CT1".to_owned(),
        address: "127.0.0.1".parse().unwrap(),
    }];
    let config = ScpConfig {
        allow,
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 8);
    for (calling, called, reason) in [("CT2", "TEZ", 3), ("CT1", "PACS", 7)] {
        let mut client = provider.connect();
        client.send(&request(calling, called));
        let rejection = bytes_of(&Pdu::AssociationRJ(client.expect_rejection()));
        // Result 1: permanent; source 1: service user (PS3.8 table 9-21).
        assert_eq!(rejection[7..10], [1, 1, reason]);
    }
}

#[test]
fn beyond_the_most_associations_the_next_is_rejected_for_now() {
    let config = ScpConfig {
        associations_max: 1,
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 8);
    let first = provider.associate();
    let mut second = provider.connect();
    second.send(&request("CT1", "TEZ"));
    let rejection = bytes_of(&Pdu::AssociationRJ(second.expect_rejection()));
    // Transient, service provider (presentation), local limit exceeded.
    assert_eq!(rejection[7..10], [2, 3, 2]);
    first.release();
}

#[test]
fn what_is_no_association_request_is_aborted() {
    let provider = Provider::start();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &echo_bytes(1),
        &[1, 0, 0, 0, 0, 4, 0, 1, 0, 0],
    ] {
        let mut client = provider.connect();
        client.send_bytes(bytes);
        client.expect_abort();
    }
}

#[test]
fn an_association_request_that_does_not_come_is_not_waited_for() {
    let config = ScpConfig {
        request_seconds_max: 1,
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 8);
    provider.connect().expect_abort();
}

#[test]
fn bytes_sent_right_behind_the_request_are_not_lost() {
    let provider = Provider::start();
    let mut client = provider.connect();
    let mut bytes = bytes_of(&request("CT1", "TEZ"));
    bytes.extend(echo_bytes(1));
    bytes.extend(store_bytes(2, "1.2.34", &[7; 5000]));
    bytes.extend(echo_bytes(3));
    bytes.extend(bytes_of(&Pdu::ReleaseRQ));
    client.send_bytes(&bytes);
    assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
    assert_eq!(client.response(), (0x8030, 1, 0));
    assert_eq!(client.response(), (0x8001, 2, 0));
    assert_eq!(client.response(), (0x8030, 3, 0));
    assert_eq!(client.receive(), Some(Pdu::ReleaseRP));
    assert_eq!(provider.stored_files(), 1);
}

#[test]
fn fragments_of_any_cut_are_joined() {
    use PDataValueType::{Command, Data};
    let mut provider = Provider::start();
    let mut client = provider.associate();
    let set = command(0x0001, 5, Some("1.2.34"));
    let (one, two) = set.split_at(11);
    let piece = |kind, is_last, data: &[u8]| fragment(CT_CONTEXT, kind, is_last, data);
    let mut bytes = pdata(vec![piece(Command, false, one), piece(Command, false, b"")]);
    // The rest of the command and the start of the data set in one PDU; then one without bytes.
    bytes.extend(pdata(vec![
        piece(Command, true, two),
        piece(Data, false, b"da"),
    ]));
    bytes.extend(pdata(vec![
        piece(Data, false, b""),
        piece(Data, false, b"ta set"),
    ]));
    bytes.extend(pdata(vec![piece(Data, true, b"")]));
    for byte in bytes {
        client.send_bytes(&[byte]);
    }
    assert_eq!(client.response(), (0x8001, 5, 0));
    let IntakeEvent::Stored { object, .. } = provider.next_event() else {
        panic!("not stored");
    };
    assert!(std::fs::read(object.path).unwrap().ends_with(b"data set"));
}

#[test]
fn a_breach_of_the_protocol_is_aborted_and_the_session_broken() {
    use PDataValueType::{Command, Data};
    let provider = Provider::start();
    let store = command(0x0001, 1, Some("1.2.34"));
    let breaches: [(&str, Vec<u8>); 9] = [
        ("too long a PDU", vec![4, 0, 0x7f, 0xff, 0xff, 0xff]),
        (
            "a PDV beyond its PDU",
            vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 9, 1, 3],
        ),
        ("a PDV too short", vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 1, 1, 3]),
        ("an unknown PDU", vec![0x20, 0, 0, 0, 0, 0]),
        ("a second request", bytes_of(&request("CT1", "TEZ"))),
        ("an unknown context", command_bytes(99, &store)),
        ("a malformed command", command_bytes(CT_CONTEXT, &[1, 2, 3])),
        (
            "an endless command",
            command_bytes(CT_CONTEXT, &vec![0; 17 << 10]),
        ),
        (
            "data within a command",
            pdata(vec![
                fragment(CT_CONTEXT, Command, false, &store),
                fragment(CT_CONTEXT, Data, true, b"x"),
            ]),
        ),
    ];
    for (what, bytes) in breaches {
        let mut client = provider.associate();
        client.send_bytes(&bytes);
        let pdu = client.receive();
        assert!(matches!(pdu, Some(Pdu::AbortRQ { .. })), "{what}: {pdu:?}");
    }
}

#[test]
fn an_abort_within_an_object_loses_only_that() {
    let mut provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", b"whole"), 0);
    let bytes = store_bytes(2, "1.2.36", &[1; 4000]);
    client.send_bytes(&bytes[..bytes.len() - 100]);
    drop(client);
    assert!(matches!(provider.next_event(), IntakeEvent::Stored { .. }));
    assert!(matches!(
        provider.next_event(),
        IntakeEvent::SessionBroken { .. }
    ));
    assert_eq!(provider.stored_files(), 1);
    assert_eq!(walk(&provider.folder.path().join("incoming")).len(), 0);
}

#[test]
fn refused_objects_have_their_status_and_the_association_goes_on() {
    let provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", &vec![0; 200_000]), 0);
    assert_eq!(client.store(2, "not a uid ", b"x"), 0x0117);
    assert_eq!(client.store(3, "1.2.36", b""), 0xC000);
    // Beyond the limit of an object, in PDUs that are each within theirs.
    let set = command(0x0001, 4, Some("1.2.38"));
    let mut bytes = command_bytes(CT_CONTEXT, &set);
    for index in 0..9 {
        let piece = fragment(
            CT_CONTEXT,
            PDataValueType::Data,
            index == 8,
            &vec![0; 200_000],
        );
        bytes.extend(pdata(vec![piece]));
    }
    client.send_bytes(&bytes);
    assert_eq!(client.response(), (0x8001, 4, 0xA700));
    // C-FIND.
    client.send_bytes(&command_bytes(CT_CONTEXT, &command(0x0020, 5, None)));
    assert_eq!(client.response(), (0x8020, 5, 0x0211));
    // C-STORE through the context of verification.
    let set = command(0x0001, 6, Some("1.2.40"));
    let mut bytes = command_bytes(VERIFICATION_CONTEXT, &set);
    let body = fragment(VERIFICATION_CONTEXT, PDataValueType::Data, true, b"x");
    bytes.extend(pdata(vec![body]));
    client.send_bytes(&bytes);
    assert_eq!(client.response(), (0x8001, 6, 0x0122));
    assert_eq!(client.store(7, "1.2.42", b"fine again"), 0);
    client.release();
    assert_eq!(provider.stored_files(), 2);
}

#[test]
fn a_full_disk_is_out_of_resources() {
    let limits = StoreLimits {
        object_bytes_max: 1 << 20,
        free_bytes_reserve: u64::MAX,
    };
    let provider = Provider::start_with_limits(ScpConfig::default(), 8, limits);
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", b"body"), 0xA700);
    client.send_bytes(&echo_bytes(2));
    assert_eq!(client.response(), (0x8030, 2, 0));
}

#[test]
fn an_assembly_that_is_behind_is_out_of_resources_until_it_catches_up() {
    let mut provider = Provider::start_with(ScpConfig::default(), 2);
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", b"one"), 0);
    assert_eq!(client.store(2, "1.2.36", b"two"), 0xA700);
    assert!(matches!(provider.next_event(), IntakeEvent::Stored { .. }));
    assert_eq!(client.store(3, "1.2.36", b"two"), 0);
}

#[test]
fn four_senders_at_once_lose_nothing() {
    let mut provider = Provider::start();
    std::thread::scope(|scope| {
        for sender in 0..4_u16 {
            let mut client = provider.associate();
            scope.spawn(move || {
                for object in 0..10_u16 {
                    let instance = format!("1.2.{}", 1000 + sender * 100 + object);
                    let status = client.store(object, &instance, instance.as_bytes());
                    assert_eq!(status, 0);
                }
                client.release();
            });
        }
    });
    let events: Vec<_> = (0..44).map(|_| provider.next_event()).collect();
    let finished = |event: &&IntakeEvent| matches!(event, IntakeEvent::SessionFinished { .. });
    assert_eq!(events.iter().filter(finished).count(), 4);
    assert_eq!(provider.stored_files(), 40);
}

#[test]
fn a_stop_ends_idle_associations_and_serving() {
    let provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", b"body"), 0);
    provider.stop.send(true).unwrap();
    let source = AbortRQSource::ServiceUser;
    assert_eq!(client.receive(), Some(Pdu::AbortRQ { source }));
    drop(client);
    provider.runtime.block_on(provider.served).unwrap().unwrap();
}

#[test]
fn a_stop_lets_the_object_in_flight_end() {
    let provider = Provider::start();
    let mut client = provider.associate();
    let bytes = store_bytes(1, "1.2.34", &[5; 9000]);
    let (first, second) = bytes.split_at(bytes.len() - 4000);
    client.send_bytes(first);
    while walk(&provider.folder.path().join("incoming")).is_empty() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    provider.stop.send(true).unwrap();
    // Longer than a waiting read takes to look for a stop.
    std::thread::park_timeout(Duration::from_millis(300));
    client.send_bytes(second);
    assert_eq!(client.response(), (0x8001, 1, 0));
    assert!(matches!(client.receive(), Some(Pdu::AbortRQ { .. })));
    assert_eq!(provider.stored_files(), 1);
}

#[test]
fn impossible_settings_do_not_serve() {
    let config = ScpConfig {
        ae_title: String::new(),
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 8);
    let error = provider
        .runtime
        .block_on(provider.served)
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn an_address_off_the_list_is_closed_before_anything_is_read() {
    let mut config = ScpConfig::default();
    config.allow[0].address = "127.0.0.3".parse().unwrap();
    let provider = Provider::start_with(config, 64);
    assert_eq!(provider.connect_from("127.0.0.2").receive(), None);
    provider.associate_from("127.0.0.3").release();
}

#[test]
fn silent_connections_of_some_hosts_do_not_shut_out_another() {
    let config = ScpConfig {
        associations_max: 4,
        associations_per_address_max: 2,
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 64);
    let silent: Vec<Client> = (0..48)
        .map(|number| provider.connect_from(["127.0.0.2", "127.0.0.4"][number % 2]))
        .collect();
    let mut honest = provider.associate_from("127.0.0.3");
    assert_eq!(honest.store(1, "1.2.34", b"data set"), 0);
    honest.release();
    drop(silent);
}

#[test]
fn one_address_has_its_associations_and_is_told_that_it_has_no_more() {
    let config = ScpConfig {
        associations_per_address_max: 1,
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 64);
    let held = provider.associate_from("127.0.0.2");
    let mut second = provider.connect_from("127.0.0.2");
    second.send(&request("CT1", "TEZ"));
    let expected = Rejection::local_limit_exceeded().pdu;
    assert_eq!(second.expect_rejection(), expected);
    provider.associate_from("127.0.0.3").release();
    held.release();
}

/// Sends `bytes` one by one until the provider no longer takes them, then reads what it said.
fn dribble(client: &mut Client, bytes: &[u8]) {
    let mut mouth = client.socket.try_clone().unwrap();
    let bytes = bytes.to_vec();
    let dribbling = std::thread::spawn(move || {
        let (_never, clock) = std::sync::mpsc::channel::<()>();
        for byte in bytes {
            clock.recv_timeout(Duration::from_millis(30)).unwrap_err();
            if mouth.write_all(&[byte]).is_err() {
                break;
            }
        }
    });
    client.expect_abort();
    dribbling.join().unwrap();
}

#[test]
fn an_object_that_comes_byte_by_byte_is_cut_off_and_an_honest_sender_is_served_meanwhile() {
    let config = ScpConfig {
        idle_seconds_max: 1,
        object_bytes_per_second_min: 1_000,
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 64);
    let mut slow = provider.associate_from("127.0.0.2");
    let set = command(0x0001, 1, Some("1.2.34"));
    slow.send_bytes(&command_bytes(CT_CONTEXT, &set));
    let data = fragment(CT_CONTEXT, PDataValueType::Data, true, &[0; 400]);
    let bytes = pdata(vec![data]);
    slow.send_bytes(&bytes[..1]);
    let mut honest = provider.associate_from("127.0.0.3");
    assert_eq!(honest.store(1, "1.2.35", b"data set"), 0);
    honest.release();
    dribble(&mut slow, &bytes[1..]);
    assert_eq!(provider.stored_files(), 1);
}

#[test]
fn a_command_set_that_comes_byte_by_byte_is_cut_off() {
    let config = ScpConfig {
        idle_seconds_max: 1,
        object_bytes_per_second_min: 0,
        ..ScpConfig::default()
    };
    let provider = Provider::start_with(config, 64);
    let mut slow = provider.associate();
    dribble(&mut slow, &echo_bytes(7));
}
