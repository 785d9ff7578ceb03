//! Tables for people and terminals.

use std::io::{IsTerminal as _, stdout};

use comfy_table::{CellAlignment, Table, presets};
use ratatui::crossterm::terminal;
use ratatui::text::Span;

/// Blanks before each column.
const GAP: usize = 2;
/// A column of texts is not made narrower than this, unless its head is.
const TEXT_MIN: usize = 8;

/// On which side of its column a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Rows under a head, each column as wide as its widest cell, each line indented by two blanks and ended by `\n`. On a
/// terminal, the widest texts are shortened until the lines fit.
pub(crate) fn columns<const N: usize>(head: [(&str, Side); N], rows: &[[String; N]]) -> String {
    match terminal_width() {
        Some(width) => written(head, &fitted(&head, rows, width)),
        None => written(head, rows),
    }
}

/// The width of the terminal to which standard output goes; `None` if it goes elsewhere.
pub(crate) fn terminal_width() -> Option<usize> {
    let width = stdout().is_terminal().then(terminal::size)?.ok()?.0;
    (width > 0).then_some(width.into())
}

/// The rows with their texts shortened so that the lines have at most this width, if columns of texts are the reason.
fn fitted<const N: usize>(head: &[(&str, Side); N], rows: &[[String; N]], width: usize) -> Vec<[String; N]> {
    let mut widths = head.map(|(name, _)| width_of(name));
    let least = widths.map(|of_head| of_head.max(TEXT_MIN));
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = width_of(cell).max(*width);
        }
    }
    loop {
        let excess = (widths.iter().sum::<usize>() + GAP * N).saturating_sub(width);
        let is_text = |at: &usize| head[*at].1 == Side::Left && widths[*at] > least[*at];
        let Some(widest) = (0..N).filter(is_text).max_by_key(|at| widths[*at]).filter(|_| excess > 0) else {
            break;
        };
        // Not narrower than the next one: then it is the turn of both.
        let others = (0..N).filter(|at| *at != widest).filter(is_text).map(|at| widths[at]);
        let next = others.max().unwrap_or(0).min(widths[widest] - 1);
        widths[widest] = (widths[widest].saturating_sub(excess)).max(next).max(least[widest]);
    }
    let cut = |row: &[String; N]| std::array::from_fn(|at| cut(&row[at], widths[at]));
    rows.iter().map(cut).collect()
}

/// The columns that a text takes in a terminal.
fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// The beginning of a text that is wider than this, with `…` at its end.
fn cut(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let (mut begin, mut taken) = (String::new(), 1);
    for character in text.chars() {
        taken += width_of(character.encode_utf8(&mut [0; 4]));
        if taken > width {
            break;
        }
        begin.push(character);
    }
    begin + "…"
}

/// The first line of a text, without characters that could steer a terminal, and with at most this many columns.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let mut lines = text.trim().lines();
    let first = printable(lines.next().unwrap_or_default());
    let more = if lines.next().is_some() && !first.ends_with('…') { " …" } else { "" };
    cut(&(first + more), width)
}

/// A line of words, broken between words to fit the terminal. Lines after the first one have this indentation.
pub(crate) fn wrapped(line: &str, indent: usize) -> String {
    terminal_width().map_or_else(|| line.to_owned(), |width| wrapped_to(line, indent, width))
}

fn wrapped_to(line: &str, indent: usize, width: usize) -> String {
    let (mut text, mut taken) = (String::new(), 0);
    for word in line.split_inclusive(' ') {
        let its = width_of(word.trim_end());
        if taken > indent && taken + its > width {
            text.truncate(text.trim_end().len());
            text += "\n";
            text += &" ".repeat(indent);
            taken = indent;
        }
        text += word;
        taken += width_of(word);
    }
    text
}

fn written<const N: usize>(head: [(&str, Side); N], rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.map(|(name, _)| name)).add_rows(rows);
    for (column, (_, side)) in table.column_iter_mut().zip(head) {
        column.set_padding((GAP as u16, 0)).set_cell_alignment(match side {
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
    fn the_widest_texts_are_shortened_until_lines_fit() {
        let head = [("PID", Side::Right), ("RUNS", Side::Left), ("WAITS FOR", Side::Left)];
        let row = |runs: &str, waits: &str| ["4711".to_owned(), runs.to_owned(), waits.to_owned()];
        let rows = [row(&"f".repeat(3000), "4711.12 (254 ms)"), row("g", "")];
        let text = written(head, &fitted(&head, &rows, 80));
        assert!(text.lines().all(|line| width_of(line) <= 80), "{text}");
        assert!(text.contains("fff…  4711.12 (254 ms)"), "only the widest is shortened: {text}");
        // Both are shortened, and never below the least width.
        let rows = [row(&"f".repeat(30), &"g".repeat(40))];
        let text = written(head, &fitted(&head, &rows, 40));
        assert!(text.lines().all(|line| width_of(line) <= 40) && text.matches('…').count() == 2, "{text}");
        let rows = fitted(&head, &rows, 10);
        assert_eq!((width_of(&rows[0][1]), width_of(&rows[0][2])), (8, 9));
        // A row that fits is left alone, and characters of two columns are not cut in half.
        assert_eq!(fitted(&head, &[row("f", "g")], 80), [row("f", "g")]);
        assert_eq!(cut("日本語", 4), "日…");
    }

    #[test]
    fn lines_break_between_words() {
        let text = wrapped_to("  unusual   one two three four", 12, 20);
        assert_eq!(text, "  unusual   one two\n            three\n            four");
        assert_eq!(wrapped_to("  drivers   abcdefghijklmnop", 12, 20), "  drivers   abcdefghijklmnop");
    }

    #[test]
    fn only_the_first_line_of_a_long_text_is_shown() {
        assert_eq!(shortened("one\ntwo", 80), "one …");
        assert_eq!(shortened("one two three", 8), "one two…");
        assert_eq!(shortened("one", 80), "one");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
