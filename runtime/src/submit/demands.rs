//! The worker leases of a process, by the demands of the calls: a worker that is leased for one demand runs calls of
//! that demand alone. The usual demand always has its [leases](Leases). Another demand has leases while it has a
//! worker, a waiting call, or a request at the head.

use std::time::Instant;

use mobula_client::OwnerId;
use rustc_hash::FxHashMap;

use super::leases::{Ended, Leases, Room};
use crate::demand::Demand;

/// Leases by demand; see the module's documentation.
pub(crate) struct LeasesByDemand<C, W> {
    usual: Leases<C, W>,
    others: FxHashMap<Demand, Leases<C, W>>,
}

impl<C, W> Default for LeasesByDemand<C, W> {
    fn default() -> Self {
        Self { usual: Leases::default(), others: FxHashMap::default() }
    }
}

impl<C, W> LeasesByDemand<C, W> {
    /// The leases for calls of a demand.
    pub(crate) fn of(&mut self, demand: &Demand) -> &mut Leases<C, W> {
        if demand.is_usual() {
            return &mut self.usual;
        }
        // Two steps, because a demand that is there needs no clone.
        if !self.others.contains_key(demand) {
            self.others.insert(demand.clone(), Leases::default());
        }
        self.others.get_mut(demand).expect("just looked for")
    }

    /// Whether no worker is leased.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().all(Leases::is_empty)
    }

    /// Whether calls wait for a worker.
    pub(crate) fn has_waiting(&self) -> bool {
        self.all().any(Leases::has_waiting)
    }

    /// The number of calls that wait for a worker.
    pub(crate) fn waiting_count(&self) -> usize {
        self.all().map(Leases::waiting_count).sum()
    }

    /// The calls that wait for a worker.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &C> {
        self.all().flat_map(Leases::waiting)
    }

    /// A leased worker.
    pub(crate) fn worker(&self, worker: OwnerId) -> Option<&W> {
        self.all().find_map(|leases| leases.worker(worker))
    }

    /// The workers at work that get more calls, because some wait.
    pub(crate) fn at_work(&self) -> impl Iterator<Item = &W> {
        self.all().filter(|leases| leases.has_waiting()).flat_map(Leases::at_work)
    }

    /// The next call that waits, and the worker that has room for it.
    pub(crate) fn next(&mut self) -> Option<(C, Room<'_, W>)> {
        self.all_mut().find_map(Leases::next)
    }

    /// The demands with a changed number of wanted workers, which the head does not know yet, and that number.
    pub(crate) fn wants(&mut self) -> Vec<(Demand, u32)> {
        let usual = self.usual.want().map(|workers| (Demand::default(), workers));
        let others = &mut self.others;
        let others = others.iter_mut().filter_map(|(demand, leases)| Some((demand.clone(), leases.want()?)));
        usual.into_iter().chain(others).collect()
    }

    /// Removes and returns those of the calls that wait.
    pub(crate) fn take_if(&mut self, is_chosen: impl Fn(&C) -> bool) -> Vec<C> {
        self.all_mut().flat_map(|leases| leases.take_if(&is_chosen)).collect()
    }

    /// Removes and returns all calls that wait.
    pub(crate) fn take_all_waiting(&mut self) -> Vec<C> {
        self.all_mut().flat_map(Leases::take_waiting).collect()
    }

    /// The head wants a worker back, as soon as its calls are over.
    pub(crate) fn recall(&mut self, worker: OwnerId) {
        self.all_mut().for_each(|leases| leases.recall(worker));
    }

    /// Removes the lease of a worker that can no longer be reached.
    pub(crate) fn gone(&mut self, worker: OwnerId) -> Option<W> {
        self.all_mut().find_map(|leases| leases.gone(worker))
    }

    /// Removes and returns the leases that are over, and forgets the demands that are no longer in use.
    pub(crate) fn take_ended(&mut self, now: Instant) -> Vec<Ended> {
        let ended = self.all_mut().flat_map(|leases| leases.take_ended(now)).collect();
        self.others.retain(|_, leases| leases.is_in_use());
        ended
    }

    fn all(&self) -> impl Iterator<Item = &Leases<C, W>> {
        std::iter::once(&self.usual).chain(self.others.values())
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Leases<C, W>> {
        std::iter::once(&mut self.usual).chain(self.others.values_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Key;
    use crate::resources::Amounts;

    fn demand(cpus: f64) -> Demand {
        Demand::of(Amounts { num_cpus: Some(cpus), ..Amounts::default() }.resolve(1.0).unwrap())
    }

    /// Sends the next call. Returns it with its worker.
    fn sent_next(leases: &mut LeasesByDemand<u32, ()>) -> Option<(u32, OwnerId)> {
        leases.next().map(|(call, room)| (call, room.take()))
    }

    /// Otherwise each call would wait for the head.
    #[test]
    fn a_loop_of_calls_with_one_demand_asks_the_head_once() {
        let (mut leases, key, now) =
            (LeasesByDemand::<u32, ()>::default(), Key::from_bits(1), Instant::now());
        for (slot, cpus) in [1.0, 0.5, 2.0].into_iter().enumerate() {
            let (demand, worker) = (demand(cpus), OwnerId::new(slot as u16, 1));
            leases.of(&demand).queue(key, 0);
            assert_eq!(leases.wants(), [(demand.clone(), 1)]);
            leases.of(&demand).granted(worker, Some(()), now);
            assert_eq!(sent_next(&mut leases), Some((0, worker)));
            leases.of(&demand).call_over(worker, key, Some(1000), || now);
            for _ in 0..100 {
                assert_eq!(leases.of(&demand).room_at_once(key).map(Room::take), Some(worker));
                leases.of(&demand).call_over(worker, key, Some(1000), || now);
            }
            assert_eq!(leases.wants(), []);
        }
        // A call of one demand never goes to a worker of another.
        assert!(leases.of(&demand(4.0)).room_at_once(key).is_none());
    }

    #[test]
    fn a_demand_that_is_not_in_use_any_more_is_forgotten() {
        let (mut leases, key, mut now) =
            (LeasesByDemand::<u32, ()>::default(), Key::from_bits(1), Instant::now());
        for cpus in 2..100 {
            let (demand, worker) = (demand(f64::from(cpus)), OwnerId::new(1, u64::from(cpus)));
            leases.of(&demand).queue(key, cpus);
            assert_eq!(leases.wants(), [(demand.clone(), 1)]);
            leases.of(&demand).granted(worker, Some(()), now);
            assert_eq!(sent_next(&mut leases), Some((cpus, worker)));
            assert_eq!(leases.take_ended(now), []);
            leases.of(&demand).call_over(worker, key, Some(1000), || now);
            now += super::super::leases::LEASE_KEPT;
            assert_eq!(leases.take_ended(now), [Ended { worker, is_busy: false }]);
            assert!(leases.others.is_empty() && leases.is_empty() && !leases.has_waiting());
        }
    }
}
