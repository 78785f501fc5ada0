use super::*;

const PATH: &str = "/dicom-web/studies";
const RELATED: &str = "multipart/related; type=\"application/dicom\"; boundary=edge";

fn related(files: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for bytes in files {
        body.extend_from_slice(b"\r\n--edge\r\nContent-Type: application/dicom\r\n\r\n");
        body.extend_from_slice(bytes);
    }
    body.extend_from_slice(b"\r\n--edge--");
    body
}

fn failures(answer: &Answer) -> Vec<u64> {
    let json = answer.json();
    let reason = |item: &Value| item["00081197"]["Value"][0].as_u64().unwrap();
    ["00081198", "0008119A"]
        .iter()
        .filter_map(|tag| json[tag]["Value"].as_array())
        .flat_map(|items| items.iter().map(reason))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_stored_is_200_with_a_reference_for_each() {
    let rig = Rig::start().await;
    let files = [dicom("1.1", "1.2.3"), dicom("1.2", "1.2.3")];
    let answer = rig
        .post(PATH, RELATED, &related(&[&files[0], &files[1]]))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: application/dicom+json"));
    let json = answer.json();
    let items = json["00081199"]["Value"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["00081150"]["Value"][0], CLASS);
    assert_eq!(items[0]["00081155"]["Value"][0], "1.1");
    assert_eq!(items[1]["00081155"]["Value"][0], "1.2");
    assert_eq!(rig.stored().len(), 2);
    assert_eq!(rig.ends(1).await, [true]);
    // Sent again it is the same success: a client that lost the answer may repeat itself.
    let again = rig
        .post(PATH, RELATED, &related(&[&files[0], &files[1]]))
        .await;
    assert_eq!((again.status, again.json()), (200, json));
}

#[tokio::test(flavor = "multi_thread")]
async fn some_stored_is_202_and_none_is_409() {
    let rig = Rig::start().await;
    let some = rig
        .post(
            PATH,
            RELATED,
            &related(&[&dicom("1.1", "1.2.3"), b"not DICOM"]),
        )
        .await;
    assert_eq!((some.status, failures(&some)), (202, vec![0xC000]));
    let none = rig.post(PATH, RELATED, &related(&[b"not DICOM"])).await;
    assert_eq!((none.status, failures(&none)), (409, vec![0xC000]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_of_another_study_than_the_path_names_is_not_stored() {
    let rig = Rig::start().await;
    let body = related(&[&dicom("1.1", "1.2.3"), &dicom("1.2", "9.9")]);
    let answer = rig.post("/dicom-web/studies/1.2.3", RELATED, &body).await;
    assert_eq!((answer.status, failures(&answer)), (202, vec![0xA901]));
    assert_eq!(
        answer.json()["00081198"]["Value"][0]["00081155"]["Value"][0],
        "1.2"
    );
    assert_eq!(rig.stored(), [dicom("1.1", "1.2.3")]);
    rig.post("/dicom-web/studies/..%2F", RELATED, &body)
        .await
        .problem(400, "bad_uid");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_content_under_a_known_uid_is_a_duplicate_that_failed() {
    let rig = Rig::start().await;
    assert_eq!(
        rig.post(PATH, RELATED, &related(&[&dicom("1.1", "1.2.3")]))
            .await
            .status,
        200
    );
    let answer = rig
        .post(PATH, RELATED, &related(&[&dicom("1.1", "4.5.6")]))
        .await;
    assert_eq!((answer.status, failures(&answer)), (409, vec![0x0111]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_503_with_out_of_resources() {
    let rig = Rig::on_full_disk().await;
    let answer = rig
        .post(PATH, RELATED, &related(&[&dicom("1.1", "1.2.3")]))
        .await;
    assert_eq!((answer.status, failures(&answer)), (503, vec![0xA700]));
}

#[tokio::test(flavor = "multi_thread")]
async fn xml_is_given_where_it_is_asked_for_and_nothing_else_is_invented() {
    let rig = Rig::start().await;
    let body = related(&[&dicom("1.1", "1.2.3")]);
    let ask = |accept: &'static str| [("Content-Type", RELATED), ("Accept", accept)];
    let xml = rig
        .call("POST", PATH, &ask("application/dicom+xml"), &body)
        .await;
    assert!(
        xml.head.contains("content-type: application/dicom+xml"),
        "{xml:?}"
    );
    assert!(
        xml.body
            .contains("keyword=\"ReferencedSOPInstanceUID\"><Value number=\"1\">1.1</Value>"),
        "{xml:?}"
    );
    rig.call("POST", PATH, &ask("image/jpeg"), &body)
        .await
        .problem(406, "not_acceptable");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_problems() {
    let config = HttpConfig {
        stow_bytes_max: 5_000,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let good = related(&[&dicom("1.1", "1.2.3")]);
    rig.post(PATH, RELATED, &good[..good.len() - 5])
        .await
        .problem(400, "truncated");
    rig.post(PATH, "multipart/related; type=\"application/dicom\"", &good)
        .await
        .problem(400, "bad_multipart");
    rig.post(
        PATH,
        "multipart/related; type=\"application/dicom+json\"; boundary=edge",
        &good,
    )
    .await
    .problem(415, "unsupported_media_type");
    rig.post(PATH, "application/json", b"{}")
        .await
        .problem(415, "unsupported_media_type");
    rig.post(PATH, RELATED, &related(&[&vec![0; 6_000]]))
        .await
        .problem(413, "too_large");
    rig.post(PATH, RELATED, b"--edge--")
        .await
        .problem(400, "no_instances");
    rig.get(PATH).await.problem(405, "method_not_allowed");
}
