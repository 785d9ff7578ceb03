//! The sources of an error that a function returned, found at the place where its type is known.
//!
//! A function may fail with anything that can be shown: an error with sources, a box of one, or a text. Only the
//! code that the macros generate knows the concrete type, so the choice is made there: a method of the same name is
//! offered at three depths of references, and the compiler takes the first that fits.

use std::error::Error;
use std::ops::Deref;

/// An error of any type.
#[derive(Debug)]
pub struct Returned<'a, E>(pub &'a E);

/// Of what implements [`Error`].
pub trait OfError<'a> {
    /// Its source.
    fn source_of(&self) -> Option<&'a (dyn Error + 'static)>;
}

impl<'a, E: Error> OfError<'a> for &&Returned<'a, E> {
    fn source_of(&self) -> Option<&'a (dyn Error + 'static)> {
        self.0.source()
    }
}

/// Of what holds something that does, as `Box<dyn Error>` and the boxes of error libraries.
pub trait OfBox<'a> {
    /// Its source.
    fn source_of(&self) -> Option<&'a (dyn Error + 'static)>;
}

impl<'a, E: Deref<Target: Error>> OfBox<'a> for &Returned<'a, E> {
    fn source_of(&self) -> Option<&'a (dyn Error + 'static)> {
        self.0.deref().source()
    }
}

/// Of everything else: there is none.
pub trait OfText<'a> {
    /// Nothing.
    fn source_of(&self) -> Option<&'a (dyn Error + 'static)>;
}

impl<'a, E> OfText<'a> for Returned<'a, E> {
    fn source_of(&self) -> Option<&'a (dyn Error + 'static)> {
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
    fn sources_are_found_in_errors_and_in_boxes() {
        let outer = || Outer("x".parse::<u8>().unwrap_err());
        let shown = |source: Option<&(dyn Error + 'static)>| source.map(ToString::to_string);
        let inner = Some(outer().0.to_string());
        assert_eq!(shown((&&&Returned(&outer())).source_of()), inner);
        assert_eq!(shown((&&&Returned(&Box::new(outer()))).source_of()), inner);
        let boxed: Box<dyn Error> = Box::new(outer());
        assert_eq!(shown((&&&Returned(&boxed)).source_of()), inner);
        let boxed: Box<dyn Error + Send + Sync> = Box::new(outer());
        assert_eq!(shown((&&&Returned(&boxed)).source_of()), inner);
        assert_eq!(shown((&&&Returned(&"text")).source_of()), None);
        assert_eq!(shown((&&&Returned(&String::new())).source_of()), None);
    }
}
