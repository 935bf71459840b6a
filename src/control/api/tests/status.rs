//! The control plane itself.

use serde_json::json;

use super::*;
use crate::control::core::{Arrival, Dialect};
use crate::protocol::{Load, Status};

#[tokio::test]
async fn it_says_who_it_is_and_what_it_has() {
    let api = Api::empty().await;
    let status = api.get("/status").await.is(200).json();
    assert_eq!(
        (&status["id"], &status["store"]),
        (&json!("test"), &json!("memory"))
    );
    assert_eq!(
        (&status["newest"], &status["etag"]),
        (&Value::Null, &Value::Null)
    );
    let put = api.put_json("/document", document("1", &[])).await;
    let status = api.get("/status").await.is(200).json();
    assert_eq!(status["etag"], put.header("etag"));
    assert_eq!(status["newest"]["generation"], 1);
    assert_eq!(status["edges"], json!({"connected": 0, "in_sync": 0}));
    assert_eq!(status["file_error"], Value::Null);
}

#[tokio::test]
async fn nobody_is_connected() {
    let api = Api::empty().await;
    assert_eq!(api.get("/edges").await.is(200).json(), json!({"edges": []}));
    let unknown = api.get("/edges/e-1").await;
    assert_eq!(unknown.refusal(), (404, "unknown_edge".to_owned()));
}

#[tokio::test]
async fn edges_are_shown_while_they_are_here_and_after() {
    let api = Api::new().await;
    let arrival = Arrival {
        edge_id: "e/1".to_owned(),
        instance: "i".to_owned(),
        peer: "192.0.2.9:1".to_owned(),
        dialect: Dialect::V1,
        version: "0.1.0".to_owned(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        generation: 0,
        digest: None,
    };
    let session = api.edges.join(arrival);
    let problem = crate::table::Problem::without_place("is odd");
    session.nacked(1, vec![problem]);
    session.status(Status {
        generation: 0,
        digest: None,
        serving_since: Some("2026-01-01T00:00:00Z".to_owned()),
        source: Some("file".to_owned()),
        stale_seconds: 3,
        last_error: None,
        placements: Some(
            [(
                "one".to_owned(),
                Load {
                    requests_per_second: 1.5,
                    errors_per_second: 0.0,
                    in_flight: 2,
                },
            )]
            .into(),
        ),
    });
    let one = api.get("/edges/e%2F1").await.is(200).json();
    assert_eq!(
        (&one["connected"], &one["in_sync"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(one["last_nack"]["problems"][0]["message"], "is odd");
    assert_eq!(one["status"]["placements"]["one"]["in_flight"], 2);
    let digest = api.truth.newest().unwrap().record.digest;
    session.acked(1, Some(digest));
    let all = api.get("/edges").await.is(200).json();
    assert_eq!(all["edges"][0]["edge_id"], "e/1");
    assert_eq!(all["edges"][0]["in_sync"], true);
    let counts = api.get("/status").await.json()["edges"].take();
    assert_eq!(counts, json!({"connected": 1, "in_sync": 1}));
    drop(session);
    let gone = api.get("/edges/e%2F1").await.is(200).json();
    assert_eq!(gone["connected"], false);
    assert!(gone["why"].is_string(), "{gone}");
    let counts = api.get("/status").await.json()["edges"].take();
    assert_eq!(counts, json!({"connected": 0, "in_sync": 0}));
}
