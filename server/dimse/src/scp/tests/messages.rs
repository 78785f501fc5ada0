//! Command sets and data sets: whole, cut, refused, broken.

use std::sync::Mutex;
use std::sync::mpsc;

use dicom_ul::pdu::{PDataValueType, Pdu};

use super::client::{
    Answered, CT_CONTEXT, VERIFICATION_CONTEXT, bytes_of, command, command_bytes, fragment, pdata,
    request, store_bytes, store_bytes_in,
};
use super::{Provider, Told, options};

#[test]
fn an_object_is_acknowledged_only_once_it_is_committed() {
    let (open, gate) = mpsc::channel();
    let provider = Provider::start_for(options(), |memory| {
        memory.gate = Some(Mutex::new(gate));
    });
    let mut client = provider.associate();
    client.send_bytes(&store_bytes(9, "1.2.34", b"data set"));
    assert!(matches!(provider.next(), Told::Session(_)));
    assert!(matches!(provider.next(), Told::Begun(_)));
    assert_eq!(provider.next(), Told::Whole);
    assert!(client.hears_nothing());
    open.send(()).unwrap();
    assert_eq!(client.stored(9), 0);
    let Told::Stored { object, data_set } = provider.next() else {
        panic!("acknowledged, and not stored");
    };
    assert_eq!(object.sop_instance_uid.as_str(), "1.2.34");
    assert_eq!(object.sop_class_uid.as_str(), "1.2.840.10008.5.1.4.1.1.2");
    assert_eq!(object.transfer_syntax_uid.as_str(), "1.2.840.10008.1.2.1");
    assert_eq!(data_set, b"data set");
}

#[test]
fn fragments_of_any_cut_are_joined() {
    use PDataValueType::{Command, Data};
    let provider = Provider::start();
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
    assert_eq!(client.stored(5), 0);
    assert_eq!(provider.stored(), [b"data set"]);
}

#[test]
fn a_breach_of_the_protocol_is_aborted() {
    use PDataValueType::{Command, Data};
    let provider = Provider::start();
    let store = command(0x0001, 1, Some("1.2.34"));
    let breaches: [(&str, Vec<u8>); 11] = [
        ("too long a PDU", vec![4, 0, 0x7f, 0xff, 0xff, 0xff]),
        (
            "a PDV beyond its PDU",
            vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 9, 1, 3],
        ),
        ("a PDV too short", vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 1, 1, 3]),
        ("an unknown PDU", vec![0x20, 0, 0, 0, 0, 0]),
        ("a second request", bytes_of(&request("CT1", "TEZ"))),
        ("a release nobody asked for", bytes_of(&Pdu::ReleaseRP)),
        ("an unknown context", command_bytes(99, &store)),
        ("a malformed command", command_bytes(CT_CONTEXT, &[1, 2, 3])),
        (
            "a response to nothing",
            command_bytes(CT_CONTEXT, &command(0x8001, 1, None)),
        ),
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
    let provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", b"whole"), 0);
    let bytes = store_bytes(2, "1.2.36", &[1; 4000]);
    client.send_bytes(&bytes[..bytes.len() - 100]);
    drop(client);
    let told: Vec<Told> = (0..7).map(|_| provider.next()).collect();
    assert!(matches!(
        told[..],
        [
            Told::Session(_),
            Told::Begun(_),
            Told::Whole,
            Told::Stored { .. },
            Told::Begun(_),
            Told::GivenUp,
            Told::Broken
        ]
    ));
}

#[test]
fn refused_objects_have_their_status_and_the_association_goes_on() {
    let provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", &vec![0; 200_000]), 0);
    assert_eq!(client.store(2, "not a uid ", b"x"), 0x0117);
    assert_eq!(client.store(3, "1.2.36", b""), 0xC000);
    // Beyond what the service takes, in PDUs that are each within their limit.
    let set = command(0x0001, 4, Some("1.2.38"));
    let mut bytes = command_bytes(CT_CONTEXT, &set);
    for index in 0..9 {
        let (is_last, data) = (index == 8, vec![0; 200_000]);
        let piece = fragment(CT_CONTEXT, PDataValueType::Data, is_last, &data);
        bytes.extend(pdata(vec![piece]));
    }
    client.send_bytes(&bytes);
    assert_eq!(client.stored(4), 0xA700);
    client.send_bytes(&store_bytes_in(VERIFICATION_CONTEXT, 6, "1.2.40", b"x"));
    assert_eq!(client.stored(6), 0x0122);
    assert_eq!(client.store(7, "1.2.42", b"fine again"), 0);
    client.release();
    assert_eq!(provider.stored().len(), 2);
}

#[test]
fn an_operation_that_is_not_provided_is_answered_so() {
    let provider = Provider::start();
    let mut client = provider.associate();
    // C-FIND.
    client.send_bytes(&command_bytes(CT_CONTEXT, &command(0x0020, 5, None)));
    let expected = Answered {
        field: 0x8020,
        message_id: 5,
        status: 0x0211,
    };
    assert_eq!(client.response(), expected);
    client.release();
}
