//! History.

use serde_json::json;

use super::*;

/// Five generations: `acme` on one, then two; then another document; then two keys
/// in a batch; then without `acme`.
async fn history() -> Api {
    let api = Api::new().await;
    api.put_json("/keys/acme", r#"{"placement": "two"}"#)
        .await
        .is(200);
    let other = document("2", &[("acme", "two"), ("z", "one")]);
    let other = String::from_utf8(other.to_vec())
        .unwrap()
        .replace("127.0.0.1:2", "127.0.0.1:3");
    api.put_json("/document", other).await.is(200);
    api.post("/keys:batch", r#"{"set": {"b": "one", "z": "two"}}"#)
        .await
        .is(200);
    api.ask("DELETE", "/keys/acme", &[], "").await.is(200);
    api
}

fn numbers(page: &Value) -> Vec<u64> {
    let generations = page["generations"].as_array().unwrap();
    generations
        .iter()
        .map(|record| record["generation"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn they_are_listed_newest_first_in_pages() {
    let api = history().await;
    let all = api.get("/generations").await.is(200);
    assert_eq!(numbers(&all.json()), [5, 4, 3, 2, 1]);
    assert_eq!(all.json()["next"], Value::Null);
    assert!(all.header("etag").starts_with("\"g5-"));
    let mut seen = Vec::new();
    let mut target = "/generations?limit=2".to_owned();
    loop {
        let page = api.get(&target).await.is(200).json();
        seen.push(numbers(&page));
        match page["next"].as_u64() {
            Some(next) => target = format!("/generations?limit=2&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [vec![5, 4], vec![3, 2], vec![1]]);
}

#[tokio::test]
async fn each_can_be_read() {
    let api = history().await;
    let record = api.get("/generations/2").await.is(200);
    assert_eq!(
        (&record.json()["parent"], &record.json()["set"]),
        (&json!(1), &json!(1))
    );
    let old = api.get("/generations/1/document").await.is(200);
    assert_eq!(old.json()["routingTable"], json!({"acme": "one"}));
    assert!(old.header("etag").starts_with("\"g1-"));
    let newest = api.get("/generations/5/document").await.is(200);
    assert_eq!(newest.body, api.get("/document").await.body);
    for (generation, why) in [
        ("6", "there is no generation 6: the newest is 5"),
        (
            "0",
            "there is no generation 0: it never existed, or is no longer kept",
        ),
    ] {
        for target in ["", "/document", "/diff"] {
            let unknown = api.get(&format!("/generations/{generation}{target}")).await;
            assert_eq!(unknown.refusal(), (404, "unknown_generation".to_owned()));
            assert_eq!(unknown.message(), why);
        }
        let restore = api
            .post(&format!("/generations/{generation}/restore"), "")
            .await;
        assert_eq!(restore.refusal(), (404, "unknown_generation".to_owned()));
    }
    for bad in ["x", "-1", "1.5", "99999999999999999999", "%31x"] {
        let refused = api.get(&format!("/generations/{bad}")).await;
        assert_eq!(refused.refusal(), (400, "invalid_path".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn one_is_compared_with_what_it_was_made_of() {
    let api = history().await;
    let none = json!({"count": 0, "items": []});
    let diff = api.get("/generations/2/diff").await.is(200).json();
    assert_eq!(
        diff,
        json!({
            "from": 1, "to": 2, "summary": "1 key moved (acme: one -> two)",
            "version": null, "default_placement": null,
            "keys": {"added": none, "removed": none, "moved": {
                "count": 1, "items": [{"key": "acme", "from": "one", "to": "two"}],
            }},
            "placements": {"added": none, "removed": none, "changed": none},
        })
    );
    let diff = api.get("/generations/3/diff").await.is(200).json();
    assert_eq!(diff["version"], json!({"from": "1", "to": "2"}));
    assert_eq!(
        diff["keys"]["added"],
        json!({"count": 1, "items": [{"key": "z", "from": null, "to": "one"}]})
    );
    assert_eq!(
        diff["placements"]["changed"]["items"],
        json!([{"name": "two", "fields": ["endpoints"],
                "endpoint": {"from": "http://127.0.0.1:2", "to": "http://127.0.0.1:3"}}])
    );
    let diff = api.get("/generations/5/diff").await.is(200).json();
    assert_eq!(
        diff["keys"]["removed"]["items"],
        json!([{"key": "acme", "from": "two", "to": null}])
    );
    // The first is all new.
    let first = api.get("/generations/1/diff").await.is(200).json();
    assert_eq!(first["from"], Value::Null);
    assert_eq!(first["keys"]["added"]["count"], 1);
    assert_eq!(
        first["placements"]["added"],
        json!({"count": 2, "items": [{"name": "one"}, {"name": "two"}]})
    );
}

#[tokio::test]
async fn any_two_are_compared() {
    let api = history().await;
    let diff = api.get("/generations/1/diff?to=5").await.is(200).json();
    assert_eq!((&diff["from"], &diff["to"]), (&json!(1), &json!(5)));
    assert_eq!(diff["keys"]["added"]["count"], 2);
    assert_eq!(diff["keys"]["removed"]["count"], 1);
    let back = api.get("/generations/5/diff?to=1").await.is(200).json();
    assert_eq!(back["keys"]["added"]["items"][0]["key"], "acme");
    let same = api.get("/generations/4/diff?to=4").await.is(200).json();
    assert_eq!(same["summary"], "no change");
    let short = api
        .get("/generations/1/diff?to=5&limit=1")
        .await
        .is(200)
        .json();
    assert_eq!(
        short["keys"]["added"],
        json!({"count": 2, "items": [{"key": "b", "from": null, "to": "one"}]})
    );
    assert_eq!(api.get("/generations/1/diff?to=9").await.refusal().0, 404);
}

#[tokio::test]
async fn one_is_restored_as_a_new_one() {
    let api = history().await;
    let restored = api.post("/generations/1/restore", "").await.is(200);
    let record = restored.json();
    assert_eq!(
        (&record["generation"], &record["parent"]),
        (&json!(6), &json!(5))
    );
    assert_eq!(record["author"]["what"], "restore 1");
    let (first, now) = (
        api.get("/generations/1/document").await,
        api.get("/document").await,
    );
    assert_eq!(first.body, now.body);
    assert_eq!(
        api.get("/generations/1").await.json()["digest"],
        record["digest"]
    );
    assert_eq!(
        numbers(&api.get("/generations").await.json()),
        [6, 5, 4, 3, 2, 1]
    );
    // What is there already is not made again.
    let again = api.post("/generations/1/restore", "").await.is(200);
    assert_eq!(
        (&again.json()["changed"], &again.json()["generation"]),
        (&json!(false), &json!(6))
    );
}
