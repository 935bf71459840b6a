//! YAML as a tree in which every value and key has its place in the text.
//!
//! The tree keeps what a typed read would lose: duplicate keys, and what was written
//! where another type was wanted, so that all problems of a file can be reported at once.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Spanned};

/// Line and column, from 1.
pub(crate) type Position = (usize, usize);

/// One YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Placed<Node>>),
    /// In the order of the file, duplicates included.
    Map(Vec<(Placed<String>, Placed<Node>)>),
}

/// A value or a key, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed<T> {
    pub value: T,
    pub position: Position,
}

/// Why a text is not YAML: where, when known, and what.
pub(crate) struct SyntaxError {
    pub position: Option<Position>,
    pub message: String,
}

/// Reads one document. An empty text is `Null`.
///
/// # Errors
/// What is not YAML 1.2, has a tag, or is more than one document.
pub(crate) fn parse(text: &str) -> Result<Placed<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let position = error.location().and_then(position);
        let mut message = match error {
            Error::MultipleDocuments { .. } => "more than one document".to_owned(),
            other => other.to_string(),
        };
        // The place is reported apart from the message.
        if let Some((line, column)) = position {
            message = message.replace(&format!(" at line {line}, column {column}"), "");
        }
        SyntaxError { position, message }
    })
}

fn position(location: Location) -> Option<Position> {
    let line = usize::try_from(location.line()).ok()?;
    let column = usize::try_from(location.column()).ok()?;
    (line > 0).then_some((line, column))
}

impl<'de> Deserialize<'de> for Placed<Node> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned {
            value, referenced, ..
        } = Spanned::deserialize(deserializer)?;
        let position = position(referenced).unwrap_or((1, 1));
        Ok(Self { value, position })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Placed<Node>, Placed<Node>>()? {
            let name = match key.value {
                Node::Text(text) => text,
                other => other.to_string(),
            };
            let key = Placed {
                value: name,
                position: key.position,
            };
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }
}

impl Node {
    /// The same value as JSON, for what serde reads further.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Node::Null => Value::Null,
            Node::Bool(value) => (*value).into(),
            Node::Int(value) => serde_json::Number::from_i128(*value).into(),
            Node::Float(value) => (*value).into(),
            Node::Text(text) => text.as_str().into(),
            Node::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Node::Map(entries) => entries
                .iter()
                .map(|(key, value)| (key.value.clone(), value.value.to_json()))
                .collect(),
        }
    }
}

impl fmt::Display for Node {
    /// As a problem quotes it: short, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 80;
        match self {
            Node::Null => f.write_str("no value"),
            Node::Bool(value) => write!(f, "{value}"),
            Node::Int(value) => write!(f, "{value}"),
            Node::Float(value) => write!(f, "{value}"),
            Node::Text(text) => match text.char_indices().nth(LONGEST) {
                None => write!(f, "{text:?}"),
                Some((end, _)) => write!(f, "{:?}…", &text[..end]),
            },
            Node::List(_) => f.write_str("a list"),
            Node::Map(_) => f.write_str("a map"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# a comment
threads: 4
cellgate:
  listen:
    - 127.0.0.1:80
    - {address: \"[::]:80\"}
  text: |
    threads: no key
  timeouts: {connect: 5s, connect: 6s}
  empty:
";

    fn placed<T>(value: T, position: Position) -> Placed<T> {
        Placed { value, position }
    }

    #[test]
    fn a_tree_with_everything_in_it() {
        let key = |text: &str, at| placed(text.to_owned(), at);
        let text = |text: &str, at| placed(Node::Text(text.to_owned()), at);
        let address = Node::Map(vec![(key("address", (6, 8)), text("[::]:80", (6, 17)))]);
        let listen = vec![text("127.0.0.1:80", (5, 7)), placed(address, (6, 7))];
        let timeouts = vec![
            (key("connect", (9, 14)), text("5s", (9, 23))),
            (key("connect", (9, 27)), text("6s", (9, 36))),
        ];
        let section = vec![
            (key("listen", (4, 3)), placed(Node::List(listen), (5, 5))),
            (key("text", (7, 3)), text("threads: no key\n", (8, 5))),
            (
                key("timeouts", (9, 3)),
                placed(Node::Map(timeouts), (9, 13)),
            ),
            (key("empty", (10, 3)), placed(Node::Null, (10, 8))),
        ];
        let root = vec![
            (key("threads", (2, 1)), placed(Node::Int(4), (2, 10))),
            (key("cellgate", (3, 1)), placed(Node::Map(section), (4, 3))),
        ];
        let expected = placed(Node::Map(root), (2, 1));
        assert_eq!(parse(DOCUMENT).ok(), Some(expected));
    }

    #[test]
    fn nothing_is_null() {
        for text in ["", "\n", "# only a comment\n", "---\n", "null"] {
            let root = parse(text).ok().map(|root| root.value);
            assert_eq!(root, Some(Node::Null), "{text:?}");
        }
    }

    #[test]
    fn scalars_are_typed_by_the_core_schema() {
        let text = |text: &str| Node::Text(text.to_owned());
        for (written, read) in [
            ("true", Node::Bool(true)),
            ("yes", text("yes")),
            ("\"4\"", text("4")),
            ("0755", text("0755")),
            ("1_000", text("1_000")),
            ("0x10", Node::Int(16)),
            ("-3", Node::Int(-3)),
            ("1.5", Node::Float(1.5)),
            ("18446744073709551615", Node::Int((1 << 64) - 1)),
            ("<<", text("<<")),
        ] {
            let root = parse(written).ok().map(|root| root.value);
            assert_eq!(root, Some(read), "{written}");
        }
    }

    #[test]
    fn syntax_errors_have_a_place() {
        for (text, position) in [
            ("a: [1, 2", (1, 4)),
            ("a: b: c", (1, 5)),
            ("a: *y", (1, 4)),
            ("a: !size 5", (1, 10)),
            ("a: 1\n---\nb: 2\n", (3, 1)),
        ] {
            let error = parse(text).err().unwrap();
            assert_eq!(
                error.position,
                Some(position),
                "{text:?}: {}",
                error.message
            );
            assert!(!error.message.contains("line "), "{}", error.message);
        }
    }
}
