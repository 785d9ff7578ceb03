//! The steps of the simulated processes: their records to the head, and their deaths.

use super::*;
use crate::definition::Key;
use crate::head::pool::Caller;
use crate::wire::NewActor;

/// The arguments of a constructor that can be read, of one that are too large, and of one that cannot be read.
const READABLE: (u32, &[u8]) = (0, &[]);
const TOO_LARGE: (u32, &[u8]) = (0, &[0; outside::ARGUMENT_BYTES_MAX + 1]);
const UNREADABLE: (u32, &[u8]) = (1, &[]);

impl Session {
    pub(super) fn step(&mut self) {
        let caller = self.any_caller();
        match self.random.below(40) {
            0..=7 => {
                let wires: Vec<u64> = self.wires.keys().copied().collect();
                if let Some(from) = self.random.any(&wires) {
                    self.deliver(from);
                }
            }
            8..=15 => {
                let waiting: Vec<u64> = self.post.borrow().queues.keys().copied().collect();
                if let Some(process) = self.random.any(&waiting) {
                    self.receive(process);
                }
            }
            16 | 17 => {
                let spec = self.any_spec();
                self.request_last += 1;
                self.send(caller, Record::Reserve(self.request_last, spec));
            }
            18..=20 => {
                let is_one = |(_, process): &(&u64, &Process)| !process.reserved.is_empty();
                let callers: Vec<u64> =
                    self.processes.iter().filter(is_one).map(|(token, _)| *token).collect();
                if let Some(caller) = self.random.any(&callers) {
                    self.start_reserved(caller);
                }
            }
            21..=27 => {
                let processes: Vec<u64> = self.processes.keys().copied().collect();
                if let Some(process) = self.random.any(&processes) {
                    self.go_on(process, true);
                }
            }
            28..=30 => {
                if let Some(actor) = self.any_handle(caller) {
                    self.send(caller, Record::Watch(actor));
                }
            }
            31 => self.pass_on(caller),
            32 => {
                let its = &mut self.processes.get_mut(&caller).expect("it lives").handles;
                if !its.is_empty() {
                    its.swap_remove(self.random.below(its.len()));
                }
            }
            33 => {
                if let Some(actor) = self.any_handle(caller) {
                    let restarts = self.random.below(3) > 0;
                    self.send(caller, Record::Kill(actor, restarts));
                }
            }
            34 => {
                self.request_last += 1;
                let name = NAMES[self.random.below(NAMES.len())];
                self.send(caller, Record::Find(self.request_last, name));
            }
            35 => {
                self.await_end(caller);
            }
            36 if self.random.below(4) == 0 => self.claim(caller),
            36 => {
                let time = [5, 50, 500, 3000][self.random.below(4)];
                self.pass(Duration::from_millis(time));
            }
            37 => {
                // Mostly one with an actor.
                let is_any = self.random.below(4) == 0;
                let is_one = |(token, process): &(&u64, &Process)| {
                    **token > TOKENS && (is_any || process.actor.is_some())
                };
                let tokens: Vec<u64> =
                    self.processes.iter().filter(is_one).map(|(token, _)| *token).collect();
                if let Some(token) = self.random.any(&tokens) {
                    self.die(token);
                }
            }
            _ => {
                let unnoticed: Vec<u64> = self.unnoticed.iter().copied().collect();
                if let Some(token) = self.random.any(&unnoticed) {
                    self.notice(token);
                }
            }
        }
    }

    // ---- what processes do ----

    fn any_spec(&mut self) -> Spec {
        let any = |random: &mut Random, of: &[u32]| of[random.below(of.len())];
        Spec {
            name: (self.random.below(2) == 0).then(|| NAMES[self.random.below(NAMES.len())]),
            get_if_exists: self.random.below(2) == 0,
            is_detached: self.random.below(4) == 0,
            max_pending_calls: any(&mut self.random, &[0, 7]),
            max_restarts: any(&mut self.random, &[0, 1, 1, 2, UNLIMITED]),
            max_task_retries: any(&mut self.random, &[0, 3]),
            has_demand: self.random.below(2) == 0,
            is_too_large: self.random.below(16) == 0,
        }
    }

    /// The arguments of a constructor are there, or will never be.
    fn start_reserved(&mut self, caller: u64) {
        let its = &mut self.processes.get_mut(&caller).expect("it lives").reserved;
        if its.is_empty() {
            return;
        }
        let actor = its.swap_remove(self.random.below(its.len()));
        let record = match self.random.below(8) {
            0 => Record::Abandon(actor, Failure::Other("an argument has failed".to_owned())),
            1 => Record::Start(actor, false),
            _ => Record::Start(actor, true),
        };
        self.send(caller, record);
        // A faulty process sends the arguments once more.
        if self.random.below(16) == 0 {
            let is_readable = self.random.below(2) == 0;
            self.send(caller, Record::Start(actor, is_readable));
        }
    }

    /// A faulty process speaks for an actor that is in another one.
    fn claim(&mut self, by: u64) {
        let elsewhere = self.model.chosen(|actor| actor.process().is_some_and(|process| process != by));
        if let Some(actor) = self.random.any(&elsewhere) {
            let is_end = self.random.below(2) == 0;
            self.send(by, if is_end { Record::Exits(actor) } else { Record::Constructed(actor, Ok(())) });
        }
    }

    /// A process gives another one a handle.
    fn pass_on(&mut self, from: u64) {
        let to = self.any_caller();
        let its = &self.processes[&from].handles;
        if !its.is_empty() {
            let handle = its[self.random.below(its.len())].clone();
            self.processes.get_mut(&to).expect("it lives").handles.push(handle);
        }
    }

    /// A process waits for the end of an actor. It keeps a handle meanwhile.
    pub(super) fn await_end(&mut self, by: u64) {
        let process = self.processes.get_mut(&by).expect("it lives");
        if process.handles.is_empty() {
            return;
        }
        let (actor, handle) = process.handles.swap_remove(self.random.below(process.handles.len()));
        self.request_last += 1;
        process.awaited.push((self.request_last, actor, handle));
        self.send(by, Record::AwaitEnd(self.request_last, actor));
    }

    /// A worker takes its next step. `may_fail`: also one that ends it.
    pub(super) fn go_on(&mut self, token: u64, may_fail: bool) {
        if token == DRIVER {
            return self.start_reserved(DRIVER);
        }
        let choice = if may_fail { self.random.below(8) } else { 7 };
        let link = End { process: token, post: self.post.clone() };
        let process = self.processes.get_mut(&token).expect("it lives");
        match process.actor {
            _ if !process.is_registered => {
                process.is_registered = true;
                assert!(self.pool.is_starting(token));
                self.pool.register(token, &link, self.now);
            }
            None if std::mem::take(&mut process.is_asked) => self.pool.set_free(link.peer(), self.now),
            // A destructor may take long.
            _ if process.exits && choice < 4 => {}
            _ if process.exits => self.die(token),
            Some(actor) if !process.is_constructed => {
                process.is_constructed = true;
                let result = match choice {
                    0 => Err(Failure::Task(TaskError::new(
                        CLASS,
                        TaskErrorKind::Returned,
                        "it fails".to_owned(),
                    ))),
                    1 => Err(Failure::Other("the class is unknown".to_owned())),
                    _ => Ok(()),
                };
                self.send(token, Record::Constructed(actor, result));
            }
            Some(actor) if choice == 0 => self.send(token, Record::Exits(actor)),
            _ => self.start_reserved(token),
        }
    }

    /// The next record of the head reaches a process. Returns `false` if there is none.
    pub(super) fn receive(&mut self, to: u64) -> bool {
        let mut post = self.post.borrow_mut();
        let Some(queue) = post.queues.get_mut(&to) else { return false };
        let (told, held) = queue.pop_front().expect("no queue is empty");
        if queue.is_empty() {
            post.queues.remove(&to);
        }
        drop(post);
        let process = self.processes.get_mut(&to).expect("it lives");
        let handles = held.into_iter();
        match told {
            Told::Reserved { actor: Ok(actor), .. } => {
                process.handles.extend(handles.map(|handle| (actor, handle)));
                process.reserved.push(actor);
            }
            Told::Found { actor: Some((actor, _)), .. } => {
                process.handles.extend(handles.map(|handle| (actor, handle)));
            }
            Told::Construct { actor, .. } => {
                assert!(process.actor.is_none(), "{to} has the actor {:?} and gets another", process.actor);
                process.actor = Some(actor);
            }
            Told::Ended { request } => process.awaited.retain(|(its, ..)| *its != request),
            Told::Exit => process.exits = true,
            _ => {}
        }
        true
    }

    // ---- what reaches the head ----

    pub(super) fn send(&mut self, from: u64, record: Record) {
        self.wires.entry(from).or_default().push_back(record);
    }

    /// The next record of a process reaches the head.
    pub(super) fn deliver(&mut self, from: u64) {
        let Some(records) = self.wires.get_mut(&from) else { return };
        let record = records.pop_front().expect("no wire is empty");
        if records.is_empty() {
            self.wires.remove(&from);
        }
        let link = End { process: from, post: self.post.clone() };
        match record {
            Record::Reserve(request, spec) => self.reserve(&link, request, spec),
            Record::Start(actor, is_readable) => {
                self.model.start(actor, is_readable);
                let is_too_large = self.model.actors.get(&actor).is_some_and(|actor| actor.spec.is_too_large);
                let (count, payloads) = match is_readable {
                    true if is_too_large => TOO_LARGE,
                    true => READABLE,
                    false => UNREADABLE,
                };
                self.actors.start(&self.tokens, actor, count, None, payloads);
            }
            Record::Abandon(actor, failure) => {
                self.model.abandon(actor, failure.clone());
                self.lives().end(actor, failure);
            }
            Record::Watch(actor) => {
                self.model.watch(from, actor);
                self.actors.watch(&link, actor);
            }
            Record::Find(request, name) => {
                self.model.find(from, request, name);
                self.actors.find(&link, request, name.0, name.1);
            }
            Record::Kill(actor, restarts) => {
                self.model.kill(actor, restarts);
                self.lives().kill(actor, restarts);
            }
            Record::AwaitEnd(request, actor) => {
                self.model.await_end(from, request, actor);
                self.ends.ask(&link, request, actor);
            }
            Record::Constructed(actor, result) => {
                self.model.constructed(from, actor, result.clone());
                self.lives().constructed(&link, actor, result);
            }
            Record::Exits(actor) => {
                self.model.exits(from, actor);
                self.lives().end_itself(&link, actor);
            }
            Record::Closed => self.close(&link),
        }
        self.actors.look_soon();
        self.answer_awaited();
        self.note();
    }

    fn reserve(&mut self, link: &End, request: u64, spec: Spec) {
        self.tokens.is_full.set(self.random.below(16) == 0);
        self.model.reserve(link.process, request, spec.clone(), self.tokens.is_full.get());
        let (namespace, name) = spec.name.map_or(("a", None), |(namespace, name)| (namespace, Some(name)));
        let some = [Demand::default(), Demand::of(cpus(0.5))];
        let demand = if spec.has_demand { some[self.random.below(2)].clone() } else { Demand::nothing() };
        let actor = NewActor {
            class: Key::from_bits(1),
            class_name: CLASS,
            namespace,
            name,
            get_if_exists: spec.get_if_exists,
            is_detached: spec.is_detached,
            max_pending_calls: spec.max_pending_calls,
            description: "",
            max_restarts: spec.max_restarts,
            max_task_retries: spec.max_task_retries,
            demand,
        };
        self.actors.reserve(&self.tokens, link, request, actor);
    }

    pub(super) fn answer_awaited(&mut self) {
        let Self { ends, actors, pool, model, .. } = self;
        ends.answer(|actor| {
            actors.last_process(actor).is_some_and(|last| last.is_none_or(|token| !pool.is_there(token)))
        });
        model.answer_awaited(|token| pool.is_there(token));
    }

    // ---- death ----

    /// A process dies. Its handles are gone at once, and so are the records that were on their way to it.
    pub(super) fn die(&mut self, token: u64) {
        let process = self.processes.remove(&token).expect("it lives");
        let mut post = self.post.borrow_mut();
        post.queues.remove(&token);
        post.closed.push(token);
        drop(post);
        if process.is_registered {
            self.send(token, Record::Closed);
        }
        self.unnoticed.insert(token);
    }

    fn close(&mut self, link: &End) {
        self.pool.caller_gone(link, self.now);
        self.ends.on_caller_gone(link);
        self.model.caller_gone(link.process);
        self.lives().caller_gone(link);
    }

    /// The head notices that a process has ended, before or after its link is closed.
    pub(super) fn notice(&mut self, token: u64) {
        self.unnoticed.remove(&token);
        // The records that it has sent before still count.
        while self.wires.get(&token).is_some_and(|wire| !matches!(wire[0], Record::Closed)) {
            self.deliver(token);
        }
        let worker = self.pool.remove(token).expect("it was there");
        let reason = ExitReason::Killed { signal: 9 };
        self.model.process_ended(token, reason);
        if let Job::Actor { actor } = worker.job {
            self.actors.process_ended(actor, pid(token), reason);
        }
        self.answer_awaited();
        self.note();
    }

    // ---- choosing ----

    /// The driver, or a worker that serves.
    fn any_caller(&mut self) -> u64 {
        if self.random.below(2) == 0 {
            return DRIVER;
        }
        let is_one = |(_, process): &(&u64, &Process)| process.is_registered;
        let callers: Vec<u64> = self.processes.iter().filter(is_one).map(|(token, _)| *token).collect();
        self.random.any(&callers).unwrap_or(DRIVER)
    }

    /// An actor to which a process has a handle; at times any actor, as if the handle had been dropped meanwhile.
    fn any_handle(&mut self, caller: u64) -> Option<u64> {
        if self.random.below(8) == 0 {
            let actors: Vec<u64> = self.model.actors.keys().copied().collect();
            return self.random.any(&actors);
        }
        let its: Vec<u64> = self.processes[&caller].handles.iter().map(|(actor, _)| *actor).collect();
        self.random.any(&its)
    }
}
