//! The workers of the pool, by their tokens, so that no decision looks at all of them.
//!
//! A worker *rests* while no step of its own could change a decision: an actor, or a worker whose call waits for
//! others. A session may have a thousand of them. The pool looks at the other workers one by one, and takes the numbers
//! of resting workers from this part. Every change of a worker goes through [`Workers::change`], which keeps the
//! numbers.

use std::collections::{BTreeSet, HashMap};

use mobula_client::OwnerId;

use super::{Caller, Job, Worker};

/// The workers; see the module's documentation.
pub(super) struct Workers<C> {
    all: HashMap<u64, Worker<C>>,
    /// Workers that do not rest.
    active: BTreeSet<u64>,
    /// Workers that have registered.
    by_peer: HashMap<OwnerId, u64>,
    /// Workers that are leased, by the numbers of their callers' links.
    by_lessee: HashMap<u64, BTreeSet<u64>>,
    actors: usize,
    blocked: usize,
}

/// The notes of the pool about a worker.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kept {
    rests: bool,
    peer: Option<OwnerId>,
    lessee: Option<u64>,
    is_actor: bool,
    is_blocked: bool,
}

impl Kept {
    fn of<C: Caller>(worker: &Worker<C>) -> Self {
        let is_actor = matches!(worker.job, Job::Actor { .. });
        let is_leased = matches!(worker.job, Job::Leased { .. });
        Self {
            rests: worker.broken.is_none() && (is_actor || is_leased && worker.blocked),
            peer: worker.link.as_ref().map(Caller::peer),
            lessee: worker.lessee.as_ref().filter(|_| is_leased).map(Caller::id),
            is_actor,
            is_blocked: worker.blocked,
        }
    }
}

impl<C: Caller> Workers<C> {
    pub(super) fn new() -> Self {
        Self {
            all: HashMap::new(),
            active: BTreeSet::new(),
            by_peer: HashMap::new(),
            by_lessee: HashMap::new(),
            actors: 0,
            blocked: 0,
        }
    }

    /// The number of workers.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of those that are actors.
    pub(super) fn actors(&self) -> usize {
        self.actors
    }

    /// The number of those whose calls wait for others.
    pub(super) fn blocked(&self) -> usize {
        self.blocked
    }

    pub(super) fn get(&self, token: u64) -> Option<&Worker<C>> {
        self.all.get(&token)
    }

    /// The worker whose process is at the other end of links to this client.
    pub(super) fn at(&self, peer: OwnerId) -> Option<(u64, &Worker<C>)> {
        let token = *self.by_peer.get(&peer)?;
        Some((token, self.get(token)?))
    }

    /// The workers that are leased to a caller.
    pub(super) fn leased_to(&self, caller: &C) -> impl Iterator<Item = (u64, &Worker<C>)> {
        self.those(self.by_lessee.get(&caller.id()).into_iter().flatten())
    }

    /// The workers that do not rest.
    pub(super) fn active(&self) -> impl Iterator<Item = (u64, &Worker<C>)> {
        self.those(self.active.iter())
    }

    /// All workers. Takes a time that grows with their number.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &Worker<C>)> {
        self.all.iter().map(|(token, worker)| (*token, worker))
    }

    fn those<'a>(
        &'a self,
        tokens: impl Iterator<Item = &'a u64>,
    ) -> impl Iterator<Item = (u64, &'a Worker<C>)> {
        tokens.filter_map(|token| Some((*token, self.get(*token)?)))
    }

    pub(super) fn add(&mut self, token: u64, worker: Worker<C>) {
        self.remove(token);
        self.keep(token, Kept::of(&worker));
        self.all.insert(token, worker);
    }

    pub(super) fn remove(&mut self, token: u64) -> Option<Worker<C>> {
        let worker = self.all.remove(&token)?;
        self.forget(token, Kept::of(&worker));
        Some(worker)
    }

    /// Changes a worker, if there is one.
    pub(super) fn change<R>(&mut self, token: u64, change: impl FnOnce(&mut Worker<C>) -> R) -> Option<R> {
        let worker = self.all.get_mut(&token)?;
        let before = Kept::of(worker);
        let result = change(worker);
        let after = Kept::of(worker);
        if before != after {
            self.forget(token, before);
            self.keep(token, after);
        }
        Some(result)
    }

    fn keep(&mut self, token: u64, kept: Kept) {
        if !kept.rests {
            self.active.insert(token);
        }
        if let Some(peer) = kept.peer {
            self.by_peer.insert(peer, token);
        }
        if let Some(lessee) = kept.lessee {
            self.by_lessee.entry(lessee).or_default().insert(token);
        }
        self.actors += usize::from(kept.is_actor);
        self.blocked += usize::from(kept.is_blocked);
    }

    fn forget(&mut self, token: u64, kept: Kept) {
        self.active.remove(&token);
        if let Some(peer) = kept.peer.filter(|peer| self.by_peer.get(peer) == Some(&token)) {
            self.by_peer.remove(&peer);
        }
        if let Some(lessee) = kept.lessee
            && let Some(tokens) = self.by_lessee.get_mut(&lessee)
        {
            tokens.remove(&token);
            if tokens.is_empty() {
                self.by_lessee.remove(&lessee);
            }
        }
        self.actors -= usize::from(kept.is_actor);
        self.blocked -= usize::from(kept.is_blocked);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::demand::Demand;
    use crate::environment::Environment;
    use crate::resources::Resources;

    #[derive(Clone)]
    struct End(u16);

    impl Caller for End {
        fn id(&self) -> u64 {
            self.0.into()
        }

        fn peer(&self) -> OwnerId {
            OwnerId::new(self.0, 1)
        }
    }

    fn worker(number: u16) -> Worker<End> {
        Worker {
            pid: number.into(),
            environment: Environment::USUAL,
            gpus: Vec::new(),
            link: Some(End(number)),
            job: Job::Idle { since: Instant::now() },
            lessee: None,
            given: None,
            demand: Demand::nothing(),
            held: Resources::default(),
            blocked: false,
            spent: false,
            keeps: false,
            broken: None,
            killed: false,
        }
    }

    #[test]
    fn workers_that_rest_are_found_and_not_passed_over() {
        let (caller, mut workers) = (End(1000), Workers::new());
        for number in 0..100 {
            workers.add(number.into(), worker(number));
        }
        for token in 0..90 {
            workers.change(token, |worker| match token % 2 {
                0 => worker.job = Job::Actor { actor: token },
                _ => {
                    worker.job = Job::Leased { recalled: false };
                    worker.lessee = Some(caller.clone());
                    worker.blocked = true;
                }
            });
        }
        assert_eq!((workers.len(), workers.active().count()), (100, 10));
        assert_eq!((workers.actors(), workers.blocked()), (45, 45));
        assert_eq!(workers.leased_to(&caller).count(), 45);
        assert_eq!(workers.at(OwnerId::new(7, 1)).map(|(token, _)| token), Some(7));
        // One goes on, one is broken, and one ends.
        workers.change(1, |worker| worker.blocked = false);
        workers.change(2, |worker| worker.broken = Some(Instant::now()));
        assert!(workers.remove(3).is_some_and(|worker| worker.blocked));
        assert_eq!((workers.len(), workers.active().count()), (99, 12));
        assert_eq!((workers.actors(), workers.blocked()), (45, 43));
        assert_eq!(workers.leased_to(&caller).count(), 44);
        assert!(workers.at(OwnerId::new(3, 1)).is_none());
        for token in 0..100 {
            workers.remove(token);
        }
        assert!(workers.active.is_empty() && workers.by_peer.is_empty() && workers.by_lessee.is_empty());
        assert_eq!((workers.actors(), workers.blocked()), (0, 0));
    }
}
