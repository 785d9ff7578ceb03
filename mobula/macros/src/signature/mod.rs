//! The signature of a function or a method: which arguments and results may cross to another process, and the code that
//! takes them there.
//!
//! Types are known here only as they are written. So `Result` and `Vec` are recognised by the last segment of their
//! path, and a lifetime that a type hides is the compiler's to find.

mod arguments;
mod qualifiers;
mod returns;
mod tokens;
mod types;

pub(crate) use self::arguments::Arguments;
pub(crate) use self::qualifiers::{check_method_qualifiers, check_qualifiers};
pub(crate) use self::returns::{Returns, as_error};
pub(crate) use self::tokens::{allow_deprecated, cfg, repeated, replace_self, shared, strip_argument_docs};
pub(crate) use self::types::{bare, result_of};
