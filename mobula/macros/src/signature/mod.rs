//! The signature of a function or a method: the arguments and results that may cross to another process, and the code
//! that sends them.
//!
//! A macro knows types only as they are written. So it recognises `Result` and `Vec` by the last segment of their path,
//! and the compiler finds hidden lifetimes.

mod arguments;
mod qualifiers;
mod returns;
mod tokens;
mod types;

pub(crate) use self::arguments::Arguments;
pub(crate) use self::qualifiers::{check_method_qualifiers, check_qualifiers};
pub(crate) use self::returns::{Returns, as_error};
pub(crate) use self::tokens::{
    allow_deprecated, cfg, repeated, replace_self, replace_self_in, shared, strip_argument_docs,
};
pub(crate) use self::types::{bare, result_of};
