//! The plain messages of M3.

use serde_json::Value;

use super::{Client, Said, Setup, Site};
use crate::protocol::m3::Reply;
use crate::table::{Problem, compile};

async fn document(client: &mut Client) -> Value {
    match client.next().await {
        Said::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?} where a document was due"),
    }
}

#[tokio::test]
async fn a_whole_document_at_first_and_at_each_change() {
    let site = Site::with(Setup::default(), 3).await;
    let mut edge = site.request(None, None).await.unwrap();
    let first = document(&mut edge).await;
    assert_eq!(
        (&first["type"], &first["version"]),
        (&"config_snapshot".into(), &"1".into())
    );
    let mut fields = first.as_object().unwrap().clone();
    fields.remove("type");
    let table = compile(&serde_json::to_vec(&fields).unwrap()).unwrap();
    assert_eq!(table.digest(), site.mark().digest);
    let name = site.edges.list()[0].edge_id.clone();
    assert!(name.starts_with("m3@127.0.0.1:"), "{name}");
    let view = |site: &Site| site.edges.get(&name).unwrap();
    assert_eq!((view(&site).generation, view(&site).in_sync), (0, false));

    // As edges in Go do, without a version; and as ours do.
    edge.text(r#"{"type": "ack", "version": ""}"#).await;
    site.until("the ack", |site| view(site).in_sync).await;
    site.set("key-0", "two").await;
    let second = document(&mut edge).await;
    assert_eq!(second["routingTable"]["key-0"], "two");
    assert!(!view(&site).in_sync);
    edge.text(&Reply::ack("1").encode()).await;
    site.until("the ack", |site| view(site).generation == 2)
        .await;

    site.set("key-0", "one").await;
    document(&mut edge).await;
    let problems = [Problem::without_place("no such cell")];
    edge.text(&Reply::nack("1", &problems).encode()).await;
    site.until("the nack", |site| view(site).last_nack.is_some())
        .await;
    let nack = view(&site).last_nack.unwrap();
    assert_eq!(nack.generation, 3);
    assert!(nack.problems[0].message.contains("no such cell"));
    assert_eq!((view(&site).generation, view(&site).in_sync), (2, false));
    assert_eq!(view(&site).sent.snapshots, 3);
    assert_eq!(site.metric("cellgate_control_push_seconds_count"), 1.0);
    assert_eq!(site.metric("cellgate_control_edges{dialect=\"m3\"}"), 1.0);
}

#[tokio::test]
async fn an_edge_that_never_answers_is_sent_changes_all_the_same() {
    let site = Site::empty(Setup::default()).await;
    let mut edge = site.request(None, None).await.unwrap();
    let text = super::document("1", 3);
    site.commit(crate::control::core::Edit::Document(text))
        .await;
    document(&mut edge).await;
    for round in 0..40 {
        let home = ["two", "one"][round % 2];
        site.set("key-0", home).await;
        assert_eq!(document(&mut edge).await["routingTable"]["key-0"], home);
    }
}

#[tokio::test]
async fn what_is_not_m3_ends_the_connection() {
    let site = Site::with(Setup::default(), 3).await;
    for (text, code) in [
        ("nonsense", 1007),
        (r#"{"type": "ack", "version": "\u0000"}"#, 1008),
    ] {
        let mut edge = site.request(None, None).await.unwrap();
        document(&mut edge).await;
        edge.text(r#"{"type": "news"}"#).await;
        edge.text(text).await;
        assert_eq!(edge.closed().await.0, code, "{text}");
    }
}
