//! Two processes that sleep in the kernel and wake each other by an eventfd: the least that a call and its answer can
//! cost when the callee is asleep and the caller sleeps too.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::peer::{Failure, Figure, check, median_of};
use crate::side::Side;

const ONE: [u8; 8] = 1_u64.to_ne_bytes();

/// Both bells, and the other process.
pub(crate) struct Wake {
    there: File,
    back: File,
    _other: Side,
}

impl Wake {
    pub(crate) fn new() -> Result<Self, Failure> {
        let bell = || EventFd::from_flags(EfdFlags::empty()).map(|bell| File::from(OwnedFd::from(bell)));
        let (there, back) = (bell()?, bell()?);
        let name = |bell: &File| bell.as_raw_fd().to_string();
        let other = Side::peer(&["eventfd-echo", &name(&there), &name(&back)])?;
        Ok(Self { there, back, _other: other })
    }

    /// Round trips with a pause before each, in which the other process falls asleep.
    pub(crate) fn measure(&mut self, pause: Duration, budget: Duration) -> Figure {
        median_of(budget, || {
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
            let start = Instant::now();
            self.there.write_all(&ONE)?;
            let mut rung = [0; 8];
            self.back.read_exact(&mut rung)?;
            let taken = start.elapsed().as_secs_f64();
            check(rung == ONE, "rung once")?;
            Ok(taken)
        })
    }
}

/// The other process; it is ended by the one that started it, by a bell that nobody else has.
pub(crate) fn echo(there: RawFd, back: RawFd) -> Result<(), Failure> {
    // SAFETY: their numbers came from the process that started this one, which left them open for this purpose.
    let (mut there, mut back) = unsafe { (File::from_raw_fd(there), File::from_raw_fd(back)) };
    // Both ends are inherited, so that no end of file tells when the other process has gone; the end of input does.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let mut rung = [0; 8];
    loop {
        there.read_exact(&mut rung)?;
        back.write_all(&rung)?;
    }
}
