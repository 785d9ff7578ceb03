//! The threads of a process: ptrace stops one after the other, its stack is read, and it resumes.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer};
use framehop::{CacheNative, FrameAddress, MayAllocateDuringUnwind, Unwinder, UnwinderNative};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::Serialize;

use super::modules;

/// The longest wait until a thread stops. A thread that waits for a disk, for example, does not stop before the disk
/// answers.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// The most frames of a thread.
const FRAMES_MAX: usize = 256;
const PAGE: u64 = 4096;

/// A thread with its stack.
#[derive(Debug, Serialize)]
pub(crate) struct Thread {
    pub(super) tid: i32,
    pub(super) name: String,
    /// Its state in the system: `running`, `sleeping`, and so on.
    pub(super) state: &'static str,
    pub(super) frames: Vec<Frame>,
}

/// One function on the stack. One that was inlined into the next has no address.
#[derive(Debug, Serialize)]
pub(crate) struct Frame {
    pub(super) address: Option<u64>,
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) module: Option<String>,
}

type Unwinding = UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>;

/// Reads the stacks of all threads. `notes` gets the reasons for missing ones.
pub(super) fn of(pid: u32, notes: &mut Vec<String>) -> Result<Vec<Thread>, Box<dyn Error>> {
    let unwinder = modules::unwinder(pid)?;
    let mut tids: Vec<i32> = std::fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    tids.sort_unstable();
    let mut threads = Vec::new();
    for tid in tids {
        let task = format!("/proc/{pid}/task/{tid}");
        let name = std::fs::read_to_string(format!("{task}/comm")).unwrap_or_default().trim_end().to_owned();
        let state = state(&task);
        let addresses = match Stopped::new(tid) {
            Ok(Some(stopped)) => stopped.frames(pid, &unwinder),
            Ok(None) => {
                notes.push(format!(
                    "thread {tid} does not stop within {STOP_PATIENCE:?}: it is in the system"
                ));
                Vec::new()
            }
            // The thread has ended meanwhile.
            Err(Errno::ESRCH) => continue,
            Err(Errno::EPERM) => return Err(not_permitted(pid).into()),
            Err(error) => {
                return Err(format!("thread {tid} of process {pid} cannot be traced: {error}").into());
            }
        };
        threads.push((Thread { tid, name, state, frames: Vec::new() }, addresses));
    }
    let symbolizer = Symbolizer::new();
    let mut named_threads = Vec::new();
    for (thread, addresses) in threads {
        let (frames, error) = named(&symbolizer, pid, &addresses);
        if let Some(error) = error {
            notes.push(format!("functions of thread {} have no names: {error}", thread.tid));
        }
        named_threads.push(Thread { frames, ..thread });
    }
    Ok(named_threads)
}

/// The reason why a process cannot be traced, and what to do.
fn not_permitted(pid: u32) -> String {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "" | "0" => {
            format!(
                "process {pid} cannot be traced: another debugger traces it, or it belongs to another user"
            )
        }
        scope => format!(
            "process {pid} cannot be traced: kernel.yama.ptrace_scope is {scope}, so that a process sees only those \
             that it has started. Run this command by sudo, or `sudo sysctl kernel.yama.ptrace_scope=0`"
        ),
    }
}

fn state(task: &str) -> &'static str {
    let stat = std::fs::read_to_string(format!("{task}/stat")).unwrap_or_default();
    // The state follows the name, which may contain any characters.
    let letter = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    match letter {
        Some('R') => "running",
        Some('S') => "sleeping",
        Some('D') => "waits in the system",
        Some('T' | 't') => "stopped",
        Some('Z' | 'X') => "ended",
        _ => "unknown",
    }
}

/// A thread that is stopped while this exists.
struct Stopped {
    tid: Pid,
    /// A signal that arrived at the same time. The thread gets it when it resumes.
    signal: Option<Signal>,
}

impl Stopped {
    /// `None` if it does not stop.
    fn new(tid: i32) -> Result<Option<Self>, Errno> {
        let tid = Pid::from_raw(tid);
        ptrace::seize(tid, ptrace::Options::empty())?;
        ptrace::interrupt(tid)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            match waitpid(tid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() >= deadline => return Ok(None),
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(200)),
                Ok(WaitStatus::Stopped(_, signal)) => return Ok(Some(Self { tid, signal: Some(signal) })),
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return Err(Errno::ESRCH),
                Ok(_) => return Ok(Some(Self { tid, signal: None })),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The addresses of its functions, the innermost first.
    fn frames(&self, pid: u32, unwinder: &Unwinding) -> Vec<FrameAddress> {
        let (Ok(registers), Ok(memory)) = (ptrace::getregs(self.tid), File::open(format!("/proc/{pid}/mem")))
        else {
            return Vec::new();
        };
        #[cfg(target_arch = "x86_64")]
        let (pc, registers) =
            (registers.rip, framehop::UnwindRegsNative::new(registers.rip, registers.rsp, registers.rbp));
        #[cfg(target_arch = "aarch64")]
        let (pc, registers) = (
            registers.pc,
            framehop::UnwindRegsNative::new(registers.regs[30], registers.sp, registers.regs[29]),
        );
        let mut pages: HashMap<u64, Option<Box<[u8; PAGE as usize]>>> = HashMap::new();
        let mut read = |address: u64| {
            let mut word = [0; 8];
            for (byte, at) in word.iter_mut().zip(address..) {
                let page = pages.entry(at / PAGE).or_insert_with(|| {
                    let mut page = Box::new([0; PAGE as usize]);
                    memory.read_exact_at(&mut *page, at / PAGE * PAGE).ok().map(|()| page)
                });
                *byte = page.as_ref().ok_or(())?[(at % PAGE) as usize];
            }
            Ok(u64::from_le_bytes(word))
        };
        let mut cache = CacheNative::<MayAllocateDuringUnwind>::new();
        let mut frames = unwinder.iter_frames(pc, registers, &mut cache, &mut read);
        let mut found = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            found.push(frame);
            if found.len() == FRAMES_MAX {
                break;
            }
        }
        found
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.tid, self.signal);
    }
}

/// The functions at some addresses, and why they have no names.
fn named(symbolizer: &Symbolizer, pid: u32, addresses: &[FrameAddress]) -> (Vec<Frame>, Option<String>) {
    // For a caller, the address of the call, and not the one after it.
    let lookups: Vec<u64> = addresses.iter().map(|address| address.address_for_lookup()).collect();
    let (mut symbols, mut error) = (Vec::new(), None);
    // Files that were removed meanwhile can only be read by a right that users do not have. If lines cannot be read,
    // the names remain.
    for (map_files, vdso, debug_syms) in
        [(true, true, true), (false, true, true), (false, false, true), (false, false, false)]
    {
        let mut process = Process::new(pid.into());
        (process.map_files, process.vdso, process.debug_syms) = (map_files, vdso, debug_syms);
        process.perf_map = false;
        match symbolizer.symbolize(&Source::Process(process), Input::AbsAddr(&lookups)) {
            Ok(found) => {
                symbols = found;
                error = None;
                break;
            }
            Err(failed) => error = Some(failed.to_string()),
        }
    }
    let mut frames = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let address = Some(address.address());
        match symbols.get(at) {
            Some(Symbolized::Sym(symbol)) => {
                let module = symbol.module.as_ref().map(|module| module.to_string_lossy().into_owned());
                // The innermost of the inlined functions is where the thread is.
                let mut nested: Vec<(String, Option<&CodeInfo<'_>>)> =
                    vec![(symbol.name.to_string(), symbol.code_info.as_deref())];
                nested.extend(
                    symbol
                        .inlined
                        .iter()
                        .map(|inlined| (inlined.name.to_string(), inlined.code_info.as_ref())),
                );
                for (depth, (function, code)) in nested.into_iter().enumerate().rev() {
                    frames.push(Frame {
                        address: if depth == 0 { address } else { None },
                        function: Some(function),
                        file: code.map(|code| code.to_path().display().to_string()),
                        line: code.and_then(|code| code.line),
                        module: module.clone(),
                    });
                }
            }
            _ => frames.push(Frame { address, function: None, file: None, line: None, module: None }),
        }
    }
    (frames, error)
}
