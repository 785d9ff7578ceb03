//! Events in the format of trace viewers: the JSON that `chrome://tracing` and Perfetto read. A track a process, with
//! its calls, what its threads waited for, and arrows from where a call was made to where it ran.

use mobula_client::internal::recorder::{Event, Kind, WaitFor};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::snapshot::{HEAD_LABEL, Process, Snapshot};
use super::tasks::TaskPhase;

/// Threads of a track.
const CALLS: u32 = 1;
const WAITS: u32 = 2;
const MARKS: u32 = 3;

/// An event of the trace format. Times are in microseconds.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TraceEvent {
    /// What it says.
    pub name: String,
    /// Its category: `task`, `wait`, `memory`, `mark`, `queue`, `process`.
    pub cat: &'static str,
    /// Its kind: `X` with a length, `i` a moment, `s` and `f` the ends of an arrow, `C` a number, `M` a name.
    pub ph: &'static str,
    /// When it began.
    pub ts: f64,
    /// How long it took, of an `X`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dur: Option<f64>,
    /// The process.
    pub pid: u32,
    /// The row in its track.
    pub tid: u32,
    /// What ties the ends of an arrow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// An arrow ends at the event that encloses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bp: Option<&'static str>,
    /// Of a moment: its process, and no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s: Option<&'static str>,
    /// More of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub args: Map<String, Value>,
}

impl TraceEvent {
    fn new(
        name: impl Into<String>,
        cat: &'static str,
        ph: &'static str,
        at: f64,
        pid: u32,
        tid: u32,
    ) -> Self {
        let (dur, id, bp, s) = (None, None, None, None);
        Self { name: name.into(), cat, ph, ts: at, dur, pid, tid, id, bp, s, args: Map::new() }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.args.insert(name.to_owned(), value.into());
        self
    }
}

impl Snapshot {
    /// The events that the recorders have, for a trace viewer.
    pub fn timeline(&self) -> Vec<TraceEvent> {
        let mut trace = Vec::new();
        for process in self.processes.iter().filter(|process| !process.label.starts_with(HEAD_LABEL)) {
            self.trace_process(process, &mut trace);
        }
        self.trace_calls(&mut trace);
        trace.sort_by(|one, other| one.ts.total_cmp(&other.ts));
        trace
    }

    /// The [timeline](Self::timeline) as one JSON text.
    pub fn timeline_json(&self) -> String {
        let lost = self.lost_events();
        let other = json!({ "overwritten_events": lost });
        json!({ "traceEvents": self.timeline(), "displayTimeUnit": "ms", "otherData": other }).to_string()
    }

    fn micros(&self, nanos: u64) -> f64 {
        nanos as f64 / 1e3
    }

    fn trace_process(&self, process: &Process, trace: &mut Vec<TraceEvent>) {
        let pid = process.pid;
        let dead = if process.dead { " (ended)" } else { "" };
        let label = format!("{}{dead}", process.label);
        trace.push(TraceEvent::new("process_name", "process", "M", 0.0, pid, 0).with("name", label));
        for (tid, name) in [(CALLS, "calls"), (WAITS, "waits"), (MARKS, "marks and memory")] {
            trace.push(TraceEvent::new("thread_name", "process", "M", 0.0, pid, tid).with("name", name));
        }
        for event in &process.other.events {
            trace.extend(self.trace_event(process, event));
        }
        for wait in process.waits.iter().filter(|_| !process.dead) {
            let awaited = self.awaited(pid, wait.what, wait.values);
            trace.push(self.span(format!("wait for {awaited}"), "wait", pid, WAITS, wait.since, self.now));
        }
    }

    fn trace_event(&self, process: &Process, event: &Event) -> Option<TraceEvent> {
        let (pid, at) = (process.pid, self.nanos(event.tick));
        let [one, two, three, ..] = event.values;
        let moment = |name: String, cat| {
            let mut moment = TraceEvent::new(name, cat, "i", self.micros(at), pid, MARKS);
            moment.s = Some("t");
            moment
        };
        let name = process.name(event.name);
        Some(match event.kind {
            Kind::Waited => {
                let awaited = self.awaited(pid, WaitFor::from_bits(event.detail), [two, three]);
                self.span(format!("wait for {awaited}"), "wait", pid, WAITS, one, at)
            }
            Kind::Span => self.span(name.to_owned(), "mark", pid, MARKS, one, at),
            Kind::Leased => self.span("lease".to_owned(), "memory", pid, MARKS, two, at).with("bytes", one),
            Kind::Mark => moment(name.to_owned(), "mark").with("value", one.cast_signed()),
            Kind::Spilled => moment("spill".to_owned(), "memory").with("bytes", three),
            Kind::Restored => moment("restore".to_owned(), "memory").with("bytes", three),
            _ => return None,
        })
    }

    /// A part of a row: from a tick to a time.
    fn span(
        &self,
        name: String,
        cat: &'static str,
        pid: u32,
        tid: u32,
        since: u64,
        until: u64,
    ) -> TraceEvent {
        let since = self.nanos(since).min(until);
        let mut span = TraceEvent::new(name, cat, "X", self.micros(since), pid, tid);
        span.dur = Some(self.micros(until - since));
        span
    }

    /// The calls, and how many of each process were under way.
    fn trace_calls(&self, trace: &mut Vec<TraceEvent>) {
        let mut changes: Vec<(u32, u64, i64)> = Vec::new();
        for ((caller, number), call) in self.calls() {
            let (phase, caller_pid) = (call.phase(), self.pid_of(caller));
            let id = format!("{caller_pid}.{number}");
            if let (Some(started), true) = (call.started, call.at != 0) {
                let (pid, ended) = (self.pid_of(call.at), call.ended.unwrap_or(self.now).max(started));
                let mut run =
                    TraceEvent::new(call.name.as_str(), "task", "X", self.micros(started), pid, CALLS);
                run.dur = Some(self.micros(ended - started));
                trace.push(run.with("task", id.as_str()).with("state", phase.to_string()));
                if let Some(created) = call.created {
                    let mut begin =
                        TraceEvent::new("call", "task", "s", self.micros(created), caller_pid, CALLS);
                    let mut end = TraceEvent::new("call", "task", "f", self.micros(started), pid, CALLS);
                    end.bp = Some("e");
                    (begin.id, end.id) = (Some(id.clone()), Some(id.clone()));
                    trace.extend([begin, end]);
                }
            }
            if let Some(created) = call.created {
                changes.push((caller_pid, created, 1));
                let is_over = matches!(phase, TaskPhase::Finished | TaskPhase::Failed);
                if let Some(ended) = call.ended.filter(|_| is_over) {
                    changes.push((caller_pid, ended.max(created), -1));
                }
            }
        }
        changes.sort_unstable();
        let (mut of, mut count) = (0, 0);
        for (pid, at, change) in changes {
            count = if pid == of { count + change } else { change };
            of = pid;
            let number = TraceEvent::new("calls under way", "queue", "C", self.micros(at), pid, 0);
            trace.push(number.with("calls", count.max(0)));
        }
    }
}
