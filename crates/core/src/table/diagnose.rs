//! Lists all problems of a document that `document` refused.
//!
//! It runs on invalid documents only, so it may be slow. As these may be huge or hostile,
//! the work for each problem and the number of reported problems are bounded (see
//! `findings`).

use std::collections::HashSet;

use super::document::{
    CELL_ENDPOINTS, DEFAULT_PLACEMENT, DEFAULTS, FIELDS, HEAD_FIELDS, PLACEMENTS, ROUTING_TABLE,
    VERSION,
};
use super::findings::{self, Entry, Findings, Path, entries};
use super::json::{Positions, Raw, offset_of, without_position};
use super::placements::{self, Declarations, Section};
use super::problem::{Problem, unknown};
use super::values::{check_key, check_version};

/// All problems of `document`, at least one. `error` is that of the fast path.
pub(super) fn diagnose(document: &[u8], error: &str) -> Vec<Problem> {
    never_none(find(document), error)
}

/// All problems of a head, at least one.
pub(super) fn diagnose_head(head: &[u8], error: &str) -> Vec<Problem> {
    never_none(find_in(head, &HEAD_FIELDS), error)
}

fn never_none(mut problems: Vec<Problem>, error: &str) -> Vec<Problem> {
    if problems.is_empty() {
        // Only if the two paths disagree, which the property tests look for.
        problems.push(Problem::without_place(format!("refused: {error}")));
    }
    problems
}

/// The problems of `document`, in order; none when it is valid.
pub(super) fn find(document: &[u8]) -> Vec<Problem> {
    find_in(document, &FIELDS)
}

/// The problems of a document whose fields are `known`.
fn find_in(document: &[u8], known: &[&str]) -> Vec<Problem> {
    let text = match std::str::from_utf8(document) {
        Ok(text) => text,
        Err(error) => return vec![not_utf8(document, error)],
    };
    let (text, marked) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut findings = Findings::new(text);
    if marked {
        findings.offset(0, Path::ROOT, || {
            "starts with a byte order mark, which JSON must not have (save it as UTF-8 without BOM)"
        });
    }
    match Raw::parse(text) {
        Ok(root) => check_document(root, known, &mut findings),
        Err(error) => check_syntax(text, &error, &mut findings),
    }
    findings.into_problems()
}

fn not_utf8(document: &[u8], error: std::str::Utf8Error) -> Problem {
    let valid = document.get(..error.valid_up_to()).unwrap_or_default();
    let text = std::str::from_utf8(valid).unwrap_or_default();
    let position = Positions::find(text, vec![text.len()]).of(text.len());
    let what = match (document, error.error_len()) {
        ([0xff, 0xfe, ..] | [0xfe, 0xff, ..], _) => "it looks like UTF-16".to_owned(),
        (_, None) => "it ends within a character".to_owned(),
        _ => format!(
            "invalid byte 0x{:02x}",
            document.get(valid.len()).copied().unwrap_or_default()
        ),
    };
    Problem {
        pointer: String::new(),
        line: position.line,
        column: position.column,
        message: format!("not valid UTF-8: {what}"),
    }
}

fn check_syntax(text: &str, error: &serde_json::Error, findings: &mut Findings<'_>) {
    let end = text.trim_end().len();
    let offset = offset_of(error, text);
    if end == 0 {
        findings.offset(0, Path::ROOT, || "the document is empty");
    } else if error.is_eof() {
        findings.offset(end, Path::ROOT, || {
            let reason = without_position(error);
            format!("not valid JSON: the document ends too early: {reason}")
        });
    } else if let Some(comma) = trailing_comma(text, offset) {
        findings.offset(
            comma,
            Path::ROOT,
            || "not valid JSON: comma before a closing bracket",
        );
    } else {
        findings.offset(offset, Path::ROOT, || {
            format!("not valid JSON: {}", without_position(error))
        });
    }
}

/// The offset of a trailing comma, for which the error of serde_json is unclear.
fn trailing_comma(text: &str, offset: usize) -> Option<usize> {
    let (before, after) = text.split_at_checked(offset)?;
    let comma = before.trim_end().strip_suffix(',')?.len();
    after.starts_with(['}', ']']).then_some(comma)
}

fn check_document<'a>(root: Raw<'a>, known: &[&str], findings: &mut Findings<'a>) {
    let mut fields = Vec::new();
    let read = |entry, _: &mut Findings<'a>| fields.push(entry);
    if findings::fields(root, Path::ROOT, known, findings, read).is_none() {
        findings.at(root, Path::ROOT, || {
            format!(
                "expected an object with the fields {VERSION}, {ROUTING_TABLE}, \
                 {PLACEMENTS} or {CELL_ENDPOINTS}, {DEFAULT_PLACEMENT}; found {}",
                root.described()
            )
        });
        return;
    }
    check_missing(root, &fields, known, findings);

    // Placements first: if they cannot be read, references to them are not checked, as each
    // would be a problem with the same cause.
    let placements = check_placements(&fields, findings);
    let names = placements.as_ref().map(Names::new);
    for Entry { name, value, .. } in &fields {
        let path = Path::ROOT.child(name);
        match &**name {
            VERSION => {
                if let Some(version) = findings.keep(*value, path, value.string()) {
                    findings.keep(*value, path, check_version(&version));
                }
            }
            DEFAULT_PLACEMENT => check_reference(*value, path, names.as_ref(), findings),
            ROUTING_TABLE => check_routing(*value, path, names.as_ref(), findings),
            _ => {}
        }
    }
}

fn check_missing<'a>(
    root: Raw<'a>,
    fields: &[Entry<'a>],
    known: &[&str],
    findings: &mut Findings<'a>,
) {
    let has = |field| fields.iter().any(|entry| entry.name == field);
    for field in [VERSION, ROUTING_TABLE, PLACEMENTS, DEFAULT_PLACEMENT] {
        if field == PLACEMENTS && !has(PLACEMENTS) && !has(CELL_ENDPOINTS) {
            findings.at(root, Path::ROOT, || {
                format!("missing field \"{PLACEMENTS}\" (or \"{CELL_ENDPOINTS}\")")
            });
        } else if field != PLACEMENTS && known.contains(&field) && !has(field) {
            findings.at(root, Path::ROOT, || format!("missing field \"{field}\""));
        }
    }
}

/// Reports the problems of placements. Returns those that the document declares, or `None` if
/// they are unknown.
fn check_placements<'a>(
    fields: &[Entry<'a>],
    findings: &mut Findings<'a>,
) -> Option<Declarations<'a>> {
    let mut defaults = None;
    let mut sections = Vec::new();
    for Entry { name, value, .. } in fields {
        match &**name {
            DEFAULTS => defaults = defaults.or(Some(*value)),
            PLACEMENTS => sections.push((Section::Placements, *value)),
            CELL_ENDPOINTS => sections.push((Section::CellEndpoints, *value)),
            _ => {}
        }
    }
    placements::read(defaults, sections, findings)
}

fn check_routing<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    names: Option<&Names<'_>>,
    findings: &mut Findings<'a>,
) {
    let read = |Entry { name, value, .. }: Entry<'a>, findings: &mut Findings<'a>| {
        check_reference(value, path.child(&name), names, findings);
    };
    if !entries(value, path, findings, check_key, read) {
        findings.at(value, path, || {
            format!(
                "expected an object of routing keys and placements, found {}",
                value.described()
            )
        });
    }
}

fn check_reference<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    names: Option<&Names<'_>>,
    findings: &mut Findings<'a>,
) {
    let name = findings.keep(value, path, value.string());
    if let (Some(name), Some(names)) = (name, names)
        && !names.contains(&name)
    {
        findings.at(value, path, || unknown("placement", &name, names.iter()));
    }
}

/// The names of the placements that a document declares, in its order.
struct Names<'n> {
    list: Vec<&'n str>,
    set: HashSet<&'n str>,
}

impl<'n> Names<'n> {
    fn new(placements: &'n Declarations<'_>) -> Self {
        let mut set = HashSet::new();
        let list = placements.names().filter(|name| set.insert(*name));
        Self {
            list: list.collect(),
            set,
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.list.iter().copied()
    }
}
