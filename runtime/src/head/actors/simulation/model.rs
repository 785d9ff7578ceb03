//! The simulation's model of the actors: what happens to each, and what the head must say of it to whom.

use std::collections::BTreeMap;

use super::outside::{Tokens, Told};
use crate::error::{ActorEnd, ExitReason, Failure};

/// An actor that a process makes.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) name: Option<(&'static str, &'static str)>,
    pub(super) get_if_exists: bool,
    pub(super) is_detached: bool,
    pub(super) max_pending_calls: u32,
    pub(super) max_restarts: u32,
    pub(super) max_task_retries: u32,
    /// It demands one CPU, or a part of one.
    pub(super) has_demand: bool,
    /// The arguments of its constructor fit no record.
    pub(super) is_too_large: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    Reserved,
    Waiting,
    Constructing(u64),
    Alive(u64),
    Over { pid: u32, failure: Failure },
}

#[derive(Debug)]
pub(super) struct Actor {
    pub(super) spec: Spec,
    pub(super) creator: u64,
    pub(super) stage: Stage,
    pub(super) restarts: u32,
    /// Since when it waits for a process: actors that demand nothing get one in this order.
    pub(super) waits_since: u64,
    watchers: Vec<u64>,
    /// The process that it had at its end.
    last_process: Option<u64>,
}

impl Actor {
    pub(super) fn process(&self) -> Option<u64> {
        match self.stage {
            Stage::Constructing(process) | Stage::Alive(process) => Some(process),
            _ => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over { .. })
    }

    fn may_restart(&self) -> bool {
        self.spec.max_restarts == u32::MAX || self.restarts < self.spec.max_restarts
    }
}

/// The end of the process of an actor that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Killed,
    /// It is told to end.
    Exits,
    /// It has none, or has ended already.
    None,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Model {
    pub(super) actors: BTreeMap<u64, Actor>,
    number_last: u64,
    /// How often the head has decided. Actors that begin to wait between two decisions have no order.
    pub(super) turn: u64,
    /// The records that the head must have sent now, and the processes that it must have killed.
    pub(super) told: Vec<(u64, Told)>,
    pub(super) killed: Vec<u64>,
    /// The processes that wait for the end of an actor and its process, with their requests.
    awaited: Vec<(u64, u64, u64)>,
}

/// The class of each actor.
pub(super) const CLASS: &str = "Counter";

/// The process id of a process.
pub(super) fn pid(token: u64) -> u32 {
    token as u32 + 1000
}

fn died(cause: ActorEnd) -> Failure {
    Failure::ActorDied { class: CLASS.to_owned(), method: String::new(), pid: 0, cause }
}

impl Model {
    /// The living actor that has a name.
    pub(super) fn named(&self, name: (&str, &str)) -> Option<u64> {
        let mut named =
            self.actors.iter().filter(|(_, actor)| actor.spec.name == Some(name) && !actor.is_over());
        let found = named.next().map(|(number, _)| *number);
        assert!(named.next().is_none(), "two living actors are called {name:?}");
        found
    }

    fn found(&self, name: (&str, &str)) -> Option<(u64, u32)> {
        self.named(name).map(|actor| (actor, self.actors[&actor].spec.max_pending_calls))
    }

    // ---- what processes ask ----

    pub(super) fn reserve(&mut self, by: u64, request: u64, spec: Spec, is_full: bool) {
        if let Some(name) = spec.name
            && let Some(taken) = self.found(name)
        {
            self.told.push(match spec.get_if_exists {
                true => (by, Told::Found { request, actor: Some(taken) }),
                false => {
                    let actor = Err(Failure::NameTaken { name: name.1.to_owned() });
                    (by, Told::Reserved { request, actor })
                }
            });
            return;
        }
        if is_full {
            return self.told.push((by, Told::Reserved { request, actor: Err(Tokens::full()) }));
        }
        self.number_last += 1;
        let actor = Actor {
            spec,
            creator: by,
            stage: Stage::Reserved,
            restarts: 0,
            waits_since: 0,
            watchers: Vec::new(),
            last_process: None,
        };
        self.actors.insert(self.number_last, actor);
        self.told.push((by, Told::Reserved { request, actor: Ok(self.number_last) }));
    }

    pub(super) fn find(&mut self, by: u64, request: u64, name: (&str, &str)) {
        let actor = self.found(name);
        self.told.push((by, Told::Found { request, actor }));
    }

    /// The arguments of a constructor are there, or cannot be read.
    pub(super) fn start(&mut self, actor: u64, is_readable: bool) {
        if self.actors.get(&actor).is_none_or(|actor| actor.stage != Stage::Reserved) {
            return;
        }
        match is_readable {
            true => self.wait(actor),
            false => {
                let malformed = crate::call::payload::Malformed.to_string();
                self.over(actor, 0, Failure::Other(malformed), Fate::None);
            }
        }
    }

    pub(super) fn abandon(&mut self, actor: u64, failure: Failure) {
        self.end(actor, failure);
    }

    pub(super) fn watch(&mut self, by: u64, number: u64) {
        let Some(actor) = self.actors.get_mut(&number) else {
            let failure = Failure::ActorDied {
                class: String::new(),
                method: String::new(),
                pid: 0,
                cause: ActorEnd::Forgotten,
            };
            return self.told.push((by, Told::Over { actor: number, pid: 0, failure }));
        };
        match &actor.stage {
            Stage::Over { pid, failure } => {
                let (pid, failure) = (*pid, failure.clone());
                self.told.push((by, Told::Over { actor: number, pid, failure }));
                return;
            }
            Stage::Alive(process) => {
                let (process, retries) = (*process, actor.spec.max_task_retries);
                self.told.push((by, Told::At { actor: number, process, retries }));
            }
            _ => {}
        }
        actor.watchers.push(by);
    }

    pub(super) fn kill(&mut self, number: u64, restarts: bool) {
        let Some(actor) = self.actors.get_mut(&number).filter(|actor| !actor.is_over()) else { return };
        if !restarts || !actor.may_restart() {
            return self.end(number, died(ActorEnd::Killed));
        }
        match actor.process() {
            Some(process) => self.killed.push(process),
            None => actor.restarts += 1,
        }
    }

    pub(super) fn await_end(&mut self, by: u64, request: u64, actor: u64) {
        self.awaited.push((by, request, actor));
    }

    /// A link is closed.
    pub(super) fn caller_gone(&mut self, process: u64) {
        self.actors.values_mut().for_each(|actor| actor.watchers.retain(|watcher| *watcher != process));
        self.awaited.retain(|(by, ..)| *by != process);
        let is_its = |actor: &Actor| actor.creator == process && actor.stage == Stage::Reserved;
        let reserved: Vec<u64> = self.chosen(is_its);
        reserved.into_iter().for_each(|actor| self.end(actor, died(ActorEnd::CreatorDied)));
    }

    // ---- what the processes of actors say ----

    pub(super) fn constructed(&mut self, from: u64, number: u64, result: Result<(), Failure>) {
        let Some(actor) = self.actors.get_mut(&number).filter(|actor| actor.process() == Some(from)) else {
            return;
        };
        match result {
            Ok(()) if actor.stage == Stage::Constructing(from) => {
                actor.stage = Stage::Alive(from);
                let at = Told::At { actor: number, process: from, retries: actor.spec.max_task_retries };
                let watchers = actor.watchers.clone();
                self.tell_all(&watchers, &at);
            }
            Ok(()) => {}
            Err(Failure::Task(error)) => {
                let failure = Failure::ConstructorFailed { class: CLASS.to_owned(), error };
                self.over(number, pid(from), failure, Fate::Exits);
            }
            Err(failure) => self.over(number, pid(from), failure, Fate::Exits),
        }
    }

    pub(super) fn exits(&mut self, from: u64, number: u64) {
        if self.actors.get(&number).is_some_and(|actor| actor.process() == Some(from)) {
            self.over(number, pid(from), died(ActorEnd::Exited), Fate::Exits);
        }
    }

    pub(super) fn process_ended(&mut self, process: u64, reason: ExitReason) {
        let its = self.chosen(|actor| actor.process() == Some(process));
        assert!(its.len() <= 1, "a process has the actors {its:?}");
        let Some(number) = its.first().copied() else { return };
        let actor = self.actors.get_mut(&number).expect("just found");
        if !actor.may_restart() {
            let cause = ActorEnd::Process { reason, restarts: actor.restarts };
            return self.over(number, pid(process), died(cause), Fate::None);
        }
        actor.restarts += 1;
        let watchers = actor.watchers.clone();
        self.tell_all(&watchers, &Told::Restarts { actor: number, pid: pid(process), reason });
        self.wait(number);
    }

    // ---- what the head decides ----

    /// The head has sent an actor to a process.
    pub(super) fn placed(&mut self, number: u64, process: u64, restarts: u32) {
        let actor = &self.actors[&number];
        assert_eq!(actor.stage, Stage::Waiting, "{number} is constructed, and does not wait");
        assert_eq!(actor.restarts, restarts, "the actor knows a wrong number of restarts");
        // The pool serves those that demand resources in rotation.
        let (since, is_in_order) = (actor.waits_since, !actor.spec.has_demand);
        let is_earlier = |other: &Actor| {
            other.stage == Stage::Waiting && !other.spec.has_demand && other.waits_since < since
        };
        let any_earlier = is_in_order && !self.chosen(is_earlier).is_empty();
        assert!(!any_earlier, "{number} has come before others that have waited for longer");
        assert!(
            self.chosen(|other| other.process() == Some(process)).is_empty(),
            "two actors in one process"
        );
        self.actors.get_mut(&number).expect("just found").stage = Stage::Constructing(process);
        self.told.push((process, Told::Construct { actor: number, restarts }));
    }

    /// No handle to an actor is left.
    pub(super) fn last_handle_gone(&mut self, number: u64) {
        let actor = &self.actors[&number];
        assert!(!actor.spec.is_detached, "the detached actor {number} has ended for lack of handles");
        assert_ne!(actor.stage, Stage::Reserved, "{number} has ended before its creator could have a handle");
        self.over(number, 0, died(ActorEnd::LastHandleGone), Fate::Exits);
    }

    /// The head ends an actor that waits, because it can never be constructed.
    pub(super) fn refused(&mut self, number: u64, failure: Failure) {
        let actor = &self.actors[&number];
        assert_eq!(actor.stage, Stage::Waiting, "{number} is refused: {failure}");
        self.over(number, 0, failure, Fate::None);
    }

    pub(super) fn session_ends(&mut self) {
        for actor in self.chosen(|actor| !actor.is_over()) {
            self.over(actor, 0, Failure::SessionOver, Fate::Exits);
        }
    }

    /// Answers the processes that wait for the end of an actor and its process.
    pub(super) fn answer_awaited(&mut self, is_there: impl Fn(u64) -> bool) {
        let Self { awaited, actors, told, .. } = self;
        let has_ended = |number: u64| match actors.get(&number) {
            Some(actor) => actor.is_over() && actor.last_process.is_none_or(|process| !is_there(process)),
            None => true,
        };
        for (by, request, _) in awaited.extract_if(.., |(_, _, actor)| has_ended(*actor)) {
            told.push((by, Told::Ended { request }));
        }
    }

    // ---- changes ----

    fn wait(&mut self, number: u64) {
        let actor = self.actors.get_mut(&number).expect("it is there");
        (actor.stage, actor.waits_since) = (Stage::Waiting, self.turn);
    }

    /// An actor ends at once.
    fn end(&mut self, number: u64, failure: Failure) {
        let Some(actor) = self.actors.get(&number).filter(|actor| !actor.is_over()) else { return };
        let pid = actor.process().map_or(0, pid);
        self.over(number, pid, failure, Fate::Killed);
    }

    fn over(&mut self, number: u64, known: u32, failure: Failure, fate: Fate) {
        let actor = self.actors.get_mut(&number).expect("it is there");
        let pid = match actor.stage {
            Stage::Alive(process) => pid(process),
            _ => known,
        };
        let process = actor.process();
        actor.stage = Stage::Over { pid, failure: failure.clone() };
        actor.last_process = process;
        let watchers = std::mem::take(&mut actor.watchers);
        match (process, fate) {
            (Some(process), Fate::Killed) => self.killed.push(process),
            (Some(process), Fate::Exits) => self.told.push((process, Told::Exit)),
            _ => {}
        }
        self.tell_all(&watchers, &Told::Over { actor: number, pid, failure });
    }

    fn tell_all(&mut self, watchers: &[u64], told: &Told) {
        self.told.extend(watchers.iter().map(|watcher| (*watcher, told.clone())));
    }

    pub(super) fn chosen(&self, is_chosen: impl Fn(&Actor) -> bool) -> Vec<u64> {
        self.actors.iter().filter(|(_, actor)| is_chosen(actor)).map(|(number, _)| *number).collect()
    }
}
