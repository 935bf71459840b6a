//! Who may do what, and what is recorded of it.

use super::*;
use crate::control::access::Role;

async fn guarded() -> Api {
    let tokens = vec![
        Token::new("fleet", "e", vec![Role::Edge]),
        Token::new("ops", "w", vec![Role::Write]),
        Token::new("dashboard", "r", vec![Role::Read]),
    ];
    Api::with(tokens, Some("a-certificate")).await
}

#[tokio::test]
async fn reading_and_writing_take_their_roles() {
    let api = guarded().await;
    let bearer = |token: &'static str| [("authorization", token)];
    let first = document("1", &[]);
    for (token, read, write) in [
        ("Bearer w", 200, 201),
        ("Bearer r", 200, 403),
        ("Bearer e", 403, 403),
        ("Bearer x", 401, 401),
        ("Basic dzp3", 401, 401),
    ] {
        let headers = bearer(token);
        let put = api.ask("PUT", "/document", &headers, first.clone()).await;
        assert_eq!(put.status.as_u16(), write, "{token}");
        let get = api.ask("GET", "/document", &headers, "").await;
        assert_eq!(get.status.as_u16(), read, "{token}");
        let challenge = get.header("www-authenticate");
        assert_eq!(challenge.starts_with("Bearer"), read == 401, "{challenge}");
        // Whoever may not ask does not learn what there is either.
        let nothing = api.ask("GET", "/nothing", &headers, "").await;
        assert_eq!(
            nothing.status.as_u16(),
            if read == 200 { 404 } else { read }
        );
    }
    assert_eq!(
        api.get("/status").await.refusal(),
        (401, "unauthorized".to_owned())
    );
}

#[tokio::test]
async fn a_change_is_recorded_with_who_made_it() {
    let api = guarded().await;
    let ops = [("authorization", "Bearer w")];
    let put = api.ask("PUT", "/document", &ops, document("1", &[])).await;
    let author = put.json()["author"].take();
    assert_eq!(author["who"], "ops");
    assert_eq!(author["from"], PEER.to_string());
    assert_eq!(author["what"], "put document");
}

#[tokio::test]
async fn a_certificate_gives_no_name() {
    // As it could be that of the routing file, or of the store.
    let api = Api::with(Vec::new(), Some("file")).await;
    let put = api.ask("PUT", "/document", &[], document("1", &[])).await;
    assert_eq!(put.json()["author"]["who"], "anonymous");
}

#[tokio::test]
async fn certificates_alone_open_nothing_here() {
    let api = Api::behind(Access::with_certificates(Vec::new()), Some("edge-1")).await;
    for (method, target) in [
        ("GET", "/document"),
        ("PUT", "/document"),
        ("GET", "/edges"),
        ("GET", "/openapi.json"),
    ] {
        let answer = api.ask(method, target, &[], "").await;
        assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{target}");
        assert!(answer.message().contains("requires a token"), "{answer:?}");
    }
}
