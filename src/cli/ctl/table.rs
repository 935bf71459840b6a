//! Columns for people.

/// Rows below a head, each column as wide as its widest cell. The last column has
/// no padding, and what would break a line is escaped.
pub(super) fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> String {
    let head = head.map(str::to_owned);
    let rows: Vec<[String; COLUMNS]> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.clone().map(|cell| shown(&cell)))
        .collect();
    let mut widths = [0; COLUMNS];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names with their values, one a line.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in fields {
        let line = format!("{name:width$}  {}", shown(value));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// On one line, and nothing that a terminal would act on.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character.is_control() {
            true => character.escape_default().collect::<Vec<_>>(),
            false => vec![character],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |key: &str, placement: &str, why: &str| {
            [key.to_owned(), placement.to_owned(), why.to_owned()]
        };
        let rows = [
            row("acme", "tier1", ""),
            row("café-de-flore", "a", "b c"),
            row("\x1b[31m\n", "", ""),
        ];
        assert_eq!(
            table(["KEY", "PLACEMENT", "WHY"], &rows),
            "KEY            PLACEMENT  WHY\n\
             acme           tier1\n\
             café-de-flore  a          b c\n\
             \\u{1b}[31m\\n\n"
        );
        assert_eq!(table(["KEY", "N"], &[]), "KEY  N\n");
    }

    #[test]
    fn values_stand_below_each_other() {
        let text = fields(&[
            ("id", "cp-1".into()),
            ("version", "".into()),
            ("at", "now".into()),
        ]);
        assert_eq!(text, "id       cp-1\nversion\nat       now\n");
    }
}
