//! Arguments and results at the moment of a call: between the macros' generated code, which has types, and the
//! runtime's core, which has payloads.

use std::any::Any;
use std::fmt;

use mobula_runtime::{
    Failure, Invocation, Payload, PushError, Ref, Returns, TaskError, TaskErrorKind, stored,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::object_ref::ObjectRef;
use crate::portable::Portable;
use crate::registry::Construction;
use crate::value::{self, References, Source, ValueError};

/// The types that a remote function accepts for an argument of type `T`: a `T`, or a reference to one.
///
/// A reference is resolved before the call runs: the function gets the value. An argument whose own type is
/// `ObjectRef<U>` gets the reference itself.
///
/// ```
/// use mobula::IntoArg;
/// use mobula::prelude::*;
///
/// #[remote]
/// fn square(x: i64) -> i64 {
///     x * x
/// }
///
/// /// Takes what `square::remote` takes.
/// fn fourth_power(x: impl IntoArg<i64>) -> ObjectRef<i64> {
///     square::remote(square::remote(x))
/// }
///
/// let _mobula = init()?;
/// assert_eq!(fourth_power(2).get()?, 16);
/// assert_eq!(fourth_power(put(&3)?).get()?, 81);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// A value is encoded before the call returns: one copy, of a small one into the request and of a large one into the
/// store. A reference costs a clone of it, however large the value.
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

/// Hides the types that it refers to.
#[doc(hidden)]
#[derive(Debug)]
pub struct Reference(pub(crate) Ref);

impl<T> IntoArg<T> for T {
    fn into_arg(self) -> Arg<T> {
        Arg::Value(self)
    }
}

impl<T> IntoArg<T> for ObjectRef<T> {
    fn into_arg(self) -> Arg<T> {
        Arg::Reference(Reference(self.as_ref().clone()))
    }
}

impl<T> IntoArg<T> for &ObjectRef<T> {
    fn into_arg(self) -> Arg<T> {
        Arg::Reference(Reference(self.as_ref().clone()))
    }
}

/// The arguments of a call that is about to run, to be decoded one after the other from the record that they came in.
#[derive(Debug)]
pub struct Arguments<'a>(&'a mut Invocation);

impl<'a> Arguments<'a> {
    pub(crate) fn new(on: &'a mut Invocation) -> Self {
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
                value::decode_lent(format, value, references)
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

    /// Says that all have been taken.
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

    /// How the caller wants the result.
    pub fn wanted(&mut self) -> Wanted<'_> {
        Wanted(self.0)
    }
}

/// Whether a function has run, and its results were given as the caller wants them.
pub type Outcome = Result<(), Failure>;

/// The form in which a result is wanted, and the place that it goes to.
#[derive(Debug)]
pub struct Wanted<'a>(&'a mut Invocation);

/// Encodes values, each as an object of its own.
#[doc(hidden)]
#[derive(Debug)]
pub struct EachEncoder<'a>(&'a mut Invocation);

impl EachEncoder<'_> {
    pub(crate) fn push<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let given: Result<(), PushError<ValueError>> = self.0.give(|out| value::append(value, out));
        Ok(given.map_err(|error| {
            let failed = TaskError::new("", TaskErrorKind::NotReturned, error.to_string());
            failed.caused_by(error)
        })?)
    }
}

/// A tuple whose elements become objects of their own, as the caller sees it.
pub trait ReturnTuple {
    /// A reference to each element.
    type References;
    #[doc(hidden)]
    const COUNT: u32;
    #[doc(hidden)]
    fn references(refs: &mut dyn Iterator<Item = Ref>) -> Self::References;
}

/// A tuple whose elements can become objects of their own.
pub trait EncodeTuple {
    #[doc(hidden)]
    fn encode_each(&self, encoder: &mut EachEncoder<'_>) -> Result<(), Failure>;
}

macro_rules! return_tuple_impls {
    ($($count:literal: $($name:ident $index:tt),+;)*) => {$(
        impl<$($name),+> ReturnTuple for ($($name,)+) {
            type References = ($(ObjectRef<$name>,)+);
            const COUNT: u32 = $count;

            fn references(refs: &mut dyn Iterator<Item = Ref>) -> Self::References {
                ($(ObjectRef::<$name>::new(refs.next().expect("a reference to each element")),)+)
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
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}

/// The outcome of a function that cannot fail.
pub fn infallible<T: Portable>(wanted: Wanted<'_>, value: T) -> Outcome {
    value.encode(&mut EachEncoder(wanted.0))
}

/// The outcome of a function that returns a `Result`.
pub fn fallible<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_>,
    result: Result<T, E>,
    as_error: AsError<E>,
) -> Outcome {
    infallible(wanted, result.map_err(returned(as_error))?)
}

/// The outcome of a function that returns a list.
pub fn infallible_list<T: Portable>(wanted: Wanted<'_>, list: Vec<T>) -> Outcome {
    match wanted.0.returns() {
        Returns::List(count) if count as usize != list.len() => {
            let message = format!("{} results, where num_returns asked for {count}", list.len());
            Err(TaskError::new("", TaskErrorKind::NotReturned, message).into())
        }
        Returns::List(_) => {
            let mut encoder = EachEncoder(wanted.0);
            list.iter().try_for_each(|value| value.encode(&mut encoder))
        }
        _ => T::encode_list(list, &mut EachEncoder(wanted.0)),
    }
}

/// The outcome of a function that returns a list in a `Result`.
pub fn fallible_list<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_>,
    result: Result<Vec<T>, E>,
    as_error: AsError<E>,
) -> Outcome {
    infallible_list(wanted, result.map_err(returned(as_error))?)
}

/// The outcome of a function that returns a tuple of objects.
pub fn infallible_tuple<T: EncodeTuple>(wanted: Wanted<'_>, tuple: T) -> Outcome {
    tuple.encode_each(&mut EachEncoder(wanted.0))
}

/// The outcome of a function that returns a tuple of objects in a `Result`.
pub fn fallible_tuple<T: EncodeTuple, E: fmt::Display + 'static>(
    wanted: Wanted<'_>,
    result: Result<T, E>,
    as_error: AsError<E>,
) -> Outcome {
    infallible_tuple(wanted, result.map_err(returned(as_error))?)
}

/// The outcome of a constructor that cannot fail.
pub fn constructed<T: Any>(actor: T) -> Construction {
    Ok(Box::new(actor))
}

/// The outcome of a constructor that returns a `Result`.
pub fn constructed_fallible<T: Any, E: fmt::Display + 'static>(
    result: Result<T, E>,
    as_error: AsError<E>,
) -> Construction {
    constructed(result.map_err(returned(as_error))?)
}

/// An actor as its class's type; the worker only knows that it is an actor.
///
/// # Errors
/// When it is of another class.
pub fn downcast<T: Any>(actor: &mut dyn Any) -> Result<&mut T, Failure> {
    actor.downcast_mut().ok_or_else(|| {
        let message = format!("the actor in this process is not a {}", std::any::type_name::<T>());
        TaskError::new("", TaskErrorKind::NotCalled, message).into()
    })
}

/// Finds the error, with its sources, in a returned value. Only the macros' code can do so; see
/// [`sources`](crate::sources).
type AsError<E> = fn(&E) -> Option<&(dyn std::error::Error + 'static)>;

fn returned<E: fmt::Display + 'static>(as_error: AsError<E>) -> impl FnOnce(E) -> Failure {
    move |error| TaskError::returned(&error, as_error(&error)).into()
}
