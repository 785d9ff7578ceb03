//! The output of workers, on its way to the driver's own output.
//!
//! A worker's standard output and error are pipes to the head, which puts a prefix before each line: the function or
//! actor that ran, and the process's id. The pipe itself says which one ran, so the names always match the lines:
//! before a call of another function than the last one, the worker writes a *label* into both pipes. A label is a
//! control character that text does not contain, the name, and the character again. Printed text that looks like a
//! label is taken for a label, or, if it contains no valid name, for ordinary output. The process's id comes from the
//! head.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// ASCII's record separator.
const MARK: u8 = 0x1e;
/// A line longer than this is forwarded in pieces.
const LINE_BYTES_MAX: usize = 64 << 10;
/// A longer name is not accepted as a label, because each line gets the name, and lines may be short.
const NAME_BYTES_MAX: usize = 128;
/// The name for lines without a label.
const NO_NAME: &str = "worker";

static FORWARDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The name in the last label of this thread.
    static LABEL: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Turns labels on: the output of this worker is forwarded.
pub(crate) fn enable_labels() {
    FORWARDED.store(true, Ordering::Relaxed);
}

/// Labels the output from now on with `name`. Two system calls if the name is not the last one, else none.
pub fn label(name: &str) {
    let is_new = LABEL.with_borrow_mut(|label| {
        let is_new = label != name;
        if is_new {
            name.clone_into(label);
        }
        is_new
    });
    if !is_new || !FORWARDED.load(Ordering::Relaxed) {
        return;
    }
    let mut label = Vec::with_capacity(name.len() + 2);
    label.push(MARK);
    let name = short(name);
    label.extend_from_slice(&name.as_bytes()[..name.floor_char_boundary(NAME_BYTES_MAX)]);
    label.push(MARK);
    flush_stdout();
    let _ = Stream::Stdout.write_all(&label);
    let _ = Stream::Stderr.write_all(&label);
}

/// Writes out what this process has printed so far.
fn flush_stdout() {
    while io::stdout().flush().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        Stream::Stdout.takes_more_within(PollTimeout::NONE);
    }
}

/// The last part of a path: the short name of a function.
fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// Takes what workers print, in place of this process's own output: whole lines, in order, with their prefixes.
#[derive(Clone)]
pub struct OutputSink(Arc<TakeOutput>);

/// Gets whether the lines are for standard error, and the lines.
type TakeOutput = dyn Fn(bool, &[u8]) -> io::Result<bool> + Send + Sync;

impl OutputSink {
    /// A sink that calls this function on a thread of the session. Its arguments are whether the lines are for standard
    /// error, and the lines. It returns whether it has taken them; otherwise they go to this process's own output. It
    /// may block: then workers that print wait.
    pub fn new(take: impl Fn(bool, &[u8]) -> io::Result<bool> + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    pub(crate) fn take(&self, is_error: bool, lines: &[u8]) -> io::Result<bool> {
        (self.0)(is_error, lines)
    }
}

impl std::fmt::Debug for OutputSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OutputSink")
    }
}

/// One of this process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        })
    }
}

impl Stream {
    /// Writes all of the bytes. Another process may have made the output non-blocking for every process that has it:
    /// then this waits until the output takes more.
    ///
    /// This does not take the standard library's lock of the output, because user code may hold that lock while it
    /// waits for this text. So an unfinished line of this process's own may appear later, or be split.
    ///
    /// A closed output takes everything, as it does from `println!`.
    ///
    /// # Errors
    /// The system's: the output has no reader any more, or the disk is full.
    pub(crate) fn write_all(self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_in_parts(bytes, || {})
    }

    /// Writes all of the bytes, and calls `on_part` whenever the output has taken a part.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn write_all_in_parts(self, mut bytes: &[u8], on_part: impl Fn()) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Stdout => write(io::stdout().as_fd(), bytes),
                Self::Stderr => write(io::stderr().as_fd(), bytes),
            };
            match written {
                Ok(count) => {
                    bytes = &bytes[count..];
                    on_part();
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => _ = self.takes_more_within(PollTimeout::NONE),
                    _ if error.raw_os_error() == Some(libc::EBADF) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn takes_more_within(self, timeout: PollTimeout) -> bool {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let descriptor = match self {
            Self::Stdout => stdout.as_fd(),
            Self::Stderr => stderr.as_fd(),
        };
        matches!(poll(&mut [PollFd::new(descriptor, PollFlags::POLLOUT)], timeout), Ok(1..))
    }
}

/// Writes a message of this library to standard error, if that does not have to wait. A session must neither be delayed
/// by a reader that does not read, nor end because there is no reader, as it would by `eprintln!`.
pub(crate) fn say(text: impl std::fmt::Display) {
    if Stream::Stderr.takes_more_within(PollTimeout::ZERO) {
        let _ = write(io::stderr().as_fd(), format!("mobula: {text}\n").as_bytes());
    }
}

fn write(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    nix::unistd::write(descriptor, bytes).map_err(|error: Errno| error.into())
}

/// Whole lines of one stream of one worker, each with the name in the label before it.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The texts, without the separators.
    bytes: Vec<u8>,
    /// The name of each, and where its text ends.
    lines: Vec<(Arc<str>, usize)>,
}

impl Lines {
    /// Appends a line, and empties it.
    pub(crate) fn push(&mut self, name: &Arc<str>, line: &mut Vec<u8>) {
        self.bytes.append(line);
        self.lines.push((name.clone(), self.bytes.len()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The bytes of the texts and their ends.
    pub(crate) fn bytes(&self) -> u64 {
        (self.bytes.len() + self.lines.len()) as u64
    }

    /// The names and the texts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let starts = std::iter::once(0).chain(self.lines.iter().map(|(_, end)| *end));
        starts.zip(&self.lines).map(|(start, (name, end))| (&**name, &self.bytes[start..*end]))
    }

    /// The lines with their prefixes, as they appear in the driver's output.
    pub(crate) fn prefixed(&self, pid: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 32 * self.lines.len());
        for (name, text) in self.iter() {
            let _ = write!(out, "({name} pid={pid}) ");
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        out
    }
}

/// Divides one stream of one worker into lines, and finds the labels.
#[derive(Debug)]
pub(crate) struct Splitter {
    name: Arc<str>,
    line: Vec<u8>,
    /// Inside a label.
    label: Option<Vec<u8>>,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { name: NO_NAME.into(), line: Vec::new(), label: None }
    }
}

impl Splitter {
    /// Appends the lines that `bytes` complete to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Lines) {
        for &byte in bytes {
            match (&mut self.label, byte) {
                (Some(label), MARK) => {
                    self.name = match label.is_empty() {
                        true => NO_NAME.into(),
                        false => String::from_utf8_lossy(label).into(),
                    };
                    self.label = None;
                }
                (Some(label), byte) if label.len() < NAME_BYTES_MAX && !byte.is_ascii_control() => {
                    label.push(byte);
                }
                (Some(label), byte) => {
                    // No label after all.
                    self.line.push(MARK);
                    self.line.append(label);
                    self.label = None;
                    self.push_output(byte, out);
                }
                (None, MARK) => {
                    // The thread that printed without ending the line has printed all of it.
                    self.finish(out);
                    self.label = Some(Vec::new());
                }
                (None, byte) => self.push_output(byte, out),
            }
        }
    }

    fn push_output(&mut self, byte: u8, out: &mut Lines) {
        if byte == b'\n' {
            return out.push(&self.name, &mut self.line);
        }
        self.line.push(byte);
        if self.line.len() >= LINE_BYTES_MAX {
            out.push(&self.name, &mut self.line);
        }
    }

    /// The stream, or its label, has ended: a line without an end counts.
    pub(crate) fn finish(&mut self, out: &mut Lines) {
        if let Some(mut label) = self.label.take() {
            self.line.push(MARK);
            self.line.append(&mut label);
        }
        if !self.line.is_empty() {
            out.push(&self.name, &mut self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_the_prefix_of_the_label_before_them() {
        let check = |pieces: &[&[u8]], expected: &str| {
            let (mut splitter, mut out) = (Splitter::default(), Lines::default());
            pieces.iter().for_each(|piece| splitter.push(piece, &mut out));
            splitter.finish(&mut out);
            assert_eq!(String::from_utf8_lossy(&out.prefixed(7)), expected);
        };
        check(&[b"early\n"], "(worker pid=7) early\n");
        check(&[b"\x1ef\x1eone\ntwo\n"], "(f pid=7) one\n(f pid=7) two\n");
        check(&[b"\x1e", b"f", b"\x1eo", b"ne", b"\n"], "(f pid=7) one\n");
        check(&[b"\x1ef\x1epart\x1eg\x1erest"], "(f pid=7) part\n(g pid=7) rest\n");
        check(&[b"\x1ef\x1e\n"], "(f pid=7) \n");
        // Bytes that only begin like a label are output.
        check(&[b"a\x1eb\nc\x1e\x1e"], "(worker pid=7) a\n(worker pid=7) \x1eb\n(worker pid=7) c\n");
        let long = [&b"\x1ef\x1e\x1e"[..], &[b'n'; 200], b"\n"].concat();
        check(&[&long], &format!("(f pid=7) \x1e{}\n", "n".repeat(200)));
    }
}
