//! `mobula stack`: the call stacks of the threads of a process.
//!
//! The command stops one thread at a time for some milliseconds by ptrace, reads its registers and its stack from
//! outside, and resumes it. The process runs no code for this, so it works however the process is stuck. For a Python
//! program, `py-spy` shows the frames of the interpreter, if it is installed.

mod modules;
mod threads;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mobula_runtime::control::Target;
use mobula_runtime::state::{NoSuchTarget, Snapshot, TaskPhase};
use mobula_runtime::words::seconds;
use serde::Serialize;

use self::threads::Thread;
use crate::exit::{EXIT_CODES, Exit};
use crate::session::Look;
use crate::table::printable;

/// The longest wait for `py-spy`.
const PY_SPY_PATIENCE: Duration = Duration::from_secs(10);

/// Shows the call stacks of the threads of a process: functions with files and lines, innermost first.
///
/// Each thread stops for some milliseconds. The frames of a Python program come from py-spy, if it is installed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct StackCommand {
    /// A process (4711); an actor's name, or its number (actor:3); a call that runs (4711.12).
    target: String,
    /// Do not run py-spy: show no frames of a Python interpreter.
    #[arg(long)]
    native: bool,
    #[command(flatten)]
    look: Look,
}

/// The stacks of a process.
#[derive(Debug, Serialize)]
pub(crate) struct Stacks {
    pid: u32,
    /// The running function, the call, and the time that it has run.
    function: Option<String>,
    task: Option<String>,
    running_s: Option<f64>,
    threads: Vec<Thread>,
    /// The output of py-spy for a Python program.
    python: Option<String>,
    /// Notes on missing frames, with the reasons.
    notes: Vec<String>,
}

impl StackCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let snapshot = self.look.look()?;
        let pid = pid_of(&snapshot, &self.target)?;
        let stacks = Stacks::of(&snapshot, pid, !self.native)?;
        self.look.show(&stacks, || stacks.to_text())
    }
}

/// The process that a person names, if it belongs to the session and lives.
fn pid_of(snapshot: &Snapshot, target: &str) -> Result<u32, Box<dyn Error>> {
    let unknown = || NoSuchTarget { target: target.to_owned() };
    let Ok(parsed) = target.parse::<Target>();
    let is_here = |pid: &u32| snapshot.store().clients.iter().any(|info| info.pid == *pid && !info.dead);
    match &parsed {
        Target::Process(pid) => Ok(Some(*pid).filter(is_here).ok_or_else(unknown)?),
        Target::Task { .. } => of_task(snapshot, target),
        Target::Actor(name) => {
            let pids = snapshot.actor_pids(name);
            let last = *pids.last().ok_or_else(unknown)?;
            let ended =
                || Exit::over(format!("actor {name} has ended: `mobula postmortem {name}` says more"));
            Ok(Some(last).filter(is_here).ok_or_else(ended)?)
        }
        _ => Err(unknown().into()),
    }
}

/// The process that runs a call.
fn of_task(snapshot: &Snapshot, target: &str) -> Result<u32, Box<dyn Error>> {
    let workers = snapshot.workers();
    if let Some(runs) = workers.iter().find(|worker| worker.task.as_deref() == Some(target)) {
        return Ok(runs.pid);
    }
    let tasks = snapshot.tasks();
    let task = tasks.iter().find(|task| task.task == target);
    Err(match (task.map(|task| task.state), task.and_then(|task| task.worker_pid)) {
        // One of several that run in the process.
        (Some(TaskPhase::Running), Some(pid)) => return Ok(pid),
        (Some(TaskPhase::Pending | TaskPhase::PendingArguments), _) => Exit::impossible(format!(
            "call {target} is pending: no process runs it. `mobula why {target}` says what it waits for"
        )),
        (Some(_), _) => Exit::over(format!("call {target} is over")),
        (None, _) => Exit::over(format!(
            "call {target} does not run: it has not begun, or is over, or never existed. With MOBULA_EVENTS=all, this \
             is known"
        )),
    }
    .into())
}

impl Stacks {
    /// Reads the stacks of a process.
    pub(crate) fn of(snapshot: &Snapshot, pid: u32, python: bool) -> Result<Self, Box<dyn Error>> {
        let worker = snapshot.workers().into_iter().find(|worker| worker.pid == pid);
        let (function, task, running_s) =
            worker.map(|worker| (worker.function, worker.task, worker.running_s)).unwrap_or_default();
        let mut notes = Vec::new();
        let threads = threads::of(pid, &mut notes)?;
        let python = if python { python_frames(pid, &mut notes) } else { None };
        Ok(Self { pid, function, task, running_s, threads, python, notes })
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("process {}", self.pid);
        if let (Some(function), Some(task)) = (&self.function, &self.task) {
            let time = self.running_s.map_or_else(String::new, |time| format!(" for {}", seconds(time)));
            let _ = write!(text, ", which runs {} ({task}){time}", printable(function));
        }
        text.push('\n');
        // Before the frames, which fill the screen.
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        for thread in &self.threads {
            let _ = writeln!(text, "\nthread {} {:?}, {}", thread.tid, thread.name, thread.state);
            for frame in &thread.frames {
                let function = frame.function.as_deref().unwrap_or("?");
                let place = match (&frame.file, frame.line, &frame.module) {
                    (Some(file), Some(line), _) => format!("\n      at {file}:{line}"),
                    (Some(file), None, _) => format!("\n      at {file}"),
                    (None, _, Some(module)) if frame.function.is_none() => format!(" in {module}"),
                    _ => String::new(),
                };
                let address = frame.address.map_or_else(|| " ".repeat(14), |at| format!("{at:#014x}"));
                let _ = writeln!(text, "  {address} {}{}", printable(function), place);
            }
        }
        if let Some(python) = &self.python {
            let _ = write!(text, "\npython (py-spy)\n{python}");
        }
        text
    }
}

/// The output of `py-spy` for a process, if it is a Python program.
fn python_frames(pid: u32, notes: &mut Vec<String>) -> Option<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let is_python = |line: &str| {
        let name =
            Path::new(line.rsplit(' ').next().unwrap_or_default()).file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("libpython") || name.starts_with("python3"))
    };
    if !maps.lines().any(is_python) {
        return None;
    }
    let Some(program) = in_path("py-spy") else {
        notes.push(
            "frames of the Python interpreter are missing: install py-spy (pip install py-spy)".to_owned(),
        );
        return None;
    };
    match output_of(Command::new(program).args(["dump", "--pid", &pid.to_string()])) {
        Ok(text) => Some(text),
        Err(error) => {
            notes.push(format!("frames of the Python interpreter are missing: py-spy: {error}"));
            None
        }
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// The output of a program. The program must end in time.
fn output_of(command: &mut Command) -> Result<String, String> {
    let file = tempfile_in_memory().map_err(|error| error.to_string())?;
    let output = file.try_clone().map_err(|error| error.to_string())?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(|error| error.to_string())?)
        .stderr(output)
        .spawn()
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + PY_SPY_PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it has not ended within {PY_SPY_PATIENCE:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    use std::io::{Read as _, Seek as _};
    let (mut file, mut bytes) = (file, Vec::new());
    let read = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.success() { Ok(text) } else { Err(text.trim().to_owned()) }
}

/// A file without a name. A pipe could become full before it is read.
fn tempfile_in_memory() -> std::io::Result<std::fs::File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(memfd_create("mobula-stack", MFdFlags::MFD_CLOEXEC)?.into())
}
