//! The results of functions, methods and constructors, as the macros' code hands them over: with an error or without,
//! as one object or as several.

use std::any::Any;
use std::fmt;
#[cfg(feature = "tokio")]
use std::{future::poll_fn, pin::pin};

#[cfg(feature = "tokio")]
use futures_core::Stream;
use mobula_runtime::{Failure, Ref, Returns, TaskError, TaskErrorKind};

use crate::invocation::{EachEncoder, Wanted};
use crate::object_ref::ObjectRef;
use crate::portable::Portable;
use crate::registry::{Construction, Outcome, SharedConstruction, SharedState};

/// The outcome of a function that cannot fail.
pub fn infallible<T: Portable>(wanted: Wanted<'_, '_>, value: T) -> Outcome {
    value.encode(&mut wanted.encoder())
}

/// The outcome of a function that returns a `Result`.
pub fn fallible<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_, '_>,
    result: Result<T, E>,
    as_error: AsError<E>,
) -> Outcome {
    infallible(wanted, result.map_err(returned(as_error))?)
}

/// The outcome of a function that runs before the first call, and returns a `Result`.
pub fn fallible_init<E: fmt::Display + 'static>(result: Result<(), E>, as_error: AsError<E>) -> Outcome {
    result.map_err(returned(as_error))
}

/// The outcome of a function that returns a list.
pub fn infallible_list<T: Portable>(wanted: Wanted<'_, '_>, list: Vec<T>) -> Outcome {
    match wanted.returns() {
        Returns::List(count) if count as usize != list.len() => {
            let message = format!("{} results, where num_returns asked for {count}", list.len());
            Err(TaskError::new("", TaskErrorKind::NotReturned, message).into())
        }
        Returns::List(_) => {
            let mut encoder = wanted.encoder();
            list.iter().try_for_each(|value| value.encode(&mut encoder))
        }
        _ => T::encode_list(list, &mut wanted.encoder()),
    }
}

/// The outcome of a function that returns a list in a `Result`.
pub fn fallible_list<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_, '_>,
    result: Result<Vec<T>, E>,
    as_error: AsError<E>,
) -> Outcome {
    infallible_list(wanted, result.map_err(returned(as_error))?)
}

/// The outcome of a function that returns a tuple of objects.
pub fn infallible_tuple<T: EncodeTuple>(wanted: Wanted<'_, '_>, tuple: T) -> Outcome {
    tuple.encode_each(&mut wanted.encoder())
}

/// The outcome of a function that returns a tuple of objects in a `Result`.
pub fn fallible_tuple<T: EncodeTuple, E: fmt::Display + 'static>(
    wanted: Wanted<'_, '_>,
    result: Result<T, E>,
    as_error: AsError<E>,
) -> Outcome {
    infallible_tuple(wanted, result.map_err(returned(as_error))?)
}

/// The outcome of a function whose elements become objects of their own, however many there are.
pub fn infallible_dynamic<T: Portable + 'static>(wanted: Wanted<'_, '_>, list: Vec<T>) -> Outcome {
    let references = list.into_iter().map(Portable::into_object).collect::<Result<Vec<_>, _>>()?;
    references.encode(&mut wanted.encoder())
}

/// The outcome of such a function that returns a `Result`.
pub fn fallible_dynamic<T: Portable + 'static, E: fmt::Display + 'static>(
    wanted: Wanted<'_, '_>,
    result: Result<Vec<T>, E>,
    as_error: AsError<E>,
) -> Outcome {
    infallible_dynamic(wanted, result.map_err(returned(as_error))?)
}

/// The outcome of a function that returns the items of a stream. Each is sent as soon as it is there.
pub fn streamed<T: Portable>(wanted: Wanted<'_, '_>, items: impl IntoIterator<Item = T>) -> Outcome {
    let mut encoder = wanted.encoder();
    for item in items {
        if !item.encode_item(&mut encoder)? {
            break;
        }
    }
    ().encode(&mut encoder)
}

/// The outcome of such a function where each item is a `Result`. An error ends the stream.
pub fn streamed_fallible<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_, '_>,
    items: impl IntoIterator<Item = Result<T, E>>,
    as_error: AsError<E>,
) -> Outcome {
    let mut encoder = wanted.encoder();
    for item in items {
        if !item.map_err(returned(as_error))?.encode_item(&mut encoder)? {
            break;
        }
    }
    ().encode(&mut encoder)
}

/// The outcome of an `async` method that returns the items of a stream. It waits for room without a thread.
#[cfg(feature = "tokio")]
pub async fn streamed_async<T: Portable>(
    wanted: Wanted<'_, '_>,
    items: impl IntoIterator<Item = T>,
) -> Outcome {
    let mut encoder = wanted.encoder();
    for item in items {
        item.push_item(&mut encoder)?;
        if !encoder.wants_item().await {
            break;
        }
    }
    ().encode(&mut encoder)
}

/// The outcome of such a function where each item is a `Result`. An error ends the stream.
#[cfg(feature = "tokio")]
pub async fn streamed_async_fallible<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_, '_>,
    items: impl IntoIterator<Item = Result<T, E>>,
    as_error: AsError<E>,
) -> Outcome {
    let mut encoder = wanted.encoder();
    for item in items {
        item.map_err(returned(as_error))?.push_item(&mut encoder)?;
        if !encoder.wants_item().await {
            break;
        }
    }
    ().encode(&mut encoder)
}

/// The outcome of a method that returns a `Stream`, whose items come as a future makes them.
#[cfg(feature = "tokio")]
pub async fn streamed_from<T: Portable>(wanted: Wanted<'_, '_>, items: impl Stream<Item = T>) -> Outcome {
    let (mut encoder, mut items) = (wanted.encoder(), pin!(items));
    while let Some(item) = poll_fn(|context| items.as_mut().poll_next(context)).await {
        item.push_item(&mut encoder)?;
        if !encoder.wants_item().await {
            break;
        }
    }
    ().encode(&mut encoder)
}

/// The outcome of such a function where each item is a `Result`. An error ends the stream.
#[cfg(feature = "tokio")]
pub async fn streamed_from_fallible<T: Portable, E: fmt::Display + 'static>(
    wanted: Wanted<'_, '_>,
    items: impl Stream<Item = Result<T, E>>,
    as_error: AsError<E>,
) -> Outcome {
    let (mut encoder, mut items) = (wanted.encoder(), pin!(items));
    while let Some(item) = poll_fn(|context| items.as_mut().poll_next(context)).await {
        item.map_err(returned(as_error))?.push_item(&mut encoder)?;
        if !encoder.wants_item().await {
            break;
        }
    }
    ().encode(&mut encoder)
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

/// The outcome of a constructor that cannot fail, of an actor with several calls at a time.
pub fn constructed_shared<T: ConcurrentState>(actor: T) -> SharedConstruction {
    Ok(actor.into_shared())
}

/// The outcome of such a constructor that returns a `Result`.
pub fn constructed_shared_fallible<T: ConcurrentState, E: fmt::Display + 'static>(
    result: Result<T, E>,
    as_error: AsError<E>,
) -> SharedConstruction {
    constructed_shared(result.map_err(returned(as_error))?)
}

/// A type that can be the state of an actor with several calls at a time.
#[diagnostic::on_unimplemented(
    message = "an actor with several calls at a time is shared by threads: `{Self}` is not `Send` and `Sync`",
    label = "is not both `Send` and `Sync`",
    note = "use `Mutex`, `RwLock` or atomics for state that changes behind `&self`, and `Arc` in place of `Rc`",
    note = "without `max_concurrency`, `concurrency_groups` and `async` methods, its calls run one at a time"
)]
pub trait ConcurrentState: Sized {
    #[doc(hidden)]
    fn into_shared(self) -> Box<SharedState>;
}

#[diagnostic::do_not_recommend]
impl<T: Any + Send + Sync> ConcurrentState for T {
    fn into_shared(self) -> Box<SharedState> {
        Box::new(self)
    }
}

/// Finds the error, with its sources, in a returned value. Only the macros' code can do so; see
/// [`sources`](crate::sources).
type AsError<E> = fn(&E) -> Option<&(dyn std::error::Error + 'static)>;

fn returned<E: fmt::Display + 'static>(as_error: AsError<E>) -> impl FnOnce(E) -> Failure {
    move |error| TaskError::returned(&error, as_error(&error)).into()
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
    fn encode_each(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure>;
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
            fn encode_each(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure> {
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
