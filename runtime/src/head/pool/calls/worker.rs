//! The serving side of a process, and its death.

use super::*;

impl Life {
    pub(super) fn register(&mut self, token: u64) {
        self.server(token).registered = true;
        self.pool.register(token, &End(token), self.now);
        self.arrange();
    }

    /// A worker takes one of its possible steps.
    pub(super) fn go_on(&mut self, token: u64) {
        let choice = self.random.below(4);
        let server = self.server(token);
        let Some((caller, call)) = server.running else {
            let next = server.queue.pop_front();
            return self.begin(token, next);
        };
        if server.blocked {
            return self.unblock_if_done(token);
        }
        match choice {
            0 if self.calls[&call].depth < DEPTH_MAX => self.call(token, Some(call)),
            1 | 2 if self.has_items_left(token, call) => self.produce(token, caller, call),
            1 => self.decline_queue(token),
            2 if self.waits_for_others(token, call) => self.block(token),
            // Nobody waits for it, and it has no end.
            _ if !self.callers.contains_key(&caller) && !self.calls[&call].is_detached => {
                self.decline_queue(token);
            }
            _ => self.finish(token, caller, call),
        }
    }

    fn begin(&mut self, token: u64, next: Option<(u64, u64)>) {
        if let Some((caller, call)) = next {
            let now = self.now;
            let begins = self.made(call);
            if begins.limits.deadline.is_some_and(|deadline| deadline <= now) {
                self.send(token, caller, Record::Removed(call));
            } else {
                begins.begun = Some(now);
                let has_limits = begins.limits.timeout.is_some() || begins.limits.deadline.is_some();
                let server = self.server(token);
                server.running = next;
                (server.cancelled, server.items_sent, server.items_taken) = (false, 0, 0);
                if has_limits {
                    self.send(token, caller, Record::Begun(call));
                }
            }
        }
        self.say_if_free(token);
    }

    /// Whether this attempt at the call has made calls that are not over.
    pub(super) fn waits_for_others(&self, token: u64, call: u64) -> bool {
        let is_its = |other: &Call| other.parent == Some(call) && other.caller == token;
        self.calls.values().any(|other| is_its(other) && !other.is_over)
    }

    pub(super) fn block(&mut self, token: u64) {
        self.server(token).blocked = true;
        self.decline_queue(token);
        self.send(token, HEAD, Record::Blocked);
    }

    pub(super) fn unblock_if_done(&mut self, token: u64) {
        let server = &self.servers[&token];
        let may_go_on = |call| match server.waits_for_room {
            true => self.has_room(token, call),
            false => !self.waits_for_others(token, call),
        };
        if server.running.is_some_and(|(_, call)| may_go_on(call)) {
            let server = self.server(token);
            (server.blocked, server.waits_for_room) = (false, false);
            self.send(token, HEAD, Record::Unblocked);
        }
    }

    pub(super) fn finish(&mut self, token: u64, caller: u64, call: u64) {
        let is_spent = self.random.below(12) == 0;
        let has_failed = self.random.below(8) == 0;
        let end = self.end_record(token, call).filter(|_| !has_failed);
        let server = self.server(token);
        server.running = None;
        if is_spent && !server.spent {
            server.spent = true;
            self.decline_queue(token);
            self.send(token, HEAD, Record::Spent(self.has_calls(token)));
        }
        self.send(token, caller, end.unwrap_or(Record::Done(call)));
        self.say_if_free(token);
    }

    /// Declines the calls that wait. A detached call whose caller is gone stays, because no process would send it
    /// elsewhere.
    pub(super) fn decline_queue(&mut self, token: u64) {
        let queue = std::mem::take(&mut self.server(token).queue);
        for (caller, call) in queue {
            match self.may_be_declined(caller, call) {
                true => self.send(token, caller, Record::Declined(call)),
                false => self.server(token).queue.push_back((caller, call)),
            }
        }
    }

    fn may_be_declined(&self, caller: u64, call: u64) -> bool {
        !self.calls[&call].is_detached || self.callers.contains_key(&caller)
    }

    fn say_if_free(&mut self, token: u64) {
        if self.servers[&token].spent && self.has_calls(token) {
            return;
        }
        let server = self.server(token);
        if server.running.is_none() && server.queue.is_empty() && std::mem::take(&mut server.asked) {
            self.send(token, HEAD, Record::Free);
        }
    }

    // ---- what callers and the head say ----

    pub(super) fn on_call(&mut self, token: u64, caller: u64, call: u64) {
        let server = &self.servers[&token];
        if (server.blocked || server.spent) && self.may_be_declined(caller, call) {
            self.send(token, caller, Record::Declined(call));
        } else {
            self.server(token).queue.push_back((caller, call));
        }
    }

    /// A call was cancelled. By force, the process ends if it runs.
    pub(super) fn on_cancel(&mut self, token: u64, caller: u64, call: u64, how: How) {
        let server = self.server(token);
        let before = server.queue.len();
        server.queue.retain(|other| *other != (caller, call));
        if server.queue.len() < before {
            self.send(token, caller, Record::Removed(call));
            self.say_if_free(token);
        } else if server.running == Some((caller, call)) && how.force {
            self.die(token);
        } else if server.running == Some((caller, call)) {
            server.cancelled = true;
            if how.recursive {
                self.cancel_children(token, call);
            }
        }
    }

    /// A caller is gone, and no process waits for its calls. Detached calls continue.
    pub(super) fn on_caller_gone(&mut self, token: u64, caller: u64) {
        let calls = &self.calls;
        let goes_on = |(its, call): &(u64, u64)| *its != caller || calls[call].is_detached;
        let server = self.servers.get_mut(&token).expect("it lives");
        server.queue.retain(goes_on);
        if let Some((_, call)) = server.running.filter(|running| !goes_on(running)) {
            server.cancelled = true;
            self.cancel_children(token, call);
        }
        self.say_if_free(token);
    }

    /// Cancels the calls that a call has made, except detached ones.
    fn cancel_children(&mut self, token: u64, call: u64) {
        let is_its = |other: &Call| other.parent == Some(call) && other.caller == token && !other.is_over;
        let is_cancelled = |other: &Call| is_its(other) && !other.is_detached;
        let made: Vec<_> =
            self.calls.iter().filter(|(_, other)| is_cancelled(other)).map(|(id, _)| *id).collect();
        made.into_iter().for_each(|call| self.cancel(call, How::USUAL));
    }

    pub(super) fn on_say_when_free(&mut self, token: u64, is_spent: bool) {
        let server = self.server(token);
        server.asked = true;
        if is_spent && !std::mem::replace(&mut server.spent, true) {
            self.decline_queue(token);
        }
        self.say_if_free(token);
    }

    // ---- death ----

    pub(super) fn die(&mut self, token: u64) {
        let its = self.callers.remove(&token).unwrap_or_default();
        self.servers.remove(&token);
        self.wires.retain(|(_, to), _| *to != token);
        self.asked_deaths.retain(|(_, by)| *by != token);
        for worker in its.linked {
            self.send(token, worker, Record::Closed);
        }
        let users: Vec<_> =
            self.callers.iter().filter(|(_, caller)| caller.linked.contains(&token)).collect();
        let users: Vec<_> = users.into_iter().map(|(user, _)| *user).collect();
        for user in users {
            self.send(token, user, Record::Closed);
        }
        self.send(token, HEAD, Record::Closed);
        self.unnoticed.push(token);
    }
}
