//! Deltas: the difference between two tables.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::diagnose;
use super::document;
use super::findings::{Path, REPORTED};
use super::head::Head;
use super::problem::{Problem, Quoted, and_more, unknown};
use super::routing_table::{RoutingTable, text};
use super::values::check_key;

/// A change of a routing table. Stores keep its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// A document without `routingTable`, as JSON, that replaces everything but the keys;
    /// none if only keys change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Keys with the names of their new placements.
    #[serde(default)]
    pub set: Vec<(String, String)>,
    /// Keys to remove. Removing a key that is not in the table is no error.
    #[serde(default)]
    pub remove: Vec<String>,
}

impl RoutingTable {
    /// Applies `delta`, all or nothing: the result is the table of the document with these
    /// changes. The cost depends on the delta and not on the number of keys in the table. This
    /// table does not change; the two share what is the same.
    ///
    /// # Errors
    ///
    /// All problems, in the order head, `set`, `remove`; never an empty list. These are the
    /// problems of the resulting document, keys that are set twice or both set and removed,
    /// and, if nothing else is wrong, placements that still have keys but are missing in
    /// the new head. Pointers are into an object of the delta's fields, in which `set` is
    /// an object. Only problems in a head have a line and a column, in the text of the
    /// head.
    pub fn apply(&self, delta: &Delta) -> Result<RoutingTable, Vec<Problem>> {
        let mut problems = Problems::default();
        let head = match &delta.head {
            None => Some(Arc::clone(&self.head)),
            Some(text) => problems.keep_all(read_head(text, Some(&self.head))),
        };
        check_keys(delta, head.as_deref(), &mut problems);
        let (Some(head), true) = (head, problems.is_empty()) else {
            return Err(problems.finish());
        };

        let mut next = Self {
            keys: self.keys.clone(),
            counts: self.counts.clone(),
            entries: self.entries,
            head,
        };
        for key in &delta.remove {
            if let Some(was) = next.keys.remove(key.as_bytes()) {
                next.uncount(was, key, &self.head);
            }
        }
        for (key, placement) in &delta.set {
            let Some(id) = next.head.find(placement) else {
                continue;
            };
            let name = next.head.name_id(id);
            if let Some(was) = next.keys.set(key.as_bytes(), name) {
                next.uncount(was, key, &self.head);
            }
            *next.counts.at(name as usize) += 1;
            next.entries.add(key, placement);
        }
        if !Arc::ptr_eq(&next.head, &self.head) {
            next.check_homes(&self.head, &mut problems);
        }
        match problems.is_empty() {
            true => Ok(next),
            false => Err(problems.finish()),
        }
    }

    /// The first table of a history: `delta` applied to nothing.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply); also if there is no head.
    pub fn founded_by(delta: &Delta) -> Result<RoutingTable, Vec<Problem>> {
        let Some(head) = &delta.head else {
            return Err(vec![Problem::without_place(
                "no head, without which keys have no placements to live on",
            )]);
        };
        Self::empty(read_head(head, None)?).apply(delta)
    }

    /// The delta from this table to `next`. Parts that the two share cost nothing.
    pub fn delta_to(&self, next: &RoutingTable) -> Delta {
        self.delta_within(next, usize::MAX).unwrap_or_default()
    }

    /// As [`delta_to`](Self::delta_to); none if more than `most` keys of either table would
    /// be compared. Tables that were not made from one another share nothing.
    pub fn delta_within(&self, next: &RoutingTable, most: usize) -> Option<Delta> {
        let head = (self.head.json != next.head.json).then(|| next.head.json.to_string());
        let mut delta = Delta {
            head,
            ..Delta::default()
        };
        let mut added = 0;
        let whole = next.keys.unshared_within(&self.keys, most, |key, name| {
            let Some(home) = next.head.home(name) else {
                return;
            };
            let (key, name) = (text(key), &next.placement(home.placement).name);
            let was = self.placement_of(key).map(|was| &self.placement(was).name);
            added += usize::from(was.is_none());
            if was != Some(name) {
                delta.set.push((key.to_owned(), name.clone()));
            }
        });
        // `next` without the added keys is as large as this without the removed ones.
        let removed = whole && next.key_count() - added < self.key_count();
        let whole = match removed {
            true => self.keys.unshared_within(&next.keys, most, |key, _| {
                if next.keys.get(key).is_none() {
                    delta.remove.push(text(key).to_owned());
                }
            }),
            false => whole,
        };
        whole.then_some(delta)
    }

    /// Whether this table shares all but at most `few` of its keys with `other`, so that
    /// dropping it frees only these. Visits at most so many keys.
    pub fn shares_all_but(&self, few: usize, other: &RoutingTable) -> bool {
        self.keys.unshared_within(&other.keys, few, |_, _| {})
    }

    /// Removes `key`, which had the name id `was` of `head`, from the counts and the
    /// digest.
    fn uncount(&mut self, was: u32, key: &str, head: &Head) {
        let placements = &head.placements;
        let home = head
            .home(was)
            .and_then(|home| placements.get(home.placement.index()));
        if let Some(placement) = home {
            *self.counts.at(was as usize) -= 1;
            self.entries.remove(key, &placement.name);
        }
    }

    /// Reports placements of `old` that are missing now but still have keys.
    fn check_homes(&self, old: &Head, problems: &mut Problems) {
        for (name, id) in old.names() {
            let keys = self.counts.get(id as usize);
            if keys > 0 && self.head.home(id).is_none() {
                problems.add(Path::ROOT.child("head"), || {
                    let (noun, them) = match keys {
                        1 => ("key", "it"),
                        _ => ("keys", "them"),
                    };
                    format!(
                        "missing placement {}, where {keys} {noun} of the table would still live \
                         (set or remove {them} in the same delta)",
                        Quoted(name)
                    )
                });
            }
        }
    }
}

/// Reads a head. Names keep their ids in `known`. Pointers of problems start with `/head`.
pub(super) fn read_head(text: &str, known: Option<&Arc<Head>>) -> Result<Arc<Head>, Vec<Problem>> {
    let known_names = known.into_iter().flat_map(|known| known.names());
    let head = document::read(text).and_then(|read| match (read, known) {
        ((_, Some(_)), _) => Err("a head has no routing table".to_owned()),
        ((head, None), Some(known)) if *head.json == *known.json => Ok(Arc::clone(known)),
        ((head, None), _) => Head::resolve(head, known_names)
            .map(Arc::new)
            .map_err(str::to_owned),
    });
    head.map_err(|error| {
        let mut problems = diagnose::diagnose_head(text.as_bytes(), &error);
        for problem in &mut problems {
            problem.pointer.insert_str(0, "/head");
        }
        problems
    })
}

/// Reports the problems of keys. Without a head, names of placements are not checked.
fn check_keys(delta: &Delta, head: Option<&Head>, problems: &mut Problems) {
    let set = Path::ROOT.child("set");
    let mut seen = HashSet::with_capacity(delta.set.len());
    for (key, placement) in &delta.set {
        let path = set.child(key);
        if let Err(error) = check_key(key) {
            problems.add(path, || error.to_string());
        }
        if !seen.insert(key.as_str()) {
            problems.add(path, || "duplicate key".to_owned());
        }
        if let Some(head) = head
            && head.find(placement).is_none()
        {
            problems.add(path, || {
                let names = head.names().map(|(name, _)| name);
                unknown("placement", placement, names)
            });
        }
    }
    let remove = Path::ROOT.child("remove");
    for (index, key) in delta.remove.iter().enumerate() {
        if seen.contains(key.as_str()) {
            problems.add(remove.element(index), || {
                format!(
                    "routing key {} is in set as well (it can only be in one of them)",
                    Quoted(key)
                )
            });
        }
    }
}

/// The first problems, and the number of the others.
#[derive(Default)]
struct Problems {
    kept: Vec<Problem>,
    left_out: usize,
    /// Whether the list ends with a count of the others already.
    counted: bool,
}

impl Problems {
    fn add(&mut self, path: Path<'_>, message: impl FnOnce() -> String) {
        if self.kept.len() >= REPORTED {
            self.left_out += 1;
            return;
        }
        self.kept.push(Problem {
            pointer: path.pointer(),
            line: 0,
            column: 0,
            message: message(),
        });
    }

    /// Takes over the problems of a head, whose list may end with a count already.
    fn keep_all<T>(&mut self, result: Result<T, Vec<Problem>>) -> Option<T> {
        result
            .map_err(|problems| {
                self.counted = problems.len() > REPORTED;
                self.kept.extend(problems);
            })
            .ok()
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn finish(mut self) -> Vec<Problem> {
        if !self.counted {
            self.kept.extend(and_more(self.left_out));
        }
        self.kept
    }
}
