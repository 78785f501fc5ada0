//! Whether what is kept of an analysis reads back as it was, and how large it is.

use ndarray::Array3;
use pipeline::volume::PatientPoint;
use proptest::prelude::*;

use super::*;
use crate::findings::{FindingKind, Probability, Side};
use crate::testing::{later, network, run, study};

const KINDS: [FindingKind; 6] = [
    FindingKind::IntracranialHemorrhage,
    FindingKind::IntraparenchymalHemorrhage,
    FindingKind::IntraventricularHemorrhage,
    FindingKind::SubarachnoidHemorrhage,
    FindingKind::SubduralHemorrhage,
    FindingKind::EpiduralHemorrhage,
];

#[test]
fn every_scan_of_a_study_is_kept_and_reads_back_as_it_was() {
    let (_bleed, mut instances) = study("bleed_intraparenchymal_left");
    let (_head, head) = study("head");
    instances.extend(later(&head));
    let analysis = run(&instances, Ok(&mut network(1)));
    let artefacts = &analysis.artefacts;
    assert_eq!(artefacts.scans.len(), 2);
    assert_eq!(artefacts.model, analysis.report.model);
    assert_eq!(artefacts.series, analysis.report.series);
    for (kept, reported) in artefacts.scans.iter().zip(&analysis.report.scans) {
        assert_eq!(kept.series_uids, reported.series_uids);
        let findings = kept.answer.as_ref().unwrap().findings.iter();
        let findings: Vec<Finding> = findings.map(|kept| kept.finding.clone()).collect();
        assert_eq!(findings, reported.findings);
        let sources = &kept.volume.as_ref().unwrap().sources;
        assert_eq!(sources.len(), reported.geometry.as_ref().unwrap().slices);
    }
    let deciding = artefacts.deciding_answer().unwrap();
    assert!(deciding.findings[0].mask.is_some());
    let other = artefacts.scans[1].answer.as_ref().unwrap();
    assert!(other.findings.iter().all(|kept| kept.mask.is_none()));
    assert_eq!(
        &ScanAnswer::of(&analysis.report.findings, &deciding.to_map()),
        deciding
    );
    let back = StudyArtefacts::from_bytes(&artefacts.to_bytes()).unwrap();
    assert_eq!(&back, artefacts);
}

#[test]
fn each_source_says_where_its_slice_lies() {
    let (_folder, instances) = study("tilt");
    let analysis = run(&instances, Ok(&mut network(1)));
    let volume = analysis.artefacts.scans[0].volume.as_ref().unwrap();
    assert_eq!(volume.sources.len(), instances.len());
    for source in &volume.sources {
        let mut instances = instances.iter();
        let instance = instances
            .find(|one| one.sop_instance_uid == source.sop_instance_uid)
            .unwrap();
        assert_eq!(Some(source.position_mm.0), instance.frames[0].position_mm);
    }
}

/// A study with one scan of `slices` slices, 32 slabs and a ball of 30 mL.
fn made(slices: u32) -> StudyArtefacts {
    let grid = Grid {
        origin_mm: PatientPoint([-115.0, -115.0, 3.5]),
        directions: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        spacing_mm: [0.9, 0.9, 5.0],
        size: [256, 256, 32],
    };
    let ball = Array3::from_shape_fn((32, 256, 256), |(slab, row, column)| {
        let squared = |place: usize, middle: f64, mm: f64| ((place as f64 - middle) * mm).powi(2);
        let distance = squared(slab, 16.0, 5.0) + squared(row, 100.0, 0.9);
        distance + squared(column, 90.0, 0.9) < 19.3_f64.powi(2)
    });
    let finding = |kind| Finding {
        kind,
        present: true,
        probability: Probability::new(0.98).unwrap(),
        volume_ml: Some(30.0),
        volume_interval_ml: None,
        shift_mm: None,
        side: Some(Side::Left),
        key_slices: Vec::new(),
    };
    let uid = |last: u32| Uid::new(&format!("1.2.826.0.1.3680043.8.498.{last}")).unwrap();
    let answer = ScanAnswer {
        grid,
        findings: KINDS
            .iter()
            .enumerate()
            .map(|(index, kind)| FindingArtefact {
                finding: finding(*kind),
                slab_scores: (0..32_u8).map(|slab| f32::from(slab) / 37.3).collect(),
                mask: (index < 2).then(|| Mask::of(&ball.view())),
            })
            .collect(),
    };
    let sources = (0..slices).map(|index| SourceSlice {
        sop_instance_uid: uid(1_000_000 + 7919 * index),
        frame_index: 0,
        slice_position: f64::from(index),
        position_mm: PatientPoint([-115.25, -115.25, 0.625 * f64::from(index) - 70.1]),
    });
    let volume = VolumeGeometry {
        grid,
        sources: sources.collect(),
    };
    StudyArtefacts {
        deciding: Some(0),
        scans: vec![ScanArtefacts {
            series_uids: vec![uid(2)],
            volume: Some(volume),
            answer: Some(answer),
        }],
        ..StudyArtefacts::without_scans(&uid(1), Vec::new())
    }
}

#[test]
fn a_study_takes_a_few_kibibytes() {
    for (slices, bytes_max) in [(32, 4 << 10), (300, 8 << 10)] {
        let artefacts = made(slices);
        let bytes = artefacts.to_bytes();
        println!("{slices} slices: {} bytes", bytes.len());
        assert!(
            bytes.len() < bytes_max,
            "{slices} slices: {} bytes",
            bytes.len()
        );
        assert_eq!(StudyArtefacts::from_bytes(&bytes).unwrap(), artefacts);
    }
}

#[test]
fn a_cut_byte_and_a_flipped_one_are_refused() {
    let bytes = made(4).to_bytes();
    for place in (0..bytes.len()).step_by(7) {
        assert!(StudyArtefacts::from_bytes(&bytes[..place]).is_err());
        let mut flipped = bytes.clone();
        flipped[place] ^= 1;
        assert!(StudyArtefacts::from_bytes(&flipped).is_err(), "{place}");
    }
}

#[test]
fn masks_that_do_not_fit_their_grid_are_refused_under_a_seal_that_holds() {
    let mut other = made(4);
    let answer = other.scans[0].answer.as_mut().unwrap();
    answer.grid.size = [255, 256, 32];
    assert_eq!(
        StudyArtefacts::from_bytes(&other.to_bytes()),
        Err(SealError::Damaged)
    );
}

proptest! {
    #[test]
    fn any_mask_is_unpacked_as_it_was(
        (slabs, rows, columns) in (1_usize..4, 1_usize..9, 1_usize..9),
        bits in proptest::collection::vec(any::<bool>(), 256),
    ) {
        let mut bits = bits.into_iter();
        let marked = Array3::from_shape_simple_fn((slabs, rows, columns), || bits.next().unwrap());
        let mask = Mask::of(&marked.view());
        prop_assert_eq!(mask.size(), [slabs, rows, columns]);
        prop_assert_eq!(mask.voxels(), marked);
    }
}
