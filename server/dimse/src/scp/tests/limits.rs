//! Limits that keep one sender from taking what all need.

use std::io::Write;
use std::time::Duration;

use dicom_ul::pdu::{PDataValueType, Pdu};

use super::client::{
    CT_CONTEXT, Client, bytes_of, command, command_bytes, echo_bytes, fragment, pdata, request,
};
use super::{Provider, options};
use crate::negotiation::acceptor::Rejection;

#[test]
fn beyond_the_most_associations_the_next_is_rejected_for_now() {
    let mut options = options();
    options.associations_max = 1;
    let provider = Provider::start_with(options);
    let first = provider.associate();
    let mut second = provider.connect();
    second.send(&request("CT1", "TEZ"));
    let rejection = bytes_of(&Pdu::AssociationRJ(second.expect_rejection()));
    // Transient, service provider (presentation), local limit exceeded.
    assert_eq!(rejection[7..10], [2, 3, 2]);
    first.release();
}

#[test]
fn an_association_request_that_does_not_come_is_not_waited_for() {
    let mut options = options();
    options.wire.establish_time_max = Duration::from_secs(1);
    Provider::start_with(options).connect().expect_abort();
}

#[test]
fn an_address_that_is_not_admitted_is_closed_before_anything_is_read() {
    let provider = Provider::start_for(options(), |memory| {
        memory.admitted_address = Some("127.0.0.3".parse().unwrap());
    });
    assert_eq!(provider.connect_from("127.0.0.2").receive(), None);
    provider.associate_from("127.0.0.3").release();
}

#[test]
fn silent_connections_of_some_hosts_do_not_shut_out_another() {
    let mut options = options();
    options.associations_max = 4;
    options.associations_per_address_max = 2;
    let provider = Provider::start_with(options);
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
    let mut options = options();
    options.associations_per_address_max = 1;
    let provider = Provider::start_with(options);
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
    let mut options = options();
    options.wire.idle_time_max = Duration::from_secs(1);
    options.wire.data_set_bytes_per_second_min = 1_000;
    let provider = Provider::start_with(options);
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
    assert_eq!(provider.stored().len(), 1);
}

#[test]
fn a_command_set_that_comes_byte_by_byte_is_cut_off() {
    let mut options = options();
    options.wire.idle_time_max = Duration::from_secs(1);
    options.wire.data_set_bytes_per_second_min = 0;
    let provider = Provider::start_with(options);
    let mut slow = provider.associate();
    dribble(&mut slow, &echo_bytes(7));
}
