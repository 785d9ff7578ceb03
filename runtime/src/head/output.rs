//! The path of the output of workers: from their pipes to log files, and to this process's own output.
//!
//! The head reads the pipes. A thread of its own writes, because it may have to wait for the reader of this process's
//! output. It writes the log files first, so they have every line at once, even if that reader is slow. Nothing is lost
//! while the session lives: while earlier output cannot be written, the head reads no pipes, and workers that print
//! wait. The pipes of a process that has ended are kept until they are empty. Output is lost only if the driver's
//! output is closed, or its reader reads nothing for a while when the session ends. A message on standard error says
//! so.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::logs::LogFiles;
use crate::process::output::{self, Lines, OutputSink, Splitter, Stream};

/// The most pieces of output that wait to be written. Beyond that, workers wait.
const QUEUE_PIECES: usize = 16;
/// The most bytes that are read from a pipe at a time.
const PIECE_BYTES: usize = 16 << 10;
/// The most pieces that are read from the pipe of a process that has ended: the content of the largest pipe. Later
/// output of child processes that still hold the pipe is not read.
const PIECES_AFTER_END: usize = 64;
/// The most pipes of processes that have ended. If the output has no reader, and more workers end, the oldest pipes are
/// closed.
const ENDED_PIPES_MAX: usize = 128;
/// How soon to look again whether output can be written.
pub(super) const RETRY: Duration = Duration::from_millis(10);
/// How long the end of the session waits for a reader of the output that reads nothing.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The output of workers; see the module's documentation.
#[derive(Debug)]
pub(super) struct Output {
    /// The channel to the thread that writes. `None` at the end.
    pieces: Option<Sender<Piece>>,
    /// Disconnected when that thread has ended.
    written: Receiver<()>,
    progress: Arc<Progress>,
    /// The pipes of processes that have ended, the oldest first.
    ended: VecDeque<Pipe>,
    /// Bytes that nobody will read any more.
    lost_bytes: u64,
}

/// The progress of the thread that writes.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that were read and are not written yet.
    waiting_bytes: AtomicU64,
    /// The number of writes that wrote at least a byte.
    writes: AtomicU64,
}

/// The destinations of the output of workers.
#[derive(Debug)]
pub(super) struct Destinations {
    /// Log files.
    pub(super) logs: Option<LogFiles>,
    /// Whether the output goes to this process's own output, too.
    pub(super) is_forwarded: bool,
    /// A function that gets the output instead.
    pub(super) sink: Option<OutputSink>,
    /// The socket of the session's store.
    socket: PathBuf,
    failed: [bool; 2],
}

/// The bytes of one read of a pipe.
#[derive(Debug)]
struct Piece {
    stream: Stream,
    pid: u32,
    at: SystemTime,
    lines: Lines,
}

/// One output stream of one worker.
#[derive(Debug)]
pub(super) struct Pipe {
    stream: Stream,
    pid: u32,
    reader: File,
    splitter: Splitter,
    /// How many more pieces are read, when the process has ended.
    pieces_left: usize,
}

impl Destinations {
    pub(super) fn new(
        logs: Option<LogFiles>,
        is_forwarded: bool,
        sink: Option<OutputSink>,
        socket: PathBuf,
    ) -> Self {
        Self { logs, is_forwarded, sink, socket, failed: [false; 2] }
    }

    /// Writes a piece. May wait for the reader of this process's output.
    fn write(&mut self, Piece { stream, pid, at, lines }: &Piece, progress: &Progress) {
        if let Some(logs) = &mut self.logs
            && let Err(error) = logs.write(*pid, *stream, *at, lines)
        {
            // At its end the store removes its socket, and then the session's directory with the log files in it.
            if self.socket.exists() {
                output::say(format_args!("the log files get no more output of workers: {error}"));
            }
            self.logs = None;
        }
        if !self.is_forwarded {
            return;
        }
        let bytes = lines.prefixed(*pid);
        let taken = self.sink.as_ref().map_or(Ok(false), |sink| sink.take(*stream == Stream::Stderr, &bytes));
        let count_write = || _ = progress.writes.fetch_add(1, Ordering::Relaxed);
        let result = match taken {
            Ok(true) => {
                count_write();
                Ok(())
            }
            Ok(false) => stream.write_all_in_parts(&bytes, count_write),
            Err(error) => Err(error),
        };
        let failed = &mut self.failed[*stream as usize];
        if let Err(error) = &result
            && !*failed
        {
            let text = format!("the output of workers cannot be written to {stream}, and is lost: {error}");
            output::say(text);
        }
        *failed = result.is_err();
    }
}

impl Output {
    /// Starts the thread that writes.
    pub(super) fn new(mut destinations: Destinations) -> Self {
        let (sender, pieces) = bounded::<Piece>(QUEUE_PIECES);
        let (ends, written) = bounded(0);
        let progress = Arc::<Progress>::default();
        let write = {
            let progress = progress.clone();
            move || {
                let _ends: Sender<()> = ends;
                for piece in pieces {
                    destinations.write(&piece, &progress);
                    progress.waiting_bytes.fetch_sub(piece.lines.bytes(), Ordering::Relaxed);
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("mobula-output".into()).stack_size(256 << 10).spawn(write);
        if let Err(error) = thread {
            output::say(format_args!(
                "the output of workers is lost, because no thread can be started to write it: {error}"
            ));
        }
        Self { pieces: Some(sender), written, progress, ended: VecDeque::new(), lost_bytes: 0 }
    }

    /// The end of a worker's output stream that this process reads.
    pub(super) fn pipe(stream: Stream, pid: u32, reader: OwnedFd) -> Pipe {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let _ = fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        Pipe {
            stream,
            pid,
            reader: reader.into(),
            splitter: Splitter::default(),
            pieces_left: PIECES_AFTER_END,
        }
    }

    /// Whether there is room for another piece. Only the head adds pieces, so the room is still there when the piece
    /// has been read.
    pub(super) fn has_room(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| !pieces.is_full())
    }

    /// The pipes to wait for in addition to those of running processes.
    pub(super) fn ended(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.ended.iter().map(Pipe::as_fd)
    }

    /// Passes on a piece of the pipe's content; `false` at the end of the pipe.
    pub(super) fn forward(&self, pipe: &mut Pipe) -> bool {
        !self.has_room() || self.pass_on_piece(pipe) != Found::End
    }

    /// A process has ended: passes on the content of its pipes, now as far as there is room, and the rest later.
    pub(super) fn process_ended(&mut self, pipes: impl IntoIterator<Item = Pipe>) {
        self.ended.extend(pipes);
        self.forward_ended();
        while self.ended.len() > ENDED_PIPES_MAX {
            let closed = self.ended.pop_front();
            self.lost_bytes += closed.map_or(0, |pipe| pipe.bytes());
        }
    }

    /// Passes on the remaining output of processes that have ended, as far as there is room.
    pub(super) fn forward_ended(&mut self) {
        while let Some(mut pipe) = self.ended.pop_front() {
            while self.has_room() && pipe.pieces_left > 0 {
                pipe.pieces_left -= 1;
                match self.pass_on_piece(&mut pipe) {
                    Found::Piece => {}
                    // A process that has inherited the other end keeps it open.
                    Found::Nothing => pipe.pieces_left = 0,
                    Found::End => break,
                }
            }
            if !self.has_room() {
                return self.ended.push_front(pipe);
            }
            // A line without an end counts.
            self.finish(&mut pipe);
        }
    }

    fn pass_on_piece(&self, pipe: &mut Pipe) -> Found {
        let mut bytes = [0; PIECE_BYTES];
        loop {
            match pipe.reader.read(&mut bytes) {
                Ok(0) => {
                    self.finish(pipe);
                    return Found::End;
                }
                Ok(count) => {
                    let mut lines = Lines::default();
                    pipe.splitter.push(&bytes[..count], &mut lines);
                    self.send(pipe, lines);
                    return Found::Piece;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Found::Nothing,
            }
        }
    }

    fn finish(&self, pipe: &mut Pipe) {
        let mut lines = Lines::default();
        pipe.splitter.finish(&mut lines);
        self.send(pipe, lines);
    }

    fn send(&self, pipe: &Pipe, lines: Lines) {
        let Some(pieces) = self.pieces.as_ref().filter(|_| !lines.is_empty()) else { return };
        let bytes = lines.bytes();
        self.progress.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let piece = Piece { stream: pipe.stream, pid: pipe.pid, at: SystemTime::now(), lines };
        if pieces.try_send(piece).is_err() {
            self.progress.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, as long as the output has a reader. Output that is not written by then is
    /// reported as lost; the thread that writes continues to wait alone.
    pub(super) fn end(&mut self) {
        let (mut writes, mut since) = (0, Instant::now());
        while since.elapsed() < END_PATIENCE {
            self.forward_ended();
            if self.ended.is_empty() {
                self.pieces = None;
            }
            if self.written.recv_timeout(RETRY) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            let writes_now = self.progress.writes.load(Ordering::Relaxed);
            if writes_now != writes {
                (writes, since) = (writes_now, Instant::now());
            }
        }
        self.pieces = None;
        let in_pipes: u64 = self.ended.drain(..).map(|pipe| pipe.bytes()).sum();
        let lost_bytes = self.lost_bytes + in_pipes + self.progress.waiting_bytes.load(Ordering::Relaxed);
        if lost_bytes > 0 {
            let text = format!(
                "{lost_bytes} bytes that workers printed are lost: nobody has read this process's output for \
                 {END_PATIENCE:?} at the end of the session"
            );
            output::say(text);
        }
    }
}

/// The state of a pipe.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Piece,
    Nothing,
    End,
}

impl Pipe {
    /// Bytes in it.
    fn bytes(&self) -> u64 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, to a local.
        let result = unsafe { libc::ioctl(self.reader.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        if result == 0 { bytes as u64 } else { 0 }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
