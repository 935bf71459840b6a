//! Lists all problems of a document that `document` refused.
//!
//! It runs on invalid documents only, so it may be slow. As these may be huge or hostile,
//! the work for each problem and the number of reported problems are bounded (see
//! `findings`).

use std::collections::HashSet;
use std::fmt::Display;

use super::document::{
    CELL_ENDPOINTS, DEFAULT_PLACEMENT, DEFAULTS, FIELDS, HEAD_FIELDS, PLACEMENTS, ROUTING_TABLE,
    VERSION,
};
use super::findings::{Findings, Path};
use super::locate::Raw;
use super::object::{self, Entry, entries};
use super::placements::{self, Cell, Declarations, Section};
use super::positions::{Positions, offset_of, without_position};
use super::problem::Problem;
use super::rules::{check_key, check_placement_name, check_version};
use super::wording::unknown;

/// All problems of `document`, at least one. `refusal` is the error that the quick path
/// stopped at.
pub(super) fn diagnose(document: &[u8], refusal: &serde_json::Error) -> Vec<Problem> {
    never_none(find(document), refusal)
}

/// All problems of a head, at least one.
pub(super) fn diagnose_head(head: &[u8], refusal: &serde_json::Error) -> Vec<Problem> {
    never_none(find_in(head, &HEAD_FIELDS), refusal)
}

fn never_none(mut problems: Vec<Problem>, refusal: &serde_json::Error) -> Vec<Problem> {
    if problems.is_empty() {
        // Only when the two paths disagree, which tests hunt for. Even then an
        // operator is better off with serde's word than with none.
        problems.push(Problem::without_place(format!("refused: {refusal}")));
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

/// A trailing comma, which serde has no error text for.
fn trailing_comma(text: &str, offset: usize) -> Option<usize> {
    let (before, after) = text.split_at_checked(offset)?;
    let comma = before.trim_end().strip_suffix(',')?.len();
    after.starts_with(['}', ']']).then_some(comma)
}

fn check_document<'a>(root: Raw<'a>, known: &[&str], findings: &mut Findings<'a>) {
    let mut fields = Vec::new();
    let read = |entry, _: &mut Findings<'a>| fields.push(entry);
    if object::fields(root, Path::ROOT, known, findings, read).is_none() {
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

    // First what the other fields refer to. Without it, every reference would
    // be one more problem with the same cause.
    let placements = check_placements(&fields, findings);
    let names = placements.as_ref().map(Names::new);
    for Entry { name, value, .. } in &fields {
        let path = Path::ROOT.child(name);
        match &**name {
            VERSION => check_string(*value, path, findings, check_version),
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

/// Reports the problems of placements. Returns those that the document declares, or none if
/// that cannot be told.
fn check_placements<'a>(
    fields: &[Entry<'a>],
    findings: &mut Findings<'a>,
) -> Option<Declarations<'a>> {
    let mut defaults = None;
    let mut sections = Vec::new();
    for Entry { name, value, .. } in fields {
        match &**name {
            DEFAULTS => defaults = defaults.or(Some(*value)),
            PLACEMENTS => sections.push(Section::Placements(*value)),
            CELL_ENDPOINTS => sections.push(check_endpoints(*value, findings)),
            _ => {}
        }
    }
    placements::read(defaults, sections, findings)
}

fn check_endpoints<'a>(value: Raw<'a>, findings: &mut Findings<'a>) -> Section<'a> {
    let path = Path::ROOT.child(CELL_ENDPOINTS);
    let mut cells = Vec::new();
    let read = |entry: Entry<'a>, findings: &mut Findings<'a>| {
        let (value, path) = (entry.value, path.child(&entry.name));
        let url = findings.keep(value, path, value.string());
        let endpoint = url.and_then(|url| findings.keep(value, path, url.parse()));
        if !entry.again {
            cells.push(Cell {
                name: entry.name,
                key: Some(entry.key),
                endpoint,
            });
        }
    };
    if entries(value, path, findings, check_placement_name, read) {
        return Section::Cells(cells);
    }
    findings.at(value, path, || {
        format!(
            "expected an object of placements and URLs, found {}",
            value.described()
        )
    });
    Section::Unreadable
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

fn check_string<'a, E: Display>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
    check: impl Fn(&str) -> Result<(), E>,
) {
    if let Some(text) = findings.keep(value, path, value.string()) {
        findings.keep(value, path, check(&text));
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
