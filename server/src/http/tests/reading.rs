use std::collections::BTreeSet;

use pipeline::reason::{Reason, ReasonCode};

use super::*;
use crate::events::{StudyRef, What};
use store::state::{Changes, Round, StudyRow};

fn study(study_uid: &str, patient_name: &str) -> StudyRow {
    let mut row = StudyRow::new(uid(study_uid), 7, jiff::Timestamp::UNIX_EPOCH);
    row.patient.name = patient_name.to_owned();
    row
}

fn queued(internal_id: i64) -> What {
    What::StudyQueued {
        study: StudyRef {
            study_uid: uid("1.2"),
            internal_id,
            generation: 1,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worklist_carries_a_hostile_name_as_mere_text() {
    let rig = Rig::start().await;
    let name = "<script>alert(1)</script>^\"'&\u{202e}";
    let changes = Changes {
        studies: vec![study("1.2.3", name)],
        ..Changes::default()
    };
    rig.state.write(&changes).await.unwrap();
    let list = rig.get("/api/v1/worklist").await;
    assert!(
        list.head.contains("content-type: application/json"),
        "{list:?}"
    );
    assert!(
        list.head.contains("x-content-type-options: nosniff")
            && list.head.contains("cache-control: no-store")
    );
    let json = list.json();
    assert_eq!(json["studies"][0]["patient"]["name"], name);
    assert_eq!(json["studies"][0]["state"], "receiving");
    assert_eq!(json["studies"][0]["links"]["self"], "/api/v1/studies/1.2.3");
    assert_eq!(
        (&json["total"], &json["notice"]),
        (&1.into(), &crate::http::worklist::NOTICE.into())
    );
    assert_eq!(
        rig.get("/api/v1/studies/1.2.3").await.json()["report"],
        Value::Null
    );
}

#[test]
fn the_page_puts_nothing_from_outside_into_markup_and_takes_nothing_from_elsewhere() {
    let script = include_str!("../page/page.js");
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
    ] {
        assert!(!script.contains(forbidden), "{forbidden}");
    }
    for file in [
        script,
        include_str!("../page/index.html"),
        include_str!("../page/page.css"),
    ] {
        assert!(
            !file.contains("https://") && !file.contains("http://") && !file.contains("style=\"")
        );
    }
    assert!(include_str!("../page/index.html").contains(crate::http::worklist::NOTICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_under_a_strict_policy() {
    let rig = Rig::start().await;
    for (path, media) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
    ] {
        let answer = rig.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.head.contains(&format!("content-type: {media}")),
            "{path}"
        );
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_things_are_problem_documents() {
    let rig = Rig::start().await;
    rig.get("/nothing").await.problem(404, "not_found");
    rig.get("/api/v1/studies/1.2.3")
        .await
        .problem(404, "not_found");
    rig.get("/api/v1/studies/1.2.3/reports/1")
        .await
        .problem(404, "not_found");
    rig.get("/api/v1/studies/abc").await.problem(400, "bad_uid");
    rig.get("/api/v1/studies/%ff")
        .await
        .problem(400, "bad_request");
    rig.get("/api/v1/worklist?limit=0")
        .await
        .problem(400, "bad_query");
    rig.get("/api/v1/worklist?limit=abc")
        .await
        .problem(400, "bad_query");
    rig.get("/api/v1/worklist?unknown=1")
        .await
        .problem(400, "bad_query");
    let wrong = rig.call("DELETE", "/api/v1/worklist", &[], b"").await;
    wrong.problem(405, "method_not_allowed");
    assert!(wrong.head.contains("allow: get,head"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_and_a_client_that_comes_back_misses_none() {
    let rig = Rig::start().await;
    rig.events.publish(queued(1));
    let first = rig.events.subscribe(Some(0)).backlog[0].id;
    rig.events.publish(queued(2));
    let headers = format!("Connection: close\r\nLast-Event-ID: {first}\r\n");
    let stream = rig.begin("GET /api/v1/events", &headers).await;
    let mut reader = tokio::io::BufReader::new(stream);
    let backlog = lines_until(&mut reader, "\"internal_id\":2").await;
    assert!(
        backlog
            .to_lowercase()
            .contains("content-type: text/event-stream"),
        "{backlog}"
    );
    assert!(
        !backlog.contains("\"internal_id\":1") && !backlog.contains("reset"),
        "{backlog}"
    );
    rig.events.publish(queued(3));
    let live = lines_until(&mut reader, "\"internal_id\":3").await;
    assert!(
        (backlog + &live).contains(&format!("id: {}", first + 2))
            && live.contains("event: study_queued"),
        "{live}"
    );
    // The stream ends with the service; else a stop would wait for it.
    rig.shutdown.send_replace(true);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_missed_events_is_told_to_read_afresh() {
    let rig = Rig::start().await;
    let stream = rig
        .begin("GET /api/v1/events", "Last-Event-ID: 1\r\n")
        .await;
    let mut reader = tokio::io::BufReader::new(stream);
    lines_until(&mut reader, "event: reset").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_listener_too_many_is_told() {
    let config = HttpConfig {
        listeners_max: 1,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let stream = rig.begin("GET /api/v1/events", "").await;
    let mut first = tokio::io::BufReader::new(stream);
    lines_until(&mut first, "retry: 2000").await;
    rig.get("/api/v1/events").await.problem(503, "busy");
}

pub(super) async fn lines_until(
    reader: &mut tokio::io::BufReader<TcpStream>,
    wanted: &str,
) -> String {
    use tokio::io::AsyncBufReadExt;
    let mut text = String::new();
    while !text.contains(wanted) {
        let read = tokio::time::timeout(Duration::from_secs(5), reader.read_line(&mut text)).await;
        assert!(
            read.unwrap_or_else(|_| panic!("{wanted} did not come: {text}"))
                .unwrap()
                > 0,
            "ended: {text}"
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_what_is_not_and_a_missing_model_only_degrades() {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/healthz").await.status, 200);
    let detail = rig.get("/readyz").await.problem(503, "not_ready");
    assert!(
        detail.contains("dicom") && !detail.contains("store"),
        "{detail}"
    );
    rig.health.set_dicom(Some(rig.address));
    let text = "ONNX Runtime is missing: run `cargo xtask setup`.";
    rig.health
        .set_inference(Err(Reason::new(ReasonCode::InferenceLibraryMissing, text)));
    let degraded = rig.get("/readyz").await;
    let json = degraded.json();
    assert_eq!(
        (degraded.status, &json["degraded"], &json["model"]),
        (200, &true.into(), &Value::Null)
    );
    assert!(json["checks"].to_string().contains(text));
    let identity = models::report::ModelIdentity {
        name: "bootstrap".to_owned(),
        version: "1".to_owned(),
        sha256: "ab".to_owned(),
    };
    rig.health.set_inference(Ok(identity));
    let ready = rig.get("/readyz").await.json();
    assert_eq!(
        (&ready["degraded"], &ready["model"]["name"]),
        (&false.into(), &"bootstrap".into())
    );
    rig.state.close().await;
    assert!(
        rig.get("/readyz")
            .await
            .problem(503, "not_ready")
            .contains("database")
    );
    rig.get("/api/v1/worklist").await.problem(500, "internal");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_prometheus_text() {
    crate::telemetry::start_metrics();
    let rig = Rig::start().await;
    rig.get("/healthz").await;
    let answer = rig.get("/metrics").await;
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{answer:?}"
    );
    assert!(
        answer
            .body
            .contains("tez_studies{state=\"not_analysed\"} 0"),
        "{}",
        answer.body
    );
    assert!(
        answer.body.contains("route=\"/healthz\""),
        "{}",
        answer.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_path_is_routed_and_the_document_is_the_served_one() {
    let rig = Rig::start().await;
    let served = rig.get("/api/openapi.json").await;
    assert_eq!(served.body, crate::http::openapi_json());
    let document = served.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let expected: BTreeSet<&str> = [
        "/api/v1/events",
        "/api/v1/objects/problems",
        "/api/v1/objects/unreadable",
        "/api/v1/studies/{study_uid}",
        "/api/v1/studies/{study_uid}/read",
        "/api/v1/studies/{study_uid}/reports/{generation}",
        "/api/v1/uploads",
        "/api/v1/worklist",
        "/dicom-web/studies",
        "/dicom-web/studies/{study_uid}",
        "/healthz",
        "/metrics",
        "/readyz",
    ]
    .into();
    assert_eq!(
        paths.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        expected
    );
    for (path, methods) in paths {
        let path = path
            .replace("{study_uid}", "1.2.3")
            .replace("{generation}", "1");
        let documented: BTreeSet<&str> = methods
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        // A method that is not documented is not allowed, and the header says which are.
        let answer = rig.call("PATCH", &path, &[], b"").await;
        assert_eq!(answer.status, 405, "{path}");
        let allow = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("allow: "))
            .unwrap();
        let routed: BTreeSet<&str> = allow
            .split(',')
            .filter(|method| *method != "head")
            .collect();
        assert_eq!(routed, documented, "{path}");
    }
}

#[test]
fn the_openapi_document_in_docs_is_the_one_of_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let made = crate::http::openapi_json();
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/openapi.json is out of date: cargo xtask docs, and look at the difference"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_is_marked_as_read_with_the_result_that_was_read_and_the_mark_is_taken_back() {
    let rig = Rig::start().await;
    let row = study("1.2.3", "Doe^Jane");
    let reasons = vec![Reason::new(ReasonCode::NotCt, "an ultrasound")];
    let report = crate::worker::not_analysed(&uid("1.2.3"), reasons);
    let mut with_result = row.clone();
    with_result.result = store::state::ResultSummary::of(&report, 1);
    let changes = Changes {
        studies: vec![row],
        ..Changes::default()
    };
    rig.state.write(&changes).await.unwrap();
    let put = async |query: &str| {
        let path = format!("/api/v1/studies/1.2.3/read{query}");
        rig.call("PUT", &path, &[], b"").await
    };
    put("?result_generation=1")
        .await
        .problem(409, "other_result");
    let at = jiff::Timestamp::UNIX_EPOCH;
    let round = Round {
        generation: 1,
        report: &report,
        artefacts: None,
        at,
    };
    let written = rig.state.write_result(&with_result, &round);
    written.await.unwrap();
    put("").await.problem(400, "bad_query");
    put("?result_generation=2")
        .await
        .problem(409, "other_result");
    let mut events = rig.events.subscribe(None).live;
    assert_eq!(put("?result_generation=1").await.status, 204);
    let told = serde_json::to_value(events.recv().await.unwrap()).unwrap();
    assert_eq!(
        (&told["type"], &told["read"]),
        (&"study_marked".into(), &true.into())
    );
    let list = rig.get("/api/v1/worklist").await.json();
    assert_eq!((&list["total"], &list["read"]), (&0.into(), &1.into()));
    let all = rig.get("/api/v1/worklist?read=true").await.json();
    assert_eq!(all["total"], 1);
    assert!(all["studies"][0]["read_at"].is_string(), "{all}");
    let foreign = [("Origin", "https://evil.example")];
    let path = "/api/v1/studies/1.2.3/read";
    rig.call("DELETE", path, &foreign, b"")
        .await
        .problem(403, "origin_not_allowed");
    assert_eq!(rig.call("DELETE", path, &[], b"").await.status, 204);
    assert_eq!(rig.get("/api/v1/worklist").await.json()["total"], 1);
    let unknown = "/api/v1/studies/1.2.4/read";
    rig.call("DELETE", unknown, &[], b"")
        .await
        .problem(404, "not_found");
}
