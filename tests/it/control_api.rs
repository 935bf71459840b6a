//! The REST API of a real control plane: what only sockets and a real store show.

use serde_json::{Value, json};

use crate::harness::{
    Client, ControlProcess, Response, eventually, memory, peak_memory, reset_peak_memory, table,
    tiers,
};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn etag(response: &Response) -> String {
    response.get("etag").expect("an etag").to_owned()
}

/// A control plane that serves this document.
async fn serving(document: &Value) -> ControlProcess {
    let control = ControlProcess::builder().start().await;
    let put = put(&control, document, &[]).await;
    assert_eq!(put.status, 201, "{put:?}");
    control
}

async fn put(control: &ControlProcess, document: &Value, headers: &[(&str, &str)]) -> Response {
    let headers = [&[JSON][..], headers].concat();
    control
        .request("PUT", "/api/v1/document", &headers, document.to_string())
        .await
}

#[tokio::test]
async fn a_document_goes_in_and_comes_out() {
    let control = ControlProcess::builder().start().await;
    let none = control.get("/api/v1/document").await;
    assert_eq!(none.status, 404, "{none:?}");
    let first = tiers("1", table(&[("acme", "tier1")]));
    let created = put(&control, &first, &[("If-None-Match", "*")]).await;
    assert_eq!(created.status, 201, "{created:?}");
    let got = control.get("/api/v1/document").await;
    assert_eq!(got.json(), first);
    assert_eq!(etag(&got), etag(&created));
    let same = control
        .request(
            "GET",
            "/api/v1/document",
            &[("If-None-Match", &etag(&got))],
            "",
        )
        .await;
    assert_eq!((same.status, same.body.len()), (304, 0));

    let key = control
        .request(
            "PUT",
            "/api/v1/keys/a%2Fb",
            &[JSON],
            r#"{"placement": "tier1"}"#,
        )
        .await;
    assert_eq!(key.status, 200, "{key:?}");

    let lost = put(&control, &first, &[("If-Match", &etag(&created))]).await;
    assert_eq!((lost.status, etag(&lost)), (412, etag(&key)));
    let described = control.get("/api/v1/openapi.json").await;
    assert_eq!(described.json()["openapi"], "3.1.0");
    let nothing = control.get("/api/v1/nothing").await;
    assert_eq!(
        (nothing.status, &nothing.json()["error"]),
        (404, &json!("not_found"))
    );
    let wrong = control.request("PATCH", "/api/v1/document", &[], "").await;
    assert_eq!(
        (wrong.status, wrong.get("allow")),
        (405, Some("GET,HEAD,PUT"))
    );
}

/// Two writers repeatedly increment a number in the document, while the file store syncs each generation.
#[tokio::test]
async fn two_writers_race_a_thousand_times_and_lose_nothing() {
    const EACH: usize = 500;
    let control = serving(&tiers("0", table(&[]))).await;
    let writer = async || {
        let mut client = control.client().await;
        let mut lost = 0;
        for _ in 0..EACH {
            loop {
                client
                    .send("GET /api/v1/document HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    .await;
                let got = client.response().await;
                let mut document = got.json();
                let number: usize = document["version"]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .expect("a number");
                document["version"] = json!((number + 1).to_string());
                let body = document.to_string();
                client
                    .send(format!(
                        "PUT /api/v1/document HTTP/1.1\r\nHost: localhost\r\nIf-Match: {}\r\n\
                         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        etag(&got),
                        body.len()
                    ))
                    .await;
                let put = client.response().await;
                match put.status {
                    200 => break,
                    412 => lost += 1,
                    other => panic!("{other}: {put:?}"),
                }
            }
        }
        lost
    };
    let (one, other): (usize, usize) = tokio::join!(writer(), writer());
    let last = control.get("/api/v1/document").await.json();
    assert_eq!(last["version"], (2 * EACH).to_string());
    assert!(one + other > 0, "they never met");
    let newest = control.get("/api/v1/status").await.json()["newest"].take();
    assert_eq!(newest["generation"], 2 * EACH + 1);
}

#[tokio::test]
async fn a_generation_outlives_the_process() {
    let builder = ControlProcess::builder();
    let control = builder.start().await;
    let first = tiers("1", table(&[("acme", "tier1")]));
    let created = put(&control, &first, &[]).await;
    assert_eq!(created.status, 201, "{created:?}");
    let body = r#"{"set": {"b": "tier1"}, "remove": ["acme"]}"#;
    let batch = control
        .request("POST", "/api/v1/keys:batch", &[JSON], body)
        .await;
    assert_eq!(batch.status, 200, "{batch:?}");
    control.kill().await;
    let control = builder.start().await;
    assert_eq!(etag(&control.get("/api/v1/keys/b").await), etag(&batch));
    let diff = control.get("/api/v1/generations/2/diff").await.json();
    assert_eq!(diff["keys"]["removed"]["items"][0]["key"], "acme");
    let restored = control
        .request("POST", "/api/v1/generations/1/restore", &[], "")
        .await;
    assert_eq!(restored.json()["generation"], 3);
    assert_eq!(
        control.get("/api/v1/keys/acme").await.json()["placement"],
        "tier1"
    );
}

/// Slow readers of a document do not each hold a copy of it.
#[tokio::test]
async fn a_large_document_is_streamed() {
    const KEYS: usize = 60_000;
    const READERS: usize = 4;
    let keys: serde_json::Map<String, Value> = (0..KEYS)
        .map(|number| (format!("tenant-{number:0300}"), json!("tier1")))
        .collect();
    let document = tiers("1", Value::Object(keys));
    let control = serving(&document).await;
    // The work that follows a change is not part of the measurement.
    eventually("the routing file is written", async || {
        (control.read_routing()? == document).then_some(())
    })
    .await;
    let pid = control.pid();
    let before = memory(pid);
    reset_peak_memory(pid);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Client::connect_narrow(control.address).await;
        reader
            .send("GET /api/v1/document HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        // The response has begun, so everything it holds has been allocated.
        while reader.wire().pending().len() < 1000 {
            let read = reader.wire().fill().await.expect("a document");
            assert!(read > 0, "the connection was closed");
        }
        readers.push(reader);
    }
    let mut size = 0;
    for mut reader in readers {
        let got = reader.response().await;
        size = got.body.len() as u64;
        let got = got.json()["routingTable"]
            .as_object()
            .map(|keys| keys.len());
        assert_eq!(got, Some(KEYS));
    }
    let extra = peak_memory(pid).saturating_sub(before);
    // Each response may hold a list of the keys: their text and 16 bytes each. The rest is for buffers and
    // for what the allocator keeps.
    let bound = size * READERS as u64 * 3 / 2;
    assert!(
        extra < bound,
        "{extra} bytes more for {READERS} documents of {size}"
    );
}
