//! Reads values from the tree of a settings file, and collects all problems of it instead
//! of stopping at the first.

use std::fmt;
use std::path::{Path, PathBuf};

use super::keys::Keys;
use super::yaml::{Node, Placed, Position};

/// A value, its key's path, and its place.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub node: &'a Node,
    /// `cellgate.timeouts.connect`, `cellgate.listen[1]`.
    pub key: String,
    position: Position,
}

impl<'a> At<'a> {
    pub fn root(root: &'a Placed<Node>) -> At<'a> {
        At::new(String::new(), root)
    }

    fn new(key: String, placed: &'a Placed<Node>) -> At<'a> {
        At {
            node: &placed.value,
            key,
            position: placed.position,
        }
    }

    /// The path of the key `name` of this map.
    fn path(&self, name: &str) -> String {
        let name = name.escape_debug();
        match self.key.as_str() {
            "" => name.to_string(),
            parent => format!("{parent}.{name}"),
        }
    }
}

/// An entry of a map: its key and its value.
type Entry<'a> = &'a (Placed<String>, Placed<Node>);

/// The known keys of one map that the file has.
pub(crate) struct Section<'a> {
    entries: Vec<(&'static str, At<'a>)>,
}

impl<'a> Section<'a> {
    pub fn get(&self, name: &str) -> Option<&At<'a>> {
        self.entries
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, at)| at)
    }
}

/// Reads the tree of one file, which may have `keys` and no others.
pub(crate) struct Reader<'a> {
    file: Option<&'a Path>,
    keys: &'static Keys,
    problems: Vec<SettingsProblem>,
}

impl<'a> Reader<'a> {
    pub fn new(file: Option<&'a Path>, keys: &'static Keys) -> Reader<'a> {
        Reader {
            file,
            keys,
            problems: Vec::new(),
        }
    }

    /// All problems in the order of the file; those without a place in it come last.
    pub fn into_problems(mut self) -> Vec<SettingsProblem> {
        self.problems
            .sort_by_key(|problem| problem.position.unwrap_or((usize::MAX, 0)));
        self.problems
    }

    /// Reports a problem of the value at `at`.
    pub fn problem(&mut self, at: &At<'_>, message: String) {
        self.push(at.key.clone(), at.position, message);
    }

    /// Reports a problem of a value that does not come from the file.
    pub fn problem_elsewhere(&mut self, key: &str, message: String) {
        self.problems.push(SettingsProblem {
            file: None,
            position: None,
            key: key.to_owned(),
            message,
        });
    }

    fn push(&mut self, key: String, position: Position, message: String) {
        self.problems.push(SettingsProblem {
            file: self.file.map(Path::to_owned),
            position: Some(position),
            key,
            message,
        });
    }

    /// The map `name` of `parent`, whose keys are those of the section of the same path.
    pub fn section(&mut self, parent: &Section<'a>, name: &str) -> Section<'a> {
        match parent.get(name) {
            Some(at) => self.section_at(&at.clone(), &at.key),
            None => Section {
                entries: Vec::new(),
            },
        }
    }

    /// The map at `at`, whose keys are those of the section `name`.
    pub fn section_at(&mut self, at: &At<'a>, name: &str) -> Section<'a> {
        let known = self.keys.of(name);
        let mut section = Section {
            entries: Vec::new(),
        };
        for (key, value) in self.entries(at, &known) {
            let path = at.path(&key.value);
            match known.iter().find(|known| **known == key.value) {
                Some(known) => section.entries.push((known, At::new(path, value))),
                None => {
                    let message = self.keys.unknown(name, &key.value);
                    self.push(path, key.position, message);
                }
            }
        }
        section
    }

    /// The entries of a map whose keys the operator chooses.
    pub fn map(&mut self, at: &At<'a>) -> Vec<(&'a str, At<'a>)> {
        self.entries(at, &["name: value"])
            .into_iter()
            .map(|(key, value)| (key.value.as_str(), At::new(at.path(&key.value), value)))
            .collect()
    }

    /// The items of a list; reports a value that is not a list.
    pub fn list(&mut self, at: &At<'a>, want: &str) -> Option<Vec<At<'a>>> {
        let Node::List(items) = at.node else {
            self.problem(at, format!("got {}, want {want}", at.node));
            return None;
        };
        let items = items.iter().enumerate();
        let item = |(nth, item)| At::new(format!("{}[{nth}]", at.key), item);
        Some(items.map(item).collect())
    }

    /// The entries of a map, each name once. A map whose entries are all comments has no
    /// value and is empty.
    fn entries(&mut self, at: &At<'a>, keys: &[&str]) -> Vec<Entry<'a>> {
        let entries = match at.node {
            Node::Map(entries) => entries.as_slice(),
            Node::Null => &[],
            other => {
                let message = format!("got {other}, want a map with keys: {}", keys.join(", "));
                self.problem(at, message);
                &[]
            }
        };
        let mut unique: Vec<Entry<'a>> = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = &entry.0;
            match unique.iter().find(|(seen, _)| seen.value == key.value) {
                None => unique.push(entry),
                Some((first, _)) => {
                    let line = first.position.0;
                    let message = format!("this key is here twice, first in line {line}");
                    self.push(at.path(&key.value), key.position, message);
                }
            }
        }
        unique
    }

    /// The value of `name`, if it is set and valid.
    pub fn read<T>(
        &mut self,
        section: &Section<'a>,
        name: &str,
        parse: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let at = section.get(name)?;
        match parse(at.node) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(at, message);
                None
            }
        }
    }

    /// Like `read`, into `target`, which has the default.
    pub fn set<T>(
        &mut self,
        section: &Section<'a>,
        name: &str,
        target: &mut T,
        parse: impl FnOnce(&Node) -> Result<T, String>,
    ) {
        if let Some(value) = self.read(section, name, parse) {
            *target = value;
        }
    }
}

/// A refused setting. Loading reports all of them at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsProblem {
    /// The settings file, or `None` when the value came from the environment
    /// or from nowhere in particular.
    pub file: Option<PathBuf>,
    /// Line and column in `file`, from 1. `None` when there is no such place,
    /// as for a missing file.
    pub position: Option<(usize, usize)>,
    /// The key's path (`cellgate.timeouts.connect`) or the environment
    /// variable; empty when it is about the whole file.
    pub key: String,
    /// Lowercase; names the bad value and what would be valid.
    pub message: String,
}

impl fmt::Display for SettingsProblem {
    /// `conf/edge.yaml:12:14: cellgate.timeouts.connect: "5" has no unit: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some((line, column)) = self.position {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for SettingsProblem {}
