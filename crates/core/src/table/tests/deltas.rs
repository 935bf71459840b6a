//! Deltas mean what editing the document would.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{
    Delta, KeyError, PlacementId, Problem, RoutingTable, TableBuilder, compile, diff,
};
use super::model::{model, style};

const SAMPLE: &str = super::SAMPLE;

fn set(entries: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, name): &(&str, &str)| ((*key).to_owned(), (*name).to_owned());
    entries.iter().map(owned).collect()
}

fn head(table: &RoutingTable, edit: impl FnOnce(&mut Map<String, Value>)) -> Option<String> {
    let mut head: Value = serde_json::from_str(table.head_json()).unwrap();
    edit(head.as_object_mut().unwrap());
    Some(head.to_string())
}

/// All that can be seen of a table, by names.
fn seen(table: &RoutingTable) -> Value {
    let name = |id: PlacementId| table.placement(id).name.clone();
    let keys: BTreeMap<_, _> = table
        .keys()
        .map(|(key, id)| {
            let route = table.route(key.as_bytes());
            assert_eq!(route.placement, id);
            (key, json!([name(id), route.reason, table.explain(key).why]))
        })
        .collect();
    assert_eq!(keys.len(), table.key_count());
    let placements: BTreeMap<_, _> = table
        .placements()
        .iter()
        .zip((0..).map(PlacementId))
        .map(|(one, id)| {
            let fallback = one.fallback.map(name);
            let policy = format!("{:?}", one.policy);
            (
                &one.name,
                json!([one.endpoints, policy, fallback, table.keys_on(id)]),
            )
        })
        .collect();
    json!([
        table.version(),
        keys,
        placements,
        name(table.default_placement()),
        &**table.head_json(),
        table.digest()
    ])
}

#[track_caller]
fn assert_same(one: &RoutingTable, other: &RoutingTable) {
    assert_eq!(seen(one), seen(other));
    for (one, other) in [(one, other), (other, one)] {
        let change = diff(one, other);
        assert!(change.is_empty() && change.version.is_none(), "{change}");
    }
}

#[test]
fn keys_are_set_moved_and_removed() {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    let before = seen(&table);
    let delta = Delta {
        head: None,
        set: set(&[("acme", "visa"), ("hooli", "tier2"), ("globex", "tier2")]),
        remove: vec!["initech".to_owned(), "nobody".to_owned(), String::new()],
    };
    let next = table.apply(&delta).unwrap();
    assert_eq!(
        diff(&table, &next).to_string(),
        "1 key added (hooli); 1 key removed (initech); 1 key moved (acme: tier1 -> visa)"
    );
    assert_eq!(seen(&table), before, "a table never changes");
    let edited = SAMPLE
        .replace(r#""acme": "tier1""#, r#""acme": "visa""#)
        .replace(r#""initech": "tier3""#, r#""hooli": "tier2""#);
    assert_same(&next, &compile(edited.as_bytes()).unwrap());
    assert_same(&next, &next.apply(&delta).unwrap());
    assert_ne!(next.digest(), table.digest());

    let back = Delta {
        set: set(&[("acme", "tier1"), ("initech", "tier3")]),
        remove: vec!["hooli".to_owned()],
        ..Delta::default()
    };
    assert_same(&next.apply(&back).unwrap(), &table);
}

#[test]
fn a_head_takes_the_place_of_all_but_the_keys() {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    let delta = Delta {
        head: head(&table, |head| {
            head["version"] = "2".into();
            let cells = head["cellEndpoints"].as_object_mut().unwrap();
            cells.remove("visa");
            cells.insert("annex".to_owned(), "http://annex".into());
        }),
        set: set(&[("visa", "annex")]),
        remove: Vec::new(),
    };
    let next = table.apply(&delta).unwrap();
    assert_eq!(
        diff(&table, &next).to_string(),
        "version 1.0.0 -> 2; 1 key moved (visa: visa -> annex); 1 placement added (annex); 1 placement removed (visa)"
    );
    // And back again, through an id that was free for a while.
    let back = Delta {
        head: Some(table.head_json().to_string()),
        set: set(&[("visa", "visa")]),
        remove: Vec::new(),
    };
    assert_same(&next.apply(&back).unwrap(), &table);
}

fn problems(delta: &Delta) -> Vec<(String, u32, u32, String)> {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    let before = seen(&table);
    let problems = table.apply(delta).unwrap_err();
    assert_eq!(seen(&table), before);
    let parts = |problem: Problem| {
        (
            problem.pointer,
            problem.line,
            problem.column,
            problem.message,
        )
    };
    problems.into_iter().map(parts).collect()
}

#[test]
fn all_problems_come_at_once() {
    let delta = Delta {
        head: None,
        set: set(&[
            ("a b", "tier9"),
            (" ", "tier1"),
            ("acme", "tier1"),
            ("acme", "tier2"),
            (&"k".repeat(300), ""),
        ]),
        remove: vec!["globex".to_owned(), "acme".to_owned()],
    };
    let expected = [
        (
            "/set/a b",
            0,
            0,
            r#"unknown placement "tier9" (known: tier1, tier2, tier3, visa; did you mean "tier1"?)"#,
        ),
        (
            "/set/ ",
            0,
            0,
            "routing key with white space at its start or end, which is stripped from headers",
        ),
        ("/set/acme", 0, 0, "duplicate key"),
        (
            "/set",
            0,
            0,
            r#"unknown placement "" (known: tier1, tier2, tier3, visa)"#,
        ),
        (
            "/remove/1",
            0,
            0,
            r#"routing key "acme" is in set as well (it can only be in one of them)"#,
        ),
    ];
    assert_eq!(
        problems(&delta),
        expected.map(|(p, l, c, m)| (p.to_owned(), l, c, m.to_owned()))
    );
}

#[test]
fn a_head_is_checked_like_a_document() {
    let delta = |head: &str| Delta {
        head: Some(head.to_owned()),
        set: set(&[("", "nowhere")]),
        remove: Vec::new(),
    };
    let found = problems(&delta(
        "{\"version\": \"2\", \"routingTable\": {},\n \"placements\": {\"a\": {\"url\": \"http://a\", \"fallback\": \"b\"}, \
         \"b\": {\"url\": \"http://b\", \"fallback\": \"a\"}}, \"defaultPlacement\": \"c\"}",
    ));
    let expected = [
        (
            "/head/routingTable",
            1,
            18,
            "unknown field \"routingTable\" (known: version, defaults, placements, cellEndpoints, defaultPlacement)",
        ),
        (
            "/head/placements/a/fallback",
            2,
            54,
            "fallbacks lead in a circle: a -> b -> a",
        ),
        (
            "/head/defaultPlacement",
            2,
            124,
            "unknown placement \"c\" (known: a, b; did you mean \"a\"?)",
        ),
        (
            "/set/",
            0,
            0,
            "empty routing key (a request without a key is answered 400)",
        ),
    ];
    assert_eq!(
        found,
        expected.map(|(p, l, c, m)| (p.to_owned(), l, c, m.to_owned()))
    );
    assert_eq!(problems(&delta("{"))[0].0, "/head");
    assert_eq!(problems(&delta(""))[0].3, "the document is empty");
    assert_eq!(problems(&delta(SAMPLE))[0].0, "/head/routingTable");
}

#[test]
fn a_placement_does_not_vanish_under_its_keys() {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    let mut delta = Delta {
        head: head(&table, |head| {
            drop(
                head["cellEndpoints"]
                    .as_object_mut()
                    .unwrap()
                    .remove("visa"),
            );
        }),
        set: set(&[("visa 2", "tier1")]),
        remove: Vec::new(),
    };
    let message = "missing placement \"visa\", where 1 key of the table would still live \
                   (set or remove it in the same delta)";
    assert_eq!(
        problems(&delta),
        [("/head".to_owned(), 0, 0, message.to_owned())]
    );
    delta.remove.push("visa".to_owned());
    assert!(table.apply(&delta).is_ok());
}

#[test]
fn very_many_problems_are_counted() {
    let entries: Vec<_> = (0..250)
        .map(|number| (format!("k{number}"), "tier9".to_owned()))
        .collect();
    let found = problems(&Delta {
        set: entries,
        ..Delta::default()
    });
    assert_eq!(found.len(), 101);
    assert_eq!(found[100].3, "and 150 more problems");
}

#[test]
fn problems_are_counted_once() {
    let cells: Map<_, _> = (0..150)
        .map(|number| (format!("c{number}"), "no url".into()))
        .collect();
    let head = json!({"version": "2", "cellEndpoints": cells, "defaultPlacement": "c1"});
    let found = problems(&Delta {
        head: Some(head.to_string()),
        set: set(&[("", "c1")]),
        ..Delta::default()
    });
    let counts = found
        .iter()
        .filter(|problem| problem.3.contains(" more problem"));
    assert_eq!((found.len(), counts.count()), (101, 1));
    assert_eq!(found[100].3, "and 50 more problems");
}

/// Values that another implementation can be held against.
#[test]
fn digests_stay_what_they_are() {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    assert_eq!(
        &**table.head_json(),
        r#"{"cellEndpoints":{"tier1":"http://cell-tier1:9001","tier2":"http://cell-tier2:9002","tier3":"http://cell-tier3:9003","visa":"http://cell-visa:9004"},"defaultPlacement":"tier3","version":"1.0.0"}"#
    );
    assert_eq!(
        table.digest().to_string(),
        "72a313d88b67b4f85556746c0e47b37b"
    );
}

/// A table with a hundred thousand keys: the digest of the next one, and the
/// difference, come from the change alone and are right.
#[test]
fn large_tables_differ_by_what_was_changed() {
    let keys: Map<_, _> = (0..100_000)
        .map(|number| (format!("tenant-{number}"), "one".into()))
        .collect();
    let mut document = json!({"version": "1", "routingTable": keys, "defaultPlacement": "one",
                              "cellEndpoints": {"one": "http://one", "two": "http://two"}});
    let table = compile(document.to_string().as_bytes()).unwrap();
    let delta = Delta {
        set: set(&[("tenant-5", "two"), ("new", "one")]),
        remove: vec!["tenant-7".to_owned()],
        ..Delta::default()
    };
    let next = table.apply(&delta).unwrap();
    let keys = document["routingTable"].as_object_mut().unwrap();
    keys.insert("tenant-5".to_owned(), "two".into());
    keys.insert("new".to_owned(), "one".into());
    keys.remove("tenant-7");
    let edited = compile(document.to_string().as_bytes()).unwrap();
    assert_same(&next, &edited);
    let expected =
        "1 key added (new); 1 key removed (tenant-7); 1 key moved (tenant-5: one -> two)";
    assert_eq!(diff(&table, &next).to_string(), expected);
    assert_eq!(diff(&table, &edited).to_string(), expected);

    // What was not changed is shared, also under a new head.
    let unshared = |next: &RoutingTable| {
        let mut keys = 0;
        next.keys.unshared(&table.keys, |_, _| keys += 1);
        keys
    };
    assert!((1..=3 * 17).contains(&unshared(&next)));
    let headed = table.apply(&Delta {
        head: head(&table, |head| head["version"] = "2".into()),
        ..Delta::default()
    });
    assert_eq!(unshared(&headed.unwrap()), 0);

    assert!(table.shares_all_but(3 * 17, &next));
    assert!(!table.shares_all_but(0, &next));
    assert!(!table.shares_all_but(table.key_count() - 1, &edited));

    let change = table.delta_within(&next, 3 * 17).unwrap();
    assert_same(&table.apply(&change).unwrap(), &next);
    let keys = table.key_count();
    assert_eq!(
        table.delta_within(&edited, keys - 1),
        None,
        "nothing is shared"
    );
    assert_eq!(table.delta_within(&edited, keys), Some(change));
}

/// Two tables of one parent may use the same free number for different names.
#[test]
fn siblings_that_add_different_placements_are_told_apart() {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    let with = |name: &str| {
        let delta = Delta {
            head: head(&table, |head| {
                head["cellEndpoints"][name] = format!("http://{name}").into();
            }),
            set: set(&[("acme", name)]),
            ..Delta::default()
        };
        table.apply(&delta).unwrap()
    };
    let (one, other) = (with("annex"), with("barn"));
    assert_eq!(
        one.route(b"acme").placement,
        one.placement_of("acme").unwrap()
    );
    let there = one.delta_to(&other);
    assert_eq!(there.set, set(&[("acme", "barn")]));
    assert_same(&one.apply(&there).unwrap(), &other);
    assert_same(&other.apply(&other.delta_to(&one)).unwrap(), &one);
}

/// The table of `all`, key by key.
fn streamed(all: &Delta) -> Result<RoutingTable, Vec<Problem>> {
    let mut builder = TableBuilder::new(all.head.as_deref().unwrap())?;
    for (key, name) in &all.set {
        let placement = builder.placement(name).unwrap();
        builder.push(key, placement).unwrap();
    }
    builder.finish().map_err(|problem| vec![problem])
}

#[test]
fn streaming_keys_refuses_what_a_document_would() {
    let table = compile(SAMPLE.as_bytes()).unwrap();
    let all = |set| Delta {
        head: Some(table.head_json().to_string()),
        set,
        remove: Vec::new(),
    };
    let twice = all(set(&[("a", "tier1"), ("b", "tier1"), ("a", "tier2")]));
    let problems = streamed(&twice).unwrap_err();
    assert_eq!(problems[0].message, "duplicate routing key");
    let problems = TableBuilder::new("{}").err().unwrap();
    assert_eq!(problems[0].pointer, "/head");
    let mut builder = TableBuilder::new(table.head_json()).unwrap();
    assert_eq!(builder.placement("tier9"), None);
    let tier1 = builder.placement("tier1").unwrap();
    assert_eq!(builder.push(" ", tier1), Err(KeyError::Padded));
    assert_same(
        &builder.finish().unwrap(),
        &streamed(&all(Vec::new())).unwrap(),
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The digest does not depend on how a document is written, and on all that
    /// it says.
    #[test]
    fn digests_are_of_the_content(model in model(), one in style(), other in style()) {
        let one = compile(model.document(&one).as_bytes()).unwrap();
        let other = compile(model.document(&other).as_bytes()).unwrap();
        assert_same(&one, &other);
        let changed = one.apply(&Delta { head: head(&one, |head| head["version"] = "2".into()), ..Delta::default() });
        prop_assert_ne!(changed.unwrap().digest(), one.digest());
        prop_assert_eq!(one.apply(&Delta::default()).unwrap().digest(), one.digest());
    }

    /// The delta from one table to another makes it, and one from nothing does.
    #[test]
    fn a_delta_leads_from_any_table_to_any_other(models in [model(), model()], style in style()) {
        let [one, other] = models.map(|model| compile(model.document(&style).as_bytes()).unwrap());
        let there = one.delta_to(&other);
        let next = one.apply(&there).unwrap();
        assert_same(&next, &other);
        assert_same(&next.apply(&next.delta_to(&one)).unwrap(), &one);
        prop_assert_eq!(one.delta_to(&one), Delta::default());
        prop_assert_eq!(next.delta_to(&other), Delta::default());
        let all = Delta {
            head: Some(one.head_json().to_string()),
            set: one.keys().map(|(key, id)| (key.to_owned(), one.placement(id).name.clone())).collect(),
            remove: Vec::new(),
        };
        assert_same(&RoutingTable::founded_by(&all).unwrap(), &one);
        assert_same(&streamed(&all).unwrap(), &one);
        let headless = RoutingTable::founded_by(&Delta { head: None, ..all });
        prop_assert!(headless.is_err());
    }

    /// From any table to the keys of another under its head, in steps, equals
    /// compiling what the document would have become.
    #[test]
    fn deltas_are_edits(
        models in prop::collection::vec(model(), 1..5),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..6)), 1..8),
        style in style(),
    ) {
        let documents: Vec<Value> = models
            .iter()
            .map(|model| serde_json::from_str(&model.document(&style)).unwrap())
            .collect();
        let pool: Vec<&str> = models.iter().flat_map(|model| model.keys.iter().map(|(key, _)| key.as_str())).collect();
        let mut document = documents[0].clone();
        let mut table = compile(document.to_string().as_bytes()).unwrap();
        for (which, with_head, changes) in edits {
            let mut next = document.clone();
            let mut delta = Delta::default();
            if with_head {
                let mut new = which.get(&documents).clone();
                new["routingTable"] = next["routingTable"].take();
                next = new.clone();
                new.as_object_mut().unwrap().remove("routingTable");
                delta.head = Some(new.to_string());
            }
            let names: Vec<String> = ["cellEndpoints", "placements"]
                .iter()
                .filter_map(|section| next.get(*section)?.as_object())
                .flat_map(|section| section.keys().cloned())
                .collect();
            let keys = next["routingTable"].as_object_mut().unwrap();
            let mut changes: BTreeMap<&str, Option<String>> = changes
                .into_iter()
                .filter(|_| !pool.is_empty())
                .map(|(key, name, remove)| (*key.get(&pool), (!remove).then(|| name.get(&names).clone())))
                .collect();
            // Half of the time, nobody is left where there is nothing any more.
            if with_head && which.index(2) == 0 {
                for (key, name) in keys.iter() {
                    if !names.iter().any(|known| known == name.as_str().unwrap())
                        && let Some(key) = pool.iter().find(|known| *known == key)
                    {
                        changes.entry(key).or_insert(None);
                    }
                }
            }
            for (key, name) in changes {
                match name {
                    Some(name) => {
                        delta.set.push((key.to_owned(), name.clone()));
                        keys.insert(key.to_owned(), name.into());
                    }
                    None => {
                        delta.remove.push(key.to_owned());
                        keys.remove(key);
                    }
                }
            }
            match (table.apply(&delta), compile(next.to_string().as_bytes())) {
                (Ok(applied), Ok(compiled)) => {
                    assert_same(&applied, &compiled);
                    prop_assert_eq!(diff(&table, &applied), diff(&table, &compiled));
                    table = applied;
                    document = next;
                }
                (Err(problems), Err(_)) => prop_assert!(!problems.is_empty()),
                (applied, compiled) => prop_assert!(
                    false, "{delta:?} on {document}: {:?} but {:?}", applied.err(), compiled.err()
                ),
            }
        }
    }
}
