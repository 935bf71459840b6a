//! The control plane as a process: how it starts, what it stores, how it ends.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;

use boring::ssl::SslConnector;
use pingora_core::tls::tokio_ssl::SslStream;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Authority, Client, ControlProcess, document, eventually, tls_client, within};

const GENERATION: &[&str] = &["cellgate_control_generation "];
const KEYS: &[&str] = &["cellgate_control_keys "];
const FILE_ERROR: &[&str] = &["cellgate_control_file_error "];

/// A document of `count` keys, all of them on `placement`.
fn keys(version: &str, count: usize, placement: &str) -> Value {
    let keys: Map<String, Value> = (0..count)
        .map(|number| (format!("key-{number:04}"), placement.into()))
        .collect();
    let endpoints = json!({"one": "http://127.0.0.1:1", "two": "http://127.0.0.1:2"});
    document(version, keys.into(), endpoints, "one")
}

#[tokio::test]
async fn it_starts_with_nothing_and_ends_when_told() {
    let control = ControlProcess::builder().start().await;
    let health = control.get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json(), json!({"status": "healthy"}));
    assert_eq!(control.get("/nowhere").await.status, 404);
    let metrics = control.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let metrics = metrics.text();
    for line in [
        "cellgate_control_generation 0",
        "cellgate_control_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 1",
        "cellgate_control_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }

    // A connection without a request does not delay the end.
    let mut idle = control.client().await;
    control.signal(libc::SIGTERM);
    idle.closed().await;
    let address = control.address;
    let ended = control.ended().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.log.contains("stopped"), "{}", ended.log);
    let refused = TcpStream::connect(address).await;
    assert!(refused.is_err(), "somebody listens at {address}");
}

#[tokio::test]
async fn every_metric_is_documented() {
    let control = ControlProcess::builder().start().await;
    control.get("/health").await;
    let text = control.get("/metrics").await.text();
    let docs = include_str!("../../docs/metrics.md");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        assert!(docs.contains(&format!("`{name}")), "{name}");
    }
}

#[tokio::test]
async fn beyond_loopback_it_listens_only_when_told_so() {
    let builder = ControlProcess::builder().set("listen", "0.0.0.0:0");
    let ended = builder.run().await;
    ended.assert_failed(&["control.yaml:2:13: listen: got 0.0.0.0:0", "--insecure"]);
    let control = builder.clone().arg("--insecure").start().await;
    assert!(
        control
            .log
            .count("anyone who can connect can change the routing table")
            == 1
    );
    let address = SocketAddr::from(([127, 0, 0, 1], control.address.port()));
    let mut client = Client::connect(address).await;
    client.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    control.kill().await;
    let tokens = json!([{"name": "ops", "token": "secret", "roles": ["write"]}]);
    let control = builder.set("tokens", tokens).start().await;
    assert!(control.log.count("without tls") == 1);
}

#[tokio::test]
async fn settings_and_routing_file_are_checked() {
    let valid = ControlProcess::builder().arg("-t");
    let ended = valid.run().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(
        ended.output.contains("there is no routing file"),
        "{ended:?}"
    );
    let valid = valid.routing(&keys("1", 1, "one"));
    let ended = valid.run().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.output.contains("routing.json are valid"), "{ended:?}");
    assert!(!valid.data_dir().exists(), "checking made something");
    let ended = valid.routing(&keys("1", 1, "nowhere")).run().await;
    ended.assert_failed(&["routing.json: routingTable", "nowhere"]);
    let wrong = ControlProcess::builder().arg("-t");
    let ended = wrong.set("history", 0).set("ping", 1).run().await;
    ended.assert_failed(&["history: got 0", "ping: unknown key"]);
}

#[tokio::test]
async fn the_environment_wins() {
    let builder = ControlProcess::builder().set("listen", "127.0.0.1:1");
    let other = builder.path("other.json");
    fs::write(&other, keys("1", 7, "one").to_string()).expect("write the routing file");
    let builder = builder.env("PORT", "0");
    let builder = builder.env("CONFIG_PATH", other.to_string_lossy());
    let control = builder.start().await;
    assert_eq!(control.metric(KEYS).await, 7.0);
    assert!(builder.path("other.json.d").is_dir());
    assert!(!builder.data_dir().exists());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let first = ControlProcess::builder().start().await;
    let address = first.address.to_string();
    let ended = ControlProcess::builder()
        .set("listen", address.clone())
        .run()
        .await;
    ended.assert_failed(&[&format!("cannot listen on {address}")]);
}

#[tokio::test]
async fn edits_by_hand_become_generations() {
    let builder = ControlProcess::builder().routing(&keys("1", 3, "one"));
    let control = builder.start().await;
    assert_eq!(control.metric(GENERATION).await, 1.0);
    assert_eq!(control.metric(KEYS).await, 3.0);
    control.write_routing(&keys("2", 5, "one"));
    control.wait_generation(2).await;
    assert_eq!(control.metric(KEYS).await, 5.0);

    control.write_routing(&keys("3", 5, "nowhere"));
    let line = control.log.wait("cannot take over it").await;
    assert!(line.contains("nowhere"), "{line}");
    assert_eq!(control.metric(FILE_ERROR).await, 1.0);
    assert_eq!(control.metric(GENERATION).await, 2.0);
    control.signal(libc::SIGTERM);
    assert!(control.ended().await.status.success());

    // The file is still invalid, and that changes nothing else.
    let control = builder.start().await;
    assert_eq!(control.metric(GENERATION).await, 2.0);
    assert_eq!(control.metric(FILE_ERROR).await, 1.0);
    assert_eq!(control.read_routing(), Some(keys("3", 5, "nowhere")));
    control.write_routing(&keys("3", 6, "two"));
    control.wait_generation(3).await;
    control.log.wait("in order again").await;
    assert_eq!(control.metric(FILE_ERROR).await, 0.0);
}

#[tokio::test]
async fn a_killed_control_plane_has_lost_nothing_that_it_acknowledged() {
    let builder = ControlProcess::builder().routing(&keys("1", 1, "one"));
    let mut count = 1;
    for round in 1..=4 {
        let control = builder.start().await;
        for _ in 0..5 {
            count += 1;
            control.write_routing(&keys("1", count, "one"));
            eventually("the edit is acknowledged", async || {
                (control.metric(KEYS).await == count as f64).then_some(())
            })
            .await;
        }
        // Killed while it handles another edit.
        control.write_routing(&keys("1", count + 1, "one"));
        tokio::time::sleep(std::time::Duration::from_millis(20 * round)).await;
        control.kill().await;
        // Without the file, only the store has the keys.
        fs::remove_file(builder.routing_path()).expect("remove the routing file");
        let control = builder.start().await;
        let kept = control.metric(KEYS).await as usize;
        assert!((count..=count + 1).contains(&kept), "{kept} of {count}");
        eventually("the routing file is written again", async || {
            let keys = control.read_routing()?["routingTable"].as_object()?.len();
            (keys == kept).then_some(())
        })
        .await;
        count = kept;
        control.kill().await;
    }
}

#[tokio::test]
async fn a_directory_is_for_one_process() {
    let builder = ControlProcess::builder().routing(&keys("1", 1, "one"));
    let control = builder.start().await;
    let second = builder.run().await;
    second.assert_failed(&["routing.json.d", "another control plane"]);
    control.write_routing(&keys("2", 1, "one"));
    control.wait_generation(2).await;
    control.kill().await;
    builder.start().await;
}

#[tokio::test]
async fn a_damaged_store_is_spoken_of() {
    let builder = ControlProcess::builder().routing(&keys("1", 1, "one"));
    let control = builder.start().await;
    control.write_routing(&keys("2", 1, "one"));
    control.wait_generation(2).await;
    control.write_routing(&keys("3", 1, "one"));
    control.wait_generation(3).await;
    control.kill().await;
    // The process was killed, so that the last commit is in the write-ahead log.
    let log = builder.data_dir().join("cellgate.db-wal");
    let mut bytes = fs::read(&log).expect("the write-ahead log");
    let last = bytes.len() - 1;
    bytes[last] = !bytes[last];
    fs::write(&log, bytes).expect("damage it");
    fs::remove_file(builder.routing_path()).expect("remove the routing file");
    let control = builder.start().await;
    control.log.wait("generations after 2 are lost").await;
    assert_eq!(control.metric(GENERATION).await, 4.0);
    eventually("the routing file is what is left", async || {
        (control.read_routing()?["version"] == "2").then_some(())
    })
    .await;
}

/// Sets the largest size of a file that the process may write (RLIMIT_FSIZE).
fn limit_files(pid: u32, bytes: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    // SAFETY: the limit is valid for reading, and nothing is written.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "prlimit: {}", io::Error::last_os_error());
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let builder = ControlProcess::builder().routing(&keys("0", 60, "one"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellgate"));
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // With SIGXFSZ ignored, the write fails as on a full disk and the process lives.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        });
    }
    let control = builder.spawn_by(command).ready().await;
    let log = builder.data_dir().join("cellgate.db-wal");
    let bytes = fs::metadata(log).expect("the write-ahead log").len();
    limit_files(control.pid(), bytes + (64 << 10));
    let (mut generation, mut round) = (1.0, 0);
    // Every edit moves all keys, until no space is left.
    let refused = loop {
        round += 1;
        let placement = ["one", "two"][round % 2];
        control.write_routing(&keys(&round.to_string(), 60, placement));
        let newest = eventually("the edit is taken over or refused", async || {
            if control.metric(FILE_ERROR).await == 1.0 {
                return Some(generation);
            }
            let newest = control.metric(GENERATION).await;
            (newest > generation).then_some(newest)
        })
        .await;
        if newest == generation {
            break round;
        }
        generation = newest;
        assert!(round < 100, "there is no end to the space");
    };
    assert!(refused > 1, "there was no space at all");
    let line = control.log.wait("cannot take over it").await;
    assert!(line.contains("File too large"), "{line}");
    let errors = control
        .metric(&["cellgate_control_store_errors_total"])
        .await;
    assert!(errors >= 1.0);
    limit_files(control.pid(), libc::RLIM_INFINITY);
    control.wait_generation(generation as u64 + 1).await;
    control.kill().await;
    fs::remove_file(builder.routing_path()).expect("remove the routing file");
    let control = builder.start().await;
    assert_eq!(control.metric(GENERATION).await, generation + 1.0);
    assert_eq!(control.log.count("lost") + control.log.count("cut off"), 0);
    eventually("the routing file has the last edit", async || {
        let version = control.read_routing()?["version"].take();
        (version.as_str()?.parse() == Ok(refused)).then_some(())
    })
    .await;
}

/// The response to `GET /health` over TLS, or the error.
async fn health(address: SocketAddr, connector: &SslConnector) -> io::Result<(String, String)> {
    let stream = TcpStream::connect(address).await?;
    let ssl = connector.configure().map_err(io::Error::other)?;
    let ssl = ssl.into_ssl("localhost").map_err(io::Error::other)?;
    let mut stream = SslStream::new(ssl, stream).map_err(io::Error::other)?;
    let connected = Pin::new(&mut stream).connect().await;
    connected.map_err(io::Error::other)?;
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let certificate = stream.ssl().peer_certificate();
    let serial = certificate.and_then(|cert| cert.serial_number().to_bn().ok());
    let serial = serial.and_then(|serial| serial.to_dec_str().ok());
    Ok((answer, serial.expect("a serial number").to_string()))
}

fn at(path: &Path) -> Value {
    path.to_string_lossy().into()
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let builder = ControlProcess::builder();
    let [cert, key, ca, client_ca] =
        ["cert.pem", "key.pem", "ca.pem", "client-ca.pem"].map(|name| builder.path(name));
    servers.issue("localhost").write(&cert, &key);
    servers.write(&ca);
    clients.write(&client_ca);
    let builder = builder
        .set("tls.cert", at(&cert))
        .set("tls.key", at(&key))
        .set("tls.client_ca", at(&client_ca));
    let control = builder.start().await;
    let known = tls_client(&ca, Some(&clients.issue("edge-1")));
    let answered = within("an answer", health(control.address, &known)).await;
    let (answer, serial) = answered.expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for stranger in [
        tls_client(&ca, None),
        tls_client(&ca, Some(&servers.issue("edge-1"))),
        tls_client(&ca, Some(&clients.issue_expired("edge-1"))),
        tls_client(&client_ca, Some(&clients.issue("edge-1"))),
    ] {
        let refused = within("a refusal", health(control.address, &stranger)).await;
        assert!(refused.is_err(), "{refused:?}");
    }
    let plain = within("a refusal", async {
        let mut client = control.client().await;
        client.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.try_response("GET").await
    })
    .await;
    assert!(!matches!(plain, Ok(Some(answer)) if answer.status == 200));

    // An invalid certificate is ignored; a valid new one is used from then on.
    fs::write(&cert, "no certificate").expect("write it");
    control.signal(libc::SIGHUP);
    control.log.wait("nothing has changed").await;
    let (_, same) = health(control.address, &known).await.expect("an answer");
    assert_eq!(same, serial);
    servers.issue("localhost").write(&cert, &key);
    control.signal(libc::SIGHUP);
    control.log.wait("reload: tokens and certificates").await;
    let (_, other) = health(control.address, &known).await.expect("an answer");
    assert_ne!(other, serial);
}
