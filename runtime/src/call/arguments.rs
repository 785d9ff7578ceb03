//! The arguments of a call: payloads, and references to results that are still to come.

use mobula_client::Handle;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;

use crate::call::payload::{self, Encoded, Payload, Payloads, Written};
use crate::call::reference::Ref;
use crate::call::result_cell::{Inline, InlineBytes, ResultCell, Settled};
use crate::error::Failure;
use crate::runtime::Runtime;
use crate::session;

/// The arguments of a call. They keep the objects that they name alive.
#[derive(Debug, Default)]
pub(crate) struct TaskArguments {
    /// The values, with nothing in the places of results.
    values: Payloads,
    /// By their positions: the results of other calls, resolved before this one is sent.
    results: SmallVec<[(u32, Arc<ResultCell>); 1]>,
    /// Objects that values were moved to because they were too large for one record together.
    moved: Mutex<Vec<Handle>>,
}

impl TaskArguments {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.values.count()
    }

    /// Those that are the results of other calls.
    pub(crate) fn results(&self) -> impl Iterator<Item = &Arc<ResultCell>> {
        self.results.iter().map(|(_, cell)| cell)
    }

    /// What keeps the objects that the arguments name, all results being there.
    pub(crate) fn held(&self) -> Vec<Handle> {
        let mut held = self.values.held().to_vec();
        held.extend(self.moved.lock().iter().cloned());
        for cell in self.results() {
            match cell.outcome() {
                Some(Settled::Inline(inline)) => held.extend(inline.references),
                Some(Settled::Stored(handle)) => held.push(handle),
                _ => {}
            }
        }
        held
    }

    /// All payloads, if they are as they were given: there is nothing to resolve.
    pub(crate) fn as_given(&self) -> Option<&[u8]> {
        self.results.is_empty().then(|| self.values.bytes())
    }

    /// All payloads, with the results in their places, which must be there; with `all_stored`, nothing is inline.
    pub(crate) fn resolve(&self, runtime: &Runtime, all_stored: bool) -> Result<Vec<u8>, Failure> {
        let mut resolved = Vec::new();
        let mut results = self.results.iter().peekable();
        for position in 0..self.count() {
            match results.next_if(|(at, _)| *at as usize == position) {
                Some((_, cell)) => match cell.outcome() {
                    Some(Settled::Failed(failure)) => return Err(*failure),
                    Some(Settled::Inline(Inline { format, value, references })) if !all_stored => {
                        payload::append_inline(&mut resolved, format, &value, &references);
                    }
                    Some(Settled::Stored(handle)) => payload::append_stored(&mut resolved, handle.id()),
                    _ => payload::append_stored(&mut resolved, cell.export(&runtime.client)?.0.id()),
                },
                None => {
                    let mut given = self.values.bytes_of(position..position + 1);
                    match payload::take(&mut given) {
                        Ok(Payload::Inline { format, value, references }) if all_stored => {
                            let references = references.iter().map(|object| runtime.client.hold(object));
                            let references = references.collect::<Result<_, _>>()?;
                            let inline = Inline { format, value: InlineBytes::copy_of(value), references };
                            let moved = ResultCell::settled(runtime.session, Settled::Inline(inline))
                                .export(&runtime.client)?
                                .0;
                            payload::append_stored(&mut resolved, moved.id());
                            self.moved.lock().push(moved);
                        }
                        _ => resolved.extend_from_slice(self.values.bytes_of(position..position + 1)),
                    }
                }
            }
        }
        Ok(resolved)
    }
}

/// Arguments being collected for a call.
#[derive(Debug, Default)]
pub struct ArgumentList {
    pub(crate) arguments: TaskArguments,
    pub(crate) failure: Option<Box<Failure>>,
}

impl ArgumentList {
    /// Adds a value: one copy of what is not in the store, into a record if it is small, else into the store. `write`
    /// appends it to the bytes that it is given, or says that it goes apart. An error is that of the call.
    pub fn push_value<A: Encoded, E: Into<Failure>>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) {
        let pushed = match session::runtime() {
            Ok(runtime) => self.arguments.values.push(&runtime, write).map_err(Failure::from),
            Err(error) => Err(error.into()),
        };
        self.note(pushed);
    }

    /// Adds what a reference refers to: the callee gets its value. What is there already goes along like a value; what is
    /// not is waited for, and a failure is found then.
    pub fn push_reference(&mut self, reference: &Ref) {
        let pushed = self.try_push_reference(reference);
        self.note(pushed);
    }

    fn try_push_reference(&mut self, reference: &Ref) -> Result<(), Failure> {
        session::runtime_of(reference.session())?;
        let TaskArguments { values, results, .. } = &mut self.arguments;
        match reference.is_ready().then(|| reference.outcome()).flatten() {
            Some(Settled::Inline(inline)) => values.push_inline(&inline),
            Some(Settled::Stored(handle)) => values.push_stored(handle),
            Some(Settled::Failed(_)) | None => {
                results.push((values.count() as u32, reference.to_cell()));
                values.push_nothing();
            }
        }
        Ok(())
    }

    /// Adds no argument, for this reason: the call fails with the first.
    pub fn fail(&mut self, failure: impl Into<Failure>) {
        self.note(Err(failure.into()));
    }

    fn note(&mut self, pushed: Result<(), Failure>) {
        if let Err(failure) = pushed
            && self.failure.is_none()
        {
            self.failure = Some(Box::new(failure));
        }
    }
}
