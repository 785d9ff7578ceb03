//! The reason why a stream could not be written or read, and the place in the value.
//!
//! The place is built while the error passes up through the levels, so it costs nothing for a valid value.

use std::borrow::Cow;
use std::fmt;

/// Boxed: it is large and rare.
#[derive(Debug)]
pub(crate) struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    message: String,
    /// The innermost first.
    place: Vec<Step>,
    /// The type at the innermost place, where it is known.
    type_name: Option<&'static str>,
    is_too_deep: bool,
}

/// One level down.
#[derive(Debug)]
pub(super) enum Step {
    /// A field, a key that is text, or a variant.
    Name(Cow<'static, str>),
    /// An element, or an entry whose key is something else.
    Index(usize),
}

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { message, place: Vec::new(), type_name: None, is_too_deep: false }))
    }

    pub(super) fn too_deep() -> Self {
        let mut error = Self::new("it nests too deep");
        error.0.is_too_deep = true;
        error
    }

    pub(super) fn is_too_deep(&self) -> bool {
        self.0.is_too_deep
    }

    /// The error, seen from one level further out; `type_name` is the type of the value at the place.
    #[cold]
    pub(super) fn at(mut self, step: Step, type_name: Option<&'static str>) -> Self {
        let inner = &mut *self.0;
        if inner.place.is_empty() {
            // Elements come as references to them.
            inner.type_name = type_name.map(|name| name.trim_start_matches('&'));
        }
        // A value that is too deep has no place worth naming.
        if !inner.is_too_deep {
            inner.place.push(step);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { message, place, type_name, .. } = &*self.0;
        if !place.is_empty() {
            f.write_str("`")?;
            for (at, step) in place.iter().rev().enumerate() {
                match step {
                    Step::Name(name) if at == 0 => f.write_str(name)?,
                    Step::Name(name) => write!(f, ".{name}")?,
                    Step::Index(index) => write!(f, "[{index}]")?,
                }
            }
            f.write_str("`")?;
            if let Some(type_name) = type_name {
                write!(f, ", a `{type_name}`")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(message)
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}
