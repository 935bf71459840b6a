//! Starting and refusing to start: one line for each reason, and an exit code.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::harness::{Cell, Edge, EdgeBuilder, document, placements, table};

fn good() -> Value {
    document(
        "1",
        json!({"acme": "one"}),
        json!({"one": "http://127.0.0.1:9"}),
        "one",
    )
}

fn builder() -> EdgeBuilder {
    Edge::builder().routing(&good())
}

#[tokio::test]
async fn without_a_routing_file() {
    Edge::builder().run().await.assert_failed(&["routing.json"]);
}

#[tokio::test]
async fn with_a_routing_file_that_is_not_valid() {
    let mut document = good();
    document["routingTable"]["acme"] = json!("oen");
    document["defaultPlacement"] = json!("two");
    let ended = Edge::builder().routing(&document).run().await;
    // All problems, not only the first.
    ended.assert_failed(&["routing.json", "oen", "two", "line 1"]);
}

#[tokio::test]
async fn with_a_routing_file_cut_short() {
    let text = good().to_string();
    Edge::builder()
        .routing_bytes(&text[..text.len() - 3])
        .run()
        .await
        .assert_failed(&["routing.json"]);
}

#[tokio::test]
async fn with_a_routing_file_that_is_a_directory() {
    let builder = Edge::builder();
    fs::create_dir(builder.routing_path()).expect("a directory");
    builder.run().await.assert_failed(&["routing.json"]);
}

/// The edge ends at once, without retrying for half a minute.
#[tokio::test]
async fn with_a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = builder()
        .set("cellgate.listen", json!([address]))
        .run()
        .await;
    ended.assert_failed(&[&address, "in use"]);
    let ended = builder()
        .set("cellgate.admin_listen", address.as_str())
        .run()
        .await;
    ended.assert_failed(&[&address, "in use"]);
    // The second of two listeners as well.
    let ended = builder()
        .set("cellgate.listen", json!(["127.0.0.1:0", address]))
        .run()
        .await;
    ended.assert_failed(&[&address, "in use"]);
}

#[tokio::test]
async fn with_an_address_that_is_not_ours() {
    // From the range for documentation (RFC 5737).
    let ended = builder()
        .set("cellgate.listen", json!(["192.0.2.1:8080"]))
        .run()
        .await;
    ended.assert_failed(&["192.0.2.1:8080"]);
}

#[tokio::test]
async fn with_settings_that_are_wrong() {
    for (path, value, words) in [
        (
            "cellgate.timeouts.connect",
            json!("soon"),
            vec!["connect", "soon"],
        ),
        (
            "cellgate.timeouts.conect",
            json!("5s"),
            vec!["conect", "connect"],
        ),
        (
            "cellgate.admin_listn",
            json!("127.0.0.1:1"),
            vec!["admin_listn", "admin_listen"],
        ),
        (
            "cellgate.listen",
            json!(["localhost"]),
            vec!["listen", "localhost"],
        ),
        (
            "cellgate.limits.header_bytes",
            json!(-1),
            vec!["header_bytes"],
        ),
        (
            "cellgate.trusted_proxies",
            json!(["10.0.0.0/33"]),
            vec!["10.0.0.0/33"],
        ),
        (
            "cellgate.hosts",
            json!({"cell": "not an address"}),
            vec!["not an address"],
        ),
        (
            "cellgate.routing_key.header",
            json!("not a header"),
            vec!["not a header"],
        ),
        (
            "cellgate.log_format",
            json!("xml"),
            vec!["xml", "text", "json"],
        ),
        (
            "cellgate.access_log",
            json!("/no/such/directory/access.log"),
            vec!["/no/such/directory"],
        ),
        (
            "cellgate.tls",
            json!({"ca_file": "/no/such/ca.pem"}),
            vec!["/no/such/ca.pem"],
        ),
        ("thread", json!(2), vec!["thread", "threads"]),
        (
            "grace_period_seconds",
            json!("long"),
            vec!["grace_period_seconds"],
        ),
    ] {
        let ended = builder().set(path, value).run().await;
        ended.assert_failed(&words);
    }
}

#[tokio::test]
async fn with_settings_that_cannot_be_read() {
    let builder = builder();
    let missing = builder.directory().join("nowhere.yaml");
    builder
        .spawn_with(&missing)
        .ended()
        .await
        .assert_failed(&["nowhere.yaml"]);
    let broken = builder.directory().join("broken.yaml");
    fs::write(&broken, "cellgate: [unclosed\n").expect("write");
    builder
        .spawn_with(&broken)
        .ended()
        .await
        .assert_failed(&["broken.yaml"]);
}

#[tokio::test]
async fn a_test_run_says_that_all_is_well() {
    let ended = builder().arg("-t").run().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(
        !ended.log.contains("listening on"),
        "a test run opened its listeners: {}",
        ended.log
    );
}

#[tokio::test]
async fn a_test_run_lists_every_problem() {
    let settings = builder()
        .set("cellgate.timeouts.conect", "5s")
        .set("cellgate.listen", json!(["localhost"]))
        .set("thread", 2)
        .arg("-t");
    let ended = settings.run().await;
    ended.assert_failed(&["conect", "localhost", "thread"]);
    assert_eq!(ended.status.code(), Some(1));

    let mut document = good();
    document["defaultPlacement"] = json!("two");
    document["version"] = json!("");
    let ended = Edge::builder().routing(&document).arg("-t").run().await;
    ended.assert_failed(&["routing.json", "defaultPlacement", "version"]);
    assert_eq!(ended.status.code(), Some(1));
}

/// With an invalid setting, the default routing file is not checked in place of the intended one.
#[tokio::test]
async fn a_test_run_judges_no_other_routing_file() {
    let builder = builder();
    fs::create_dir(builder.directory().join("config")).expect("a directory");
    fs::write(builder.directory().join("config/routing.json"), "{}").expect("write");
    let broken = builder.directory().join("broken.yaml");
    fs::write(&broken, "cellgate: [unclosed\n").expect("write");
    let ended = builder.arg("-t").spawn_with(&broken).ended().await;
    ended.assert_failed(&["broken.yaml", "the routing file was not checked"]);
    assert!(!ended.log.contains("routing.json"), "{}", ended.log);
}

/// A daemon reports what would fail later before it leaves the terminal.
#[tokio::test]
async fn with_what_a_daemon_cannot_have() {
    let builder = builder()
        .set("pid_file", "/no/such/edge.pid")
        .set("error_log", "/no/such/edge.log");
    let words = ["edge.yaml:", "pid_file", "error_log", "/no/such does not"];
    let tested = builder.arg("-t");
    assert!(tested.run().await.status.success(), "it is no daemon");
    let tested = tested.arg("-d");
    tested.run().await.assert_failed(&words);
    self::builder()
        .set("daemon", true)
        .set("pid_file", "/no/such/edge.pid")
        .run()
        .await
        .assert_failed(&["pid_file", "/no/such does not"]);
    self::builder()
        .set("user", "no one")
        .set("group", "no group")
        .arg("-t")
        .run()
        .await
        .assert_failed(&["user", "no one", "group", "no group"]);
}

#[tokio::test]
async fn the_environment_wins() {
    let cell = Cell::echo("one").await;
    let builder = Edge::builder();
    let elsewhere = builder.directory().join("elsewhere.json");
    let document = document(
        "env",
        table(&[("acme", "one")]),
        placements(&[&cell]),
        "one",
    );
    fs::write(&elsewhere, document.to_string()).expect("write");
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("an address").port()
    };
    let edge = builder
        .env("CONFIG_PATH", elsewhere.to_string_lossy())
        .env("PORT", port.to_string())
        .start()
        .await;
    assert_eq!(edge.proxy.port(), port);
    assert_eq!(edge.config().await["version"], "env");
    assert_eq!(edge.get("acme", "/").await.text(), "one");
}

#[tokio::test]
async fn a_bad_environment_is_refused() {
    builder()
        .env("PORT", "http")
        .run()
        .await
        .assert_failed(&["PORT", "http"]);
    builder()
        .env("PORT", "70000")
        .run()
        .await
        .assert_failed(&["PORT", "70000"]);
    let ended = builder()
        .env("CONFIG_PATH", "/no/such/routing.json")
        .run()
        .await;
    ended.assert_failed(&["/no/such/routing.json"]);
}

#[tokio::test]
async fn several_listeners() {
    let cell = Cell::echo("one").await;
    let document = document("1", table(&[("acme", "one")]), placements(&[&cell]), "one");
    let listen = json!(["127.0.0.1:0", {"address": "127.0.0.1:0"}, "[::1]:0"]);
    let listen = if TcpListener::bind("[::1]:0").is_ok() {
        listen
    } else {
        json!([listen[0], listen[1]])
    };
    let count = listen.as_array().map_or(0, Vec::len);
    let edge = Edge::builder()
        .routing(&document)
        .set("cellgate.listen", listen)
        .start()
        .await;
    let proxies = edge.proxies();
    assert_eq!(proxies.len(), count);
    for address in proxies {
        let mut client = crate::harness::Client::connect(address).await;
        assert_eq!(client.get("acme", "/").await.text(), "one", "{address}");
    }
}

/// The routing file is the only source of a table; a relative path is relative to the working directory.
#[tokio::test]
async fn a_relative_routing_path() {
    let edge = builder()
        .set("cellgate.routing.path", "routing.json")
        .start()
        .await;
    assert_eq!(edge.config().await["version"], "1");
}

/// All files that the manifest names must be in the image's build context.
#[test]
fn the_image_is_built_from_all_that_the_manifest_names() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect(name);
    let (dockerfile, ignored) = (read("Dockerfile"), read(".dockerignore"));
    let manifest = read("Cargo.toml");
    let mut named = vec![
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "crates",
        "conf",
        "config",
    ];
    if manifest.contains("[[bench]]") {
        named.push("benches");
    }
    for name in named {
        let copied = dockerfile
            .lines()
            .filter(|line| line.starts_with("COPY") && !line.contains("--from"))
            .any(|line| line.split_whitespace().any(|word| word == name));
        assert!(copied, "the Dockerfile copies no {name}");
        let kept = ignored.lines().any(|line| line == format!("!{name}"));
        assert!(kept, ".dockerignore leaves {name} out");
    }
}
