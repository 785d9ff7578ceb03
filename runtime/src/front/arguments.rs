//! The arguments of a call, as a front collects them.

use crate::call::arguments::TaskArguments;
use crate::call::outcome::Settled;
use crate::call::payload::{Encoded, Written};
use crate::error::{Error, Failure};
use crate::front::reference::Ref;
use crate::runtime::current::{self, RuntimeRef};

/// Arguments being collected for a call in the session that this process has when the list is made.
#[derive(Debug)]
pub struct ArgumentList {
    /// The runtime, looked up once for each call.
    runtime: Option<RuntimeRef>,
    arguments: TaskArguments,
    failure: Option<Box<Failure>>,
}

impl Default for ArgumentList {
    /// No arguments yet. Where there is no session, the failure of the call says so.
    #[inline]
    fn default() -> Self {
        let (runtime, failure) = match current::runtime() {
            Ok(runtime) => (Some(runtime), None),
            Err(error) => (None, Some(Box::new(error.into()))),
        };
        Self { runtime, arguments: TaskArguments::default(), failure }
    }
}

impl ArgumentList {
    /// The runtime that makes the call.
    ///
    /// # Errors
    /// This process had no session when the list was made.
    pub(crate) fn runtime(&self) -> Result<&RuntimeRef, Failure> {
        self.runtime.as_ref().ok_or_else(|| match &self.failure {
            Some(failure) => (**failure).clone(),
            None => Error::NotInitialized.into(),
        })
    }

    /// The reason if the call fails before it is made.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_deref()
    }

    /// The runtime that makes the call, and the arguments.
    ///
    /// # Errors
    /// Why one of them could not be added, or why there is no runtime.
    #[inline]
    pub(crate) fn into_parts(self) -> Result<(RuntimeRef, TaskArguments), Box<Failure>> {
        let Self { runtime, arguments, failure } = self;
        match (runtime, failure) {
            (Some(runtime), None) => Ok((runtime, arguments)),
            (_, failure) => Err(failure.unwrap_or_else(|| Box::new(Error::NotInitialized.into()))),
        }
    }

    /// Adds a value. A small value is copied into the record, and a larger one into the store. `write` appends the
    /// value to the bytes that it gets, or returns [`Written::Apart`]. An error becomes the failure of the call.
    pub fn push_value<A: Encoded, E: Into<Failure>>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) {
        // Without a runtime the call has failed already.
        let Some(runtime) = &self.runtime else { return };
        let pushed = self.arguments.values.push(&runtime.client, write).map_err(Failure::from);
        self.note(pushed);
    }

    /// Adds the value that a reference refers to. A value that is there already is added like any other. A value that
    /// is still to come is waited for before the call is sent; if it fails, the call fails.
    pub fn push_reference(&mut self, reference: &Ref) {
        let pushed = self.try_push_reference(reference);
        self.note(pushed);
    }

    fn try_push_reference(&mut self, reference: &Ref) -> Result<(), Failure> {
        if self.runtime.as_ref().is_some_and(|runtime| !runtime.is_of(reference.session())) {
            return Err(Failure::SessionOver);
        }
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
