//! Documents that break a rule often, and seldom more than one.

use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::select;

/// Documents from few words, so that each rule is broken often, and alone.
pub(super) fn nearly_valid() -> impl Strategy<Value = String> {
    let key = || {
        let valid = || select(vec!["\"a\"", "\"b\"", "\"\\u0061\"", "\"c d\""]);
        prop_oneof![9 => valid(), 1 => select(vec!["\"\"", "\" a\"", "\"a\\u0000\"", "\"\\ud800\"", "\"\\u007f\""])]
    };
    let placement = || {
        let valid = || select(vec!["\"x\"", "\"y\"", "\"\\u0078\""]);
        prop_oneof![9 => valid(), 1 => select(vec!["\"z\"", "\"\"", "\"x \"", "null", "\"\\udfff\"", "1e999", "[[]]"])]
    };
    let url = || {
        let valid = || select(vec!["\"http://x\"", "\"https:\\/\\/[::1]:1/\""]);
        prop_oneof![9 => valid(), 1 => select(vec!["\"\"", "\"x\"", "\"http://x/y\"", "{}", "false", "\"\\ud800\""])]
    };
    fn object<K, V>(key: K, value: V, most: usize) -> impl Strategy<Value = String>
    where
        K: Strategy<Value = &'static str>,
        V: Strategy<Value = &'static str>,
    {
        let members = prop::collection::vec((key, value), 0..most);
        members.prop_map(|members| {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{key}:{value}"))
                .collect();
            format!("{{{}}}", members.join(", "))
        })
    }
    let both = select(vec!["\"x\": \"http://x\", \"y\": \"http://y\""]);
    let endpoints = prop_oneof![
        3 => both.prop_map(|both| format!("{{{both}}}")),
        1 => object(placement(), url(), 4),
    ];
    let version = prop_oneof![9 => Just("\"1\""), 1 => select(vec!["\"\"", "1", "\"\\n\"", "\"\\ud8\"", "\"\\udead\""])];
    let extra = prop_oneof![
        9 => Just(""),
        1 => select(vec![",\"version\":\"1\"", ",\"x\":[{}]", ",\"routingTable\":{}", ",", ",\"\\ud800\":1", "}", "\u{feff}"]),
    ];
    let gap = prop_oneof![19 => Just(0..0usize), 1 => Just(0..1usize)];
    (
        version,
        object(key(), placement(), 4),
        endpoints,
        placement(),
        extra,
        gap,
    )
        .prop_map(|(version, routing, endpoints, default, extra, gap)| {
            let mut fields = vec![
                format!("\"version\":{version}"),
                format!("\"routingTable\":{routing}"),
                format!("\"cellEndpoints\":{endpoints}"),
                format!("\"defaultPlacement\":{default}{extra}"),
            ];
            fields.drain(gap);
            format!("{{{}}}", fields.join(",\n"))
        })
}

/// Fields of a policy. The first three are wrong beside some others, or without
/// them.
const VALID: [&str; 16] = [
    r#""fallback":"x""#,
    r#""fallback":"y""#,
    r#""health_check":{"interval":"1s"}"#,
    r#""tenancy":"shared""#,
    r#""load_balancing":"hash""#,
    r#""health_check":{"timeout":"1s"}"#,
    r#""health_check":{"timeout":"20s","interval":"20s"}"#,
    r#""health_check":{}"#,
    r#""circuit_breaker":{"failure_threshold":5}"#,
    r#""concurrency_limit":5"#,
    r#""max_request_body_bytes":0"#,
    r#""timeouts":{"connect":"1m 30s","request":"5s"}"#,
    r#""retries":{"on":["reset","connect"],"attempts":2}"#,
    r#""host_header":"rewrite""#,
    r#""host_header":"cell:80""#,
    r#""\u0068ealth_check":{"expected_status":[200,"3xx","401-403"]}"#,
];
/// Fields that are wrong in `defaults`, and all but null in a placement, too.
const ODD: [&str; 16] = [
    r#""fallback":"z""#,
    r#""fallback":null"#,
    r#""tenancy":null"#,
    r#""health_check":null"#,
    r#""health_check":[]"#,
    r#""health_check":{"interval":5}"#,
    r#""circuit_breaker":{"timeout":"0s"}"#,
    r#""concurrency_limit":5.0"#,
    r#""concurrency_limit":1e999"#,
    r#""timeouts":{"\ud800":"5s"}"#,
    r#""timeouts":{"connect":"\udfff"}"#,
    r#""retries":{"on":["reset","reset"]}"#,
    r#""host_header":"""#,
    r#""unknown":[[[{}]]]"#,
    r#""url":"http://a""#,
    r#""endpoints":[{"url":"http://a"},{"url":"http://a:80"}]"#,
];

/// Documents of the second format, from few fields of which few are wrong.
pub(super) fn nearly_valid_policies() -> impl Strategy<Value = String> {
    let fields = |most| {
        let field = prop_oneof![9 => select(VALID.to_vec()), 1 => select(ODD.to_vec())];
        prop::collection::vec(field, 0..most)
    };
    let target = prop_oneof![
        5 => Just(r#""url":"http://a""#),
        5 => Just(r#""endpoints":[{"url":"http://a","weight":3},{"url":"http://b"}]"#),
        1 => Just(r#""endpoints":[]"#),
    ];
    let placement = || (target.clone(), fields(3));
    let cells = prop_oneof![
        6 => Just(""),
        2 => Just(r#","cellEndpoints":{"c":"http://c"}"#),
        1 => Just(r#","cellEndpoints":{"y":"http://c"}"#),
    ];
    let (x, y) = (placement(), placement());
    (x, y, fields(3), cells).prop_map(|(x, y, defaults, cells)| {
        let object = |(target, fields): (&str, Vec<&str>)| {
            let fields: Vec<_> = std::iter::once(target).chain(fields).collect();
            format!("{{{}}}", fields.join(","))
        };
        format!(
            r#"{{"version":"1","routingTable":{{"k":"x"}},"defaults":{{{}}},
"placements":{{"x":{},"y":{}}}{cells},"defaultPlacement":"y"}}"#,
            defaults.join(","),
            object(x),
            object(y),
        )
    })
}

/// A document that is valid by its making, and the same with one thing in it
/// that is not.
#[derive(Debug)]
pub(super) struct Pair {
    pub valid: String,
    pub odd: String,
}

/// Documents of valid fields, none twice, of which one is then made wrong.
pub(super) fn one_odd_field() -> impl Strategy<Value = Pair> {
    let object = || prop::sample::subsequence(VALID[3..].to_vec(), 0..6).prop_map(without_twins);
    let objects = (object(), object(), object());
    let odd = (select(ODD.to_vec()), 0..3usize);
    (objects, odd, any::<bool>()).prop_filter_map(
        "null switches off in a placement",
        |((defaults, x, y), (odd, at), fallback)| {
            if odd.ends_with(":null") && at > 0 {
                return None;
            }
            let mut objects = [defaults, x, y];
            if fallback {
                objects[1].push(VALID[1]);
            }
            let document = |objects: &[Vec<&str>; 3]| {
                let [defaults, x, y] = objects.each_ref().map(|fields| fields.join(","));
                let comma = |fields: &str| if fields.is_empty() { "" } else { "," };
                format!(
                    r#"{{"version":"1","routingTable":{{"k":"x"}},"defaults":{{{defaults}}},
"placements":{{"x":{{"url":"http://a"{}{x}}},"y":{{{y}{}"endpoints":[{{"url":"http://b"}}]}}}},"defaultPlacement":"y"}}"#,
                    comma(&x),
                    comma(&y),
                )
            };
            let valid = document(&objects);
            objects[at].retain(|field| name(field) != name(odd));
            objects[at].push(odd);
            Some(Pair {
                valid,
                odd: document(&objects),
            })
        },
    )
}

fn without_twins(fields: Vec<&'static str>) -> Vec<&'static str> {
    let mut names = HashSet::new();
    let mut kept = fields;
    kept.retain(|field| names.insert(name(field)));
    kept
}

/// The name of a field, as it reads.
fn name(field: &str) -> String {
    let (name, _) = field.split_once(':').unwrap();
    serde_json::from_str(name).unwrap()
}
