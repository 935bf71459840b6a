//! Who may connect, and how.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use super::{Said, Setup, Site, hello};
use crate::control::access::{Access, Role, Token};
use crate::control::connect::{Limits, Times};
use crate::protocol::limits::TO_CONTROL_BYTES;
use crate::protocol::{SUBPROTOCOL, ToControl};

#[tokio::test]
async fn tokens_are_judged_before_anything_else() {
    let setup = Setup {
        access: Access::new(vec![
            Token::new("fleet", "e-secret", vec![Role::Edge]),
            Token::new("ops", "w-secret", vec![Role::Write]),
        ]),
        ..Setup::default()
    };
    let site = Site::with(setup, 1).await;
    for (header, status, challenge) in [
        (None, 401, true),
        (Some("Bearer wrong"), 401, true),
        (Some("Bearer w-secret"), 403, false),
    ] {
        let response = site.request(Some(SUBPROTOCOL), header).await.err().unwrap();
        assert_eq!(response.status(), status, "{header:?}");
        assert_eq!(
            response.headers().contains_key("www-authenticate"),
            challenge
        );
        let body = response.into_body().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["error"].as_str().unwrap().contains("token"), "{body}");
    }
    let welcomed = site
        .request(Some(SUBPROTOCOL), Some("Bearer e-secret"))
        .await;
    let mut edge = welcomed.unwrap();
    edge.hello("edge-1", None).await;
    edge.welcome().await;
    assert_eq!(
        site.metric("cellgate_control_edges_refused_total{reason=\"unauthorized\"}"),
        2.0
    );
    assert_eq!(
        site.metric("cellgate_control_edges_refused_total{reason=\"forbidden\"}"),
        1.0
    );
}

#[tokio::test]
async fn the_dialect_is_what_the_edge_offers() {
    let site = Site::with(Setup::default(), 1).await;
    for (offered, chosen) in [
        (Some("cellgate.v1"), Some("cellgate.v1")),
        (Some("cellgate.v9, cellgate.v1"), Some("cellgate.v1")),
    ] {
        let client = site.request(offered, None).await.unwrap();
        assert_eq!(client.chosen.as_deref(), chosen, "{offered:?}");
    }
    // Whoever offers nothing is sent a document at once.
    let mut client = site.request(None, None).await.unwrap();
    assert_eq!(client.chosen, None);
    assert!(matches!(client.next().await, Said::Text(text) if text.contains("config_snapshot")));
}

#[tokio::test]
async fn more_edges_than_may_be_come_back_later() {
    let limits = Limits {
        max_edges: 2,
        ..Limits::default()
    };
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let site = Site::with(setup, 1).await;
    let first = site.synced("edge-1").await;
    let _second = site.synced("edge-2").await;
    let response = site.request(Some(SUBPROTOCOL), None).await.err().unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    drop(first);
    // A place is free once the other one is gone.
    site.until("edge-1 has left", |site| site.edges.connected() == 1)
        .await;
    site.until("a place is free", |_| true).await;
    let again = async {
        while site.request(Some(SUBPROTOCOL), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    super::within("a place", again).await;
}

#[tokio::test]
async fn what_is_no_handshake_is_answered_as_http() {
    let site = Site::with(Setup::default(), 1).await;
    for (request, status) in [
        ("GET /connect HTTP/1.1\r\nHost: x\r\n\r\n", "426"),
        (
            "POST /connect HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        (
            "GET /connect HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            "426",
        ),
        (
            "GET /connect HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n",
            "400",
        ),
    ] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(site.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        super::within("an answer", stream.read_exact(&mut start))
            .await
            .unwrap();
        assert_eq!(&start[9..], status.as_bytes(), "{request:?}");
    }
    assert_eq!(
        site.metric("cellgate_control_edges_refused_total{reason=\"malformed\"}"),
        4.0
    );
}

#[tokio::test]
async fn a_conversation_begins_with_a_hello() {
    let setup = Setup {
        times: Times {
            greeting: Duration::from_millis(200),
            ..Times::default()
        },
        ..Setup::default()
    };
    let site = Site::with(setup, 1).await;
    let mut late = site.dial().await;
    assert_eq!(late.closed().await.0, 1002);
    assert_eq!(site.edges.list(), []);

    let second = ToControl::Hello(hello("edge-1", None)).encode().unwrap();
    let nameless = ToControl::Hello(hello("", None)).encode().unwrap();
    let large = format!("{{\"type\": \"{}\"}}", "x".repeat(TO_CONTROL_BYTES));
    for (message, code, reason) in [
        (
            Message::Text(r#"{"type": "resync", "reason": ""}"#.into()),
            1002,
            "message resync before the hello",
        ),
        (Message::Text("nonsense".into()), 1007, "message: "),
        (
            Message::Text(nameless.as_str().into()),
            1008,
            "message hello: edge_id: empty",
        ),
        (Message::Text(large.as_str().into()), 1009, ""),
        (Message::Binary(vec![0; 20].into()), 1002, "a binary frame"),
    ] {
        let mut client = site.dial().await;
        client.raw(message).await;
        let (was, why) = client.closed().await;
        assert_eq!(was, code, "{why}");
        assert!(why.starts_with(reason), "{why}");
    }
    let mut client = site.dial().await;
    // What a later version says first is left alone.
    client.text(r#"{"type": "prelude", "more": [1, 2]}"#).await;
    client.hello("edge-1", Some(site.mark())).await;
    client.welcome().await;
    client.text(&second).await;
    assert_eq!(client.closed().await, (1002, "a second hello".to_owned()));
}
