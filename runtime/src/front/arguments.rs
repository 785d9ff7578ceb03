//! The arguments of a call, as a front collects them.

use crate::call::arguments::TaskArguments;
use crate::call::outcome::Settled;
use crate::call::payload::{Encoded, Written};
use crate::error::Failure;
use crate::front::reference::Ref;
use crate::runtime::current;

/// Arguments being collected for a call.
#[derive(Debug, Default)]
pub struct ArgumentList {
    pub(crate) arguments: TaskArguments,
    pub(crate) failure: Option<Box<Failure>>,
}

impl ArgumentList {
    /// Adds a value. A small value is copied into the record, and a larger one into the store. `write` appends the
    /// value to the bytes that it gets, or returns [`Written::Apart`]. An error becomes the failure of the call.
    pub fn push_value<A: Encoded, E: Into<Failure>>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) {
        let pushed = match current::runtime() {
            Ok(runtime) => self.arguments.values.push(&runtime.client, write).map_err(Failure::from),
            Err(error) => Err(error.into()),
        };
        self.note(pushed);
    }

    /// Adds the value that a reference refers to. A value that is there already is added like any other. A value that
    /// is still to come is waited for before the call is sent; if it fails, the call fails.
    pub fn push_reference(&mut self, reference: &Ref) {
        let pushed = self.try_push_reference(reference);
        self.note(pushed);
    }

    fn try_push_reference(&mut self, reference: &Ref) -> Result<(), Failure> {
        current::runtime_of(reference.session())?;
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

    /// Records why an argument cannot be added. The call fails with the first such failure.
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
