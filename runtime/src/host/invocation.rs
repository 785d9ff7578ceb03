//! A call that runs: its arguments in a record, and the results that it gives.

use std::fmt;
use std::task::{Context, Poll};

use mobula_client::Client;

use crate::call::payload::{self, Encoded, Malformed, Payload, Payloads, PushError, Written};
use crate::call::task_id::TaskId;
use crate::host::reply::Reply;
use crate::record::{RunBeside, Runs};
use crate::wire::{CallContext, Returns};

/// Takes the items of a stream to the caller.
pub(crate) trait ItemSink {
    /// Sends an item, and does not wait.
    fn push(&self, item: Payloads);

    /// Whether there is room for another item, or the caller wants no more: then the answer is `false`.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<bool>;

    /// Sends an item, and waits until the caller wants another one. Returns `false` when it wants no more.
    fn send(&self, item: Payloads) -> bool;

    /// Whether the caller still wants items, as far as this process knows. Does not wait.
    fn is_wanted(&self) -> bool;
}

/// A call that is about to run, as its host sees it.
pub struct Invocation<'a> {
    client: &'a Client,
    record: Vec<u8>,
    /// The position of the next payload in the record.
    at: usize,
    /// The number of arguments.
    count: u32,
    /// The number of arguments that have been taken.
    position: u32,
    returns: Returns,
    results: Payloads,
    /// Where items go; `None` if the caller wants no stream.
    items: Option<&'a dyn ItemSink>,
    /// The process begins no more calls after this one.
    is_spent: bool,
    /// Makes the place of an answer that is given later; `None` where the answer cannot be later, or is.
    later: Option<&'a dyn Fn() -> Reply>,
    /// Where the name of the running function is recorded.
    runs: Option<&'a Runs>,
    /// Where the name is recorded for a call of an actor that may have several under way.
    beside: Option<&'a RunBeside>,
    /// The id of the call, and the number of its retries; `None` for a constructor.
    call: Option<(TaskId, u16)>,
    context: Option<CallContext>,
}

impl fmt::Debug for Invocation<'_> {
    /// The numbers, not the arguments: there may be gigabytes of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("arguments", &self.count)
            .field("taken", &self.position)
            .field("returns", &self.returns)
            .finish()
    }
}

impl<'a> Invocation<'a> {
    /// An invocation whose arguments are the `count` payloads at position `at` of a record.
    pub(crate) fn new(client: &'a Client, record: Vec<u8>, at: usize, count: u32, returns: Returns) -> Self {
        Self {
            client,
            record,
            at,
            count,
            position: 0,
            returns,
            results: Payloads::default(),
            items: None,
            is_spent: false,
            later: None,
            runs: None,
            beside: None,
            call: None,
            context: None,
        }
    }

    /// Sets the id of the call, and the number of its retries.
    pub(crate) fn set_call(&mut self, id: TaskId, attempt: u16) {
        self.call = Some((id, attempt));
    }

    /// The id of the call, and the number of its retries so far; `None` for a constructor.
    #[must_use]
    pub fn call(&self) -> Option<(TaskId, u16)> {
        self.call
    }

    /// Sets the context in which the call was made.
    pub(crate) fn set_context(&mut self, context: Option<CallContext>) {
        self.context = context;
    }

    /// The context in which the call was made, as the caller's front gave it: see
    /// [`set_context_source`](crate::set_context_source). Another process has written it: the front checks it. Several
    /// attempts at a call, and the constructor of an actor that was restarted, have the same context.
    #[must_use]
    pub fn context(&self) -> Option<CallContext> {
        self.context
    }

    /// The process begins no more calls after this one: calls that wait there go elsewhere, and it ends. Has no effect
    /// in an actor.
    pub fn set_spent(&mut self) {
        self.is_spent = true;
    }

    /// Whether the process begins no more calls.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// The name of the running function is recorded there.
    pub(crate) fn set_runs(&mut self, runs: &'a Runs) {
        self.runs = Some(runs);
    }

    /// Where the name is recorded for a call of an actor that may have several under way; `None`: it is not.
    pub(crate) fn set_beside(&mut self, beside: Option<&'a RunBeside>) {
        self.beside = beside;
    }

    /// Names the running function for observers: a function, or a method of a class; an empty class says that it is a
    /// function. The caller of the call has given it the same names. Costs two comparisons while it is what ran last.
    pub fn set_name(&self, class: &str, function: &str) {
        if let Some(runs) = self.runs {
            runs.name(class, function);
        } else if let Some(beside) = self.beside {
            beside.set_name(class, function);
        }
    }

    /// The items of the call's stream go there.
    pub(crate) fn set_items(&mut self, items: &'a dyn ItemSink) {
        self.items = Some(items);
    }

    /// The answer may be given later.
    pub(crate) fn set_later(&mut self, later: &'a dyn Fn() -> Reply) {
        self.later = Some(later);
    }

    /// Whether the host can still say that the answer comes later.
    pub(crate) fn may_be_later(&self) -> bool {
        self.later.is_some()
    }

    /// The results, and the record, whose memory is reused.
    pub(crate) fn into_parts(self) -> (Payloads, Vec<u8>) {
        (self.results, self.record)
    }

    /// The next argument, and the client by which its objects are read; `None` behind the last argument. The caller
    /// keeps the objects alive that the argument names, until the call is over.
    ///
    /// # Errors
    /// The record with the arguments is cut short.
    #[expect(clippy::should_implement_trait, reason = "it borrows from the invocation")]
    pub fn next(&mut self) -> Option<Result<(Payload<'_>, &Client), Malformed>> {
        if self.position >= self.count {
            return None;
        }
        self.position += 1;
        let mut rest = self.record.get(self.at..).unwrap_or_default();
        let taken = payload::take(&mut rest);
        self.at = self.record.len() - rest.len();
        Some(taken.map(|payload| (payload, self.client)))
    }

    /// The number of arguments.
    #[must_use]
    pub fn argument_count(&self) -> u32 {
        self.count
    }

    /// The number of arguments that have been taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.position
    }

    /// The number of results that the caller wants, and their shape.
    #[must_use]
    pub fn returns(&self) -> Returns {
        self.returns
    }

    /// The client of this process.
    pub fn client(&self) -> &'a Client {
        self.client
    }

    /// The place of the answer, which is given later, by any thread. The host returns then without results, and the
    /// next call begins. `None` where that cannot be: for functions, for streams, for an instance that is not
    /// [concurrent](crate::Instance::is_concurrent), and the second time.
    pub fn later(&mut self) -> Option<Reply> {
        self.later.take().map(|later| later())
    }

    /// Whether the caller of a stream still wants items: it has neither dropped the stream nor cancelled the call, as
    /// far as this process knows. For a host whose next item may be long in coming.
    #[must_use]
    pub fn wants_items(&self) -> bool {
        self.items.is_some_and(ItemSink::is_wanted)
    }

    /// Gives the next item of a stream, as [`give`](Self::give) gives a result, and waits until the caller wants
    /// another one. Returns `false` when it wants no more: it has dropped the stream, or cancelled the call.
    ///
    /// # Errors
    /// The error of `write`, or that of the store.
    pub fn give_item<A: Encoded, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) -> Result<bool, PushError<E>> {
        let mut item = Payloads::default();
        item.push(self.client, write)?;
        Ok(self.items.is_some_and(|items| items.send(item)))
    }

    /// Gives the next item of a stream, and does not wait: [`poll_wants_item`](Self::poll_wants_item) does so.
    ///
    /// # Errors
    /// As [`give_item`](Self::give_item).
    pub fn push_item<A: Encoded, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) -> Result<(), PushError<E>> {
        let mut item = Payloads::default();
        item.push(self.client, write)?;
        if let Some(items) = self.items {
            items.push(item);
        }
        Ok(())
    }

    /// Becomes ready when the caller of a stream wants another item, with `true`; or no more, with `false`.
    pub fn poll_wants_item(&self, context: &mut Context<'_>) -> Poll<bool> {
        self.items.map_or(Poll::Ready(false), |items| items.poll_room(context))
    }

    /// Gives the next result. `write` appends it to the bytes that it gets, and leaves the bytes before it unchanged,
    /// or returns [`Written::Apart`].
    ///
    /// # Errors
    /// The error of `write`, or that of the store.
    pub fn give<A: Encoded, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) -> Result<(), PushError<E>> {
        self.results.push(self.client, write)
    }
}
