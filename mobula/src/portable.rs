//! The types that can be arguments or results of remote calls, and the compiler's message about all others.
//!
//! Where the macros' code needs one of serde's traits, it always has the same bound, [`Portable`]. So the compiler
//! reports one error for a type, and reports it once.

use mobula_runtime::{ArgumentList, Failure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arguments::{Arg, IntoArg};
use crate::invocation::{Arguments, EachEncoder};
use crate::object_ref::{ObjectRef, put};
use crate::value;

/// A type whose values can go to another process: serde can write and read it, and it borrows from nothing.
///
/// These bounds are only on the implementation, because each supertrait would cause an error message of its own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot go to another process: it needs serde's `Serialize` and `Deserialize`",
    label = "does not implement both `Serialize` and `Deserialize`",
    note = "for a type of your own, and for the types in it, add `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "for a type of another crate, see whether that crate has a feature `serde`",
    note = "a type that borrows cannot be read in another process: take one that owns, as `String` for `&str`"
)]
pub trait Portable: Sized {
    /// The next argument of a call that is about to run.
    #[doc(hidden)]
    fn take(arguments: &mut Arguments<'_, '_>) -> Result<Self, Failure>;

    /// Adds an argument of this type to a call that is being made.
    #[doc(hidden)]
    fn give(arguments: &mut ArgumentList, argument: impl IntoArg<Self>);

    /// Encodes a result.
    #[doc(hidden)]
    fn encode(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure>;

    /// Encodes an item of a stream, and sends it. Returns `false` when the caller wants no more.
    #[doc(hidden)]
    fn encode_item(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<bool, Failure>;

    /// Encodes and sends an item of a stream, and does not wait.
    #[doc(hidden)]
    #[cfg(feature = "tokio")]
    fn push_item(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure>;

    /// Puts the value into the store.
    #[doc(hidden)]
    fn into_object(self) -> Result<ObjectRef<Self>, Failure>;

    /// Encodes a list of results as one.
    #[doc(hidden)]
    fn encode_list(list: Vec<Self>, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure>;
}

// Otherwise the compiler would report each bound that is not met, in serde's words, with one error for each.
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Portable for T {
    fn take(arguments: &mut Arguments<'_, '_>) -> Result<Self, Failure> {
        arguments.next()
    }

    fn give(arguments: &mut ArgumentList, argument: impl IntoArg<Self>) {
        attach(arguments, argument.into_arg());
    }

    fn encode(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure> {
        encoder.push(self)
    }

    fn encode_item(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<bool, Failure> {
        encoder.push_item(self)
    }

    #[cfg(feature = "tokio")]
    fn push_item(&self, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure> {
        encoder.push_item_at_once(self)
    }

    fn into_object(self) -> Result<ObjectRef<Self>, Failure> {
        Ok(put(&self)?)
    }

    fn encode_list(list: Vec<Self>, encoder: &mut EachEncoder<'_, '_>) -> Result<(), Failure> {
        encoder.push(&list)
    }
}

/// Adds an argument to those of a call.
fn attach<T: Serialize>(arguments: &mut ArgumentList, argument: Arg<T>) {
    match argument {
        Arg::Reference(reference) => arguments.push_reference(&reference.0),
        Arg::Value(_) if !value::context::is_there() => arguments.fail(mobula_runtime::Error::ThreadEnding),
        Arg::Value(value) => arguments.push_value(|out| value::append(&value, out)),
    }
}
