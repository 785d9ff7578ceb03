//! Text in columns, for people and terminals.

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows under a head, each column as wide as its widest cell, each line indented by two blanks and ended by `\n`.
pub(crate) fn columns<const N: usize>(head: [(&str, Side); N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|(name, _)| name.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let names = head.map(|(name, _)| name.to_owned());
    let mut text = String::new();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, side)) in row.iter().zip(widths).zip(head) {
            line += "  ";
            line += &match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            };
        }
        text += line.trim_end();
        text += "\n";
    }
    text
}

/// The text with whatever could steer a terminal replaced: labels and names are other programs' words.
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
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
