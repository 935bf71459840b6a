//! From the tree to values: looks keys up, and collects what is wrong with
//! them instead of stopping at the first.

use std::path::Path;

use super::SettingsProblem;
use super::keys::Keys;
use super::yaml::{self, Node, Step};

/// A value, its key's path, and the way to it.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub node: &'a Node,
    /// `cellgate.timeouts.connect`, `cellgate.listen[1]`.
    pub key: String,
    steps: Vec<Step>,
}

impl<'a> At<'a> {
    pub fn root(node: &'a Node) -> At<'a> {
        At {
            node,
            key: String::new(),
            steps: Vec::new(),
        }
    }

    fn entry(&self, nth: usize, name: &str, node: &'a Node) -> At<'a> {
        let name = name.escape_debug();
        let key = match self.key.as_str() {
            "" => name.to_string(),
            parent => format!("{parent}.{name}"),
        };
        let steps = self.then(Step::Entry(nth));
        At { node, key, steps }
    }

    fn item(&self, nth: usize, node: &'a Node) -> At<'a> {
        let key = format!("{}[{nth}]", self.key);
        let steps = self.then(Step::Item(nth));
        At { node, key, steps }
    }

    fn then(&self, step: Step) -> Vec<Step> {
        let mut steps = self.steps.clone();
        steps.push(step);
        steps
    }
}

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

/// Reads one file's tree. `text` is what it was made from, `keys` are those that it
/// may have.
pub(crate) struct Reader<'a> {
    file: Option<&'a Path>,
    text: &'a str,
    keys: &'static Keys,
    problems: Vec<SettingsProblem>,
}

impl<'a> Reader<'a> {
    pub fn new(file: Option<&'a Path>, text: &'a str, keys: &'static Keys) -> Reader<'a> {
        Reader {
            file,
            text,
            keys,
            problems: Vec::new(),
        }
    }

    /// Everything that was found, in the order of the file; what has no place
    /// in it comes last.
    pub fn into_problems(mut self) -> Vec<SettingsProblem> {
        self.problems
            .sort_by_key(|problem| problem.position.unwrap_or((usize::MAX, 0)));
        self.problems
    }

    /// Something is wrong with the value at `at`.
    pub fn problem(&mut self, at: &At<'_>, message: String) {
        self.push(at.key.clone(), &at.steps, message);
    }

    /// Something is wrong that no place in the file is to blame for.
    pub fn problem_elsewhere(&mut self, key: &str, message: String) {
        self.problems.push(SettingsProblem {
            file: None,
            position: None,
            key: key.to_owned(),
            message,
        });
    }

    fn push(&mut self, key: String, steps: &[Step], message: String) {
        self.problems.push(SettingsProblem {
            file: self.file.map(Path::to_owned),
            position: yaml::locate(self.text, steps),
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
        for (nth, value) in self.entries(at, &known) {
            let key = at.entry(nth, value.0, value.1);
            match known.iter().find(|known| **known == value.0) {
                Some(known) => section.entries.push((known, key)),
                None => {
                    let message = self.keys.unknown(name, value.0);
                    self.push(key.key, &at.then(Step::Key(nth)), message);
                }
            }
        }
        section
    }

    /// The entries of a map whose keys are the operator's own.
    pub fn map(&mut self, at: &At<'a>) -> Vec<(&'a str, At<'a>)> {
        self.entries(at, &["name: value"])
            .into_iter()
            .map(|(nth, (name, node))| (name, at.entry(nth, name, node)))
            .collect()
    }

    /// The items of a list; a problem when it is none.
    pub fn list(&mut self, at: &At<'a>, want: &str) -> Option<Vec<At<'a>>> {
        let Node::List(items) = at.node else {
            self.problem(at, format!("got {}, want {want}", at.node));
            return None;
        };
        let items = items.iter().enumerate();
        Some(items.map(|(nth, node)| at.item(nth, node)).collect())
    }

    /// Entries with their number, each name once. No value is an empty map: a
    /// section whose keys are all comments is one.
    fn entries(&mut self, at: &At<'a>, keys: &[&str]) -> Vec<(usize, (&'a str, &'a Node))> {
        let entries = match at.node {
            Node::Map(entries) => entries.as_slice(),
            Node::Null => &[],
            other => {
                let message = format!("got {other}, want a map with keys: {}", keys.join(", "));
                self.problem(at, message);
                &[]
            }
        };
        let mut unique: Vec<(usize, (&str, &Node))> = Vec::with_capacity(entries.len());
        for (nth, (name, node)) in entries.iter().enumerate() {
            match unique.iter().find(|(_, (seen, _))| seen == name) {
                None => unique.push((nth, (name, node))),
                Some((first, _)) => {
                    let line = yaml::locate(self.text, &at.then(Step::Key(*first)))
                        .map(|(line, _)| format!(", first in line {line}"))
                        .unwrap_or_default();
                    let key = at.entry(nth, name, node).key;
                    let message = format!("this key is here twice{line}");
                    self.push(key, &at.then(Step::Key(nth)), message);
                }
            }
        }
        unique
    }

    /// The value of `name`, when it is there and good.
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

    /// Like `read`, into the place that has the default.
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
