//! The calls of one process to one actor, with the real submitter and real channels, and without processes: both ends
//! of each channel are here. A seed decides when calls are made, begin, end or are cancelled, when their arguments
//! come, and when the actor's process dies or its channel is lost.
//!
//! After each step, a model says which calls have been sent, in which order, and which have which outcome:
//!
//! - calls are sent in the order in which they were made, and a call whose argument is missing holds the later ones
//!   back, unless they may go before it;
//! - after a death, the calls that had not begun are sent again before all others, in their order; so are those that
//!   had begun and may be retried; the others fail;
//! - a call that fails with an error and may be retried goes before the later ones that wait;
//! - no call begins more often than its retries allow, and each call has one outcome at the end.
//!
//! [Seeds](crate::simulated) are those of all simulations.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize};

use super::*;
use crate::call::arguments::TaskArguments;
use crate::call::error_retries::ErrorRetries;
use crate::call::inline::{Inline, InlineBytes};
use crate::call::payload;
use crate::call::task::{Extras, ResultCells};
use crate::definition::Name;
use crate::demand::Demand;
use crate::error::{ActorEnd, ExitReason, TaskError, TaskErrorKind};
use crate::simulated::{Random, for_each_seed};
use crate::wire::{FromHead, NoResults, Results, Returns, ToWorker};

const STEPS: usize = 200;
const ROUNDS_MAX: usize = 500;

#[test]
fn calls_of_an_actor_keep_their_order() {
    crate::call::with_store(|client| {
        for_each_seed("submit::simulation", |seed| Life::new(client, seed).run());
    });
}

/// A call, as the model knows it.
struct Call {
    is_in_order: bool,
    retries_errors: bool,
    /// A retry because of an error is due long after the test.
    is_late: bool,
    /// It waits for such a retry.
    waits_long: bool,
    max_retries: u32,
    retries: u32,
    begun: u32,
    /// The argument that is not there.
    argument: Option<Arc<ResultCell>>,
    result: Arc<ResultCell>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    Cancelled,
    Unavailable,
    Unreachable,
    ActorOver,
}

/// A call that was sent to the actor's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    call: u64,
    /// The number of its record.
    number: u64,
    has_begun: bool,
    /// Whether the call has ended well; `None`: it has not ended.
    is_answered: Option<bool>,
}

struct Life {
    random: Random,
    client: Client,
    links: Arc<Links>,
    submitter: Submitter,
    actor: u64,
    token: Arc<Handle>,
    calls: BTreeMap<u64, Call>,
    /// The calls that wait here, in the order in which they will be sent.
    queue: Vec<u64>,
    /// The calls that were sent to the process that is there, and are not over for their caller.
    sent: Vec<Sent>,
    /// The calls that the process has answered, in this order, and whose answers the caller has not read.
    answered: Vec<u64>,
    /// The actor's end of the channel; `None`: the actor has no process.
    process: Option<Arc<Link>>,
    is_over: bool,
    /// The calls that the model has sent, and whose records the process has not read.
    due: VecDeque<u64>,
}

impl Life {
    fn new(client: &Client, seed: u64) -> Self {
        let links = Links::new(client.clone());
        let waiters = Waiters::new(client.clone(), Duration::ZERO);
        Self {
            random: Random::new(seed),
            submitter: Submitter::new(SessionNumber::NONE, client.clone(), links.clone(), waiters),
            links,
            actor: 7,
            token: Arc::new(client.put(&[]).expect("there is room").handle()),
            client: client.clone(),
            calls: BTreeMap::new(),
            queue: Vec::new(),
            sent: Vec::new(),
            answered: Vec::new(),
            process: None,
            is_over: false,
            due: VecDeque::new(),
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.end();
    }

    fn step(&mut self) {
        match self.random.below(32) {
            0..=8 => self.call(),
            9..=11 => self.argument_comes(),
            12..=19 => self.begin(),
            20..=25 => {
                let is_good = self.random.below(4) > 0;
                self.answer(is_good);
            }
            26 | 27 => self.look(),
            28 => self.cancel(),
            29 if self.random.below(2) == 0 => self.die(),
            30 if self.random.below(3) == 0 => self.lose_channel(),
            _ => self.come_up(),
        }
    }

    // ---- the caller ----

    fn call(&mut self) {
        let id = self.submitter.next_id();
        let is_in_order = self.random.below(4) > 0;
        let argument = (self.random.below(4) == 0).then(|| ResultCell::pending(SessionNumber::NONE, 0));
        let retries_errors = self.random.below(3) == 0;
        let max_retries = [0, 0, 1, 2][self.random.below(4)];
        let mut arguments = TaskArguments::default();
        if let Some(cell) = &argument {
            arguments.results.push((0, cell.clone()));
            arguments.values.push_nothing();
        }
        let result = ResultCell::pending(SessionNumber::NONE, id);
        let (class, name) = (Name::Static("Counter"), Name::Static("add"));
        let is_late = self.random.below(4) == 0;
        let first_delay = if is_late { Duration::from_secs(3600) } else { Duration::ZERO };
        let error_retries = Some(ErrorRetries { first_delay, is_retried: None });
        let task = Task {
            id,
            parent: 0,
            is_detached: false,
            target: Target::Method {
                actor: self.actor,
                method: 0,
                class,
                name,
                token: self.token.clone(),
                is_in_order,
            },
            unready: AtomicUsize::new(1),
            arguments,
            returns: Returns::One,
            results: ResultCells::from_iter([result.clone()]),
            items: None,
            is_cancelled: AtomicBool::new(false),
            demand: Demand::default(),
            max_retries: 0,
            extras: Some(Box::new(Extras {
                limits: None,
                context: None,
                error_retries: error_retries.filter(|_| retries_errors),
                max_task_retries: Some(max_retries),
                watched: None,
            })),
            retries: AtomicU32::new(0),
            sent_in_vain: AtomicU32::new(0),
            memory_retries: AtomicU16::new(0),
        };
        self.submitter.submit(Arc::new(task));
        let call = Call {
            is_in_order,
            retries_errors,
            is_late,
            waits_long: false,
            max_retries,
            retries: 0,
            begun: 0,
            argument,
            result,
            outcome: None,
        };
        self.calls.insert(id, call);
        if self.is_over {
            // It fails like a call that was sent: when its arguments are there.
            self.over_if_ready(id);
        } else {
            // One that may go before the others goes at once if it can.
            let is_ready = self.calls[&id].argument.is_none();
            if self.process.is_some() && is_ready && (self.queue.is_empty() || !is_in_order) {
                self.due.push_back(id);
            } else {
                self.queue.push(id);
                self.drain();
            }
        }
    }

    fn over_if_ready(&mut self, call: u64) {
        let call = self.made(call);
        if call.argument.is_none() && call.outcome.is_none() {
            call.outcome = Some(Outcome::ActorOver);
        }
    }

    /// Sends what can be sent.
    fn drain(&mut self) {
        // After the loss of a channel, the next call that is ready opens another one.
        if self.process.is_none() {
            self.process = self.links.active().iter().find(|link| link.incoming).cloned();
        }
        while self.process.is_some() {
            let is_next = |call: &u64| self.calls[call].argument.is_none() || self.calls[call].is_in_order;
            let Some(first) = self.queue.iter().position(is_next) else { return };
            let call = self.queue[first];
            if self.calls[&call].argument.is_some() {
                return;
            }
            self.queue.remove(first);
            self.due.push_back(call);
        }
    }

    fn argument_comes(&mut self) {
        let waiting: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.argument.is_some()).map(|(id, _)| *id).collect();
        let Some(id) = self.random.any(&waiting) else { return };
        let Some(cell) = self.made(id).argument.take() else { return };
        let value = InlineBytes::copy_of(b"7");
        self.submitter.settle(&cell, Settled::Inline(Inline { format: 1, value, references: Vec::new() }));
        if self.is_over {
            self.over_if_ready(id);
        }
        self.drain();
    }

    fn cancel(&mut self) {
        let unfinished: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.outcome.is_none()).map(|(id, _)| *id).collect();
        if let Some(id) = self.random.any(&unfinished) {
            self.cancel_one(id);
        }
    }

    fn cancel_one(&mut self, id: u64) {
        self.submitter.cancel(&|task| task.id == id, false, true);
        self.made(id).outcome = Some(Outcome::Cancelled);
        self.made(id).argument = None;
        self.queue.retain(|call| *call != id);
        // The others may have waited for it; in the product, the next event sends them.
        self.submitter.send_to_actor(self.actor);
        self.drain();
    }

    /// The caller reads the answers.
    fn look(&mut self) {
        if let Some(link) = self.link() {
            link.receive(&mut |record| self.submitter.on_results(&link, record));
            self.note_answers();
        }
    }

    /// The answers count for the caller.
    fn note_answers(&mut self) {
        for id in std::mem::take(&mut self.answered) {
            let at = self.sent.iter().position(|sent| sent.call == id).expect("it was sent");
            let Sent { is_answered, .. } = self.sent.remove(at);
            let call = self.made(id);
            if call.outcome.is_some() {
                continue;
            }
            if is_answered == Some(false) && call.retries_errors && call.retries < call.max_retries {
                call.retries += 1;
                if call.is_late {
                    call.waits_long = true;
                    continue;
                }
                let at = self.queue.iter().position(|later| *later > id).unwrap_or(self.queue.len());
                self.queue.insert(at, id);
                self.drain();
            } else {
                call.outcome = Some(if is_answered == Some(true) { Outcome::Done } else { Outcome::Failed });
            }
        }
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.submitter.state.lock().actors.link(self.actor).cloned()
    }

    // ---- the actor ----

    /// The process reads what was sent.
    fn read(&mut self) {
        let Some(process) = self.process.clone() else { return };
        let mut records = Vec::new();
        process.receive(&mut |record| records.push((ToWorker::read(record), process.received())));
        for (record, number) in records {
            match record {
                Some(ToWorker::Call(call)) => {
                    let due = self.due.pop_front();
                    assert_eq!(Some(call.task), due, "sent (left), and due (right)");
                    self.sent.push(Sent { call: call.task, number, has_begun: false, is_answered: None });
                }
                Some(ToWorker::Cancel(cancel)) => {
                    // One that has not begun is removed.
                    let is_it = |sent: &Sent| sent.call == cancel.task && !sent.has_begun;
                    for sent in self.sent.extract_if(.., |sent| is_it(sent)) {
                        let removed = NoResults::Removed { task: sent.call };
                        let _ = process.send_with(Vec::new(), |record| removed.append_to(record));
                    }
                }
                record => panic!("no process of an actor gets {record:?}"),
            }
        }
        assert!(self.due.is_empty(), "not sent: {:?}", self.due);
    }

    fn begin(&mut self) {
        self.read();
        if let (Some(process), Some(next)) =
            (&self.process, self.sent.iter_mut().find(|sent| !sent.has_begun))
        {
            next.has_begun = true;
            process.begin(next.number);
            let (id, call) = (next.call, self.calls.get_mut(&next.call).expect("it was made"));
            call.begun += 1;
            assert!(call.begun <= 1 + call.retries, "{id} begins once more, after {} retries", call.retries);
        }
    }

    fn answer(&mut self, is_good: bool) {
        let running: Vec<usize> = (0..self.sent.len())
            .filter(|at| self.sent[*at].has_begun && self.sent[*at].is_answered.is_none())
            .collect();
        let (Some(at), Some(process)) = (self.random.any(&running), self.process.clone()) else { return };
        let task = self.sent[at].call;
        self.sent[at].is_answered = Some(is_good);
        self.answered.push(task);
        let sent = process.send_with(Vec::new(), |record| {
            if is_good {
                let results = Results { task, first: 0, count: 1, is_last: true, ran_nanos: 0 };
                results.append_to(record);
                payload::append_inline(record, 1, b"7", &[]);
            } else {
                let error = TaskError::new("add", TaskErrorKind::Returned, "it fails".to_owned());
                NoResults::Failed { task, failure: Failure::Task(error), ran_nanos: 0 }.append_to(record);
            }
        });
        assert!(sent.is_ok(), "the record fits");
    }

    // ---- the loss of processes and channels ----

    /// The caller loses its channel.
    fn close(&self, link: &Arc<Link>) {
        link.receive_the_rest(&mut |record| self.submitter.on_results(link, record));
        link.close();
        self.links.remove(link);
        self.submitter.on_worker_gone(link);
    }

    /// The process is gone. The answers that it has sent still count, and a retry because of them is sent in vain.
    fn lose_process(&mut self) -> Option<Arc<Link>> {
        self.read();
        self.process.as_ref()?;
        self.note_answers();
        let in_vain = self.due.drain(..);
        let sent = |call| Sent { call, number: u64::MAX, has_begun: false, is_answered: None };
        self.sent.extend(in_vain.map(sent));
        let process = self.process.take()?;
        self.links.remove(&process);
        process.close();
        self.link()
    }

    /// The calls of the process that is gone: those that are sent again go before all others.
    fn again(&mut self, may_retry: bool, failure: Outcome) {
        let mut lost = std::mem::take(&mut self.sent);
        lost.sort_by_key(|sent| sent.call);
        let mut again = Vec::new();
        for Sent { call: id, has_begun, .. } in lost {
            let call = self.made(id);
            if call.outcome.is_some() {
                continue;
            }
            if !has_begun {
                again.push(id);
            } else if may_retry && call.retries < call.max_retries {
                call.retries += 1;
                again.push(id);
            } else {
                call.outcome = Some(failure);
            }
        }
        self.queue.splice(0..0, again);
    }

    /// The process dies, and the head says so before or after the channel is lost.
    fn die(&mut self) {
        let Some(link) = self.lose_process() else { return };
        let is_over = self.random.below(8) == 0;
        let is_told_first = self.random.below(2) == 0;
        if !is_told_first {
            self.close(&link);
        }
        let (actor, pid, reason) = (self.actor, 1, ExitReason::Unknown);
        if is_over {
            let cause = ActorEnd::Killed;
            let (class, method) = ("Counter".to_owned(), String::new());
            let failure = Failure::ActorDied { class, method, pid: 0, cause };
            self.submitter.on_head(FromHead::ActorOver { actor, pid, failure });
            self.is_over = true;
            self.sent.clear();
            self.queue.clear();
            let all = self.calls.values_mut().filter(|call| call.outcome.is_none());
            all.for_each(|call| call.outcome = Some(Outcome::ActorOver));
        } else {
            self.submitter.on_head(FromHead::ActorRestarts { actor, pid, reason });
            self.again(true, Outcome::Unavailable);
        }
        if is_told_first {
            self.close(&link);
        }
    }

    /// Only the channel is lost. Another one is opened.
    fn lose_channel(&mut self) {
        let Some(link) = self.lose_process() else { return };
        self.close(&link);
        self.again(false, Outcome::Unreachable);
        self.submitter.reach_lost_actor(self.actor);
        self.drain();
    }

    /// The head says where the actor is.
    fn come_up(&mut self) {
        if self.process.is_none() && !self.is_over {
            self.submitter.state.lock().actors.add(self.actor);
            let (actor, process) = (self.actor, self.client.id());
            self.submitter.on_head(FromHead::ActorAt { actor, process, max_task_retries: 0 });
            self.drain();
        }
    }

    // ---- what must hold ----

    fn check(&mut self) {
        self.read();
        for (id, call) in &self.calls {
            let outcome = call.result.outcome().map(|settled| match settled {
                Settled::Failed(failure) => match *failure {
                    Failure::Task(_) => Outcome::Failed,
                    Failure::TaskCancelled { .. } => Outcome::Cancelled,
                    Failure::ActorUnavailable { .. } => Outcome::Unavailable,
                    Failure::Unreachable { .. } => Outcome::Unreachable,
                    Failure::ActorDied { .. } => Outcome::ActorOver,
                    failure => panic!("{id} has failed: {failure}"),
                },
                _ => Outcome::Done,
            });
            assert_eq!(outcome, call.outcome, "the outcome of {id} is (left), and should be (right)");
        }
    }

    /// Each call comes to its end.
    fn end(mut self) {
        for _ in 0..ROUNDS_MAX {
            let wait_long = |(_, call): &(&u64, &Call)| call.waits_long && call.outcome.is_none();
            let waiting: Vec<u64> = self.calls.iter().filter(wait_long).map(|(id, _)| *id).collect();
            waiting.into_iter().for_each(|call| self.cancel_one(call));
            // Those that were cancelled while they ran end, too.
            let is_over = |call: &Call| call.outcome.is_some() && call.argument.is_none();
            if self.calls.values().all(is_over) && !self.submitter.has_calls() {
                return;
            }
            self.come_up();
            self.argument_comes();
            self.begin();
            self.answer(true);
            self.look();
            self.check();
        }
        let left: Vec<u64> =
            self.calls.iter().filter(|(_, call)| call.outcome.is_none()).map(|(id, _)| *id).collect();
        panic!("these calls have no end: {left:?}");
    }

    fn made(&mut self, call: u64) -> &mut Call {
        self.calls.get_mut(&call).expect("it was made")
    }
}
