//! One study by every road gives one and the same result.
#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::peers::{self, Orthanc};
use tests::service::{Tez, findings_json, shared_data, workspace_root};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");

/// A road takes the running service, the study's folder and a scratch folder.
type Road = fn(&Tez, &Path, &Path) -> anyhow::Result<()>;

const ROADS: [(&str, Road); 5] = [
    ("DCMTK storescu", |tez, study, _| {
        peers::storescu(tez.dicom_port(), study).map(drop)
    }),
    ("pynetdicom", |tez, study, _| {
        python("send_pynetdicom.py", tez.dicom_port(), study)
    }),
    ("Orthanc forwarding", |tez, study, scratch| {
        Orthanc::start(scratch, tez.dicom_port())?.forward(study)
    }),
    ("curl with a zip", curl_zip),
    ("STOW by dicomweb-client", |tez, study, _| {
        python(
            "stow_dicomweb_client.py",
            &format!("{}/dicom-web", tez.http),
            study,
        )
    }),
];

fn python(script: &str, target: &str, study: &Path) -> anyhow::Result<()> {
    let script = workspace_root().join("tests/peers").join(script);
    peers::run(
        Command::new(peers::python()?)
            .arg(script)
            .arg(target)
            .arg(study),
    )
    .map(drop)
}

fn curl_zip(tez: &Tez, study: &Path, scratch: &Path) -> anyhow::Result<()> {
    let zip = scratch.join("study.zip");
    let make = "import shutil, sys; shutil.make_archive(sys.argv[1][:-4], 'zip', sys.argv[2])";
    peers::run(
        Command::new(peers::python()?)
            .args(["-c", make])
            .arg(&zip)
            .arg(study),
    )?;
    let form = format!("file=@{}", zip.display());
    let url = format!("{}/api/v1/uploads", tez.http);
    peers::run(Command::new("curl").args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "-F",
        &form,
        &url,
    ]))
    .map(drop)
}

fn triage(study: &Path) -> Value {
    let output = peers::run(
        Command::new(TEZ)
            .args(["triage", "--json"])
            .arg(study)
            .current_dir(workspace_root()),
    )
    .expect("tez triage");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "one study, one line: {text}");
    serde_json::from_str(text.trim()).expect("JSON")
}

/// Sends `study` by every road, each to a service of its own, and holds the results together.
fn every_road(study: &Path, study_uid: &str) -> Value {
    let mut expected = triage(study);
    expected
        .as_object_mut()
        .expect("an object")
        .remove("timing_ms");
    for (name, road) in ROADS {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let tez = Tez::start(Path::new(TEZ), scratch.path(), "").expect("tez starts");
        road(&tez, study, scratch.path())
            .unwrap_or_else(|error| panic!("{name}: {error:#}\n{}", tez.log()));
        let report = tez
            .report(study_uid, 60)
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(findings_json(&report), expected, "{name}");
        tez.stop().expect("tez stops");
    }
    expected
}

fn study_uid(folder: &Path) -> String {
    triage(folder)["study_uid"]
        .as_str()
        .expect("a UID")
        .to_owned()
}

#[test]
fn a_synthetic_bleed_by_every_road_gives_one_result() {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder: PathBuf = scratch.path().join("study");
    fixtures::make("bleed_intraparenchymal_left", &folder).expect("a fixture");
    let result = every_road(&folder, &study_uid(&folder));
    assert_eq!(result["state"], "analysed", "{result}");
    assert_eq!(result["findings"][0]["present"], true, "{result}");
    assert_eq!(result["findings"][0]["side"], "left", "{result}");
}

#[test]
fn the_real_tilted_head_by_every_road_gives_one_result() {
    let Some(shared) = shared_data("the_real_tilted_head_by_every_road_gives_one_result") else {
        return;
    };
    // The folder also holds a licence; senders that read every file get a folder of DICOM only.
    let scratch = tempfile::tempdir().expect("a scratch folder");
    for number in 1..=28 {
        let name = format!("{number:02}.dcm");
        std::fs::copy(
            shared.join("data/ge-head").join(&name),
            scratch.path().join(&name),
        )
        .expect("copied");
    }
    let result = every_road(scratch.path(), &study_uid(scratch.path()));
    assert_eq!(result["state"], "analysed", "{result}");
    let geometry = &result["geometry"];
    assert!(
        (geometry["tilt_deg"].as_f64().expect("a number") - 18.5).abs() < 0.05,
        "{geometry}"
    );
    assert_eq!(geometry["slices"], 28);
    assert_eq!(geometry["rectified"], true);
    let gaps: Vec<f64> = (0..2)
        .map(|end| geometry["gap_mm"][end].as_f64().expect("a number"))
        .collect();
    assert!(
        (gaps[0] - 1.08).abs() < 0.01 && (gaps[1] - 7.0).abs() < 0.01,
        "{gaps:?}"
    );
    let said = geometry["warnings"].to_string();
    for part in ["4.0", "7.0", "1.08"] {
        assert!(
            said.contains(part) || said.contains(part.trim_end_matches(".0")),
            "{said}"
        );
    }
    assert_eq!(
        result["findings"][0]["present"], false,
        "no bleed is known in this head: {result}"
    );
}
