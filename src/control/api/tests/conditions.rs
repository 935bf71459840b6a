//! `ETag`, `If-Match` and `If-None-Match`.

use super::*;

fn etag(answer: &Answer) -> String {
    answer.header("etag").to_owned()
}

#[tokio::test]
async fn a_change_on_top_of_an_older_generation_is_refused_with_the_newest_etag() {
    let api = Api::new().await;
    let first = etag(&api.get("/document").await);
    let put = api
        .put_json("/keys/acme", r#"{"placement": "two"}"#)
        .await
        .is(200);
    let second = etag(&put);
    assert_ne!(first, second);
    assert_eq!(etag(&api.get("/keys/acme").await), second);

    let stale = [("if-match", first.as_str())];
    let body = r#"{"placement": "one"}"#;
    for (method, target, body) in [
        ("PUT", "/document", document("2", &[])),
        ("PUT", "/keys/acme", body.into()),
        ("DELETE", "/keys/acme", "".into()),
        ("POST", "/keys:batch", "{}".into()),
        ("POST", "/generations/1/restore", "".into()),
    ] {
        let lost = api.ask(method, target, &stale, body).await;
        assert_eq!(
            lost.refusal(),
            (412, "precondition_failed".to_owned()),
            "{method} {target}"
        );
        assert_eq!(etag(&lost), second);
        assert_eq!(lost.json()["newest"]["generation"], 2);
    }
    assert_eq!(api.store.numbers(), [(1, 0), (2, 1)]);

    // One of several will do, and the newest is one of them.
    let both = format!("{first}, {second}");
    let put = api
        .ask("PUT", "/keys/acme", &[("if-match", &both)], body)
        .await;
    put.is(200);
}

#[tokio::test]
async fn a_first_document_can_be_put_only_once() {
    let api = Api::empty().await;
    let nothing = [("if-none-match", "*")];
    let something = [("if-match", "*")];
    let first = document("1", &[]);
    let lost = api
        .ask("PUT", "/document", &something, first.clone())
        .await
        .is(412);
    assert_eq!(etag(&lost), "");
    api.ask("PUT", "/document", &nothing, first.clone())
        .await
        .is(201);
    let lost = api
        .ask("PUT", "/document", &nothing, first.clone())
        .await
        .is(412);
    assert!(etag(&lost).starts_with("\"g1-"));
    // Of a condition that holds, nothing is left to do.
    let same = api.ask("PUT", "/document", &something, first).await.is(200);
    assert_eq!(same.json()["changed"], false);
}

#[tokio::test]
async fn on_one_key_a_star_asks_for_that_key() {
    let api = Api::new().await;
    let absent = [("if-none-match", "*")];
    let present = [("if-match", "*")];
    let body = r#"{"placement": "two"}"#;
    let put = async |headers, key: &str| {
        let answer = api.ask("PUT", &format!("/keys/{key}"), headers, body).await;
        answer.status.as_u16()
    };
    assert_eq!(put(&absent, "acme").await, 412);
    assert_eq!(put(&present, "new").await, 412);
    assert_eq!(put(&absent, "new").await, 200);
    assert_eq!(put(&present, "new").await, 200);
    assert_eq!(put(&present, "acme").await, 200);
    let gone = api.ask("DELETE", "/keys/gone", &present, "").await.is(412);
    assert_eq!(gone.message(), "no key \"gone\"");
    assert_eq!(etag(&gone), etag(&api.get("/document").await));
}

#[tokio::test]
async fn what_is_still_so_is_not_sent_again() {
    let api = Api::new().await;
    for target in [
        "/document",
        "/keys/acme",
        "/keys",
        "/keys?prefix=a",
        "/generations",
        "/generations/1",
        "/generations/1/document",
    ] {
        let whole = api.get(target).await.is(200);
        let (tag, other) = (etag(&whole), format!("\"g9-{:032}\"", 0));
        for (given, status) in [
            (tag.clone(), 304),
            (format!("W/{tag}"), 304),
            (format!("{other} , {tag}"), 304),
            ("*".to_owned(), 304),
            (other, 200),
            ("nonsense".to_owned(), 200),
        ] {
            let headers = [("if-none-match", given.as_str())];
            let answer = api.ask("GET", target, &headers, "").await;
            assert_eq!(answer.status.as_u16(), status, "{target} {given}");
            assert_eq!(etag(&answer), tag, "{target} {given}");
        }
    }
}

#[tokio::test]
async fn another_control_planes_generation_is_known_when_it_is_expected() {
    let api = Api::new().await;
    let behind = api.beside().await;
    let put = api.put_json("/keys/acme", r#"{"placement": "two"}"#).await;
    // Nobody follows the store here, so that the other one has not heard of it.
    let tag = etag(&put);
    let body = r#"{"placement": "one"}"#;
    let put = behind
        .ask("PUT", "/keys/new", &[("if-match", &tag)], body)
        .await;
    assert_eq!(put.is(200).json()["parent"], 2);

    // What is so already as far as it knows is not so any more.
    let behind = api.beside().await;
    behind.get("/keys/acme").await.is(200);
    api.truth.refresh().await.unwrap();
    api.put_json("/keys/acme", body).await.is(200);
    let put = behind
        .put_json("/keys/acme", r#"{"placement": "two"}"#)
        .await
        .is(200);
    assert_eq!(put.json()["changed"], true);
    assert_eq!(api.store.numbers().len(), 5);
}

#[tokio::test]
async fn conditions_that_cannot_be_read_change_nothing() {
    let api = Api::new().await;
    for headers in [
        [("if-match", "g1-x"), ("accept", "*/*")],
        [("if-match", "W/\"g1-x\""), ("accept", "*/*")],
        [("if-match", "*"), ("if-none-match", "*")],
        [("if-none-match", "\"x\""), ("accept", "*/*")],
        [("if-match", "\u{e9}"), ("accept", "*/*")],
    ] {
        let body = r#"{"placement": "two"}"#;
        let answer = api.ask("PUT", "/keys/acme", &headers, body).await;
        assert_eq!(
            answer.refusal(),
            (400, "invalid_condition".to_owned()),
            "{headers:?}"
        );
    }
    assert_eq!(api.store.numbers(), [(1, 0)]);
}
