//! The processes of a session: starting them, and noticing their end. [`output`] forwards what they print.
//!
//! Each is a [child](crate::process::child) with a process group of its own, so that children that user code forks end
//! with it, unless they have left the group. The head reads the output of each a piece at a time, so a process that
//! prints without end does not delay the others.
//!
//! The head looks only at processes that have ended or printed: two [sets](Watches) of descriptors say which.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollTimeout;

use super::output::{self, Destinations, Output, Pipe};
use super::watches::Watches;
use crate::environment::{Environment, VISIBLE_GPUS};
use crate::error::ExitReason;
use crate::launch::Launch;
use crate::logs::LogFiles;
use crate::process::child::{Child, End, own_peak_bytes};
use crate::process::lifeline::Lifeline;
use crate::process::output::{OutputSink, Stream};
use crate::process::role::{Role, WorkerRole};
use crate::process::spawner::Spawner;
use crate::resources::Resources;

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
    /// The function that gets the output of workers; `None`: it goes to this process's own output.
    pub(crate) output: Option<OutputSink>,
    /// The directory in which log files are kept; `None`: they are removed with the session.
    pub(crate) log_dir: Option<PathBuf>,
    /// The most bytes of log files; 0: there are none.
    pub(crate) log_bytes_max: u64,
    pub(crate) spin: Duration,
    /// The resources of the session.
    pub(crate) resources: Resources,
    /// The names of the session's GPUs, as `CUDA_VISIBLE_DEVICES` has them.
    pub(crate) gpus: Vec<String>,
    /// The namespace of actors whose options name none.
    pub(crate) namespace: String,
    pub(crate) lifeline: Arc<Lifeline>,
}

/// The processes of a session; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Processes {
    options: WorkerOptions,
    head: OwnerId,
    spawner: Spawner,
    running: HashMap<u64, Process>,
    /// The processes, by their tokens.
    ends: Watches,
    /// The pipes of the processes, by [`pipe_key`].
    pipes: Watches,
    token_last: u64,
    /// Processes whose stack has overflowed, and that have not ended.
    overflowed: HashSet<u64>,
    /// Processes that are killed on request, and that have not ended.
    requested: HashSet<u64>,
    /// Whether workers print into pipes.
    reads_output: bool,
    output: Output,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Standard output and standard error. `None` if they are not read, or are closed.
    pipes: [Option<Pipe>; 2],
    /// The [peak](own_peak_bytes) with which it began.
    first_peak_bytes: u64,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) token: u64,
    pub(crate) pid: u32,
    pub(crate) reason: ExitReason,
    pub(crate) peak: PeakMemory,
    /// It was killed because a person or a program of the session requested it.
    pub(crate) is_on_request: bool,
}

/// The most memory that a process had at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeakMemory {
    /// As the kernel says; 0: not known.
    pub(crate) bytes: u64,
    /// The number with which it began. If [`bytes`](Self::bytes) is not larger, it says only that there were no more.
    pub(crate) first_bytes: u64,
}

/// The log files of the session.
fn log_files(options: &WorkerOptions) -> std::io::Result<Option<LogFiles>> {
    let Some(session) = options.socket.parent().filter(|_| options.log_bytes_max > 0) else {
        return Ok(None);
    };
    let kept = options.log_dir.as_deref();
    let files = LogFiles::new(session, kept, options.log_bytes_max).map_err(|error| {
        let directory = kept.unwrap_or(session).display();
        std::io::Error::new(
            error.kind(),
            format!("no directory for log files can be made in {directory}: {error}"),
        )
    })?;
    Ok(Some(files))
}

/// The key of a pipe of the process with a token. A token is a process id and 32 bits.
fn pipe_key(token: u64, stream: usize) -> u64 {
    token << 1 | stream as u64
}

/// The token and the stream of a [key](pipe_key).
fn pipe_of(key: u64) -> (u64, usize) {
    (key >> 1, (key & 1) as usize)
}

impl Processes {
    pub(crate) fn new(options: WorkerOptions, head: OwnerId) -> std::io::Result<Self> {
        let token_last = u64::from(std::process::id()) << 32;
        let (ends, pipes) = (Watches::new()?, Watches::new()?);
        let logs = log_files(&options)?;
        let reads_output = options.forward_output || logs.is_some();
        let (sink, socket) = (options.output.clone(), options.socket.clone());
        let destinations = Destinations::new(logs, options.forward_output, sink, socket);
        let (running, output) = (HashMap::new(), Output::new(destinations));
        let (overflowed, requested) = (HashSet::new(), HashSet::new());
        let spawner = Spawner::new();
        Ok(Self {
            options,
            head,
            spawner,
            running,
            ends,
            pipes,
            token_last,
            overflowed,
            requested,
            reads_output,
            output,
        })
    }

    /// Starts a worker in an environment, with the GPUs of these numbers. Returns its token and its process id.
    pub(crate) fn start(&mut self, environment: &Environment, gpus: &[usize]) -> std::io::Result<(u64, u32)> {
        self.token_last += 1;
        let token = self.token_last;
        let gpus: Vec<String> = gpus.iter().filter_map(|gpu| self.options.gpus.get(*gpu)).cloned().collect();
        // Where the session gives GPUs out, a process that was given none sees none.
        let is_set = gpus.is_empty() && environment.sets(VISIBLE_GPUS);
        let sees = if self.options.gpus.is_empty() || is_set { None } else { Some(gpus.join(",")) };
        let role = Role::Worker(WorkerRole {
            socket: self.options.socket.clone().into(),
            head: self.head,
            token,
            lifeline: self.options.lifeline.watched(),
            labels_output: self.reads_output,
            spin: self.options.spin,
            resources: self.options.resources.clone(),
            environment: environment.told(),
            namespace: self.options.namespace.clone(),
            gpus,
        });
        let output = || if self.reads_output { Stdio::piped() } else { Stdio::null() };
        let launch = environment.program().unwrap_or(&self.options.launch);
        let mut command = launch.command("mobula-worker", &role.to_argument());
        environment.apply(&mut command);
        if let Some(gpus) = sees {
            command.env(VISIBLE_GPUS, gpus);
        }
        command.stdin(Stdio::null()).stdout(output()).stderr(output());
        let (child, stdout, stderr) = self.spawner.start(command)?;
        let pid = child.pid();
        let stdout = stdout.map(|pipe| Output::pipe(Stream::Stdout, pid, pipe));
        let stderr = stderr.map(|pipe| Output::pipe(Stream::Stderr, pid, pipe));
        let process = Process { pipes: [stdout, stderr], child, first_peak_bytes: own_peak_bytes() };
        if let Err(error) = self.watch(token, &process) {
            // Nothing would tell of its end.
            process.child.kill();
            self.ignore(&process);
            return Err(error);
        }
        self.running.insert(token, process);
        Ok((token, pid))
    }

    fn watch(&self, token: u64, process: &Process) -> std::io::Result<()> {
        self.ends.add(process.child.as_fd(), token)?;
        for (stream, pipe) in process.pipes.iter().enumerate() {
            if let Some(pipe) = pipe {
                self.pipes.add(pipe.as_fd(), pipe_key(token, stream))?;
            }
        }
        Ok(())
    }

    fn ignore(&self, process: &Process) {
        self.ends.remove(process.child.as_fd());
        process.pipes.iter().flatten().for_each(|pipe| self.pipes.remove(pipe.as_fd()));
    }

    /// Kills a process; its end is reported by [`ended`](Self::ended).
    pub(crate) fn kill(&mut self, token: u64) {
        if let Some(process) = self.running.get(&token) {
            process.child.kill();
        }
    }

    /// Kills a process because a person or a program of the session requests it.
    pub(crate) fn kill_on_request(&mut self, token: u64) {
        self.note_request(token);
        self.kill(token);
    }

    /// The next end of this process by SIGKILL is one that somebody requested.
    pub(crate) fn note_request(&mut self, token: u64) {
        self.requested.insert(token);
    }

    /// Blocks until the bell rings, a process prints or ends, the other descriptor is ready, or the timeout has passed.
    pub(crate) fn wait(
        &self,
        bell: BorrowedFd<'_>,
        other: Option<(BorrowedFd<'_>, PollFlags)>,
        timeout: Option<Duration>,
    ) {
        let mut descriptors =
            vec![PollFd::new(bell, PollFlags::POLLIN), PollFd::new(self.ends.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(other.map(|(descriptor, events)| PollFd::new(descriptor, events)));
        let can_write = self.output.has_room();
        if can_write {
            descriptors.push(PollFd::new(self.pipes.as_fd(), PollFlags::POLLIN));
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
        if !self.output.has_room() {
            return;
        }
        for key in self.pipes.ready(EpollTimeout::ZERO) {
            let (token, stream) = pipe_of(key);
            let Some(process) = self.running.get_mut(&token) else { continue };
            let Some(pipe) = process.pipes.get_mut(stream) else { continue };
            let is_open = pipe.as_mut().is_none_or(|pipe| self.output.forward(pipe));
            if !is_open && let Some(closed) = pipe.take() {
                self.pipes.remove(closed.as_fd());
            }
        }
    }

    /// Processes that have ended since the last call, and how.
    pub(crate) fn ended(&mut self) -> Vec<Ended> {
        let ready = self.ends.ready(EpollTimeout::ZERO);
        let mut ended: Vec<_> = ready
            .into_iter()
            .filter_map(|token| {
                let Process { child, first_peak_bytes: first_bytes, .. } = self.running.get(&token)?;
                let End { reason, peak_bytes: bytes } = child.try_wait()?;
                let peak = PeakMemory { bytes, first_bytes: *first_bytes };
                Some(Ended { token, pid: child.pid(), reason, peak, is_on_request: false })
            })
            .collect();
        if !ended.is_empty() {
            self.overflowed.extend(self.options.lifeline.last_words());
        }
        for Ended { token, reason, is_on_request, .. } in &mut ended {
            *is_on_request = self.requested.remove(token)
                && matches!(reason, ExitReason::Killed { signal: libc::SIGKILL } | ExitReason::Unknown);
            if self.overflowed.remove(token)
                && matches!(reason, ExitReason::Killed { .. } | ExitReason::Unknown)
            {
                *reason = ExitReason::StackOverflow;
            }
            // The last output of the process is forwarded before its end is reported.
            if let Some(process) = self.running.remove(token) {
                self.ignore(&process);
                self.output.process_ended(process.pipes.into_iter().flatten());
            }
        }
        ended
    }

    /// Waits for the end of all processes. The lifeline has told them to end. Those that do not are killed.
    pub(crate) fn end_all(&mut self) {
        let deadline = Instant::now() + END_PATIENCE;
        while !self.running.is_empty() && Instant::now() < deadline {
            let _ = self.ends.ready(EpollTimeout::from(20u8));
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
