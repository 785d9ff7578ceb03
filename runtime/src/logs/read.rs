//! Reads log files: first all lines, then the lines that were added.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{DIRECTORY, OLDER_SUFFIX, SUFFIX};

/// The log files of a session. The session may have ended, if its files were kept.
#[derive(Debug, Clone)]
pub struct Logs {
    directory: PathBuf,
}

/// A line that a worker has printed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogLine {
    /// The time at which the head read it, in seconds since 1970.
    pub at: f64,
    /// The process that printed it.
    pub pid: u32,
    /// The stream that the line came from.
    pub stream: LogStream,
    /// The function, or the class of the actor, that ran; `worker` if none had run yet.
    pub function: String,
    /// The line, without its end.
    pub text: Vec<u8>,
}

/// The source of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// The session: a notice that lines are missing here.
    Notice,
}

/// The place up to which files were read.
#[derive(Debug, Default, Clone)]
pub struct LogCursor {
    /// By the pid: the file, and the number of bytes that were read.
    files: HashMap<u32, Position>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Position {
    file: FileId,
    bytes: u64,
}

/// Distinguishes a file from the one that replaced it, even if the inode is used again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, Option<SystemTime>);

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self(metadata.ino(), metadata.created().ok()))
    }
}

impl Logs {
    /// The log files of the session with this store.
    #[must_use]
    pub fn of_session(socket: &Path) -> Self {
        Self { directory: socket.parent().unwrap_or(Path::new("/")).join(DIRECTORY) }
    }

    /// The log files in a directory in which a session has kept them.
    #[must_use]
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The processes that have log files.
    ///
    /// # Errors
    /// The directory cannot be read: the session keeps no logs, or has ended.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids: Vec<u32> = fs::read_dir(&self.directory)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(SUFFIX)?.parse().ok())
            .collect();
        pids.sort_unstable();
        Ok(pids)
    }

    /// The lines of the chosen processes after the cursor, in the order of their times. Moves the cursor past them.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn read(&self, cursor: &mut LogCursor, is_chosen: impl Fn(u32) -> bool) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for pid in self.pids()?.into_iter().filter(|pid| is_chosen(*pid)) {
            let position = cursor.files.entry(pid).or_default();
            self.read_one(pid, position, &mut lines)?;
        }
        // The sort is stable: lines of one process stay in their order.
        lines.sort_by(|one, other| one.at.total_cmp(&other.at));
        Ok(lines)
    }

    fn read_one(&self, pid: u32, position: &mut Position, lines: &mut Vec<LogLine>) -> io::Result<()> {
        let Some(mut file) = open(&self.directory.join(format!("{pid}{SUFFIX}")))? else { return Ok(()) };
        let id = FileId::of(&file)?;
        if position.file != id {
            // The file was replaced, or no file was read before: the unread part of the older one comes first.
            if let Some(mut older) = open(&self.directory.join(format!("{pid}{OLDER_SUFFIX}")))? {
                let its = FileId::of(&older)?;
                let from = if its == position.file { position.bytes } else { 0 };
                if its != id {
                    take(&mut older, from, pid, lines)?;
                }
            }
            *position = Position { file: id, bytes: 0 };
        }
        position.bytes += take(&mut file, position.bytes, pid, lines)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => Ok(Some(file)),
        // The file is being replaced.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the complete lines from a place on. Returns their number of bytes.
fn take(file: &mut File, from: u64, pid: u32, lines: &mut Vec<LogLine>) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let parsed = bytes[..whole].split_inclusive(|byte| *byte == b'\n').filter_map(|line| parse(pid, line));
    lines.extend(parsed);
    Ok(whole as u64)
}

/// Parses a line of a file. Other text is skipped: only this program writes the file.
fn parse(pid: u32, line: &[u8]) -> Option<LogLine> {
    let line = line.strip_suffix(b"\n")?;
    let mut fields = line.splitn(4, |byte| *byte == b'\t');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let at = text()?.parse().ok()?;
    let stream = match text()? {
        "out" => LogStream::Out,
        "err" => LogStream::Err,
        "log" => LogStream::Notice,
        _ => return None,
    };
    let function = text()?.to_owned();
    Some(LogLine { at, pid, stream, function, text: fields.next()?.to_vec() })
}
