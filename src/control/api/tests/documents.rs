//! Whole documents.

use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Waker};

use http_body::Body as _;
use serde_json::json;

use super::*;
use crate::control::api::document::{DocumentBody, SORTERS, SORTING};
use crate::table::compile;

#[tokio::test]
async fn a_document_comes_back_for_people_and_means_the_same() {
    let api = Api::empty().await;
    let sent = json!({
        "defaultPlacement": "one",
        "routingTable": {"b": "two", "\"\\\n".trim_end(): "one", "é": "one", "a": "one", "B": "two"},
        "version": "v\"1",
        "placements": {"two": {"url": "http://127.0.0.1:2", "concurrency_limit": 3}},
        "cellEndpoints": {"one": "http://127.0.0.1:1"},
        "defaults": {"retries": {"attempts": 2}},
    });
    let put = api.put_json("/document", sent.to_string()).await.is(201);
    let got = api.get("/document").await.is(200);
    assert_eq!(
        got.body,
        r#"{
  "version": "v\"1",
  "defaultPlacement": "one",
  "defaults": {
    "retries": {
      "attempts": 2
    }
  },
  "placements": {
    "two": {
      "concurrency_limit": 3,
      "url": "http://127.0.0.1:2"
    }
  },
  "cellEndpoints": {
    "one": "http://127.0.0.1:1"
  },
  "routingTable": {
    "\"\\": "one",
    "B": "two",
    "a": "one",
    "b": "two",
    "é": "one"
  }
}
"#
    );
    assert_eq!(got.header("etag"), put.header("etag"));
    assert_eq!(got.json(), sent);
    let again = api.put_json("/document", got.body).await.is(200);
    assert_eq!(again.json()["changed"], false);
    assert_eq!(again.json()["generation"], 1);
}

#[tokio::test]
async fn a_document_without_keys_is_one_too() {
    let api = Api::empty().await;
    api.put_json("/document", document("1", &[])).await.is(201);
    let got = api.get("/document").await.is(200);
    assert!(
        got.body.ends_with("  \"routingTable\": {}\n}\n"),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn before_the_first_there_is_none() {
    let api = Api::empty().await;
    for target in ["/document", "/keys", "/keys/acme"] {
        let none = api.get(target).await;
        assert_eq!(none.refusal(), (404, "no_document".to_owned()), "{target}");
    }
    let conflict = (409, "no_document".to_owned());
    let put = api.put_json("/keys/acme", r#"{"placement": "one"}"#).await;
    assert_eq!(put.refusal(), conflict);
    let batch = api.post("/keys:batch", r#"{"set": {"a": "one"}}"#).await;
    assert_eq!(batch.refusal(), conflict);
    let delete = api.ask("DELETE", "/keys/acme", &[], "").await;
    assert_eq!(delete.refusal(), conflict);
    assert_eq!(
        api.get("/generations").await.is(200).json()["generations"],
        json!([])
    );
    assert_eq!(api.get("/generations/1").await.refusal().0, 404);
}

#[tokio::test]
async fn problems_are_those_of_check() {
    let api = Api::new().await;
    for broken in [
        "{\"version\": \"2\",\n \"routingTable\": {\"acme\": \"tier9\"},\n \"cellEndpoints\": {\"tier1\": \"cell:1\"}, \"defaultPlacement\": \"tier1\"}",
        "{\"version\": \"2\", \"version\": \"3\"}",
        "{\"version\": ",
        "[]",
        "",
        "nonsense",
    ] {
        let refused = api.put_json("/document", broken).await;
        assert_eq!(refused.refusal(), (422, "invalid".to_owned()), "{broken}");
        let problems = compile(broken.as_bytes()).unwrap_err();
        assert_eq!(refused.json()["problems"], json!(problems), "{broken}");
    }
    assert_eq!(api.store.numbers(), [(1, 0)]);
}

#[tokio::test]
async fn a_large_document_comes_in_pieces_and_nothing_is_done_before_the_first() {
    let mut text = String::from(r#"{"version": "1", "routingTable": {"#);
    for number in 0..20_000 {
        let _ = write!(text, r#""tenant-{number}": "one", "#);
    }
    text.push_str(r#""z": "one"}, "cellEndpoints": {"one": "http://127.0.0.1:1"}, "defaultPlacement": "one"}"#);
    let table = Arc::new(compile(text.as_bytes()).unwrap());
    let mut body = DocumentBody::new(Arc::clone(&table));
    assert_eq!(Arc::strong_count(&table), 2);
    let mut pieces = Vec::new();
    while let Some(frame) = Pin::new(&mut body).frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(piece.len() < 70_000, "{}", piece.len());
        // Sorting is over: the table can go.
        assert_eq!(Arc::strong_count(&table), 1);
        pieces.push(piece);
    }
    assert!(body.is_end_stream());
    assert!(pieces.len() > 5, "{}", pieces.len());
    let again = compile(&pieces.concat()).unwrap();
    assert_eq!(again.digest(), table.digest());
}

#[tokio::test]
async fn asking_for_the_header_alone_sorts_nothing() {
    let api = Api::new().await;
    let permits = SORTING.acquire_many(SORTERS as u32).await.unwrap();
    let head = api.ask("HEAD", "/document", &[], "").await.is(200);
    assert!(head.header("etag").starts_with("\"g1-"));
    assert_eq!(head.body, "");
    // Whoever wants the body waits for a permit.
    let newest = api.truth.newest().unwrap();
    let mut body = DocumentBody::new(Arc::clone(&newest.table));
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
    drop(permits);
    body.frame().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_document_may_have_its_limit_and_not_a_byte_more() {
    let api = Api::empty().await;
    let mut text = document("1", &[]).to_vec();
    text.resize(DOCUMENT_BYTES, b' ');
    api.put_json("/document", text.clone()).await.is(201);
    text.push(b' ');
    let refused = api.put_json("/document", text.clone()).await;
    assert_eq!(refused.refusal(), (413, "body_too_large".to_owned()));
    // The same if its length is said, or not known before the end.
    let length = text.len().to_string();
    let refused = api
        .ask(
            "PUT",
            "/document",
            &[("content-length", &length)],
            text.clone(),
        )
        .await;
    assert_eq!(refused.refusal(), (413, "body_too_large".to_owned()));
    let pieces = Body::new(http_body_util::BodyExt::boxed(http_body_util::Full::from(
        text,
    )));
    assert_eq!(
        api.ask("PUT", "/document", &[], pieces)
            .await
            .status
            .as_u16(),
        413
    );
}

#[tokio::test]
async fn what_the_store_does_not_take_is_not_there() {
    use crate::control::store::{AppendError, StoreError};
    let api = Api::new().await;
    let lost = || StoreError("it is gone".to_owned());
    for (fault, status, error) in [
        (AppendError::Failed(lost()), 503, "store_failed"),
        (AppendError::Unknown(lost()), 504, "outcome_unknown"),
    ] {
        api.store.fail(fault);
        let refused = api.put_json("/document", document("2", &[])).await;
        assert_eq!(refused.refusal(), (status, error.to_owned()));
        assert!(refused.message().contains("it is gone"), "{}", refused.body);
        assert_eq!(api.get("/document").await.json()["version"], "1");
    }
}
