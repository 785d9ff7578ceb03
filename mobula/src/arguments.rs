//! The arguments of a call, as its caller gives them: values, or references to them.

use mobula_runtime::Ref;

use crate::object_ref::ObjectRef;

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
/// A value is encoded before the call returns: a small value is copied into the request, and a large one into the
/// store. A reference costs a clone of the reference, even for a large value.
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
