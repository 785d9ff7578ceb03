//! The memory monitor: ends a process of the session before the machine, or a control group, has no memory left.
//!
//! Otherwise the kernel's OOM killer chooses, and may choose the driver, or the store with everything in it.
//!
//! ```text
//! Calm ──► Asking ──► Ending ──► Calm
//!             │
//!             └─► Calm: by now there is memory again
//! ```
//!
//! The monitor reads the [figures] at an interval. When memory is short, it asks the callers which calls run and
//! whether they may be retried, since the head knows no calls. When they have answered, or have taken too long, it
//! reads the figures anew, and lets the [policy] choose. While the chosen process ends, no other one is chosen. While
//! there is enough memory, the monitor adds no cost to calls.

mod figures;
mod policy;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;

use self::figures::Sources;
pub(super) use self::figures::{Figures, own_bytes};
pub(super) use self::policy::Candidate;
use self::policy::{Choice, choose};
use crate::error::{Bytes, ExitReason};
use crate::process::output;
use crate::wire::RunningCall;

/// How long callers may take to say which calls run. A process none of whose threads waits looks at its mail several
/// times a second.
const ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// A process is not ended if it uses less than the limit divided by this number: that would not help.
const USELESS_PART: u64 = 1000;
/// A process is not ended if it uses less than this, because the process that takes its place uses about as much.
const USELESS_BYTES: u64 = 4 << 20;
/// How often the monitor says that there is nothing that it could end.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// When a process is ended, the message names this many of the processes that use most memory.
const LARGEST_SHOWN: usize = 5;

/// The options of the monitor.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct MemoryOptions {
    /// The share of the limit that may be in use.
    pub(crate) threshold: f64,
    /// The time between looks. With zero there is no monitor.
    pub(crate) interval: Duration,
    /// How often a call may be retried because its process was ended.
    pub(crate) retries: u32,
    /// The directory of the system's files: `/`, except in tests.
    pub(crate) root: PathBuf,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Monitor {
    options: MemoryOptions,
    sources: Sources,
    looked: Instant,
    stage: Stage,
    complained: Option<Instant>,
}

#[derive(Debug)]
enum Stage {
    Calm,
    Asking {
        since: Instant,
        /// The workers about which no caller has answered yet.
        open: HashSet<OwnerId>,
        /// The calls that run in the other workers; `None`: no call runs.
        calls: HashMap<OwnerId, Option<RunningCall>>,
    },
    Ending {
        token: u64,
        end: End,
    },
}

/// A process that uses memory.
#[derive(Debug)]
pub(super) struct User {
    pub(super) candidate: Candidate<OwnerId>,
    pub(super) pid: u32,
    /// No call runs in it, nor can any begin before it is ended.
    pub(super) is_idle: bool,
    /// The function or class.
    pub(super) name: String,
    /// Bytes without shared memory.
    pub(super) own_bytes: Option<u64>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)?;
        match self.own_bytes {
            Some(bytes) => write!(f, " with {}", Bytes(bytes)),
            None => Ok(()),
        }
    }
}

/// How a process was ended, for its callers.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) reason: ExitReason,
    /// How often calls that had begun in it may be retried for this reason.
    pub(super) retries: u32,
}

/// The next thing to do.
#[derive(Debug)]
pub(super) enum Step {
    /// Ask the callers which calls run.
    Ask,
    /// End a process. The map has the calls that run, as far as callers have answered.
    End(Figures, HashMap<OwnerId, Option<RunningCall>>),
}

impl Monitor {
    /// `None` if there is nothing to do: the interval is zero, or the system does not say how much memory is in use.
    pub(super) fn new(options: MemoryOptions) -> Option<Self> {
        if options.interval.is_zero() {
            return None;
        }
        let sources = Sources::open(&options.root);
        if sources.is_empty() {
            tracing::warn!(root = %options.root.display(), "the system does not say how much memory is in use");
            return None;
        }
        Some(Self { options, sources, looked: Instant::now(), stage: Stage::Calm, complained: None })
    }

    /// The time until the next step; `None`: until a process has ended.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let (since, patience) = match &self.stage {
            Stage::Calm => (self.looked, self.options.interval),
            Stage::Asking { open, .. } if open.is_empty() => return Some(Duration::ZERO),
            Stage::Asking { since, .. } => (*since, ANSWER_PATIENCE),
            Stage::Ending { .. } => return None,
        };
        Some(patience.saturating_sub(now.saturating_duration_since(since)))
    }

    /// Looks, if it is time.
    pub(super) fn step(&mut self, now: Instant) -> Option<Step> {
        if self.timeout(now) != Some(Duration::ZERO) {
            return None;
        }
        self.looked = now;
        let figures = self.sources.look(self.options.threshold, now);
        let short = figures.filter(|figures| figures.is_short(self.options.threshold));
        match (std::mem::replace(&mut self.stage, Stage::Calm), short) {
            (_, None) => None,
            (Stage::Asking { calls, .. }, Some(figures)) => Some(Step::End(figures, calls)),
            (_, Some(_)) => Some(Step::Ask),
        }
    }

    /// The callers of these workers have been asked.
    pub(super) fn asked(&mut self, workers: HashSet<OwnerId>, now: Instant) {
        self.stage = Stage::Asking { since: now, open: workers, calls: HashMap::new() };
    }

    /// A caller says which of its calls runs in a worker.
    pub(super) fn answered(&mut self, worker: OwnerId, call: Option<RunningCall>) {
        if let Stage::Asking { open, calls, .. } = &mut self.stage
            && open.remove(&worker)
        {
            calls.insert(worker, call);
        }
    }

    /// Returns the process that must be killed now, if there is one. Logs the choice and its reason.
    pub(super) fn choose(&mut self, figures: &Figures, mut users: Vec<User>, now: Instant) -> Option<u64> {
        users.sort_by_key(|user| Reverse(user.own_bytes));
        let useful_bytes = USELESS_BYTES.max(figures.limit_bytes / USELESS_PART);
        let is_useful = |user: &&User| user.own_bytes.is_none_or(|bytes| bytes >= useful_bytes);
        let (idle, busy): (Vec<_>, Vec<_>) = users.iter().filter(is_useful).partition(|user| user.is_idle);
        let candidates: Vec<_> = busy.iter().map(|user| user.candidate).collect();
        // The end of an idle one costs no call anything.
        let largest_idle = idle.first().map(|user| Choice { token: user.candidate.token, is_retried: false });
        let Some(Choice { token, is_retried }) = largest_idle.or_else(|| choose(&candidates)) else {
            if self.may_complain(now) {
                output::say(format_args!(
                    "memory is short, and no worker or actor uses much: {figures}; let other programs use less, keep \
                     fewer objects, or give more memory"
                ));
            }
            return None;
        };
        let user = users.iter().find(|user| user.candidate.token == token)?;
        let largest: Vec<_> = users.iter().take(LARGEST_SHOWN).map(User::to_string).collect();
        tracing::warn!(pid = user.pid, is_retried, %figures, "a process is ended because memory is short");
        output::say(format_args!(
            "memory is short: {figures}; ended {user}; the largest workers and actors: {}",
            largest.join(", ")
        ));
        self.killed(token, figures, user.own_bytes.unwrap_or(0), is_retried);
        Some(token)
    }

    fn killed(&mut self, token: u64, figures: &Figures, own_bytes: u64, is_retried: bool) {
        let Figures { limit, used_bytes, limit_bytes, shared_bytes, .. } = *figures;
        let reason = ExitReason::OutOfMemory { limit, used_bytes, limit_bytes, shared_bytes, own_bytes };
        let retries = if is_retried { self.options.retries } else { 0 };
        self.stage = Stage::Ending { token, end: End { reason, retries } };
    }

    /// Whether a process was killed that has not ended yet.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending { .. })
    }

    /// A process has ended. If this part has killed it, returns the description of its end.
    pub(super) fn ended(&mut self, token: u64, now: Instant) -> Option<End> {
        let Stage::Ending { token: killed, end } = self.stage else { return None };
        if killed != token {
            return None;
        }
        // Its memory is free from now on, and others may begin to use it.
        (self.stage, self.looked) = (Stage::Calm, now);
        Some(end)
    }

    /// Whether it is time to say that there is nothing to end.
    fn may_complain(&mut self, now: Instant) -> bool {
        let is_due = self.complained.is_none_or(|at| now.saturating_duration_since(at) >= COMPLAINT_INTERVAL);
        if is_due {
            self.complained = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MemoryLimit;

    const INTERVAL: Duration = Duration::from_millis(250);

    /// A machine of 1000 kB.
    fn used(root: &std::path::Path, kilobytes: u64) {
        std::fs::create_dir_all(root.join("proc")).unwrap();
        let text = format!("MemTotal: 1000 kB\nMemAvailable: {} kB\n", 1000 - kilobytes);
        std::fs::write(root.join("proc/meminfo"), text).unwrap();
    }

    fn monitor(root: &std::path::Path) -> Monitor {
        let options = MemoryOptions { threshold: 0.9, interval: INTERVAL, retries: 3, root: root.to_owned() };
        Monitor::new(options).unwrap()
    }

    #[test]
    fn one_process_is_ended_at_a_time_and_the_figures_are_read_anew() {
        let root = tempfile::tempdir().unwrap();
        used(root.path(), 500);
        let mut monitor = monitor(root.path());
        let mut now = monitor.looked;
        let (asked, silent) = (OwnerId::new(1, 1), OwnerId::new(2, 1));

        assert!(monitor.step(now).is_none(), "too soon");
        now += INTERVAL;
        assert!(monitor.step(now).is_none(), "there is memory");
        used(root.path(), 950);
        assert!(monitor.step(now).is_none(), "too soon");
        now += INTERVAL;
        assert!(matches!(monitor.step(now), Some(Step::Ask)));
        monitor.asked([asked, silent].into(), now);
        assert!(monitor.step(now).is_none(), "callers are to answer");
        monitor.answered(asked, None);
        monitor.answered(OwnerId::new(3, 1), None);
        assert!(monitor.step(now).is_none(), "one has not answered");
        now += ANSWER_PATIENCE;
        let Some(Step::End(figures, calls)) = monitor.step(now) else { panic!("memory is short") };
        assert_eq!((figures.used_bytes, calls.len()), (950 * 1024, 1));

        monitor.killed(7, &figures, 5, true);
        for _ in 0..100 {
            now += INTERVAL;
            assert!(monitor.timeout(now).is_none() && monitor.step(now).is_none(), "it has not ended");
        }
        assert!(monitor.ended(8, now).is_none(), "another one");
        let end = monitor.ended(7, now).unwrap();
        assert!(matches!(
            end.reason,
            ExitReason::OutOfMemory { limit: MemoryLimit::Machine, own_bytes: 5, .. }
        ));
        assert_eq!(end.retries, 3);
        assert!(monitor.ended(7, now).is_none());
        assert!(monitor.step(now).is_none(), "its memory is only now free");

        now += INTERVAL;
        assert!(matches!(monitor.step(now), Some(Step::Ask)));
        monitor.asked([asked].into(), now);
        monitor.answered(asked, None);
        used(root.path(), 500);
        assert!(monitor.step(now).is_none(), "there is memory again");
        assert_eq!(monitor.timeout(now), Some(INTERVAL));
    }

    #[test]
    fn the_last_call_of_a_caller_is_not_retried() {
        let root = tempfile::tempdir().unwrap();
        used(root.path(), 950);
        let mut monitor = monitor(root.path());
        let now = monitor.looked + INTERVAL;
        let figures = monitor.sources.look(0.9, now).unwrap();
        monitor.killed(7, &figures, 5, false);
        assert_eq!(monitor.ended(7, now).unwrap().retries, 0);
    }

    #[test]
    fn with_an_interval_of_zero_nothing_is_opened() {
        let root = PathBuf::from("/");
        let options = MemoryOptions { threshold: 0.9, interval: Duration::ZERO, retries: 3, root };
        assert!(Monitor::new(options).is_none());
    }
}
