//! Why a call or an actor does not continue: the chain of waits that begins with it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use mobula_client::ObjectId;
use mobula_client::internal::ByteSize;
use mobula_client::internal::recorder::{Kind, WaitFor};
use serde::Serialize;

use super::postmortem::FormerActor;
use super::snapshot::{Process, Snapshot};
use super::tasks::{Call, CallId, TaskPhase, object_id};
use crate::words::{amount, count, with_sizes};

/// The most links of a chain.
const LINKS_MAX: usize = 64;

/// A chain of waits, and its end.
///
/// ```
/// let _mobula = mobula::init()?;
/// let why = mobula::state::look()?.why(&std::process::id().to_string()).expect("the process is known");
/// // Its threads compute, or wait for something that is not Mobula's.
/// assert_eq!((why.chain.len(), why.end), (1, "idle"));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Why {
    /// Each waits for the next one.
    pub chain: Vec<WhyLink>,
    /// The last cause: `computes`, `idle`, `worker`, `memory`, `disk`, `lock`, `deadlock`, `dead`, `over`, `actor`,
    /// `head`, `stopped`, `unknown`.
    pub end: &'static str,
    /// The end in words.
    pub text: String,
}

/// One link of a chain.
///
/// ```
/// let session = mobula::init()?;
/// let promise = session.client().promise()?;
/// let object = promise.handle().id().to_string();
/// let why = mobula::state::look()?.why(&object).expect("the object is known");
/// // The object waits for the process that promised it.
/// assert_eq!((why.chain[0].kind, &why.chain[0].id), ("object", &object));
/// assert_eq!((why.chain[1].kind, &why.chain[1].id), ("process", &std::process::id().to_string()));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WhyLink {
    /// `task`, `process`, `object` or `actor`.
    pub kind: &'static str,
    /// Its id: of a task as in `4711.12`, of a process its pid.
    pub id: String,
    /// A description in words.
    pub text: String,
    /// How long it has waited, or run, in seconds.
    pub for_s: Option<f64>,
}

/// The first part of the names of classes that answer when another process has done something.
const LOCKS: &str = "mobula::util::";

/// The end of a chain that waits for one of these. Only the actor knows the other process, by its own state.
fn lock() -> Step {
    let text = "another process must give back what it holds, or bring what is awaited here. Which process that is, is \
                not recorded: `mobula list workers` shows what the others run";
    Step::End("lock", text.to_owned())
}

/// There is no such task, process, object or actor, or it is no longer known.
///
/// ```
/// let _mobula = mobula::init()?;
/// let error = mobula::state::look()?.why("nobody").unwrap_err();
/// assert_eq!(error.target, "nobody");
/// assert!(error.to_string().ends_with("or nothing is known of it any more"));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// Programs that find targets by themselves, such as the command `mobula`, make this error too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{target:?} is no task (such as 4711.12), process (such as 4711), actor (its name, or its number behind `actor:`) \
     or object of this session, or nothing is known of it any more"
)]
pub struct NoSuchTarget {
    /// The subject of the question.
    pub target: String,
}

/// A place of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    Task(CallId),
    /// A process, by the bits of its client's id.
    Process(u64),
    Object(ObjectId),
    Actor(u64),
}

/// The next step.
enum Step {
    To(Node),
    End(&'static str, String),
}

struct Walk<'a> {
    snapshot: &'a Snapshot,
    calls: HashMap<CallId, Call>,
    chain: Vec<WhyLink>,
}

impl Snapshot {
    /// Why a task, a process, an actor or an object does not continue. A chain that comes back to itself is a deadlock.
    ///
    /// ```
    /// # struct Counter(u64);
    /// # #[mobula::remote]
    /// # impl Counter {
    /// #     fn new() -> Self { Counter(0) }
    /// #     fn process(&self) -> u32 { std::process::id() }
    /// # }
    /// let _mobula = mobula::init()?;
    /// let options = mobula::ActorOptions::new().name("visitors");
    /// let counter = Counter::options(options).remote();
    /// counter.process().get()?;
    /// let why = mobula::state::look()?.why("visitors").expect("the actor is known");
    /// for link in &why.chain {
    ///     println!("{} {}: {}", link.kind, link.id, link.text);
    /// }
    /// assert_eq!(why.chain[0].kind, "actor");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// Nothing is known of the target.
    pub fn why(&self, target: &str) -> Result<Why, NoSuchTarget> {
        let mut walk = Walk { snapshot: self, calls: self.calls(), chain: Vec::new() };
        let Some(mut node) = walk.find(target) else {
            return self.why_over(target).ok_or_else(|| NoSuchTarget { target: target.to_owned() });
        };
        let mut seen = HashSet::new();
        loop {
            if !seen.insert(node) {
                let names: Vec<&str> = walk.chain.iter().map(|link| link.id.as_str()).collect();
                let text = format!(
                    "each of these waits for the next, and the last for one before it: {}",
                    names.join(", ")
                );
                return Ok(Why { chain: walk.chain, end: "deadlock", text });
            }
            match walk.step(node) {
                Step::To(next) if walk.chain.len() < LINKS_MAX => node = next,
                Step::To(_) => {
                    return Ok(Why {
                        chain: walk.chain,
                        end: "unknown",
                        text: "the chain goes on".to_owned(),
                    });
                }
                Step::End(end, text) => return Ok(Why { chain: walk.chain, end, text }),
            }
        }
    }

    /// The answer for an actor that is over, and that the head has forgotten except for its processes.
    fn why_over(&self, target: &str) -> Option<Why> {
        let pid = *self.former_pids(target).last()?;
        let FormerActor { actor, class, name, death, .. } = self.former_actor(pid)?;
        let name = name.map_or(String::new(), |name| format!(" {name:?}"));
        let (kind, id, text) = ("actor", actor.to_string(), format!("{class}{name} is dead"));
        let death = death.unwrap_or_else(|| "the actor has ended".to_owned());
        Some(Why {
            chain: vec![WhyLink { kind, id, text, for_s: None }],
            end: "dead",
            text: format!("{death} (`mobula postmortem {pid}` says more)"),
        })
    }
}

impl Walk<'_> {
    fn find(&self, target: &str) -> Option<Node> {
        let snapshot = self.snapshot;
        if let Some((pid, number)) = target.split_once('.') {
            let (pid, number) = (pid.parse::<u32>().ok()?, number.parse().ok()?);
            let process = snapshot.process_of_pid(pid)?;
            let id = (process.owner.bits(), number);
            return self.calls.contains_key(&id).then_some(Node::Task(id));
        }
        if let Ok(pid) = target.parse() {
            return snapshot.process_of_pid(pid).map(|process| Node::Process(process.owner.bits()));
        }
        if let Ok(object) = target.parse() {
            return Some(Node::Object(object));
        }
        snapshot.actor_meant(target).map(|actor| Node::Actor(actor.actor))
    }

    fn step(&mut self, node: Node) -> Step {
        match node {
            Node::Task(id) => self.task(id),
            Node::Process(owner) => match self.snapshot.process(owner) {
                Some(process) => self.process(process),
                None => Step::End("unknown", "a process of which nothing is known".to_owned()),
            },
            Node::Object(object) => self.object(object),
            Node::Actor(actor) => self.actor(actor),
        }
    }

    fn add(&mut self, kind: &'static str, id: impl fmt::Display, text: String, since: Option<u64>) {
        let for_s = since.map(|since| self.snapshot.now.saturating_sub(since) as f64 / 1e9);
        self.chain.push(WhyLink { kind, id: id.to_string(), text, for_s });
    }

    fn task(&mut self, id: CallId) -> Step {
        let snapshot = self.snapshot;
        let name = format!("{}.{}", snapshot.pid_of(id.0), id.1);
        let Some(call) = self.calls.get(&id).cloned() else {
            self.add("task", &name, "a call of which nothing is known any more".to_owned(), None);
            return Step::End("unknown", "its events were overwritten, or it is no call".to_owned());
        };
        let phase = call.phase();
        // If a wait names a call without recorded events, the function of the call is not known.
        let called = if call.name == "?" { "a call" } else { call.name.as_str() };
        let since = match phase {
            TaskPhase::Running => call.started,
            TaskPhase::PendingArguments | TaskPhase::Pending => call.created,
            TaskPhase::Finished | TaskPhase::Failed => call.ended,
        };
        let verb = match phase {
            TaskPhase::PendingArguments => "waits for an argument",
            TaskPhase::Pending => "has not begun",
            TaskPhase::Running => "runs",
            TaskPhase::Finished => "has ended",
            TaskPhase::Failed => "has failed",
        };
        self.add("task", &name, format!("{called} {verb}"), since);
        match phase {
            TaskPhase::Running if called.starts_with(LOCKS) => lock(),
            TaskPhase::Running => Step::To(Node::Process(call.at)),
            TaskPhase::Finished | TaskPhase::Failed => {
                let task = snapshot.task(id, &call);
                let how = task.cause.map_or("well".to_owned(), |cause| format!("with a failure ({cause})"));
                Step::End("over", format!("the call has ended {how}"))
            }
            TaskPhase::PendingArguments => match call.blocked {
                Some((WaitFor::Call | WaitFor::Actor | WaitFor::Worker, [number, _])) => {
                    Step::To(Node::Task((id.0, number)))
                }
                Some((_, values)) => Step::To(Node::Object(object_id(values))),
                None => Step::End("unknown", "an argument of which nothing is known".to_owned()),
            },
            // It was sent, and the process runs something else.
            TaskPhase::Pending if call.at != 0 => Step::To(Node::Process(call.at)),
            TaskPhase::Pending if call.actor != 0 => Step::To(Node::Actor(call.actor)),
            TaskPhase::Pending => self.no_worker(id.0),
        }
    }

    /// A call for which its caller has no worker.
    fn no_worker(&self, caller: u64) -> Step {
        let Some(head) = &self.snapshot.head else {
            return Step::End("worker", "no worker is free for it; the head did not say more".to_owned());
        };
        let wanted: Vec<String> = head
            .wants
            .iter()
            .filter(|want| want.caller == Some(caller))
            .map(|want| format!("{} × {}", want.workers, with_sizes(&want.demand)))
            .collect();
        if wanted.is_empty() {
            return Step::End("worker", "the workers of its caller have calls before it".to_owned());
        }
        let free: Vec<String> = head.free().iter().map(|(name, free)| amount(name, *free)).collect();
        let holders: Vec<String> = head
            .processes
            .iter()
            .filter(|process| !process.holds.is_empty() && process.holds != "nothing")
            .map(|process| {
                let (pid, holds) = (process.pid, with_sizes(&process.holds));
                match self.running_in(process.owner) {
                    Some(function) => format!("process {pid} holds {holds} and runs {function}"),
                    None => format!("process {pid} holds {holds} ({})", process.job),
                }
            })
            .collect();
        let holders = if holders.is_empty() { "no process holds any".to_owned() } else { holders.join("; ") };
        let text = format!("its caller wants {}; free: {}; {holders}", wanted.join(", "), free.join(", "));
        Step::End("worker", text)
    }

    fn running_in(&self, owner: Option<u64>) -> Option<&str> {
        let process = self.snapshot.process(owner?)?;
        process.run.map(|run| process.name(run.name))
    }

    fn process(&mut self, process: &Process) -> Step {
        let snapshot = self.snapshot;
        if process.dead {
            self.add("process", process.pid, format!("{} has ended", process.label), None);
            return Step::End(
                "dead",
                format!("the process has ended: `mobula postmortem {}` says more", process.pid),
            );
        }
        if process.is_stopped() {
            self.add("process", process.pid, format!("{} is stopped by a signal", process.label), None);
            return Step::End("stopped", format!("`kill -CONT {}` lets the process continue", process.pid));
        }
        // Memory and disks first: they hold up whatever else the process does.
        let order = |what: WaitFor| match what {
            WaitFor::Memory | WaitFor::Restore => 0,
            WaitFor::Call | WaitFor::Actor | WaitFor::Worker | WaitFor::Object | WaitFor::Reader => 1,
            WaitFor::Head | WaitFor::Unknown => 2,
        };
        let wait = process.waits.iter().min_by_key(|wait| (order(wait.what), wait.since)).copied();
        let Some(wait) = wait else {
            return match process.run {
                Some(run) => {
                    let name = process.name(run.name).to_owned();
                    self.add("process", process.pid, format!("runs {name}"), Some(snapshot.nanos(run.since)));
                    Step::End(
                        "computes",
                        format!("{name} computes, or waits for something that is not Mobula's"),
                    )
                }
                None => {
                    let is_lock = !self.chain.is_empty() && self.is_lock(process);
                    let runs = process.running().len();
                    let text = match runs {
                        0 => format!("{} runs no call", process.label),
                        1 => format!("{} has one call under way", process.label),
                        _ => format!("{} has {runs} calls under way", process.label),
                    };
                    self.add("process", process.pid, text, None);
                    if is_lock {
                        return lock();
                    }
                    if runs > 0 {
                        let text = "its calls compute, or wait for something that is not Mobula's";
                        return Step::End("computes", text.to_owned());
                    }
                    Step::End("idle", "the process waits for nothing that is known".to_owned())
                }
            };
        };
        let awaited = snapshot.awaited(process.pid, wait.what, wait.values);
        let text = match process.run {
            Some(run) => format!("runs {} and waits for {awaited}", process.name(run.name)),
            None => format!("waits for {awaited}"),
        };
        self.add("process", process.pid, text, Some(snapshot.nanos(wait.since)));
        match wait.what {
            WaitFor::Call | WaitFor::Actor | WaitFor::Worker if wait.values[0] != 0 => {
                Step::To(Node::Task((process.owner.bits(), wait.values[0])))
            }
            WaitFor::Object => Step::To(Node::Object(object_id(wait.values))),
            // It has not taken the items that are there.
            WaitFor::Reader => Step::To(Node::Process(wait.values[0])),
            WaitFor::Memory => Step::End("memory", self.memory(wait.values[0])),
            WaitFor::Restore => {
                Step::End("disk", format!("object {awaited} is being restored from its spill file"))
            }
            WaitFor::Head => {
                Step::End("head", "an answer of the head, which starts and places processes".to_owned())
            }
            WaitFor::Call | WaitFor::Actor | WaitFor::Worker | WaitFor::Unknown => {
                Step::End("unknown", "one of several results".to_owned())
            }
        }
    }

    /// Whether a process is an actor of a [lock](LOCKS).
    fn is_lock(&self, process: &Process) -> bool {
        let Some(head) = &self.snapshot.head else { return false };
        let owner = Some(process.owner.bits());
        let actor = head.processes.iter().find(|known| known.owner == owner).and_then(|known| known.actor);
        head.actors.iter().any(|known| Some(known.actor) == actor && known.class.starts_with(LOCKS))
    }

    /// Why there is no memory.
    fn memory(&self, bytes: u64) -> String {
        let totals = &self.snapshot.stats.totals;
        let mut holders: Vec<_> =
            self.snapshot.stats.clients.iter().filter(|info| info.leased_bytes > 0).collect();
        holders.sort_by_key(|info| std::cmp::Reverse(info.leased_bytes));
        let holders: Vec<String> = holders
            .iter()
            .take(3)
            .map(|info| {
                let objects = count(info.objects, "object");
                format!("{} has {} in {objects}", info.label, ByteSize(info.leased_bytes))
            })
            .collect();
        format!(
            "{} are wanted, and the store has {} free of {}: {}",
            ByteSize(bytes),
            ByteSize(totals.free_bytes),
            ByteSize(totals.capacity_bytes),
            holders.join(", ")
        )
    }

    fn object(&mut self, object: ObjectId) -> Step {
        let owner = object.owner().bits();
        let words = {
            let id = u128::from_le_bytes(object.to_bytes());
            [id as u64, (id >> 64) as u64]
        };
        let process = self.snapshot.process(owner);
        let promised = process.and_then(|process| {
            let is_it = |event: &&mobula_client::internal::recorder::Event| {
                event.kind == Kind::Promised && event.values[..2] == words
            };
            process.other.events.iter().rev().find(is_it).map(|event| event.values[2])
        });
        let pid = self.snapshot.pid_of(owner);
        match promised {
            Some(call) => {
                self.add("object", object, format!("the result of call {pid}.{call}"), None);
                Step::To(Node::Task((owner, call)))
            }
            None => {
                self.add("object", object, format!("an object of process {pid}"), None);
                Step::To(Node::Process(owner))
            }
        }
    }

    fn actor(&mut self, actor: u64) -> Step {
        let head = self.snapshot.head.as_ref();
        let Some(known) = head.and_then(|head| head.actors.iter().find(|known| known.actor == actor)) else {
            self.add("actor", actor, "an actor of which the head knows nothing".to_owned(), None);
            return Step::End("unknown", "the head did not answer, or the actor is gone".to_owned());
        };
        let name = known.name.as_ref().map_or(String::new(), |name| format!(" {name:?}"));
        let is_awaited = !self.chain.is_empty();
        self.add("actor", actor, format!("{}{name} is {}", known.class, known.stage), None);
        if is_awaited && known.class.starts_with(LOCKS) && known.stage == "alive" {
            return lock();
        }
        match (known.pid, known.stage.as_str()) {
            (Some(pid), "alive" | "constructing") => match self.snapshot.process_of_pid(pid) {
                Some(process) => Step::To(Node::Process(process.owner.bits())),
                None => Step::End("unknown", format!("nothing is known of process {pid}")),
            },
            (_, "dead") => {
                Step::End("dead", known.failure.clone().unwrap_or_else(|| "the actor has ended".to_owned()))
            }
            (_, "waiting") => {
                Step::End("worker", format!("the actor waits for a process and for {}", known.demand))
            }
            (_, stage) => Step::End("actor", format!("the actor is {stage}")),
        }
    }
}
