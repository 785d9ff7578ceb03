//! Arguments and results at the moment of a call: between the macros' generated code, which has types, and the
//! runtime's core, which has payloads.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::object_ref::{ObjectRef, Referent};
use crate::call::payload::{self, Payload, Payloads};
use crate::call::result_cell::{self, Slot};
use crate::error::{Failure, TaskError, TaskErrorKind};
use crate::mail::Core;
use crate::portable::Portable;
use crate::registry::Construction;
use crate::value::{self, References};
use crate::wire::Returns;

/// What a remote function takes for an argument of type `T`: a `T`, or a reference to one.
///
/// A reference is resolved before the call runs: the function gets the value. An argument whose own type is
/// `ObjectRef<U>` gets the reference itself.
#[diagnostic::on_unimplemented(
    message = "this argument is of type `{T}` or `ObjectRef<{T}>`, not `{Self}`",
    label = "neither a value of type `{T}` nor a reference to one",
    note = "because it can be either, an argument does not tell an expression its type: name the type there, as in \
            `text.parse::<{T}>()?`"
)]
pub trait IntoArg<T> {
    #[doc(hidden)]
    fn into_arg(self) -> Arg<T>;
}

/// An argument as the caller gave it.
#[doc(hidden)]
#[derive(Debug)]
pub enum Arg<T> {
    Value(T),
    Reference(Reference),
}

/// Hides what it refers to.
#[doc(hidden)]
#[derive(Debug)]
pub struct Reference(pub(crate) Referent);

impl<T> IntoArg<T> for T {
    fn into_arg(self) -> Arg<T> {
        Arg::Value(self)
    }
}

impl<T> IntoArg<T> for ObjectRef<T> {
    fn into_arg(self) -> Arg<T> {
        Arg::Reference(Reference(self.referent().clone()))
    }
}

impl<T> IntoArg<T> for &ObjectRef<T> {
    fn into_arg(self) -> Arg<T> {
        Arg::Reference(Reference(self.referent().clone()))
    }
}

/// The arguments of a call that is about to run, to be decoded one after the other from the record that they came in.
pub struct Arguments {
    core: Arc<Core>,
    record: Vec<u8>,
    /// Where the next payload begins.
    at: usize,
    count: u32,
    position: u32,
    returns: Returns,
}

impl Arguments {
    /// The `count` payloads that begin at a place in a record.
    pub(crate) fn new(core: &Arc<Core>, record: Vec<u8>, at: usize, count: u32, returns: Returns) -> Self {
        Self { core: core.clone(), record, at, count, position: 0, returns }
    }

    /// The record, to be used again.
    pub(crate) fn into_record(self) -> Vec<u8> {
        self.record
    }

    /// The next argument.
    ///
    /// # Errors
    /// When there is none, or it is not a `T`.
    #[expect(clippy::should_implement_trait, reason = "each argument has its own type")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        self.position += 1;
        let position = self.position;
        let wrong = |what: &dyn fmt::Display| {
            TaskError::new("", TaskErrorKind::NotCalled, format!("argument {position}{what}"))
        };
        if position > self.count {
            return Err(wrong(&" is missing").into());
        }
        let mut rest = self.record.get(self.at..).unwrap_or_default();
        let payload = payload::take(&mut rest).map_err(|malformed| wrong(&format_args!(": {malformed}")))?;
        self.at = self.record.len() - rest.len();
        let client = &self.core.client;
        let value = match payload {
            Payload::Inline { format, value, references } => {
                // The caller keeps them until the call is over.
                let references = References::Named(client.clone(), references.iter().collect());
                value::decode_lent(format, value, references)
            }
            Payload::Stored(object) => {
                let handle = client.hold(object).map_err(Failure::from);
                let source = handle.and_then(|handle| result_cell::stored(client, handle));
                value::decode(source.map_err(|failure| match failure {
                    Failure::Other(message) => wrong(&format_args!(": {message}")).into(),
                    failure => failure,
                })?)
            }
        };
        value.map_err(|error| wrong(&format_args!(": {error}")).into())
    }

    /// Says that all have been taken.
    ///
    /// # Errors
    /// When there are more.
    pub fn finish(&mut self) -> Result<(), Failure> {
        match self.count.saturating_sub(self.position) {
            0 => Ok(()),
            more => {
                let message = format!("{} arguments, {more} too many", self.count);
                Err(TaskError::new("", TaskErrorKind::NotCalled, message).into())
            }
        }
    }

    /// How the caller wants the result.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted { core: &self.core, returns: self.returns }
    }
}

/// What a function returned, encoded as the caller wants it.
pub type Outcome = Result<Encoded, Failure>;

/// Hides the payloads.
#[derive(Debug)]
pub struct Encoded(pub(crate) Payloads);

/// How a result is wanted, and where to.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    core: &'a Core,
    returns: Returns,
}

impl Wanted<'_> {
    fn encode(self, encode: impl FnOnce(&mut EachEncoder<'_>) -> Result<(), Failure>) -> Outcome {
        let mut encoder = EachEncoder { core: self.core, payloads: Payloads::default() };
        encode(&mut encoder)?;
        Ok(Encoded(encoder.payloads))
    }
}

/// Encodes values, each as an object of its own.
#[doc(hidden)]
pub struct EachEncoder<'a> {
    core: &'a Core,
    payloads: Payloads,
}

impl EachEncoder<'_> {
    pub(crate) fn push<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let not_returned =
            |error: &dyn fmt::Display| TaskError::new("", TaskErrorKind::NotReturned, error.to_string());
        Ok(self.payloads.push(self.core, value).map_err(|error| not_returned(&error))?)
    }
}

/// A tuple whose elements become objects of their own, as the caller sees it.
pub trait ReturnTuple {
    /// A reference to each element.
    type References;
    #[doc(hidden)]
    const COUNT: u32;
    #[doc(hidden)]
    fn references(slots: Vec<SlotOf>) -> Self::References;
}

/// A tuple whose elements can become objects of their own.
pub trait EncodeTuple {
    #[doc(hidden)]
    fn encode_each(&self, encoder: &mut EachEncoder<'_>) -> Result<(), Failure>;
}

/// Hides the slot.
#[doc(hidden)]
#[derive(Debug)]
pub struct SlotOf(pub(crate) Arc<Slot>);

macro_rules! return_tuple_impls {
    ($($count:literal: $($name:ident $slot:ident $index:tt),+;)*) => {$(
        impl<$($name),+> ReturnTuple for ($($name,)+) {
            type References = ($(ObjectRef<$name>,)+);
            const COUNT: u32 = $count;

            fn references(slots: Vec<SlotOf>) -> Self::References {
                let mut slots = slots.into_iter();
                $(let $slot = ObjectRef::new(slots.next().expect("a slot for each element").0);)+
                ($($slot,)+)
            }
        }

        impl<$($name: Portable),+> EncodeTuple for ($($name,)+) {
            fn encode_each(&self, encoder: &mut EachEncoder<'_>) -> Result<(), Failure> {
                $(self.$index.encode(encoder)?;)+
                Ok(())
            }
        }
    )*};
}

return_tuple_impls! {
    1: A a 0;
    2: A a 0, B b 1;
    3: A a 0, B b 1, C c 2;
    4: A a 0, B b 1, C c 2, D d 3;
    5: A a 0, B b 1, C c 2, D d 3, E e 4;
    6: A a 0, B b 1, C c 2, D d 3, E e 4, F f 5;
    7: A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6;
    8: A a 0, B b 1, C c 2, D d 3, E e 4, F f 5, G g 6, H h 7;
}

/// The outcome of a function that cannot fail.
pub fn infallible<T: Portable>(wanted: Wanted<'_>, value: T) -> Outcome {
    wanted.encode(|encoder| value.encode(encoder))
}

/// The outcome of a function that returns a `Result`.
pub fn fallible<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_>,
    result: Result<T, E>,
    source: SourceOf<E>,
) -> Outcome {
    infallible(wanted, result.map_err(returned(source))?)
}

/// The outcome of a function that returns a list.
pub fn infallible_list<T: Portable>(wanted: Wanted<'_>, list: Vec<T>) -> Outcome {
    match wanted.returns {
        Returns::List(count) if count as usize != list.len() => {
            let message = format!("{} results, where num_returns asked for {count}", list.len());
            Err(TaskError::new("", TaskErrorKind::NotReturned, message).into())
        }
        Returns::List(_) => wanted.encode(|encoder| list.iter().try_for_each(|value| value.encode(encoder))),
        _ => wanted.encode(|encoder| T::encode_list(list, encoder)),
    }
}

/// The outcome of a function that returns a list in a `Result`.
pub fn fallible_list<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_>,
    result: Result<Vec<T>, E>,
    source: SourceOf<E>,
) -> Outcome {
    infallible_list(wanted, result.map_err(returned(source))?)
}

/// The outcome of a function that returns a tuple of objects.
pub fn infallible_tuple<T: EncodeTuple>(wanted: Wanted<'_>, tuple: T) -> Outcome {
    wanted.encode(|encoder| tuple.encode_each(encoder))
}

/// The outcome of a function that returns a tuple of objects in a `Result`.
pub fn fallible_tuple<T: EncodeTuple, E: fmt::Display + 'static>(
    wanted: Wanted<'_>,
    result: Result<T, E>,
    source: SourceOf<E>,
) -> Outcome {
    infallible_tuple(wanted, result.map_err(returned(source))?)
}

/// The outcome of a constructor that cannot fail.
pub fn constructed<T: Any>(actor: T) -> Construction {
    Ok(Box::new(actor))
}

/// The outcome of a constructor that returns a `Result`.
pub fn constructed_fallible<T: Any, E: fmt::Display + 'static>(
    result: Result<T, E>,
    source: SourceOf<E>,
) -> Construction {
    constructed(result.map_err(returned(source))?)
}

/// The actor of a class, of which the worker only knows that it is one.
///
/// # Errors
/// When it is of another class.
pub fn downcast<T: Any>(actor: &mut dyn Any) -> Result<&mut T, Failure> {
    actor.downcast_mut().ok_or_else(|| {
        let message = format!("the actor in this process is not a {}", std::any::type_name::<T>());
        TaskError::new("", TaskErrorKind::NotCalled, message).into()
    })
}

/// The source of an error, which only the macros' code can ask for; see [`sources`](crate::sources).
type SourceOf<E> = fn(&E) -> Option<&(dyn std::error::Error + 'static)>;

fn returned<E: fmt::Display + 'static>(source: SourceOf<E>) -> impl FnOnce(E) -> Failure {
    move |error| TaskError::returned(&error, source(&error)).into()
}
