//! Clients that are slow or many, and large requests.

use super::*;
use crate::control::api::limits::{BODIES, PAST_GENERATIONS, RESPONSES};

impl Api {
    /// An answer whose body nobody reads.
    async fn unread(&self, target: &str) -> axum::response::Response {
        let request = Request::get(format!("/api/v1{target}"));
        let request = request.body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }
}

fn is_busy(answer: &Answer) {
    assert_eq!(answer.refusal(), (503, "busy".to_owned()));
    assert_eq!(answer.header("retry-after"), "5");
}

#[tokio::test]
async fn so_many_whole_documents_are_sent_at_a_time() {
    let api = Api::new().await;
    let mut unread = Vec::new();
    for _ in 0..RESPONSES {
        unread.push(api.unread("/document").await);
    }
    is_busy(&api.get("/document").await);
    is_busy(&api.get("/keys").await);
    // What is small goes on, and so does what is known already.
    let etag = api
        .get("/keys/acme")
        .await
        .is(200)
        .header("etag")
        .to_owned();
    let known = [("if-none-match", &*etag)];
    api.ask("GET", "/document", &known, "").await.is(304);
    // One that waits is next, also when a document is not read to its end.
    let (waits, ()) = tokio::join!(api.get("/document"), async {
        tokio::task::yield_now().await;
        unread.pop();
    });
    waits.is(200);
    drop(unread);
    api.get("/document").await.is(200);
}

#[tokio::test]
async fn so_many_old_generations_are_in_memory_at_a_time() {
    let api = Api::new().await;
    api.put_json("/keys/acme", r#"{"placement": "two"}"#)
        .await
        .is(200);
    let mut unread = Vec::new();
    for _ in 0..PAST_GENERATIONS {
        unread.push(api.unread("/generations/1/document").await);
    }
    is_busy(&api.get("/generations/1/document").await);
    is_busy(&api.get("/generations/2/diff").await);
    is_busy(&api.post("/generations/1/restore", "").await);
    api.get("/generations/2/document").await.is(200);
    // A record is no table.
    api.get("/generations/1").await.is(200);
    unread.clear();
    api.get("/generations/2/diff").await.is(200);
    api.post("/generations/1/restore", "").await.is(200);
}

#[tokio::test]
async fn so_many_large_bodies_are_read_at_a_time() {
    let api = Api::new().await;
    let mut held = Vec::new();
    for _ in 0..BODIES {
        held.push(api.limits.body().await.unwrap());
    }
    let mut large = br#"{"remove": ["#.to_vec();
    large.resize(2 << 20, b' ');
    large.extend(b"]}");
    is_busy(&api.post("/keys:batch", large.clone()).await);
    api.post("/keys:batch", r#"{"remove": ["other"]}"#)
        .await
        .is(200);
    held.pop();
    api.post("/keys:batch", large).await.is(200);
}

/// One that comes a byte at a time holds nobody up for longer than one that stops.
#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_is_given_up() {
    let api = Api::new().await;
    let begun = tokio::time::Instant::now();
    let trickle = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        Some((Ok::<_, std::io::Error>(" "), ()))
    });
    let answer = api.post("/keys:batch", Body::from_stream(trickle)).await;
    assert_eq!(answer.refusal(), (408, "body_timeout".to_owned()));
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn where_no_token_is_wanted_a_body_says_that_it_is_json() {
    let open = Api::new().await;
    let tokens = vec![Token::new(
        "ops",
        "w",
        vec![crate::control::access::Role::Write],
    )];
    let guarded = Api::with(tokens, None).await;
    for (api, status) in [(open, 415), (guarded, 201)] {
        let request = Request::put("/api/v1/document").header("authorization", "Bearer w");
        let request = request.body(Body::from(document("2", &[]))).unwrap();
        let answer = api.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
    }
}
