//! Everything that is wrong with a document that the quick path refused.
//!
//! Runs on broken documents only, so it spends time to be helpful; yet broken
//! documents may be huge or hostile, so the work for each problem is bounded
//! and only so many of them are put into words (see `findings`).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use super::document::{CELL_ENDPOINTS, DEFAULT_PLACEMENT, FIELDS, ROUTING_TABLE, VERSION};
use super::endpoint::Endpoint;
use super::findings::{Findings, Path};
use super::locate::{Member, Positions, Raw, offset_of, without_position};
use super::problem::Problem;
use super::rules::{check_key, check_placement_name, check_version};
use super::wording::{Quoted, known};

/// All problems of `document`, never none; `refusal` is why the quick path
/// refused it.
pub(super) fn diagnose(document: &[u8], refusal: &serde_json::Error) -> Vec<Problem> {
    let mut problems = find(document);
    if problems.is_empty() {
        // Only when the two paths disagree, which tests hunt for. Even then an
        // operator is better off with serde's word than with none.
        problems.push(Problem::without_place(format!("refused: {refusal}")));
    }
    problems
}

/// The problems of `document`, in order; none when it is valid.
pub(super) fn find(document: &[u8]) -> Vec<Problem> {
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
        Ok(root) => check_document(root, &mut findings),
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

/// The slip of every editor of JSON, for which serde has no word of its own.
fn trailing_comma(text: &str, offset: usize) -> Option<usize> {
    let (before, after) = text.split_at_checked(offset)?;
    let comma = before.trim_end().strip_suffix(',')?.len();
    after.starts_with(['}', ']']).then_some(comma)
}

type Field<'a> = (Cow<'a, str>, Raw<'a>);

fn check_document<'a>(root: Raw<'a>, findings: &mut Findings<'a>) {
    let Some(members) = root.members() else {
        findings.at(root, Path::ROOT, || {
            let (fields, found) = (FIELDS.join(", "), root.described());
            format!("expected an object with the fields {fields}; found {found}")
        });
        return;
    };
    let fields = check_fields(root, members, findings);

    // First what the other fields refer to. Without it, every reference would
    // be one more problem with the same cause.
    let placements = check_endpoints(&fields, findings);
    for (name, value) in &fields {
        let path = Path::ROOT.child(name);
        match &**name {
            VERSION => check_string(*value, path, findings, check_version),
            DEFAULT_PLACEMENT => check_reference(*value, path, placements.as_ref(), findings),
            ROUTING_TABLE => check_routing(*value, path, placements.as_ref(), findings),
            _ => {}
        }
    }
}

/// Reports fields that are missing, unknown or there twice; returns all.
fn check_fields<'a>(
    root: Raw<'a>,
    members: Vec<Member<'a>>,
    findings: &mut Findings<'a>,
) -> Vec<Field<'a>> {
    let fields = check_keys(members, Path::ROOT, findings, |name| {
        if FIELDS.contains(&name) {
            Ok(())
        } else {
            Err(format!(
                "unknown field {} ({})",
                Quoted(name),
                known(FIELDS.into_iter(), name)
            ))
        }
    });
    for field in FIELDS {
        if !fields.iter().any(|(name, _)| name == field) {
            findings.at(root, Path::ROOT, || {
                format!("missing field {}", Quoted(field))
            });
        }
    }
    fields
}

/// Reports bad endpoints and placement names; returns the names that the
/// document defines, or `None` when it does not get as far as defining any.
fn check_endpoints<'a>(fields: &[Field<'a>], findings: &mut Findings<'a>) -> Option<Names<'a>> {
    let mut placements: Option<Names<'a>> = None;
    let path = Path::ROOT.child(CELL_ENDPOINTS);
    for (_, value) in fields.iter().filter(|(name, _)| name == CELL_ENDPOINTS) {
        let Some(members) = value.members() else {
            findings.at(*value, path, || {
                format!(
                    "expected an object of placements and URLs, found {}",
                    value.described()
                )
            });
            continue;
        };
        let names = placements.get_or_insert_default();
        for (name, url) in check_keys(members, path, findings, check_placement_name) {
            check_string(url, path.child(&name), findings, |url| {
                url.parse::<Endpoint>().map(drop)
            });
            names.add(name);
        }
    }
    placements
}

fn check_routing<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    placements: Option<&Names<'a>>,
    findings: &mut Findings<'a>,
) {
    let Some(members) = value.members() else {
        findings.at(value, path, || {
            format!(
                "expected an object of routing keys and placements, found {}",
                value.described()
            )
        });
        return;
    };
    for (key, placement) in check_keys(members, path, findings, check_key) {
        check_reference(placement, path.child(&key), placements, findings);
    }
}

/// Reports keys that are no text, fail `check` or were there before; returns
/// the members whose keys are text.
fn check_keys<'a, E: Display>(
    members: Vec<Member<'a>>,
    parent: Path<'_>,
    findings: &mut Findings<'a>,
    check: impl Fn(&str) -> Result<(), E>,
) -> Vec<(Cow<'a, str>, Raw<'a>)> {
    let mut seen: HashMap<Cow<'a, str>, Raw<'a>> = HashMap::with_capacity(members.len());
    let mut readable = Vec::with_capacity(members.len());
    for Member { key: raw, value } in members {
        let key = match raw.string() {
            Ok(key) => key,
            Err(why) => {
                findings.at(raw, parent, || why);
                continue;
            }
        };
        if let Err(error) = check(&key) {
            findings.at(raw, parent.child(&key), || error);
        }
        match seen.get(&key) {
            Some(&first) => findings.duplicate(raw, first, parent.child(&key)),
            None => drop(seen.insert(key.clone(), raw)),
        }
        readable.push((key, value));
    }
    readable
}

fn check_reference<'a>(
    value: Raw<'a>,
    path: Path<'_>,
    placements: Option<&Names<'a>>,
    findings: &mut Findings<'a>,
) {
    match (value.string(), placements) {
        (Err(why), _) => findings.at(value, path, || why),
        (Ok(name), Some(placements)) if !placements.contains(&name) => {
            findings.at(value, path, || {
                format!(
                    "unknown placement {} ({})",
                    Quoted(&name),
                    known(placements.iter(), &name)
                )
            });
        }
        (Ok(_), _) => {}
    }
}

fn check_string<'a, E: Display>(
    value: Raw<'a>,
    path: Path<'_>,
    findings: &mut Findings<'a>,
    check: impl Fn(&str) -> Result<(), E>,
) {
    match value.string() {
        Ok(text) => {
            if let Err(error) = check(&text) {
                findings.at(value, path, || error);
            }
        }
        Err(why) => findings.at(value, path, || why),
    }
}

/// The placements that a document defines, in its order.
#[derive(Default)]
struct Names<'a> {
    list: Vec<Cow<'a, str>>,
    set: HashSet<Cow<'a, str>>,
}

impl<'a> Names<'a> {
    fn add(&mut self, name: Cow<'a, str>) {
        if self.set.insert(name.clone()) {
            self.list.push(name);
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.set.contains(name)
    }

    fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.list.iter().map(AsRef::as_ref)
    }
}
