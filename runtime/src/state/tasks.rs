//! The recent calls, and the outcome of each.

use std::collections::{HashMap, HashSet};
use std::fmt;

use mobula_client::OwnerId;
use mobula_client::internal::recorder::{Cause, Event, Kind, Run, WaitFor};
use serde::Serialize;

use super::snapshot::{Process, Snapshot};
use crate::call::task_id::TaskId;

/// The state of a call.
///
/// ```
/// use mobula::state::TaskPhase;
///
/// let _mobula = mobula::init()?;
/// let is_over = |phase| matches!(phase, TaskPhase::Finished | TaskPhase::Failed);
/// for task in mobula::state::tasks()?.iter().filter(|task| !is_over(task.state)) {
///     println!("{} is {}", task.task, task.state);
/// }
/// assert_eq!(TaskPhase::PendingArguments.to_string(), "pending_arguments");
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TaskPhase {
    /// It waits for an argument.
    PendingArguments,
    /// It has not begun: it waits for a worker, or for calls before it.
    Pending,
    /// It runs.
    Running,
    /// It has succeeded.
    Finished,
    /// It has failed.
    Failed,
}

impl fmt::Display for TaskPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PendingArguments => "pending_arguments",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
        })
    }
}

/// A call of a function or a method. Times are seconds since 1970.
///
/// In a program that was started with `MOBULA_EVENTS=all`:
/// ```
/// # #[mobula::remote]
/// # fn square(x: i64) -> i64 { x * x }
/// # // SAFETY: no other thread reads the environment yet.
/// # unsafe { std::env::set_var("MOBULA_EVENTS", "all") };
/// let _mobula = mobula::init()?;
/// assert_eq!(square::remote(3).get()?, 9);
/// let tasks = mobula::state::tasks()?;
/// let task = tasks.iter().find(|task| task.function.ends_with("square")).expect("it was called");
/// println!("{} is {} and ran {:?} s in {:?}", task.task, task.state, task.ran_s, task.worker_pid);
/// assert_eq!((task.caller_pid, task.cause), (std::process::id(), None));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct TaskState {
    /// The pid of the process that made it, and its number there, as in `4711.12`.
    pub task: String,
    /// The id that references to its results have: [`TaskId`](crate::TaskId).
    pub id: String,
    /// The actor whose method it is, as far as its caller has recorded that.
    pub actor: Option<u64>,
    /// The function, or the class and the method.
    pub function: String,
    /// Its state.
    pub state: TaskPhase,
    /// The process that made it.
    pub caller_pid: u32,
    /// The process that runs it, or has run it.
    pub worker_pid: Option<u32>,
    /// The call of its caller that made it, as its number among those that ran there; 0: none is known.
    pub parent: u64,
    /// When it was made.
    pub created: Option<f64>,
    /// When it began to run.
    pub started: Option<f64>,
    /// When it ended.
    pub ended: Option<f64>,
    /// How long it ran, or has run so far, in seconds.
    pub ran_s: Option<f64>,
    /// The argument that it waits for, if it does: a task, or an object's id.
    pub waits_for: Option<String>,
    /// Why it failed.
    pub cause: Option<&'static str>,
    /// The sizes of its arguments, if the event of making it is recorded.
    pub arguments: Option<ArgumentSizes>,
}

/// The sizes of a call's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ArgumentSizes {
    /// Bytes of values in the call itself.
    pub inline_bytes: u64,
    /// Objects of the store that they name.
    pub objects: u64,
    /// Objects that are results of other calls.
    pub results: u64,
}

impl ArgumentSizes {
    /// The sizes as events contain them.
    fn from_bits(bits: u64) -> Self {
        Self { inline_bytes: bits & u64::from(u32::MAX), objects: bits >> 32 & 0xffff, results: bits >> 48 }
    }
}

/// A call in the making: times in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) parent: u64,
    pub(super) created: Option<u64>,
    pub(super) blocked: Option<(WaitFor, [u64; 2])>,
    /// The actor whose method it is.
    pub(super) actor: u64,
    /// The process that it was sent to, or ran in.
    pub(super) at: u64,
    pub(super) started: Option<u64>,
    pub(super) ended: Option<u64>,
    pub(super) is_running: bool,
    pub(super) has_ended: bool,
    pub(super) has_failed: bool,
    pub(super) cause: Option<Cause>,
    pub(super) arguments: Option<ArgumentSizes>,
}

impl Call {
    pub(super) fn phase(&self) -> TaskPhase {
        match self {
            Self { cause: Some(_), .. } => TaskPhase::Failed,
            Self { is_running: true, .. } => TaskPhase::Running,
            Self { has_failed: true, .. } => TaskPhase::Failed,
            Self { has_ended: true, .. } => TaskPhase::Finished,
            Self { blocked: Some(_), .. } => TaskPhase::PendingArguments,
            _ => TaskPhase::Pending,
        }
    }
}

/// A call: the process that made it, and its number there.
pub(super) type CallId = (u64, u64);

impl Process {
    /// The calls that run here, or ran when the process died, the oldest first: several only in an actor that runs
    /// calls beside others, by the events of their beginning that are still there.
    pub(super) fn running(&self) -> Vec<Run> {
        let mut beside = HashMap::new();
        for event in &self.other.events {
            let [task, caller, ..] = event.values;
            match event.kind {
                Kind::Began => {
                    let run = Run { since: event.tick, task, caller, name: event.name };
                    beside.insert((caller, task), run);
                }
                Kind::Ran => _ = beside.remove(&(caller, task)),
                _ => {}
            }
        }
        let mut running: Vec<Run> = self.run.into_iter().chain(beside.into_values()).collect();
        running.sort_by_key(|run| run.since);
        running
    }
}

impl Snapshot {
    /// The calls that were made or run lately, the latest first.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// use mobula::state::TaskPhase;
    ///
    /// let tasks = mobula::state::look()?.tasks();
    /// let failed = tasks.iter().filter(|task| task.state == TaskPhase::Failed);
    /// assert_eq!(failed.count(), 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn tasks(&self) -> Vec<TaskState> {
        let calls = self.calls();
        let mut tasks: Vec<(u64, TaskState)> = calls
            .iter()
            .map(|(id, call)| (call.created.or(call.started).unwrap_or(0), self.task(*id, call)))
            .collect();
        tasks.sort_by(|(one, left), (other, right)| other.cmp(one).then_with(|| left.task.cmp(&right.task)));
        tasks.into_iter().map(|(_, task)| task).collect()
    }

    /// A call for people.
    pub(super) fn task(&self, (caller, number): CallId, call: &Call) -> TaskState {
        let caller_pid = self.pid_of(caller);
        let until = call.ended.unwrap_or(self.now);
        let waits_for = call.blocked.filter(|_| call.phase() == TaskPhase::PendingArguments);
        TaskState {
            task: format!("{caller_pid}.{number}"),
            id: TaskId::new(OwnerId::from_bits(caller), number).to_string(),
            actor: Some(call.actor).filter(|actor| *actor != 0),
            function: call.name.clone(),
            state: call.phase(),
            caller_pid,
            worker_pid: (call.at != 0).then(|| self.pid_of(call.at)),
            parent: call.parent,
            created: call.created.map(|at| self.seconds(at)),
            started: call.started.map(|at| self.seconds(at)),
            ended: call.ended.map(|at| self.seconds(at)),
            ran_s: call.started.map(|at| until.saturating_sub(at) as f64 / 1e9),
            waits_for: waits_for.map(|(what, values)| self.awaited(caller_pid, what, values)),
            cause: call.cause.map(cause_text).or_else(|| call.has_failed.then_some("function")),
            arguments: call.arguments,
        }
    }

    /// The reason of a wait, in words.
    pub(super) fn awaited(&self, pid: u32, what: WaitFor, values: [u64; 2]) -> String {
        match what {
            WaitFor::Call | WaitFor::Actor | WaitFor::Worker => format!("{pid}.{}", values[0]),
            WaitFor::Object | WaitFor::Restore => object_id(values).to_string(),
            WaitFor::Memory => format!("{} bytes of memory", values[0]),
            WaitFor::Head => "the head".to_owned(),
            WaitFor::Reader => format!("process {}, which reads its stream", self.pid_of(values[0])),
            WaitFor::Unknown => "one of several results".to_owned(),
        }
    }

    /// The calls, as the recorders show them.
    pub(super) fn calls(&self) -> HashMap<CallId, Call> {
        let mut calls: HashMap<CallId, Call> = HashMap::new();
        for process in &self.processes {
            for event in &process.made.events {
                self.add_made(&mut calls, process, event);
            }
        }
        for process in &self.processes {
            let events = process.ran.events.iter().chain(&process.other.events);
            for event in events {
                match event.kind {
                    Kind::Began if !process.dead => self.add_began(&mut calls, process, event),
                    Kind::Ran => self.add_ran(&mut calls, process, event),
                    Kind::Failed => {
                        let call = calls.entry((process.owner.bits(), event.values[0])).or_default();
                        call.cause = Some(Cause::from_bits(event.detail));
                        call.ended = Some(self.nanos(event.tick));
                        name_it(call, process.name(event.name));
                    }
                    _ => {}
                }
            }
            for wait in process.waits.iter().filter(|_| !process.dead) {
                // The wait of a thread names a call and its process even if no event of that call is recorded.
                let [number, at] = wait.values;
                let is_known = match wait.what {
                    WaitFor::Call | WaitFor::Actor => number != 0 && at != 0,
                    WaitFor::Worker => number != 0,
                    _ => false,
                };
                if is_known {
                    let call = calls.entry((process.owner.bits(), number)).or_default();
                    let place = if wait.what == WaitFor::Actor { &mut call.actor } else { &mut call.at };
                    if *place == 0 {
                        *place = at;
                    }
                    name_it(call, "?");
                }
            }
            if let Some(run) = process.run
                && !process.dead
            {
                let call = calls.entry((run.caller, run.task)).or_default();
                (call.is_running, call.at) = (true, process.owner.bits());
                (call.started, call.ended) = (Some(self.nanos(run.since)), None);
                name_it(call, process.name(run.name));
            }
        }
        self.end_calls_of_dead_actors(&mut calls);
        calls
    }

    /// The event of a call's failure may be overwritten while that of its making is there. No call of an actor that has
    /// ended waits.
    fn end_calls_of_dead_actors(&self, calls: &mut HashMap<CallId, Call>) {
        let actors = self.head.iter().flat_map(|head| &head.actors);
        let dead: HashSet<u64> =
            actors.filter(|actor| actor.stage == "dead").map(|actor| actor.actor).collect();
        for call in calls.values_mut().filter(|call| dead.contains(&call.actor)) {
            if matches!(call.phase(), TaskPhase::Pending | TaskPhase::PendingArguments) {
                call.cause = Some(Cause::Died);
            }
        }
    }

    fn add_made(&self, calls: &mut HashMap<CallId, Call>, process: &Process, event: &Event) {
        let [number, second, third, fourth, fifth, sixth] = event.values;
        let call = calls.entry((process.owner.bits(), number)).or_default();
        match event.kind {
            Kind::Made | Kind::Sent | Kind::Blocked => {
                call.parent = second;
                call.created.get_or_insert(self.nanos(event.tick));
                call.blocked = None;
                call.arguments = Some(ArgumentSizes::from_bits(sixth));
                match event.kind {
                    Kind::Sent => (call.at, call.actor) = (third, fourth),
                    Kind::Made => call.actor = third,
                    _ => call.blocked = Some((WaitFor::from_bits(event.detail), [third, fourth])),
                }
                if event.kind == Kind::Blocked {
                    call.actor = fifth;
                }
            }
            Kind::Ended => {
                (call.has_ended, call.at) = (true, second);
                call.ended.get_or_insert(self.nanos(event.tick));
            }
            _ => return,
        }
        name_it(call, process.name(event.name));
    }

    fn add_began(&self, calls: &mut HashMap<CallId, Call>, process: &Process, event: &Event) {
        let [number, caller, ..] = event.values;
        let call = calls.entry((caller, number)).or_default();
        let started = self.nanos(event.tick);
        if call.started.is_none_or(|before| before < started) {
            (call.is_running, call.at) = (true, process.owner.bits());
            (call.started, call.ended) = (Some(started), None);
        }
        name_it(call, process.name(event.name));
    }

    fn add_ran(&self, calls: &mut HashMap<CallId, Call>, process: &Process, event: &Event) {
        let [number, caller, since, ..] = event.values;
        let call = calls.entry((caller, number)).or_default();
        let ended = self.nanos(event.tick);
        // A call that was retried has run more than once.
        if call.started.is_some_and(|before| call.ended.unwrap_or(before) > ended) {
            return;
        }
        call.is_running = false;
        (call.started, call.ended) = (Some(self.nanos(since)), Some(ended));
        (call.has_ended, call.has_failed, call.at) = (true, event.detail != 0, process.owner.bits());
        name_it(call, process.name(event.name));
    }
}

/// The caller's name of a call comes first; a worker may know none.
fn name_it(call: &mut Call, name: &str) {
    if call.name.is_empty() || call.name == "?" {
        name.clone_into(&mut call.name);
    }
}

/// The id of an object in the values of an event.
pub(super) fn object_id([low, high]: [u64; 2]) -> mobula_client::ObjectId {
    let id = u128::from(low) | u128::from(high) << 64;
    mobula_client::ObjectId::from_bytes(id.to_le_bytes())
}

pub(super) fn cause_text(cause: Cause) -> &'static str {
    match cause {
        Cause::Function => "function",
        Cause::Died => "process_died",
        Cause::Cancelled => "cancelled",
        Cause::TimedOut => "timed_out",
        Cause::OutOfMemory => "out_of_memory",
        Cause::Other => "other",
    }
}
