//! A thread that starts processes, with a table of descriptors of its own.
//!
//! The kernel copies the table of a thread that starts a process, and closes in the copy what the new program must not
//! inherit. The driver of a session with many processes has thousands of descriptors, so each further process would
//! take longer to start than the one before. The table of this thread has only the descriptors that the processes
//! inherit: those that were open when the thread began, and are not closed on exec. In place of the standard ones it
//! has `/dev/null`, because a process of a session gets others.
//!
//! The descriptors for a process that was started (its pidfd, and the ends of its pipes) come into the table of the
//! other threads through a socket. Where the system does not let a thread have a table of its own, processes are
//! started by the thread that wants them.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use mobula_client::internal::descriptors::above_standard;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{FdFlag, OFlag, open};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use nix::sys::stat::Mode;

use crate::process::child::{Child, Started};

/// The numbers of standard input, output and error.
const STANDARD: [RawFd; 3] = [0, 1, 2];

/// Starts processes; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Spawner {
    /// The thread; `None` if the system did not allow one.
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    commands: Sender<Command>,
    answers: Receiver<io::Result<Sent>>,
    /// Where the descriptors arrive.
    socket: OwnedFd,
    handle: JoinHandle<()>,
}

/// A process that was started. Its descriptors are in the socket: its pidfd, and those pipes that it has.
struct Sent {
    pid: u32,
    has_stdout: bool,
    has_stderr: bool,
}

impl Spawner {
    /// Starts the thread. If the system refuses anything, processes are started without one.
    pub(crate) fn new() -> Self {
        let thread = Thread::start().inspect_err(|error| {
            tracing::debug!(%error, "processes are started with this process's own table of descriptors");
        });
        Self { thread: thread.ok() }
    }

    /// Starts a process. It must not inherit standard input or outputs.
    pub(crate) fn start(&self, mut command: Command) -> io::Result<Started> {
        match &self.thread {
            Some(thread) => thread.spawn(command),
            None => Child::start(&mut command),
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        if let Some(Thread { commands, handle, .. }) = self.thread.take() {
            drop(commands);
            let _ = handle.join();
        }
    }
}

impl Thread {
    fn start() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let (socket, its) = (above_standard(socket)?, above_standard(its)?);
        let (commands, received) = bounded::<Command>(1);
        let (answer, answers) = bounded(1);
        let (ready, is_ready) = bounded(1);
        let number = its.as_raw_fd();
        let run = move || {
            let separated = separate(number);
            let failed = separated.is_err();
            let _ = ready.send(separated);
            if failed {
                return;
            }
            for mut command in received {
                let sent = Child::start(&mut command).and_then(|started| send(number, started));
                if answer.send(sent).is_err() {
                    break;
                }
            }
        };
        let handle =
            std::thread::Builder::new().name("mobula-spawner".into()).stack_size(128 << 10).spawn(run)?;
        let separated = is_ready.recv().map_err(|_| io::Error::other("the thread has ended"))?;
        // The thread has its own copy of its end, or has ended.
        drop(its);
        separated?;
        Ok(Self { commands, answers, socket, handle })
    }

    fn spawn(&self, command: Command) -> io::Result<Started> {
        let gone = || io::Error::other("the thread that starts processes has ended");
        self.commands.send(command).map_err(|_| gone())?;
        let Sent { pid, has_stdout, has_stderr } = self.answers.recv().map_err(|_| gone())??;
        let mut descriptors = receive(&self.socket)?.into_iter();
        let mut next = |is_there: bool| is_there.then(|| descriptors.next()).flatten();
        let (pidfd, stdout, stderr) = (next(true), next(has_stdout), next(has_stderr));
        // Without a pidfd the process cannot be watched or killed: it ends with the session, and the head does not know
        // it.
        let pidfd = pidfd.ok_or(Errno::EMFILE)?;
        let child = Child::from_parts(pid, pidfd);
        if stdout.is_some() != has_stdout || stderr.is_some() != has_stderr {
            child.kill();
            return Err(Errno::EMFILE.into());
        }
        Ok((child, stdout, stderr))
    }
}

/// Gives this thread a table of descriptors of its own, with those that processes inherit, and `socket`.
fn separate(socket: RawFd) -> io::Result<()> {
    // SAFETY: a system call on numbers. There is no descriptor in the range, so it closes none. The table is this
    // thread's own from here on.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE)
    })?;
    let mut numbers: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/thread-self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    // The directory is closed by now.
    for number in numbers {
        // SAFETY: asks about a number, which may be closed by now.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if number != socket && flags >= 0 && FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC) {
            // SAFETY: closes a number of this thread's own table, which nothing but this function uses. The descriptors
            // of the other threads are in another table.
            unsafe { libc::close(number) };
        }
    }
    let null = above_standard(open("/dev/null", OFlag::O_RDWR, Mode::empty())?)?;
    for number in STANDARD {
        // SAFETY: as above: the number is of this thread's own table.
        Errno::result(unsafe { libc::dup2(null.as_raw_fd(), number) })?;
    }
    Ok(())
}

/// Sends the descriptors of a process that this thread has started.
fn send(socket: RawFd, (child, stdout, stderr): Started) -> io::Result<Sent> {
    let (pid, pidfd) = child.into_parts();
    let sent = Sent { pid, has_stdout: stdout.is_some(), has_stderr: stderr.is_some() };
    // They stay open here until they are sent.
    let descriptors = [Some(pidfd), stdout, stderr];
    let numbers: Vec<RawFd> = descriptors.iter().flatten().map(OwnedFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let bytes = [IoSlice::new(&[0])];
    sendmsg::<()>(socket, &bytes, &rights, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT, None)?;
    Ok(sent)
}

/// Receives the descriptors of a process: fewer, if this process may have no more.
fn receive(socket: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = cmsg_space!([RawFd; 3]);
    let mut byte = [0; 1];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the call has just made these descriptors, and nobody else knows them.
            let owned = numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) });
            received.extend(owned);
        }
    }
    received.into_iter().map(above_standard).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::unistd::pipe;

    use super::*;
    use crate::error::ExitReason;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    fn run(spawner: &Spawner, script: &str) -> (String, ExitReason) {
        let (child, stdout, stderr) = spawner.start(shell(script)).unwrap();
        assert!(stderr.is_none());
        let mut printed = String::new();
        fs::File::from(stdout.unwrap()).read_to_string(&mut printed).unwrap();
        assert!(child.has_ended_before(Instant::now() + PATIENCE));
        (printed, child.try_wait().unwrap().reason)
    }

    #[test]
    fn a_process_is_a_child_of_this_one_with_its_output_and_its_end() {
        let spawner = Spawner::new();
        assert!(spawner.thread.is_some(), "the system lets no thread have its own table");
        let (printed, end) = run(&spawner, "echo $PPID; exit 7");
        assert_eq!(printed.trim(), std::process::id().to_string());
        assert_eq!(end, ExitReason::Exited { code: 7 });
        let missing = spawner.start(Command::new("/does/not/exist")).map(drop);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        // It goes on after a failure.
        assert_eq!(run(&spawner, "kill -9 $$").1, ExitReason::Killed { signal: libc::SIGKILL });
    }

    #[test]
    fn processes_inherit_what_is_inheritable_at_the_start_and_nothing_else() {
        let (kept, _kept_writer) = pipe().unwrap();
        let (closed, writer) = pipe().unwrap();
        for descriptor in [&closed, &writer] {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let spawner = Spawner::new();
        // Without a pipeline, which would open descriptors of its own, maybe of these numbers.
        let (kept_number, closed_number) = (kept.as_raw_fd(), closed.as_raw_fd());
        let script = format!(
            "for number in {kept_number} {closed_number}; do [ -e /proc/$$/fd/$number ] && echo $number; done"
        );
        assert_eq!(run(&spawner, &script).0.trim(), kept_number.to_string());
        // The thread keeps no copy of a pipe that the program closes.
        drop(writer);
        assert_eq!(nix::unistd::read(&closed, &mut [0; 1]), Ok(0));
    }

    #[test]
    fn the_table_stays_small_beside_many_descriptors() {
        let spawner = Spawner::new();
        let many: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        run(&spawner, "true");
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let of_spawners = tasks.filter(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "mobula-spawner")
        });
        let counts: Vec<_> =
            of_spawners.filter_map(|task| Some(fs::read_dir(task.join("fd")).ok()?.count())).collect();
        assert!(counts.iter().any(|count| *count < many.len()), "{counts:?}");
    }
}
