//! A cache line that two processes pass back and forth, both looking at it all the time: the least that a call and its
//! answer can cost.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

use crate::peer::{self, Failure, Figure, error, median_of};
use crate::side::Side;

const PAGE_BYTES: usize = 4096;
const BATCH: u64 = 10_000;
const ENOUGH: u64 = u64::MAX;
const PATIENCE: Duration = Duration::from_secs(10);

/// A shared page: its first word is written here, and the one a line further by the other process.
struct Page(NonNull<libc::c_void>);

impl Page {
    fn map(memory: impl AsFd) -> Result<Self, Failure> {
        let Some(length) = NonZeroUsize::new(PAGE_BYTES) else { return error("no page") };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        Ok(Self(unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, memory, 0)? }))
    }

    fn word(&self, line: usize) -> &AtomicU64 {
        // SAFETY: inside the page, aligned, and only ever used as an atomic.
        unsafe { self.0.cast::<AtomicU64>().add(line * 8).as_ref() }
    }

    /// Looks at a word until it is another than it was.
    fn next(&self, line: usize, last: u64) -> Result<u64, Failure> {
        let (mut looks, start) = (0_u64, Instant::now());
        loop {
            let now = self.word(line).load(Ordering::Acquire);
            if now != last {
                return Ok(now);
            }
            looks += 1;
            if looks.is_multiple_of(1 << 24) && start.elapsed() > PATIENCE {
                return error("the other process does not answer");
            }
            std::hint::spin_loop();
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; no reference to it outlives this.
        let _ = unsafe { munmap(self.0, PAGE_BYTES) };
    }
}

/// The page, and the other process.
pub(crate) struct Line {
    page: Page,
    other: Side,
    last: u64,
}

impl Line {
    pub(crate) fn new() -> Result<Self, Failure> {
        // Inherited by the other process.
        let memory = memfd_create(c"mobula-compare-line", MFdFlags::empty())?;
        ftruncate(&memory, PAGE_BYTES as i64)?;
        let page = Page::map(&memory)?;
        let other = Side::peer(&["line-echo", &memory.as_raw_fd().to_string()])?;
        Ok(Self { page, other, last: 0 })
    }

    pub(crate) fn measure(&mut self, budget: Duration) -> Figure {
        self.page.word(0).store(self.last, Ordering::Release);
        self.other.send(&format!("echo {}", self.last))?;
        let mut round = || {
            let start = Instant::now();
            for _ in 0..BATCH {
                let answered = self.last;
                self.last += 1;
                self.page.word(0).store(self.last, Ordering::Release);
                if self.page.next(1, answered)? != self.last {
                    return Err(Failure::Wrong("another number comes back".into()));
                }
            }
            Ok(start.elapsed().as_secs_f64() / BATCH as f64)
        };
        round()?;
        let figure = median_of(budget, round);
        self.page.word(0).store(ENOUGH, Ordering::Release);
        self.other.answer()?;
        self.page.word(1).store(self.last, Ordering::Release);
        figure
    }
}

/// The other process: looks at the line while it is asked to.
pub(crate) fn echo(memory: RawFd) -> Result<(), Failure> {
    // SAFETY: its number came from the process that started this one, which left it open for this purpose.
    let memory = unsafe { OwnedFd::from_raw_fd(memory) };
    let page = Page::map(&memory)?;
    peer::serve(|words| {
        let ["echo", last] = *words else { return error("no such work") };
        let mut last = last.parse()?;
        loop {
            let now = page.next(0, last)?;
            if now == ENOUGH {
                return Ok(0.0);
            }
            page.word(1).store(now, Ordering::Release);
            last = now;
        }
    })
}
