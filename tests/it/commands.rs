//! The other commands: demo cell, demo, check, explain, help.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::{Cell, Client, DemoCell, Edge, document, placements, send_signal, table};

fn cellgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellgate"));
    command.args(arguments).stdin(Stdio::null());
    command.env_remove("CONFIG_PATH").env_remove("PORT");
    command
}

fn output(arguments: &[&str]) -> Output {
    cellgate(arguments).output().expect("run cellgate")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: e\r\nX-Tag: 1\r\n\r\n";

#[tokio::test]
async fn the_demo_cell_echoes() {
    let cell = DemoCell::start("demo", &[]).await;
    let response = cell.exchange(GET).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.get("x-cell-name"), Some("demo"));
    let echo = response.json();
    assert_eq!(echo["cell"], "demo");
    assert_eq!(echo["method"], "GET");
    assert_eq!(echo["path"], "/a");
    assert_eq!(echo["query"], "b=c");
    assert_eq!(echo["headers"]["x-tag"], "1");
    assert!(humantime::parse_rfc3339(echo["timestamp"].as_str().expect("a time")).is_ok());
    assert!(echo["message"].is_string());

    let health = cell
        .exchange("GET /health HTTP/1.1\r\nHost: e\r\n\r\n")
        .await;
    assert_eq!(health.json(), json!({"status": "healthy", "cell": "demo"}));

    // Bodies of either framing are read to their end, and the connection is kept.
    let mut client = Client::connect(cell.address).await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .await;
    assert_eq!(client.response().await.json()["method"], "POST");
    client.send("HEAD / HTTP/1.1\r\nHost: e\r\n\r\n").await;
    let head = client
        .try_response("HEAD")
        .await
        .expect("an answer")
        .expect("an answer");
    assert!(
        head.get("content-length")
            .is_some_and(|length| length != "0"),
        "{head:?}"
    );
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn the_demo_cell_misbehaves_when_told_to() {
    let cell = DemoCell::start("demo", &["--status", "503"]).await;
    assert_eq!(cell.exchange(GET).await.status, 503);
    assert_eq!(
        cell.exchange("GET /health HTTP/1.1\r\nHost: e\r\n\r\n")
            .await
            .status,
        200
    );

    let cell = DemoCell::start("demo", &["--fail-rate", "1"]).await;
    assert_eq!(cell.exchange(GET).await.status, 500);

    let cell = DemoCell::start("demo", &["--delay", "300ms"]).await;
    let began = Instant::now();
    assert_eq!(cell.exchange(GET).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300));

    let cell = DemoCell::start("demo", &["--close"]).await;
    let mut client = Client::connect(cell.address).await;
    let _ = client.wire().send(GET.as_bytes()).await;
    client.closed().await;

    let refused = output(&["cell", "--name", "c", "--hang", "--cut"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        text(&refused.stderr),
        "cell c: cut and hang exclude each other: expected one of them\n"
    );
}

#[tokio::test]
async fn the_demo_cell_dies_and_comes_back() {
    let mut cell = DemoCell::start("demo", &["--status", "418"]).await;
    cell.misbehave(json!({"status": 503})).await;
    assert_eq!(cell.exchange(GET).await.status, 503);
    cell.kill();
    let error = TcpStream::connect(cell.address).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    cell.restart().await;
    assert_eq!(cell.exchange(GET).await.status, 418);
}

#[tokio::test]
async fn the_demo_cell_ends_on_signals_and_names_a_taken_port() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut cell = DemoCell::start("demo", &[]).await;
        let listen = cell.address.to_string();
        let second = output(&["cell", "--name", "second", "--listen", &listen]);
        assert_eq!(second.status.code(), Some(1));
        assert!(
            text(&second.stderr).contains(&listen),
            "{}",
            text(&second.stderr)
        );
        send_signal(cell.pid(), signal);
        assert!(cell.exited().await.success());
    }
}

/// A directory with all the files of the demo; tests remove or break some of them.
fn project() -> TempDir {
    let directory = TempDir::with_prefix("cellgate-demo-").expect("a temporary directory");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in ["conf/demo.yaml", "config/routing.json"] {
        let to = directory.path().join(path);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::copy(root.join(path), to).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    directory
}

#[test]
fn the_demo_names_what_is_missing() {
    let directory = project();
    for path in ["conf/demo.yaml", "config/routing.json"] {
        let away = directory.path().join("away");
        fs::rename(directory.path().join(path), &away).expect("move away");
        let demo = cellgate(&["demo"])
            .current_dir(directory.path())
            .output()
            .expect("run");
        assert_eq!(demo.status.code(), Some(1));
        assert!(text(&demo.stderr).contains(path), "{}", text(&demo.stderr));
        fs::rename(away, directory.path().join(path)).expect("move back");
    }
}

#[test]
fn check_judges_documents() {
    let directory = TempDir::new().expect("a temporary directory");
    let write = |name: &str, document: &Value| {
        let path = directory.path().join(name);
        fs::write(&path, document.to_string()).expect("write");
        path.to_string_lossy().into_owned()
    };
    let endpoints = json!({"tier1": "http://cell-tier1:9001"});
    let good = write(
        "good.json",
        &document("1", json!({"acme": "tier1"}), endpoints.clone(), "tier1"),
    );
    let bad = write(
        "bad.json",
        &document("", json!({"acme": "teir1"}), endpoints, "tier2"),
    );

    assert_eq!(output(&["check", &good]).status.code(), Some(0));
    let checked = output(&["check", &good, &bad]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stdout) + &text(&checked.stderr);
    for word in ["bad.json", "teir1", "tier1", "tier2", "version"] {
        assert!(said.contains(word), "nothing about {word:?} in {said}");
    }
    let checked = output(&["check", "--json", &bad]);
    assert_eq!(checked.status.code(), Some(1));
    let parsed: Result<Value, _> = serde_json::from_slice(&checked.stdout);
    let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {}", text(&checked.stdout)));
    assert!(
        parsed.to_string().contains("/routingTable/acme"),
        "{parsed}"
    );
    assert_eq!(
        output(&["check", "/no/such/file.json"]).status.code(),
        Some(2)
    );
}

#[test]
fn the_sample_document_is_valid() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/config/routing.json");
    assert_eq!(output(&["check", sample]).status.code(), Some(0));
}

/// Every settings file in the repository passes the check of the command it is for.
#[test]
fn the_settings_that_we_ship_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in fs::read_dir(root.join("conf")).expect("conf/") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let command = match path.file_stem().is_some_and(|name| name == "control") {
                true => "control",
                false => "edge",
            };
            let path = path.to_string_lossy();
            let tested = cellgate(&[command, "-t", "-c", &path])
                .current_dir(root)
                .output()
                .expect("run");
            assert!(tested.status.success(), "{path}: {}", text(&tested.stderr));
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} settings files in conf/");
}

#[tokio::test]
async fn explain_says_where_a_key_goes() {
    let cell = Cell::echo("tier1").await;
    let routing = document(
        "7",
        table(&[("acme", "tier1")]),
        placements(&[&cell]),
        "tier1",
    );
    let edge = Edge::serving(&routing).await;
    let file = edge.path("routing.json").to_string_lossy().into_owned();
    let admin = format!("http://{}", edge.admin);
    for arguments in [
        ["explain", "acme", "--routing", &file],
        ["explain", "acme", "--admin", &admin],
    ] {
        let arguments = arguments.map(str::to_owned);
        let explained =
            tokio::task::spawn_blocking(move || output(&arguments.each_ref().map(String::as_str)));
        let explained = explained.await.expect("run");
        assert!(explained.status.success(), "{}", text(&explained.stderr));
        let said = text(&explained.stdout);
        for word in ["tier1", "tier", &cell.url()] {
            assert!(said.contains(word), "nothing about {word:?} in {said}");
        }
    }
}

#[tokio::test]
async fn health_asks_the_admin_service() {
    let cell = Cell::echo("tier1").await;
    let routing = document("1", json!({}), placements(&[&cell]), "tier1");
    let edge = Edge::serving(&routing).await;
    let ask = |url: String| async move {
        let run = move || output(&["health", "--admin", &url]).status.code();
        tokio::task::spawn_blocking(run).await.expect("run")
    };
    assert_eq!(ask(format!("http://{}", edge.admin)).await, Some(0));
    assert_eq!(
        ask(format!("http://{}", Cell::nobody().await)).await,
        Some(1)
    );
    // The proxy port is not the admin service.
    assert_eq!(ask(format!("http://{}", edge.proxy)).await, Some(1));
}

#[test]
fn help_reads_well() {
    let help = output(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for command in [
        "edge",
        "check",
        "explain",
        "cell",
        "demo",
        "health",
        "completions",
    ] {
        assert!(help.contains(command), "nothing about {command} in {help}");
        let own = output(&[command, "--help"]);
        assert!(own.status.success(), "{command} --help");
        assert!(
            text(&own.stdout).contains("Usage: cellgate"),
            "{command} --help"
        );
    }
    let completions = output(&["completions", "bash"]);
    assert!(completions.status.success());
    assert!(text(&completions.stdout).contains("cellgate"));
    let version = output(&["--version"]);
    assert!(text(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

/// The reader of the output may close it early, as in `… | head -1`.
#[test]
fn a_reader_that_left_is_no_crash() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/config/routing.json");
    let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/demo.yaml");
    for arguments in [
        &["completions", "bash"][..],
        &["check", sample],
        &["explain", "acme", "--routing", sample],
        &["edge", "-c", settings, "-t"],
        &["edge", "-c", "/no/such/settings.yaml"],
        &["cell", "--name", "a", "--listen", "192.0.2.1:1"],
        &["demo", "-c", "/no/such/settings.yaml"],
        &["health", "--admin", "http://127.0.0.1:1"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let second = writer.try_clone().expect("a second end");
        let status = cellgate(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(writer)
            .stderr(second)
            .status()
            .expect("run cellgate");
        let code = status.code().unwrap_or(i32::MAX);
        assert!(code <= 2, "{arguments:?} ended with {status}");
    }
}
