//! Unusual things in a session, which a person should look at first.

use std::collections::BTreeMap;

use mobula_client::internal::ByteSize;
use mobula_client::internal::recorder::{Kind, WaitFor};
use serde::Serialize;

use super::overview::{Overview, QueueState};
use super::postmortem::reason;
use super::snapshot::Snapshot;
use crate::wire::WantRecord;
use crate::words::{amount, count, with_sizes};

/// A call that has waited for resources for this many seconds is reported.
const WAIT_S: f64 = 2.0;
/// A thread that has waited for something else, or a call that has run, for this many seconds is reported.
const LONG_S: f64 = 30.0;
/// A thread that has waited for memory for this many seconds is reported.
const MEMORY_S: f64 = 0.5;
/// Events are reported if they are at most this many seconds old.
const LATELY_S: f64 = 60.0;
/// This many waiting calls of an actor are reported.
const CROWD: u64 = 1_000;
/// The store is nearly full if less than this part of it is free.
const FULL: f64 = 0.05;

/// An unusual thing.
///
/// ```
/// let _mobula = mobula::init()?;
/// let unusual = mobula::state::overview()?.unusual;
/// for thing in &unusual {
///     println!("{}: {} ({})", thing.kind, thing.text, thing.command.as_deref().unwrap_or("no command says more"));
/// }
/// assert!(unusual.iter().all(|thing| thing.kind != "starved"));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Unusual {
    /// `starved`, `impossible`, `slow`, `stuck`, `memory`, `full`, `spilling`, `died`, `failing`, `crowded`, `stopped`,
    /// or `silent`.
    pub kind: &'static str,
    /// A description in words.
    pub text: String,
    /// The command that says more.
    pub command: Option<String>,
}

impl Snapshot {
    /// The unusual things, given the rest of the overview.
    pub(super) fn unusual(&self, overview: &Overview) -> Vec<Unusual> {
        let mut found = Vec::new();
        self.starved(overview, &mut found);
        self.of_store(overview, &mut found);
        self.of_processes(&mut found);
        self.lately(&mut found);
        let crowded = |queue: &&QueueState| queue.kind == "actor" && queue.calls >= CROWD;
        for queue in overview.queues.iter().filter(crowded) {
            let text = format!("{} calls wait for {}", queue.calls, queue.waits_for);
            found.push(Unusual { kind: "crowded", text, command: Some(format!("mobula why {}", queue.pid)) });
        }
        if self.head.is_none() && !overview.drivers.is_empty() {
            let text = "the driver does not answer: it may be stopped, or very busy".to_owned();
            found.push(Unusual { kind: "silent", text, command: None });
        }
        found
    }

    fn starved(&self, overview: &Overview, found: &mut Vec<Unusual>) {
        for want in self.head.iter().flat_map(|head| &head.wants) {
            let waited_s = want.waited_nanos as f64 / 1e9;
            let total = |name: &str| {
                overview.resources.iter().find(|resource| resource.name == name).map_or(0.0, |it| it.total)
            };
            let lacks = want.amounts.iter().find(|(name, amount)| *amount > total(name));
            if waited_s < WAIT_S && lacks.is_none() {
                continue;
            }
            let (calls, noun) = match want.caller {
                Some(_) => {
                    let of_caller = |other: &&WantRecord| other.caller == want.caller;
                    let wants = self.head.iter().flat_map(|head| &head.wants).filter(of_caller).count();
                    (self.queue_of(want, wants).calls, "call")
                }
                None => (want.workers.into(), "actor"),
            };
            let (calls, verb) = (count(calls, noun), if calls == 1 { "has" } else { "have" });
            let caller =
                want.caller.map_or_else(String::new, |caller| format!(" of process {}", self.pid_of(caller)));
            let demand = with_sizes(&want.demand);
            let mut text = format!("{calls}{caller} {verb} waited for {demand} for {}", span(waited_s));
            let kind = match lacks {
                Some((name, _)) => {
                    text += &format!(", and the session has {} in all", amount(name, total(name)));
                    "impossible"
                }
                None => "starved",
            };
            let command = Some("mobula list workers".to_owned());
            found.push(Unusual { kind, text, command });
        }
    }

    fn of_store(&self, overview: &Overview, found: &mut Vec<Unusual>) {
        let store = &overview.store;
        let longest = |what: WaitFor| {
            let living = self.processes.iter().filter(|process| !process.dead);
            let waits = living.flat_map(|process| &process.waits).filter(move |wait| wait.what == what);
            waits.map(|wait| self.for_s(wait.since)).fold(0.0, f64::max)
        };
        let memory_s = longest(WaitFor::Memory);
        let command = || Some("mobula memory".to_owned());
        let is_full = (store.free_bytes as f64) < store.capacity_bytes as f64 * FULL;
        if memory_s >= MEMORY_S {
            let threads = if store.waiting == 1 { "thread waits" } else { "threads wait" };
            let text = format!(
                "{} {threads} for {} of the store, for {}; {} of {} are free",
                store.waiting,
                ByteSize(store.waiting_bytes),
                span(memory_s),
                ByteSize(store.free_bytes),
                ByteSize(store.capacity_bytes)
            );
            found.push(Unusual { kind: "memory", text, command: command() });
        } else if is_full && store.capacity_bytes > 0 {
            let (free, capacity) = (ByteSize(store.free_bytes), ByteSize(store.capacity_bytes));
            let text = format!("{free} of {capacity} of the store are free");
            found.push(Unusual { kind: "full", text, command: command() });
        }
        let (spilled, spilled_bytes) = self.moved_lately(Kind::Spilled);
        let (restored, restored_bytes) = self.moved_lately(Kind::Restored);
        if spilled > 0 && restored > 0 {
            let text = format!(
                "in the last minute {} ({}) were spilled to disk, and {restored} ({}) came back: more is in use than \
                 the store has room for",
                count(spilled, "object"),
                ByteSize(spilled_bytes),
                ByteSize(restored_bytes)
            );
            found.push(Unusual { kind: "spilling", text, command: command() });
        }
    }

    /// The objects that were spilled or restored lately, and their bytes.
    fn moved_lately(&self, kind: Kind) -> (u64, u64) {
        let events = self.processes.iter().flat_map(|process| &process.other.events);
        let lately = events.filter(|event| event.kind == kind && self.for_s(event.tick) < LATELY_S);
        lately.fold((0, 0), |(count, bytes): (u64, u64), event| {
            (count + 1, bytes.saturating_add(event.values[2]))
        })
    }

    fn of_processes(&self, found: &mut Vec<Unusual>) {
        for process in self.processes.iter().filter(|process| !process.dead && !process.is_head()) {
            let command = || Some(format!("mobula why {}", process.pid));
            if process.is_stopped() {
                let text = format!("process {} ({}) is stopped by a signal", process.pid, process.label);
                found.push(Unusual { kind: "stopped", text, command: None });
            }
            let wait = process.waits.iter().min_by_key(|wait| wait.since);
            let waits = wait.filter(|wait| !matches!(wait.what, WaitFor::Memory | WaitFor::Restore));
            let wait_s = waits.map_or(0.0, |wait| self.for_s(wait.since));
            let runs = process.running();
            let run = runs.first();
            let run_s = run.map_or(0.0, |run| self.for_s(run.since));
            if let Some(wait) = waits.filter(|_| wait_s >= LONG_S && process.is_worker()) {
                let awaited = self.awaited(process.pid, wait.what, wait.values);
                let text = format!("process {} has waited for {awaited} for {}", process.pid, span(wait_s));
                found.push(Unusual { kind: "stuck", text, command: command() });
            } else if let Some(run) = run.filter(|_| run_s >= LONG_S && wait.is_none()) {
                let name = process.name(run.name);
                let text = format!("process {} has run {name} for {}", process.pid, span(run_s));
                found.push(Unusual { kind: "slow", text, command: command() });
            }
        }
    }

    /// The processes that died, and the functions that failed, in the last minute.
    fn lately(&self, found: &mut Vec<Unusual>) {
        let mut failed: BTreeMap<&str, u64> = BTreeMap::new();
        for process in &self.processes {
            for event in process.other.events.iter().filter(|event| self.for_s(event.tick) < LATELY_S) {
                match event.kind {
                    Kind::Failed => *failed.entry(process.name(event.name)).or_default() += 1,
                    // A process that is not needed any more ends with exit code 0.
                    Kind::Process if event.values[2..4] != [1, 0] => {
                        let pid = event.values[1];
                        let reason = reason(event);
                        let ago = span(self.for_s(event.tick));
                        let text = format!("process {pid} ended {ago} ago: {reason}");
                        let command = Some(format!("mobula postmortem {pid}"));
                        found.push(Unusual { kind: "died", text, command });
                    }
                    _ => {}
                }
            }
        }
        for (function, count) in failed {
            let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
            let text = format!("{function} has failed {times} in the last minute");
            let command = Some("mobula summary tasks".to_owned());
            found.push(Unusual { kind: "failing", text, command });
        }
    }
}

/// A length of time in words.
fn span(seconds: f64) -> String {
    match seconds {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        _ if seconds < 600.0 => format!("{seconds:.0} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}
