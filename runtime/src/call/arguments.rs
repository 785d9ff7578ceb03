//! The arguments of a call: payloads, and references to results that are still to come.

use mobula_client::{Client, Handle};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;

use crate::call::inline::{Inline, InlineBytes};
use crate::call::outcome::Settled;
use crate::call::payload::{self, Payload, Payloads};
use crate::call::result_cell::ResultCell;
use crate::error::Failure;
use crate::session_number::SessionNumber;

/// The arguments of a call. They keep the objects that they name alive.
#[derive(Debug, Default)]
pub(crate) struct TaskArguments {
    /// The values. The places of results are empty.
    pub(crate) values: Payloads,
    /// The results of other calls, by their positions. They are resolved before this call is sent.
    pub(crate) results: SmallVec<[(u32, Arc<ResultCell>); 1]>,
    /// Objects to which values were moved, because together they were too large for one record.
    moved: Mutex<Vec<Handle>>,
}

impl TaskArguments {
    /// The number of arguments.
    pub(crate) fn count(&self) -> usize {
        self.values.count()
    }

    /// The arguments that are results of other calls.
    pub(crate) fn results(&self) -> impl Iterator<Item = &Arc<ResultCell>> {
        self.results.iter().map(|(_, cell)| cell)
    }

    /// Handles to the objects that the arguments name. All results must be there.
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

    /// All payloads, if no argument is the result of another call: then there is nothing to resolve.
    pub(crate) fn as_given(&self) -> Option<&[u8]> {
        self.results.is_empty().then(|| self.values.bytes())
    }

    /// All payloads, with the results in their places. All results must be there. With `all_stored`, every payload is
    /// an object of the store.
    pub(crate) fn resolve(
        &self,
        client: &Client,
        session: SessionNumber,
        all_stored: bool,
    ) -> Result<Vec<u8>, Failure> {
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
                    _ => payload::append_stored(&mut resolved, cell.export(client)?.0.id()),
                },
                None => {
                    let mut given = self.values.bytes_of(position..position + 1);
                    match payload::take(&mut given) {
                        Ok(Payload::Inline { format, value, references }) if all_stored => {
                            let references = references.iter().map(|object| client.hold(object));
                            let references = references.collect::<Result<_, _>>()?;
                            let inline = Inline { format, value: InlineBytes::copy_of(value), references };
                            let moved =
                                ResultCell::settled(session, Settled::Inline(inline)).export(client)?.0;
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
