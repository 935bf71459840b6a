//! The differences between two tables, for the log line of a reload.

use std::fmt;
use std::sync::Arc;

use super::routing_table::{Placement, PlacementId, RoutingTable, text};

/// Changes of each kind that a log line names.
const NAMED: usize = 3;

/// The differences between two tables. Its [`Display`](fmt::Display) is one short line,
/// however many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The versions, if they differ.
    pub version: Option<Moved>,
    /// The names of the default placements, if they differ.
    pub default: Option<Moved>,
    pub keys_added: Changes,
    pub keys_removed: Changes,
    /// Keys that are in both tables, on placements of different names.
    pub keys_moved: Changes,
    pub placements_added: Changes,
    pub placements_removed: Changes,
    /// Placements of the same name with different endpoints, fallback or policy.
    pub placements_changed: Changes,
}

/// An old and a new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    pub from: String,
    pub to: String,
}

/// Changes of one kind: all are counted, the first few are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub count: usize,
    /// The first few names, in order; with the difference if the table had it before.
    pub examples: Vec<(String, Option<Difference>)>,
}

/// How an entry of both tables differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// One value was replaced by another.
    Moved(Moved),
    /// These of its fields differ.
    Fields(Vec<&'static str>),
}

impl Changes {
    fn add(&mut self, most: usize, name: &str, difference: impl FnOnce() -> Option<Difference>) {
        self.count += 1;
        // The order of keys is unspecified, so the smallest names are kept.
        let place = self
            .examples
            .partition_point(|(known, _)| known.as_str() < name);
        if place < most {
            self.examples.insert(place, (name.to_owned(), difference()));
            self.examples.truncate(most);
        }
    }
}

impl Diff {
    /// Whether both tables handle every request in the same way.
    pub fn is_empty(&self) -> bool {
        let Self {
            version: _,
            default,
            ..
        } = self;
        default.is_none() && self.changes().iter().all(|(_, changes)| changes.count == 0)
    }

    fn changes(&self) -> [(&'static str, &Changes); 6] {
        [
            ("keys added", &self.keys_added),
            ("keys removed", &self.keys_removed),
            ("keys moved", &self.keys_moved),
            ("placements added", &self.placements_added),
            ("placements removed", &self.placements_removed),
            ("placements changed", &self.placements_changed),
        ]
    }
}

/// Compares two tables. Parts that they share cost nothing. Of the rest, it looks up each
/// key of the new table in the old one, and the reverse if keys are gone.
pub fn diff(old: &RoutingTable, new: &RoutingTable) -> Diff {
    diff_naming(old, new, NAMED)
}

/// As [`diff`], but names up to `named` changes of each kind.
pub fn diff_naming(old: &RoutingTable, new: &RoutingTable, named: usize) -> Diff {
    let mut diff = Diff {
        version: moved(old.version(), new.version()),
        default: moved(default_name(old), default_name(new)),
        ..Diff::default()
    };
    let same_head = Arc::ptr_eq(&old.head, &new.head);
    if !same_head {
        compare_placements(old, new, named, &mut diff);
    }

    // The new id of each old placement, so that keys are compared by number.
    let renumbered: Option<Vec<_>> =
        (!same_head).then(|| ids(old).map(|(name, _)| new.head.find(name)).collect());
    let in_new = |was: PlacementId| match &renumbered {
        None => Some(was),
        Some(renumbered) => renumbered.get(was.index()).copied().flatten(),
    };
    new.keys.unshared(&old.keys, |key, name| {
        let key = text(key);
        let Some(home) = new.head.home(name) else {
            return;
        };
        let is = home.placement;
        match old.placement_of(key) {
            None => diff.keys_added.add(named, key, || None),
            Some(was) if in_new(was) != Some(is) => diff.keys_moved.add(named, key, || {
                moved(&old.placement(was).name, &new.placement(is).name).map(Difference::Moved)
            }),
            Some(_) => {}
        }
    });
    // `new` without the added keys is as large as `old` without the removed ones.
    if new.key_count() - diff.keys_added.count < old.key_count() {
        old.keys.unshared(&new.keys, |key, _| {
            if new.keys.get(key).is_none() {
                diff.keys_removed.add(named, text(key), || None);
            }
        });
    }
    diff
}

fn compare_placements(old: &RoutingTable, new: &RoutingTable, named: usize, diff: &mut Diff) {
    for (name, id) in ids(new) {
        let Some(old_id) = old.head.find(name) else {
            diff.placements_added.add(named, name, || None);
            continue;
        };
        let (was, is) = (old.placement(old_id), new.placement(id));
        let fallback_differs = fallback_name(old, was) != fallback_name(new, is);
        if fallback_differs || was.endpoints != is.endpoints || was.policy != is.policy {
            diff.placements_changed
                .add(named, name, || Some(difference(was, is, fallback_differs)));
        }
    }
    for (name, _) in ids(old).filter(|(name, _)| new.head.find(name).is_none()) {
        diff.placements_removed.add(named, name, || None);
    }
}

fn ids(table: &RoutingTable) -> impl Iterator<Item = (&str, PlacementId)> {
    (0..)
        .map(PlacementId)
        .zip(table.placements())
        .map(|(id, placement)| (placement.name.as_str(), id))
}

fn default_name(table: &RoutingTable) -> &str {
    &table.placement(table.default_placement()).name
}

fn fallback_name<'a>(table: &'a RoutingTable, placement: &Placement) -> Option<&'a str> {
    placement
        .fallback
        .map(|fallback| table.placement(fallback).name.as_str())
}

/// How two placements of the same name differ: both URLs if only these differ and each has
/// one endpoint, else the names of the fields.
fn difference(was: &Placement, is: &Placement, fallback_differs: bool) -> Difference {
    let mut fields = was.policy.differences(&is.policy);
    if fallback_differs {
        fields.insert(0, "fallback");
    }
    if was.endpoints == is.endpoints {
        return Difference::Fields(fields);
    }
    match (&*was.endpoints, &*is.endpoints) {
        ([was], [is]) if fields.is_empty() && was.endpoint != is.endpoint => {
            Difference::Moved(Moved {
                from: was.endpoint.to_string(),
                to: is.endpoint.to_string(),
            })
        }
        _ => {
            fields.insert(0, "endpoints");
            Difference::Fields(fields)
        }
    }
}

fn moved(from: &str, to: &str) -> Option<Moved> {
    (from != to).then(|| Moved {
        from: from.to_owned(),
        to: to.to_owned(),
    })
}

/// `version 1.0.0 -> 1.0.1; 2 keys added (globex, initech); …`.
impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (what, change) in [
            ("version", &self.version),
            ("default placement", &self.default),
        ] {
            if let Some(Moved { from, to }) = change {
                write!(
                    f,
                    "{separator}{what} {} -> {}",
                    from.escape_debug(),
                    to.escape_debug()
                )?;
                separator = "; ";
            }
        }
        for (what, changes) in self.changes() {
            if changes.count == 0 {
                continue;
            }
            write!(
                f,
                "{separator}{} {} (",
                changes.count,
                Counted(what, changes.count)
            )?;
            separator = "; ";
            for (index, (name, difference)) in changes.examples.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(f, "{comma}{}", Name(name))?;
                match difference {
                    Some(Difference::Moved(Moved { from, to })) => {
                        write!(f, ": {from} -> {to}")?;
                    }
                    Some(Difference::Fields(fields)) => write!(f, ": {}", fields.join(", "))?,
                    None => {}
                }
            }
            let ellipsis = if changes.count > changes.examples.len() {
                ", …"
            } else {
                ""
            };
            write!(f, "{ellipsis})")?;
        }
        if separator.is_empty() {
            f.write_str("no change")
        } else {
            Ok(())
        }
    }
}

/// A phrase and a count; in the singular for one: `key added` for `keys added`.
struct Counted(&'static str, usize);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once("s ") {
            Some((noun, verb)) if self.1 == 1 => write!(f, "{noun} {verb}"),
            _ => f.write_str(self.0),
        }
    }
}

/// A name in a log line: cut if it is long, and escaped.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.chars();
        for character in rest.by_ref().take(40) {
            write!(f, "{}", character.escape_debug())?;
        }
        if rest.as_str().is_empty() {
            Ok(())
        } else {
            f.write_str("…")
        }
    }
}
