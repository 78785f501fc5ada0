//! Requests, acceptances, rejections and the release.

use dicom_ul::pdu::{Pdu, PresentationContextResultReason};

use super::client::{bytes_of, echo_bytes, request, store_bytes, store_bytes_in};
use super::{Provider, Told, options};

#[test]
fn an_echo_is_answered_with_its_own_id_and_begins_nothing() {
    let provider = Provider::start();
    let mut client = provider.associate();
    for message_id in [7, 65_535, 0] {
        client.send_bytes(&echo_bytes(message_id));
        client.expect_echo(message_id);
    }
    client.release();
    assert!(provider.told.try_recv().is_err());
}

#[test]
fn titles_padded_with_nuls_are_the_same_titles_and_go_on_without_padding() {
    let provider = Provider::start();
    let mut bytes = bytes_of(&request("CT1", "TEZ"));
    for (at, title) in [(10, b"TEZ"), (26, b"CT1")] {
        bytes[at..at + 16].fill(0);
        bytes[at..at + 3].copy_from_slice(title);
    }
    let mut client = provider.connect();
    client.send_bytes(&bytes);
    assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
    assert_eq!(client.store(1, "1.2.34", b"data set"), 0);
    let Told::Session(caller) = provider.next() else {
        panic!("no session");
    };
    assert_eq!(caller.calling_ae_title, "CT1");
    assert_eq!(caller.called_ae_title, "TEZ");
    assert!(caller.address.is_loopback());
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
        client.send_bytes(&store_bytes_in(id, 1, "1.2.34", b"data set"));
        assert_eq!(client.stored(1), 0, "{id}");
        assert_eq!(provider.stored().len(), 1);
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
    let provider = Provider::start_for(options(), |memory| {
        memory.admitted_title = Some("CT1".to_owned());
    });
    for (calling, called, reason) in [("CT2", "TEZ", 3), ("CT1", "PACS", 7)] {
        let mut client = provider.connect();
        client.send(&request(calling, called));
        let rejection = bytes_of(&Pdu::AssociationRJ(client.expect_rejection()));
        // Result 1: permanent; source 1: service user (PS3.8 table 9-21).
        assert_eq!(rejection[7..10], [1, 1, reason]);
    }
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
    client.expect_echo(1);
    assert_eq!(client.stored(2), 0);
    client.expect_echo(3);
    assert_eq!(client.receive(), Some(Pdu::ReleaseRP));
    assert_eq!(provider.stored().len(), 1);
}

#[test]
fn the_service_hears_of_the_release_before_the_peer() {
    let provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", b"whole"), 0);
    client.release();
    assert_eq!(provider.told.try_iter().last(), Some(Told::Finished));
}
