//! Events in the format of trace viewers: the JSON that `chrome://tracing` and Perfetto read. Each process has a track,
//! with the calls that it ran and made, the waits of its threads, and two arrows for each call: from its caller to the
//! process that ran it, and from there to the wait for its result.
//!
//! In that format, two slices of one row are either disjoint or nested, and each end of an arrow lies in a slice. So
//! slices that overlap get rows of their own, and making a call is a short slice, too.

use std::collections::{BTreeMap, HashMap};

use mobula_client::internal::recorder::{Event, Kind, WaitFor};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::snapshot::{Process, Snapshot};
use super::tasks::{Call, CallId, TaskPhase};

/// Threads of a track.
const CALLS: u32 = 1;
const WAITS: u32 = 2;
const MARKS: u32 = 3;
const MADE: u32 = 4;
/// The distance between the row numbers of a thread and of its overlapping slices.
const NEXT_ROW: u32 = 10;
/// The length of the slice of making a call, in microseconds, if the next one leaves as much time.
const MADE_MICROS: f64 = 1.0;

/// An event of the trace format. Times are in microseconds.
///
/// In a program that was started with `MOBULA_EVENTS=all`:
/// ```
/// # #[mobula::remote]
/// # fn square(x: i64) -> i64 { x * x }
/// # // SAFETY: no other thread reads the environment yet.
/// # unsafe { std::env::set_var("MOBULA_EVENTS", "all") };
/// let _mobula = mobula::init()?;
/// assert_eq!(square::remote(3).get()?, 9);
/// let timeline = mobula::state::look()?.timeline();
/// let made = timeline.iter().find(|event| event.cat == "made").expect("a call was made");
/// assert!(made.name.ends_with("square"));
/// assert_eq!((made.ph, made.pid), ("X", std::process::id()));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TraceEvent {
    /// Its name, such as the function of a call, or the reason of a wait.
    pub name: String,
    /// Its category: `task` (a call that runs), `made` (one that is made), `wait`, `memory`, `mark`, `queue`,
    /// `process`.
    pub cat: &'static str,
    /// Its kind: `X` with a length, `i` a moment, `s` and `f` the ends of an arrow, `C` a number, `M` a name.
    pub ph: &'static str,
    /// When it began.
    pub ts: f64,
    /// The length of an `X`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dur: Option<f64>,
    /// The process.
    pub pid: u32,
    /// The row in its track.
    pub tid: u32,
    /// The number that both ends of an arrow share. Perfetto leaves out arrows whose id is another text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// An arrow ends at the event that encloses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bp: Option<&'static str>,
    /// The scope of a moment: its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s: Option<&'static str>,
    /// Its arguments.
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
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let timeline = mobula::state::look()?.timeline();
    /// let mut names = timeline.iter().filter(|event| event.name == "process_name");
    /// assert!(names.any(|event| event.pid == std::process::id()));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn timeline(&self) -> Vec<TraceEvent> {
        let mut trace = Vec::new();
        for process in self.processes.iter().filter(|process| !process.is_head()) {
            self.trace_process(process, &mut trace);
        }
        let calls = self.calls();
        self.trace_calls(&calls, &mut trace);
        rows_apart(&mut trace);
        self.trace_arrows(&calls, &mut trace);
        trace.sort_by(|one, other| one.ts.total_cmp(&other.ts));
        trace
    }

    /// The [timeline](Self::timeline) of this snapshot as one JSON text.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let look = mobula::state::look()?;
    /// let json = look.timeline_json(&look.timeline());
    /// # let directory = tempfile::tempdir().expect("a directory");
    /// # let directory = directory.path();
    /// std::fs::write(directory.join("timeline.json"), &json).expect("the disk has room");
    /// assert!(json.contains(r#""displayTimeUnit":"ms""#));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn timeline_json(&self, timeline: &[TraceEvent]) -> String {
        let other = json!({ "overwritten_events": self.lost_events() });
        json!({ "traceEvents": timeline, "displayTimeUnit": "ms", "otherData": other }).to_string()
    }

    /// The time of this snapshot, in seconds on the clock of the [timeline](Self::timeline).
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let look = mobula::state::look()?;
    /// let timeline = look.timeline();
    /// let lately: Vec<_> = timeline.iter().filter(|event| event.ts / 1e6 > look.now_s() - 10.0).collect();
    /// assert!(lately.len() <= timeline.len());
    /// # assert!(mobula::state::look()?.now_s() >= look.now_s());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn now_s(&self) -> f64 {
        self.now as f64 / 1e9
    }

    fn micros(&self, nanos: u64) -> f64 {
        nanos as f64 / 1e3
    }

    fn trace_process(&self, process: &Process, trace: &mut Vec<TraceEvent>) {
        let pid = process.pid;
        let dead = if process.dead { " (ended)" } else { "" };
        let label = format!("{}{dead}", process.label_and_pid());
        trace.push(TraceEvent::new("process_name", "process", "M", 0.0, pid, 0).with("name", label));
        for (tid, name) in THREADS {
            trace.push(TraceEvent::new("thread_name", "process", "M", 0.0, pid, tid).with("name", name));
        }
        for event in &process.other.events {
            trace.extend(self.trace_event(process, event));
        }
        self.trace_memory(process, trace);
        for wait in process.waits.iter().filter(|_| !process.dead) {
            let awaited = self.awaited(pid, wait.what, wait.values);
            trace.push(self.span(format!("wait for {awaited}"), "wait", pid, WAITS, wait.since, self.now));
        }
    }

    /// The memory of the store that a process has leased, and the bytes of its objects that are on disk. An object on
    /// disk that is freed is no event, so the bytes on disk are exact only in the last number, which the store says.
    fn trace_memory(&self, process: &Process, trace: &mut Vec<TraceEvent>) {
        let mut number = |at: u64, leased: u64, spilled: u64| {
            let number = TraceEvent::new("store", "memory", "C", self.micros(at), process.pid, 0);
            trace.push(number.with("leased_bytes", leased).with("spilled_bytes", spilled));
        };
        let (mut spilled, mut is_any) = (0_u64, false);
        for event in &process.other.events {
            let [_, _, three, four, ..] = event.values;
            let leased = match event.kind {
                Kind::Leased => three,
                Kind::Spilled => {
                    spilled = spilled.saturating_add(three);
                    four
                }
                Kind::Restored => {
                    spilled = spilled.saturating_sub(three);
                    four
                }
                _ => continue,
            };
            is_any = true;
            number(self.nanos(event.tick), leased, spilled);
        }
        let now = self.stats.clients.iter().find(|info| info.owner == process.owner && !process.dead);
        if let Some(info) = now.filter(|_| is_any) {
            number(self.now, info.leased_bytes, info.spilled_bytes);
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
                let wait = self.span(format!("wait for {awaited}"), "wait", pid, WAITS, one, at);
                let is_for_call = matches!(
                    WaitFor::from_bits(event.detail),
                    WaitFor::Call | WaitFor::Actor | WaitFor::Worker
                );
                if is_for_call { wait.with("for", awaited) } else { wait }
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

    /// The calls that were made and that ran, and the number of calls under way in each process.
    fn trace_calls(&self, calls: &HashMap<CallId, Call>, trace: &mut Vec<TraceEvent>) {
        let mut changes: Vec<(u32, u64, i64)> = Vec::new();
        let mut made: BTreeMap<u32, Vec<(u64, CallId)>> = BTreeMap::new();
        for ((caller, number), call) in calls {
            let (phase, caller_pid) = (call.phase(), self.pid_of(*caller));
            if let (Some(started), true) = (call.started, call.at != 0) {
                let (pid, ended) = (self.pid_of(call.at), call.ended.unwrap_or(self.now).max(started));
                let mut run =
                    TraceEvent::new(call.name.as_str(), "task", "X", self.micros(started), pid, CALLS);
                run.dur = Some(self.micros(ended - started));
                let id = format!("{caller_pid}.{number}");
                trace.push(run.with("task", id).with("state", phase.to_string()));
            }
            if let Some(created) = call.created {
                made.entry(caller_pid).or_default().push((created, (*caller, *number)));
                changes.push((caller_pid, created, 1));
                let is_over = matches!(phase, TaskPhase::Finished | TaskPhase::Failed);
                if let Some(ended) = call.ended.filter(|_| is_over) {
                    changes.push((caller_pid, ended.max(created), -1));
                }
            }
        }
        for (pid, mut made) in made {
            made.sort_unstable();
            for (at, (created, id)) in made.iter().enumerate() {
                let next = made.get(at + 1).map_or(f64::INFINITY, |(next, _)| self.micros(next - created));
                let name = format!("make {}", calls[id].name);
                let mut event = TraceEvent::new(name, "made", "X", self.micros(*created), pid, MADE);
                event.dur = Some(next.min(MADE_MICROS));
                trace.push(event.with("call", format!("{pid}.{}", id.1)));
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

    /// The arrows between slices that are both in the timeline.
    fn trace_arrows(&self, calls: &HashMap<CallId, Call>, trace: &mut Vec<TraceEvent>) {
        let text = |event: &TraceEvent, name: &str| Some(event.args.get(name)?.as_str()?.to_owned());
        let mut runs: HashMap<String, (u32, u32, f64, f64)> = HashMap::new();
        for run in trace.iter().filter(|event| event.cat == "task" && event.ph == "X") {
            if let Some(id) = text(run, "task") {
                runs.insert(id, (run.pid, run.tid, run.ts, run.dur.unwrap_or(0.0)));
            }
        }
        let mut arrows: Vec<TraceEvent> = Vec::new();
        let mut arrow = |name: &'static str, from: (u32, u32, f64), to: (u32, u32, f64)| {
            let id = Some(arrows.len() as u64 / 2 + 1);
            let mut begin = TraceEvent::new(name, "task", "s", from.2, from.0, from.1);
            let mut end = TraceEvent::new(name, "task", "f", to.2.max(from.2), to.0, to.1);
            end.bp = Some("e");
            (begin.id, end.id) = (id, id);
            arrows.extend([begin, end]);
        };
        for ((caller, number), call) in calls {
            let pid = self.pid_of(*caller);
            let id = format!("{pid}.{number}");
            if let (Some(created), Some((ran_in, tid, began, _))) = (call.created, runs.get(&id)) {
                arrow("call", (pid, MADE, self.micros(created)), (*ran_in, *tid, *began));
            }
        }
        for wait in trace.iter().filter(|event| event.cat == "wait") {
            let Some(id) = text(wait, "for") else { continue };
            let Some((ran_in, tid, began, took)) = runs.get(&id) else { continue };
            // A little before the ends, so that the arrows end within the slices.
            let (ended, woke) = (began + took - (took / 2.0).min(1.0), wait.ts + wait.dur.unwrap_or(0.0));
            if woke < began + took {
                // The thread woke for another reason.
                continue;
            }
            let woke = (woke - 1.0).max(ended).max(wait.ts);
            arrow("result", (*ran_in, *tid, ended), (wait.pid, wait.tid, woke));
        }
        trace.extend(arrows);
    }
}

/// The rows of a process.
const THREADS: [(u32, &str); 4] =
    [(CALLS, "calls"), (WAITS, "waits"), (MARKS, "marks and memory"), (MADE, "calls made")];

/// Moves slices that overlap others without lying within them to rows of their own.
fn rows_apart(trace: &mut Vec<TraceEvent>) {
    /// The precision of times.
    const EXACT: f64 = 1e-3;
    let mut parts: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
    for (at, event) in trace.iter().enumerate().filter(|(_, event)| event.ph == "X") {
        parts.entry((event.pid, event.tid)).or_default().push(at);
    }
    let end = |event: &TraceEvent| event.ts + event.dur.unwrap_or(0.0);
    for ((pid, tid), mut parts) in parts {
        // Outer slices come before inner ones.
        parts.sort_by(|one, other| {
            let (one, other) = (&trace[*one], &trace[*other]);
            one.ts.total_cmp(&other.ts).then_with(|| end(other).total_cmp(&end(one)))
        });
        // For each row, the ends of the open slices, the innermost last.
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for at in parts {
            let (begins, ends) = (trace[at].ts, end(&trace[at]));
            let has_room = |open: &mut Vec<f64>| {
                while open.last().is_some_and(|end| *end <= begins + EXACT) {
                    open.pop();
                }
                open.last().is_none_or(|end| ends <= end + EXACT)
            };
            let row = rows.iter_mut().position(has_room).unwrap_or(rows.len());
            if row == rows.len() {
                rows.push(Vec::new());
            }
            rows[row].push(ends);
            trace[at].tid = tid + row as u32 * NEXT_ROW;
        }
        let name = THREADS.iter().find(|(thread, _)| *thread == tid).map_or("", |(_, name)| *name);
        for row in 1..rows.len() {
            let tid = tid + row as u32 * NEXT_ROW;
            let name = format!("{name} ({})", row + 1);
            trace.push(TraceEvent::new("thread_name", "process", "M", 0.0, pid, tid).with("name", name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(begins: f64, took: f64) -> TraceEvent {
        let mut part = TraceEvent::new("part", "task", "X", begins, 1, CALLS);
        part.dur = Some(took);
        part
    }

    #[test]
    fn parts_that_overlap_get_rows_of_their_own() {
        let times = [(0.0, 10.0), (2.0, 3.0), (2.0, 1.0), (8.0, 4.0), (9.0, 4.0), (10.0, 1.0), (20.0, 1.0)];
        let mut trace: Vec<TraceEvent> = times.iter().map(|(begins, took)| part(*begins, *took)).collect();
        rows_apart(&mut trace);
        let tids: Vec<u32> = trace.iter().filter(|event| event.ph == "X").map(|event| event.tid).collect();
        assert_eq!(tids, [1, 1, 1, 11, 21, 1, 1]);
        let names: Vec<&Value> =
            trace.iter().filter(|event| event.ph == "M").map(|event| &event.args["name"]).collect();
        assert_eq!(names, ["calls (2)", "calls (3)"]);
    }
}
