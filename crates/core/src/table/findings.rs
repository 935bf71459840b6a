//! Collects the problems of a document, and reads objects whose keys may have problems.
//!
//! While problems are collected, their places are byte offsets, and only as many are put into
//! words as will be reported.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

use super::json::{Member, Positions, Raw};
use super::problem::{Problem, and_more, nearest, push_token, unknown};
use crate::pace;

/// The most problems of one document that are reported. The others are counted.
pub(super) const REPORTED: usize = 100;

/// The longest key in a pointer, in bytes. If a key is longer, the pointer ends at the object
/// that holds it.
const POINTED: usize = 256;

/// The path to a value: fields, names and indexes from the document on.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    /// None: the document as a whole.
    last: Option<(&'p Path<'p>, Token<'p>)>,
}

#[derive(Clone, Copy)]
enum Token<'p> {
    Name(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    /// The document as a whole.
    pub const ROOT: Path<'static> = Path { last: None };

    /// The path to the member `name` of this object.
    pub const fn child(&'p self, name: &'p str) -> Self {
        Self {
            last: Some((self, Token::Name(name))),
        }
    }

    /// The path to an element of this array, the first being 0.
    pub fn element(&'p self, index: usize) -> Self {
        Self {
            last: Some((self, Token::Index(index))),
        }
    }

    /// The RFC 6901 pointer; it ends before a name that is too long.
    pub fn pointer(self) -> String {
        let mut tokens = Vec::new();
        let mut path = self;
        while let Some((parent, token)) = path.last {
            tokens.push(token);
            path = *parent;
        }
        let mut pointer = String::new();
        for token in tokens.into_iter().rev() {
            match token {
                Token::Name(name) if name.len() > POINTED => break,
                Token::Name(name) => push_token(&mut pointer, name),
                Token::Index(index) => push_token(&mut pointer, &index.to_string()),
            }
        }
        pointer
    }
}

/// The problems of one document.
pub(super) struct Findings<'a> {
    text: &'a str,
    kept: Vec<Finding>,
    total: usize,
    /// How many are to be put into words.
    worded: usize,
}

struct Finding {
    offset: usize,
    pointer: String,
    message: String,
    /// A second place that the message ends with.
    first: Option<usize>,
}

impl<'a> Findings<'a> {
    /// Starts with none; `text` is the document that all places refer to.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            kept: Vec::new(),
            total: 0,
            worded: REPORTED,
        }
    }

    /// Finds out whether there is a problem: puts none into words, and [stops](Self::flow)
    /// after the first.
    pub fn first(text: &'a str) -> Self {
        Self {
            worded: 0,
            ..Self::new(text)
        }
    }

    /// Adds a problem with the key or value `raw`.
    pub fn at<D: Display>(&mut self, raw: Raw<'a>, path: Path<'_>, message: impl FnOnce() -> D) {
        self.offset(raw.offset_in(self.text), path, message);
    }

    /// Adds a problem at a byte offset of the text.
    pub fn offset<D: Display>(
        &mut self,
        offset: usize,
        path: Path<'_>,
        message: impl FnOnce() -> D,
    ) {
        self.add(|| Finding {
            offset,
            pointer: path.pointer(),
            message: message().to_string(),
            first: None,
        });
    }

    /// Adds the problem `what`, such as `duplicate key`: `again` repeats `first`.
    pub fn duplicate<D: Display>(
        &mut self,
        again: Raw<'a>,
        first: Raw<'a>,
        path: Path<'_>,
        what: impl FnOnce() -> D,
    ) {
        let text = self.text;
        self.add(|| Finding {
            offset: again.offset_in(text),
            pointer: path.pointer(),
            message: what().to_string(),
            first: Some(first.offset_in(text)),
        });
    }

    /// Returns what was read of `value`, or adds the error as a problem.
    pub fn keep<T, D: Display>(
        &mut self,
        value: Raw<'a>,
        path: Path<'_>,
        read: Result<T, D>,
    ) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(why) => {
                self.at(value, path, || why);
                None
            }
        }
    }

    /// Sets `slot` to what was read of `value`, or adds the error as a problem.
    pub fn set<S, T: Into<S>, D: Display>(
        &mut self,
        slot: &mut S,
        value: Raw<'a>,
        path: Path<'_>,
        read: Result<T, D>,
    ) {
        if let Some(read) = self.keep(value, path, read) {
            *slot = read.into();
        }
    }

    /// Whether to continue reading.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.worded == 0 && self.total > 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// How many problems there are so far.
    pub fn count(&self) -> usize {
        self.total
    }

    fn add(&mut self, finding: impl FnOnce() -> Finding) {
        self.total += 1;
        if self.kept.len() < self.worded {
            self.kept.push(finding());
        }
    }

    /// The problems in the order of the text.
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.kept.sort_by_key(|finding| finding.offset);
        let offsets = self
            .kept
            .iter()
            .flat_map(|finding| [Some(finding.offset), finding.first])
            .flatten()
            .collect();
        let positions = Positions::find(self.text, offsets);
        let uncounted = self.total - self.kept.len();
        let mut problems: Vec<Problem> = self
            .kept
            .into_iter()
            .map(|finding| {
                let position = positions.of(finding.offset);
                let message = match finding.first {
                    Some(first) => format!(
                        "{}, first given at {}",
                        finding.message,
                        positions.of(first)
                    ),
                    None => finding.message,
                };
                Problem {
                    pointer: finding.pointer,
                    line: position.line,
                    column: position.column,
                    message,
                }
            })
            .collect();
        problems.extend(and_more(uncounted));
        problems
    }
}
/// The most unknown fields of one object that are kept.
const UNKNOWN_KEPT: usize = 8;

/// A member of an object; its key is a valid string.
pub(super) struct Entry<'a> {
    pub name: Cow<'a, str>,
    pub key: Raw<'a>,
    pub value: Raw<'a>,
    /// Whether the object had this key before, which is reported.
    pub again: bool,
}

/// Reads an object whose keys are names that the operator chose. Reports keys that are not
/// valid strings, fail `check` or are repeated; calls `read` with the members whose keys are
/// valid strings. Returns whether `object` is an object.
pub(super) fn entries<'a, E: Display>(
    object: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
    check: impl Fn(&str) -> Result<(), E>,
    mut read: impl FnMut(Entry<'a>, &mut Findings<'a>),
) -> bool {
    each_entry(object, path, findings, |entry, findings| {
        findings.keep(entry.key, path.child(&entry.name), check(&entry.name));
        read(entry, findings);
    })
}

/// Reads an object whose keys are fields. Reports fields that are not `known` or are repeated;
/// calls `read` with the members that are known. Returns `None` if `object` is not an object.
pub(super) fn fields<'a>(
    object: Raw<'a>,
    path: Path<'_>,
    known: &[&str],
    findings: &mut Findings<'a>,
    mut read: impl FnMut(Entry<'a>, &mut Findings<'a>),
) -> Option<UnknownFields<'a>> {
    let mut unknown_fields = UnknownFields(Vec::new());
    let is_object = each_entry(object, path, findings, |entry, findings| {
        if known.contains(&&*entry.name) {
            read(entry, findings);
            return;
        }
        findings.at(entry.key, path.child(&entry.name), || {
            unknown("field", &entry.name, known.iter().copied())
        });
        if unknown_fields.0.len() < UNKNOWN_KEPT {
            unknown_fields.0.push(entry.name);
        }
    });
    is_object.then_some(unknown_fields)
}

/// The first unknown fields of an object.
pub(super) struct UnknownFields<'a>(Vec<Cow<'a, str>>);

impl UnknownFields<'_> {
    /// Whether one of them is probably a misspelling of one of `fields`, and not of another
    /// `known` field.
    pub fn look_like(&self, fields: &[&str], known: &[&str]) -> bool {
        self.0.iter().any(|name| {
            // The first test is cheaper, and most names fail it.
            nearest(fields.iter().copied(), name).is_some()
                && nearest(known.iter().copied(), name).is_some_and(|field| fields.contains(&field))
        })
    }
}

fn each_entry<'a>(
    object: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
    mut read: impl FnMut(Entry<'a>, &mut Findings<'a>),
) -> bool {
    let mut seen: HashSet<Key<'a>> = HashSet::new();
    object.each_member(|Member { key, value }| -> ControlFlow<()> {
        if let Some(name) = findings.keep(key, path, key.string()) {
            let first = seen.get(&Key(key)).map(|Key(first)| *first);
            match first {
                Some(first) => {
                    findings.duplicate(key, first, path.child(&name), || "duplicate key");
                }
                None => drop(seen.insert(Key(key))),
            }
            let entry = Entry {
                name,
                key,
                value,
                again: first.is_some(),
            };
            read(entry, findings);
        }
        pace::step();
        findings.flow()
    })
}

/// A key that is compared by its text. The text is not kept, as an object may have millions of
/// keys.
struct Key<'a>(Raw<'a>);

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.string().ok() == other.0.string().ok()
    }
}

impl Eq for Key<'_> {}

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.string().ok().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_the_first_problem_on_request() {
        let text = r#"{"a": 1, "b": 2, "x": 3, "c": 4, "b": 5, "y": 6}"#;
        let root = Raw::parse(text).unwrap();
        for (mut findings, expected, problems) in [
            (Findings::new(text), "abcb", 3),
            (Findings::first(text), "ab", 1),
        ] {
            let mut names = String::new();
            let read = |entry: Entry<'_>, _: &mut Findings<'_>| names.push_str(&entry.name);
            let unknown = fields(root, Path::ROOT, &["a", "b", "c"], &mut findings, read);
            assert!(unknown.is_some());
            assert_eq!((&*names, findings.count()), (expected, problems));
        }
    }
}
