//! The calling side of a process: its calls, from the making to the end.

use super::*;

impl Life {
    /// A process makes a call.
    pub(super) fn call(&mut self, caller: u64, parent: Option<u64>) {
        let id = self.calls.len() as u64;
        let depth = parent.map_or(0, |parent| self.calls[&parent].depth + 1);
        let function = self.random.below(RAN_NANOS.len());
        // A call that holds what the calls that it waits for demand would wait for ever.
        let held = |call: u64| self.demands[self.calls[&call].demand].without_cpus();
        let mut above = parent;
        let mut is_held = false;
        while let Some(call) = above {
            is_held |= !held(call).is_nothing();
            above = self.calls[&call].parent;
        }
        let mut demand = self.random.below(self.demands.len());
        if is_held && !self.demands[demand].without_cpus().is_nothing() {
            demand = 0;
        }
        let millis = |random: &mut Random| Duration::from_millis(random.below(200) as u64);
        let limits = LimitOptions {
            timeout: (self.random.below(6) == 0).then(|| millis(&mut self.random)),
            deadline: (self.random.below(6) == 0).then(|| Deadline::At(self.now + millis(&mut self.random))),
        };
        let call = Call {
            caller,
            parent,
            depth,
            function,
            demand,
            may_retry: self.random.below(2) == 0,
            is_asked: self.random.below(2) == 0,
            memory_retries: 0,
            is_detached: self.random.below(4) == 0,
            limits: CallLimits::new(&limits),
            stream: (self.random.below(4) == 0).then(|| Stream::random(&mut self.random)),
            begun: None,
            is_over: false,
        };
        if let Some(deadline) = call.limits.deadline {
            self.process(caller).limits.insert((deadline, id, TimeLimit::Deadline));
        }
        self.calls.insert(id, call);
        let leases = self.callers.get_mut(&caller).expect("it lives").leases.of(&self.demands[demand]);
        match leases.room_at_once(key(function)) {
            Some(room) => {
                let worker = room.take();
                self.send_call(caller, id, worker.epoch());
            }
            None => {
                leases.queue(key(function), id);
                self.send_ready(caller);
            }
        }
    }

    fn send_call(&mut self, caller: u64, call: u64, worker: u64) {
        self.process(caller).sent.insert(call, worker);
        self.made(call).begun = None;
        self.send(caller, worker, Record::Call(call));
    }

    fn send_ready(&mut self, caller: u64) {
        while let Some((call, room)) = self.process(caller).leases.next() {
            let worker = room.take();
            self.send_call(caller, call, worker.epoch());
        }
        for (demand, workers) in self.process(caller).leases.wants() {
            let demand = self.number_of(&demand);
            self.send(caller, HEAD, Record::Want(demand, workers));
        }
    }

    /// Whether calls that this process made are not over.
    pub(super) fn has_calls(&self, token: u64) -> bool {
        let its = &self.callers[&token];
        let is_any = !its.sent.is_empty() || !its.lost.is_empty() || !its.delayed.is_empty();
        is_any || !its.undecided.is_empty() || its.leases.has_waiting()
    }

    /// Cancels a call. It is over at once. The calls that it has made are cancelled in its process.
    pub(super) fn cancel(&mut self, call: u64, how: How) {
        self.made(call).is_over = true;
        let caller = self.calls[&call].caller;
        let its = self.process(caller);
        its.lost.remove(&call);
        its.delayed.retain(|(_, other)| *other != call);
        its.undecided.remove(&call);
        let removed = its.leases.take_if(|other| *other == call);
        assert!(removed.is_empty() || !its.sent.contains_key(&call), "a call that was sent waits");
        if let Some(worker) = its.sent.get(&call).copied() {
            self.send(caller, worker, Record::Cancel(call, how));
        }
        self.send_ready(caller);
    }

    /// Ends the calls that have reached a limit, and sends those again whose time has come.
    pub(super) fn on_time(&mut self, caller: u64) {
        let later = (self.now, u64::MAX, TimeLimit::Deadline);
        let its = self.process(caller);
        let limits = its.limits.split_off(&later);
        for (due, call, limit) in std::mem::replace(&mut its.limits, limits) {
            let limited = &self.calls[&call];
            let is_reached = limit == TimeLimit::Deadline || limited.limits.is_attempt_due(due);
            if !limited.is_over && is_reached {
                self.check_reached(caller, call, limit);
                self.cancel(call, How::USUAL);
            }
        }
        let later = (self.now, u64::MAX);
        let its = self.process(caller);
        let delayed = its.delayed.split_off(&later);
        for (_, call) in std::mem::replace(&mut its.delayed, delayed) {
            let Call { function, demand, .. } = self.calls[&call];
            let demand = &self.demands[demand];
            self.callers.get_mut(&caller).expect("it lives").leases.of(demand).queue(key(function), call);
        }
        self.send_ready(caller);
    }

    /// Checks that a call has had all its time: a timeout is that of the attempt that runs.
    fn check_reached(&self, caller: u64, call: u64, limit: TimeLimit) {
        let (its, limited) = (&self.callers[&caller], &self.calls[&call]);
        match (limit, limited.limits.timeout, limited.limits.deadline) {
            (TimeLimit::Timeout, Some(timeout), _) => {
                // How a lost attempt has ended is not known yet.
                let may_run = its.sent.contains_key(&call) || its.lost.contains_key(&call);
                assert!(may_run, "the limit of an attempt of {call} outlives it");
                let begun = limited.begun.unwrap_or_else(|| panic!("this attempt at {call} has not begun"));
                assert!(begun + timeout <= self.now, "this attempt at {call} has time left");
            }
            (TimeLimit::Deadline, _, Some(deadline)) => {
                assert!(deadline <= self.now, "{call} has time left before its deadline");
            }
            _ => panic!("{call} has no such limit"),
        }
    }

    /// The program says of each call that has failed whether it is retried.
    pub(super) fn decide(&mut self, caller: u64) {
        for call in std::mem::take(&mut self.process(caller).undecided) {
            if self.random.below(2) == 0 {
                self.made(call).may_retry = false;
                self.retry_later(caller, call);
            } else {
                self.made(call).is_over = true;
            }
        }
    }

    /// A call that has failed comes back later, behind the others.
    fn retry_later(&mut self, caller: u64, call: u64) {
        let due = self.now + Duration::from_millis(self.random.below(100) as u64);
        self.process(caller).delayed.insert((due, call));
    }

    /// Ends the leases that are over, for any reason.
    pub(super) fn end_leases(&mut self, caller: u64) {
        let now = self.now;
        for Ended { worker, is_busy } in self.process(caller).leases.take_ended(now) {
            self.send(caller, HEAD, Record::Return { worker: worker.epoch(), is_busy });
        }
    }

    fn queue_again(&mut self, caller: u64, call: u64) {
        let function = key(self.calls[&call].function);
        let demand = &self.demands[self.calls[&call].demand];
        self.callers.get_mut(&caller).expect("it lives").leases.of(demand).queue_again(function, call);
    }

    // ---- what workers say ----

    pub(super) fn on_begun(&mut self, caller: u64, worker: u64, call: u64) {
        if self.callers[&caller].sent.get(&call) == Some(&worker)
            && let Some(due) = self.calls[&call].limits.attempt_begins(self.now)
        {
            self.process(caller).limits.insert((due, call, TimeLimit::Timeout));
        }
    }

    /// A call was removed before it began, because it was cancelled or its deadline had passed.
    pub(super) fn on_removed(&mut self, caller: u64, call: u64) {
        let its = self.callers.get_mut(&caller).expect("it lives");
        let Some(worker) = its.sent.remove(&call) else { return };
        let demand = &self.demands[self.calls[&call].demand];
        let is_due = its.leases.of(demand).call_removed(end(worker), || self.now);
        self.made(call).is_over = true;
        if is_due {
            self.end_leases(caller);
        }
        self.send_ready(caller);
    }

    /// A worker has run a call, or declined it; a declined call has no run time.
    pub(super) fn on_over(&mut self, caller: u64, call: u64, ran_nanos: Option<u64>, has_failed: bool) {
        let function = key(self.calls[&call].function);
        let its = self.callers.get_mut(&caller).expect("it lives");
        let Some(worker) = its.sent.remove(&call) else { return };
        let demand = &self.demands[self.calls[&call].demand];
        if its.leases.of(demand).call_over(end(worker), function, ran_nanos, || self.now) {
            self.end_leases(caller);
        }
        let call_over = self.made(call);
        if call_over.is_over {
            // It was cancelled, or has reached a limit.
        } else if has_failed && call_over.may_retry {
            // An error of the function.
            call_over.limits.attempt_over();
            if call_over.is_asked {
                self.process(caller).undecided.insert(call);
            } else {
                call_over.may_retry = false;
                self.retry_later(caller, call);
            }
        } else if ran_nanos.is_some() {
            call_over.is_over = true;
        } else {
            self.queue_again(caller, call);
        }
        self.send_ready(caller);
    }

    pub(super) fn on_worker_gone(&mut self, caller: u64, worker: u64) {
        let its = self.process(caller);
        its.linked.remove(&worker);
        if its.leases.gone(end(worker)).is_some() {
            self.send(caller, HEAD, Record::Return { worker, is_busy: true });
        }
        let its = self.process(caller);
        let sent: Vec<_> = its.sent.extract_if(.., |_, at| *at == worker).map(|(call, _)| call).collect();
        for call in sent {
            if !self.calls[&call].is_over {
                self.process(caller).lost.insert(call, worker);
            }
        }
        if self.callers[&caller].lost.values().any(|at| *at == worker) {
            self.send(caller, HEAD, Record::AskDeath(worker));
        }
        self.send_ready(caller);
    }

    // ---- what the head says ----

    pub(super) fn on_granted(&mut self, caller: u64, demand: usize, worker: u64) {
        let is_reached = self.servers.contains_key(&worker);
        let its = self.callers.get_mut(&caller).expect("it lives");
        its.leases.of(&self.demands[demand]).granted(end(worker), is_reached.then_some(()), self.now);
        if is_reached {
            its.linked.insert(worker);
        } else {
            self.send(caller, HEAD, Record::Return { worker, is_busy: false });
        }
        self.send_ready(caller);
    }

    pub(super) fn on_no_workers(&mut self, caller: u64, demand: usize) {
        let leases = &mut self.callers.get_mut(&caller).expect("it lives").leases;
        for call in leases.of(&self.demands[demand]).take_waiting() {
            self.made(call).is_over = true;
        }
    }

    /// The head says how a process has ended. Calls that had not begun are sent again.
    pub(super) fn on_died(&mut self, caller: u64, worker: u64, was_memory_short: bool) {
        let its = self.process(caller);
        let lost: Vec<_> = its.lost.extract_if(.., |_, at| *at == worker).map(|(call, _)| call).collect();
        let due = self.now + Duration::from_secs(1);
        for call in lost {
            let lost = self.made(call);
            if lost.begun.is_none() || !was_memory_short && std::mem::take(&mut lost.may_retry) {
                lost.limits.attempt_over();
                self.queue_again(caller, call);
            } else if was_memory_short && lost.memory_retries < MEMORY_RETRIES {
                lost.limits.attempt_over();
                lost.memory_retries += 1;
                self.process(caller).delayed.insert((due, call));
            } else {
                lost.is_over = true;
            }
        }
        self.send_ready(caller);
    }
}
