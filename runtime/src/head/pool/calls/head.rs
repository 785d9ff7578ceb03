//! The head around the pool: it reads records, carries out decisions, notices deaths, and ends a process when memory is
//! short.

use super::*;

impl Life {
    pub(super) fn deliver_to_head(&mut self, from: u64, record: Record) {
        match record {
            Record::Want(demand, workers) => {
                self.pool.want(&End(from), self.demands[demand].clone(), workers, self.now);
            }
            Record::Return { worker, is_busy } => {
                self.pool.give_back(&End(from), end(worker), is_busy, self.now);
            }
            Record::Blocked => self.pool.set_blocked(end(from), true),
            Record::Unblocked => self.pool.set_blocked(end(from), false),
            Record::Spent(waits) => self.pool.set_spent(end(from), waits, self.now),
            Record::Free => self.pool.set_free(end(from), self.now),
            Record::AskDeath(worker) => {
                self.pool.set_broken(end(worker), self.now);
                match self.pool.has(end(worker)) {
                    true => _ = self.asked_deaths.insert((worker, from)),
                    false => self.tell_death(worker, from),
                }
            }
            Record::Runs(worker, is_any) => {
                // Without a call, its lease is kept for the next one.
                if is_any && self.servers.contains_key(&worker) {
                    self.end_for_memory(worker);
                }
            }
            Record::Closed => self.pool.caller_gone(&End(from), self.now),
            record => panic!("the head was sent {record:?}"),
        }
        self.arrange();
    }

    /// The head notices that a process has ended, before or after its link is closed.
    pub(super) fn notice(&mut self, token: u64) {
        self.unnoticed.retain(|other| *other != token);
        while self.wires.get(&(token, HEAD)).is_some_and(|wire| wire[0] != Record::Closed) {
            self.deliver((token, HEAD));
        }
        assert!(self.pool.remove(token).is_some());
        let asked: Vec<_> = self.asked_deaths.extract_if(.., |(dead, _)| *dead == token).collect();
        asked.into_iter().for_each(|(_, by)| self.tell_death(token, by));
        self.arrange();
    }

    fn tell_death(&mut self, dead: u64, to: u64) {
        self.send(HEAD, to, Record::Died(dead, self.short_of_memory.contains(&dead)));
    }

    /// Chooses a process to end. If it is leased, its caller is asked first which call runs there.
    pub(super) fn memory_is_short(&mut self) {
        let living = self.pool.living().filter(|(token, ..)| self.servers.contains_key(token));
        let mut living: Vec<_> = living.map(|(token, _, lessee, _)| (token, lessee.copied())).collect();
        living.sort_unstable();
        match self.random.any(&living) {
            Some((token, Some(lessee))) => self.send(HEAD, lessee.0, Record::AskCall(token)),
            Some((token, None)) => self.end_for_memory(token),
            None => {}
        }
    }

    fn end_for_memory(&mut self, token: u64) {
        self.pool.exit_if_idle(token, self.now);
        self.short_of_memory.insert(token);
        self.die(token);
    }

    /// Carries out the decisions as the head does.
    pub(super) fn arrange(&mut self) {
        let there = self.servers.len() + self.unnoticed.len();
        self.pool.set_room(usize::MAX, self.room.saturating_sub(there));
        for decision in self.pool.arrange(self.now) {
            self.carry_out(decision);
        }
        for process in self.pool.lacking(0, self.now) {
            self.token_last += 1;
            self.pool.add(self.token_last, 1, process, self.now);
            self.servers.insert(self.token_last, Server::default());
            self.callers.insert(self.token_last, Process::default());
        }
        for decision in self.pool.end_surplus(0, self.now) {
            self.carry_out(decision);
        }
        if let Some(refused) = self.pool.refuse(0, self.now) {
            let Refused::Caller(caller, demand) = refused else {
                panic!("an actor is refused, and there is none")
            };
            let may_be = self.processes_max.min(self.room.max(PROCESSES_MIN));
            assert!(self.servers.len() + self.unnoticed.len() >= may_be, "refused with room for more");
            let demand = self.number_of(&demand);
            self.send(HEAD, caller.0, Record::NoWorkers(demand));
        }
        assert!(self.servers.len() <= self.processes_max, "more processes than there may be");
    }

    fn carry_out(&mut self, decision: Decision<End>) {
        match decision {
            Decision::Grant { caller, demand, worker, .. } => {
                assert_ne!(caller.0, worker.epoch(), "a process is leased to itself");
                let demand = self.number_of(&demand);
                self.send(HEAD, caller.0, Record::Granted(demand, worker.epoch()));
            }
            Decision::Recall { lessee, worker } => {
                self.send(HEAD, lessee.0, Record::Recall(worker.epoch()));
            }
            Decision::Place { .. } => panic!("an actor is placed, and there is none"),
            Decision::AskWhetherFree { worker, is_spent } => {
                self.send(HEAD, worker.0, Record::SayWhenFree(is_spent));
            }
            Decision::End { token } => {
                self.pool.exit(token, self.now);
                // It may be dead already.
                if self.servers.contains_key(&token) {
                    self.check_end(token);
                    self.die(token);
                }
            }
        }
    }

    /// The head ends a worker: no call is lost with it.
    fn check_end(&self, token: u64) {
        let has_one = |caller: &Process| caller.sent.values().any(|worker| *worker == token);
        let is_lost = self.callers.values().any(has_one) || self.has_calls(token);
        assert!(!is_lost, "{token} is ended with calls");
        let is_its = |call: &Call| call.caller == token && !call.is_over;
        assert!(!self.calls.values().any(is_its), "{token} is ended, and calls that it made are not over");
        let Server { queue, running, .. } = &self.servers[&token];
        let mut calls = queue.iter().chain(running);
        assert!(
            !calls.any(|(_, call)| self.calls[call].is_detached),
            "{token} is ended with a detached call"
        );
    }
}
