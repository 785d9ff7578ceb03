//! The actors of a session: the stage of each from reservation to end, the callers that watch it, and the names.
//!
//! Each actor has a *token*, an object of the head's. A handle to the actor is a reference to the token, so the store's
//! own pins say whether anybody, in any process or inside any object, still has one.
//!
//! ```text
//! Reserved ──► Waiting ──► Constructing ──► Alive      and from each: ──► Over
//!                 ▲             │             │
//!                 └─────────────┴─────────────┘        its process has died, and it may be started again
//! ```
//!
//! This part knows no processes: it decides what happens to an actor, and tells the callers that watch it. The
//! [processes](ActorProcesses) of actors begin and end as it decides. Its links and its store are
//! [traits](surroundings), so that the simulation runs without any.

mod arguments;
mod found;
mod processes;
#[cfg(test)]
mod simulation;
mod surroundings;

use std::collections::{BTreeMap, HashMap, VecDeque, btree_map};
use std::time::{Duration, Instant};

use mobula_client::OwnerId;

use self::arguments::Arguments;
pub(super) use self::arguments::objects_of;
pub(super) use self::processes::ActorProcesses;
pub(super) use self::surroundings::Peer;
use self::surroundings::{Store, Token};
use super::names::SharedNames;
use crate::call::options::is_within;
use crate::definition::Key;
use crate::demand::Demand;
use crate::error::{ActorEnd, ExitReason, Failure};
use crate::mail::link::TooLarge;
use crate::wire::{ActorProcess, ActorRecord, CallContext, FromHead, NewActor, ReservedActor};

/// How soon tokens are checked after something happened. The checks become rarer while nothing happens.
const LOOK_SOON: Duration = Duration::from_millis(20);
const LOOK_SELDOM: Duration = Duration::from_millis(500);
/// The most processes of actors that are remembered after their end. The store keeps the events of fewer.
const FORMER_MAX: usize = 256;

struct Actor<P: Peer> {
    class: Key,
    class_name: String,
    /// Its namespace and its name.
    name: Option<(String, String)>,
    /// It lives without handles, until it is killed or the session ends.
    is_detached: bool,
    max_pending_calls: u32,
    /// A text of its front for those that find it by its name.
    description: Box<str>,
    /// The process that made it.
    creator: OwnerId,
    /// The head's own handle. The actor lives while there are others.
    token: P::Handle,
    stage: Stage<P>,
    /// The constructor's arguments, kept until it is certain that the constructor will not run again.
    arguments: Option<Arguments<P::Handle>>,
    /// How often it was restarted, and how often it may be.
    restarts: u32,
    max_restarts: u32,
    max_task_retries: u32,
    /// The resources that it has for life.
    demand: Demand,
    watchers: Vec<P>,
}

impl<P: Peer> Actor<P> {
    fn may_restart(&self) -> bool {
        is_within(self.restarts, self.max_restarts)
    }

    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over { .. })
    }

    fn tell(&self, actor: u64, link: &P) {
        let message = match &self.stage {
            Stage::Alive { at, .. } => {
                FromHead::ActorAt { actor, process: *at, max_task_retries: self.max_task_retries }
            }
            Stage::Over { pid, failure, .. } => {
                FromHead::ActorOver { actor, pid: *pid, failure: failure.clone() }
            }
            _ => return,
        };
        let _ = link.tell(&message, Vec::new());
    }
}

enum Stage<P> {
    /// The arguments are still to come.
    Reserved {
        by: P,
    },
    /// Only a process is missing. The number is its place among the actors that wait.
    Waiting {
        number: u64,
    },
    Constructing {
        process: u64,
    },
    Alive {
        process: u64,
        at: OwnerId,
        pid: u32,
    },
    Over {
        pid: u32,
        failure: Failure,
        /// The process that it had, which may still run its destructor.
        process: Option<u64>,
    },
}

/// The stage of an actor before its first call.
pub(super) enum Stands<'a> {
    /// It waits for a process, with this demand.
    Waiting(&'a Demand),
    /// Its constructor runs in this process.
    Constructing(u64),
    There,
}

/// Why an actor is over, for an observer. The failure of its calls names a method, too.
fn why_over(failure: &Failure) -> String {
    match failure {
        Failure::ActorDied { cause, .. } => cause.to_string(),
        Failure::ConstructorFailed { error, .. } => format!("its constructor failed: {}", error.message),
        failure => failure.to_string(),
    }
}

/// The actors of a session; see the module's documentation.
pub(super) struct Actors<P: Peer> {
    actors: HashMap<u64, Actor<P>>,
    /// The actors that wait for a process, in the order in which they were started.
    waiting: BTreeMap<u64, u64>,
    /// Actors that wait for resources, too, or for a process of another environment.
    demanding: BTreeMap<u64, u64>,
    /// The last number of an actor that waits.
    waiting_last: u64,
    /// The actors by their namespaces and names.
    names: BTreeMap<(String, String), u64>,
    /// The names of the actors of all drivers, in a session that drivers share.
    shared_names: Option<SharedNames>,
    number_last: u64,
    /// The processes that actors had, the last one last: an actor that is over is forgotten, and its name is free.
    former: VecDeque<ActorProcess>,
    looked: Option<Instant>,
    interval: Duration,
}

impl<P: Peer> Actors<P> {
    /// The actors of a driver that has a session of its own.
    pub(super) fn new() -> Self {
        Self {
            actors: HashMap::new(),
            waiting: BTreeMap::new(),
            demanding: BTreeMap::new(),
            waiting_last: 0,
            names: BTreeMap::new(),
            shared_names: None,
            number_last: 0,
            former: VecDeque::new(),
            looked: None,
            interval: Duration::ZERO,
        }
    }

    /// The actors of one driver of several. Their numbers follow this one.
    pub(super) fn shared(names: SharedNames, number_last: u64) -> Self {
        Self { shared_names: Some(names), number_last, ..Self::new() }
    }

    /// Whether an actor has this name.
    pub(super) fn has_name(&self, namespace: &str, name: &str) -> bool {
        self.found(namespace, name).is_some()
    }

    /// All actors, for an observer.
    pub(super) fn report(&self) -> Vec<ActorRecord> {
        let record = |(number, actor): (&u64, &Actor<P>)| {
            let (stage, pid, failure) = match &actor.stage {
                Stage::Reserved { .. } => ("reserved", None, None),
                Stage::Waiting { .. } => ("waiting", None, None),
                Stage::Constructing { .. } => ("constructing", None, None),
                Stage::Alive { pid, .. } => ("alive", Some(*pid), None),
                Stage::Over { pid, failure, .. } => ("dead", Some(*pid), Some(why_over(failure))),
            };
            ActorRecord {
                actor: *number,
                class: actor.class_name.clone(),
                namespace: actor.name.as_ref().map(|(namespace, _)| namespace.clone()),
                name: actor.name.as_ref().map(|(_, name)| name.clone()),
                is_detached: actor.is_detached,
                creator: actor.creator.bits(),
                stage: stage.to_owned(),
                pid: pid.filter(|pid| *pid != 0),
                restarts: actor.restarts,
                demand: actor.demand.to_string(),
                failure,
            }
        };
        self.actors.iter().map(record).collect()
    }

    /// The processes that actors had, for an observer.
    pub(super) fn former(&self) -> impl Iterator<Item = &ActorProcess> {
        self.former.iter()
    }

    fn remember(&mut self, actor: u64, pid: u32, failure: Option<&Failure>) {
        let Some(record) = self.actors.get(&actor).filter(|_| pid != 0) else { return };
        let name = record.name.as_ref().map(|(_, name)| name.clone());
        let class = record.class_name.clone();
        let failure = failure.map(why_over);
        if self.former.len() == FORMER_MAX {
            self.former.pop_front();
        }
        self.former.push_back(ActorProcess { pid, actor, class, name, failure });
    }

    pub(super) fn reserve(
        &mut self,
        store: &impl Store<P::Handle>,
        by: &P,
        request: u64,
        actor: NewActor<'_>,
    ) {
        if actor.get_if_exists
            && let Some(name) = actor.name
            && let Some(found) = self.found(actor.namespace, name)
        {
            return self.answer_found(by, request, Some(found));
        }
        let result = self.try_reserve(store, by, actor);
        let held = result.as_ref().map(|(_, token)| token.clone()).into_iter().collect();
        let result = result.map(|(actor, token)| ReservedActor { actor, token: token.id() });
        let _ = by.tell(&FromHead::ActorReserved { request, result }, held);
    }

    fn try_reserve(
        &mut self,
        store: &impl Store<P::Handle>,
        by: &P,
        wanted: NewActor<'_>,
    ) -> Result<(u64, P::Handle), Failure> {
        let NewActor { class, class_name, is_detached, max_pending_calls, .. } = wanted;
        let NewActor { max_restarts, max_task_retries, demand, .. } = wanted;
        let name = wanted.name.map(|name| (wanted.namespace.to_owned(), name.to_owned()));
        if let Some((_, taken)) = name.as_ref().filter(|name| self.names.contains_key(name)) {
            return Err(Failure::NameTaken { name: taken.clone() });
        }
        let token = store.make_token()?;
        self.number_last += 1;
        let actor = self.number_last;
        if let Some(name) = &name {
            if let Some(names) = &self.shared_names {
                names.publish(&name.0, &name.1)?;
            }
            self.names.insert(name.clone(), actor);
        }
        let record = Actor {
            class,
            class_name: class_name.to_owned(),
            name,
            is_detached,
            max_pending_calls,
            description: wanted.description.into(),
            creator: by.peer(),
            token: token.clone(),
            stage: Stage::Reserved { by: by.clone() },
            arguments: None,
            restarts: 0,
            max_restarts,
            max_task_retries,
            demand,
            watchers: Vec::new(),
        };
        self.actors.insert(actor, record);
        Ok((actor, token))
    }

    /// The arguments of an actor's constructor are there.
    pub(super) fn start(
        &mut self,
        store: &impl Store<P::Handle>,
        actor: u64,
        count: u32,
        context: Option<CallContext>,
        payloads: &[u8],
    ) {
        // An actor that is over, or that was started before, stays as it is.
        let is_reserved = |record: &&mut Actor<P>| matches!(record.stage, Stage::Reserved { .. });
        let Some(record) = self.actors.get_mut(&actor).filter(is_reserved) else { return };
        match Arguments::hold(store, count, context, payloads) {
            Ok(arguments) => {
                record.arguments = Some(arguments);
                self.wait(actor);
            }
            Err(failure) => self.over(actor, 0, failure),
        }
    }

    /// The actor needs a process.
    fn wait(&mut self, actor: u64) {
        self.waiting_last += 1;
        let Some(record) = self.actors.get_mut(&actor) else { return };
        let waiting = if record.demand.is_any_process() { &mut self.waiting } else { &mut self.demanding };
        waiting.insert(self.waiting_last, actor);
        record.stage = Stage::Waiting { number: self.waiting_last };
    }

    /// The actors that need a process and something else, and what they demand.
    pub(super) fn demanding(&self) -> impl Iterator<Item = (u64, &Demand)> {
        self.demanding.values().filter_map(|actor| Some((*actor, &self.actors.get(actor)?.demand)))
    }

    pub(super) fn first_demanding(&self) -> Option<u64> {
        self.demanding.values().next().copied()
    }

    /// The actors that need only a process of the usual environment, in the order in which they get one.
    pub(super) fn waiting(&self) -> btree_map::Values<'_, u64, u64> {
        self.waiting.values()
    }

    pub(super) fn first_waiting(&self) -> Option<u64> {
        self.waiting().next().copied()
    }

    /// Gives an actor a process. Returns `false` if the process stays without an actor.
    pub(super) fn place(&mut self, actor: u64, process: u64, link: &P) -> bool {
        let Some(record) = self.actors.get_mut(&actor) else { return false };
        let Stage::Waiting { number } = record.stage else { return false };
        self.waiting.remove(&number);
        self.demanding.remove(&number);
        let Some(arguments) = &record.arguments else { return false };
        let Arguments { count: arguments, context, payloads, .. } = arguments;
        let (class, restarts) = (record.class, record.restarts);
        let (arguments, context) = (*arguments, *context);
        let construct = FromHead::Construct { actor, class, restarts, arguments, context, payloads };
        // The objects that the arguments name are held here.
        match link.tell(&construct, Vec::new()) {
            Ok(()) => {
                record.stage = Stage::Constructing { process };
                true
            }
            Err(TooLarge) => {
                let (function, count) = (format!("{}::new", record.class_name), arguments as usize);
                self.over(actor, 0, Failure::TooManyArguments { function, count });
                false
            }
        }
    }

    /// Whether an actor is not over.
    pub(super) fn is_living(&self, actor: u64) -> bool {
        self.actors.get(&actor).is_some_and(|record| !record.is_over())
    }

    /// Whether any actor lives, or waits for its arguments or a process.
    pub(super) fn is_any_living(&self) -> bool {
        self.actors.values().any(|record| !record.is_over())
    }

    pub(super) fn all(&self) -> Vec<u64> {
        self.actors.keys().copied().collect()
    }

    pub(super) fn process_of(&self, actor: u64) -> Option<u64> {
        match self.actors.get(&actor)?.stage {
            Stage::Constructing { process } | Stage::Alive { process, .. } => Some(process),
            _ => None,
        }
    }

    /// The stage of an actor before its first call.
    pub(super) fn stands(&self, actor: u64) -> Stands<'_> {
        let Some(record) = self.actors.get(&actor) else { return Stands::There };
        match record.stage {
            Stage::Waiting { .. } => Stands::Waiting(&record.demand),
            Stage::Constructing { process } => Stands::Constructing(process),
            _ => Stands::There,
        }
    }

    pub(super) fn class_name(&self, actor: u64) -> String {
        self.actors.get(&actor).map(|record| record.class_name.clone()).unwrap_or_default()
    }

    /// The class of the actor that has a name.
    pub(super) fn class_of_name(&self, namespace: &str, name: &str) -> String {
        self.found(namespace, name).map(|(_, record)| record.class_name.clone()).unwrap_or_default()
    }

    /// The process that made an actor, and whether the actor is restarted if its process ends.
    pub(super) fn prospects(&self, actor: u64) -> Option<(OwnerId, bool)> {
        self.actors.get(&actor).map(|record| (record.creator, record.may_restart()))
    }

    /// The failure of all calls of an actor that is gone. The callers add the method that they called and the process
    /// that was the actor's.
    pub(super) fn died(&self, actor: u64, cause: ActorEnd) -> Failure {
        Failure::ActorDied { class: self.class_name(actor), method: String::new(), pid: 0, cause }
    }

    /// The constructor has run.
    pub(super) fn alive(&mut self, actor: u64, at: OwnerId, pid: u32) {
        let Some(record) = self.actors.get_mut(&actor) else { return };
        let Stage::Constructing { process } = record.stage else { return };
        record.stage = Stage::Alive { process, at, pid };
        if !record.may_restart() {
            record.arguments = None;
        }
        record.watchers.iter().for_each(|link| record.tell(actor, link));
    }

    /// The actor's process has ended unexpectedly: the actor is restarted, or is over.
    pub(super) fn process_ended(&mut self, actor: u64, pid: u32, reason: ExitReason) {
        let Some(record) = self.actors.get_mut(&actor) else { return };
        if !record.may_restart() {
            let cause = ActorEnd::Process { reason, restarts: record.restarts };
            return self.over(actor, pid, self.died(actor, cause));
        }
        self.remember(actor, pid, None);
        let Some(record) = self.actors.get_mut(&actor) else { return };
        record.restarts = record.restarts.saturating_add(1);
        for link in &record.watchers {
            let message = FromHead::ActorRestarts { actor, pid, reason };
            let _ = link.tell(&message, Vec::new());
        }
        self.wait(actor);
    }

    /// The actor has ended, or will never start.
    pub(super) fn over(&mut self, actor: u64, pid: u32, failure: Failure) {
        let Some(record) = self.actors.get_mut(&actor) else { return };
        if let Stage::Waiting { number } = record.stage {
            self.waiting.remove(&number);
            self.demanding.remove(&number);
        }
        if matches!(record.stage, Stage::Over { .. }) {
            return;
        }
        let pid = match record.stage {
            Stage::Alive { pid: known, .. } if pid == 0 => known,
            _ => pid,
        };
        let process = match record.stage {
            Stage::Constructing { process } | Stage::Alive { process, .. } => Some(process),
            _ => None,
        };
        self.remember(actor, pid, Some(&failure));
        let Some(record) = self.actors.get_mut(&actor) else { return };
        record.stage = Stage::Over { pid, failure, process };
        record.arguments = None;
        std::mem::take(&mut record.watchers).iter().for_each(|link| record.tell(actor, link));
        // The name is free for another actor. An observer still sees whose it was.
        if let Some(name) = &record.name {
            self.names.remove(name);
            if let Some(names) = &self.shared_names {
                names.unpublish(&name.0, &name.1);
            }
        }
    }

    /// The actor, which may be restarted, is killed while it has no process. That counts as a restart. It waits on.
    pub(super) fn kill_without_process(&mut self, actor: u64) {
        if let Some(record) = self.actors.get_mut(&actor).filter(|record| !record.is_over()) {
            record.restarts = record.restarts.saturating_add(1);
        }
    }

    /// The process of an actor that is over; `None`: it is not over. `Some(None)`: it had none, or is not known.
    pub(super) fn last_process(&self, actor: u64) -> Option<Option<u64>> {
        match self.actors.get(&actor).map(|record| &record.stage) {
            Some(Stage::Over { process, .. }) => Some(*process),
            Some(_) => None,
            None => Some(None),
        }
    }

    pub(super) fn watch(&mut self, from: &P, actor: u64) {
        match self.actors.get_mut(&actor) {
            Some(record) => {
                record.tell(actor, from);
                if !matches!(record.stage, Stage::Over { .. }) {
                    record.watchers.push(from.clone());
                }
            }
            None => {
                let failure = self.died(actor, ActorEnd::Forgotten);
                let _ = from.tell(&FromHead::ActorOver { actor, pid: 0, failure }, Vec::new());
            }
        }
    }

    /// Handles the end of a caller. Returns the actors that it had reserved and not started.
    pub(super) fn on_caller_gone(&mut self, link: &P) -> Vec<u64> {
        for record in self.actors.values_mut() {
            record.watchers.retain(|watcher| watcher.id() != link.id());
        }
        let reserved = self
            .actors
            .iter()
            .filter(|(_, record)| matches!(&record.stage, Stage::Reserved { by } if by.id() == link.id()));
        reserved.map(|(actor, _)| *actor).collect()
    }

    // ---- the last handle ----

    /// When to check the tokens next.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.actors.is_empty() {
            return None;
        }
        let passed = self.looked.map_or(Duration::MAX, |looked| now.saturating_duration_since(looked));
        Some(self.interval.saturating_sub(passed))
    }

    pub(super) fn look_soon(&mut self) {
        self.interval = LOOK_SOON;
    }

    pub(super) fn look_now(&mut self) {
        self.looked = None;
    }

    /// Returns the actors to which no handle is left, if it is time to check. Forgets actors that are over and that no
    /// caller asks about.
    pub(super) fn out_of_scope(&mut self, now: Instant) -> Vec<u64> {
        if self.timeout(now) != Some(Duration::ZERO) {
            return Vec::new();
        }
        self.looked = Some(now);
        self.interval = (self.interval * 2).clamp(LOOK_SOON, LOOK_SELDOM);
        let (mut ended, mut forgotten) = (Vec::new(), Vec::new());
        for (actor, record) in &self.actors {
            match record.stage {
                // The caller that reserved it may not have its handle yet.
                Stage::Reserved { .. } => {}
                _ if record.token.is_held_by_others() => {}
                Stage::Over { .. } => forgotten.push(*actor),
                _ if record.is_detached => {}
                _ => ended.push(*actor),
            }
        }
        for actor in forgotten {
            self.actors.remove(&actor);
        }
        ended
    }
}
