//! Problems while they are being collected: places are byte offsets still, and
//! only as many are put into words as will be reported.

use std::fmt::Display;
use std::ops::ControlFlow;

use super::locate::Raw;
use super::positions::Positions;
use super::problem::{Problem, and_more, push_token};

/// How many problems of one document are reported; the rest is counted.
pub(super) const REPORTED: usize = 100;

/// Longest key that a pointer repeats, in bytes. Beyond, the pointer ends at
/// the object that holds the key.
const POINTED: usize = 256;

/// The path to a value: the fields, names and positions that lead there.
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

    /// As RFC 6901 writes it; without the names that are too long for it.
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
    /// How many are put into words.
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

    /// For who wants to know no more than whether there are any: nothing is put
    /// into words, and the first is [enough](Self::flow).
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

    /// Adds that `again` says a second time what `first` says: `what`, such as
    /// `duplicate key`.
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

    /// What was read of `value`; or nothing, and a problem that says why.
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

    /// Whether to read on.
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
