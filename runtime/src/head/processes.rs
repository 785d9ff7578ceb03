//! The processes of a session: starting them, and noticing their end. [`output`] forwards what they print.
//!
//! Each is a [child](crate::process::child) with a process group of its own, so that what user code forks ends with it,
//! unless it has left the group. And each has a share of the head's attention only: one that prints without end is read
//! a piece at a time.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::output::{self, Output, Pipe};
use crate::error::ExitReason;
use crate::process::child::Child;
use crate::process::launch::Launch;
use crate::process::lifeline::Lifeline;
use crate::process::output::Stream;
use crate::process::role::{Role, WorkerRole};

/// How long processes may take to end by themselves when the session ends.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How the head starts workers.
#[derive(Debug)]
pub(crate) struct WorkerOptions {
    /// The socket of the session's store.
    pub(crate) socket: PathBuf,
    /// The program that workers run.
    pub(crate) launch: Launch,
    pub(crate) forward_output: bool,
    pub(crate) spin: Duration,
    pub(crate) lifeline: Arc<Lifeline>,
}

/// The processes of a session; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Processes {
    options: WorkerOptions,
    head: OwnerId,
    running: HashMap<u64, Process>,
    token_last: u64,
    /// Processes whose stack has overflowed, and that have not ended.
    overflowed: HashSet<u64>,
    output: Output,
}

#[derive(Debug)]
struct Process {
    child: Child,
    pipes: Vec<Pipe>,
}

impl Processes {
    pub(crate) fn new(options: WorkerOptions, head: OwnerId) -> Self {
        let token_last = u64::from(std::process::id()) << 32;
        let (running, overflowed) = (HashMap::new(), HashSet::new());
        Self { options, head, running, token_last, overflowed, output: Output::new() }
    }

    /// Starts a worker. Returns its token and its process id.
    pub(crate) fn start(&mut self) -> std::io::Result<(u64, u32)> {
        self.token_last += 1;
        let token = self.token_last;
        let role = Role::Worker(WorkerRole {
            socket: self.options.socket.clone().into(),
            head: self.head,
            token,
            lifeline: self.options.lifeline.watched(),
            forward_output: self.options.forward_output,
            spin: self.options.spin,
        });
        let output = || if self.options.forward_output { Stdio::piped() } else { Stdio::null() };
        let mut command = self.options.launch.command("mobula-worker", &role);
        command.stdin(Stdio::null()).stdout(output()).stderr(output());
        let (child, stdout, stderr) = Child::start(&mut command)?;
        let pid = child.pid();
        let stdout = stdout.map(|pipe| Output::pipe(Stream::Stdout, pid, pipe));
        let stderr = stderr.map(|pipe| Output::pipe(Stream::Stderr, pid, pipe));
        let pipes = stdout.into_iter().chain(stderr).collect();
        self.running.insert(token, Process { pipes, child });
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
        let can_write = self.output.has_room();
        for process in self.running.values() {
            descriptors.push(PollFd::new(process.child.as_fd(), PollFlags::POLLIN));
            if can_write {
                let pipes = process.pipes.iter();
                descriptors.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            }
        }
        if can_write {
            descriptors.extend(self.output.ended().map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
        }
        let timeout =
            if can_write { timeout } else { Some(timeout.unwrap_or(output::RETRY).min(output::RETRY)) };
        let timeout = timeout
            .map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
        let _ = poll(&mut descriptors, timeout);
    }

    /// Forwards what has been printed.
    pub(crate) fn forward_output(&mut self) {
        self.output.forward_ended();
        for process in self.running.values_mut() {
            process.pipes.retain_mut(|pipe| self.output.forward(pipe));
        }
    }

    /// Processes that have ended since the last call, and how.
    pub(crate) fn ended(&mut self) -> Vec<(u64, u32, ExitReason)> {
        let mut ended: Vec<_> = self
            .running
            .iter()
            .filter_map(|(token, Process { child, .. })| Some((*token, child.pid(), child.try_wait()?)))
            .collect();
        if !ended.is_empty() {
            self.overflowed.extend(self.options.lifeline.last_words());
        }
        for (token, _, reason) in &mut ended {
            if self.overflowed.remove(token)
                && matches!(reason, ExitReason::Killed { .. } | ExitReason::Unknown)
            {
                *reason = ExitReason::StackOverflow;
            }
            // The last output of the process is forwarded before its end is reported.
            if let Some(process) = self.running.remove(token) {
                self.output.process_ended(process.pipes);
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
        self.output.end();
    }
}
