//! A client that sends whatever bytes a test wants.

use std::io::{Read, Write};
use std::net::TcpStream as Socket;
use std::time::Duration;

use dicom_dictionary_std::uids;
use dicom_ul::pdu::{
    AbortRQSource, AssociationRJ, AssociationRQ, PDataValue, PDataValueType, Pdu,
    PresentationContextProposed,
};

pub(super) const VERIFICATION_CONTEXT: u8 = 1;
pub(super) const CT_CONTEXT: u8 = 3;

/// What a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// Command Field.
    pub(super) field: u16,
    /// Message ID Being Responded To.
    pub(super) message_id: u16,
    /// Status.
    pub(super) status: u16,
}

pub(super) struct Client {
    pub(super) socket: Socket,
    received: Vec<u8>,
}

impl Client {
    pub(super) fn new(socket: Socket) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            socket,
            received: Vec::new(),
        }
    }

    pub(super) fn send(&mut self, pdu: &Pdu) {
        self.send_bytes(&bytes_of(pdu));
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next PDU; `None` once the provider has hung up.
    pub(super) fn receive(&mut self) -> Option<Pdu> {
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

    /// Whether nothing has come that was not received.
    pub(super) fn hears_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let peeked = self.socket.peek(&mut [0]);
        self.socket.set_nonblocking(false).unwrap();
        self.received.is_empty() && peeked.is_err()
    }

    /// The next response.
    pub(super) fn response(&mut self) -> Answered {
        let Some(Pdu::PData { data }) = self.receive() else {
            panic!("no response");
        };
        assert!(data[0].is_last && data[0].value_type == PDataValueType::Command);
        let number = |element| element_u16(&data[0].data, element).unwrap();
        Answered {
            field: number(0x0100),
            message_id: number(0x0120),
            status: number(0x0900),
        }
    }

    /// The status of the next response, which answers the C-STORE `message_id`.
    pub(super) fn stored(&mut self, message_id: u16) -> u16 {
        let answered = self.response();
        assert_eq!((answered.field, answered.message_id), (0x8001, message_id));
        answered.status
    }

    /// Asserts that the next response confirms the C-ECHO `message_id`.
    pub(super) fn expect_echo(&mut self, message_id: u16) {
        let expected = Answered {
            field: 0x8030,
            message_id,
            status: 0,
        };
        assert_eq!(self.response(), expected);
    }

    pub(super) fn store(&mut self, message_id: u16, instance: &str, body: &[u8]) -> u16 {
        self.send_bytes(&store_bytes(message_id, instance, body));
        self.stored(message_id)
    }

    pub(super) fn release(mut self) {
        self.send(&Pdu::ReleaseRQ);
        assert_eq!(self.receive(), Some(Pdu::ReleaseRP));
    }

    pub(super) fn expect_abort(&mut self) {
        let pdu = self.receive();
        let from_provider =
            |source: &AbortRQSource| matches!(source, AbortRQSource::ServiceProvider(_));
        assert!(
            matches!(&pdu, Some(Pdu::AbortRQ { source }) if from_provider(source)),
            "{pdu:?}"
        );
    }

    pub(super) fn expect_rejection(&mut self) -> AssociationRJ {
        match self.receive() {
            Some(Pdu::AssociationRJ(rejection)) => rejection,
            pdu => panic!("no rejection but {pdu:?}"),
        }
    }
}

pub(super) fn bytes_of(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    dicom_ul::write_pdu(&mut bytes, pdu).unwrap();
    bytes
}

pub(super) fn request(calling: &str, called: &str) -> Pdu {
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

/// A command set; `instance` has an even length.
pub(super) fn command(field: u16, message_id: u16, instance: Option<&str>) -> Vec<u8> {
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

pub(super) fn fragment(
    context: u8,
    kind: PDataValueType,
    is_last: bool,
    data: &[u8],
) -> PDataValue {
    PDataValue {
        presentation_context_id: context,
        value_type: kind,
        is_last,
        data: data.to_vec(),
    }
}

pub(super) fn pdata(values: Vec<PDataValue>) -> Vec<u8> {
    bytes_of(&Pdu::PData { data: values })
}

pub(super) fn command_bytes(context: u8, set: &[u8]) -> Vec<u8> {
    pdata(vec![fragment(context, PDataValueType::Command, true, set)])
}

pub(super) fn echo_bytes(message_id: u16) -> Vec<u8> {
    command_bytes(VERIFICATION_CONTEXT, &command(0x0030, message_id, None))
}

pub(super) fn store_bytes(message_id: u16, instance: &str, body: &[u8]) -> Vec<u8> {
    store_bytes_in(CT_CONTEXT, message_id, instance, body)
}

/// A C-STORE request through any context.
pub(super) fn store_bytes_in(context: u8, message_id: u16, instance: &str, body: &[u8]) -> Vec<u8> {
    let set = command(0x0001, message_id, Some(instance));
    let mut bytes = command_bytes(context, &set);
    let data = fragment(context, PDataValueType::Data, true, body);
    bytes.extend(pdata(vec![data]));
    bytes
}
