//! The command against files, and against admin services good and bad.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use clap::Parser;
use serde_json::json;

use std::time::Duration;

use super::edge::ANSWER_BYTES;
use super::*;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/routing.json");
const RESILIENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/resilience.json");

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// Exit status, standard output and standard error of one run.
fn run_with(config_path: Option<&str>, args: &[&str]) -> (u8, String, String) {
    let Cli { args } = Cli::parse_from(["explain"].iter().chain(args));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = explain(
        &args,
        config_path.map(OsString::from),
        &mut stdout,
        &mut stderr,
    )
    .unwrap();
    (
        status,
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

fn run(args: &[&str]) -> (u8, String, String) {
    run_with(None, args)
}

/// Answers one request with `answer`; joins to the request's bytes.
fn admin_service(answer: String) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, service)
}

fn http_answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What the command makes of an admin service that answers with `answer`.
fn run_against(
    answer: String,
    key: &str,
    more: &[&str],
) -> ((u8, String, String), String, SocketAddr) {
    let (address, service) = admin_service(answer);
    let url = format!("http://{address}");
    let mut args = vec![key, "--admin", &url];
    args.extend(more);
    let result = run(&args);
    (result, service.join().unwrap(), address)
}

#[test]
fn a_file_answers() {
    let (status, stdout, stderr) = run(&["visa", "--routing", SAMPLE]);
    assert_eq!(
        stdout,
        format!(
            "key        visa\n\
             placement  visa\n\
             reason     dedicated (visa serves this key alone)\n\
             endpoint   http://cell-visa:9004\n\
             table      {SAMPLE} (version 1.0.0)\n"
        )
    );
    assert_eq!((status, stderr.as_str()), (0, ""));

    let (status, stdout, _) = run(&["hooli", "--routing", SAMPLE, "--json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap(),
        json!({
            "key": "hooli", "placement": "tier3", "reason": "default",
            "why": "the key is not in the table, and tier3 is the default placement",
            "endpoint": "http://cell-tier3:9003",
            "endpoints": [{"url": "http://cell-tier3:9003", "weight": 1}],
            "fallback": null, "version": "1.0.0",
        })
    );
    assert_eq!(status, 0);
}

#[test]
fn a_file_tells_endpoints_and_fallback() {
    let (status, stdout, _) = run(&["hooli", "--routing", RESILIENCE]);
    assert_eq!(
        stdout,
        format!(
            "key        hooli\n\
             placement  tier3\n\
             reason     default (the key is not in the table, and tier3 is the default placement)\n\
             endpoints  http://cell-tier3:9003 (weight 3), http://cell-tier3b:9003 (weight 1)\n\
             table      {RESILIENCE} (version 2.0.0)\n"
        )
    );
    assert_eq!(status, 0);
    let (_, stdout, _) = run(&["visa", "--routing", RESILIENCE]);
    assert!(
        stdout.contains("endpoint   http://cell-visa:9004\nfallback   tier3\n"),
        "{stdout}"
    );
    assert!(
        stdout.contains("reason     dedicated (visa is declared dedicated)\n"),
        "{stdout}"
    );
}

#[test]
fn the_environment_names_the_file_unless_the_command_line_does() {
    assert_eq!(run_with(Some(SAMPLE), &["visa"]).0, 0);
    assert_eq!(
        run_with(Some("/no/such/file"), &["visa", "--routing", SAMPLE]).0,
        0
    );
    let (status, stdout, stderr) = run_with(Some("/no/such/file"), &["visa"]);
    assert_eq!((status, stdout.as_str()), (2, ""));
    assert!(
        stderr.starts_with("/no/such/file: cannot be read: "),
        "{stderr}"
    );
}

#[test]
fn a_file_with_problems_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "{}").unwrap();
    let path = file.path().to_str().unwrap();
    let (status, stdout, stderr) = run(&["acme", "--routing", path]);
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert_eq!(stderr.lines().count(), 4, "{stderr}");
    assert!(
        stderr.starts_with(&format!("{path}:1:1: missing field \"version\"\n")),
        "{stderr}"
    );

    let (status, stdout, stderr) = run(&["acme", "--routing", path, "--json"]);
    let failure: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(failure["error"], "invalid_routing_document");
    assert_eq!(failure["problems"].as_array().unwrap().len(), 4);
    assert_eq!((status, stderr.as_str()), (1, ""));
}

#[test]
fn a_key_that_no_request_carries_is_refused() {
    for key in ["", " acme", "ac\nme"] {
        let (status, stdout, stderr) = run(&[key, "--routing", SAMPLE]);
        assert_eq!((status, stdout.as_str()), (1, ""), "{key:?}");
        assert!(stderr.contains("routing key"), "{stderr}");
    }
}

const ANSWER: &str = r#"{"key": "a b/ü", "placement": "tier1", "reason": "tier", "endpoint": "http://cell-tier1:9001",
    "addresses": ["127.0.0.1:9001", "[::1]:9001"], "generation": 3, "version": "1.0.0", "later": true}"#;

#[test]
fn an_edge_answers() {
    let ((status, stdout, stderr), request, address) =
        run_against(http_answer("200 OK", ANSWER), "a b/ü", &[]);
    assert_eq!(
        stdout,
        "key         a b/ü\n\
         placement   tier1\n\
         reason      tier (tier1 serves several keys or is a shared tier)\n\
         endpoint    http://cell-tier1:9001\n\
         addresses   127.0.0.1:9001, [::1]:9001\n\
         generation  3 (version 1.0.0)\n"
    );
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(
        request.starts_with("GET /debug/route?key=a%20b%2F%C3%BC HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request
            .to_lowercase()
            .contains(&format!("\r\nhost: {address}\r\n")),
        "{request}"
    );

    let ((status, stdout, _), ..) =
        run_against(http_answer("200 OK", ANSWER), "a b/ü", &["--json"]);
    let passed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        passed,
        serde_json::from_str::<serde_json::Value>(ANSWER).unwrap()
    );
    assert_eq!(status, 0);
}

#[test]
fn a_placement_without_addresses_is_called_so() {
    let answer = ANSWER.replace(r#"["127.0.0.1:9001", "[::1]:9001"]"#, "[]");
    let ((_, stdout, _), ..) = run_against(http_answer("200 OK", &answer), "acme", &[]);
    assert!(
        stdout.contains("addresses   none: the name is not resolved\n"),
        "{stdout}"
    );
}

fn candidate(placement: &str, port: u16, why_not: Option<&str>) -> serde_json::Value {
    json!({
        "placement": placement, "endpoint": format!("http://cell-{placement}:{port}"),
        "address": format!("127.0.0.1:{port}"), "usable": why_not.is_none(), "why_not": why_not,
        "in_flight": 0, "last_failure": why_not.map(|_| json!(
            {"at": "2026-01-03T20:45:12Z", "reason": "probe", "detail": "connection refused"}
        )),
    })
}

/// What is printed after the reason.
fn explained(fields: serde_json::Value) -> String {
    let mut answer: serde_json::Value = serde_json::from_str(ANSWER).unwrap();
    for (name, value) in fields.as_object().unwrap() {
        answer[name] = value.clone();
    }
    let ((status, stdout, stderr), ..) =
        run_against(http_answer("200 OK", &answer.to_string()), "acme", &[]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    let (_, rest) = stdout.split_once("shared tier)\n").unwrap();
    rest.strip_suffix("generation  3 (version 1.0.0)\n")
        .unwrap()
        .to_owned()
}

#[test]
fn one_endpoint_that_is_well_needs_no_list() {
    let fields = json!({"served_by": "tier1", "chosen": "127.0.0.1:9001",
        "addresses": ["127.0.0.1:9001"], "candidates": [candidate("tier1", 9001, None)]});
    assert_eq!(
        explained(fields),
        "endpoint    http://cell-tier1:9001\n\
         addresses   127.0.0.1:9001\n"
    );
    let fields = json!({"addresses": [], "candidates": [], "resolution_error": "no such host"});
    assert_eq!(
        explained(fields),
        "endpoint    http://cell-tier1:9001\n\
         addresses   none: the name is not resolved (no such host)\n"
    );
}

#[test]
fn of_several_endpoints_it_says_which_and_why_not_the_others() {
    let fields = json!({"served_by": "tier1", "chosen": "127.0.0.1:2", "candidates": [
        candidate("tier1", 1, None),
        candidate("tier1", 2, None),
        candidate("tier1", 3, Some("unhealthy: its health probes fail")),
    ]});
    assert_eq!(
        explained(fields),
        "served by   tier1\n\
         endpoint    http://cell-tier1:2\n\
         candidates  tier1  http://cell-tier1:1  127.0.0.1:1  could be chosen as well\n            \
         tier1  http://cell-tier1:2  127.0.0.1:2  would be chosen now\n            \
         tier1  http://cell-tier1:3  127.0.0.1:3  unhealthy: its health probes fail; \
         last failure at 2026-01-03T20:45:12Z: connection refused\n"
    );
}

#[test]
fn it_says_who_serves_instead() {
    let open = "circuit open: the next try is in 12.3 s";
    let fields = json!({"served_by": "tier3", "failover_reason": "circuit_open",
        "chosen": "127.0.0.1:3",
        "candidates": [candidate("tier1", 1, Some(open)), candidate("tier3", 3, None)]});
    let shown = explained(fields);
    assert!(
        shown.starts_with(
            "served by   tier3, as a fallback (circuit_open)\n\
             endpoint    http://cell-tier3:3\n\
             candidates  tier1  http://cell-tier1:1  127.0.0.1:1  circuit open: "
        ),
        "{shown}"
    );
    let fields = json!({"served_by": null, "failover_reason": "circuit_open", "chosen": null,
        "candidates": [candidate("tier1", 1, Some(open))]});
    let shown = explained(fields);
    assert!(
        shown.starts_with("served by   nobody: requests get 503 (circuit_open)\ncandidates  "),
        "{shown}"
    );
}

#[test]
fn a_long_list_is_cut() {
    let many: Vec<_> = (1..=25)
        .map(|port| candidate("tier1", port, None))
        .collect();
    let shown = explained(json!({"served_by": "tier1", "chosen": "127.0.0.1:25",
        "candidates": many}));
    assert_eq!(shown.lines().count(), 23, "{shown}");
    assert!(
        shown.contains("endpoint    http://cell-tier1:25\n"),
        "{shown}"
    );
    assert!(
        shown.ends_with("and 5 more (--json shows all)\n"),
        "{shown}"
    );
}

#[test]
fn an_edge_refuses() {
    let body = r#"{"error": "not_ready", "message": "no routing table yet"}"#;
    let refusal = http_answer("503 Service Unavailable", body);
    let ((status, stdout, stderr), ..) = run_against(refusal.clone(), "acme", &[]);
    assert_eq!(
        (status, stdout.as_str(), stderr.as_str()),
        (1, "", "no routing table yet\n")
    );

    let ((status, stdout, stderr), ..) = run_against(refusal, "acme", &["--json"]);
    let passed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        passed,
        serde_json::from_str::<serde_json::Value>(body).unwrap()
    );
    assert_eq!((status, stderr.as_str()), (1, ""));
}

#[test]
fn whoever_else_answers_is_named() {
    for answer in [
        http_answer("200 OK", "<html>"),
        http_answer("200 OK", "{}"),
        http_answer("404 Not Found", "nothing here"),
    ] {
        let ((status, stdout, stderr), _, address) = run_against(answer, "acme", &[]);
        assert_eq!((status, stdout.as_str()), (2, ""));
        let expected =
            format!("http://{address} does not answer like an admin service of Cellgate");
        assert!(stderr.starts_with(&expected), "{stderr}");
    }
    // Not HTTP, a connection closed at once, an answer without end.
    for answer in [
        "220 mail.example\r\n".to_owned(),
        String::new(),
        http_answer("200 OK", &"x".repeat(ANSWER_BYTES + 1)),
    ] {
        let ((status, stdout, stderr), _, address) = run_against(answer, "acme", &[]);
        assert_eq!((status, stdout.as_str()), (2, ""));
        assert!(
            stderr.starts_with(&format!("no answer from http://{address}: ")),
            "{stderr}"
        );
    }
}

#[test]
fn nobody_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (status, stdout, stderr) =
        run(&["acme", "--admin", &format!("http://{address}"), "--json"]);
    let failure: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(failure["error"], "unreachable");
    assert_eq!((status, stderr.as_str()), (2, ""));
}

#[test]
fn arguments_are_checked() {
    for (args, expected) in [
        (vec!["explain"], "<KEY>"),
        (
            vec!["explain", "k", "--admin", "127.0.0.1:9901"],
            "has no scheme (write \"http://127.0.0.1:9901\")",
        ),
        (
            vec!["explain", "k", "--admin", "https://edge"],
            "the admin service speaks plain http",
        ),
        (
            vec!["explain", "k", "--admin", "http://edge", "--routing", "x"],
            "cannot be used with",
        ),
    ] {
        let error = Cli::try_parse_from(&args).err().unwrap().to_string();
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}
