//! The processes of a session: starting them, hearing of their end, and passing on what they print.
//!
//! Each is a [child](crate::child) with a process group of its own, so that what user code forks ends with it, unless it
//! has left the group. And each has a share of the head's attention only: one that prints without end is read a piece at a time, and is not
//! read while what was printed before cannot be written.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use mobula_client::OwnerId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::HeadOptions;
use crate::child::Child;
use crate::error::ExitReason;
use crate::logs::Prefixer;
use crate::takeover::{ROLE, Role, WorkerRole};

/// How long processes may take to end by themselves when the session ends.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Pieces of output that wait to be written; beyond that, workers wait.
const OUTPUT_QUEUE: usize = 16;
/// What is read of a pipe at a time. A pipe itself holds four times as much.
const PIECE_BYTES: usize = 16 << 10;
const PIECES_IN_PIPE: usize = 4;
/// How soon to look again whether output can be written.
const OUTPUT_RETRY: Duration = Duration::from_millis(10);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Processes {
    options: HeadOptions,
    head: OwnerId,
    running: HashMap<u64, Process>,
    token_last: u64,
    /// To the thread that writes, which may have to wait for whoever reads.
    output: Option<Sender<(Stream, Vec<u8>)>>,
    /// Disconnected when that thread has ended.
    written: Receiver<()>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    pipes: Vec<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    reader: std::fs::File,
    prefixer: Prefixer,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

impl Processes {
    pub(crate) fn new(options: HeadOptions, head: OwnerId) -> Self {
        let (output, pieces) = bounded::<(Stream, Vec<u8>)>(OUTPUT_QUEUE);
        let (ends, written) = bounded(0);
        let write = move || {
            let _ends: Sender<()> = ends;
            for (stream, bytes) in pieces {
                // A closed output is the driver's business.
                let _ = match stream {
                    Stream::Stdout => std::io::stdout().lock().write_all(&bytes),
                    Stream::Stderr => std::io::stderr().lock().write_all(&bytes),
                };
            }
            let _ = std::io::stdout().flush();
        };
        // Without it, whatever is to be written finds nobody to take it.
        let _ = std::thread::Builder::new().name("mobula-output".into()).stack_size(256 << 10).spawn(write);
        let token_last = u64::from(std::process::id()) << 32;
        Self { options, head, running: HashMap::new(), token_last, output: Some(output), written }
    }

    /// Starts a worker; its token and its process id.
    pub(crate) fn start(&mut self) -> std::io::Result<(u64, u32)> {
        self.token_last += 1;
        let token = self.token_last;
        let role = Role::Worker(WorkerRole {
            socket: self.options.socket.clone(),
            head: self.head,
            token,
            lifeline: self.options.lifeline.watched(),
            forward_output: self.options.forward_output,
            spin: self.options.spin,
        });
        let output = || if self.options.forward_output { Stdio::piped() } else { Stdio::null() };
        let mut command = Command::new(&self.options.program);
        command
            .arg0("mobula-worker")
            .env(ROLE, role.to_variable())
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output());
        let (child, stdout, stderr) = Child::start(&mut command)?;
        let pid = child.pid();
        let stdout = stdout.map(|pipe| (Stream::Stdout, OwnedFd::from(pipe)));
        let stderr = stderr.map(|pipe| (Stream::Stderr, OwnedFd::from(pipe)));
        let pipes = stdout.into_iter().chain(stderr).map(|(stream, descriptor)| {
            use nix::fcntl::{FcntlArg, OFlag, fcntl};
            let _ = fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
            Pipe { stream, reader: descriptor.into(), prefixer: Prefixer::default() }
        });
        self.running.insert(token, Process { pipes: pipes.collect(), child });
        Ok((token, pid))
    }

    /// Kills a process; its end is reported by [`ended`](Self::ended).
    pub(crate) fn kill(&mut self, token: u64) {
        if let Some(process) = self.running.get(&token) {
            process.child.kill();
        }
    }

    /// Blocks until the bell rings, a process prints or ends, or the timeout has passed.
    pub(crate) fn wait(&self, bell: BorrowedFd<'_>, timeout: Option<Duration>) {
        let mut descriptors = vec![PollFd::new(bell, PollFlags::POLLIN)];
        let can_write = self.output.as_ref().is_some_and(|output| !output.is_full());
        for process in self.running.values() {
            descriptors.push(PollFd::new(process.child.as_fd(), PollFlags::POLLIN));
            if can_write {
                let pipes = process.pipes.iter();
                descriptors.extend(pipes.map(|pipe| PollFd::new(pipe.reader.as_fd(), PollFlags::POLLIN)));
            }
        }
        let timeout =
            if can_write { timeout } else { Some(timeout.unwrap_or(OUTPUT_RETRY).min(OUTPUT_RETRY)) };
        let timeout = timeout
            .map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
        let _ = poll(&mut descriptors, timeout);
    }

    /// Passes on what has been printed.
    pub(crate) fn forward_output(&mut self) {
        let Some(output) = &self.output else { return };
        for process in self.running.values_mut() {
            let pid = process.child.pid();
            process.pipes.retain_mut(|pipe| pipe.forward(1, pid, output));
        }
    }

    /// Processes that have ended since the last call, and how.
    pub(crate) fn ended(&mut self) -> Vec<(u64, u32, ExitReason)> {
        let ended: Vec<_> = self
            .running
            .iter()
            .filter_map(|(token, Process { child, .. })| Some((*token, child.pid(), child.try_wait()?)))
            .collect();
        for (token, pid, _) in &ended {
            // What it printed last comes before the news of its end.
            if let (Some(mut process), Some(output)) = (self.running.remove(token), &self.output) {
                for pipe in &mut process.pipes {
                    pipe.forward(PIECES_IN_PIPE, *pid, output);
                    pipe.finish(*pid, output);
                }
            }
        }
        ended
    }

    /// Sees all processes off: they have been told by the lifeline; those that do not listen are killed.
    pub(crate) fn end_all(&mut self) {
        let deadline = Instant::now() + END_PATIENCE;
        while !self.running.is_empty() && Instant::now() < deadline {
            let children = self.running.values().map(|process| process.child.as_fd());
            let mut descriptors: Vec<_> =
                children.map(|child| PollFd::new(child, PollFlags::POLLIN)).collect();
            let _ = poll(&mut descriptors, PollTimeout::from(20u8));
            self.forward_output();
            self.ended();
        }
        for Process { child, .. } in self.running.values() {
            child.kill();
            child.has_ended_before(Instant::now() + END_PATIENCE);
        }
        self.ended();
        // Nobody may read what is written; then the thread that writes goes on waiting, alone.
        drop(self.output.take());
        let _ = self.written.recv_timeout(END_PATIENCE);
    }
}

impl Pipe {
    /// Passes on what is there, as many `pieces` at most; `false` at the end of the pipe.
    fn forward(&mut self, pieces: usize, pid: u32, output: &Sender<(Stream, Vec<u8>)>) -> bool {
        let mut bytes = [0; PIECE_BYTES];
        for _ in 0..pieces {
            if output.is_full() {
                break;
            }
            match self.reader.read(&mut bytes) {
                Ok(0) => {
                    self.finish(pid, output);
                    return false;
                }
                Ok(count) => {
                    let mut lines = Vec::new();
                    self.prefixer.push(&bytes[..count], pid, &mut lines);
                    self.send(lines, output);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        true
    }

    fn finish(&mut self, pid: u32, output: &Sender<(Stream, Vec<u8>)>) {
        let mut lines = Vec::new();
        self.prefixer.finish(pid, &mut lines);
        self.send(lines, output);
    }

    /// What is read while there is room finds it. Only the last words of a process may find none, and are lost then:
    /// whoever does not read them must not hold up the head.
    fn send(&self, lines: Vec<u8>, output: &Sender<(Stream, Vec<u8>)>) {
        if !lines.is_empty() {
            let _ = output.try_send((self.stream, lines));
        }
    }
}
