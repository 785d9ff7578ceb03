//! The head's questions about deadlocks, and its reports of them.

use std::collections::BTreeMap;
use std::time::Instant;

use mobula_client::{ObjectId, OwnerId};

use super::State;
use crate::error::WaitingCall;
use crate::head::deadlock::{self, Deadlocked, Known};
use crate::mail::link::{Link, TooLarge};
use crate::wire::{FromHead, Held, NEEDS_MAX, Need, WAITS_MAX, Waits};

impl State {
    /// A process reports a wait.
    pub(super) fn on_waits(&mut self, from: &Link, waits: Waits) {
        if !waits.is_within_limits() {
            return is_faulty(from);
        }
        self.deadlocks.on_told(from.peer, waits, Instant::now());
    }

    /// A process answers which waits and which calls it has.
    pub(super) fn on_all_waits(&mut self, from: &Link, round: u64, waits: Vec<Waits>, holds: Vec<Held>) {
        let is_within_limits = waits.len() <= WAITS_MAX && waits.iter().all(Waits::is_within_limits);
        if !is_within_limits || !holds.iter().all(Held::is_within_limits) {
            return is_faulty(from);
        }
        self.deadlocks.on_answer(from.peer, round, waits, holds);
    }

    /// The owner of a promise answers what it needs.
    pub(super) fn on_promise_needs(&mut self, from: &Link, round: u64, object: ObjectId, needs: Vec<Need>) {
        if object.owner() != from.peer || needs.len() > NEEDS_MAX {
            return is_faulty(from);
        }
        self.deadlocks.on_promise(object, round, needs);
    }

    /// Asks the processes that may be stuck, and informs those that are.
    pub(in crate::head) fn look_after_deadlocks(&mut self) {
        let Self { deadlocks, actors, pool, links, .. } = self;
        let mut reports: BTreeMap<OwnerId, Vec<(u64, Vec<WaitingCall>)>> = BTreeMap::new();
        for step in deadlocks.step(&Known { actors, pool }, Instant::now()) {
            let (to, record) = match step {
                deadlock::Step::Ask { process, round, calls } => {
                    (process, FromHead::AskWaits { round, calls })
                }
                deadlock::Step::AskPromise { object, round } => {
                    (object.owner(), FromHead::AskPromise { round, object })
                }
                deadlock::Step::Report(Deadlocked { process, wait, cycle }) => {
                    let cycle = waiting_calls(cycle, |process| pool.pid_at(process).unwrap_or(0));
                    tracing::warn!(?cycle, "a deadlock");
                    reports.entry(process).or_default().push((wait, cycle));
                    continue;
                }
            };
            if let Some(link) = links.get(&to) {
                let _ = link.send(&record, Vec::new());
            }
        }
        // In one record, if they fit: the end of one wait frees others, which must have the error by then.
        for (process, cycles) in reports {
            let Some(link) = links.get(&process) else { continue };
            let record = FromHead::Deadlocks { cycles };
            let (Err(TooLarge), FromHead::Deadlocks { cycles }) = (link.send(&record, Vec::new()), record)
            else {
                continue;
            };
            for cycle in cycles {
                let _ = link.send(&FromHead::Deadlocks { cycles: vec![cycle] }, Vec::new());
            }
        }
    }
}

/// A process has reported more than it may, or about another one.
fn is_faulty(process: &Link) {
    tracing::error!(peer = %process.peer, "a report about waits that cannot be");
    process.close();
}

/// The circle for its report. If a process does not name its running function, the function is taken from the wait of
/// the process before it.
fn waiting_calls(cycle: Vec<(OwnerId, Waits)>, pid: impl Fn(OwnerId) -> u32) -> Vec<WaitingCall> {
    let of_before: Vec<String> = cycle.iter().map(|(_, waits)| waits.waits_for.clone()).collect();
    let calls = cycle.into_iter().enumerate().map(|(position, (process, waits))| {
        let Waits { function, waits_for, at, .. } = waits;
        let before = (position + of_before.len() - 1) % of_before.len();
        let function = if function.is_empty() { of_before[before].clone() } else { function };
        WaitingCall::new(pid(process), function, waits_for, at)
    });
    calls.collect()
}
