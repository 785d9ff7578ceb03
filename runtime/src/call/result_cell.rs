//! A result cell is where a result arrives: what a [`Ref`](crate::Ref) points to within a process.
//!
//! | state | what is there |
//! |---|---|
//! | pending | nothing; tasks and futures may wait for it, and a promise may stand for it in the store |
//! | inline | a small encoded value, in this process's heap |
//! | stored | a handle to an object, which may itself be another process's promise |
//! | failed | why there is no value |
//!
//! A cell leaves `pending` once. A reference inside a value needs an object id: [`ResultCell::export`] gives the cell
//! one, if necessary by a promise. From then on the cell and the promise are settled together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use mobula_client::{Client, ClientError, Handle, ObjectId, Promise};
use parking_lot::Mutex;

use crate::call::outcome::{Settled, write};
use crate::call::task::Task;
use crate::call::waiter::Waiter;
use crate::error::Failure;
use crate::session_number::SessionNumber;

const PENDING: u8 = 0;
const READY: u8 = 1;
/// Stored, and not yet known to be ready: the object may be a promise.
const FOREIGN: u8 = 2;

enum State {
    Pending { promise: Option<Promise>, dependents: Vec<Dependent> },
    Settled(Settled),
}

/// A call that has a result as an argument, or a future that waits for it.
#[derive(Debug)]
pub(crate) enum Dependent {
    Task(Arc<Task>),
    Waiter(Arc<Waiter>),
}

impl Dependent {
    /// Whether it is this future.
    pub(crate) fn is(&self, waiter: &Arc<Waiter>) -> bool {
        matches!(self, Self::Waiter(other) if Arc::ptr_eq(other, waiter))
    }
}

/// The place where a result arrives; see the module's documentation.
pub(crate) struct ResultCell {
    /// [`PENDING`], [`READY`] or [`FOREIGN`], to be read without the lock.
    phase: AtomicU8,
    pub(crate) session: SessionNumber,
    /// The number of the call; 0 for a result that was there from the beginning.
    pub(crate) call: u64,
    state: Mutex<State>,
}

impl ResultCell {
    pub(crate) fn pending(session: SessionNumber, call: u64) -> Arc<Self> {
        let state = State::Pending { promise: None, dependents: Vec::new() };
        Arc::new(Self { phase: AtomicU8::new(PENDING), session, call, state: Mutex::new(state) })
    }

    pub(crate) fn settled(session: SessionNumber, settled: Settled) -> Arc<Self> {
        let phase = phase_of(&settled);
        let state = Mutex::new(State::Settled(settled));
        Arc::new(Self { phase: AtomicU8::new(phase), session, call: 0, state })
    }

    /// Whether the call is not over. A load.
    pub(crate) fn is_pending(&self) -> bool {
        self.phase.load(Ordering::Acquire) == PENDING
    }

    /// Whether the value or the error is there. Costs one or two loads.
    pub(crate) fn is_ready(&self) -> bool {
        match self.phase.load(Ordering::Acquire) {
            PENDING => false,
            READY => true,
            _ => match &*self.state.lock() {
                // An error is a result too.
                State::Settled(Settled::Stored(handle)) if matches!(handle.is_ready(), Ok(false)) => false,
                _ => {
                    self.phase.store(READY, Ordering::Release);
                    true
                }
            },
        }
    }

    /// The outcome; `None` while the cell is pending. A stored object may still be a promise.
    pub(crate) fn outcome(&self) -> Option<Settled> {
        match &*self.state.lock() {
            State::Pending { .. } => None,
            State::Settled(settled) => Some(settled.clone()),
        }
    }

    /// The failure, if the cell has failed. Costs one load while it is pending.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if self.phase.load(Ordering::Acquire) != READY {
            return None;
        }
        match &*self.state.lock() {
            State::Settled(Settled::Failed(failure)) => Some((**failure).clone()),
            _ => None,
        }
    }

    /// The handle of another process's promise, while the cell waits for it.
    pub(crate) fn foreign_promise(&self) -> Option<Handle> {
        if self.phase.load(Ordering::Acquire) != FOREIGN || self.is_ready() {
            return None;
        }
        match &*self.state.lock() {
            State::Settled(Settled::Stored(handle)) => Some(handle.clone()),
            _ => None,
        }
    }

    /// Makes a task or a future wait for the cell. Returns it if the cell is settled already.
    pub(crate) fn add_dependent(&self, dependent: Dependent) -> Result<(), Dependent> {
        match &mut *self.state.lock() {
            State::Pending { dependents, .. } => {
                dependents.push(dependent);
                Ok(())
            }
            State::Settled(_) => Err(dependent),
        }
    }

    /// Removes a future that no longer waits.
    pub(crate) fn remove_waiter(&self, waiter: &Arc<Waiter>) {
        if let State::Pending { dependents, .. } = &mut *self.state.lock() {
            dependents.retain(|dependent| !dependent.is(waiter));
        }
    }

    /// Settles the cell, and its promise if it has one. Returns the calls and futures that waited for it, and the id of
    /// that promise. A second result is ignored.
    pub(crate) fn settle(&self, client: &Client, settled: Settled) -> (Vec<Dependent>, Option<ObjectId>) {
        let (dependents, promise) = {
            let mut state = self.state.lock();
            let State::Pending { promise, dependents } = &mut *state else { return (Vec::new(), None) };
            let promise = promise.take().map(|promise| (promise, settled.clone()));
            let dependents = std::mem::take(dependents);
            let phase = phase_of(&settled);
            *state = State::Settled(settled);
            self.phase.store(phase, Ordering::Release);
            (dependents, promise)
        };
        let Some((promise, settled)) = promise else { return (dependents, None) };
        let id = promise.handle().id();
        // If the store has no room, the promise is broken, and the threads that wait for it get an error.
        match write(client, &settled) {
            Ok(writer) => promise.fulfil(writer),
            Err(error) => tracing::error!(%error, "a promised result could not be stored"),
        }
        (dependents, Some(id))
    }

    /// Exports the result. Returns a handle to the object that holds or will hold it, and whether a promise was made
    /// for it.
    pub(crate) fn export(&self, client: &Client) -> Result<(Handle, bool), ClientError> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Pending { promise: Some(promise), .. } => Ok((promise.handle().clone(), false)),
            State::Pending { promise, .. } => {
                let made = promise.insert(client.promise()?);
                Ok((made.handle().clone(), true))
            }
            State::Settled(Settled::Stored(handle)) => Ok((handle.clone(), false)),
            State::Settled(settled) => {
                let handle = write(client, settled)?.seal().handle();
                // An inline value moves to the store, so that a second time costs nothing.
                if let Settled::Inline(_) = settled {
                    *settled = Settled::Stored(handle.clone());
                }
                Ok((handle, false))
            }
        }
    }
}

fn phase_of(settled: &Settled) -> u8 {
    if matches!(settled, Settled::Stored(_)) { FOREIGN } else { READY }
}

impl Drop for ResultCell {
    fn drop(&mut self) {
        // The arguments and the result of its call are freed with the cell.
        mobula_client::internal::heap::freed();
    }
}

impl std::fmt::Debug for ResultCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.state.lock() {
            State::Pending { .. } => f.write_str("Pending"),
            State::Settled(settled) => settled.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::inline::{Inline, InlineBytes};
    use crate::call::with_store;
    use crate::format;

    #[test]
    fn a_future_that_is_dropped_leaves_nothing_in_its_cell() {
        with_store(|client| {
            let cell = ResultCell::pending(SessionNumber::NONE, 1);
            let waiters = [(); 3].map(|()| Waiter::new(1, true));
            for waiter in &waiters {
                cell.add_dependent(Dependent::Waiter(waiter.clone())).expect("it is pending");
            }
            cell.remove_waiter(&waiters[1]);
            let (dependents, _) = cell.settle(client, Settled::failed(Failure::SessionOver));
            let is_there = |waiter| dependents.iter().any(|dependent| dependent.is(waiter));
            assert_eq!(waiters.each_ref().map(is_there), [true, false, true]);
        });
    }

    #[test]
    fn what_moves_to_the_store_keeps_its_tag() {
        with_store(|client| {
            let session = SessionNumber::NONE;
            for format in [format::PLAIN, format::TENSOR, format::ARROW, format::PYTHON] {
                let value = InlineBytes::copy_of(b"a payload");
                let inline = || Inline { format, value: value.clone(), references: Vec::new() };
                // One value is there before its object is promised, and one comes after.
                let (settled, promised) = (
                    ResultCell::settled(session, Settled::Inline(inline())),
                    ResultCell::pending(session, 1),
                );
                let (handle, _) = promised.export(client).unwrap();
                promised.settle(client, Settled::Inline(inline()));
                for handle in [settled.export(client).unwrap().0, handle] {
                    let object = handle.object().unwrap();
                    assert_eq!((object.format(), &object[..]), (format, &b"a payload"[..]));
                }
            }
        });
    }
}
