//! A call that is about to run, with types: its arguments are decoded from the record that they came in, and its
//! results are encoded.

use std::any::Any;
use std::fmt;

use mobula_runtime::{
    Failure, Invocation, Payload, PushError, Reply, Returns, TaskError, TaskErrorKind, stored,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::value::{self, References, Source, ValueError};

/// The arguments of a call that is about to run, to be decoded one after the other from the record that they came in.
#[derive(Debug)]
pub struct Arguments<'a, 'c>(&'a mut Invocation<'c>);

impl<'a, 'c> Arguments<'a, 'c> {
    pub(crate) fn new(on: &'a mut Invocation<'c>) -> Self {
        Self(on)
    }

    /// The next argument.
    ///
    /// # Errors
    /// When there is none, or it is not a `T`.
    #[expect(clippy::should_implement_trait, reason = "each argument has its own type")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let position = self.0.taken() + 1;
        let wrong = |what: &dyn fmt::Display| {
            TaskError::new("", TaskErrorKind::NotCalled, format!("argument {position}{what}"))
        };
        let caused = |cause: Failure| wrong(&format_args!(": {cause}")).caused_by(cause);
        let taken = self.0.next().ok_or_else(|| wrong(&" is missing"))?;
        let (payload, client) = taken.map_err(|malformed| wrong(&format_args!(": {malformed}")))?;
        let value = match payload {
            Payload::Inline { format, value, references } => {
                let references = References::Named(client.clone(), references.iter().collect());
                value::decode_borrowed(format, value, references)
            }
            Payload::Stored(object) => {
                let handle = client.hold(object).map_err(Failure::from);
                let object = handle.and_then(|handle| stored(client, handle));
                value::decode(Source::object_of(
                    client,
                    object.map_err(|failure| match failure {
                        Failure::Store { .. } | Failure::Other(_) => caused(failure).into(),
                        failure => failure,
                    })?,
                ))
            }
        };
        value.map_err(|error| caused(error.into()).into())
    }

    /// Checks that all arguments have been taken.
    ///
    /// # Errors
    /// When there are more.
    pub fn finish(&mut self) -> Result<(), Failure> {
        let count = self.0.argument_count();
        match count.saturating_sub(self.0.taken()) {
            0 => Ok(()),
            more => {
                let message = format!("{count} arguments, {more} too many");
                Err(TaskError::new("", TaskErrorKind::NotCalled, message).into())
            }
        }
    }

    /// The place of the answer, which is given later.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        self.0.later()
    }

    /// The form in which the caller wants the result.
    pub fn wanted(&mut self) -> Wanted<'_, 'c> {
        Wanted(self.0)
    }
}

/// An actor as its class's type; the worker only knows that it is an actor.
///
/// # Errors
/// When it is of another class.
pub fn downcast<T: Any>(actor: &mut dyn Any) -> Result<&mut T, Failure> {
    actor.downcast_mut().ok_or_else(wrong_class::<T>)
}

pub(crate) fn wrong_class<T>() -> Failure {
    let message = format!("the actor in this process is not a {}", std::any::type_name::<T>());
    TaskError::new("", TaskErrorKind::NotCalled, message).into()
}

/// The form in which a result is wanted, and the place that it goes to.
#[derive(Debug)]
pub struct Wanted<'a, 'c>(&'a mut Invocation<'c>);

impl<'a, 'c> Wanted<'a, 'c> {
    /// The number of results, and their shape.
    pub(crate) fn returns(&self) -> Returns {
        self.0.returns()
    }

    /// The encoder for the results.
    pub(crate) fn encoder(self) -> EachEncoder<'a, 'c> {
        EachEncoder(Sink::Call(self.0))
    }
}

/// Encodes values, each as an object of its own.
#[doc(hidden)]
#[derive(Debug)]
pub struct EachEncoder<'a, 'c>(Sink<'a, 'c>);

/// The place that the values go to.
#[derive(Debug)]
enum Sink<'a, 'c> {
    Call(&'a mut Invocation<'c>),
    Reply(&'a mut Reply),
}

impl<'a> EachEncoder<'a, '_> {
    /// For the answer to a call that is given later.
    pub(crate) fn of_reply(reply: &'a mut Reply) -> Self {
        Self(Sink::Reply(reply))
    }

    /// Sends an item of a stream. Returns `false` when the caller wants no more.
    pub(crate) fn push_item<T: Serialize>(&mut self, item: &T) -> Result<bool, Failure> {
        match &mut self.0 {
            Sink::Call(call) => Ok(call.give_item(|out| value::append(item, out)).map_err(not_returned)?),
            // A reply has no stream.
            Sink::Reply(_) => Ok(false),
        }
    }

    /// Sends an item of a stream, and does not wait.
    #[cfg(feature = "tokio")]
    pub(crate) fn push_item_at_once<T: Serialize>(&mut self, item: &T) -> Result<(), Failure> {
        match &mut self.0 {
            Sink::Call(call) => Ok(call.push_item(|out| value::append(item, out)).map_err(not_returned)?),
            Sink::Reply(_) => Ok(()),
        }
    }

    /// Waits until the caller of a stream wants another item. Returns `false` when it wants no more.
    #[cfg(feature = "tokio")]
    pub(crate) async fn wants_item(&self) -> bool {
        std::future::poll_fn(|context| match &self.0 {
            Sink::Call(call) => call.poll_wants_item(context),
            Sink::Reply(_) => std::task::Poll::Ready(false),
        })
        .await
    }

    pub(crate) fn push<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let given = match &mut self.0 {
            Sink::Call(call) => call.give(|out| value::append(value, out)),
            Sink::Reply(reply) => reply.give(|out| value::append(value, out)),
        };
        Ok(given.map_err(not_returned)?)
    }
}

/// The error of a call whose result cannot be written.
fn not_returned(error: PushError<ValueError>) -> TaskError {
    TaskError::new("", TaskErrorKind::NotReturned, error.to_string()).caused_by(error)
}
