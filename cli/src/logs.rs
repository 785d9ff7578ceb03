//! `mobula logs`: the output of the workers of a session.
//!
//! Every line is shown, and equal lines are not merged. If lines are missing because of the limit of log files, a line
//! on standard error says so.
//!
//! # The lines of a call
//!
//! Workers print into pipes, and nothing in a pipe says which call printed. Two things are known of a line: the
//! function or the class that ran, by the label before it, and the time at which the session read it, which is a moment
//! after it was printed. So the lines of a call are those of its process, with the label of its function, that were
//! read from its begin until the next call with this label began there. This gives these guarantees:
//! - No line of another function or class appears, and no line of a later call.
//! - No line is missing that was read before the next call of the same function, or the same actor, began in the
//!   process.
//!
//! Two calls of the same function that follow each other within moments in one process can have a line of each other.
//! Calls that an actor runs at the same time have each other's lines.

use std::collections::HashSet;
use std::error::Error;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use mobula_runtime::control::Target;
use mobula_runtime::logs::{LogCursor, LogLine, LogStream, Logs};
use mobula_runtime::state::{NoSuchTarget, Snapshot, TaskState};
use mobula_runtime::words::count;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Serialize;

use crate::exit::{EXIT_CODES, Exit};
use crate::session::Look;

/// The longest wait of a following reader before it checks whether the session has ended.
const LOOK: Duration = Duration::from_millis(500);

/// Shows the output of workers: of all processes, of one, of an actor, or of a call.
///
/// Of a call: the lines of its process, with its function's name, that the session read from its begin until the next
/// call of this function, or this actor, began there. A line that is printed in the last moment before that call may
/// count as its line. Calls are known if the program was started with MOBULA_EVENTS=all.
///
/// Lines have the prefix that they have in the driver's output. With --json, each line is an object: {at, pid, stream,
/// function, text}.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct LogsCommand {
    /// A process (4711); an actor's name, or its number (actor:3); a call (4711.12). Without it: all processes.
    target: Option<String>,
    /// Follow: also show new lines, until the session ends.
    #[arg(short, long)]
    follow: bool,
    /// Show only the text, as it was printed.
    #[arg(long, conflicts_with_all = ["json", "timestamps"])]
    raw: bool,
    /// Show when each line was printed.
    #[arg(short, long)]
    timestamps: bool,
    /// Show at most this number of the existing lines: the last ones.
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Read the log files that a session has kept in this directory, in place of those of a running one.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["socket", "follow"])]
    dir: Option<PathBuf>,
    #[command(flatten)]
    look: Look,
}

/// The lines that are shown.
#[derive(Debug, Default)]
struct Chosen {
    /// Of these processes; `None`: of all.
    pids: Option<HashSet<u32>>,
    /// Of this call.
    call: Option<OfCall>,
    /// Whether the session knows the target. If it does not, there may be lines of it nevertheless.
    is_known: bool,
}

/// The lines of one call: see the module's documentation.
#[derive(Debug)]
struct OfCall {
    /// From this time on, in seconds since 1970.
    from: f64,
    /// The labels that its lines can have: the name of the function, or that of the class whose method it is. Each with
    /// the time at which the next call with this label began.
    labels: Vec<(String, Option<f64>)>,
}

impl OfCall {
    /// Of a call that has begun. `None`: it has not.
    fn of(task: &TaskState, all: &[TaskState]) -> Option<Self> {
        let from = task.started?;
        let others =
            || all.iter().filter(|other| other.worker_pid == task.worker_pid && other.task != task.task);
        // Calls that run at the same time are not told apart.
        let begins =
            |other: &TaskState| other.started.filter(|start| task.ended.is_some_and(|end| *start >= end));
        let until = |label: &str| {
            let has_label = |other: &&TaskState| labels_of(&other.function).any(|its| its == label);
            others().filter(has_label).filter_map(begins).min_by(f64::total_cmp)
        };
        Some(Self {
            from,
            labels: labels_of(&task.function).map(|label| (label.to_owned(), until(label))).collect(),
        })
    }

    fn has(&self, line: &LogLine) -> bool {
        let mut its = self.labels.iter().filter(|(label, _)| *label == line.function);
        line.at >= self.from && its.any(|(_, until)| until.is_none_or(|until| line.at < until))
    }
}

/// The labels that the lines of a function may have: its own name, or the name before it.
fn labels_of(function: &str) -> impl Iterator<Item = &str> {
    function.rsplit("::").flat_map(|part| part.rsplit('.')).take(2)
}

#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    at: f64,
    pid: u32,
    stream: &'static str,
    function: &'a str,
    text: String,
}

impl LogsCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let (logs, chosen) = match &self.dir {
            Some(directory) => (Logs::in_directory(directory), self.chosen_without_session()?),
            None => {
                let socket = self.look.socket()?;
                (Logs::of_session(&socket), self.chosen(&self.look.look()?)?)
            }
        };
        // Before the first look: what is printed in between wakes this.
        let watch = if self.follow { Some(watch(&logs)?) } else { None };
        let mut cursor = LogCursor::default();
        let mut lines =
            logs.read(&mut cursor, |pid| chosen.has(pid)).map_err(|error| unreadable(&logs, &error))?;
        lines.retain(|line| chosen.has_line(line));
        match &self.target {
            Some(target) if lines.is_empty() && !chosen.is_known => {
                return Err(NoSuchTarget { target: target.clone() }.into());
            }
            Some(_) if lines.is_empty() && !self.follow => eprintln!("mobula: nothing was printed there"),
            None if lines.is_empty() && self.dir.is_some() => check_is_of_session(&logs)?,
            _ => {}
        }
        let first = self.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        if !self.show(&lines[first..])? {
            return Ok(());
        }
        let Some(watch) = watch else { return Ok(()) };
        loop {
            wait(&watch)?;
            match logs.read(&mut cursor, |pid| chosen.has(pid)) {
                Ok(mut lines) => {
                    lines.retain(|line| chosen.has_line(line));
                    if !self.show(&lines)? {
                        return Ok(());
                    }
                }
                // The session has ended, and its files with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if !logs.directory().exists() {
                return Ok(());
            }
        }
    }

    fn chosen(&self, snapshot: &Snapshot) -> Result<Chosen, Box<dyn Error>> {
        let Some(target) = &self.target else { return Ok(Chosen::default()) };
        let Ok(target) = target.parse::<Target>();
        let unknown = || NoSuchTarget { target: target.to_string() };
        let of = |pid| Chosen { pids: Some(HashSet::from([pid])), call: None, is_known: true };
        match &target {
            Target::Process(pid) => {
                let workers = snapshot.workers();
                let known = workers.iter().find(|worker| worker.pid == *pid);
                if known.is_some_and(|known| known.kind == "driver") {
                    let text = "its output is not kept, and goes where the program was started to print";
                    return Err(Exit::impossible(format!("process {pid} is a driver: {text}")).into());
                }
                Ok(Chosen { is_known: known.is_some(), ..of(*pid) })
            }
            Target::Actor(name) => {
                let pids = snapshot.actor_pids(name);
                Ok(of(*pids.last().ok_or_else(unknown)?))
            }
            Target::Task { .. } => {
                let tasks = snapshot.tasks();
                let task = tasks.iter().find(|task| task.task == target.to_string()).ok_or_else(unknown)?;
                let begun = task.worker_pid.zip(OfCall::of(task, &tasks));
                let (pid, call) =
                    begun.ok_or_else(|| format!("call {target} has not begun: it has printed nothing"))?;
                Ok(Chosen { call: Some(call), ..of(pid) })
            }
            _ => Err(unknown().into()),
        }
    }

    fn chosen_without_session(&self) -> Result<Chosen, Box<dyn Error>> {
        let Some(target) = &self.target else { return Ok(Chosen::default()) };
        match target.parse() {
            Ok(pid) => Ok(Chosen { pids: Some(HashSet::from([pid])), call: None, is_known: false }),
            Err(_) => {
                let why = "with --dir, only a process can be named, by its pid: log files do not say more";
                Err(Exit::over(format!("{target:?} is no pid: {why}")).into())
            }
        }
    }

    /// Writes lines. Returns `false` if the reader has closed the output.
    fn show(&self, lines: &[LogLine]) -> Result<bool, Box<dyn Error>> {
        let mut bytes = Vec::new();
        let mut output = io::stdout().lock();
        for line in lines {
            if line.stream == LogStream::Notice && !self.look.is_json() {
                eprintln!("mobula: process {}: {}", line.pid, String::from_utf8_lossy(&line.text));
                continue;
            }
            self.append(line, &mut bytes)?;
        }
        match output.write_all(&bytes).and_then(|()| output.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }

    fn append(&self, line: &LogLine, bytes: &mut Vec<u8>) -> Result<(), Box<dyn Error>> {
        let LogLine { at, pid, stream, function, text, .. } = line;
        if self.look.is_json() {
            let stream = match stream {
                LogStream::Out => "out",
                LogStream::Err => "err",
                _ => "notice",
            };
            let text = String::from_utf8_lossy(text).into_owned();
            serde_json::to_writer(&mut *bytes, &JsonLine { at: *at, pid: *pid, stream, function, text })?;
        } else {
            if self.timestamps {
                write!(bytes, "{} ", utc(*at))?;
            }
            if !self.raw {
                write!(bytes, "({function} pid={pid}) ")?;
            }
            bytes.extend_from_slice(text);
        }
        bytes.push(b'\n');
        Ok(())
    }
}

impl Chosen {
    fn has(&self, pid: u32) -> bool {
        self.pids.as_ref().is_none_or(|pids| pids.contains(&pid))
    }

    fn has_line(&self, line: &LogLine) -> bool {
        self.call.as_ref().is_none_or(|call| call.has(line))
    }
}

/// An error if a directory has no log files, but directories of sessions that have some.
fn check_is_of_session(logs: &Logs) -> Result<(), Box<dyn Error>> {
    let entries = std::fs::read_dir(logs.directory())?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut sessions: Vec<String> = names.filter(|name| name.starts_with("session-")).collect();
    if sessions.is_empty() {
        return Ok(());
    }
    sessions.sort();
    let (directory, last) = (logs.directory().display(), &sessions[sessions.len() - 1]);
    Err(format!(
        "no log files in {directory}, but directories of {}: name one of them, such as --dir {directory}/{last}",
        count(sessions.len() as u64, "session")
    )
    .into())
}

/// Watches the directory for lines.
fn watch(logs: &Logs) -> Result<Inotify, Box<dyn Error>> {
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE_SELF;
    // If the session has no log files, the caller reports it.
    let _ = watch.add_watch(logs.directory(), changes);
    Ok(watch)
}

/// The error text for log files that cannot be read.
pub(crate) fn unreadable(logs: &Logs, error: &io::Error) -> String {
    let directory = logs.directory().display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "no log files in {directory}: the session keeps none (MOBULA_LOG_BYTES_MAX=0), or has ended"
            )
        }
        _ => format!("the log files in {directory} cannot be read: {error}"),
    }
}

/// Waits until something is written, or the time has come to look whether the session has ended.
fn wait(watch: &Inotify) -> Result<(), Box<dyn Error>> {
    use std::os::fd::AsFd;
    let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout) {
        Err(error) if error != Errno::EINTR => return Err(error.into()),
        _ => {}
    }
    while watch.read_events().is_ok_and(|events| !events.is_empty()) {}
    Ok(())
}

/// A time in UTC, as RFC 3339 has it, with milliseconds.
fn utc(at: f64) -> String {
    let millis = (at * 1e3).max(0.0) as u64;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (days, of_day) = (seconds / 86400, seconds % 86400);
    // Years begin in March here, so that the leap day is the last of one. From Howard Hinnant's `civil_from_days`.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (at, expected) in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (951_782_400.5, "2000-02-29T00:00:00.500Z"),
            (1_796_083_199.999, "2026-11-30T23:59:59.999Z"),
            (4_107_542_400.0, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(at), expected);
        }
    }
}
