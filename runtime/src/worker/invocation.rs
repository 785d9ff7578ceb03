//! A call that runs: its arguments as they came, and its results as they go.

use mobula_client::Client;

use crate::call::payload::{self, Encoded, Malformed, Payload, Payloads, PushError, Written};
use crate::wire::Returns;

/// A call that is about to run, as its host sees it.
pub struct Invocation {
    client: Client,
    record: Vec<u8>,
    /// Where the next payload begins.
    at: usize,
    count: u32,
    position: u32,
    returns: Returns,
    results: Payloads,
}

impl Invocation {
    /// With the `count` payloads that begin at a place in a record as its arguments.
    pub(crate) fn new(client: &Client, record: Vec<u8>, at: usize, count: u32, returns: Returns) -> Self {
        let (client, results) = (client.clone(), Payloads::default());
        Self { client, record, at, count, position: 0, returns, results }
    }

    /// The results, and the record, to be used again.
    pub(crate) fn into_parts(self) -> (Payloads, Vec<u8>) {
        (self.results, self.record)
    }

    /// The next argument, and the client that objects are had from; `None` behind the last. The caller keeps the objects that it names until the call is over.
    ///
    /// # Errors
    /// When the record that the arguments came in is cut short.
    #[expect(clippy::should_implement_trait, reason = "it borrows from the invocation")]
    pub fn next(&mut self) -> Option<Result<(Payload<'_>, &Client), Malformed>> {
        if self.position >= self.count {
            return None;
        }
        self.position += 1;
        let mut rest = self.record.get(self.at..).unwrap_or_default();
        let taken = payload::take(&mut rest);
        self.at = self.record.len() - rest.len();
        Some(taken.map(|payload| (payload, &self.client)))
    }

    /// How many arguments there are.
    pub fn argument_count(&self) -> u32 {
        self.count
    }

    /// How many of them have been taken.
    pub fn taken(&self) -> u32 {
        self.position
    }

    /// How many results the caller wants, and of what shape.
    pub fn returns(&self) -> Returns {
        self.returns
    }

    /// The client of this process.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Gives the next result. `write` appends it to the bytes that it is given, and to nothing else, or says that it goes
    /// apart.
    ///
    /// # Errors
    /// That of `write`, or the store's.
    pub fn give<A: Encoded, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) -> Result<(), PushError<E>> {
        self.results.push(&self.client, write)
    }
}
