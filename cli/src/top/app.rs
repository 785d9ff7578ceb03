//! The state of the screen, and the effects of keys. It needs no terminal, so that tests can drive it.

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::orders::{Answer, Order};
use super::rows::{Row, Table, table};
use crate::live::{History, Sample, Session};

/// The most lines that a pane keeps.
const LINES_MAX: usize = 10_000;
/// The times between two samples that keys select, in seconds.
const INTERVALS: [f64; 7] = [0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// The tabs. One is shown at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Workers,
    Functions,
    Actors,
    Store,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Workers, Self::Functions, Self::Actors, Self::Store];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Workers => "workers",
            Self::Functions => "functions",
            Self::Actors => "actors",
            Self::Store => "store",
        }
    }
}

/// The effect of a key outside the screen.
#[derive(Debug, PartialEq)]
pub(super) enum Key {
    Nothing,
    Quit,
    /// An order to the session.
    Order(Order),
    /// Another time between two samples.
    Interval(f64),
}

/// The pane over the lower half of the rows.
#[derive(Debug)]
pub(super) enum Pane {
    Help,
    /// A text with a title: a stack, or the log of a process, which grows.
    Text {
        title: String,
        lines: VecDeque<String>,
        /// The process whose log it is.
        follows: Option<u32>,
        /// Lines that are hidden above; `None`: the end is shown.
        from: Option<usize>,
    },
}

/// A question. The key y confirms it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) text: String,
    order: Order,
}

/// The screen; see the module's documentation.
#[derive(Debug)]
pub(super) struct App {
    pub(super) session: Session,
    pub(super) sample: Option<Sample>,
    pub(super) history: History,
    pub(super) tab: Tab,
    /// For each tab: the column by which rows are sorted, and whether the order is reversed.
    sorts: [(usize, bool); 4],
    /// For each tab: the key of the selected row, so that the selection follows the row.
    selected: [Option<String>; 4],
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) pane: Option<Pane>,
    pub(super) question: Option<Question>,
    /// The outcome of the last order, or an error.
    pub(super) message: String,
    paused: bool,
    pub(super) interval_s: f64,
}

impl App {
    pub(super) fn new(interval_s: f64) -> Self {
        Self {
            session: Session::Running,
            sample: None,
            history: History::default(),
            tab: Tab::Workers,
            // Functions are sorted by calls per second, the other tabs are not sorted.
            sorts: [(0, false), (1, true), (0, false), (0, false)],
            selected: Default::default(),
            filter: String::new(),
            is_typing: false,
            pane: None,
            question: None,
            message: String::new(),
            paused: false,
            interval_s,
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes new figures.
    pub(super) fn update(&mut self, session: Session, sample: Option<&Sample>, history: History) {
        self.session = session;
        self.history = history;
        if let Some(sample) = sample {
            self.sample = Some(sample.clone());
        }
    }

    /// Takes the outcome of an order.
    pub(super) fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Said(text) => self.message = text,
            Answer::Text { title, text } => {
                let lines = text.lines().map(str::to_owned).collect();
                self.pane = Some(Pane::Text { title, lines, follows: None, from: Some(0) });
            }
            Answer::Lines { pid, lines: more } => {
                if let Some(Pane::Text { lines, follows: Some(of), from, .. }) = &mut self.pane
                    && *of == pid
                {
                    lines.extend(more);
                    while lines.len() > LINES_MAX {
                        lines.pop_front();
                        *from = from.map(|from| from.saturating_sub(1));
                    }
                }
            }
        }
    }

    /// The rows of the tab that are shown, sorted and filtered.
    pub(super) fn table(&self) -> Table {
        let (column, is_descending) = self.sorts[self.tab as usize];
        let mut table = self.sample.as_ref().map(|sample| table(sample, self.tab)).unwrap_or_default();
        let filter = self.filter.to_lowercase();
        table.rows.retain(|row| {
            filter.is_empty() || row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&filter))
        });
        table.rows.sort_by(|one, other| {
            let order = one.cells[column].order(&other.cells[column]);
            if is_descending { order.reverse() } else { order }
        });
        (table.sorted_by, table.is_descending) = (column, is_descending);
        table
    }

    /// The index of the selected row among these.
    pub(super) fn position(&self, table: &Table) -> Option<usize> {
        let selected = self.selected[self.tab as usize].as_ref();
        let found = selected.and_then(|key| table.rows.iter().position(|row| row.key == *key));
        found.or((!table.rows.is_empty()).then_some(0))
    }

    fn row(&self) -> Option<Row> {
        let mut table = self.table();
        let position = self.position(&table)?;
        Some(table.rows.swap_remove(position))
    }

    fn go(&mut self, to: impl Fn(usize, usize) -> usize) {
        let table = self.table();
        let Some(position) = self.position(&table) else { return };
        let last = table.rows.len() - 1;
        self.selected[self.tab as usize] = Some(table.rows[to(position, last).min(last)].key.clone());
    }

    /// Handles a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Key {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Key::Quit } else { Key::Nothing };
        }
        if let Some(Question { order, .. }) = self.question.take() {
            return if key.code == KeyCode::Char('y') { Key::Order(order) } else { Key::Nothing };
        }
        if self.is_typing {
            return self.type_filter(key.code);
        }
        self.message.clear();
        if self.pane.is_some() && self.key_in_pane(key.code) {
            // The log is not shown any more.
            return if self.pane.is_none() { Key::Order(Order::Unfollow) } else { Key::Nothing };
        }
        match key.code {
            KeyCode::Char('q') => return Key::Quit,
            KeyCode::Char('?' | 'h') => self.pane = Some(Pane::Help),
            KeyCode::Char(digit @ '1'..='4') => self.tab = Tab::ALL[digit as usize - '1' as usize],
            KeyCode::Tab | KeyCode::Right => self.tab = Tab::ALL[(self.tab as usize + 1) % 4],
            KeyCode::BackTab | KeyCode::Left => self.tab = Tab::ALL[(self.tab as usize + 3) % 4],
            KeyCode::Up => self.go(|at, _| at.saturating_sub(1)),
            KeyCode::Down => self.go(|at, _| at + 1),
            KeyCode::PageUp => self.go(|at, _| at.saturating_sub(10)),
            KeyCode::PageDown => self.go(|at, _| at + 10),
            KeyCode::Home => self.go(|_, _| 0),
            KeyCode::End => self.go(|_, last| last),
            KeyCode::Char('o') => self.sort_by_next(),
            KeyCode::Char('r') => {
                let is_descending = &mut self.sorts[self.tab as usize].1;
                *is_descending = !*is_descending;
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('+') => return self.change_interval(1),
            KeyCode::Char('-') => return self.change_interval(-1),
            KeyCode::Char('l') => return self.follow(),
            KeyCode::Char('s') => return self.order_for_process("a stack", Order::Stack),
            KeyCode::Char('c') => self.ask_cancel(),
            KeyCode::Char('k') => self.ask_kill(),
            _ => {}
        }
        Key::Nothing
    }

    fn type_filter(&mut self, code: KeyCode) -> Key {
        match code {
            KeyCode::Char(letter) => self.filter.push(letter),
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            _ => {}
        }
        Key::Nothing
    }

    /// Returns whether the pane has used the key.
    fn key_in_pane(&mut self, code: KeyCode) -> bool {
        if let KeyCode::Esc | KeyCode::Char('q') = code {
            self.pane = None;
            return true;
        }
        let Some(Pane::Text { lines, from, .. }) = &mut self.pane else {
            // Any key closes the help.
            self.pane = None;
            return true;
        };
        let last = lines.len().saturating_sub(1);
        let at = from.unwrap_or(last);
        *from = match code {
            KeyCode::Up => Some(at.saturating_sub(1)),
            KeyCode::Down => Some((at + 1).min(last)),
            KeyCode::PageUp => Some(at.saturating_sub(10)),
            KeyCode::PageDown => Some((at + 10).min(last)),
            KeyCode::Home => Some(0),
            KeyCode::End => None,
            _ => return false,
        };
        true
    }

    fn sort_by_next(&mut self) {
        let columns = self.table().columns.len().max(1);
        let (column, is_descending) = &mut self.sorts[self.tab as usize];
        *column = (*column + 1) % columns;
        // Numbers are sorted from the largest.
        *is_descending = self.sample.as_ref().is_some_and(|sample| {
            let rows = table(sample, self.tab).rows;
            rows.iter().any(|row| row.cells[*column].number.is_some())
        });
    }

    fn change_interval(&mut self, by: isize) -> Key {
        let at =
            INTERVALS.iter().position(|seconds| *seconds >= self.interval_s).unwrap_or(INTERVALS.len() - 1);
        let to = at.saturating_add_signed(by).min(INTERVALS.len() - 1);
        self.interval_s = INTERVALS[to];
        self.message = format!("a look every {} s", self.interval_s);
        Key::Interval(self.interval_s)
    }

    fn follow(&mut self) -> Key {
        match self.row().and_then(|row| row.pid) {
            Some(pid) => {
                let title = format!("log of process {pid}");
                self.pane =
                    Some(Pane::Text { title, lines: VecDeque::new(), follows: Some(pid), from: None });
                Key::Order(Order::Follow(pid))
            }
            None => self.has_no("a log"),
        }
    }

    fn order_for_process(&mut self, what: &str, order: fn(u32) -> Order) -> Key {
        match self.row().and_then(|row| row.pid) {
            Some(pid) => Key::Order(order(pid)),
            None => self.has_no(what),
        }
    }

    fn has_no(&mut self, what: &str) -> Key {
        self.message = format!("this row has no process: select a process or an actor to see {what}");
        Key::Nothing
    }

    fn ask_cancel(&mut self) {
        match self.row().and_then(|row| row.task) {
            Some(task) => {
                self.question =
                    Some(Question { text: format!("cancel call {task}? (y/n)"), order: Order::Cancel(task) });
            }
            None => self.message = "select a process that runs a call to cancel it".to_owned(),
        }
    }

    fn ask_kill(&mut self) {
        match self.row().and_then(|row| row.target) {
            Some(target) => {
                let text = format!("kill {target}? (y/n)");
                self.question = Some(Question { text, order: Order::Kill(target) });
            }
            None => self.message = "select a process or an actor to kill it".to_owned(),
        }
    }
}
