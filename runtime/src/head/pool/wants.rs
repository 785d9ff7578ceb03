//! The callers that want workers, and the actors that demand resources and wait for a process, in the order in which
//! they are served.
//!
//! They are served in rotation. A caller whose demand does not fit lets the callers behind it go first, so small
//! demands use resources that a large one cannot use yet. This has an end: a caller that has waited for [`PATIENCE`]
//! without a worker *reserves*: the resources that it demands are given to no other caller until it is served.
//!
//! A reservation is not permanent, because running calls may wait for calls that could then never begin, in ways that
//! the head does not see. The caller reserves for a while and then lets others go first for a while. Each while is
//! twice as long as the one before. So at some time the reservation lasts longer than the calls that have to end for
//! it. A call blocked by the reservation also continues eventually.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;

use super::Caller;
use crate::demand::Demand;
use crate::environment::Environment;

/// How long a caller waits for its first worker before it reserves. Its first reservation lasts as long.
const PATIENCE: Duration = Duration::from_millis(100);

/// A caller, or an actor, that waits for a process.
#[derive(Debug, Clone)]
pub(super) enum Requester<C> {
    /// A caller, for calls of one demand.
    Caller(C),
    /// An actor that demands something. It gets one process, and keeps what it demands for life.
    Actor(u64),
    /// A placement group. It needs no process, and keeps its resources until it is removed.
    Group(u64),
}

impl<C: Caller> Requester<C> {
    pub(super) fn is(&self, caller: &C) -> bool {
        matches!(self, Self::Caller(it) if it.id() == caller.id())
    }

    /// Whether it is the caller in this process.
    pub(super) fn is_in(&self, process: Option<OwnerId>) -> bool {
        matches!(self, Self::Caller(it) if process == Some(it.peer()))
    }
}

/// A want: one caller, actor or group waits for processes for one demand.
#[derive(Debug)]
pub(super) struct Want<C> {
    pub(super) requester: Requester<C>,
    pub(super) demand: Demand,
    pub(super) workers: u32,
    /// When it began to wait, or was served last.
    pub(super) since: Instant,
}

impl<C> Want<C> {
    pub(super) fn is_group(&self) -> bool {
        matches!(self.requester, Requester::Group(_))
    }

    /// Whether it reserves its demand, if it has no worker.
    pub(super) fn is_reserving(&self, now: Instant) -> bool {
        self.waited(now).is_some_and(|(doublings, _)| doublings % 2 == 0)
    }

    /// The time until it begins or ends to reserve.
    pub(super) fn changes_in(&self, now: Instant) -> Duration {
        self.waited(now).map_or_else(|| PATIENCE.saturating_sub(now - self.since), |(_, next)| next)
    }

    /// The number of doublings of its patience that it has waited through, and the time until the next one.
    fn waited(&self, now: Instant) -> Option<(u32, Duration)> {
        let waited = now.saturating_duration_since(self.since);
        let doublings = (waited.as_nanos() / PATIENCE.as_nanos()).checked_ilog2()?;
        let next = PATIENCE.saturating_mul(1 << (doublings + 1).min(31));
        Some((doublings, next.saturating_sub(waited)))
    }
}

/// The wants of all callers, in the order in which they are served.
#[derive(Debug)]
pub(super) struct Wants<C>(Vec<Want<C>>);

impl<C: Caller> Wants<C> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Want<C>> {
        self.0.iter()
    }

    /// A caller wants this many more workers of a demand. Replaces its earlier request.
    pub(super) fn set(&mut self, caller: &C, demand: Demand, workers: u32, now: Instant) {
        let same = |want: &Want<C>| want.requester.is(caller) && want.demand == demand;
        match self.0.iter().position(same) {
            Some(position) if workers == 0 => _ = self.0.remove(position),
            Some(position) => self.0[position].workers = workers,
            None if workers == 0 => {}
            None => {
                self.0.push(Want {
                    requester: Requester::Caller(caller.clone()),
                    demand,
                    workers,
                    since: now,
                });
            }
        }
    }

    /// Sets the actors that wait for a process. It replaces all earlier ones.
    pub(super) fn set_actors(&mut self, actors: HashMap<u64, &Demand>, now: Instant) {
        let mut new = actors;
        self.0.retain(|want| match want.requester {
            Requester::Actor(actor) => new.remove(&actor).is_some(),
            Requester::Caller(_) | Requester::Group(_) => true,
        });
        let mut new: Vec<_> = new.into_iter().collect();
        new.sort_unstable_by_key(|(actor, _)| *actor);
        for (actor, demand) in new {
            let requester = Requester::Actor(actor);
            self.0.push(Want { requester, demand: demand.clone(), workers: 1, since: now });
        }
    }

    /// A placement group waits for its resources.
    pub(super) fn add_group(&mut self, group: u64, demand: Demand, now: Instant) {
        self.0.push(Want { requester: Requester::Group(group), demand, workers: 1, since: now });
    }

    /// A placement group no longer waits, and no call or actor waits for one of its resources.
    pub(super) fn remove_group(&mut self, group: u64) -> Vec<Want<C>> {
        let is_of_it = |want: &mut Want<C>| match want.requester {
            Requester::Group(number) => number == group,
            _ => want.demand.group() == Some(group),
        };
        self.0.extract_if(.., is_of_it).collect()
    }

    /// Removes all wants of a caller.
    pub(super) fn forget(&mut self, caller: &C) {
        self.0.retain(|want| !want.requester.is(caller));
    }

    /// Removes and returns those for processes of an environment.
    pub(super) fn take_all_of(&mut self, environment: &Environment) -> Vec<Want<C>> {
        self.0.extract_if(.., |want| !want.is_group() && want.demand.environment() == environment).collect()
    }

    pub(super) fn remove(&mut self, position: usize) -> Want<C> {
        self.0.remove(position)
    }

    /// One worker is granted to the want at this position. It goes to the end of the order for its next one.
    pub(super) fn served(&mut self, position: usize, now: Instant) -> (Requester<C>, Demand) {
        let mut want = self.0.remove(position);
        let served = (want.requester.clone(), want.demand.clone());
        want.workers -= 1;
        want.since = now;
        if want.workers > 0 {
            self.0.push(want);
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_lasts_longer_each_time_and_so_does_the_time_without() {
        let since = Instant::now();
        let requester = Requester::<()>::Actor(1);
        let want = Want { requester, demand: Demand::default(), workers: 1, since };
        let (mut now, mut spans) = (since, Vec::new());
        for _ in 0..8 {
            let next = want.changes_in(now);
            spans.push((want.is_reserving(now), next.as_millis()));
            now += next;
        }
        let expected = [100, 100, 200, 400, 800, 1600, 3200, 6400];
        let expected: Vec<_> = expected.into_iter().enumerate().map(|(n, span)| (n % 2 == 1, span)).collect();
        assert_eq!(spans, expected);
    }
}
