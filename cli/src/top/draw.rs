//! Draws the screen: a head, the rows, a pane over them, and a line for messages. It fits 80 columns and 24 lines.

use mobula_protocol::size::ByteSize;
use mobula_runtime::words::count;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Sparkline, Table, TableState};

use super::app::{App, Pane, Tab};
use super::rows::{self, rate, table};
use crate::live::sample::ResourceRow;
use crate::live::{Sample, Session};

/// Lines of a chart.
const CHART_LINES: u16 = 4;
/// The least width of a column of texts. In a narrower terminal, other columns are left out first.
const TEXT_MIN: u16 = 10;

/// The styles of the parts of the screen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    has_colours: bool,
}

impl Theme {
    /// Without colours if `NO_COLOR` is set and not empty (<https://no-color.org>), or the terminal has no colours.
    pub(super) fn of_environment() -> Self {
        let is_set = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb" || term.starts_with("vt"));
        Self { has_colours: !is_set && !is_dumb }
    }

    #[cfg(test)]
    pub(super) fn new(has_colours: bool) -> Self {
        Self { has_colours }
    }

    fn style(self, colour: Color, without: Modifier) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new().add_modifier(without) }
    }

    fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim(self) -> Style {
        self.style(Color::DarkGray, Modifier::DIM)
    }

    fn strong(self) -> Style {
        self.style(Color::Red, Modifier::BOLD)
    }

    fn tab(self, is_shown: bool) -> Style {
        if is_shown {
            self.style(Color::Cyan, Modifier::empty()).add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, theme: &Theme) {
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, app, theme);
    draw_tabs(frame, tabs, app, theme);
    let (rows, pane) = match &app.pane {
        Some(Pane::Text { .. }) => {
            let [rows, pane] =
                Layout::vertical([Constraint::Percentage(40), Constraint::Percentage(60)]).areas(body);
            (rows, Some(pane))
        }
        _ => (body, None),
    };
    match app.tab {
        Tab::Store if pane.is_none() && rows.height > 2 * CHART_LINES + 4 => {
            let [rows, charts] =
                Layout::vertical([Constraint::Min(3), Constraint::Length(CHART_LINES + 1)]).areas(rows);
            draw_rows(frame, rows, app, theme);
            draw_charts(frame, charts, app, theme);
        }
        _ => draw_rows(frame, rows, app, theme),
    }
    match (&app.pane, pane) {
        (Some(Pane::Text { title, lines, from, .. }), Some(area)) => {
            let shown = usize::from(area.height.saturating_sub(1));
            let first = from.unwrap_or(usize::MAX).min(lines.len().saturating_sub(shown));
            let text: Vec<Line<'_>> =
                lines.iter().skip(first).take(shown).map(|line| Line::from(line.as_str())).collect();
            let title = format!("{title} (Esc closes, arrows move)");
            let block = Block::new().borders(Borders::TOP).title(Span::styled(title, theme.head()));
            frame.render_widget(Paragraph::new(text).block(block), area);
        }
        (Some(Pane::Help), _) => draw_help(frame, body, theme),
        _ => {}
    }
    draw_foot(frame, foot, app, theme);
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let first = match (&app.sample, &app.session) {
        (Some(sample), Session::Running) => Line::from(figures(sample)),
        (_, Session::Silent(why)) => {
            Line::styled(format!("the session does not answer: {why}"), theme.strong())
        }
        (_, Session::Ended(why)) => {
            Line::styled(format!("{why}: these are the last figures"), theme.strong())
        }
        (None, Session::Running) => Line::from("looking at the session"),
    };
    let second = app.sample.as_ref().map(resources).unwrap_or_default();
    frame.render_widget(Paragraph::new(vec![first, Line::from(second)]), area);
}

fn figures(sample: &Sample) -> String {
    let figures = &sample.figures;
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let per_s = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), rate);
    format!(
        "{} calls/s  {} failed/s  {} run  {} wait  cpu {} %  mem {}  {} processes",
        per_s(figures.calls_per_s),
        per_s(figures.failures_per_s),
        count(figures.running),
        count(figures.pending),
        figures.cpu_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0}")),
        ByteSize(figures.memory_bytes),
        figures.processes,
    )
}

fn resources(sample: &Sample) -> String {
    let amount = |name: &str, amount: f64| match name {
        "memory" | "object_store_memory" => ByteSize(amount.max(0.0) as u64).to_string(),
        _ => format!("{amount}"),
    };
    let text = |row: &ResourceRow| {
        format!("{} {}/{}", row.name, amount(&row.name, row.used), amount(&row.name, row.total))
    };
    // The most important first: the end of a line that is too long is cut off.
    let mut parts = Vec::new();
    let longest = sample.wanted.iter().map(|want| want.waited_s).fold(0.0, f64::max);
    if longest > 1.0 {
        let workers: u32 = sample.wanted.iter().map(|want| want.workers).sum();
        parts.push(format!("{} wanted for {longest:.0} s", count(workers.into(), "worker")));
    }
    let store = &sample.store;
    parts.push(format!("store {}/{}", ByteSize(store.used_bytes), ByteSize(store.capacity_bytes)));
    parts.extend(sample.resources.iter().map(text));
    parts.join("  ")
}

fn draw_tabs(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let mut spans = Vec::new();
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        let rows =
            app.sample.as_ref().filter(|_| tab != Tab::Store).map(|sample| table(sample, tab).rows.len());
        let rows = rows.map_or_else(String::new, |rows| format!(" ({rows})"));
        spans.push(Span::styled(format!(" {} {}{rows} ", number + 1, tab.name()), theme.tab(tab == app.tab)));
        spans.push(Span::raw(" "));
    }
    if app.is_paused() {
        spans.push(Span::styled("paused", theme.strong()));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_rows(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let table = app.table();
    let shown = shown_columns(&table, area.width);
    let widths: Vec<Constraint> =
        shown.iter().map(|at| table.columns[*at].1.map_or(Constraint::Fill(1), Constraint::Length)).collect();
    let is_right = |column: usize| table.rows.first().is_some_and(|row| row.cells[column].is_right);
    let align = |text: String, is_right: bool| {
        Text::from(text).alignment(if is_right { Alignment::Right } else { Alignment::Left })
    };
    let heads = shown.iter().map(|at| (*at, table.columns[*at].0)).map(|(at, name)| {
        let mark = match (at == table.sorted_by, table.is_descending) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        align(format!("{name}{mark}"), is_right(at))
    });
    let head = Row::new(heads).style(theme.head());
    let rows = table.rows.iter().map(|row| {
        let cells =
            shown.iter().map(|at| &row.cells[*at]).map(|cell| align(cell.text.clone(), cell.is_right));
        Row::new(cells).style(match row {
            _ if row.is_strong => theme.strong(),
            _ if row.is_dim => theme.dim(),
            _ => Style::new(),
        })
    });
    let mut state = TableState::new().with_selected(app.position(&table));
    let is_empty = table.rows.is_empty();
    let widget =
        Table::new(rows, widths).header(head).column_spacing(1).row_highlight_style(theme.selected());
    frame.render_stateful_widget(widget, area, &mut state);
    if is_empty && area.height > 2 {
        let below = Rect { y: area.y + 1, height: area.height - 1, ..area };
        frame.render_widget(Paragraph::new(why_empty(app)).style(theme.dim()), below);
    }
}

/// The columns for which a width has room, in their order.
fn shown_columns(table: &rows::Table, width: u16) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..table.columns.len()).collect();
    for spare in table.spare {
        let needed: u16 = shown.iter().map(|at| table.columns[*at].1.unwrap_or(TEXT_MIN) + 1).sum();
        if needed <= width + 1 {
            break;
        }
        shown.retain(|at| at != spare);
    }
    shown
}

/// The reason why there are no rows.
fn why_empty(app: &App) -> String {
    if !app.filter.is_empty() {
        return format!("no row contains {:?}: Esc shows all", app.filter);
    }
    let unknown = app.sample.iter().flat_map(|sample| &sample.unknown);
    let reasons: Vec<String> =
        unknown.map(|unknown| format!("{}: {}. {}", unknown.what, unknown.why, unknown.remedy)).collect();
    if reasons.is_empty() { "none".to_owned() } else { reasons.join("\n") }
}

fn draw_charts(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let [used, calls] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
    let width = usize::from(used.width);
    let points: Vec<_> = app.history.points().rev().take(width).collect();
    let capacity = app.sample.as_ref().map_or(1, |sample| sample.store.capacity_bytes.max(1));
    let bytes: Vec<u64> = points.iter().rev().map(|point| point.store_used_bytes).collect();
    let rates: Vec<u64> = points.iter().rev().map(|point| point.calls_per_s.unwrap_or(0.0) as u64).collect();
    let title = |text: String| Block::new().title(Span::styled(text, theme.head()));
    let of_store = Sparkline::default().data(&bytes).max(capacity).block(title("store in use".to_owned()));
    frame.render_widget(of_store, used);
    let most = rates.iter().max().copied().unwrap_or(0);
    let of_calls =
        Sparkline::default().data(&rates).block(title(format!("calls/s, at most {}", rate(most as f64))));
    frame.render_widget(of_calls, calls);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect, theme: &Theme) {
    const KEYS: [(&str, &str); 13] = [
        ("1 2 3 4, Tab", "workers, functions, actors, store"),
        ("arrows, PgUp, PgDn, Home, End", "select a row"),
        ("o", "sort by the next column"),
        ("r", "sort the other way round"),
        ("/", "show only rows with a text; Enter ends typing, Esc shows all"),
        ("l", "follow the log of the process or actor"),
        ("s", "show its stack"),
        ("c", "cancel the call that it runs"),
        ("k", "kill it"),
        ("space", "stop and go on"),
        ("+ -", "look less, or more often"),
        ("?", "this help"),
        ("q, Ctrl-C", "quit"),
    ];
    let lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, text)| {
            Line::from(vec![Span::styled(format!("{key:<31}"), theme.head()), Span::raw(*text)])
        })
        .collect();
    let block = Block::new().borders(Borders::TOP).title(Span::styled("keys", theme.head()));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let line = if let Some(question) = &app.question {
        Line::styled(question.text.clone(), theme.strong())
    } else if app.is_typing {
        Line::from(format!("filter: {}_", app.filter))
    } else if !app.message.is_empty() {
        Line::styled(app.message.clone(), theme.strong())
    } else if !app.filter.is_empty() {
        Line::from(format!("only rows with {:?} (Esc shows all)", app.filter))
    } else {
        Line::styled("? keys  / filter  o sort  l log  s stack  c cancel  k kill  q quit", theme.dim())
    };
    frame.render_widget(line, area);
}
