//! Which clients a control plane admits, with real sockets.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use boring::ssl::SslConnector;
use pingora_core::tls::tokio_ssl::SslStream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Authority, ControlProcess, table, tiers, tls_client, within};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The status of the response to a request with these fields, and no others except those of its body.
async fn status(control: &ControlProcess, line: &str, fields: &[(&str, &str)], body: &str) -> u16 {
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nContent-Length: {length}\r\n{fields}\r\n{body}");
    let mut client = control.client().await;
    client.send(head).await;
    client.response().await.status
}

#[tokio::test]
async fn web_pages_are_kept_out_where_no_token_does() {
    let document = tiers("1", table(&[("acme", "tier1")])).to_string();
    let open = ControlProcess::builder().start().await;
    let tokens = json!([{"name": "ops", "token": "secret", "roles": ["write", "edge"]}]);
    let guarded = ControlProcess::builder()
        .set("tokens", tokens)
        .start()
        .await;
    let bearer = ("Authorization", "Bearer secret");
    let here = ("Host", "127.0.0.1:8081");
    for (fields, pages) in [
        (vec![here], false),
        (vec![("Host", "localhost:8081")], false),
        (vec![here, ("Origin", "https://evil.example")], true),
        (vec![here, ("Origin", "null")], true),
        (vec![here, ("Sec-Fetch-Site", "cross-site")], true),
        (vec![here, ("Sec-Fetch-Site", "same-site")], true),
        (vec![here, ("Sec-Fetch-Site", "none")], false),
        // The page's own host name, resolving to this address.
        (vec![("Host", "evil.example:8081")], true),
    ] {
        let put: Vec<_> = [&fields[..], &[JSON, bearer]].concat();
        let put = ("PUT /api/v1/document", put, document.as_str());
        let get = ("GET /api/v1/status", [&fields[..], &[bearer]].concat(), "");
        let dial = [&fields[..], &[bearer], &UPGRADE].concat();
        let dial = ("GET /connect", dial, "");
        for (line, fields, body) in [put, get, dial] {
            let answer = status(&open, line, &fields, body).await;
            assert_eq!(answer == 403, pages, "{line}: {answer}: {fields:?}");
            let answer = status(&guarded, line, &fields, body).await;
            assert!(
                matches!(answer, 101 | 200 | 201),
                "{line}: {answer}: {fields:?}"
            );
        }
        assert_eq!(status(&open, "GET /health", &fields, "").await, 200);
        assert_eq!(status(&open, "GET /metrics", &fields, "").await, 200);
    }
    // What a page may send without a preflight request.
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let kind = kind.map(|kind| ("Content-Type", kind));
        let fields: Vec<_> = [here].into_iter().chain(kind).collect();
        let answer = status(&open, "PUT /api/v1/document", &fields, &document).await;
        assert_eq!(answer, 415, "{fields:?}");
    }
}

/// The status of the response to a request over TLS.
async fn over_tls(
    address: SocketAddr,
    connector: &SslConnector,
    line: &str,
    fields: &[(&str, &str)],
) -> std::io::Result<u16> {
    let stream = TcpStream::connect(address).await?;
    let ssl = connector.configure().map_err(std::io::Error::other)?;
    let ssl = ssl.into_ssl("localhost").map_err(std::io::Error::other)?;
    let mut stream = SslStream::new(ssl, stream).map_err(std::io::Error::other)?;
    Pin::new(&mut stream)
        .connect()
        .await
        .map_err(std::io::Error::other)?;
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let status = std::str::from_utf8(&head[9..]).map_err(std::io::Error::other)?;
    status.parse().map_err(std::io::Error::other)
}

fn at(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// Also after a reload that would have admitted more.
#[tokio::test]
async fn a_certificate_alone_lets_an_edge_connect_and_no_more() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let builder = ControlProcess::builder();
    let [cert, key, ca, client_ca] =
        ["cert.pem", "key.pem", "ca.pem", "client-ca.pem"].map(|name| builder.path(name));
    servers.issue("localhost").write(&cert, &key);
    servers.write(&ca);
    clients.write(&client_ca);
    let plain = builder.set("tls.cert", at(&cert)).set("tls.key", at(&key));
    let builder = plain
        .clone()
        .set("tls.client_ca", at(&client_ca))
        .set("listen", "0.0.0.0:0");
    let control = builder.start().await;
    control.log.wait("nobody can use the API").await;
    let address = SocketAddr::from(([127, 0, 0, 1], control.address.port()));
    let known = tls_client(&ca, Some(&clients.issue("file")));
    let stranger = tls_client(&ca, None);
    let check = async || {
        for (line, fields, expected) in [
            ("GET /health", &[][..], 200),
            ("GET /metrics", &[], 200),
            ("GET /api/v1/document", &[], 403),
            ("GET /api/v1/edges", &[], 403),
            ("DELETE /api/v1/keys/acme", &[], 403),
            ("GET /connect", &UPGRADE, 101),
        ] {
            let answer = within("an answer", over_tls(address, &known, line, fields)).await;
            assert_eq!(answer.expect("an answer"), expected, "{line}");
        }
        let refused = over_tls(address, &stranger, "GET /health", &[]);
        let refused = within("a refusal", refused).await;
        assert!(refused.is_err(), "{refused:?}");
    };
    check().await;
    // Settings that are valid for the address that they name, but not for the address that is in use.
    let tokens = json!([{"name": "ops", "token": "secret", "roles": ["write"]}]);
    for (other, why) in [
        (plain.clone(), "neither tokens nor tls.client_ca"),
        (
            plain.clone().set("tokens", tokens.clone()),
            "tls.client_ca can be turned off",
        ),
        (
            builder.clone().set("tokens", tokens),
            "tokens can be turned on",
        ),
    ] {
        other.conf();
        control.signal(libc::SIGHUP);
        let line = control.log.wait(why).await;
        assert!(line.contains("reload: "), "{line}");
        check().await;
    }
    assert_eq!(control.log.count("nothing has changed"), 3);
    fs::remove_file(builder.conf()).expect("remove the settings");
}
