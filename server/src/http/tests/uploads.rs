use super::*;

const PATH: &str = "/api/v1/uploads";
pub(super) const POST: &str = "POST /api/v1/uploads";
const FORM: &str = "multipart/form-data; boundary=edge";

/// The headers of an upload of one file.
pub(super) fn file_of_bytes(bytes: usize) -> String {
    format!("Connection: close\r\nContent-Type: application/dicom\r\nContent-Length: {bytes}\r\n")
}

fn verdicts(answer: &Answer) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let json = answer.json();
    let files = json["files"].as_array().unwrap_or_else(|| panic!("{json}"));
    files
        .iter()
        .map(|file| (text(&file["name"]), text(&file["verdict"])))
        .collect()
}

fn verdict(name: &str, verdict: &str) -> (String, String) {
    (name.to_owned(), verdict.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_of_a_form_has_its_verdict_and_is_on_disk_when_it_is_called_stored() {
    let rig = Rig::start().await;
    let (one, two) = (dicom("1.1", "1.2.3"), dicom("1.2", "1.2.3"));
    let other = [
        dicom("1.1", "1.2.3"),
        vec![0x20, 0, 0x11, 0, b'I', b'S', 0, 0],
    ]
    .concat();
    let body = multipart(&[
        ("a.dcm", &one),
        ("b", &two),
        ("notes.txt", b"hello"),
        ("again", &one),
        ("other", &other),
    ]);
    let answer = rig.post(PATH, FORM, &body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let found = verdicts(&answer);
    // Files are stored at the same time, so either of the two with one content may be the first.
    assert_eq!(
        found[1..3],
        [verdict("b", "stored"), verdict("notes.txt", "refused")]
    );
    let json = answer.json();
    assert_eq!(
        (
            &json["stored"],
            &json["duplicates"],
            &json["conflicts"],
            &json["refused"]
        ),
        (&2.into(), &1.into(), &1.into(), &1.into())
    );
    assert_eq!(json["studies"][0]["study_uid"], "1.2.3");
    assert_eq!(json["studies"][0]["links"]["self"], "/api/v1/studies/1.2.3");
    assert_eq!(json["files"][2]["reason"]["code"], "not_dicom");
    assert_eq!(json["files"][1]["sop_instance_uid"], "1.2");
    let mut stored = rig.stored();
    let mut expected = vec![one, two, other];
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected, "verbatim");
    assert_eq!(rig.ends(1).await, [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_here_already_is_a_success_that_starts_nothing() {
    let rig = Rig::start().await;
    let file = dicom("1.1", "1.2.3");
    assert_eq!(rig.post(PATH, "application/dicom", &file).await.status, 202);
    let again = rig.post(PATH, "application/dicom", &file).await;
    assert_eq!(
        (again.status, &again.json()["duplicates"]),
        (200, &1.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_gives_a_verdict_for_each_entry_and_its_names_lead_nowhere() {
    let rig = Rig::start().await;
    let file = dicom("1.1", "1.2.3");
    let nested = zip_of(&[("x", &file)]);
    let zip = zip_of(&[
        ("../../evil", &file),
        ("папка/снимок.dcm", &file),
        ("in.zip", &nested),
        ("README", b"text"),
    ]);
    for (media, body) in [
        ("application/zip", zip.clone()),
        (FORM, multipart(&[("s.zip", &zip)])),
    ] {
        let answer = rig.post(PATH, media, &body).await;
        let found = verdicts(&answer);
        assert!(
            found[0].0.ends_with(": ../../evil") && found[0].1 == "refused",
            "{found:?}"
        );
        assert!(found[1].0.ends_with(": папка/снимок.dcm"), "{found:?}");
        assert_eq!(
            (found[2].1.as_str(), found[3].1.as_str()),
            ("refused", "refused")
        );
        assert!(
            answer.json()["files"][2]["reason"]["text"]
                .as_str()
                .unwrap()
                .contains("zip inside")
        );
    }
    assert_eq!(rig.stored(), [file]);
    assert_eq!(
        std::fs::read_dir(rig.folder.path().join("spool"))
            .unwrap()
            .count(),
        0
    );
    assert!(!rig.folder.path().join("../evil").try_exists().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_zip_a_broken_zip_and_an_empty_form_are_told_apart() {
    let rig = Rig::start().await;
    let empty = rig.post(PATH, "application/zip", &zip_of(&[])).await;
    assert!(
        empty
            .problem(422, "nothing_stored")
            .contains("holds no files")
    );
    let mut cut = zip_of(&[("a", &dicom("1.1", "1.2"))]);
    cut.truncate(cut.len() - 20);
    rig.post(PATH, FORM, &multipart(&[("a.zip", &cut)]))
        .await
        .problem(422, "bad_archive");
    rig.post(PATH, FORM, &multipart(&[]))
        .await
        .problem(400, "no_files");
    rig.post(PATH, FORM, &multipart(&[("", b"")]))
        .await
        .problem(400, "no_files");
    assert_eq!(rig.stored().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_and_what_stood_before_it_is_named() {
    let rig = Rig::start().await;
    let zeros = [dicom("1.2", "1.2.3"), vec![0; 70 << 20]].concat();
    let bomb = zip_of(&[("good", &dicom("1.1", "1.2.3")), ("bomb", &zeros)]);
    let answer = rig.post(PATH, "application/zip", &bomb).await;
    assert!(answer.problem(413, "too_large").contains("bomb"));
    assert_eq!(verdicts(&answer)[0].1, "stored");
    assert_eq!(rig.ends(1).await, [false], "the study may not be whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_says_what_was_stored_before() {
    let rig = Rig::start().await;
    let body = multipart(&[("a", &dicom("1.1", "1.2.3")), ("b", &dicom("1.2", "1.2.3"))]);
    let answer = rig.post(PATH, FORM, &body[..body.len() - 60]).await;
    answer.problem(400, "truncated");
    assert_eq!(
        verdicts(&answer),
        [verdict("a", "stored"), verdict("b", "refused")]
    );
    assert_eq!(rig.ends(1).await, [false]);
    assert_eq!(rig.stored().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_leaves_no_half_object_and_a_broken_session() {
    let rig = Rig::start().await;
    let mut stream = rig.begin(POST, &file_of_bytes(9_999)).await;
    let begun = dicom("1.1", "1.2.3");
    stream.write_all(&begun).await.unwrap();
    rig.begins_an_object().await;
    drop(stream);
    assert_eq!(rig.ends(1).await, [false]);
    assert_eq!(rig.stored().len(), 0);
    assert_eq!(
        std::fs::read_dir(rig.folder.path().join("incoming"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_object_is_refused_with_a_sentence() {
    let rig = Rig::start().await;
    let file = dicom("1.1", "1.2.3");
    for length in [100, 200, file.len() - 3] {
        let answer = rig.post(PATH, "application/dicom", &file[..length]).await;
        answer.problem(422, "nothing_stored");
    }
    assert_eq!(rig.stored().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_answer_before_the_body_is_read() {
    let config = HttpConfig {
        upload_bytes_max: 10_000,
        upload_files_max: 2,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let answer = Answer::read(rig.begin(POST, &file_of_bytes(10_001)).await).await;
    assert!(answer.problem(413, "too_large").contains("10000"));
    let files: Vec<Vec<u8>> = (1..=3)
        .map(|number| dicom(&format!("1.{number}"), "1.2.3"))
        .collect();
    let body = multipart(&[("a", &files[0]), ("b", &files[1]), ("c", &files[2])]);
    rig.post(PATH, FORM, &body).await.problem(413, "too_large");
    let zip = zip_of(&[("a", &files[0]), ("b", &files[1]), ("c", &files[2])]);
    rig.post(PATH, "application/zip", &zip)
        .await
        .problem(413, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_beyond_a_limit_of_the_settings_is_refused_by_its_name() {
    let zip = zip_of(&[("a", &dicom("1.1", "1.2.3")), ("b", &dicom("1.2", "1.2.3"))]);
    let all = ArchiveLimits::default();
    for (limits, setting) in [
        (
            ArchiveLimits {
                entries_max: 1,
                ..all
            },
            "zip.entries_max",
        ),
        (
            ArchiveLimits {
                total_bytes_max: 600,
                ..all
            },
            "zip.total_bytes_max",
        ),
    ] {
        let rig = Rig::with(HttpConfig::default(), StoreLimits::default(), limits).await;
        let refused = rig.post(PATH, "application/zip", &zip).await;
        let detail = refused.problem(413, "too_large");
        assert!(detail.contains(setting), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_507_for_files_and_for_zips() {
    let rig = Rig::on_full_disk().await;
    let file = dicom("1.1", "1.2.3");
    rig.post(PATH, "application/dicom", &file)
        .await
        .problem(507, "disk_full");
    rig.post(PATH, "application/zip", &zip_of(&[("a", &file)]))
        .await
        .problem(507, "disk_full");
    assert_eq!(rig.ends(2).await, [false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_uploads_at_once_and_a_silent_sender_are_told() {
    let config = HttpConfig {
        uploads_at_once_max: 1,
        idle_seconds_max: 1,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let silent = rig.begin(POST, &file_of_bytes(99)).await;
    rig.takes_an_upload().await;
    let full = rig.post(PATH, "application/dicom", b"x").await;
    full.problem(503, "busy");
    assert!(full.head.contains("retry-after"));
    Answer::read(silent).await.problem(408, "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_media_types_and_foreign_pages_are_refused() {
    let rig = Rig::start().await;
    rig.post(PATH, "text/plain", b"x")
        .await
        .problem(415, "unsupported_media_type");
    rig.post(PATH, "multipart/form-data", b"x")
        .await
        .problem(400, "bad_multipart");
    let foreign = [
        ("Content-Type", "application/dicom"),
        ("Origin", "http://evil.example"),
    ];
    rig.call("POST", PATH, &foreign, &dicom("1.1", "1.2"))
        .await
        .problem(403, "origin_not_allowed");
    let rebound = [
        ("Content-Type", "application/dicom"),
        ("Host", "evil.example"),
    ];
    rig.call("POST", PATH, &rebound, &dicom("1.1", "1.2"))
        .await
        .problem(421, "host_not_allowed");
    assert_eq!(rig.stored().len(), 0);
}
