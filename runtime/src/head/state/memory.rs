//! Shortage of memory in the head: it carries out the steps of the [monitor](crate::head::memory).

use std::collections::HashMap;
use std::time::Instant;

use mobula_client::OwnerId;

use super::State;
use crate::head::memory::{Candidate, Figures, Step, User, own_bytes};
use crate::head::pool::Job;
use crate::wire::{FromHead, RunningCall};

impl State {
    /// Ends a process if memory is short.
    pub(in crate::head) fn look_after_memory(&mut self) {
        let now = Instant::now();
        let Some(monitor) = &mut self.memory else { return };
        if let Some(share) = self.share.as_mut().filter(|_| !monitor.is_ending()) {
            share.unlock();
        }
        match monitor.step(now) {
            None => {}
            Some(Step::Ask) => {
                let leased = self
                    .pool
                    .living()
                    .filter_map(|(_, worker, lessee, _)| Some((lessee?, worker.link.as_ref()?.peer)));
                let asked = leased.map(|(lessee, worker)| {
                    let _ = lessee.send(&FromHead::AskCall { worker }, Vec::new());
                    worker
                });
                monitor.asked(asked.collect(), now);
            }
            // Another driver is ending one of its processes: this head checks again later.
            Some(Step::End(..)) if self.share.as_mut().is_some_and(|share| !share.try_lock()) => {}
            Some(Step::End(figures, calls)) => self.end_one(&figures, &calls, now),
        }
    }

    /// Ends the process that the policy chooses.
    fn end_one(&mut self, figures: &Figures, calls: &HashMap<OwnerId, Option<RunningCall>>, now: Instant) {
        let mut users = Vec::new();
        for (token, worker, lessee, since) in self.pool.living() {
            let Some(peer) = worker.link.as_ref().map(|link| link.peer) else { continue };
            let call = calls.get(&peer);
            let (caller, is_retriable, name) = match (worker.job, lessee, call) {
                (Job::Actor { actor }, ..) => {
                    let Some((creator, may_restart)) = self.actors.prospects(actor) else { continue };
                    (creator, may_restart, self.actors.class_name(actor))
                }
                // Its lease is kept for the next call.
                (_, Some(_), Some(None)) => continue,
                (_, Some(lessee), Some(Some(call))) => {
                    (lessee.peer, call.is_retriable, call.function.clone())
                }
                (_, Some(lessee), None) => (lessee.peer, false, "a call".to_owned()),
                (Job::Idle { .. }, ..) => (peer, false, "idle".to_owned()),
                (_, None, _) => (peer, false, "a call whose caller is gone".to_owned()),
            };
            let candidate = Candidate { token, caller, is_retriable, since };
            let (pid, is_idle) = (worker.pid, matches!(worker.job, Job::Idle { .. }));
            users.push(User { candidate, pid, is_idle, name, own_bytes: own_bytes(pid) });
        }
        let Some(monitor) = &mut self.memory else { return };
        if let Some(token) = monitor.choose(figures, users, now) {
            self.pool.exit_if_idle(token, now);
            self.processes.kill(token);
        }
    }
}
