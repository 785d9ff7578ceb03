//! The error that a function returned, with its sources, found at the place where its type is known.
//!
//! A function may fail with anything that can be shown: an error with sources, a box of one, or a text. Only the
//! code that the macros generate knows the concrete type, so the choice is made there: a method of the same name is
//! offered at four depths of references, and the compiler takes the first that fits.

use std::error::Error;

/// An error of any type.
#[derive(Debug)]
pub struct Returned<'a, E>(pub &'a E);

/// For values that implement [`Error`].
pub trait OfError<'a> {
    /// The error itself.
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)>;
}

impl<'a, E: Error + 'static> OfError<'a> for &&&Returned<'a, E> {
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)> {
        Some(self.0)
    }
}

/// For values that hold a `Send` and `Sync` error, as most boxes and the types of error libraries do.
pub trait OfSendBox<'a> {
    /// The error that it holds.
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)>;
}

impl<'a, E: AsRef<dyn Error + Send + Sync>> OfSendBox<'a> for &&Returned<'a, E> {
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// For values that hold another error.
pub trait OfBox<'a> {
    /// The error that it holds.
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)>;
}

impl<'a, E: AsRef<dyn Error>> OfBox<'a> for &Returned<'a, E> {
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// For all other values: there is no error.
pub trait OfText<'a> {
    /// `None`.
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)>;
}

impl<'a, E> OfText<'a> for Returned<'a, E> {
    fn as_error(&self) -> Option<&'a (dyn Error + 'static)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    #[expect(clippy::needless_borrow, reason = "as many as the macros' code has, which decide")]
    fn an_error_is_found_by_itself_and_in_boxes() {
        let outer = || Outer("x".parse::<u8>().unwrap_err());
        let is_outer = |error: Option<&(dyn Error + 'static)>| error.is_some_and(|error| error.is::<Outer>());
        assert!(is_outer((&&&&Returned(&outer())).as_error()));
        let boxed: Box<dyn Error> = Box::new(outer());
        assert!(is_outer((&&&&Returned(&boxed)).as_error()));
        let boxed: Box<dyn Error + Send + Sync> = Box::new(outer());
        assert!(is_outer((&&&&Returned(&boxed)).as_error()));
        assert!((&&&&Returned(&Box::new(outer()))).as_error().unwrap().source().is_some());
        assert!((&&&&Returned(&"text")).as_error().is_none());
        assert!((&&&&Returned(&String::new())).as_error().is_none());
    }
}
