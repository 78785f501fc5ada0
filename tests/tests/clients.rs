//! Rude clients beside an honest one, and what the log says of who was refused and who sent what.

#![expect(clippy::panic, reason = "a failed test panics, in its helpers too")]

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::peers::python;
use tests::sender::{Outgoing, SUCCESS, Sender};
use tests::service::{Tez, pause};

const TEZ: &str = env!("CARGO_BIN_EXE_tez-under-test");

/// Lines of the log that say `message`.
fn told(tez: &Tez, message: &str) -> Vec<Value> {
    let lines = tez.log();
    let lines = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

fn until_told(tez: &Tez, message: &str) -> Value {
    for _ in 0..400 {
        if let Some(line) = told(tez, message).pop() {
            return line;
        }
        pause(Duration::from_millis(50));
    }
    panic!("{message:?} was not logged:\n{}", tez.log());
}

/// Another host, which opens `count` connections to `port` and says nothing on them until it ends.
struct Silent(std::process::Child);

impl Silent {
    fn start(host: &str, port: &str, count: usize) -> Self {
        let program = "import socket, sys\n\
                       host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n\
                       held = [socket.create_connection(('127.0.0.1', port), source_address=(host, 0))\n\
                       \x20       for _ in range(count)]\n\
                       print('held', flush=True)\n\
                       sys.stdin.read()\n";
        let mut child = Command::new(python().expect("Python"))
            .args(["-c", program, host, port, &count.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("Python runs");
        let mut said = [0; 5];
        let out = child.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(out, &mut said).expect("the connections are held");
        Self(child)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        drop(self.0.wait());
    }
}

#[test]
fn hosts_that_hold_connections_and_say_nothing_do_not_shut_out_an_honest_sender() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let study = dir.path().join("study");
    fixtures::make("small_head", &study).expect("a fixture");
    let objects = Outgoing::read_folder(&study).expect("Part 10 files");
    // 127.0.0.9 is on no list.
    let allow = "[[dicom.allow]]\nae_title = \"*\"\naddress = \"127.0.0.0/29\"\n\
                 [dicom]\nbind = \"127.0.0.1:0\"\n";
    let tez = Tez::start(Path::new(TEZ), dir.path(), allow).expect("tez");
    let http_port = tez.http.rsplit(':').next().unwrap_or_default().to_owned();
    let _silent = [
        Silent::start("127.0.0.9", tez.dicom_port(), 48),
        Silent::start("127.0.0.2", tez.dicom_port(), 48),
        Silent::start("127.0.0.2", &http_port, 200),
    ];
    let mut sender = Sender::connect(&tez.dicom, "CT1", &objects).expect("an association");
    assert_eq!(sender.store(&objects[0]).expect("an answer"), SUCCESS);
    sender.release().expect("a release");
    assert_eq!(tez.get("/healthz").expect("an answer")["status"], "alive");
    let why = "closed a DICOM connection: no entry of dicom.allow holds its address";
    let peer = until_told(&tez, why)["peer"].to_string();
    assert!(peer.contains("127.0.0.9"), "{peer}");
    tez.stop().expect("tez stops");
}

#[test]
fn the_log_names_who_was_refused_and_what_was_uploaded() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let study = dir.path().join("study");
    let files = fixtures::make("small_head", &study).expect("a fixture");
    let objects = Outgoing::read_folder(&study).expect("Part 10 files");
    let tez = Tez::start(Path::new(TEZ), dir.path(), "").expect("tez");

    let mut empty = objects[0].clone();
    empty.data_set.clear();
    let mut sender = Sender::connect(&tez.dicom, "CT1", &objects).expect("an association");
    assert_ne!(sender.store(&empty).expect("an answer"), SUCCESS);
    sender.release().expect("a release");
    let line = until_told(&tez, "refused an object");
    for (field, expected) in [
        ("address", "127.0.0.1"),
        ("calling_ae_title", "CT1"),
        ("called_ae_title", "TEZ"),
        ("sop_instance_uid", empty.sop_instance_uid.as_str()),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }

    let bytes = std::fs::read(&files[0]).expect("a file");
    let url = format!("{}/api/v1/uploads", tez.http);
    ureq::post(&url)
        .header("Content-Type", "application/dicom")
        .send(&bytes[..])
        .expect("it is taken");
    let line = until_told(&tez, "upload ended");
    assert_eq!(
        (&line["peer"], &line["how"]),
        (&"127.0.0.1".into(), &"complete".into())
    );
    assert_eq!((&line["files"], &line["stored"]), (&1.into(), &1.into()));
    assert_eq!(line["bytes"], bytes.len());

    // One that breaks off is told as well.
    let host = tez.http.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).expect("a connection");
    let head = format!(
        "POST /api/v1/uploads HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/dicom\r\n\
         Content-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&bytes[..1_000]).expect("sent");
    drop(stream);
    for _ in 0..400 {
        if told(&tez, "upload ended").len() == 2 {
            break;
        }
        pause(Duration::from_millis(50));
    }
    let line = until_told(&tez, "upload ended");
    assert!(
        line["how"]
            .as_str()
            .is_some_and(|how| how.contains("broke")),
        "{line}"
    );
    tez.stop().expect("tez stops");
}
