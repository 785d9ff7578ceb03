//! Deadlocks: calls that wait for each other in a circle. Each call in the circle gets an error, and continues.
//!
//! A process reports a wait of a call when it has lasted for a while ([`Waits`]), and the end of that wait. From these
//! reports, the head knows which waits may be *stuck*: the greatest set of waits each of which needs something that
//! does not come before another wait of the set is over. This set may be too large, because the reports are not of one
//! moment: a result may be on its way. So the head asks all of these processes again. Each may answer that it is still
//! in the same waits, and that it still has the calls that were sent to it ([`Held`]). The reports came before the
//! question and the answers after it. If they agree, the state held at the question. None of these waits can end before
//! another one does, so none ever will.
//!
//! A process that runs one call at a time does not answer its calls before the wait of the running one is over. In an
//! actor that runs several at a time, a call that waits is not answered before its own wait is over. A call that has
//! not begun is not answered before one of the calls ends that have the places of its lane. So it never is if all of
//! these calls wait, and are stuck. The process says this of each of its calls, because it knows its lanes. The head
//! only deals in sets of waits, of each of which one must end.
//!
//! A wait for all of several results ends when one of them fails. So it is stuck if none of the results that are
//! missing can come.
//!
//! A wait that could end in another way is not part of a deadlock. The wait, the waiting call or the awaited call may
//! have a time limit. The waiting thread may not be one that runs calls. The next item of a stream may be on its way. A
//! promise may have no call. Such a process reports nothing, or that it does not know. So each deadlock that the head
//! finds is real, and the head does not find a deadlock with such a wait in it. It does not matter that a program could
//! cancel a call or kill an actor.
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
use crate::wire::{Held, Need, ToldWait, WAITS_MAX, Waits};

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
    /// Asks a process for its waits, and which of these calls it has and has not answered. A call is identified by
    /// the process that made it and its number.
    Ask { process: OwnerId, round: u64, calls: Vec<(OwnerId, u64)> },
    /// The owner of a promise is asked what it needs.
    AskPromise { object: ObjectId, round: u64 },
    /// The wait of a process can never end.
    Report(Deadlocked),
}

/// A wait in a circle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deadlocked {
    pub(super) process: OwnerId,
    /// The number of its wait.
    pub(super) wait: u64,
    /// The waits of the circle, of which this one is the first. Behind them are those that have the other places of an
    /// actor in the circle.
    pub(super) cycle: Vec<(OwnerId, Waits)>,
}

/// A wait: its process, and its number there.
type WaitId = (OwnerId, u64);

/// The name of a call: the process that made it, and its number.
type CallName = (OwnerId, u64);

/// See the module's documentation.
#[derive(Debug, Default, Clone)]
pub(super) struct Deadlocks {
    waiting: BTreeMap<WaitId, Told>,
    /// The calls that each process had in the last round.
    holds: BTreeMap<OwnerId, Holds>,
    promises: BTreeMap<ObjectId, Promised>,
    round: Option<Round>,
    /// The number of the last round.
    rounds: u64,
    look_at: Option<Instant>,
    /// The last look.
    looked: Option<Instant>,
    pause: Duration,
}

/// A wait that a process has reported.
#[derive(Debug, Clone)]
struct Told {
    waits: Waits,
    /// The round in which the process confirmed it.
    confirmed: u64,
}

/// The answer of a process about the calls that it has.
#[derive(Debug, Clone, Default)]
struct Holds {
    /// The sets of waits that hold each call back, and the number of items that it has sent.
    calls: BTreeMap<CallName, (Vec<Vec<u64>>, u64)>,
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

/// The waits from which a set of stuck waits is computed.
struct View<'a, W> {
    of: &'a Deadlocks,
    world: &'a W,
    /// Only waits that were confirmed in this round count. `None`: reported waits count.
    round: Option<u64>,
}

/// The waits that are stuck.
#[derive(Default)]
struct Stuck {
    waits: BTreeSet<WaitId>,
    /// The processes whose waits are stuck, and that keep their resources as long as they are.
    holders: BTreeSet<OwnerId>,
}

impl Deadlocks {
    /// When to [step](Self::step) next.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let until = self.round.as_ref().map(|round| round.until).or(self.look_at)?;
        Some(until.saturating_duration_since(now))
    }

    /// A process reports a wait, without a question.
    pub(super) fn on_told(&mut self, process: OwnerId, waits: Waits, now: Instant) {
        let id = (process, waits.number);
        let is_known = self.waiting.contains_key(&id);
        if !is_known && self.of_process(process).count() >= WAITS_MAX {
            return;
        }
        if self.waiting.get(&id).is_none_or(|told| told.waits != waits) {
            self.waiting.insert(id, Told { waits, confirmed: 0 });
            // Many processes that begin to wait one after the other cost one look.
            let look_at = self.looked.map_or(now, |looked| now.max(looked + PAUSE));
            (self.look_at, self.pause) = (Some(look_at), PAUSE);
        }
    }

    /// A wait that was reported is over.
    pub(super) fn on_over(&mut self, process: OwnerId, wait: u64) {
        self.waiting.remove(&(process, wait));
    }

    /// A process answers a question: all its waits, and those of the calls that it has.
    pub(super) fn on_answer(&mut self, process: OwnerId, round: u64, waits: Vec<Waits>, holds: Vec<Held>) {
        let Some(asked) = self.round.as_mut().filter(|asked| asked.number == round) else { return };
        if !asked.processes.remove(&process) {
            return;
        }
        let before: Vec<WaitId> = self.of_process(process).map(|(id, _)| *id).collect();
        let mut before: BTreeMap<WaitId, Told> =
            before.into_iter().filter_map(|id| Some((id, self.waiting.remove(&id)?))).collect();
        for waits in waits.into_iter().take(WAITS_MAX) {
            let id = (process, waits.number);
            let is_same = before.remove(&id).is_some_and(|told| told.waits == waits);
            self.waiting.insert(id, Told { waits, confirmed: if is_same { round } else { 0 } });
        }
        let calls =
            holds.into_iter().map(|held| ((held.caller, held.task), (held.behind, held.items))).collect();
        self.holds.insert(process, Holds { calls, confirmed: round });
    }

    /// A wait that a process has reported, the oldest.
    pub(super) fn told(&self, process: OwnerId) -> Option<ToldWait> {
        let (_, Told { waits: Waits { function, waits_for, at, .. }, .. }) =
            self.of_process(process).next()?;
        Some(ToldWait { function: function.clone(), waits_for: waits_for.clone(), at: at.clone() })
    }

    /// The waits that a process has reported.
    fn of_process(&self, process: OwnerId) -> impl Iterator<Item = (&WaitId, &Told)> {
        self.waiting.range((process, 0)..=(process, u64::MAX))
    }

    /// The owner of a promise answers a question.
    pub(super) fn on_promise(&mut self, object: ObjectId, round: u64, needs: Vec<Need>) {
        let Some(asked) = self.round.as_mut().filter(|asked| asked.number == round) else { return };
        asked.promises.remove(&object);
        self.promises.insert(object, Promised { needs, confirmed: round });
    }

    /// A process is gone.
    pub(super) fn forget(&mut self, process: OwnerId) {
        self.waiting.retain(|(its, _), _| *its != process);
        self.holds.remove(&process);
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
        let suspects: Vec<WaitId> = view.stuck().into_keys().collect();
        let mut promises = BTreeSet::new();
        let mut calls: BTreeMap<OwnerId, BTreeSet<CallName>> = BTreeMap::new();
        for wait in &suspects {
            let needs = self.waiting[wait].waits.results.iter().flatten();
            needs.for_each(|need| self.find_questions(wait.0, need, &mut promises, &mut calls));
        }
        // Answers about other promises are dropped: they are not asked for again, and do not count again.
        self.promises.retain(|object, _| promises.contains(object));
        self.holds.clear();
        if suspects.is_empty() {
            return Vec::new();
        }
        self.rounds += 1;
        let round = self.rounds;
        let processes: BTreeSet<OwnerId> = suspects.into_iter().map(|(process, _)| process).collect();
        let of = |process: &OwnerId| calls.get(process).into_iter().flatten().copied().collect();
        let asks = processes.iter().map(|process| Step::Ask { process: *process, round, calls: of(process) });
        let asks = asks.chain(promises.iter().map(|object| Step::AskPromise { object: *object, round }));
        let steps = asks.collect();
        let until = now + ROUND_PATIENCE;
        self.round = Some(Round { number: round, until, processes, promises });
        steps
    }

    /// The questions about what a result needs.
    fn find_questions(
        &self,
        owner: OwnerId,
        need: &Need,
        promises: &mut BTreeSet<ObjectId>,
        calls: &mut BTreeMap<OwnerId, BTreeSet<CallName>>,
    ) {
        match need {
            Need::Call { process, task } | Need::Item { process, task, .. } => {
                calls.entry(*process).or_default().insert((owner, *task));
            }
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
            .map(|mut circle| {
                add_places(&mut circle, &stuck);
                let waits_of = |wait: &WaitId| (wait.0, self.waiting[wait].waits.clone());
                let cycle: Vec<_> = circle.iter().map(waits_of).collect();
                let (process, wait) = circle[0];
                Deadlocked { process, wait, cycle }
            })
            .collect();
        if reports.is_empty() {
            // A promise whose needs are known now is asked about together with the calls that it needs.
            self.look_at = Some(now + self.pause);
            self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        } else {
            for Deadlocked { process, wait, .. } in &reports {
                self.waiting.remove(&(*process, *wait));
            }
            (self.look_at, self.pause) = (Some(now + PAUSE), PAUSE);
        }
        reports.into_iter().map(Step::Report).collect()
    }
}

/// Adds the waits that have the other places of an actor in the circle.
fn add_places(circle: &mut Vec<WaitId>, stuck: &BTreeMap<WaitId, Vec<WaitId>>) {
    let size = circle.len();
    for position in 0..size {
        let next = circle[(position + 1) % size];
        for target in &stuck[&circle[position]] {
            if target.0 == next.0 && !circle.contains(target) {
                circle.push(*target);
            }
        }
    }
}

impl<W: World> View<'_, W> {
    /// The waits that are stuck, each with those that it needs the end of.
    fn stuck(&self) -> BTreeMap<WaitId, Vec<WaitId>> {
        let counts = |told: &Told| self.round.is_none_or(|round| told.confirmed == round);
        let mut set = Stuck::default();
        for (id, told) in self.of.waiting.iter().filter(|(_, told)| counts(told)) {
            set.waits.insert(*id);
            if told.waits.is_only {
                set.holders.insert(id.0);
            }
        }
        let mut edges = BTreeMap::new();
        // A wait stays in the set as long as those that it needs do. So when one leaves, only those that need it are
        // looked at again: the time does not grow with the square of a chain's length.
        let mut waiters: BTreeMap<WaitId, Vec<WaitId>> = BTreeMap::new();
        let mut to_look_at: Vec<WaitId> = set.waits.iter().copied().collect();
        while let Some(wait) = to_look_at.pop() {
            if !set.waits.contains(&wait) {
                continue;
            }
            if let Some(targets) = self.waits_for(wait, &set) {
                targets.iter().for_each(|target| waiters.entry(*target).or_default().push(wait));
                edges.insert(wait, targets);
            } else {
                set.waits.remove(&wait);
                // A process of which `is_only` holds has one wait.
                set.holders.remove(&wait.0);
                edges.remove(&wait);
                to_look_at.extend(waiters.remove(&wait).into_iter().flatten());
            }
        }
        edges
    }

    /// The stuck waits of which one must end before this one can.
    fn waits_for(&self, wait: WaitId, stuck: &Stuck) -> Option<Vec<WaitId>> {
        let waits = &self.of.waiting[&wait].waits;
        let (mut targets, mut never) = (Vec::new(), 0);
        for needs in &waits.results {
            if let Some(found) = self.never(wait.0, needs, stuck, 0) {
                targets.extend(found);
                never += 1;
            }
        }
        let may_come = waits.results.len() - never;
        (may_come < waits.needed as usize).then_some(targets)
    }

    /// The stuck waits that prevent the result of a call of `owner`; `None`: the result may come.
    fn never(&self, owner: OwnerId, needs: &[Need], stuck: &Stuck, promises: usize) -> Option<Vec<WaitId>> {
        let mut found: Option<Vec<WaitId>> = None;
        for need in needs {
            let never = match need {
                Need::Call { process, task } => self.never_answers(*process, (owner, *task), u64::MAX, stuck),
                // It was not sent, so it is not on its way.
                Need::Item { process, task, position } => {
                    self.never_answers(*process, (owner, *task), *position, stuck)
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
                    ActorIs::Constructed(process) => self.waits_of(process, stuck),
                    ActorIs::Waiting(demand) => self.never_fits(&demand, stuck),
                    ActorIs::There => None,
                },
                Need::Worker { demand } => self.never_fits(demand, stuck),
                Need::Unknown => None,
            };
            if let Some(never) = never {
                found.get_or_insert_default().extend(never);
            }
        }
        found
    }

    /// The stuck waits of which one must end before a process answers a call, or sends more items for it than so many.
    fn never_answers(
        &self,
        process: OwnerId,
        call: CallName,
        items_max: u64,
        stuck: &Stuck,
    ) -> Option<Vec<WaitId>> {
        let Some(round) = self.round else { return self.waits_of(process, stuck) };
        let holds = self.of.holds.get(&process).filter(|holds| holds.confirmed == round)?;
        let mut found: Option<Vec<WaitId>> = None;
        let (behind, _) = holds.calls.get(&call).filter(|(_, items)| *items <= items_max)?;
        for set in behind {
            let mut waits = set.iter().map(|wait| (process, *wait));
            if !set.is_empty() && waits.clone().all(|wait| stuck.waits.contains(&wait)) {
                found.get_or_insert_default().extend(&mut waits);
            }
        }
        found
    }

    /// The stuck processes that hold what a demand needs, as their waits.
    fn never_fits(&self, demand: &Demand, stuck: &Stuck) -> Option<Vec<WaitId>> {
        let holders = self.world.holders(demand, &stuck.holders)?;
        Some(holders.into_iter().filter_map(|process| self.waits_of(process, stuck)).flatten().collect())
    }

    /// The stuck waits of a process; `None`: it has none.
    fn waits_of(&self, process: OwnerId, stuck: &Stuck) -> Option<Vec<WaitId>> {
        let waits: Vec<_> = stuck.waits.range((process, 0)..=(process, u64::MAX)).copied().collect();
        (!waits.is_empty()).then_some(waits)
    }
}
