//! The division of a session's resources among its drivers: a pool whose callers are drivers, and whose workers are
//! leases. A lease takes no process, so there is always one more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use mobula_client::OwnerId;

use super::super::pool::{Caller, Decision, NewProcess, Pool};
use super::{FromSession, Lease, ToSession};
use crate::demand::Demand;
use crate::resources::Resources;

/// More leases than this are not granted.
const LEASES_MAX: usize = 1 << 20;
/// The time after a restart in which no lease is granted, because drivers may have leases that this process does not
/// know yet.
pub(super) const RESUME_WINDOW: Duration = Duration::from_secs(1);

/// A driver, or a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End(u64);

impl Caller for End {
    fn id(&self) -> u64 {
        self.0
    }

    fn peer(&self) -> OwnerId {
        OwnerId::from_bits(self.0)
    }
}

/// See the module's documentation.
pub(crate) struct Division {
    pub(super) pool: Pool<End>,
    /// The leases that are granted, and the driver that has each.
    pub(super) leases: BTreeMap<u64, u64>,
    lease_last: u64,
    /// The time before which nothing is granted.
    begins: Option<Instant>,
    /// The drivers that ask what is free.
    asked: Vec<u64>,
}

impl std::fmt::Debug for Division {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Division").field("leases", &self.leases).finish_non_exhaustive()
    }
}

impl Division {
    /// Divides these resources. `resumes`: another process did so before, and its drivers may come back.
    pub(crate) fn new(total: Resources, resumes: bool, now: Instant) -> Self {
        // Numbers of leases are not used again, also not by a process that takes the place of this one.
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            pool: Pool::new(1, LEASES_MAX, total),
            leases: BTreeMap::new(),
            lease_last: time.as_nanos() as u64,
            begins: resumes.then(|| now + RESUME_WINDOW),
            asked: Vec::new(),
        }
    }

    pub(super) fn on_record(&mut self, driver: u64, record: ToSession, now: Instant) {
        let caller = End(driver);
        match record {
            ToSession::Join { leases } => {
                leases.into_iter().for_each(|lease| self.resume_lease(driver, lease, now))
            }
            ToSession::Want { demand, leases } => self.pool.want(&caller, Demand::of(demand), leases, now),
            ToSession::Return { lease } if self.leases.get(&lease) == Some(&driver) => {
                self.leases.remove(&lease);
                self.pool.set_idle(lease, now);
            }
            ToSession::Keep { lease } if self.leases.get(&lease) == Some(&driver) => {
                self.pool.set_kept(lease);
            }
            // A lease that it does not have.
            ToSession::Return { .. } | ToSession::Keep { .. } => {}
            ToSession::AskFree => self.asked.push(driver),
            // Not about resources.
            ToSession::Stop => {}
        }
    }

    /// A driver has a lease from the process before this one.
    fn resume_lease(&mut self, driver: u64, lease: Lease, now: Instant) {
        let Lease { number, demand, gpus } = lease;
        if self.leases.insert(number, driver).is_some() {
            return;
        }
        let demand = Demand::of(demand);
        self.add(number, NewProcess { environment: demand.environment().clone(), gpus }, now);
        self.pool.lease(number, &End(driver), demand, now);
    }

    /// A driver has ended, and its leases with it.
    pub(super) fn gone(&mut self, driver: u64, now: Instant) {
        self.pool.caller_gone(&End(driver), now);
        for (lease, _) in self.leases.extract_if(.., |_, its| *its == driver) {
            self.pool.remove(lease);
        }
    }

    /// The time until work is due without a message; `None`: no work is due.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        match self.begins {
            Some(begins) => Some(begins.saturating_duration_since(now)),
            None => self.pool.wants_change_in(now),
        }
    }

    /// Grants and recalls leases. Returns the messages to drivers.
    pub(super) fn arrange(&mut self, now: Instant) -> Vec<(u64, FromSession)> {
        let free = |driver| (driver, FromSession::Free { resources: self.pool.free() });
        let mut messages: Vec<_> = std::mem::take(&mut self.asked).into_iter().map(free).collect();
        if self.begins.is_some_and(|begins| now < begins) {
            return messages;
        }
        self.begins = None;
        loop {
            for decision in self.pool.arrange(now) {
                self.carry_out(decision, now, &mut messages);
            }
            let lacking = self.pool.lacking(0, now);
            if lacking.is_empty() {
                break;
            }
            for lease in lacking {
                self.lease_last += 1;
                self.add(self.lease_last, lease, now);
            }
        }
        if let Some(decision) = self.pool.level(now) {
            self.carry_out(decision, now, &mut messages);
        }
        self.pool.remove_idle();
        messages
    }

    fn carry_out(&mut self, decision: Decision<End>, now: Instant, messages: &mut Vec<(u64, FromSession)>) {
        match decision {
            Decision::Grant { caller, demand, worker, .. } => {
                let number = worker.bits();
                self.leases.insert(number, caller.0);
                let (demand, gpus) = (Resources::clone(&demand), self.pool.gpus(number));
                messages.push((caller.0, FromSession::Granted(Lease { number, demand, gpus })));
            }
            Decision::Recall { lessee, worker } => {
                messages.push((lessee.0, FromSession::Recall { lease: worker.bits() }));
            }
            Decision::AskWhetherFree { worker, .. } => self.pool.set_free(worker.peer(), now),
            Decision::End { token } => _ = self.pool.remove(token),
            // There are no actors.
            Decision::Place { token, .. } => self.pool.set_idle(token, now),
        }
    }

    /// Adds a lease that nobody has.
    fn add(&mut self, lease: u64, process: NewProcess, now: Instant) {
        self.pool.add(lease, 0, process, now);
        self.pool.register(lease, &End(lease), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Amounts;

    const CPU: f64 = 1.0;

    fn cpus(cpus: f64) -> Resources {
        Amounts { num_cpus: Some(cpus), ..Amounts::default() }.resolve(cpus).unwrap()
    }

    fn want(division: &mut Division, driver: u64, leases: u32) {
        let record = ToSession::Want { demand: Resources::clone(&Demand::default()), leases };
        division.on_record(driver, record, Instant::now());
    }

    /// All messages to drivers, if each driver returns recalled leases at once.
    fn settle(division: &mut Division, keeps: impl Fn(u64) -> bool) -> Vec<(u64, FromSession)> {
        let mut all = Vec::new();
        loop {
            let now = Instant::now();
            let messages = division.arrange(now);
            if messages.is_empty() {
                return all;
            }
            for (driver, message) in &messages {
                if let FromSession::Recall { lease } = *message {
                    let record = match keeps(*driver) {
                        true => ToSession::Keep { lease },
                        false => ToSession::Return { lease },
                    };
                    division.on_record(*driver, record, now);
                }
            }
            all.extend(messages);
        }
    }

    fn count(division: &Division, driver: u64) -> usize {
        division.leases.values().filter(|its| **its == driver).count()
    }

    #[test]
    fn drivers_that_want_all_have_as_many_as_each_other() {
        let mut division = Division::new(cpus(6.0), false, Instant::now());
        want(&mut division, 1, 100);
        settle(&mut division, |_| false);
        assert_eq!(count(&division, 1), 6, "one alone gets all");
        for driver in 2..=3 {
            want(&mut division, driver, 100);
            // It wants again what it has to return.
            want(&mut division, 1, 100);
            settle(&mut division, |_| false);
        }
        assert_eq!([1, 2, 3].map(|driver| count(&division, driver)), [2, 2, 2]);
        division.gone(2, Instant::now());
        settle(&mut division, |_| false);
        assert_eq!([1, 2, 3].map(|driver| count(&division, driver)), [3, 0, 3]);
    }

    #[test]
    fn what_actors_have_is_not_waited_for() {
        let mut division = Division::new(cpus(2.0), false, Instant::now());
        want(&mut division, 1, 1);
        want(&mut division, 2, 1);
        settle(&mut division, |_| false);
        want(&mut division, 3, 1);
        settle(&mut division, |driver| driver == 1);
        assert_eq!([1, 2, 3].map(|driver| count(&division, driver)), [1, 0, 1]);
        // A driver returns it when its actor has ended.
        want(&mut division, 2, 1);
        let (lease, _) = division.leases.iter().find(|(_, driver)| **driver == 1).unwrap();
        division.on_record(1, ToSession::Return { lease: *lease }, Instant::now());
        settle(&mut division, |_| false);
        assert_eq!([1, 2, 3].map(|driver| count(&division, driver)), [0, 1, 1]);
    }

    #[test]
    fn the_next_process_grants_nothing_that_a_driver_has() {
        let demand = cpus(CPU);
        let mut division = Division::new(cpus(2.0), true, Instant::now());
        want(&mut division, 2, 2);
        assert!(settle(&mut division, |_| false).is_empty(), "the other driver may come back");
        let leases = vec![Lease { number: 7, demand, gpus: Vec::new() }];
        division.on_record(1, ToSession::Join { leases }, Instant::now());
        let later = Instant::now() + RESUME_WINDOW;
        let messages = division.arrange(later);
        assert_eq!(messages.len(), 1);
        assert_eq!([1, 2].map(|driver| count(&division, driver)), [1, 1]);
        // It has the lease under the number that it had.
        division.on_record(1, ToSession::Return { lease: 7 }, later);
        assert_eq!(division.arrange(later).len(), 1);
        assert_eq!([1, 2].map(|driver| count(&division, driver)), [0, 2]);
        assert!(division.pool.free().is_nothing());
    }
}
