//! What holds for every document, found by trying many.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::{RouteReason, check_key, compile, diagnose, quick};

/// A valid document before it is written down.
#[derive(Clone, Debug)]
struct Model {
    keys: Vec<(String, usize)>,
    placements: Vec<String>,
    default: usize,
}

impl Model {
    /// Ten lines that say what routing is.
    fn route(&self, key: &str) -> (&str, RouteReason) {
        let Some((_, home)) = self.keys.iter().find(|(known, _)| known == key) else {
            return (&self.placements[self.default], RouteReason::Default);
        };
        let name = &self.placements[*home];
        let tier = name.len() > 4
            && name.starts_with("tier")
            && name[4..].chars().all(|c| c.is_ascii_digit());
        let keys = self.keys.iter().filter(|(_, other)| other == home).count();
        let shared = *home == self.default || tier || keys >= 2;
        (
            name,
            if shared {
                RouteReason::Tier
            } else {
                RouteReason::Dedicated
            },
        )
    }

    fn document(&self, style: &Style) -> String {
        let name = |index: usize| style.string(&self.placements[index]);
        let object = |members: Vec<String>| format!("{{{}}}", members.join(","));
        let mut fields = vec![
            format!("\"version\"{}:\"1\"", style.space),
            format!(
                "\"routingTable\":{}",
                object(
                    self.keys
                        .iter()
                        .map(|(key, home)| format!("{}:{}", style.string(key), name(*home)))
                        .collect()
                )
            ),
            format!(
                "\"cellEndpoints\":{}{}",
                style.space,
                object(
                    (0..self.placements.len())
                        .map(|index| format!("{}:\"http://c{index}\"", name(index)))
                        .collect()
                )
            ),
            format!("\"defaultPlacement\":{}", name(self.default)),
        ];
        fields.rotate_left(style.rotate);
        format!("{}{}{}", style.space, object(fields), style.space)
    }
}

/// Ways to write the same document down.
#[derive(Clone, Debug)]
struct Style {
    space: &'static str,
    escaped: bool,
    rotate: usize,
}

impl Style {
    fn string(&self, text: &str) -> String {
        if !self.escaped {
            return serde_json::to_string(text).unwrap();
        }
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        format!("\"{}\"", units.collect::<String>())
    }
}

fn style() -> impl Strategy<Value = Style> {
    (select(vec!["", " ", "\r\n\t"]), any::<bool>(), 0..4usize).prop_map(
        |(space, escaped, rotate)| Style {
            space,
            escaped,
            rotate,
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let key = prop_oneof!["[a-c]{1,2}", "\\PC{1,6}"]
        .prop_filter("no header carries it", |key| check_key(key).is_ok());
    let name = prop_oneof!["tier[0-9]{0,2}", "[!-~]{1,8}"];
    let keys = prop::collection::btree_map(key, any::<prop::sample::Index>(), 0..12);
    let placements = prop::collection::btree_set(name, 1..6);
    (keys, placements, any::<prop::sample::Index>()).prop_map(|(keys, placements, default)| {
        let placements: Vec<String> = placements.into_iter().collect();
        Model {
            keys: keys
                .into_iter()
                .map(|(key, home)| (key, home.index(placements.len())))
                .collect(),
            default: default.index(placements.len()),
            placements,
        }
    })
}

/// Documents from few words, so that each rule is broken often, and alone.
fn nearly_valid() -> impl Strategy<Value = String> {
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

/// Both paths see the same document as valid, and problems are well formed.
fn assert_paths_agree(document: &[u8]) -> Result<(), TestCaseError> {
    let problems = diagnose::find(document);
    match quick(document) {
        Ok(_) => prop_assert_eq!(problems, []),
        Err(refusal) => prop_assert!(
            !problems.is_empty(),
            "only the quick path refuses: {}",
            refusal
        ),
    }
    let lines = 1 + document.iter().filter(|&&byte| byte == b'\n').count();
    if let Err(problems) = compile(document) {
        for problem in problems {
            prop_assert!(
                problem.line >= 1 && problem.line as usize <= lines,
                "{problem:?}"
            );
            prop_assert!(
                problem.column >= 1 && problem.column as usize <= document.len() + 1,
                "{problem:?}"
            );
            prop_assert!(problem.pointer.is_empty() || problem.pointer.starts_with('/'));
            prop_assert!(
                !problem.to_string().contains(['\n', '\r', '\u{1b}']),
                "{problem}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn routes_as_the_model_does(model in model(), style in style(), strangers in prop::collection::vec("\\PC{0,3}", 4)) {
        let document = model.document(&style);
        let table = match compile(document.as_bytes()) {
            Ok(table) => table,
            Err(problems) => return Err(TestCaseError::fail(format!("{document}: {}", problems[0]))),
        };
        prop_assert_eq!(table.key_count(), model.keys.len());
        for key in model.keys.iter().map(|(key, _)| key).chain(&strangers) {
            let route = table.route(key.as_bytes());
            let answer = (table.placement(route.placement).name.as_str(), route.reason);
            prop_assert_eq!(answer, model.route(key));
        }
        prop_assert_eq!(diagnose::find(document.as_bytes()), []);
    }

    #[test]
    fn part_of_a_document_is_no_document(model in model(), style in style(), end in any::<prop::sample::Index>()) {
        let document = model.document(&style);
        let whole = document.trim_end().len();
        let part = &document.as_bytes()[..end.index(whole)];
        prop_assert!(compile(part).is_err());
        assert_paths_agree(part)?;
    }

    #[test]
    fn both_paths_agree_on_what_is_nearly_valid(document in nearly_valid()) {
        assert_paths_agree(document.as_bytes())?;
    }

    #[test]
    fn both_paths_agree_after_any_edit(
        model in model(),
        style in style(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, prop::collection::vec(any::<u8>(), 0..3)), 1..4),
    ) {
        let mut document = model.document(&style).into_bytes();
        for (at, removed, inserted) in edits {
            let at = at.index(document.len() + 1);
            let end = (at + removed).min(document.len());
            document.splice(at..end, inserted);
        }
        assert_paths_agree(&document)?;
        // What survives an edit is a document in its own right: whole.
        if let Ok(table) = compile(&document) {
            let value: serde_json::Value = serde_json::from_slice(&document).unwrap();
            prop_assert_eq!(table.key_count(), value["routingTable"].as_object().unwrap().len());
            for (key, placement) in value["routingTable"].as_object().unwrap() {
                let route = table.route(key.as_bytes());
                prop_assert_eq!(&table.placement(route.placement).name, placement.as_str().unwrap());
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(document in prop::collection::vec(any::<u8>(), 0..64)) {
        assert_paths_agree(&document)?;
    }

    #[test]
    fn any_json_text_is_answered(document in "[\\[\\]{}:,\"a0 \\n\\\\-]{0,24}") {
        assert_paths_agree(document.as_bytes())?;
    }
}
