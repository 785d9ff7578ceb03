//! What the tests share: one session at a time in a process, waiting for conditions, and stores of their own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a condition may take to come true before a test fails. Generous: it only ends tests that have failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A session that no other test of this process runs beside.
pub struct TestSession {
    /// Dropped first: the lock is free when everything of the session is gone.
    pub session: mobula::Session,
    _turn: MutexGuard<'static, ()>,
}

/// Starts a session with `workers` workers and a small store, in a directory of its own.
pub fn session(workers: usize) -> TestSession {
    session_with(mobula::Builder::new().workers(workers).capacity_bytes(256 << 20))
}

/// Starts a session as the builder says.
pub fn session_with(builder: mobula::Builder) -> TestSession {
    let turn = turn();
    TestSession { session: builder.init().expect("a session starts"), _turn: turn }
}

/// Waits until no other test of this process has a session.
pub fn turn() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process exists and is not just waiting to be reaped.
pub fn is_running(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// A pseudo-random sequence (xorshift) that a printed seed replays.
pub struct Random(u64);

impl Random {
    /// The sequence of the seed in `MOBULA_SEED`, or of the time; printed, so that a failure can be replayed.
    pub fn from_environment() -> Self {
        let seed = std::env::var("MOBULA_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |now| now.as_nanos() as u64)
        };
        let seed = seed.unwrap_or_else(now).max(1);
        println!("MOBULA_SEED={seed}");
        Self(seed)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}
