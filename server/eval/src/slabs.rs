//! Studies as the slabs that a network sees, in Hounsfield units, for training one.
//!
//! Training reads what the shipped path wrote, so that there is one definition of the geometry.
//! Only the card's windows remain to be cut, and the sidecar names them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use ndarray::{Array4, Axis};
use pipeline::decode::Decoding;
use pipeline::instance::Instance;
use pipeline::limits::Limits;
use pipeline::prepare::{InputContract, ModelInput, Window, prepare_centred};
use pipeline::study::StudyScans;
use pipeline::uid::Uid;
use serde::Serialize;

/// All that a scanner writes becomes one channel, from which Hounsfield units come back.
const WHOLE_RANGE: Window = Window {
    low_hu: -1024.0,
    high_hu: 3071.0,
};

/// What stands beside the slabs.
#[derive(Serialize)]
struct Sidecar<'a> {
    study_uid: &'a str,
    contract: &'a InputContract,
    /// Centre of the first slab's first pixel, mm.
    origin_mm: [f64; 3],
    /// Unit vectors along columns, rows and slabs.
    directions: [[f64; 3]; 3],
    /// Between centres along columns, rows and slabs, mm.
    spacing_mm: [f64; 3],
    /// One for each slab: SOP Instance UID of the nearest received slice.
    nearest_slices: Vec<&'a str>,
    incomplete: Vec<String>,
}

/// A study to write.
#[derive(Clone, Copy, Debug)]
pub struct SlabStudy<'a> {
    /// Study Instance UID.
    pub study_uid: &'a Uid,
    /// Names its files.
    pub file_uid: &'a Uid,
    /// Its objects.
    pub instances: &'a [Instance],
}

/// Writes `FILE_UID.npy` (float32, slabs from feet to head, rows to the back, columns to the
/// patient's left, HU) and `FILE_UID.json` beside it; gives the reason if the study cannot be
/// analysed.
///
/// # Errors
///
/// If a file cannot be written.
pub fn write_study(
    out: &Path,
    study: SlabStudy<'_>,
    contract: &InputContract,
    limits: &Limits,
) -> anyhow::Result<Option<String>> {
    let mut scans = StudyScans::of(study.instances, Decoding::afresh(limits));
    // A network learns from the scan that suits best.
    let first = scans.next_scan();
    let incomplete = first.as_ref().map(|scan| scan.incomplete.clone());
    let head = match first.map_or_else(|| Err(scans.no_usable_series()), |scan| scan.volume) {
        Ok(head) => head,
        Err(reasons) => {
            let texts: Vec<String> = reasons.into_iter().map(|reason| reason.text).collect();
            return Ok(Some(texts.join(" ")));
        }
    };
    let whole = InputContract {
        neighbours: 0,
        windows: vec![WHOLE_RANGE],
        ..contract.clone()
    };
    let input = match prepare_centred(&head.volume, &whole, head.facts.centre_mm) {
        Ok(input) => input,
        Err(reason) => return Ok(Some(reason.text)),
    };
    let incomplete = incomplete.unwrap_or_default();
    let incomplete = incomplete.into_iter().map(|reason| reason.text);
    let sidecar = Sidecar {
        study_uid: study.study_uid.as_str(),
        contract,
        origin_mm: input.grid.origin_mm.0,
        directions: input.grid.directions,
        spacing_mm: input.grid.spacing_mm,
        nearest_slices: (0..input.tensor.len_of(Axis(0)))
            .filter_map(|slab| input.source_of_slab(slab, &head.volume))
            .map(|source| source.sop_instance_uid.as_str())
            .collect(),
        incomplete: incomplete.collect(),
    };
    // A UID is digits and dots, so it cannot lead out of the folder.
    let path = |extension: &str| out.join(format!("{}.{extension}", study.file_uid));
    write_slabs(&path("npy"), &input).context("cannot write slabs")?;
    let json = serde_json::to_vec_pretty(&sidecar)?;
    fs::write(path("json"), json).context("cannot write a sidecar")?;
    Ok(None)
}

fn write_slabs(path: &Path, input: &ModelInput) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    write_npy(&mut file, &input.tensor)?;
    file.flush()
}

/// `NumPy`'s format 1.0: magic, version, length of the header, header, values.
fn write_npy(out: &mut impl Write, whole_range: &Array4<f32>) -> io::Result<()> {
    let (slabs, _, rows, columns) = whole_range.dim();
    let fields = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({slabs}, {rows}, {columns}), }}"
    );
    // Ten bytes before it and one line end after it; values begin at a multiple of 64.
    let header = format!("{fields:<117}\n");
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&118_u16.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let width_hu = WHOLE_RANGE.high_hu - WHOLE_RANGE.low_hu;
    for part in whole_range {
        out.write_all(&(part * width_hu + WHOLE_RANGE.low_hu).to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use models::card::ModelCard;
    use pipeline::header::read_object;

    use super::*;

    /// Makes the fixture and writes it; gives what was left out and the folder's study.
    fn written(name: &str, folder: &Path) -> (Option<String>, Uid) {
        let limits = Limits::default();
        fixtures::make(name, &folder.join("dicom")).unwrap();
        let instances: Vec<Instance> = fs::read_dir(folder.join("dicom"))
            .unwrap()
            .map(|entry| read_object(&entry.unwrap().path(), &limits).unwrap())
            .collect();
        let uid = instances[0].study_uid.clone();
        let study = SlabStudy {
            study_uid: &uid,
            file_uid: &uid,
            instances: &instances,
        };
        let contract = ModelCard::built_in().unwrap().input.contract;
        let left_out = write_study(folder, study, &contract, &limits).unwrap();
        (left_out, uid)
    }

    #[test]
    fn a_fixture_is_written_as_an_array_of_hounsfield_units_with_its_slices() {
        let folder = tempfile::tempdir().unwrap();
        let (left_out, uid) = written("small_head", folder.path());
        assert_eq!(left_out, None);
        let path = |extension: &str| folder.path().join(format!("{uid}.{extension}"));
        let bytes = fs::read(path("npy")).unwrap();
        assert_eq!(bytes.len(), 128 + 4 * 32 * 256 * 256);
        let header = String::from_utf8_lossy(&bytes[10..128]);
        assert!(header.contains("'shape': (32, 256, 256)"), "{header}");
        assert!(header.ends_with('\n'), "{header}");
        let hounsfield = |slab: usize, row: usize, column: usize| {
            let at = 128 + 4 * ((slab * 256 + row) * 256 + column);
            f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
        };
        // Air in the corner, and brain beside the falx in the middle of the head.
        assert!((hounsfield(16, 0, 0) + 1000.0).abs() < 15.0);
        let brain = hounsfield(20, 128, 160);
        assert!((15.0..50.0).contains(&brain), "{brain} HU");
        let sidecar: serde_json::Value =
            serde_json::from_slice(&fs::read(path("json")).unwrap()).unwrap();
        assert_eq!(sidecar["nearest_slices"].as_array().unwrap().len(), 32);
        assert_eq!(sidecar["spacing_mm"][2], 5.0);
    }

    #[test]
    fn a_study_without_a_head_is_left_out_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (why, _) = written("chest", folder.path());
        assert!(why.is_some_and(|why| !why.is_empty()));
    }
}
