//! Whatever comes, what goes back is a clear refusal.

use super::*;

#[tokio::test]
async fn paths_that_are_badly_encoded() {
    let api = Api::new().await;
    for key in ["%", "a%2", "%zz", "%FF", "%C3", "a%C3%28", "%ED%A0%80"] {
        for (method, body) in [
            ("GET", ""),
            ("PUT", r#"{"placement": "one"}"#),
            ("DELETE", ""),
        ] {
            let answer = api.ask(method, &format!("/keys/{key}"), &[], body).await;
            assert_eq!(
                answer.refusal(),
                (400, "invalid_path".to_owned()),
                "{method} {key}"
            );
        }
        let answer = api.get(&format!("/edges/{key}")).await;
        assert_eq!(answer.refusal(), (400, "invalid_path".to_owned()), "{key}");
    }
}

#[tokio::test]
async fn queries_that_ask_for_something_else() {
    let api = Api::new().await;
    for (target, part) in [
        (
            "/keys?limit=0",
            "limit: \"0\" (valid: a whole number from 1 to 10000)",
        ),
        ("/keys?limit=10001", "from 1 to 10000"),
        ("/keys?limit=", "limit: \"\""),
        ("/keys?limit=1e3", "limit: \"1e3\""),
        ("/keys?limit=1&limit=2", "limit is given more than once"),
        (
            "/keys?page=2",
            "unknown parameter \"page\" (valid: after, limit, placement, prefix)",
        ),
        ("/keys?prefix=%FF", "not UTF-8"),
        ("/keys?prefix=%4", "a % is not followed"),
        ("/keys?%zz", "a % is not followed"),
        ("/generations?before=-1", "before: \"-1\""),
        ("/generations/1/diff?to=x", "to: \"x\""),
        (
            "/document?pretty=1",
            "unknown parameter \"pretty\" (none is valid here)",
        ),
        ("/status?x", "unknown parameter \"x\""),
    ] {
        let answer = api.get(target).await;
        assert_eq!(
            answer.refusal(),
            (400, "invalid_query".to_owned()),
            "{target}"
        );
        assert!(
            answer.message().contains(part),
            "{target}: {}",
            answer.message()
        );
    }
    // `&` at an end or twice means nothing.
    api.get("/keys?&limit=1&&").await.is(200);
}

#[tokio::test]
async fn bodies_that_are_something_else() {
    let api = Api::new().await;
    let deep = "[".repeat(200_000);
    let deep_field = format!("{{\"set\": {}", "{\"a\":".repeat(100_000));
    for (method, target, body, part) in [
        ("PUT", "/keys/a", "", "EOF"),
        ("PUT", "/keys/a", "{}", "missing field `placement`"),
        (
            "PUT",
            "/keys/a",
            r#"{"placement": 1}"#,
            "invalid type: integer",
        ),
        (
            "PUT",
            "/keys/a",
            r#"{"placement": "one", "weight": 1}"#,
            "unknown field `weight`",
        ),
        (
            "PUT",
            "/keys/a",
            r#"{"placement": "one", "placement": "two"}"#,
            "duplicate field",
        ),
        (
            "PUT",
            "/keys/a",
            r#"{"placement": "one"} {}"#,
            "trailing characters",
        ),
        ("PUT", "/keys/a", "\"one\"", "invalid type: string"),
        ("PUT", "/keys/a", &deep, "line 1 column"),
        ("POST", "/keys:batch", "", "EOF"),
        (
            "POST",
            "/keys:batch",
            r#"{"delete": ["a"]}"#,
            "unknown field `delete`, expected `set` or `remove`",
        ),
        (
            "POST",
            "/keys:batch",
            r#"{"set": [["a", "one"]]}"#,
            "expected an object of keys and placements",
        ),
        (
            "POST",
            "/keys:batch",
            r#"{"set": {"a": null}}"#,
            "invalid type: null",
        ),
        (
            "POST",
            "/keys:batch",
            r#"{"remove": "a"}"#,
            "expected a sequence",
        ),
        (
            "POST",
            "/keys:batch",
            r#"{"remove": ["\ud800"]}"#,
            "line 1 column",
        ),
        ("POST", "/keys:batch", &deep_field, "line 1 column"),
        ("DELETE", "/keys/acme", "{}", "this request takes no body"),
        (
            "POST",
            "/generations/1/restore",
            "{}",
            "this request takes no body",
        ),
    ] {
        let answer = api.ask(method, target, &[], body.to_owned()).await;
        assert_eq!(
            answer.refusal(),
            (400, "invalid_body".to_owned()),
            "{method} {target}"
        );
        assert!(answer.message().contains(part), "{}", answer.message());
    }
    let bad_utf8 = api
        .post("/keys:batch", &b"{\"remove\": [\"\xff\"]}"[..])
        .await;
    assert_eq!(bad_utf8.refusal(), (400, "invalid_body".to_owned()));
    for document in [deep.into_bytes(), b"{\"version\": \"\xff\"}".to_vec()] {
        let answer = api.put_json("/document", document).await;
        assert_eq!(answer.refusal(), (422, "invalid".to_owned()));
    }
    assert_eq!(api.store.numbers(), [(1, 0)]);
}

#[tokio::test]
async fn bodies_that_say_they_are_something_else() {
    let api = Api::new().await;
    let body = r#"{"placement": "one"}"#;
    for (name, value, error) in [
        (
            "content-type",
            "application/x-www-form-urlencoded",
            "unsupported_media_type",
        ),
        ("content-type", "text/plain", "unsupported_media_type"),
        ("content-type", "", "unsupported_media_type"),
        ("content-type", "json", "unsupported_media_type"),
        ("content-encoding", "gzip", "unsupported_content_coding"),
    ] {
        for target in ["/keys/acme", "/document"] {
            let answer = api.ask("PUT", target, &[(name, value)], body).await;
            assert_eq!(answer.refusal(), (415, error.to_owned()), "{name}: {value}");
        }
    }
    for kind in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/x+json",
    ] {
        let answer = api
            .ask("PUT", "/keys/acme", &[("content-type", kind)], body)
            .await;
        answer.is(200);
    }
}

#[tokio::test]
async fn bodies_that_are_too_large_or_break_off() {
    let api = Api::new().await;
    let large = " ".repeat((16 << 20) + 1);
    for (method, target) in [
        ("PUT", "/keys/a"),
        ("POST", "/keys:batch"),
        ("DELETE", "/keys/acme"),
    ] {
        let answer = api.ask(method, target, &[], large.clone()).await;
        assert_eq!(
            answer.refusal(),
            (413, "body_too_large".to_owned()),
            "{target}"
        );
    }
    let huge = [("content-length", "18446744073709551615")];
    let answer = api.ask("PUT", "/document", &huge, "").await;
    assert_eq!(answer.refusal(), (413, "body_too_large".to_owned()));

    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    sender.send(Ok("{\"set\"".into())).await.unwrap();
    sender.send(Err("gone")).await.unwrap();
    let answer = api.post("/keys:batch", Body::new(Pieces(receiver))).await;
    assert_eq!(answer.refusal(), (400, "invalid_body".to_owned()));
    assert!(answer.message().contains("gone"), "{}", answer.message());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up() {
    let api = Api::new().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    sender.send(Ok("{".into())).await.unwrap();
    let answer = api.post("/keys:batch", Body::new(Pieces(receiver))).await;
    assert_eq!(answer.refusal(), (408, "body_timeout".to_owned()));
    drop(sender);
}

#[tokio::test]
async fn paths_that_there_are_not() {
    let api = Api::new().await;
    for target in [
        "",
        "/",
        "/nothing",
        "/keys/",
        "/keys/a/b",
        "/documents",
        "/generations/1/x",
        "/keys:other",
        "/edges/",
    ] {
        for method in ["GET", "POST", "PATCH"] {
            let answer = api.ask(method, target, &[], "").await;
            assert_eq!(
                answer.refusal(),
                (404, "not_found".to_owned()),
                "{method} {target}"
            );
        }
    }
}

/// A body that comes through a channel.
struct Pieces(tokio::sync::mpsc::Receiver<Result<axum::body::Bytes, &'static str>>);

impl http_body::Body for Pieces {
    type Data = axum::body::Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|piece| piece.map(http_body::Frame::data)))
    }
}
