//! Writes log files, up to a number of bytes in all.
//!
//! No file stays open: the descriptors of a driver limit the number of its processes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{DIRECTORY, OLDER_SUFFIX, SUFFIX};
use crate::process::output::{Lines, Stream};

/// The part of all bytes that one file may have. A process has two.
const FILE_SHARE: u64 = 16;
/// The least that a file may have before it is replaced.
const FILE_BYTES_MIN: u64 = 4 << 10;

/// The log files of one driver's workers.
#[derive(Debug)]
pub(crate) struct LogFiles {
    directory: PathBuf,
    bytes_max: u64,
    bytes: u64,
    files: HashMap<u32, LogFile>,
    /// Counts the writes, to find the file that was written longest ago.
    write_count: u64,
}

#[derive(Debug, Default)]
struct LogFile {
    bytes: u64,
    older_bytes: u64,
    /// Bytes of this process's output that were removed.
    removed_bytes: u64,
    written: u64,
}

impl LogFiles {
    /// Writes to files in `kept`, or in a directory of the session, of at most `bytes_max` bytes in all.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn new(session: &Path, kept: Option<&Path>, bytes_max: u64) -> io::Result<Self> {
        let of_session = session.join(DIRECTORY);
        let directory = match kept {
            Some(kept) => {
                let name = session.file_name().unwrap_or_default();
                let directory = std::path::absolute(kept)?.join(name);
                make(&directory)?;
                // The command finds the files by this link while the session runs.
                match symlink(&directory, &of_session) {
                    // Another driver of the session has made it.
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => directory,
                }
            }
            None => {
                make(&of_session)?;
                of_session
            }
        };
        Ok(Self { directory, bytes_max, bytes: 0, files: HashMap::new(), write_count: 0 })
    }

    /// Appends lines of a process.
    ///
    /// # Errors
    /// The error of the system. Some of the lines may have been written.
    pub(crate) fn write(
        &mut self,
        pid: u32,
        stream: Stream,
        at: SystemTime,
        lines: &Lines,
    ) -> io::Result<()> {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = format!("{}.{:06}", at.as_secs(), at.subsec_micros());
        let stream = match stream {
            Stream::Stdout => "out",
            Stream::Stderr => "err",
        };
        let mut bytes = Vec::new();
        for (name, text) in lines.iter() {
            let _ = write!(bytes, "{time}\t{stream}\t{name}\t");
            bytes.extend_from_slice(text);
            bytes.push(b'\n');
            // With their fields, short lines need many times the bytes that were printed.
            if bytes.len() as u64 >= self.file_bytes_max() / 2 {
                self.append(pid, &time, &bytes)?;
                bytes.clear();
            }
        }
        self.append(pid, &time, &bytes)
    }

    /// The bytes that one file may have.
    fn file_bytes_max(&self) -> u64 {
        (self.bytes_max / FILE_SHARE).max(FILE_BYTES_MIN)
    }

    fn append(&mut self, pid: u32, time: &str, bytes: &[u8]) -> io::Result<()> {
        self.write_count += 1;
        self.make_room(pid, bytes.len() as u64, time)?;
        let file = self.files.entry(pid).or_default();
        file.written = self.write_count;
        append(&self.directory.join(format!("{pid}{SUFFIX}")), bytes)?;
        file.bytes += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Replaces the file of a process if it is full, and removes files until there is room for `more` bytes.
    fn make_room(&mut self, pid: u32, more: u64, time: &str) -> io::Result<()> {
        let file_max = self.file_bytes_max();
        if let Some(file) = self.files.get_mut(&pid)
            && file.bytes > 0
            && file.bytes + more > file_max
        {
            let path = self.directory.join(format!("{pid}{SUFFIX}"));
            fs::rename(&path, self.directory.join(format!("{pid}{OLDER_SUFFIX}")))?;
            self.bytes -= file.older_bytes;
            file.removed_bytes += file.older_bytes;
            (file.older_bytes, file.bytes) = (file.bytes, 0);
            if file.removed_bytes > 0 {
                let notice = removed(time, file.removed_bytes);
                append(&path, notice.as_bytes())?;
                file.bytes += notice.len() as u64;
                self.bytes += notice.len() as u64;
            }
        }
        while self.bytes + more > self.bytes_max {
            let others =
                self.files.iter().filter(|(of, file)| **of != pid && file.bytes + file.older_bytes > 0);
            // The one that was written longest ago.
            let Some((oldest, _)) = others.min_by_key(|(_, file)| file.written) else { break };
            self.remove(*oldest, time)?;
        }
        Ok(())
    }

    /// Removes output of a process, its older file first.
    fn remove(&mut self, pid: u32, time: &str) -> io::Result<()> {
        let Some(file) = self.files.get_mut(&pid) else { return Ok(()) };
        let path = self.directory.join(format!("{pid}{SUFFIX}"));
        if file.older_bytes > 0 {
            let _ = fs::remove_file(self.directory.join(format!("{pid}{OLDER_SUFFIX}")));
            self.bytes -= file.older_bytes;
            file.removed_bytes += std::mem::take(&mut file.older_bytes);
            let notice = removed(time, file.removed_bytes);
            append(&path, notice.as_bytes())?;
            // A notice is not counted, so that it needs no room itself.
            return Ok(());
        }
        self.bytes -= file.bytes;
        file.removed_bytes += std::mem::take(&mut file.bytes);
        // A new file, so that readers notice the removal.
        let _ = fs::remove_file(&path);
        append(&path, removed(time, file.removed_bytes).as_bytes())
    }
}

fn removed(time: &str, bytes: u64) -> String {
    format!(
        "{time}\tlog\t\t{bytes} bytes of older output were removed: log files have a limit (MOBULA_LOG_BYTES_MAX)\n"
    )
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut file = File::options().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    file.write_all(bytes)
}

/// Makes a directory that only this user can use.
fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::logs::{LogCursor, LogStream, Logs};

    fn lines(texts: &[&str]) -> Lines {
        let mut lines = Lines::default();
        let name: Arc<str> = "f".into();
        for text in texts {
            lines.push(&name, &mut text.as_bytes().to_vec());
        }
        lines
    }

    fn texts(session: &Path, cursor: &mut LogCursor) -> Vec<String> {
        let logs = Logs::in_directory(session.join(DIRECTORY));
        let lines = logs.read(cursor, |_| true).unwrap();
        lines.iter().map(|line| format!("{}:{}", line.pid, String::from_utf8_lossy(&line.text))).collect()
    }

    #[test]
    fn lines_come_back_in_the_order_of_their_times() {
        let session = tempfile::tempdir().unwrap();
        let mut files = LogFiles::new(session.path(), None, 1 << 20).unwrap();
        let at = |seconds| UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        files.write(1, Stream::Stdout, at(1), &lines(&["a", "tab\there"])).unwrap();
        files.write(2, Stream::Stderr, at(2), &lines(&["b", ""])).unwrap();
        files.write(1, Stream::Stdout, at(3), &lines(&["c"])).unwrap();
        let mut cursor = LogCursor::default();
        assert_eq!(texts(session.path(), &mut cursor), ["1:a", "1:tab\there", "2:b", "2:", "1:c"]);
        assert!(texts(session.path(), &mut cursor).is_empty());
        files.write(2, Stream::Stdout, at(4), &lines(&["d"])).unwrap();
        assert_eq!(texts(session.path(), &mut cursor), ["2:d"]);
    }

    #[test]
    fn what_was_removed_is_said_and_the_bytes_are_bounded() {
        let session = tempfile::tempdir().unwrap();
        let bytes_max = 64 << 10;
        let mut files = LogFiles::new(session.path(), None, bytes_max).unwrap();
        let (mut cursor, mut follower) = (LogCursor::default(), Vec::new());
        let text = "x".repeat(100);
        for number in 0..3000u32 {
            let its = format!("{number} {text}");
            files.write(number % 7 + 1, Stream::Stdout, SystemTime::now(), &lines(&[&its])).unwrap();
            follower.extend(texts(session.path(), &mut cursor));
        }
        let on_disk: u64 = fs::read_dir(session.path().join(DIRECTORY))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(on_disk < bytes_max + 7 * 1024, "{on_disk}");
        // A reader that keeps up misses no line.
        let read = follower.iter().filter(|line| line.contains("xxx")).count();
        assert_eq!(read, 3000);
        // A reader that is late gets a notice.
        let logs = Logs::in_directory(session.path().join(DIRECTORY));
        let late = logs.read(&mut LogCursor::default(), |_| true).unwrap();
        assert!(late.iter().any(|line| line.stream == LogStream::Notice), "no notice");
        assert!(late.len() < 3000 && late.last().unwrap().text.starts_with(b"2999 "));
    }
}
