//! Log files: what the workers of a session print, kept beside the session. The head's thread that passes output on
//! writes them; [`Logs`] reads them.
//!
//! Workers write into pipes, with or without log files, so a call does nothing more for them. The directory is `logs`
//! in the session's directory, and goes with it, unless the session was started with a directory of its own for them.
//!
//! Each process has one file, `4711.log`, and at most one older one, `4711.log.1`. A line is:
//!
//! ```text
//! 1796000000.123456 <tab> out <tab> function <tab> text
//! ```
//!
//! The time is in seconds since 1970, at which the head read the line. The second field is `out`, `err`, or `log` for a
//! notice of the session's own: such as that older output was removed. Text may be any bytes but a line's end.

mod read;
mod write;

pub use self::read::{LogCursor, LogLine, LogStream, Logs};
pub(crate) use self::write::LogFiles;

/// The directory in that of a session. It is a link where the files are kept elsewhere.
const DIRECTORY: &str = "logs";
/// The end of a file's name, behind the pid.
const SUFFIX: &str = ".log";
/// The end of the older file's name.
const OLDER_SUFFIX: &str = ".log.1";
