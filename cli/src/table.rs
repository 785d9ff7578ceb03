//! Tables for people and terminals.

use comfy_table::{CellAlignment, Table, presets};

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows under a head, each column as wide as its widest cell, each line indented by two blanks and ended by `\n`.
pub(crate) fn columns<const N: usize>(head: [(&str, Side); N], rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.map(|(name, _)| name)).add_rows(rows);
    for (column, (_, side)) in table.column_iter_mut().zip(head) {
        column.set_padding((2, 0)).set_cell_alignment(match side {
            Side::Left => CellAlignment::Left,
            Side::Right => CellAlignment::Right,
        });
    }
    table.trim_fmt() + "\n"
}

/// The text without characters that could steer a terminal: labels and names come from other programs.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(harmless).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["käse".to_owned(), "7".to_owned()], ["b".to_owned(), "12345".to_owned()]];
        let text = columns([("A", Side::Left), ("BYTES", Side::Right)], &rows);
        assert_eq!(text, "  A     BYTES\n  käse      7\n  b     12345\n");
        // A character of these takes two columns of a terminal.
        let text = columns([("A", Side::Left), ("B", Side::Left)], &[["日本".to_owned(), "x".to_owned()]]);
        assert_eq!(text, "  A     B\n  日本  x\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
