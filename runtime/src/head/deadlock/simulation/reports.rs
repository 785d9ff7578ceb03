//! The reports of simulated processes, and the effects of the head's steps. Each report of a deadlock is compared with
//! the model.

use super::*;

impl Session {
    // ---- what processes say ----

    /// A call that a process has, and what holds it up.
    pub(super) fn held(&self, number: usize, (caller, task): (OwnerId, u64)) -> Option<Held> {
        let (process, call) = (&self.processes[number], task as usize);
        let is_endless = |place: &usize| process.running[*place].wait.as_ref().filter(|wait| !wait.timed);
        let numbers = |places: &[usize]| {
            let waits: Option<Vec<u64>> =
                places.iter().map(|place| Some(is_endless(place)?.number)).collect();
            waits
        };
        let behind = if let Some(place) = process.running.iter().position(|running| running.call == call) {
            numbers(&[place]).into_iter().collect()
        } else if process.queue.contains(&call) {
            let sets = process.held_back(call, &self.calls).unwrap_or_default();
            sets.iter().filter_map(|places| numbers(places)).collect()
        } else {
            return None;
        };
        Some(Held { caller, task, behind, items: self.calls[call].given })
    }

    pub(super) fn waits_of(&self, process: usize, wait: &Wait) -> Waits {
        let pending = wait.of.iter().filter(|call| !self.calls[**call].is_over);
        let needs = |call: &usize| self.needs_of_wait(*call, process, wait.item);
        let mut results: Vec<_> = pending.map(needs).collect();
        // It ends soon.
        let has_failed = wait.of.iter().any(|call| self.calls[*call].has_failed);
        if results.is_empty() || has_failed || !wait.all && results.len() < wait.of.len() {
            results = vec![vec![Need::Unknown]];
        }
        let (function, waits_for) = (String::new(), String::new());
        let is_only = !matches!(self.processes[process].kind, Kind::Wide(_));
        Waits { number: wait.number, function, waits_for, at: None, is_only, needed: 1, results }
    }

    /// The needs of a result, or of an item at this position.
    fn needs_of_wait(&self, number: usize, process: usize, item: Option<u64>) -> Vec<Need> {
        let mut needs = self.needs_of(number, process);
        for need in &mut needs {
            if let (Need::Call { process, task }, Some(position)) = (&*need, item)
                && *task == number as u64
            {
                *need = Need::Item { process: *process, task: *task, position };
            }
        }
        needs
    }

    /// The needs of a result, as this process knows them.
    pub(super) fn needs_of(&self, number: usize, process: usize) -> Vec<Need> {
        let call = &self.calls[number];
        if call.is_over {
            return vec![Need::Unknown];
        }
        if call.caller != process {
            return vec![Need::Promise { object: ObjectId::new(id(call.caller), number as u32, 1) }];
        }
        match (call.argument.filter(|argument| !self.calls[*argument].is_over), call.at, call.target) {
            (Some(argument), None, _) => self.needs_of(argument, process),
            (_, Some(at), _) => vec![Need::Call { process: id(at), task: number as u64 }],
            (None, None, Target::Function(units)) => vec![Need::Worker { demand: demand(units) }],
            (None, None, Target::Actor(_)) => vec![Need::Unknown],
        }
    }

    // ---- the head ----

    pub(super) fn head_steps(&mut self) {
        let mut head = std::mem::take(&mut self.head);
        let steps = head.step(&Known(self), self.now);
        self.head = head;
        for step in steps {
            match step {
                Step::Ask { process, round, calls } => {
                    self.send(HEAD, process.epoch() as usize, Record::Ask(round, calls));
                }
                Step::AskPromise { object, round } => {
                    let owner = object.owner().epoch() as usize;
                    self.send(HEAD, owner, Record::AskPromise(round, object));
                }
                Step::Report(Deadlocked { process, wait, cycle }) => {
                    let process = process.epoch() as usize;
                    assert_eq!(cycle[0].0, id(process), "the circle begins elsewhere");
                    for order in 0..ORDERS {
                        assert!(
                            self.waits_for_ever(process, wait, order),
                            "a false alarm: {process} would have gone on"
                        );
                    }
                    self.reports += 1;
                    self.send(HEAD, process, Record::Deadlock(wait));
                }
            }
        }
    }

    /// Whether a process is still in this wait when nothing moves any more.
    fn waits_for_ever(&self, process: usize, wait: u64, order: u64) -> bool {
        let mut model = self.clone();
        model.tells = false;
        model.random = Random::new(order + 1);
        // Earlier reports, and reports that are on their way, would end waits.
        model.wires.retain(|(from, to), _| *from != HEAD && *to != HEAD);
        let mut still = 0;
        while still < 50 * model.processes.len() {
            still = if model.step_any() { 0 } else { still + 1 };
        }
        model.processes[process].place_of(wait).is_some()
    }
}
