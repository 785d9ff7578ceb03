//! Deadlocks: calls that wait for each other in a circle. Each process in the circle gets an error, and continues.
//!
//! A process reports its wait when it has waited for a while ([`Waits`]), and the end of that wait. From these reports,
//! the head knows which processes may be *stuck*: the greatest set of processes each of which waits for something that
//! only processes of the set can bring. This set may be too large, because the reports are not of one moment: a result
//! may be on its way. So the head asks all of them again. Each may answer that it is still in the same wait, and that
//! it still has the calls that were sent to it. The reports came before the question and the answers after it. If they
//! agree, the state held at the question. None of these processes can continue before another one does, so none ever
//! will.
//!
//! A wait that could end in another way is not part of a deadlock. The wait, the waiting call or the awaited call may
//! have a time limit. The actor may run several calls at a time. The waiting thread may not be the one that runs the
//! process's calls. The next item of a stream may be on its way. A promise may have no call. Such a process reports
//! nothing, or that it does not know. So each deadlock that the head finds is real, and the head does not find a
//! deadlock with such a wait in it. It does not matter that a program could cancel a call or kill an actor.
//!
//! This part knows no links. The [state](super::state) sends its questions, and tells it which processes hold what
//! ([`World`]). A process in a circle of waits that has not reported, such as the driver, needs no report: it gets the
//! failure of the call that it waits for.

mod circles;
mod known;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mobula_client::{ObjectId, OwnerId};

pub(super) use self::known::Known;
use crate::demand::Demand;
use crate::wire::{Need, ToldWait, Waits};

/// The pause between two rounds of questions, if the first has confirmed nothing. It doubles, up to `PAUSE_MAX`, until
/// a process reports something new.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the head waits for the answers of a round. Then the answers that have come count.
const ROUND_PATIENCE: Duration = Duration::from_millis(500);
/// How many promises may stand behind each other.
const PROMISES_MAX: usize = 64;

/// The head's own knowledge of actors and resources.
pub(super) trait World {
    fn actor(&self, actor: u64) -> ActorIs;

    /// The processes among `stuck` that hold resources without which a demand never fits.
    fn holders(&self, demand: &Demand, stuck: &BTreeSet<OwnerId>) -> Option<Vec<OwnerId>>;
}

/// The stage of an actor before its first call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ActorIs {
    /// Its constructor runs in this process.
    Constructed(OwnerId),
    /// It waits for a process that holds this.
    Waiting(Demand),
    /// Its calls do not wait for the head.
    There,
}

/// Something for the state to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Asks a process whether it still waits, and which of these calls it has and has not answered. A call is
    /// identified by the process that made it and its number.
    Ask { process: OwnerId, round: u64, calls: Vec<(OwnerId, u64)> },
    /// The owner of a promise is asked what it needs.
    AskPromise { object: ObjectId, round: u64 },
    /// The wait of a process can never end.
    Report(Deadlocked),
}

/// A process in a circle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deadlocked {
    pub(super) process: OwnerId,
    /// The number of its wait.
    pub(super) wait: u64,
    /// The processes of the circle with their waits, of which the process is the first.
    pub(super) cycle: Vec<(OwnerId, Waits)>,
}

/// See the module's documentation.
#[derive(Debug, Default, Clone)]
pub(super) struct Deadlocks {
    waiting: BTreeMap<OwnerId, Told>,
    promises: BTreeMap<ObjectId, Promised>,
    round: Option<Round>,
    /// The number of the last round.
    rounds: u64,
    look_at: Option<Instant>,
    /// The last look.
    looked: Option<Instant>,
    pause: Duration,
}

/// The wait that a process has reported.
#[derive(Debug, Clone)]
struct Told {
    waits: Waits,
    /// The calls that were with the process in the last round.
    holds: BTreeSet<(OwnerId, u64)>,
    /// The round in which it confirmed this.
    confirmed: u64,
}

/// The answer of a promise's owner about it.
#[derive(Debug, Clone)]
struct Promised {
    needs: Vec<Need>,
    confirmed: u64,
}

/// Questions that were asked together, and that are not all answered.
#[derive(Debug, Clone)]
struct Round {
    number: u64,
    until: Instant,
    processes: BTreeSet<OwnerId>,
    promises: BTreeSet<ObjectId>,
}

/// The waits from which a set of stuck processes is computed.
struct View<'a, W> {
    of: &'a Deadlocks,
    world: &'a W,
    /// Only waits that were confirmed in this round count. `None`: reported waits count.
    round: Option<u64>,
}

impl Deadlocks {
    /// When to [step](Self::step) next.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let until = self.round.as_ref().map(|round| round.until).or(self.look_at)?;
        Some(until.saturating_duration_since(now))
    }

    /// A process reports, without a question, its wait or the end of its wait.
    pub(super) fn on_told(&mut self, process: OwnerId, waits: Option<Waits>, now: Instant) {
        let Some(waits) = waits else { return self.forget(process) };
        let is_new = self.waiting.get(&process).is_none_or(|told| told.waits != waits);
        if is_new {
            self.waiting.insert(process, Told { waits, holds: BTreeSet::new(), confirmed: 0 });
            // Many processes that begin to wait one after the other cost one look.
            let look_at = self.looked.map_or(now, |looked| now.max(looked + PAUSE));
            (self.look_at, self.pause) = (Some(look_at), PAUSE);
        }
    }

    /// A process answers a question.
    pub(super) fn on_answer(
        &mut self,
        process: OwnerId,
        round: u64,
        waits: Option<Waits>,
        holds: Vec<(OwnerId, u64)>,
    ) {
        let Some(asked) = self.round.as_mut().filter(|asked| asked.number == round) else { return };
        asked.processes.remove(&process);
        let Some(waits) = waits else { return self.forget(process) };
        let is_same = self.waiting.get(&process).is_some_and(|told| told.waits == waits);
        let (holds, confirmed) = (holds.into_iter().collect(), if is_same { round } else { 0 });
        self.waiting.insert(process, Told { waits, holds, confirmed });
    }

    /// The last reported wait of a process.
    pub(super) fn told(&self, process: OwnerId) -> Option<ToldWait> {
        let Told { waits: Waits { function, waits_for, at, .. }, .. } = self.waiting.get(&process)?;
        Some(ToldWait { function: function.clone(), waits_for: waits_for.clone(), at: at.clone() })
    }

    /// The owner of a promise answers a question.
    pub(super) fn on_promise(&mut self, object: ObjectId, round: u64, needs: Vec<Need>) {
        let Some(asked) = self.round.as_mut().filter(|asked| asked.number == round) else { return };
        asked.promises.remove(&object);
        self.promises.insert(object, Promised { needs, confirmed: round });
    }

    /// A process no longer waits, or is gone.
    pub(super) fn forget(&mut self, process: OwnerId) {
        self.waiting.remove(&process);
        if let Some(round) = &mut self.round {
            round.processes.remove(&process);
            round.promises.retain(|object| object.owner() != process);
        }
    }

    /// The next actions.
    pub(super) fn step(&mut self, world: &impl World, now: Instant) -> Vec<Step> {
        if let Some(round) = &self.round {
            let is_answered = round.processes.is_empty() && round.promises.is_empty();
            if !is_answered && now < round.until {
                return Vec::new();
            }
            let number = round.number;
            self.round = None;
            return self.end_round(world, number, now);
        }
        if self.look_at.is_none_or(|look_at| look_at > now) {
            return Vec::new();
        }
        (self.look_at, self.looked) = (None, Some(now));
        self.begin_round(world, now)
    }

    fn begin_round(&mut self, world: &impl World, now: Instant) -> Vec<Step> {
        let view = View { of: self, world, round: None };
        let suspects: BTreeSet<OwnerId> = view.stuck().into_keys().collect();
        let mut promises = BTreeSet::new();
        let mut calls: BTreeMap<OwnerId, BTreeSet<(OwnerId, u64)>> = BTreeMap::new();
        for process in &suspects {
            let needs = self.waiting[process].waits.results.iter().flatten();
            needs.for_each(|need| self.find_questions(*process, need, &mut promises, &mut calls));
        }
        // Answers about other promises are dropped: they are not asked for again, and do not count again.
        self.promises.retain(|object, _| promises.contains(object));
        if suspects.is_empty() {
            return Vec::new();
        }
        self.rounds += 1;
        let round = self.rounds;
        let of = |process: &OwnerId| calls.get(process).into_iter().flatten().copied().collect();
        let asks = suspects.iter().map(|process| Step::Ask { process: *process, round, calls: of(process) });
        let asks = asks.chain(promises.iter().map(|object| Step::AskPromise { object: *object, round }));
        let steps = asks.collect();
        let until = now + ROUND_PATIENCE;
        self.round = Some(Round { number: round, until, processes: suspects, promises });
        steps
    }

    /// The questions about what a result needs.
    fn find_questions(
        &self,
        owner: OwnerId,
        need: &Need,
        promises: &mut BTreeSet<ObjectId>,
        calls: &mut BTreeMap<OwnerId, BTreeSet<(OwnerId, u64)>>,
    ) {
        match need {
            Need::Call { process, task } => _ = calls.entry(*process).or_default().insert((owner, *task)),
            Need::Promise { object } if promises.insert(*object) => {
                for need in self.promises.get(object).into_iter().flat_map(|promised| &promised.needs) {
                    self.find_questions(object.owner(), need, promises, calls);
                }
            }
            _ => {}
        }
    }

    fn end_round(&mut self, world: &impl World, number: u64, now: Instant) -> Vec<Step> {
        let stuck = View { of: self, world, round: Some(number) }.stuck();
        let circles = circles::circles(&stuck);
        let reports: Vec<_> = circles
            .into_iter()
            .map(|circle| {
                let waits_of = |process: &OwnerId| (*process, self.waiting[process].waits.clone());
                let cycle: Vec<_> = circle.iter().map(waits_of).collect();
                let (process, wait) = (cycle[0].0, cycle[0].1.number);
                Step::Report(Deadlocked { process, wait, cycle })
            })
            .collect();
        if reports.is_empty() {
            // A promise whose needs are known now is asked about together with the calls that it needs.
            self.look_at = Some(now + self.pause);
            self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        } else {
            for report in &reports {
                if let Step::Report(Deadlocked { process, .. }) = report {
                    self.waiting.remove(process);
                }
            }
            (self.look_at, self.pause) = (Some(now + PAUSE), PAUSE);
        }
        reports
    }
}

impl<W: World> View<'_, W> {
    /// The processes that are stuck, each with those that it waits for.
    fn stuck(&self) -> BTreeMap<OwnerId, Vec<OwnerId>> {
        let counts = |told: &Told| self.round.is_none_or(|round| told.confirmed == round);
        let told = self.of.waiting.iter().filter(|(_, told)| counts(told));
        let mut set: BTreeSet<OwnerId> = told.map(|(process, _)| *process).collect();
        let mut edges = BTreeMap::new();
        // A process stays in the set as long as those that it waits for do. So when one leaves, only those that wait
        // for it are looked at again: the time does not grow with the square of a chain's length.
        let mut waiters: BTreeMap<OwnerId, Vec<OwnerId>> = BTreeMap::new();
        let mut to_look_at: Vec<OwnerId> = set.iter().copied().collect();
        while let Some(process) = to_look_at.pop() {
            if !set.contains(&process) {
                continue;
            }
            if let Some(targets) = self.waits_for(process, &set) {
                targets.iter().for_each(|target| waiters.entry(*target).or_default().push(process));
                edges.insert(process, targets);
            } else {
                set.remove(&process);
                edges.remove(&process);
                to_look_at.extend(waiters.remove(&process).into_iter().flatten());
            }
        }
        edges
    }

    /// The stuck processes that a process waits for, if it cannot continue without them.
    fn waits_for(&self, process: OwnerId, stuck: &BTreeSet<OwnerId>) -> Option<Vec<OwnerId>> {
        let waits = &self.of.waiting[&process].waits;
        let (mut targets, mut never) = (Vec::new(), 0);
        for needs in &waits.results {
            if let Some(found) = self.never(process, needs, stuck, 0) {
                targets.extend(found);
                never += 1;
            }
        }
        let may_come = waits.results.len() - never;
        (may_come < waits.needed as usize).then_some(targets)
    }

    /// The stuck processes that prevent the result of a call of `owner`; `None`: the result may come.
    fn never(
        &self,
        owner: OwnerId,
        needs: &[Need],
        stuck: &BTreeSet<OwnerId>,
        promises: usize,
    ) -> Option<Vec<OwnerId>> {
        let mut found: Option<Vec<OwnerId>> = None;
        for need in needs {
            let never = match need {
                Need::Call { process, task } => {
                    let is_with_it = || self.of.waiting[process].holds.contains(&(owner, *task));
                    let is_stuck = stuck.contains(process) && (self.round.is_none() || is_with_it());
                    is_stuck.then(|| vec![*process])
                }
                // Its owner is asked in each round.
                Need::Promise { .. } if self.round.is_none() => Some(Vec::new()),
                Need::Promise { object } => {
                    let promised = self.of.promises.get(object);
                    let promised = promised.filter(|promised| Some(promised.confirmed) == self.round);
                    let promised = promised.filter(|_| promises < PROMISES_MAX);
                    promised
                        .and_then(|promised| self.never(object.owner(), &promised.needs, stuck, promises + 1))
                }
                Need::Actor { actor } => match self.world.actor(*actor) {
                    ActorIs::Constructed(process) => stuck.contains(&process).then(|| vec![process]),
                    ActorIs::Waiting(demand) => self.world.holders(&demand, stuck),
                    ActorIs::There => None,
                },
                Need::Worker { demand } => self.world.holders(demand, stuck),
                Need::Unknown => None,
            };
            if let Some(never) = never {
                found.get_or_insert_default().extend(never);
            }
        }
        found
    }
}
