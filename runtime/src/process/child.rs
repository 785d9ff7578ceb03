//! A child process of this one, identified by a descriptor and not by its number.
//!
//! The program that a session lives in controls its children: it may ignore SIGCHLD (or have inherited that), ask for
//! no zombies, or wait for every child that ends. Then a child's number is free as soon as the child has ended, and the
//! system may give the number to an unrelated process at once. So everything here uses the child's pidfd, which always
//! refers to this one process: the notice of its end, its exit status, and signals.
//!
//! These guarantees hold:
//! - The descriptor is opened by number once, right after the start, and the process behind it must then be a child of
//!   this one that leads the group made for it. Numbers are given out in order. So another process could be mistaken
//!   for it only if this program's own children had used up all other numbers in that moment.
//! - From Linux 6.15 on, the reason of a child's end is known even if other code has waited for the child. On older
//!   kernels it is then [`ExitReason::Unknown`].
//! - From Linux 6.9 on, processes that a child had forked are ended with it, through the descriptor. On older kernels,
//!   its group is signalled by number, but only until a thread has waited for the child: until then, the number stays
//!   in use. So on these kernels, if other code waits for the child, the processes that it had forked stay.
//! - The most memory that a child used is known only if no other code has waited for it. The kernel lets a new program
//!   begin with the number of the process that started it: see [`own_peak_bytes`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use mobula_client::internal::descriptors::above_standard;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::error::ExitReason;

/// A process that this one has started; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Child {
    pid: u32,
    pidfd: OwnedFd,
}

/// The end of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) reason: ExitReason,
    /// The most memory that it, or a process that it had waited for, had at a time, as the kernel counts it: resident
    /// pages, with those of shared memory. 0: not known.
    pub(crate) peak_bytes: u64,
}

/// The most memory that this process has had at a time so far, in bytes. A child that it starts begins with this number
/// as its own, since it is a copy of this process until it runs its program. So the number of a child says something
/// only if it is larger.
pub(crate) fn own_peak_bytes() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(0, |usage| kilobytes(usage.max_rss()))
}

/// The bytes of a number of the kernel's.
fn kilobytes(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0) << 10
}

/// A child, and the pipes that its command requested.
pub(crate) type Started = (Child, Option<OwnedFd>, Option<OwnedFd>);

impl Child {
    /// Starts a process, in a group of its own. It uses `posix_spawn`, so no memory of this process is copied.
    pub(crate) fn start(command: &mut Command) -> io::Result<Started> {
        let mut started = command.process_group(0).spawn()?;
        let stdout = started.stdout.take().map(|pipe| above_standard(pipe.into())).transpose()?;
        let stderr = started.stderr.take().map(|pipe| above_standard(pipe.into())).transpose()?;
        let pid = started.id();
        // Without a descriptor the process cannot be watched or killed: it ends with the session.
        let gone = || io::Error::other(format!("process {pid} ended before it could be watched"));
        let is_gone = |error: &io::Error| error.raw_os_error() == Some(libc::ESRCH);
        let pidfd = pidfd(pid).map_err(|error| if is_gone(&error) { gone() } else { error })?;
        let child = Self { pid, pidfd };
        let number = Pid::from_raw(pid as i32);
        let is_ours =
            !matches!(child.peek(), Peek::NoChild) && nix::unistd::getpgid(Some(number)) == Ok(number);
        if is_ours || child.has_ended() { Ok((child, stdout, stderr)) } else { Err(gone()) }
    }

    pub(crate) fn from_parts(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd }
    }

    pub(crate) fn into_parts(self) -> (u32, OwnedFd) {
        (self.pid, self.pidfd)
    }

    /// Its process id, for messages.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended_before(Instant::now())
    }

    /// Waits until it has ended. Returns `false` if the deadline came first.
    pub(crate) fn has_ended_before(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(1..) => return true,
                Ok(_) if left.is_zero() => return false,
                Err(error) if error != Errno::EINTR => return false,
                _ => {}
            }
        }
    }

    /// How it ended, if it has. Ends the processes that it had forked.
    pub(crate) fn try_wait(&self) -> Option<End> {
        if !self.has_ended() {
            return None;
        }
        self.end_group();
        match self.waitid(libc::WEXITED | libc::WNOHANG) {
            // A tracer has not released it yet.
            Ok(None) => None,
            Ok(end) => end,
            Err(_) => Some(End { reason: self.reason_kept().unwrap_or(ExitReason::Unknown), peak_bytes: 0 }),
        }
    }

    pub(crate) fn kill(&self) {
        let _ = self.signal(libc::SIGKILL, 0);
    }

    /// Ends the processes that the child, which has ended, had forked.
    fn end_group(&self) {
        match self.signal(libc::SIGKILL, libc::PIDFD_SIGNAL_PROCESS_GROUP) {
            // A kernel that does not know the flag.
            Err(Errno::EINVAL) if matches!(self.peek(), Peek::Ended) => {
                // As long as nobody has waited for the child, no other process has its number.
                let group = Pid::from_raw(self.pid as i32);
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
            _ => {}
        }
    }

    fn signal(&self, signal: libc::c_int, flags: libc::c_uint) -> nix::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a system call on numbers and a descriptor that lives; it reads nothing through the null pointer.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), signal, no_info, flags)
        };
        Errno::result(result).map(drop)
    }

    /// Whether the process is a child of this one, without waiting for it.
    fn peek(&self) -> Peek {
        match self.waitid(libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
            Ok(None) => Peek::Runs,
            Ok(Some(_)) => Peek::Ended,
            Err(_) => Peek::NoChild,
        }
    }

    fn waitid(&self, flags: libc::c_int) -> nix::Result<Option<End>> {
        // SAFETY: plain numbers, of which all zeroes are some.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        let descriptor = self.pidfd.as_raw_fd();
        // The function of the C library has no parameter for the usage.
        // SAFETY: `info` and `usage` outlive the call, which writes to nothing else.
        let result = unsafe {
            libc::syscall(libc::SYS_waitid, libc::P_PIDFD, descriptor, &raw mut info, flags, &raw mut usage)
        };
        Errno::result(result)?;
        // SAFETY: the call has filled it in as SIGCHLD's information, or left the zeroes, which are some too.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        let reason = match info.si_code {
            _ if pid == 0 => return Ok(None),
            libc::CLD_EXITED => ExitReason::Exited { code: status },
            _ => ExitReason::Killed { signal: status },
        };
        Ok(Some(End { reason, peak_bytes: kilobytes(usage.ru_maxrss) }))
    }

    /// How it ended, from the kernel's record in the descriptor. This is for a child for which other code has waited.
    fn reason_kept(&self) -> Option<ExitReason> {
        // SAFETY: plain numbers, of which all zeroes are some.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: the request's number says how large `info` is, which outlives the call.
        let result = unsafe { libc::ioctl(self.pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        let is_known = result == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
        is_known.then(|| match (libc::WIFSIGNALED(info.exit_code), info.exit_code) {
            (true, status) => ExitReason::Killed { signal: libc::WTERMSIG(status) },
            (false, status) => ExitReason::Exited { code: libc::WEXITSTATUS(status) },
        })
    }
}

impl AsFd for Child {
    /// Becomes readable when the child has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

enum Peek {
    Runs,
    /// It has ended, and no code has waited for it.
    Ended,
    NoChild,
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call on plain numbers; it makes a descriptor or fails.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) })?;
    // SAFETY: just made, and nobody else knows it.
    above_standard(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}
