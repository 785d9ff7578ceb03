//! A process that the supervisor starts, talks to, and ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command as Program, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::message::{Command, Report};
use crate::{Violation, procfs};

/// How long anything may take that must happen. Nothing waits so long unless something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a whole process may take. Longer than clients wait for the store, so that a client that waits in vain says
/// for what, before the supervisor gives it up.
const REPORT_PATIENCE: Duration = Duration::from_secs(180);

/// A child of the supervisor; killed when it is dropped.
pub(crate) struct Process {
    pub(crate) pid: u32,
    child: Child,
    commands: Option<ChildStdin>,
    reports: Receiver<Report>,
    complaints: Receiver<String>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts this program in another role.
    pub(crate) fn start(arguments: &[String]) -> Result<Self, Violation> {
        let mut program = Program::new("/proc/self/exe");
        program.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn()?;
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, reports) = unbounded();
        let (complaint_sender, complaints) = unbounded();
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // A process that is killed may leave half a line.
                let Ok(report) = serde_json::from_str(&line) else { continue };
                let sent = match report {
                    Report::Violation(what) => complaint_sender.send(what).is_ok(),
                    report => sender.send(report).is_ok(),
                };
                if !sent {
                    return;
                }
            }
        })?;
        Ok(Self { pid: child.id(), commands: child.stdin.take(), child, reports, complaints, ended: None })
    }

    /// Sends a command; one that is dead does not get it.
    pub(crate) fn send(&mut self, command: &Command) {
        let mut line = serde_json::to_vec(command).expect("a command can be written");
        line.push(b'\n');
        if let Some(commands) = &mut self.commands {
            let _ = commands.write_all(&line);
        }
    }

    /// The next report; `None` when the process has ended.
    pub(crate) fn report(&mut self) -> Result<Option<Report>, Violation> {
        match self.reports.recv_timeout(REPORT_PATIENCE) {
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                let (pid, threads) = (self.pid, procfs::threads(self.pid));
                Err(Violation(format!(
                    "process {pid} hangs: no answer within {REPORT_PATIENCE:?}; its threads: {threads}"
                )))
            }
        }
    }

    /// The next report, if there is one already.
    pub(crate) fn report_so_far(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// A broken promise that it has found, after which it ends.
    pub(crate) fn complaint(&self) -> Option<Violation> {
        self.complaints.try_recv().ok().map(|what| Violation(format!("process {}: {what}", self.pid)))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid as i32), signal);
    }

    /// The exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Violation> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Violation> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                return Err(Violation(format!("process {} does not end", self.pid)));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Asks it to end by itself, which it does with its commands.
    pub(crate) fn close(&mut self) -> Result<ExitStatus, Violation> {
        self.commands = None;
        self.wait()
    }
}

/// Whether a process was killed on purpose, and has not crashed.
pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
