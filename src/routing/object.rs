//! Objects read key by key, with every key that cannot stand reported.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Display;

use super::findings::{Findings, Path};
use super::locate::{Member, Raw};
use super::wording::unknown;

/// One member of an object whose key is text.
pub(super) struct Entry<'a> {
    pub name: Cow<'a, str>,
    pub key: Raw<'a>,
    pub value: Raw<'a>,
}

/// Reports keys that are no text, fail `check` or were there before; returns
/// the members whose keys are text.
pub(super) fn entries<'a, E: Display>(
    members: Vec<Member<'a>>,
    parent: Path<'_>,
    findings: &mut Findings<'a>,
    check: impl Fn(&str) -> Result<(), E>,
) -> Vec<Entry<'a>> {
    let mut seen: HashMap<Cow<'a, str>, Raw<'a>> = HashMap::with_capacity(members.len());
    let mut readable = Vec::with_capacity(members.len());
    for Member { key, value } in members {
        let Some(name) = findings.keep(key, parent, key.string()) else {
            continue;
        };
        findings.keep(key, parent.child(&name), check(&name));
        match seen.get(&name) {
            Some(&first) => {
                findings.duplicate(key, first, parent.child(&name), || "duplicate key");
            }
            None => drop(seen.insert(name.clone(), key)),
        }
        readable.push(Entry { name, key, value });
    }
    readable
}

/// Checks that a field is one of `fields`.
pub(super) fn one_of(fields: &[&str]) -> impl Fn(&str) -> Result<(), String> {
    move |name| {
        if fields.contains(&name) {
            Ok(())
        } else {
            Err(unknown("field", name, fields.iter().copied()))
        }
    }
}
