//! Our own user against our own provider.

use std::collections::BTreeSet;
use std::io::{self, Read};

use dicom_dictionary_std::uids;
use pipeline::uid::Uid;

use super::{Provider, Told};
use crate::scu::{
    AssociateError, Destination, ExchangeError, ObjectHead, Proposal, ScuAssociation,
};
use crate::status::Status;

fn destination(provider: &Provider) -> Destination {
    Destination {
        address: provider.address.to_string(),
        called_ae: "TEZ".to_owned(),
        calling_ae: "CT1".to_owned(),
    }
}

fn proposal(sop_class: &str) -> Proposal {
    Proposal {
        sop_class_uid: Uid::new(sop_class).unwrap(),
        transfer_syntax_uid: Uid::new(uids::JPEG2000_LOSSLESS).unwrap(),
    }
}

fn ct() -> ObjectHead {
    ObjectHead {
        proposal: proposal(uids::CT_IMAGE_STORAGE),
        sop_instance_uid: Uid::new("1.2.34").unwrap(),
    }
}

fn open(provider: &Provider) -> ScuAssociation {
    let proposals = BTreeSet::from([ct().proposal, proposal(uids::STORAGE_COMMITMENT_PUSH_MODEL)]);
    ScuAssociation::open(&destination(provider), &proposals).unwrap()
}

#[test]
fn objects_of_any_length_arrive_as_they_were_sent() {
    let provider = Provider::start();
    let mut association = open(&provider);
    // About one fragment and about two, of the 128 KiB that are written at most.
    let lengths = [1, 131_065, 131_066, 131_067, 262_132, 262_133, 500_000];
    for length in lengths {
        let data_set: Vec<u8> = (0..=250_u8).cycle().take(length).collect();
        let answer = association.store(&ct(), data_set.as_slice()).unwrap();
        assert_eq!(answer.status, Status::SUCCESS);
        assert_eq!(provider.stored(), [data_set], "{length} bytes");
    }
    association.release().unwrap();
    assert_eq!(provider.next(), Told::Finished);
}

#[test]
fn a_refusal_is_an_answer_with_the_peers_words() {
    let provider = Provider::start();
    let mut association = open(&provider);
    let answer = association
        .store(&ct(), io::repeat(0).take(2 << 20))
        .unwrap();
    assert_eq!(answer.status, Status::OUT_OF_RESOURCES);
    assert_eq!(answer.comment, "too large");
    let answer = association.store(&ct(), &b"fine again"[..]).unwrap();
    assert_eq!(answer.status, Status::SUCCESS);
}

#[test]
fn a_data_set_that_cannot_be_read_to_its_end_is_not_stored() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk failed"))
        }
    }
    let provider = Provider::start();
    let mut association = open(&provider);
    let source = io::repeat(7).take(300_000).chain(Failing);
    let error = association.store(&ct(), source).unwrap_err();
    assert!(matches!(error, ExchangeError::Source(_)), "{error}");
    association.abort(&error);
    assert!(matches!(provider.next(), Told::Session(_)));
    assert!(matches!(provider.next(), Told::Begun(_)));
    assert_eq!(provider.next(), Told::GivenUp);
    assert_eq!(provider.next(), Told::Broken);
}

#[test]
fn only_what_the_peer_takes_is_sent() {
    let provider = Provider::start();
    let mut association = open(&provider);
    assert!(association.takes(&ct().proposal));
    let mut other = ct();
    other.proposal = proposal(uids::STORAGE_COMMITMENT_PUSH_MODEL);
    assert!(!association.takes(&other.proposal));
    let error = association.store(&other, &b"x"[..]).unwrap_err();
    assert!(matches!(error, ExchangeError::NotNegotiated), "{error}");
    let proposals = BTreeSet::from([other.proposal]);
    let nothing = ScuAssociation::open(&destination(&provider), &proposals).unwrap_err();
    assert!(
        matches!(nothing, AssociateError::NothingAccepted),
        "{nothing}"
    );
}

#[test]
fn a_rejection_says_why() {
    let provider = Provider::start();
    let mut elsewhere = destination(&provider);
    elsewhere.called_ae = "PACS".to_owned();
    let proposals = BTreeSet::from([ct().proposal]);
    let error = ScuAssociation::open(&elsewhere, &proposals).unwrap_err();
    assert!(
        matches!(
            error,
            AssociateError::Rejected {
                is_permanent: true,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("called"), "{error}");
}

#[test]
fn a_provider_that_stops_ends_the_association() {
    let provider = Provider::start();
    let mut association = open(&provider);
    provider.stop.send(true).unwrap();
    provider.runtime.block_on(provider.served).unwrap();
    let error = association.store(&ct(), &b"x"[..]).unwrap_err();
    assert!(matches!(error, ExchangeError::Wire(_)), "{error}");
}
