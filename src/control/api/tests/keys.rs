//! Keys, one by one, in pages and in batches.

use serde_json::json;

use super::*;

#[tokio::test]
async fn a_key_is_put_read_and_deleted() {
    let api = Api::new().await;
    let put = api
        .put_json("/keys/acme", r#"{"placement": "two"}"#)
        .await
        .is(200);
    let record = put.json();
    assert_eq!(record["generation"], 2);
    assert_eq!(
        (&record["set"], &record["removed"], &record["keys"]),
        (&json!(1), &json!(0), &json!(1))
    );
    assert_eq!(record["author"]["what"], "put key acme");
    let got = api.get("/keys/acme").await.is(200);
    assert_eq!(
        got.json(),
        json!({"key": "acme", "placement": "two", "generation": 2})
    );

    let same = api
        .put_json("/keys/acme", r#"{"placement": "two"}"#)
        .await
        .is(200);
    assert_eq!(
        (&same.json()["changed"], &same.json()["generation"]),
        (&json!(false), &json!(2))
    );

    let deleted = api.ask("DELETE", "/keys/acme", &[], "").await.is(200);
    assert_eq!(deleted.json()["removed"], 1);
    for method in ["GET", "DELETE"] {
        let gone = api.ask(method, "/keys/acme", &[], "").await;
        assert_eq!(gone.refusal(), (404, "unknown_key".to_owned()));
        assert_eq!(gone.header("etag"), deleted.header("etag"));
        assert_eq!(
            gone.message(),
            "no key \"acme\" in generation 3 (requests with it go to the default placement \"one\")"
        );
    }
}

#[tokio::test]
async fn any_key_can_be_in_a_path() {
    let api = Api::new().await;
    for (encoded, key) in [
        ("a%2Fb", "a/b"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%25", "%"),
        ("caf%C3%A9", "café"),
        ("%2E%2E", ".."),
        ("a:b@c", "a:b@c"),
        ("a%3Fb%23c", "a?b#c"),
    ] {
        let target = format!("/keys/{encoded}");
        api.put_json(&target, r#"{"placement": "two"}"#)
            .await
            .is(200);
        assert_eq!(api.get(&target).await.is(200).json()["key"], key);
        let newest = api.truth.newest().unwrap();
        assert!(newest.table.placement_of(key).is_some(), "{key}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_key_or_a_placement_is_refused() {
    let api = Api::new().await;
    for key in ["%20a", "a%09", "a%00b"] {
        let put = api
            .put_json(&format!("/keys/{key}"), r#"{"placement": "two"}"#)
            .await;
        assert_eq!(put.refusal(), (400, "invalid_key".to_owned()));
    }
    let put = api.put_json("/keys/acme", r#"{"placement": "tow"}"#).await;
    assert_eq!(put.refusal(), (422, "invalid".to_owned()));
    assert_eq!(
        put.json()["problems"],
        json!([{
            "pointer": "/placement", "line": 0, "column": 0,
            "message": "unknown placement \"tow\" (known: one, two; did you mean \"two\"?)",
        }])
    );
    assert_eq!(api.store.numbers(), [(1, 0)]);
}

#[tokio::test]
async fn a_batch_is_one_generation() {
    let api = Api::new().await;
    let batch = r#"{"set": {"b": "two", "c": "one"}, "remove": ["acme", "never-there"]}"#;
    let done = api.post("/keys:batch", batch).await.is(200);
    let record = done.json();
    assert_eq!(record["generation"], 2);
    assert_eq!((&record["set"], &record["removed"]), (&json!(2), &json!(1)));
    assert_eq!(record["author"]["what"], "batch: 2 set, 2 removed");
    let keys = api.get("/keys").await.json()["keys"].take();
    assert_eq!(
        keys,
        json!([{"key": "b", "placement": "two"}, {"key": "c", "placement": "one"}])
    );
    for nothing in [
        "{}",
        r#"{"set": {"b": "two"}}"#,
        r#"{"remove": ["never-there"]}"#,
    ] {
        let same = api.post("/keys:batch", nothing).await.is(200);
        assert_eq!(same.json()["changed"], false, "{nothing}");
    }
    assert_eq!(api.store.numbers().len(), 2);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let api = Api::new().await;
    let long = format!(r#"{{"set": {{"{}": "one"}}}}"#, "k".repeat(65_537));
    for (batch, pointers) in [
        (long.as_str(), vec!["/set"]),
        (
            r#"{"set": {"a": "one", "b": "tow", "c": "three"}}"#,
            vec!["/set/b", "/set/c"],
        ),
        (r#"{"set": {"a": "one", "a": "two"}}"#, vec!["/set/a"]),
        (
            r#"{"set": {"a": "one"}, "remove": ["x", "a"]}"#,
            vec!["/remove/1"],
        ),
        (r#"{"set": {"": "one", "b": "one"}}"#, vec!["/set/"]),
    ] {
        let refused = api.post("/keys:batch", batch.to_owned()).await;
        assert_eq!(refused.refusal(), (422, "invalid".to_owned()));
        let problems = refused.json()["problems"].take();
        let problems = problems.as_array().unwrap().iter();
        let found: Vec<_> = problems
            .map(|problem| problem["pointer"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, pointers, "{batch}");
    }
    assert_eq!(api.store.numbers(), [(1, 0)]);
    assert_eq!(
        api.get("/keys").await.json()["keys"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn pages_have_every_key_once_in_order() {
    let api = Api::empty().await;
    let names: Vec<String> = (0..2500).map(|number| format!("k{number}")).collect();
    let placement = |number: usize| {
        if number.is_multiple_of(5) {
            "two"
        } else {
            "one"
        }
    };
    let keys: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| (name.as_str(), placement(number)))
        .collect();
    api.put_json("/document", document("1", &keys))
        .await
        .is(201);
    let mut sorted = names.clone();
    sorted.sort_unstable();

    for (limit, filter, expected) in [
        ("", "", sorted.clone()),
        (
            "&limit=7",
            "&prefix=k12",
            sorted
                .iter()
                .filter(|key| key.starts_with("k12"))
                .cloned()
                .collect(),
        ),
        (
            "&limit=100",
            "&placement=two",
            sorted
                .iter()
                .filter(|key| key.ends_with(['0', '5']))
                .cloned()
                .collect(),
        ),
        ("&limit=10000", "", sorted.clone()),
        ("&limit=1", "&prefix=nothing", vec![]),
    ] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = api
                .get(&format!("/keys?after={after}{limit}{filter}"))
                .await
                .is(200)
                .json();
            let keys = page["keys"].as_array().unwrap();
            seen.extend(
                keys.iter()
                    .map(|entry| entry["key"].as_str().unwrap().to_owned()),
            );
            assert_eq!(page["remaining"], expected.len() - seen.len());
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{limit} {filter}");
    }
    let unknown = api.get("/keys?placement=tow").await;
    assert_eq!(unknown.refusal(), (404, "unknown_placement".to_owned()));
}

#[tokio::test]
async fn the_first_generation_may_be_another_control_planes() {
    for (method, target, body) in [
        ("PUT", "/keys/acme", r#"{"placement": "two"}"#),
        ("DELETE", "/keys/acme", ""),
        ("POST", "/keys:batch", r#"{"remove": ["acme"]}"#),
    ] {
        let api = Api::empty().await;
        let behind = api.beside().await;
        let refused = behind.ask(method, target, &[], body).await;
        assert_eq!(refused.refusal(), (409, "no_document".to_owned()));
        let expects = [("if-match", "*")];
        let refused = behind.ask(method, target, &expects, body).await;
        assert_eq!(refused.refusal().0, 412, "{method}");
        let first = document("1", &[("acme", "one")]);
        api.ask("PUT", "/document", &[], first).await.is(201);
        let made = behind.ask(method, target, &[], body).await.is(200);
        assert_eq!(made.json()["generation"], 2);
    }
}
