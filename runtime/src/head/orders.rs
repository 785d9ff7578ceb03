//! Orders of observers of the session: to kill a process, or to cancel a call. The head answers the observer when the
//! process has ended, or when the process that made the call has cancelled it.

use std::sync::Arc;
use std::time::Instant;

use mobula_client::OwnerId;

use super::state::State;
use crate::mail::link::Link;
use crate::wire::{CancelCall, FromHead, Obeyed};

/// The orders that are not carried out yet; see the module's documentation.
#[derive(Default)]
pub(super) struct Orders {
    orders: Vec<Order>,
    number_last: u64,
}

struct Order {
    number: u64,
    by: Arc<Link>,
    /// The number that the observer gave the order.
    request: u64,
    /// The event after which the observer is answered.
    awaits: Awaits,
}

/// The event that an order waits for.
enum Awaits {
    /// The end of the process with this token.
    End(u64),
    /// The answer of this process.
    Answer(OwnerId),
}

impl Orders {
    /// The process with this token is killed.
    pub(super) fn await_end(&mut self, by: &Arc<Link>, request: u64, token: u64) {
        self.add(by, request, Awaits::End(token));
    }

    /// Notes that a process is told to cancel a call. Returns the number with which it answers.
    pub(super) fn await_answer(&mut self, by: &Arc<Link>, request: u64, process: OwnerId) -> u64 {
        self.add(by, request, Awaits::Answer(process))
    }

    fn add(&mut self, by: &Arc<Link>, request: u64, awaits: Awaits) -> u64 {
        self.number_last += 1;
        let number = self.number_last;
        self.orders.push(Order { number, by: by.clone(), request, awaits });
        number
    }

    /// A process answers.
    pub(super) fn answered(&mut self, from: OwnerId, number: u64, outcome: Obeyed) {
        let is_it = |order: &mut Order| {
            order.number == number && matches!(order.awaits, Awaits::Answer(process) if process == from)
        };
        self.orders.extract_if(.., is_it).for_each(|order| tell(&order.by, order.request, outcome));
    }

    /// Answers the orders to kill whose processes have ended.
    pub(super) fn look(&mut self, is_there: impl Fn(u64) -> bool) {
        let has_ended = |order: &mut Order| matches!(order.awaits, Awaits::End(token) if !is_there(token));
        self.orders.extract_if(.., has_ended).for_each(|order| tell(&order.by, order.request, Obeyed::Done));
    }

    /// A link is gone: of an observer, or of a process, which cannot cancel calls any more.
    pub(super) fn on_link_gone(&mut self, link: &Arc<Link>) {
        self.orders.retain(|order| !Arc::ptr_eq(&order.by, link));
        let is_its =
            |order: &mut Order| matches!(order.awaits, Awaits::Answer(process) if process == link.peer);
        self.orders
            .extract_if(.., is_its)
            .for_each(|order| tell(&order.by, order.request, Obeyed::NoSuchCall));
    }
}

impl State {
    /// Kills a worker or an actor. An actor may be restarted.
    pub(super) fn kill_process(&mut self, by: &Arc<Link>, request: u64, pid: u32) {
        let Some(token) = self.pool.token_of_pid(pid) else {
            return tell(by, request, Obeyed::NotHere);
        };
        self.orders.await_end(by, request, token);
        self.pool.exit_if_idle(token, Instant::now());
        self.processes.kill_on_request(token);
    }

    /// Tells the process that made a call to cancel it.
    pub(super) fn cancel_call(&mut self, by: &Arc<Link>, request: u64, process: OwnerId, cancel: CancelCall) {
        match self.links.get(&process) {
            Some(link) => {
                let request = self.orders.await_answer(by, request, process);
                let _ = link.send(&FromHead::CancelCall { request, cancel }, Vec::new());
            }
            None => tell(by, request, Obeyed::NotHere),
        }
    }
}

/// Answers an observer.
fn tell(by: &Link, request: u64, outcome: Obeyed) {
    let _ = by.send(&FromHead::Obeyed { request, outcome }, Vec::new());
}
