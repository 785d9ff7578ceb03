//! `mobula why`, `mobula postmortem` and `mobula timeline`: what leads to the cause.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use mobula_protocol::size::ByteSize;
use mobula_runtime::logs::{LogCursor, Logs};
use mobula_runtime::state::{Postmortem, Why};
use mobula_runtime::words::{count, seconds, with_sizes};
use serde::Serialize;

use crate::session::{Look, print};
use crate::table::{printable, shortened};

/// Lines of output of a process that has ended.
const LAST_LINES: usize = 10;
/// Characters of the reason for which an actor is over.
const REASON_LENGTH: usize = 200;

/// Says why a call, a process, an actor or an object does not go on: what it waits for, and what that waits for, to
/// the end.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyCommand {
    /// A call, as `mobula list tasks` shows it (4711.12); a process (4711); an actor's name, or its number
    /// (actor:3); an object's id.
    target: String,
    #[command(flatten)]
    look: Look,
}

/// Shows how a process ended: its last call, waits, events and lines of output, its memory, and the calls that failed
/// with it. Of an actor: the process that ended last.
#[derive(Debug, clap::Args)]
pub(crate) struct PostmortemCommand {
    /// A process (4711); an actor's name, or its number (actor:3). Without it: all that are known, the last first.
    target: Option<String>,
    #[command(flatten)]
    look: Look,
}

/// Writes what the processes of a session did lately as a file for a trace viewer: chrome://tracing, or
/// https://ui.perfetto.dev.
#[derive(Debug, clap::Args)]
pub(crate) struct TimelineCommand {
    /// The file. Without it: standard output.
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    look: Look,
}

impl WhyCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let why = self.look.look()?.why(&self.target)?;
        self.look.show(&why, || why_text(&why))
    }
}

fn why_text(why: &Why) -> String {
    let mut text = String::new();
    for (depth, link) in why.chain.iter().enumerate() {
        let time = link.for_s.map_or_else(String::new, |time| format!(", for {}", seconds(time)));
        let arrow = if depth == 0 { "" } else { "└ " };
        let indent = "  ".repeat(depth);
        let _ = writeln!(
            text,
            "{indent}{arrow}{} {}: {}{time}",
            link.kind,
            link.id,
            with_sizes(&printable(&link.text))
        );
    }
    let _ = writeln!(text, "{}: {}", why.end, printable(&why.text));
    text
}

/// The record of a process that has ended, and its last lines of output.
#[derive(Debug, Serialize)]
struct Remains {
    #[serde(flatten)]
    found: Postmortem,
    /// The last lines of output, in their order.
    output: Vec<String>,
}

impl PostmortemCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let socket = self.look.socket()?;
        let snapshot = self.look.look()?;
        let logs = Logs::of_session(&socket);
        let remains = |found: Postmortem| Remains { output: last_lines(&logs, found.pid), found };
        match &self.target {
            Some(target) => {
                let found = remains(snapshot.postmortem(target)?);
                self.look.show(&found, || found.to_text())
            }
            None => {
                let all: Vec<Remains> = snapshot.postmortems().into_iter().map(remains).collect();
                self.look.show(&serde_json::json!({ "processes": all }), || match all.is_empty() {
                    true => "no process of this session has ended whose events are kept\n".to_owned(),
                    false => all.iter().map(Remains::to_text).collect::<Vec<_>>().join("\n"),
                })
            }
        }
    }
}

/// The last lines of output of a process; none if the session keeps no log files.
fn last_lines(logs: &Logs, pid: u32) -> Vec<String> {
    let lines = logs.read(&mut LogCursor::default(), |of| of == pid).unwrap_or_default();
    let first = lines.len().saturating_sub(LAST_LINES);
    lines[first..].iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

impl Remains {
    fn to_text(&self) -> String {
        let Self { found, output } = self;
        let reason = found.reason.as_deref().unwrap_or("unknown");
        let mut text = format!("process {} ({}): {reason}\n", found.pid, printable(&found.label));
        if let Some(ended) = found.ended {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            let _ = writeln!(text, "  it ended {} ago", seconds((now - ended).max(0.0)));
        }
        if let Some(actor) = &found.actor {
            let name = actor.name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
            let _ = writeln!(
                text,
                "  it was actor {}: {}{}",
                actor.actor,
                printable(&actor.class),
                printable(&name)
            );
            if let Some(death) = &actor.death {
                let _ = writeln!(text, "  the actor has ended: {}", shortened(death, REASON_LENGTH));
            }
            let others: Vec<String> =
                actor.pids.iter().filter(|pid| **pid != found.pid).map(u32::to_string).collect();
            if !others.is_empty() {
                let _ = writeln!(text, "  other processes of this actor that ended: {}", others.join(", "));
            }
        }
        if let Some(bytes) = found.peak_memory_bytes {
            let most = if found.is_peak_exact { "at its peak" } else { "at most" };
            let _ = writeln!(text, "  its memory: {} {most}", ByteSize(bytes));
        }
        if let (Some(task), Some(function)) = (&found.task, &found.function) {
            let _ = writeln!(text, "  it ran {} (call {task})", printable(function));
        }
        for wait in &found.waits {
            let _ = writeln!(text, "  it waited for {}", with_sizes(&printable(wait)));
        }
        for task in &found.lost_tasks {
            let _ = writeln!(text, "  lost with it: {}", printable(task));
        }
        // If the head did not see its end, the times count back from the last event.
        let end = found.ended.or_else(|| found.events.last().map(|event| event.at)).unwrap_or(0.0);
        for event in &found.events {
            let before = seconds((end - event.at).max(0.0));
            let _ = writeln!(text, "  {before:>10} before: {}", printable(&event.text));
        }
        for line in output {
            let _ = writeln!(text, "  it printed: {}", printable(line));
        }
        text
    }
}

impl TimelineCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let snapshot = self.look.look()?;
        let timeline = snapshot.timeline();
        let trace = snapshot.timeline_json(&timeline);
        let processes = timeline.iter().filter(|event| event.name == "process_name").count();
        let has_calls = timeline.iter().any(|event| event.cat == "made");
        let written =
            format!("{} of {}", count(timeline.len() as u64, "event"), count(processes as u64, "process"));
        match &self.output {
            Some(path) => {
                std::fs::write(path, trace).map_err(|error| format!("{}: {error}", path.display()))?;
                if self.look.is_json() {
                    let found = serde_json::json!({ "path": path, "events": timeline.len() });
                    print(&format!("{found}\n"))?;
                } else {
                    print(&format!("wrote {written} to {}\n", path.display()))?;
                }
            }
            None => {
                print(&(trace + "\n"))?;
                eprintln!("mobula: wrote {written}");
            }
        }
        if !has_calls {
            eprintln!("mobula: {ONLY_SOME_CALLS}");
        }
        Ok(())
    }
}

/// The note on a timeline in which no call was made.
const ONLY_SOME_CALLS: &str = "the timeline has only calls that run or have failed: start the program with \
                               MOBULA_EVENTS=all to record each call";
