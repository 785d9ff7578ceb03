//! Calls whose ends are planned, for tests that combine options at random.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use mobula::{Error, ObjectRefStream, TaskErrorKind};
use serde::{Deserialize, Serialize};

use crate::{PATIENCE, Random};

/// The end of an attempt that does not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum End {
    /// It returns an error.
    Error,
    /// It panics.
    Panic,
    /// It ends its process.
    Exit,
}

impl End {
    /// One of them.
    pub fn random(random: &mut Random) -> Self {
        [Self::Error, Self::Panic, Self::Exit][random.below(3) as usize]
    }
}

/// The attempts of a call, the first of which may fail. Each leaves a file, so that a test can count them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempts {
    /// The number of the call.
    pub number: u64,
    /// The end of an attempt that fails.
    pub end: End,
    /// The number of attempts that fail.
    pub bad: u64,
}

impl Attempts {
    /// The next attempt begins. Returns whether it fails.
    pub fn begin(&self, directory: &Path) -> bool {
        let is_first = |attempt: &u64| {
            let file = directory.join(format!("{}.{attempt}", self.number));
            match OpenOptions::new().write(true).create_new(true).open(file) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
                made => made.map(|_| true).expect("there is room for a file"),
            }
        };
        (0..).find(is_first).expect("there are numbers enough") < self.bad
    }

    /// The number of attempts that have begun.
    pub fn count(&self, directory: &Path) -> u64 {
        let exists = |attempt: &u64| directory.join(format!("{}.{attempt}", self.number)).exists();
        (0..).take_while(exists).count() as u64
    }

    /// The end of an attempt that fails.
    pub fn fail<T>(&self) -> Result<T, String> {
        match self.end {
            End::Error => Err("as planned".to_owned()),
            End::Panic => panic!("as planned"),
            End::Exit => std::process::exit(3),
        }
    }

    /// Whether an attempt that fails has an error of this kind.
    pub fn fails_with(&self, kind: &TaskErrorKind) -> bool {
        match kind {
            TaskErrorKind::Returned => self.end == End::Error,
            TaskErrorKind::Panicked => self.end == End::Panic,
            _ => false,
        }
    }
}

/// The treatment of a call by its caller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Treatment {
    /// It waits for the result.
    Wait,
    /// It cancels the call.
    Cancel,
    /// It cancels the call by force.
    CancelByForce,
    /// It drops a guard, or the stream.
    DropGuard,
    /// It drops the references.
    Forget,
}

impl Treatment {
    /// One of them, and half of the time the first.
    pub fn random(random: &mut Random) -> Self {
        match random.below(10) {
            0..=4 => Self::Wait,
            5 | 6 => Self::Cancel,
            7 => Self::CancelByForce,
            8 => Self::DropGuard,
            _ => Self::Forget,
        }
    }
}

/// Sleeps for so long, or until the call is cancelled.
pub fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && !mobula::is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads a stream of numbers to its end, which is nothing or an error. Returns how many came.
///
/// # Panics
/// If they do not count up from `first`, or if something follows the end; with `told`.
pub fn read_numbers(stream: &mut ObjectRefStream<u64>, first: u64, told: &str) -> (u64, Option<Error>) {
    let mut taken = 0;
    let error = loop {
        match stream.next().map(|item| item.get_timeout(PATIENCE)) {
            Some(Ok(item)) => assert_eq!(item, first + taken, "{told}"),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
        taken += 1;
    };
    assert!(stream.next().is_none(), "{told}");
    (taken, error)
}
