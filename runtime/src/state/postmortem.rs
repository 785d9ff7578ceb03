//! The last events of a process that has ended.

use mobula_client::internal::ByteSize;
use mobula_client::internal::recorder::{Cause, Event, Kind};
use serde::Serialize;

use super::snapshot::{Process, Snapshot};
use super::tasks::{cause_text, object_id};
use super::why::NoSuchTarget;
use crate::wire::ActorProcess;
use crate::words::seconds;

/// Events that are shown.
const LAST: usize = 20;

/// The record of a process that has ended. Times are seconds since 1970.
///
/// In a program that was started with `MOBULA_EVENTS=all`:
/// ```
/// # struct Counter(u64);
/// # #[mobula::remote]
/// # impl Counter {
/// #     fn new() -> Self { Counter(0) }
/// #     fn process(&self) -> u32 { std::process::id() }
/// # }
/// # // SAFETY: no other thread reads the environment yet.
/// # unsafe { std::env::set_var("MOBULA_EVENTS", "all") };
/// let _mobula = mobula::init()?;
/// let counter = Counter::remote();
/// let pid = counter.process().get()?;
/// mobula::kill(&counter)?;
/// // The head notices the death soon.
/// let found = (0..6000).find_map(|_| {
///     std::thread::sleep(std::time::Duration::from_millis(10));
///     mobula::state::look().ok()?.postmortem(&pid.to_string()).ok()
/// });
/// let found = found.expect("a minute is enough");
/// println!("process {pid} ended: {:?}; it ran {:?}", found.reason, found.function);
/// assert_eq!(found.pid, pid);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Postmortem {
    /// Its pid.
    pub pid: u32,
    /// Its kind.
    pub label: String,
    /// The actor that it was.
    pub actor: Option<FormerActor>,
    /// How it ended, if the head saw it: such as `signal 9`, `killed on request`, `exit 1`, `out of memory`.
    pub reason: Option<String>,
    /// The most memory that it had at a time, in bytes, as the kernel counts it (resident pages, with those of the
    /// store); `None` if it is not known.
    pub peak_memory_bytes: Option<u64>,
    /// Whether it had exactly this much. Otherwise it had at most this much: a process begins with the number of the
    /// driver, so the kernel does not know how much less it was.
    pub is_peak_exact: bool,
    /// When it ended.
    pub ended: Option<f64>,
    /// The function that ran.
    pub function: Option<String>,
    /// The call that ran.
    pub task: Option<String>,
    /// The waits of its threads.
    pub waits: Vec<String>,
    /// The calls that failed because it died.
    pub lost_tasks: Vec<String>,
    /// Its last events, the last of them last.
    pub events: Vec<LastEvent>,
}

/// The actor that a process was.
///
/// ```
/// let _mobula = mobula::init()?;
/// for process in mobula::state::look()?.postmortems() {
///     if let Some(actor) = &process.actor {
///         println!("process {} was actor {} of class {}", process.pid, actor.actor, actor.class);
///     }
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FormerActor {
    /// Its number.
    pub actor: u64,
    /// Its class.
    pub class: String,
    /// The name that it had.
    pub name: Option<String>,
    /// Why the actor ended with this process; `None` if it was restarted.
    pub death: Option<String>,
    /// All processes that it had and that have ended, the last one last.
    pub pids: Vec<u32>,
}

/// One of the last events of a process.
///
/// ```
/// let _mobula = mobula::init()?;
/// for process in mobula::state::look()?.postmortems() {
///     for event in &process.events {
///         println!("{:.3} {}", event.at, event.text);
///     }
///     assert!(process.events.is_sorted_by(|one, next| one.at <= next.at));
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LastEvent {
    /// When it was recorded, in seconds since 1970.
    pub at: f64,
    /// A description in words.
    pub text: String,
}

impl Snapshot {
    /// The records of the processes that have ended, the last one first.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let ended = mobula::state::look()?.postmortems();
    /// let out_of_memory = ended.iter().filter(|process| process.reason.as_deref() == Some("out of memory"));
    /// assert_eq!(out_of_memory.count(), 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn postmortems(&self) -> Vec<Postmortem> {
        let is_one = |process: &&Process| process.dead && !process.is_head();
        let mut all: Vec<Postmortem> =
            self.processes.iter().filter(is_one).map(|process| self.postmortem_of(process)).collect();
        all.sort_by(|one, other| {
            let at = |found: &Postmortem| {
                found.ended.or_else(|| found.events.last().map(|event| event.at)).unwrap_or(0.0)
            };
            at(other).total_cmp(&at(one))
        });
        all
    }

    /// The record of a process that has ended: by its pid, or by the name or number of its actor. Of an actor that was
    /// restarted, this is the process that ended last; its [pids](FormerActor::pids) name those before.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let own = std::process::id().to_string();
    /// let error = mobula::state::look()?.postmortem(&own).unwrap_err(); // it runs
    /// assert_eq!(error.target, own);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// It runs, or nothing is known of it any more.
    pub fn postmortem(&self, target: &str) -> Result<Postmortem, NoSuchTarget> {
        let unknown = || NoSuchTarget { target: target.to_owned() };
        let mut all = self.postmortems();
        if let Ok(pid) = target.parse::<u32>() {
            return all.into_iter().find(|found| found.pid == pid).ok_or_else(unknown);
        }
        let pids = self.former_pids(target);
        let is_kept = |pid: &&u32| all.iter().any(|found| found.pid == **pid);
        let pid = *pids.iter().rev().find(is_kept).ok_or_else(unknown)?;
        all.retain(|found| found.pid == pid);
        all.into_iter().next().ok_or_else(unknown)
    }

    /// The processes that an actor had, the last one last: by its number, or the last actor that had this name.
    pub(super) fn former_pids(&self, target: &str) -> Vec<u32> {
        let Some(head) = &self.head else { return Vec::new() };
        let number = target.strip_prefix("actor:").and_then(|number| number.parse::<u64>().ok());
        let of_name = || {
            let is_its = |process: &&ActorProcess| process.name.as_deref() == Some(target);
            head.actor_processes.iter().rev().find(is_its).map(|process| process.actor)
        };
        let Some(actor) = number.or_else(of_name) else { return Vec::new() };
        head.actor_processes
            .iter()
            .filter(|process| process.actor == actor)
            .map(|process| process.pid)
            .collect()
    }

    pub(super) fn former_actor(&self, pid: u32) -> Option<FormerActor> {
        let all = &self.head.as_ref()?.actor_processes;
        let ActorProcess { actor, class, name, failure, .. } =
            all.iter().rev().find(|process| process.pid == pid)?;
        let its = all.iter().filter(|process| process.actor == *actor);
        let pids = its.map(|process| process.pid).collect();
        let (actor, class, name, death) = (*actor, class.clone(), name.clone(), failure.clone());
        Some(FormerActor { actor, class, name, death, pids })
    }

    fn postmortem_of(&self, process: &Process) -> Postmortem {
        let head = self.processes.iter().filter(|other| other.is_head());
        let ended = head.flat_map(|head| &head.other.events).rev().find(|event| {
            event.kind == Kind::Process && event.values[0] == process.owner.bits() && event.values[2] != 0
        });
        let peak = ended.map(|event| (event.values[4], event.values[5])).filter(|(bytes, _)| *bytes > 0);
        let calls = self.calls();
        let failed = self.processes.iter().flat_map(|caller| {
            let died = |event: &&Event| {
                event.kind == Kind::Failed
                    && matches!(Cause::from_bits(event.detail), Cause::Died | Cause::OutOfMemory)
                    && event.values[1] == u64::from(process.pid)
            };
            caller.other.events.iter().filter(died).map(move |event| (caller.owner.bits(), event.values[0]))
        });
        let lost_tasks = failed.map(|id| {
            let name = calls.get(&id).map_or("?", |call| call.name.as_str());
            format!("{}.{} {name}", self.pid_of(id.0), id.1)
        });
        let buffers = [&process.made, &process.ran, &process.other];
        let mut events: Vec<&Event> = buffers.into_iter().flat_map(|seen| &seen.events).collect();
        events.sort_by_key(|event| event.tick);
        let last = events.iter().skip(events.len().saturating_sub(LAST));
        let runs = process.running();
        let run = runs.first();
        Postmortem {
            pid: process.pid,
            label: process.label.clone(),
            actor: self.former_actor(process.pid),
            peak_memory_bytes: peak.map(|(bytes, _)| bytes),
            is_peak_exact: peak.is_some_and(|(bytes, first_bytes)| bytes > first_bytes),
            reason: ended.map(reason),
            ended: ended.map(|event| self.seconds(self.nanos(event.tick))),
            function: run.map(|run| process.name(run.name).to_owned()),
            task: run.map(|run| format!("{}.{}", self.pid_of(run.caller), run.task)),
            waits: process
                .waits
                .iter()
                .map(|wait| self.awaited(process.pid, wait.what, wait.values))
                .collect(),
            lost_tasks: lost_tasks.collect(),
            events: last
                .map(|event| LastEvent {
                    at: self.seconds(self.nanos(event.tick)),
                    text: self.event_text(process, event),
                })
                .collect(),
        }
    }

    /// An event in words.
    fn event_text(&self, process: &Process, event: &Event) -> String {
        let (name, [one, two, three, ..]) = (process.name(event.name), event.values);
        let took = |since: u64| {
            let nanos = self.nanos(event.tick).saturating_sub(self.nanos(since));
            seconds(nanos as f64 / 1e9)
        };
        match event.kind {
            Kind::Made | Kind::Sent | Kind::Blocked => format!("made call {}.{one} of {name}", process.pid),
            Kind::Ended => format!("call {}.{one} of {name} ended", process.pid),
            Kind::Failed => {
                let cause = cause_text(Cause::from_bits(event.detail));
                format!("call {}.{one} of {name} failed: {cause}", process.pid)
            }
            Kind::Began => format!("began call {}.{one} of {name}", self.pid_of(two)),
            Kind::Ran => {
                let failed = if event.detail == 0 { "" } else { ", which failed" };
                format!("ran call {}.{one} of {name} for {}{failed}", self.pid_of(two), took(three))
            }
            Kind::Waited => format!("waited {}", took(one)),
            Kind::Leased => format!("leased {} of memory, after {}", ByteSize(one), took(two)),
            Kind::Spilled => format!("spilled object {} of {}", object_id([one, two]), ByteSize(three)),
            Kind::Restored => format!("restored object {} of {}", object_id([one, two]), ByteSize(three)),
            Kind::Promised => format!("promised the result of call {}.{three}", process.pid),
            Kind::Mark => format!("mark {name} {}", one.cast_signed()),
            Kind::Span => format!("span {name} of {}", took(one)),
            Kind::Process => format!("process {two}"),
        }
    }
}

/// How a process ended, as the head recorded it: see [`Kind::Process`].
pub(super) fn reason(event: &Event) -> String {
    let [_, _, kind, number, ..] = event.values;
    match kind {
        _ if event.detail != 0 => "killed on request".to_owned(),
        1 => format!("exit {number}"),
        2 => format!("signal {number}"),
        3 => "out of memory".to_owned(),
        _ => "unknown".to_owned(),
    }
}
