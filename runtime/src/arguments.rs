//! Arguments and results at the moment of a call: between the macros' generated code, which has types, and the
//! runtime's core, which has payloads.

use std::any::Any;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Failure, TaskError, TaskErrorKind};
use crate::message::Returns;
use crate::object_ref::ObjectRef;
use crate::registry::Construction;
use crate::slot::Slot;
use crate::value::{self, Encoded, Source};

/// What a remote function takes for an argument of type `T`: a `T`, or a reference to one.
///
/// A reference is resolved before the call runs: the function gets the value. An argument whose own type is
/// `ObjectRef<U>` gets the reference itself.
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

/// Hides the slot.
#[doc(hidden)]
#[derive(Debug)]
pub struct Reference(pub(crate) Arc<Slot>);

impl<T> IntoArg<T> for T {
    fn into_arg(self) -> Arg<T> {
        Arg::Value(self)
    }
}

impl<T> IntoArg<T> for ObjectRef<T> {
    fn into_arg(self) -> Arg<T> {
        Arg::Reference(Reference(self.slot().clone()))
    }
}

impl<T> IntoArg<T> for &ObjectRef<T> {
    fn into_arg(self) -> Arg<T> {
        Arg::Reference(Reference(self.slot().clone()))
    }
}

/// The arguments of a call that is about to run, to be decoded one after the other.
pub struct Arguments {
    sources: std::vec::IntoIter<Result<Source, Failure>>,
    position: usize,
}

impl Arguments {
    pub(crate) fn new(sources: Vec<Result<Source, Failure>>) -> Self {
        Self { sources: sources.into_iter(), position: 0 }
    }

    /// The next argument.
    ///
    /// # Errors
    /// When there is none, or it is not a `T`.
    #[expect(clippy::should_implement_trait, reason = "each argument has its own type")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        self.position += 1;
        let position = self.position;
        let wrong = |message| TaskError::new("", TaskErrorKind::NotCalled, message);
        let source =
            self.sources.next().ok_or_else(|| wrong(format!("argument {position} is missing")))?.map_err(
                |failure| match failure {
                    Failure::Other(message) => wrong(format!("argument {position}: {message}")).into(),
                    failure => failure,
                },
            )?;
        value::decode(source).map_err(|error| wrong(format!("argument {position}: {error}")).into())
    }

    /// Says that all have been taken.
    ///
    /// # Errors
    /// When there are more.
    pub fn finish(&mut self) -> Result<(), Failure> {
        match self.sources.len() {
            0 => Ok(()),
            more => {
                let message = format!("{} arguments, {more} too many", self.position + more);
                Err(TaskError::new("", TaskErrorKind::NotCalled, message).into())
            }
        }
    }
}

/// What a function returned, still to be encoded as the caller wants it.
pub type Outcome = Result<Box<dyn Returned>, Failure>;

/// A result that can become one object, or several.
pub trait Returned {
    #[doc(hidden)]
    fn encode(&self, returns: ReturnsWanted) -> Result<Vec<Encoded>, Failure>;
}

/// Hides the wire's enum.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct ReturnsWanted(pub(crate) Returns);

struct One<T>(T);

impl<T: Serialize> Returned for One<T> {
    fn encode(&self, _: ReturnsWanted) -> Result<Vec<Encoded>, Failure> {
        Ok(vec![encode(&self.0)?])
    }
}

struct List<T>(Vec<T>);

impl<T: Serialize> Returned for List<T> {
    fn encode(&self, wanted: ReturnsWanted) -> Result<Vec<Encoded>, Failure> {
        match wanted.0 {
            Returns::List(count) if count as usize != self.0.len() => {
                let message = format!("{} results, where num_returns asked for {count}", self.0.len());
                Err(TaskError::new("", TaskErrorKind::NotReturned, message).into())
            }
            Returns::List(_) => self.0.iter().map(encode).collect(),
            _ => Ok(vec![encode(&self.0)?]),
        }
    }
}

struct Tuple<T>(T);

impl<T: ReturnTuple> Returned for Tuple<T> {
    fn encode(&self, _: ReturnsWanted) -> Result<Vec<Encoded>, Failure> {
        self.0.encode_each()
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Encoded, Failure> {
    value::encode(value)
        .map_err(|error| TaskError::new("", TaskErrorKind::NotReturned, error.to_string()).into())
}

/// A tuple whose elements become objects of their own.
pub trait ReturnTuple {
    /// A reference to each element.
    type References;
    #[doc(hidden)]
    const COUNT: u32;
    #[doc(hidden)]
    fn encode_each(&self) -> Result<Vec<Encoded>, Failure>;
    #[doc(hidden)]
    fn references(slots: Vec<SlotOf>) -> Self::References;
}

/// Hides the slot.
#[doc(hidden)]
#[derive(Debug)]
pub struct SlotOf(pub(crate) Arc<Slot>);

macro_rules! return_tuple_impls {
    ($($count:literal: $($name:ident $slot:ident $index:tt),+;)*) => {$(
        impl<$($name: Serialize),+> ReturnTuple for ($($name,)+) {
            type References = ($(ObjectRef<$name>,)+);
            const COUNT: u32 = $count;

            fn encode_each(&self) -> Result<Vec<Encoded>, Failure> {
                Ok(vec![$(encode(&self.$index)?),+])
            }

            fn references(slots: Vec<SlotOf>) -> Self::References {
                let mut slots = slots.into_iter();
                $(let $slot = ObjectRef::new(slots.next().expect("a slot for each element").0);)+
                ($($slot,)+)
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
pub fn infallible<T: Serialize + 'static>(value: T) -> Outcome {
    Ok(Box::new(One(value)))
}

/// The outcome of a function that returns a `Result`.
pub fn fallible<T: Serialize + 'static, E: std::fmt::Display + 'static>(result: Result<T, E>) -> Outcome {
    infallible(result.map_err(returned)?)
}

/// The outcome of a function that returns a list.
pub fn infallible_list<T: Serialize + 'static>(list: Vec<T>) -> Outcome {
    Ok(Box::new(List(list)))
}

/// The outcome of a function that returns a list in a `Result`.
pub fn fallible_list<T: Serialize + 'static, E: std::fmt::Display + 'static>(
    result: Result<Vec<T>, E>,
) -> Outcome {
    infallible_list(result.map_err(returned)?)
}

/// The outcome of a function that returns a tuple of objects.
pub fn infallible_tuple<T: ReturnTuple + 'static>(tuple: T) -> Outcome {
    Ok(Box::new(Tuple(tuple)))
}

/// The outcome of a function that returns a tuple of objects in a `Result`.
pub fn fallible_tuple<T: ReturnTuple + 'static, E: std::fmt::Display + 'static>(
    result: Result<T, E>,
) -> Outcome {
    infallible_tuple(result.map_err(returned)?)
}

/// The outcome of a constructor that cannot fail.
pub fn constructed<T: Any>(actor: T) -> Construction {
    Ok(Box::new(actor))
}

/// The outcome of a constructor that returns a `Result`.
pub fn constructed_fallible<T: Any, E: std::fmt::Display + 'static>(result: Result<T, E>) -> Construction {
    constructed(result.map_err(returned)?)
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

fn returned<E: std::fmt::Display + 'static>(error: E) -> Failure {
    TaskError::returned(&error).into()
}
