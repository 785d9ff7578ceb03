//! The last lines that the workers of the session have printed, for pages.
//!
//! The files are read when a page asks, from the position of the last reading. The last lines are kept, also after the
//! end of the session.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use mobula_runtime::logs::{LogCursor, LogStream, Logs};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::logs::unreadable;

/// Lines that are kept, and that one answer has at most.
const LINES_MAX: usize = 1000;
/// Characters of a line that are kept.
const CHARACTERS_MAX: usize = 2000;
/// The pause between two looks at the files.
const PAUSE: Duration = Duration::from_millis(200);

/// The last lines.
#[derive(Debug)]
pub(super) struct Tail {
    logs: Logs,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cursor: LogCursor,
    lines: VecDeque<Value>,
    /// Lines that were read.
    read: u64,
    looked: Option<Instant>,
    /// Why the last look found no files.
    error: Option<String>,
}

impl Tail {
    pub(super) fn new(socket: &Path) -> Self {
        Self { logs: Logs::of_session(socket), state: Mutex::default() }
    }

    /// The lines behind number `after`: each `[time, pid, stream, function, text]`.
    pub(super) fn json(&self, after: u64) -> Value {
        let mut state = self.state.lock();
        if state.looked.is_none_or(|looked| looked.elapsed() >= PAUSE) {
            state.look(&self.logs);
        }
        let first = state.read - state.lines.len() as u64;
        // A page that has seen more is one of another command at this address.
        let after = if after > state.read { 0 } else { after };
        let known = after.saturating_sub(first) as usize;
        let lines: Vec<&Value> = state.lines.iter().skip(known).collect();
        json!({ "lines": lines, "next": state.read, "left_out": first.saturating_sub(after), "error": state.error })
    }
}

impl State {
    fn look(&mut self, logs: &Logs) {
        self.looked = Some(Instant::now());
        let lines = match logs.read(&mut self.cursor, |_| true) {
            Ok(lines) => lines,
            Err(error) => {
                self.error = Some(unreadable(logs, &error));
                return;
            }
        };
        self.error = None;
        self.read += lines.len() as u64;
        for line in lines.iter().skip(lines.len().saturating_sub(LINES_MAX)) {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
            }
            let stream = match line.stream {
                LogStream::Out => "out",
                LogStream::Err => "err",
                _ => "notice",
            };
            let text = String::from_utf8_lossy(&line.text);
            let shown: String = text.chars().take(CHARACTERS_MAX).collect();
            let cut = if shown.len() < text.len() { " … (the line goes on)" } else { "" };
            self.lines.push_back(json!([line.at, line.pid, stream, line.function, shown + cut]));
        }
    }
}
