//! Time is what these tests are about: the limit is a second, and what may live longer must.

use tokio::time::{Instant, sleep, timeout};

use super::*;

/// Longest wait for what must happen; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Well beyond the limit for a header in these tests.
const LONG: Duration = Duration::from_millis(2_500);

async fn rig_with_a_second() -> Rig {
    let config = HttpConfig {
        header_seconds_max: 1,
        keep_alive_seconds: 1,
        ..HttpConfig::default()
    };
    Rig::with_config(config).await
}

/// Everything that comes until the service closes the connection; its reset counts as its end.
async fn rest_of(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    drop(end.expect("the connection is closed"));
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_does_not_come_to_its_end_closes_the_connection() {
    let rig = rig_with_a_second().await;
    let started = Instant::now();
    let mut silent = rig.send(b"").await;
    let mut half = rig.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n").await;
    let (mut ear, mut mouth) = rig.send(b"GET /healthz HTTP/1.1\r\n").await.into_split();
    let dribble = tokio::spawn(async move {
        while mouth.write_all(b"X").await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    let mut heard = Vec::new();
    let dribbled = timeout(PATIENCE, ear.read_to_end(&mut heard)).await;
    drop(dribbled.expect("bytes that come one by one do not lengthen it"));
    assert_eq!(rest_of(&mut silent).await, "");
    assert_eq!(rest_of(&mut half).await, "");
    assert!(started.elapsed() >= Duration::from_secs(1));
    dribble.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_idle_after_an_answer_is_closed() {
    let rig = rig_with_a_second().await;
    let mut stream = rig.begin("GET /healthz", "").await;
    let all = rest_of(&mut stream).await;
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_lives_on_while_it_is_only_kept_alive() {
    let rig = rig_with_a_second().await;
    let stream = rig.begin("GET /api/v1/events", "").await;
    let mut reader = tokio::io::BufReader::new(stream);
    let started = Instant::now();
    while started.elapsed() < LONG {
        reading::lines_until(&mut reader, ": alive").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_slow_line_comes_to_its_end() {
    let rig = rig_with_a_second().await;
    let file = dicom("1.1", "1.2.3");
    let mut stream = rig
        .begin(uploads::POST, &uploads::file_of_bytes(file.len()))
        .await;
    for piece in file.chunks(file.len().div_ceil(5)) {
        sleep(LONG / 5).await;
        stream.write_all(piece).await.unwrap();
    }
    assert_eq!(Answer::read(stream).await.status, 202);
    assert_eq!(rig.stored(), [file]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_most_are_told_or_closed_and_a_free_place_is_taken_again() {
    let config = HttpConfig {
        connections_max: 1,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let holder = rig.send(b"").await;
    let refused = rig.get("/healthz").await;
    assert!(refused.problem(503, "busy").contains("connections_max"));
    assert!(refused.head.contains("retry-after"));
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(rig.send(b"").await);
    }
    let mut beyond = rig.begin("GET /healthz", "").await;
    assert_eq!(rest_of(&mut beyond).await, "", "closed unheard");
    drop((holder, silent));
    let free = async {
        loop {
            let mut stream = rig.begin("GET /healthz", "Connection: close\r\n").await;
            if rest_of(&mut stream).await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    };
    timeout(PATIENCE, free).await.expect("the place is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_idle_connections_and_waits_for_a_request_in_flight() {
    let rig = Rig::start().await;
    let file = dicom("1.1", "1.2.3");
    let mut idle = rig.begin("GET /healthz", "").await;
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    let mut upload = rig
        .begin(uploads::POST, &uploads::file_of_bytes(file.len()))
        .await;
    upload.write_all(&file[..200]).await.unwrap();
    rig.takes_an_upload().await;
    rig.shutdown.send_replace(true);
    rest_of(&mut idle).await;
    assert!(!rig.served.is_finished());
    upload.write_all(&file[200..]).await.unwrap();
    assert_eq!(Answer::read(upload).await.status, 202);
    timeout(PATIENCE, rig.served).await.unwrap().unwrap();
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn one_host_that_takes_all_its_connections_leaves_the_others_theirs() {
    let config = HttpConfig {
        connections_max: 40,
        connections_per_address_max: 3,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(rig.send_from("127.0.0.2", b"").await);
    }
    let told = Answer::read(rig.send_from("127.0.0.2", HEALTH).await).await;
    assert!(
        told.problem(503, "busy")
            .contains("connections_per_address_max")
    );
    for _ in 0..60 {
        silent.push(rig.send_from("127.0.0.2", b"").await);
    }
    let other = Answer::read(rig.send_from("127.0.0.3", HEALTH).await).await;
    assert_eq!(other.status, 200, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_host_that_takes_all_its_uploads_leaves_the_others_theirs() {
    let config = HttpConfig {
        uploads_per_address_max: 1,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let file = dicom("1.1", "1.2.3");
    let head = format!(
        "POST /api/v1/uploads HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n",
        uploads::file_of_bytes(file.len())
    );
    let whole = [head.as_bytes(), &file].concat();
    let _held = rig.send_from("127.0.0.2", &whole[..=head.len()]).await;
    rig.takes_an_upload().await;
    let refused = Answer::read(rig.send_from("127.0.0.2", &whole).await).await;
    assert!(
        refused
            .problem(503, "busy")
            .contains("uploads_per_address_max")
    );
    let other = Answer::read(rig.send_from("127.0.0.3", &whole).await).await;
    assert_eq!(other.status, 202, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_a_byte_at_a_time_is_cut_off() {
    let config = HttpConfig {
        idle_seconds_max: 1,
        upload_bytes_per_second_min: 1_000,
        ..HttpConfig::default()
    };
    let rig = Rig::with_config(config).await;
    let stream = rig
        .begin(uploads::POST, &uploads::file_of_bytes(5_000))
        .await;
    let (mut ear, mut mouth) = stream.into_split();
    let dribble = tokio::spawn(async move {
        while mouth.write_all(b"X").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut heard = Vec::new();
    let ended = timeout(PATIENCE, ear.read_to_end(&mut heard)).await;
    drop(ended.expect("it is cut off"));
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    dribble.await.unwrap();
}
