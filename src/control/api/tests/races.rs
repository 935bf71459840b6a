//! Many at once.

use serde_json::json;

use super::*;

/// Each adds one to a number that stands in the document, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_the_whole_document_lose_nothing() {
    const EACH: usize = 500;
    let api = Api::empty().await;
    api.put_json("/document", document("0", &[])).await.is(201);
    let writers = ["a", "b"].map(|name| {
        let api = api.clone();
        tokio::spawn(async move {
            let mut lost = 0;
            for _ in 0..EACH {
                loop {
                    let got = api.get("/document").await.is(200);
                    let etag = got.header("etag").to_owned();
                    let mut document = got.json();
                    let number: usize = document["version"].as_str().unwrap().parse().unwrap();
                    document["version"] = json!((number + 1).to_string());
                    document["routingTable"][name] = json!("two");
                    let headers = [("if-match", etag.as_str())];
                    let put = api
                        .ask("PUT", "/document", &headers, document.to_string())
                        .await;
                    if put.status.as_u16() == 200 {
                        break;
                    }
                    // Whoever loses learns of a newer one.
                    let newest = put.is(412);
                    assert_ne!(newest.header("etag"), etag);
                    lost += 1;
                }
            }
            lost
        })
    });
    let mut lost = 0;
    for writer in writers {
        lost += writer.await.unwrap();
    }
    let last = api.get("/document").await.json();
    assert_eq!(last["version"], (2 * EACH).to_string());
    assert_eq!(last["routingTable"], json!({"a": "two", "b": "two"}));
    assert_eq!(api.store.numbers().len(), 2 * EACH + 1);
    assert!(lost > 0, "they never met");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_single_keys_need_no_condition() {
    const EACH: usize = 100;
    let api = Api::new().await;
    let other = api.beside().await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let api = if writer % 2 == 0 {
                api.clone()
            } else {
                other.clone()
            };
            tokio::spawn(async move {
                for count in 0..EACH {
                    let target = format!("/keys/w{writer}-{count}");
                    api.put_json(&target, r#"{"placement": "two"}"#)
                        .await
                        .is(200);
                    if count % 2 == 1 {
                        api.ask("DELETE", &target, &[], "").await.is(200);
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    api.truth.refresh().await.unwrap();
    let newest = api.truth.newest().unwrap();
    assert_eq!(newest.table.key_count(), 1 + 8 * EACH / 2);
    assert_eq!(api.store.numbers().len(), 1 + 8 * EACH * 3 / 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_create_a_key_one_does() {
    let api = Api::new().await;
    for round in 0..50 {
        let target = format!("/keys/round-{round}");
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let (api, target) = (api.clone(), target.clone());
                tokio::spawn(async move {
                    // Others are busy with other keys meanwhile.
                    api.put_json(
                        &format!("/keys/own-{writer}-{round}"),
                        r#"{"placement": "one"}"#,
                    )
                    .await
                    .is(200);
                    let body = r#"{"placement": "two"}"#;
                    let put = api
                        .ask("PUT", &target, &[("if-none-match", "*")], body)
                        .await;
                    put.status.as_u16()
                })
            })
            .collect();
        let mut created = 0;
        for writer in writers {
            match writer.await.unwrap() {
                200 => created += 1,
                other => assert_eq!(other, 412),
            }
        }
        assert_eq!(created, 1);
    }
}
