//! YAML as a tree that keeps what a typed read would lose: duplicate keys, and
//! what was written where another type was wanted.
//!
//! serde_yaml knows where a value stands only while it reads it. [`locate`]
//! therefore reads the text again, down to one value, and fails there: the
//! error carries that value's place. That costs a pass a problem, and no pass
//! when there is none.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

/// One YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, duplicates included.
    Map(Vec<(String, Node)>),
    /// `!tag value`: nothing here wants one.
    Tagged(String),
}

/// A step from a value down to one that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The value of a map's n-th entry.
    Entry(usize),
    /// The key of a map's n-th entry.
    Key(usize),
    /// A list's n-th item.
    Item(usize),
}

/// A syntax error: where, when known, and what.
pub(crate) struct SyntaxError {
    pub position: Option<(usize, usize)>,
    pub message: String,
}

/// Reads one document. An empty text is `Null`.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    Node::deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
        let position = error.location().map(|at| (at.line(), at.column()));
        // The place is said apart from the message; where the surrounding value
        // began, which libyaml may add, stays.
        let message = match position {
            Some((line, column)) => {
                error
                    .to_string()
                    .replacen(&format!(" at line {line} column {column}"), "", 1)
            }
            None => error.to_string(),
        };
        SyntaxError { position, message }
    })
}

/// Line and column, from 1, of the value (or key) that `steps` lead to.
pub(crate) fn locate(text: &str, steps: &[Step]) -> Option<(usize, usize)> {
    let error = Probe(steps)
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .err()?;
    error.location().map(|at| (at.line(), at.column()))
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
            Node::Tagged(tag) => write!(f, "a value tagged {tag:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
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
        while let Some((key, value)) = map.next_entry::<Node, Node>()? {
            let key = match key {
                Node::Text(text) => text,
                other => other.to_string(),
            };
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (tag, value) = tagged.variant::<String>()?;
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Node::Tagged(tag))
    }
}

/// Fails at the value that its steps lead to.
#[derive(Clone, Copy)]
struct Probe<'a>(&'a [Step]);

const FOUND: &str = "found";

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// What is not visited below fails by serde's defaults, which is as good: it is
/// the sought value, for nothing else is visited with this.
impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FOUND)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Item(nth), rest)) = self.0.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        for _ in 0..*nth {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Probe(rest))?;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (nth, at_key, rest) = match self.0.split_first() {
            Some((Step::Entry(nth), rest)) => (*nth, false, rest),
            Some((Step::Key(nth), rest)) => (*nth, true, rest),
            _ => return Err(A::Error::custom(FOUND)),
        };
        for _ in 0..nth {
            map.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if at_key {
            map.next_key_seed(Probe(rest))?;
        } else {
            map.next_key::<IgnoredAny>()?;
            map.next_value_seed(Probe(rest))?;
        }
        Ok(())
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
  tagged: !size 5
";

    #[test]
    fn a_tree_with_everything_in_it() {
        let text = |text: &str| Node::Text(text.to_owned());
        let entry = |key: &str, value| (key.to_owned(), value);
        assert_eq!(
            parse(DOCUMENT).ok(),
            Some(Node::Map(vec![
                entry("threads", Node::Int(4)),
                entry(
                    "cellgate",
                    Node::Map(vec![
                        entry(
                            "listen",
                            Node::List(vec![
                                text("127.0.0.1:80"),
                                Node::Map(vec![entry("address", text("[::]:80"))]),
                            ])
                        ),
                        entry("text", text("threads: no key\n")),
                        entry(
                            "timeouts",
                            Node::Map(vec![
                                entry("connect", text("5s")),
                                entry("connect", text("6s"))
                            ])
                        ),
                        entry("empty", Node::Null),
                        entry("tagged", Node::Tagged("size".to_owned())),
                    ])
                ),
            ]))
        );
    }

    #[test]
    fn places() {
        use Step::{Entry, Item, Key};
        for (steps, expected) in [
            (&[][..], (2, 1)),
            (&[Key(0)], (2, 1)),
            (&[Entry(0)], (2, 10)),
            (&[Entry(1), Entry(0), Item(0)], (5, 7)),
            (&[Entry(1), Entry(0), Item(1), Entry(0)], (6, 17)),
            (&[Entry(1), Key(1)], (7, 3)),
            (&[Entry(1), Entry(1)], (7, 9)),
            (&[Entry(1), Entry(2), Key(1)], (9, 27)),
            (&[Entry(1), Entry(2), Entry(1)], (9, 36)),
            (&[Entry(1), Key(3)], (10, 3)),
            (&[Entry(1), Entry(4)], (11, 11)),
        ] {
            assert_eq!(locate(DOCUMENT, steps), Some(expected), "{steps:?}");
        }
    }

    #[test]
    fn nothing_is_null() {
        for text in ["", "\n", "# only a comment\n", "---\n", "null"] {
            assert_eq!(parse(text).ok(), Some(Node::Null), "{text:?}");
        }
    }

    #[test]
    fn syntax_errors_have_a_place() {
        for (text, position, message) in [
            (
                "a: [1, 2",
                (2, 1),
                "did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4",
            ),
            (
                "a: b: c",
                (1, 5),
                "mapping values are not allowed in this context",
            ),
            ("a: *y", (1, 4), "unknown anchor"),
        ] {
            let error = parse(text).err().unwrap();
            assert_eq!(error.position, Some(position), "{text:?}");
            assert_eq!(error.message, message, "{text:?}");
        }
        let error = parse("a: 1\n---\nb: 2\n").err().unwrap();
        assert!(error.message.contains("more than one document"));
    }
}
