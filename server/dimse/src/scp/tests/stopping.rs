//! The end of the service.

use std::time::Duration;

use dicom_ul::pdu::{AbortRQSource, Pdu};

use super::client::store_bytes;
use super::{Provider, Told};

#[test]
fn a_stop_ends_idle_associations_and_serving() {
    let provider = Provider::start();
    let mut client = provider.associate();
    assert_eq!(client.store(1, "1.2.34", b"body"), 0);
    provider.stop.send(true).unwrap();
    let source = AbortRQSource::ServiceUser;
    assert_eq!(client.receive(), Some(Pdu::AbortRQ { source }));
    drop(client);
    provider.runtime.block_on(provider.served).unwrap();
}

#[test]
fn a_stop_lets_the_object_in_flight_end() {
    let provider = Provider::start();
    let mut client = provider.associate();
    let bytes = store_bytes(1, "1.2.34", &[5; 9000]);
    let (first, second) = bytes.split_at(bytes.len() - 4000);
    client.send_bytes(first);
    while !matches!(provider.next(), Told::Begun(_)) {}
    provider.stop.send(true).unwrap();
    // Longer than a waiting read takes to look for a stop.
    std::thread::park_timeout(Duration::from_millis(300));
    client.send_bytes(second);
    assert_eq!(client.stored(1), 0);
    assert!(matches!(client.receive(), Some(Pdu::AbortRQ { .. })));
    assert_eq!(provider.stored().len(), 1);
}
