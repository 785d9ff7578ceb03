//! The decisions of the pool, each checked against the model, and the checks after each step.

use super::super::*;
use super::Schedule;
use super::model::Process;
use crate::head::pool::simulated::End;

impl Schedule {
    /// Carries out the decisions as the head does.
    pub(super) fn arrange(&mut self) {
        while self.actors > 0 {
            let Some((token, _)) = self.pool.idle_usual() else { break };
            let is_right = self.processes[&token].serves(&Environment::USUAL);
            assert!(is_right, "an actor got {:?}", self.processes[&token]);
            self.pool.place(token, 7, self.now);
            let process = self.processes.get_mut(&token).expect("it runs");
            (process.actor, process.demand) = (true, Demand::nothing());
            self.actors -= 1;
        }
        let demanding = self.demanding.iter().map(|(actor, which)| (*actor, &self.demands[*which]));
        self.pool.want_actors(demanding, self.now);
        let decisions = self.pool.arrange(self.now);
        self.note_placed();
        for decision in decisions {
            self.carry_out(decision);
        }
        for process in self.pool.lacking(self.actors, self.now) {
            self.token_last += 1;
            self.pool.add(self.token_last, 1, process.clone(), self.now);
            let NewProcess { environment, gpus } = process;
            assert!(gpus.is_sorted_by(|a, b| a < b) && gpus.iter().all(|gpu| *gpu < self.total.gpu_count()));
            self.processes.insert(self.token_last, Process { environment, gpus, ..Process::default() });
        }
        for decision in self.pool.end_surplus(self.actors, self.now) {
            if let Decision::AskWhetherFree { worker, is_spent: true } = &decision {
                let process = self.processes.get_mut(&worker.0).expect("it runs");
                if process.is_idle() {
                    // It is not needed, and ends when it has no calls left.
                    (process.demand, process.finishing) = (Demand::nothing(), Some(self.now));
                    process.spent = true;
                }
            }
            self.carry_out(decision);
        }
    }

    fn carry_out(&mut self, decision: Decision<End>) {
        match decision {
            Decision::Grant { caller, demand, worker, .. } => {
                assert_ne!(caller.0, worker.epoch(), "a process is leased to itself");
                // Workers that have given up CPUs go first.
                let gave_up = |end: End| self.processes.get(&end.0).is_some_and(|process| process.blocked);
                let runs = |end: End| self.processes.get(&end.0).is_some_and(|other| other.lessee.is_some());
                let is_first = |(end, which): &(End, usize)| {
                    self.can_any_serve(*end, *which)
                        && gave_up(*end)
                        && runs(*end)
                        && self.is_poor(*end, *which)
                        && self.fits(*which)
                };
                assert!(gave_up(caller) || !self.wants.keys().any(is_first), "{caller:?} was not next");
                let which = self.demands.iter().position(|other| *other == demand).expect("one of them");
                assert!(self.fits(which), "more is granted than there is");
                let want = (caller, which);
                let (wanted, since) = self.wants.get_mut(&want).expect("somebody who wants none got one");
                (*wanted, *since) = (*wanted - 1, self.now);
                self.wants.retain(|_, (workers, _)| *workers > 0);
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert!(process.serves(demand.environment()), "granted: {process:?}");
                assert_eq!(process.gpus.len(), demand.num_gpus().ceil() as usize);
                (process.lessee, process.demand) = (Some(caller), demand);
            }
            Decision::Recall { lessee, worker } if self.processes[&worker.epoch()].spent => {
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert!(process.lessee == Some(lessee) && !process.recalled, "{process:?}");
                process.recalled = true;
            }
            Decision::Recall { lessee, worker } => {
                let poor = self.wants.keys().any(|(caller, which)| self.is_poor(*caller, *which));
                let is_pending = self.groups.values().any(|group| !group.is_placed);
                assert!(poor || is_pending || !self.demanding.is_empty(), "recalled for nobody");
                if self.is_uniform() {
                    let mut used = self.used();
                    let coming = self.processes.values().filter(|process| process.comes_back());
                    coming.for_each(|process| used.subtract(&process.demand));
                    let is_enough = self.demands[0].is_within(&self.total.less(&used));
                    // Where one is free already, a process is missing.
                    assert!(!is_enough || self.fits(0), "recalled although enough comes back");
                    let most =
                        self.processes.values().filter(|process| !process.blocked && !process.recalled);
                    let most = most.filter_map(|process| process.lessee).map(|lessee| self.leases_of(lessee));
                    let has = Some(self.leases_of(lessee));
                    assert_eq!(has, most.max(), "recalled from one who has less than others");
                }
                let process = self.processes.get_mut(&worker.epoch()).expect("it runs");
                assert_eq!(process.lessee, Some(lessee));
                process.recalled = true;
            }
            Decision::Place { actor, token } => {
                let which = self.demanding.remove(&actor).expect("it waits");
                assert!(self.fits(which), "an actor has more than there is");
                let demand = self.demands[which].clone();
                let process = self.processes.get_mut(&token).expect("it runs");
                assert!(process.serves(demand.environment()), "an actor got {process:?}");
                assert_eq!(process.gpus.len(), demand.num_gpus().ceil() as usize);
                (process.actor, process.demand) = (true, demand);
            }
            Decision::AskWhetherFree { worker, is_spent } => {
                let process = self.processes.get_mut(&worker.0).expect("it runs");
                assert!(process.finishing.is_some() && !process.asked, "asked for nothing: {process:?}");
                assert_eq!(process.spent, is_spent, "{process:?}");
                process.asked = true;
            }
            Decision::End { token } => {
                let process = self.processes.get_mut(&token).expect("it runs");
                let is_over = process.spent && process.lessee.is_none() && process.finishing.is_none();
                assert!(is_over, "ended, although it may have calls: {process:?}");
                process.exiting = true;
                self.pool.exit(token, self.now);
            }
        }
    }

    // ---- what must hold ----

    pub(super) fn check(&self) {
        let used = self.used();
        assert_eq!(self.pool.free(), self.total.less(&used).of_session(), "what is free");
        // One that has waited for long reserves what it demands.
        let is_long = |since: &Instant| self.now.duration_since(*since) >= Duration::from_millis(100);
        let waits = self.wants.values().any(|(_, since)| is_long(since)) || !self.demanding.is_empty();
        let waits = waits || self.groups.values().any(|group| !group.is_placed);
        // Where all demands are one, it is served at once, unless the only idle process is its own.
        let is_own_idle = |caller: &End, which: usize| {
            let own = self.processes.get(&caller.0);
            own.is_some_and(|process| process.serves(self.demands[which].environment()))
        };
        let mut long = self.wants.iter().filter(|(_, (_, since))| is_long(since));
        let is_own_alone = long.any(|((caller, which), _)| is_own_idle(caller, *which));
        let reserves = waits && (!self.is_uniform() || is_own_alone);
        let starting = self.processes.values().filter(|process| !process.registered);
        let starting: Vec<_> = starting.map(|process| &process.environment).collect();
        for (caller, which) in self.wants.keys() {
            let demand = &self.demands[*which];
            if reserves || !self.fits(*which) {
                continue;
            }
            let environment = demand.environment();
            assert!(!self.can_any_serve(*caller, *which), "somebody waits, and a worker is idle");
            // Its own process may be what another caller gets.
            let others_want = self.wants.keys().any(|(other, _)| other != caller);
            let is_finishing = |(token, process): (&u64, &Process)| {
                (others_want || *token != caller.0)
                    && process.finishing.is_some()
                    && process.environment == *environment
            };
            let finishing = self.processes.iter().any(is_finishing);
            let comes = finishing || starting.contains(&environment);
            assert!(comes, "no process starts for a call that fits");
        }
        let idle = self.processes.values().any(|process| process.serves(&Environment::USUAL));
        assert!(!(idle && self.actors > 0), "an actor waits, and a worker is idle");
        assert!(used.without_cpus().is_within(&self.offered()), "more is taken than there is");
        for gpu in 0..self.total.gpu_count() {
            assert!(
                self.part_taken(gpu) <= 1.0,
                "GPU {gpu} is given out more than once: {:?}",
                self.processes
            );
        }
        let is_late = |since: Instant| self.now.duration_since(since) >= FREE_PATIENCE;
        let serving = self
            .processes
            .values()
            .filter(|process| !(process.blocked || process.broken || process.exiting || process.actor))
            .filter(|process| !process.spent)
            .filter(|process| !process.finishing.is_some_and(is_late) && process.environment.is_usual());
        assert!(serving.count() >= self.kept, "fewer workers than are kept");
        let usual = starting.iter().filter(|environment| environment.is_usual()).count();
        assert!(usual >= self.actors, "an actor waits for a process that nobody starts");
        if self.is_uniform() {
            let poor = self.wants.keys().any(|(caller, which)| self.is_poor(*caller, *which));
            let others = self.processes.values().any(|process| process.lessee.is_some() && !process.blocked);
            let comes =
                (!starting.is_empty() && self.fits(0)) || self.processes.values().any(Process::comes_back);
            assert!(!poor || comes || !others, "nothing is done for one who has none");
        }
        let waits = self.wants.keys().any(|(caller, which)| self.is_poor(*caller, *which));
        assert!(
            !waits || self.pool.timeout(self.now).is_some(),
            "nobody looks whether it has waited for long"
        );
        let ends = self.processes.values().any(|process| process.exiting || process.broken);
        assert!(!ends || self.pool.timeout(self.now).is_some(), "nobody looks whether it ends");
        let is_forgotten = |process: &Process| process.finishing.is_some() && !process.asked;
        assert!(!self.processes.values().any(is_forgotten), "nobody asks whether it is free");
    }
}
