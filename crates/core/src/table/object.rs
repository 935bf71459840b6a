//! Objects read key by key, with every key that cannot stand reported.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

use super::findings::{Findings, Path};
use super::locate::{Member, Raw};
use super::wording::{nearest, unknown};
use crate::pace;

/// How many unknown fields of one object are kept to look at again.
const STRAYS_KEPT: usize = 8;

/// One member of an object whose key is text.
pub(super) struct Entry<'a> {
    pub name: Cow<'a, str>,
    pub key: Raw<'a>,
    pub value: Raw<'a>,
    /// The key was there before, which is reported.
    pub again: bool,
}

/// Reads an object whose keys are names that the operator chose. Reports keys
/// that are no text, fail `check` or were there before; calls `read` with the
/// members whose keys are text. Says whether `object` is one.
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

/// Reads an object whose keys are `known` fields. Reports keys that are none of
/// these or were there before; calls `read` with the members whose keys are.
///
/// None: `object` is no object.
pub(super) fn fields<'a>(
    object: Raw<'a>,
    path: Path<'_>,
    known: &[&str],
    findings: &mut Findings<'a>,
    mut read: impl FnMut(Entry<'a>, &mut Findings<'a>),
) -> Option<Strays<'a>> {
    let mut strays = Strays(Vec::new());
    let is_object = each_entry(object, path, findings, |entry, findings| {
        if known.contains(&&*entry.name) {
            read(entry, findings);
            return;
        }
        findings.at(entry.key, path.child(&entry.name), || {
            unknown("field", &entry.name, known.iter().copied())
        });
        if strays.0.len() < STRAYS_KEPT {
            strays.0.push(entry.name);
        }
    });
    is_object.then_some(strays)
}

/// The first unknown fields of an object.
pub(super) struct Strays<'a>(Vec<Cow<'a, str>>);

impl Strays<'_> {
    /// Whether one of them looks like a slip in one of `fields`, more than in
    /// any other of those `known`.
    pub fn look_like(&self, fields: &[&str], known: &[&str]) -> bool {
        self.0.iter().any(|stray| {
            // Most look like none of a few, which costs less to find out.
            nearest(fields.iter().copied(), stray).is_some()
                && nearest(known.iter().copied(), stray).is_some_and(|name| fields.contains(&name))
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

/// A key, compared by its text, which is not kept: an object may have millions
/// of keys.
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
    fn one_problem_is_enough_for_who_wants_no_more() {
        let text = r#"{"a": 1, "b": 2, "x": 3, "c": 4, "b": 5, "y": 6}"#;
        let root = Raw::parse(text).unwrap();
        for (mut findings, expected, problems) in [
            (Findings::new(text), "abcb", 3),
            (Findings::first(text), "ab", 1),
        ] {
            let mut names = String::new();
            let read = |entry: Entry<'_>, _: &mut Findings<'_>| names.push_str(&entry.name);
            let strays = fields(root, Path::ROOT, &["a", "b", "c"], &mut findings, read);
            assert!(strays.is_some());
            assert_eq!((&*names, findings.count()), (expected, problems));
        }
    }
}
