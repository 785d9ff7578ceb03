//! The processes of actors: which process an actor gets, and how the process ends together with the actor.

use std::time::{Duration, Instant};

use super::{Actors, Peer};
use crate::error::{ActorEnd, Failure};
use crate::head::pool::{EXIT_PATIENCE, Pool};
use crate::head::processes::Processes;
use crate::wire::FromHead;

/// How long an actor that ends itself may run its destructor.
const OWN_EXIT_PATIENCE: Duration = Duration::from_secs(60);

/// The actors, the pool that has their processes, and the means to kill a process.
pub(in crate::head) struct ActorProcesses<'a, P: Peer, K> {
    pub(in crate::head) actors: &'a mut Actors<P>,
    pub(in crate::head) pool: &'a mut Pool<P>,
    pub(in crate::head) processes: &'a mut K,
    pub(in crate::head) now: Instant,
}

/// Kills processes.
pub(in crate::head) trait Kill {
    /// Kills the process with this token.
    fn kill(&mut self, token: u64);

    /// Somebody requests the end of this process: it is no crash.
    fn note_request(&mut self, token: u64) {
        let _ = token;
    }
}

impl Kill for Processes {
    fn kill(&mut self, token: u64) {
        Self::kill(self, token);
    }

    fn note_request(&mut self, token: u64) {
        Self::note_request(self, token);
    }
}

impl<P: Peer, K: Kill> ActorProcesses<'_, P, K> {
    // ---- the beginning ----

    /// Gives idle processes to the actors that wait for one, and asks the pool for the others. An actor for which there
    /// may be no more process is over.
    pub(in crate::head) fn place_waiting(&mut self) {
        let waits = self.actors.waiting().len() > 0 || self.actors.first_demanding().is_some();
        if waits && !self.pool.has_room_for_actor() {
            // Actors without a handle make room for the actors that wait.
            self.actors.look_now();
            self.end_without_handles();
        }
        // Each iteration takes an actor from those that wait, or is the last.
        while let Some(actor) = self.actors.first_waiting() {
            if !self.pool.has_room_for_actor() {
                self.actors.over(actor, 0, self.pool.process_limit());
                continue;
            }
            let Some((token, link)) = self.pool.idle_usual() else { break };
            if self.actors.place(actor, token, link) {
                self.pool.place(token, actor, self.now);
            }
        }
        while !self.pool.has_room_for_actor()
            && let Some(actor) = self.actors.first_demanding()
        {
            self.actors.over(actor, 0, self.pool.process_limit());
        }
        self.pool.want_actors(self.actors.demanding(), self.now);
    }

    /// The pool has given a process to an actor, with the resources that the actor demands.
    pub(in crate::head) fn place(&mut self, actor: u64, token: u64) {
        let link = self.pool.link(token).cloned();
        if !link.is_some_and(|link| self.actors.place(actor, token, &link)) {
            self.pool.set_idle(token, self.now);
        }
    }

    /// A constructor has run, or has failed.
    pub(in crate::head) fn constructed(&mut self, from: &P, actor: u64, result: Result<(), Failure>) {
        let Some(token) = self.process_at(from, actor) else { return };
        let pid = self.pool.pid(token).unwrap_or(0);
        match result {
            Ok(()) => self.actors.alive(actor, from.peer(), pid),
            Err(failure) => {
                let class = self.actors.class_name(actor);
                let failure = match failure {
                    Failure::Task(error) => Failure::ConstructorFailed { class, error },
                    failure => failure,
                };
                self.actors.over(actor, pid, failure);
                self.exit(token);
            }
        }
    }

    // ---- the end ----

    /// Ends an actor at once: its process is killed.
    pub(in crate::head) fn end(&mut self, actor: u64, failure: Failure) {
        let token = self.actors.process_of(actor);
        let pid = token.and_then(|token| self.pool.pid(token)).unwrap_or(0);
        // Before anybody is told: from then on, no call of it succeeds.
        if let Some(token) = token {
            self.pool.exit(token, self.now);
            self.processes.kill(token);
        }
        self.actors.over(actor, pid, failure);
    }

    /// A caller kills an actor. It may allow that the actor is restarted.
    pub(in crate::head) fn kill(&mut self, actor: u64, restarts: bool) {
        if let Some(token) = self.actors.process_of(actor) {
            self.processes.note_request(token);
        }
        let may_restart = self.actors.prospects(actor).is_some_and(|(_, may_restart)| may_restart);
        if !restarts || !may_restart {
            return self.end(actor, self.actors.died(actor, ActorEnd::Killed));
        }
        match self.actors.process_of(actor) {
            Some(token) => self.processes.kill(token),
            None => self.actors.kill_without_process(actor),
        }
    }

    /// An actor ends itself. It is over for its callers, and its process ends when its destructor has run.
    pub(in crate::head) fn end_itself(&mut self, from: &P, actor: u64) {
        let Some(token) = self.process_at(from, actor) else { return };
        let pid = self.pool.pid(token).unwrap_or(0);
        self.actors.over(actor, pid, self.actors.died(actor, ActorEnd::Exited));
        self.exit_within(token, OWN_EXIT_PATIENCE);
    }

    /// A link is closed: the actors end that its process has reserved, and for which it would have sent the arguments.
    pub(in crate::head) fn caller_gone(&mut self, link: &P) {
        for actor in self.actors.on_caller_gone(link) {
            self.end(actor, self.actors.died(actor, ActorEnd::CreatorDied));
        }
    }

    /// Ends the actors to which no handle is left, each after its running call.
    pub(in crate::head) fn end_without_handles(&mut self) {
        for actor in self.actors.out_of_scope(self.now) {
            let token = self.actors.process_of(actor);
            self.actors.over(actor, 0, self.actors.died(actor, ActorEnd::LastHandleGone));
            if let Some(token) = token {
                self.exit(token);
            }
        }
    }

    /// Ends all actors, each after its running call. Those that take longer than `patience` are killed.
    pub(in crate::head) fn end_all(&mut self, patience: Duration) {
        for actor in self.actors.all() {
            let token = self.actors.process_of(actor);
            self.actors.over(actor, 0, Failure::SessionOver);
            if let Some(token) = token {
                self.exit_within(token, patience);
            }
        }
    }

    /// Tells a process to end when its work is done.
    pub(in crate::head) fn exit(&mut self, token: u64) {
        self.exit_within(token, EXIT_PATIENCE);
    }

    /// Tells a process to end when its work is done. If it has not ended in time, it is killed.
    fn exit_within(&mut self, token: u64, patience: Duration) {
        self.pool.exit_within(token, self.now, patience);
        if let Some(link) = self.pool.link(token) {
            let _ = link.tell(&FromHead::Exit, Vec::new());
        }
    }

    /// The process of an actor, if it is at the other end of this link. The records of an earlier process of the actor
    /// are of no interest any more.
    fn process_at(&self, from: &P, actor: u64) -> Option<u64> {
        let token = self.actors.process_of(actor)?;
        let link = self.pool.link(token)?;
        (link.peer() == from.peer()).then_some(token)
    }
}
