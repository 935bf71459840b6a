//! `cellgate ctl` against a real control plane.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::harness::{Authority, ControlProcess, table, tiers};

/// A control plane, and a shell next to it.
struct Shell {
    control: ControlProcess,
}

struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellgate"));
    command.arg("ctl").args(arguments).stdin(Stdio::null());
    for name in ["CELLGATE_CONTROL_URL", "CELLGATE_TOKEN"] {
        command.env_remove(name);
    }
    command
}

async fn run(mut command: Command) -> Ran {
    let ran = spawn_blocking(move || command.output())
        .await
        .expect("run ctl");
    let Output {
        status,
        stdout,
        stderr,
    } = ran.expect("run ctl");
    Ran {
        status: status.code().expect("an exit status"),
        stdout: String::from_utf8(stdout).expect("text"),
        stderr: String::from_utf8(stderr).expect("text"),
    }
}

impl Shell {
    async fn serving(document: &Value) -> Shell {
        let shell = Shell {
            control: ControlProcess::builder().start().await,
        };
        let path = shell.control.path("start.json");
        fs::write(path, document.to_string()).expect("write");
        shell.good(&["import", "start.json"]).await;
        shell
    }

    fn url(&self) -> String {
        format!("http://{}", self.control.address)
    }

    async fn ctl(&self, arguments: &[&str]) -> Ran {
        let mut command = command(arguments);
        command.env("CELLGATE_CONTROL_URL", self.url());
        command.current_dir(self.control.directory());
        run(command).await
    }

    /// The standard output of a command that succeeds.
    #[track_caller]
    fn good(&self, arguments: &[&str]) -> impl Future<Output = String> {
        let at = std::panic::Location::caller();
        async move {
            let ran = self.ctl(arguments).await;
            assert_eq!(ran.status, 0, "at {at}: {}{}", ran.stderr, ran.stdout);
            assert_eq!(ran.stderr, "", "at {at}");
            ran.stdout
        }
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.good(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&text).expect("JSON")
    }
}

fn start() -> Value {
    tiers("1", table(&[("acme", "tier1"), ("globex", "tier2")]))
}

#[tokio::test]
async fn keys_are_set_read_listed_and_unset() {
    let shell = Shell::serving(&start()).await;
    assert_eq!(shell.good(&["get", "acme"]).await, "tier1\n");
    let set = shell.good(&["set", "acme", "tier2", "a/b", "tier1"]).await;
    assert!(
        set.starts_with("generation 2: 2 set, 3 keys in all; etag g2-"),
        "{set}"
    );
    assert_eq!(shell.good(&["get", "a/b"]).await, "tier1\n");
    assert_eq!(
        shell.good(&["keys"]).await,
        "KEY     PLACEMENT\na/b     tier1\nacme    tier2\nglobex  tier2\n"
    );
    assert_eq!(
        shell
            .good(&["keys", "--placement", "tier2", "--limit", "1"])
            .await,
        "KEY   PLACEMENT\nacme  tier2\nand 1 more\n"
    );
    assert_eq!(
        shell.json(&["keys", "--prefix", "g"]).await["keys"],
        json!([{"key": "globex", "placement": "tier2"}])
    );
    let again = shell.good(&["set", "acme", "tier2"]).await;
    assert!(
        again.starts_with("unchanged: generation 2 has this content already; etag g2-"),
        "{again}"
    );
    let unset = shell.good(&["unset", "acme", "never-there"]).await;
    assert!(
        unset.starts_with("generation 3: 1 removed, 2 keys in all;"),
        "{unset}"
    );

    let gone = shell.ctl(&["get", "acme"]).await;
    assert_eq!((gone.status, gone.stdout.as_str()), (1, ""));
    assert!(
        gone.stderr.starts_with("no key \"acme\" in generation 3"),
        "{}",
        gone.stderr
    );
    let unknown = shell.ctl(&["set", "acme", "tier9"]).await;
    assert_eq!(unknown.status, 1);
    assert!(
        unknown
            .stderr
            .starts_with("set[\"acme\"]: unknown placement \"tier9\""),
        "{}",
        unknown.stderr
    );
    let twice = shell.ctl(&["set", "x", "tier1", "x", "tier2"]).await;
    assert_eq!(
        (twice.status, twice.stderr.as_str()),
        (1, "set[\"x\"]: duplicate key\n")
    );
    let odd = shell.ctl(&["set", "x", "tier1", "y"]).await;
    assert_eq!(odd.status, 1, "{}", odd.stderr);
}

#[tokio::test]
async fn a_document_is_read_edited_and_put() {
    let shell = Shell::serving(&start()).await;
    let path = shell.control.path("edited.json");
    let got = shell.good(&["get", "-o", "edited.json"]).await;
    let etag = got
        .trim()
        .strip_prefix("edited.json: etag ")
        .expect("an etag")
        .to_owned();
    let text = fs::read_to_string(&path).expect("the document");
    assert_eq!(shell.good(&["get"]).await, text);
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), start());

    fs::write(
        &path,
        text.replace("\"acme\": \"tier1\"", "\"acme\": \"tier2\""),
    )
    .expect("write");
    let dry = shell.good(&["import", "edited.json", "--dry-run"]).await;
    assert_eq!(
        dry,
        "dry run: nothing was changed\n~ key  acme  tier1 -> tier2\n"
    );
    let dry = shell.json(&["import", "edited.json", "--dry-run"]).await;
    assert_eq!(
        (&dry["changed"], &dry["diff"]["keys"]["moved"]["count"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(shell.good(&["get", "acme"]).await, "tier1\n");
    let put = shell
        .good(&["import", "edited.json", "--if-match", &etag])
        .await;
    assert!(
        put.starts_with("generation 2: 1 set, 2 keys in all"),
        "{put}"
    );

    for dry in [&["--dry-run"][..], &[]] {
        let arguments = [&["import", "edited.json", "--if-match", &etag], dry].concat();
        let lost = shell.ctl(&arguments).await;
        assert_eq!(lost.status, 1, "{}", lost.stdout);
        assert!(
            lost.stderr.contains("not the expected one (its etag: g2-"),
            "{}",
            lost.stderr
        );

        // The problems are those that `check` reports, in the same words.
        fs::write(
            shell.control.path("broken.json"),
            text.replace(
                "\"globex\": \"tier2\"",
                "\"globex\": \"tier3\",
\"x\": 1",
            ),
        )
        .expect("write");
        let refused = shell.ctl(&[&["import", "broken.json"], dry].concat()).await;
        let mut check = Command::new(env!("CARGO_BIN_EXE_cellgate"));
        check
            .args(["check", "broken.json"])
            .current_dir(shell.control.directory());
        let check = run(check).await;
        assert_eq!((refused.status, check.status), (1, 1), "{}", refused.stdout);
        assert!(
            refused.stderr.starts_with("broken.json:"),
            "{}",
            refused.stderr
        );
        assert_eq!(refused.stderr, check.stderr);
    }
    let missing = shell.ctl(&["import", "no-such-file"]).await;
    assert_eq!(missing.status, 2);
}

#[tokio::test]
async fn a_dry_run_refuses_what_the_control_plane_would() {
    let shell = Shell {
        control: ControlProcess::builder().start().await,
    };
    let write = |name: &str, text: &str| fs::write(shell.control.path(name), text).expect("write");
    write("document.json", &start().to_string());
    write(
        "twice.json",
        r#"{"set": {"acme": "tier1", "acme": "tier2"}}"#,
    );
    for etag in ["*", "g1-00000000000000000000000000000000"] {
        for dry in [&["--dry-run"][..], &[]] {
            let arguments = [&["import", "document.json", "--if-match", etag], dry].concat();
            let lost = shell.ctl(&arguments).await;
            assert_eq!(lost.status, 1, "{arguments:?}: {}", lost.stdout);
            assert!(
                lost.stderr.contains("there is no generation yet"),
                "{}",
                lost.stderr
            );
        }
    }
    shell.good(&["import", "document.json"]).await;
    let mut said = Vec::new();
    for dry in [&["--dry-run"][..], &[]] {
        let refused = shell
            .ctl(&[&["import", "--keys", "twice.json"], dry].concat())
            .await;
        assert_eq!(refused.status, 1, "{}", refused.stdout);
        assert!(refused.stderr.contains("acme"), "{}", refused.stderr);
        said.push(refused.stderr);
    }
    assert_eq!(said[0], said[1]);
}

#[tokio::test]
async fn a_file_of_keys_is_one_generation() {
    let shell = Shell::serving(&start()).await;
    fs::write(
        shell.control.path("keys.json"),
        r#"{"set": {"a": "tier1", "b": "tier2"}, "remove": ["acme"]}"#,
    )
    .expect("write");
    let dry = shell
        .good(&["import", "--keys", "keys.json", "--dry-run"])
        .await;
    assert_eq!(
        dry,
        "dry run: nothing was changed\n+ key  a  tier1\n+ key  b  tier2\n- key  acme  tier1\n"
    );
    let done = shell.good(&["import", "--keys", "keys.json"]).await;
    assert!(
        done.starts_with("generation 2: 2 set, 1 removed, 3 keys in all"),
        "{done}"
    );
    fs::write(
        shell.control.path("keys.json"),
        r#"{"set": {"a": "tier9"}}"#,
    )
    .expect("write");
    for dry in [&["--dry-run"][..], &[]] {
        let refused = shell
            .ctl(&[&["import", "--keys", "keys.json"], dry].concat())
            .await;
        assert_eq!(refused.status, 1);
        assert!(
            refused
                .stderr
                .starts_with("keys.json: set[\"a\"]: unknown placement"),
            "{}",
            refused.stderr
        );
    }
}

#[tokio::test]
async fn history_is_listed_shown_compared_and_restored() {
    let shell = Shell::serving(&start()).await;
    shell.good(&["set", "acme", "tier2"]).await;
    let history = shell.good(&["history"]).await;
    let lines: Vec<&str> = history.lines().collect();
    assert_eq!(lines.len(), 3, "{history}");
    assert!(lines[0].starts_with("GENERATION  AT "), "{history}");
    assert!(
        lines[1].starts_with("2 ") && lines[1].contains("anonymous"),
        "{history}"
    );
    assert!(lines[1].ends_with("batch: 1 set, 0 removed"), "{history}");
    let one = shell.json(&["history", "--limit", "1"]).await;
    assert_eq!(one["generations"].as_array().map(Vec::len), Some(1));

    let shown = shell.good(&["show", "2"]).await;
    assert!(
        shown.starts_with("generation  2\nparent      1\nat          20"),
        "{shown}"
    );
    let old = shell.good(&["show", "1", "--document"]).await;
    assert_eq!(serde_json::from_str::<Value>(&old).expect("JSON"), start());
    let diff = "from 1 to 2\n~ key  acme  tier1 -> tier2\n";
    assert_eq!(shell.good(&["diff", "2"]).await, diff);
    assert_eq!(shell.good(&["diff", "1", "2"]).await, diff);
    assert_eq!(
        shell.good(&["diff", "2", "2"]).await,
        "from 2 to 2\nno change\n"
    );
    let restored = shell.good(&["restore", "1"]).await;
    assert!(
        restored.starts_with("generation 3: 1 set, 2 keys in all;"),
        "{restored}"
    );
    assert_eq!(shell.good(&["get", "acme"]).await, "tier1\n");
    let unknown = shell.ctl(&["show", "99"]).await;
    assert_eq!(
        (unknown.status, unknown.stderr.as_str()),
        (1, "there is no generation 99: the newest is 3\n")
    );
}

#[tokio::test]
async fn status_and_edges_are_shown() {
    let shell = Shell::serving(&start()).await;
    let status = shell.good(&["status"]).await;
    assert!(status.contains("\ngeneration     1\n"), "{status}");
    assert!(
        status.contains("\nedges          0 connected, 0 in sync\n"),
        "{status}"
    );
    let edges = shell.good(&["edges"]).await;
    assert_eq!(edges.lines().count(), 1, "{edges}");
    assert_eq!(shell.json(&["edges"]).await, json!({"edges": []}));
    let unknown = shell.ctl(&["edges", "e-1"]).await;
    assert_eq!(unknown.status, 1);
    let unknown = shell.ctl(&["edges", "e-1", "--json"]).await;
    let json: Value = serde_json::from_str(&unknown.stdout).expect("JSON");
    assert_eq!(
        (unknown.status, &json["error"]),
        (1, &json!("unknown_edge"))
    );
}

#[tokio::test]
async fn a_token_is_shown() {
    let tokens = json!([
        {"name": "ops", "token": "write-secret-0123456789", "roles": ["write"]},
        {"name": "watch", "token": "read-secret-0123456789", "roles": ["read"]},
    ]);
    let builder = ControlProcess::builder().set("tokens", tokens);
    let shell = Shell {
        control: builder.start().await,
    };
    fs::write(shell.control.path("token"), "write-secret-0123456789\n").expect("write");
    fs::write(shell.control.path("start.json"), start().to_string()).expect("write");
    let none = shell.ctl(&["status"]).await;
    assert_eq!(none.status, 1);
    assert!(none.stderr.starts_with("no valid token"), "{}", none.stderr);
    shell.good(&["status", "--token-file", "token"]).await;
    shell
        .good(&["import", "start.json", "--token-file", "token"])
        .await;
    shell
        .good(&["set", "acme", "tier2", "--token-file", "token"])
        .await;
    let who = shell.json(&["show", "2", "--token-file", "token"]).await["author"]["who"].take();
    assert_eq!(who, "ops");

    let with = async |token: &str, arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("CELLGATE_CONTROL_URL", shell.url());
        command.env("CELLGATE_TOKEN", token);
        run(command).await
    };
    assert_eq!(
        with("read-secret-0123456789", &["get", "acme"])
            .await
            .stdout,
        "tier2\n"
    );
    let forbidden = with("read-secret-0123456789", &["unset", "acme"]).await;
    assert_eq!(forbidden.status, 1);
    assert_eq!(
        forbidden.stderr,
        "token \"watch\" lacks the role \"write\"\n"
    );
    assert_eq!(with("wrong", &["get", "acme"]).await.status, 1);
    let missing = shell.ctl(&["status", "--token-file", "no-such-file"]).await;
    assert_eq!(missing.status, 2);
}

#[tokio::test]
async fn nobody_there_is_something_else_than_a_refusal() {
    // The port is bound and nothing listens: nobody else takes it, and connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("an address"));
    for (url, part) in [
        (url.as_str(), "cannot connect to 127.0.0.1:"),
        ("ftp://127.0.0.1", "does not begin with http://"),
        (
            "127.0.0.1:1",
            "(valid: http://HOST:PORT or https://HOST:PORT)",
        ),
        (
            "https://127.0.0.1:1/?x",
            "has more than a host, a port and a path",
        ),
    ] {
        let ran = run(command(&["status", "--url", url])).await;
        assert_eq!(ran.status, 2, "{url}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{url}: {}", ran.stderr);
        let ran = run(command(&["status", "--json", "--url", url])).await;
        let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
        assert_eq!((ran.status, &json["error"]), (2, &json!("unreachable")));
    }
}

#[tokio::test]
async fn a_control_plane_behind_tls_is_verified_and_so_is_who_asks() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("another ca"));
    let builder = ControlProcess::builder();
    let path = |name: &str| builder.path(name);
    fs::write(path("start.json"), start().to_string()).expect("write");
    authority.write(&path("ca.pem"));
    stranger.write(&path("stranger.pem"));
    let server = authority.issue("127.0.0.1");
    server.write(&path("server.pem"), &path("server.key"));
    let elsewhere = authority.issue("elsewhere.test");
    elsewhere.write(&path("elsewhere.pem"), &path("elsewhere.key"));
    let client = authority.issue("deploy");
    client.write(&path("client.pem"), &path("client.key"));
    let file = |name: &str| json!(path(name).to_string_lossy());
    let serving = async |name: &str, client_ca: bool| {
        let mut tls = json!({
            "cert": file(&format!("{name}.pem")),
            "key": file(&format!("{name}.key")),
        });
        let mut builder = builder.clone();
        if client_ca {
            tls["client_ca"] = file("ca.pem");
            let token = json!({"name": "deploy", "token": "secret", "roles": ["write"]});
            builder = builder.set("tokens", json!([token]));
        }
        let control = builder.set("tls", tls).start().await;
        let url = format!("https://{}", control.address);
        (Shell { control }, url)
    };

    let (shell, url) = serving("server", false).await;
    let status = ["status", "--url", &url, "--ca-file"];
    shell.good(&[&status[..], &["ca.pem"]].concat()).await;
    for (ca_file, part) in [
        ("stranger.pem", "its certificate is not valid"),
        ("server.key", "no usable PEM certificate in it"),
        ("no-such-file", "No such file"),
    ] {
        let ran = shell.ctl(&[&status[..], &[ca_file]].concat()).await;
        assert_eq!(ran.status, 2, "{ca_file}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{ca_file}: {}", ran.stderr);
    }
    // The system's roots have not signed it either.
    let ran = shell.ctl(&status[..3]).await;
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    drop(shell);

    let (shell, url) = serving("elsewhere", false).await;
    let ran = shell
        .ctl(&["status", "--url", &url, "--ca-file", "ca.pem"])
        .await;
    assert_eq!(ran.status, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("mismatch"), "{}", ran.stderr);
    drop(shell);

    let (shell, url) = serving("server", true).await;
    fs::write(path("token"), "secret").expect("write");
    let server = [
        "--url",
        &url,
        "--ca-file",
        "ca.pem",
        "--token-file",
        "token",
    ];
    let import = [&["import", "start.json"][..], &server].concat();
    let ran = shell.ctl(&import).await;
    assert_eq!(ran.status, 2, "{}{}", ran.stdout, ran.stderr);
    let cert = ["--client-cert", "client.pem", "--client-key", "client.key"];
    shell.good(&[&import[..], &cert].concat()).await;
    let show = [&["show", "1"][..], &server].concat();
    let who = shell.json(&[&show[..], &cert].concat()).await["author"]["who"].take();
    assert_eq!(who, "deploy");
}
