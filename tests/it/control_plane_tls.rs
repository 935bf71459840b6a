//! `wss`: the control plane is verified, and may ask the edge who it is.

use std::path::Path;

use serde_json::json;

use crate::control_plane::{URLS, home};
use crate::harness::{
    Authority, Content, Dialect, Edge, EdgeBuilder, FakeControl, Two, tls_control, wait_control,
};

fn trusting(authority: &Authority, cells: &Two, url: String) -> EdgeBuilder {
    let builder = Edge::builder().routing(&cells.to("file", "one"));
    let ca = builder.directory().join("control-ca.pem");
    authority.write(&ca);
    builder
        .set(URLS, json!([url]))
        .set("cellgate.control_plane.ca_file", shown(&ca))
        .set("cellgate.hosts", json!({"control.test": "127.0.0.1"}))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// By the name in the URL.
fn named(control: &FakeControl) -> String {
    format!("wss://control.test:{}", control.address.port())
}

/// It is served what the control plane sends. Says what the edge showed: its token and its certificate.
async fn follows(
    control: &FakeControl,
    edge: &Edge,
    cells: &Two,
) -> (Option<String>, Option<String>) {
    let two = Content::new(cells.to("2", "two"));
    let (mut link, _) = control.greet(1, &two).await;
    link.snapshot(1, 1, &two).await;
    link.expect_ack(1, &two).await;
    assert_eq!(home(edge).await, "two");
    (link.authorization, link.certificate)
}

#[tokio::test]
async fn a_verified_control_plane_is_followed() {
    let (ours, cells) = (Authority::new("ours"), Two::new().await);
    for host in ["control.test", "127.0.0.1"] {
        let control = tls_control(Dialect::V1, &ours.issue(host), None).await;
        let url = format!("wss://{host}:{}/connect", control.address.port());
        // A token may go this way.
        let builder = trusting(&ours, &cells, url);
        let token = builder.directory().join("token");
        std::fs::write(&token, "s3cret").expect("write the token");
        let edge = builder
            .set("cellgate.control_plane.token_file", shown(&token))
            .start()
            .await;
        let shown = follows(&control, &edge, &cells).await;
        assert_eq!(shown, (Some("Bearer s3cret".to_owned()), None), "{host}");
    }
}

#[tokio::test]
async fn one_that_cannot_be_verified_is_not() {
    let (ours, theirs, cells) = (
        Authority::new("ours"),
        Authority::new("theirs"),
        Two::new().await,
    );
    for (what, identity) in [
        ("another authority", theirs.issue("control.test")),
        ("another name", ours.issue("other.test")),
        ("too old", ours.issue_expired("control.test")),
    ] {
        let control = tls_control(Dialect::V1, &identity, None).await;
        let edge = trusting(&ours, &cells, named(&control)).start().await;
        let shown = wait_control(&edge, what, |shown| shown["retries"] != 0).await;
        let error = shown["last_error"]["message"].as_str().expect("an error");
        assert!(
            error.contains("certificate is not valid"),
            "{what}: {error}"
        );
        assert_eq!(home(&edge).await, "one", "{what}");
    }
}

#[tokio::test]
async fn the_edge_shows_its_certificate() {
    let (ours, clients, cells) = (
        Authority::new("ours"),
        Authority::new("clients"),
        Two::new().await,
    );
    let identity = ours.issue("control.test");
    let control = tls_control(Dialect::V1, &identity, Some(&clients)).await;
    let builder = trusting(&ours, &cells, named(&control));
    let at = |name: &str| builder.directory().join(name);
    let (cert, key) = (at("edge.pem"), at("edge.key"));
    clients.issue("edge-7").write(&cert, &key);
    let edge = builder
        .set("cellgate.control_plane.client_cert", shown(&cert))
        .set("cellgate.control_plane.client_key", shown(&key))
        .start()
        .await;
    let shown = follows(&control, &edge, &cells).await;
    assert_eq!(shown, (None, Some("edge-7".to_owned())));

    // Without one, it is not let in.
    let edge = trusting(&ours, &cells, named(&control)).start().await;
    wait_control(&edge, "it is refused", |shown| shown["retries"] != 0).await;
    assert_eq!(home(&edge).await, "one");
}
