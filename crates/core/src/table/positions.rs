//! Byte offsets of a text as lines and columns for people.

use std::fmt;

/// What serde_json says, without where: it counts columns in bytes.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    if text.ends_with(&position) {
        text.truncate(text.len() - position.len());
    }
    text
}

/// The byte offset that an error of serde_json about `text` points to.
pub(super) fn offset_of(error: &serde_json::Error, text: &str) -> usize {
    let line_start = match error.line() {
        0 => return 0,
        1 => 0,
        line => memchr::memchr_iter(b'\n', text.as_bytes())
            .nth(line - 2)
            .map_or(text.len(), |newline| newline + 1),
    };
    // Its columns count from 1; 0 is the line break before the line.
    let mut offset = (line_start + error.column())
        .saturating_sub(1)
        .min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A place for people: line and column from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// The positions of some offsets, found in one sweep over the text: a document
/// may well be one line of many megabytes.
pub(super) struct Positions(Vec<(usize, Position)>);

impl Positions {
    /// Finds the positions of `offsets` in `text`; each must lie on a character.
    pub fn find(text: &str, mut offsets: Vec<usize>) -> Self {
        offsets.sort_unstable();
        offsets.dedup();
        let (mut line, mut column, mut from) = (1, 1, 0);
        let found = offsets
            .into_iter()
            .map(|offset| {
                let passed = text.get(from..offset).unwrap_or_default();
                let newlines = memchr::memchr_iter(b'\n', passed.as_bytes()).count();
                let tail = match memchr::memrchr(b'\n', passed.as_bytes()) {
                    Some(newline) => {
                        column = 1;
                        passed.get(newline + 1..).unwrap_or_default()
                    }
                    None => passed,
                };
                line += newlines;
                column += tail.chars().count();
                from = offset;
                let position = Position {
                    line: u32::try_from(line).unwrap_or(u32::MAX),
                    column: u32::try_from(column).unwrap_or(u32::MAX),
                };
                (offset, position)
            })
            .collect();
        Self(found)
    }

    /// The position of one of the offsets that were looked for.
    pub fn of(&self, offset: usize) -> Position {
        match self.0.binary_search_by_key(&offset, |(at, _)| *at) {
            Ok(index) => self.0.get(index).map(|(_, position)| *position),
            Err(_) => None,
        }
        .unwrap_or(Position { line: 0, column: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = "ab\nzür\u{1F600}x\r\n\n  y";
        let places = [
            ("a", 1, 1),
            ("b", 1, 2),
            ("z", 2, 1),
            ("r", 2, 3),
            ("x", 2, 5),
            ("y", 4, 3),
        ];
        let offset = |part: &str| text.find(part).unwrap();
        let positions = Positions::find(
            text,
            places.iter().rev().map(|(part, ..)| offset(part)).collect(),
        );
        for (part, line, column) in places {
            assert_eq!(
                positions.of(offset(part)),
                Position { line, column },
                "{part}"
            );
        }
        let end = Positions::find(text, vec![text.len(), text.len()]);
        assert_eq!(end.of(text.len()), Position { line: 4, column: 4 });
    }

    #[test]
    fn errors_of_serde_point_into_the_text() {
        for (text, expected) in [
            ("", 0),
            ("nope", 1),
            ("{\n  \"ü\": ?\n}", 10),
            ("{}\n\n x", 5),
            ("[1,\n", 3),
            ("\"a\nb\"", 2),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            let offset = offset_of(&error, text);
            assert_eq!(offset, expected, "{text:?}: {error}");
        }
    }
}
