//! Log files: they keep the output of a session's workers. The head's output thread writes them, and [`Logs`] reads
//! them.
//!
//! Workers write into pipes, with or without log files, so log files cost a call nothing. The directory is `logs` in
//! the session's directory, and is removed with it, unless the session was started with another directory for log
//! files.
//!
//! Each process has a file such as `4711.log`, and at most one older file, `4711.log.1`. A line is:
//!
//! ```text
//! 1796000000.123456 <tab> out <tab> function <tab> text
//! ```
//!
//! The first field is the time at which the head read the line, in seconds since 1970. The second field is `out`,
//! `err`, or `log` for a notice of the session itself, for example that older output was removed. The text may be any
//! bytes except a line's end.

mod read;
mod write;

pub use self::read::{LogCursor, LogLine, LogStream, Logs};
pub(crate) use self::write::LogFiles;

/// The name of the directory in the session's directory. It is a link if the files are kept elsewhere.
const DIRECTORY: &str = "logs";
/// The end of a file's name, behind the pid.
const SUFFIX: &str = ".log";
/// The end of the older file's name.
const OLDER_SUFFIX: &str = ".log.1";
