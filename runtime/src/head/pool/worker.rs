//! One process of the session, and its present job.

use std::time::{Duration, Instant};

use mobula_client::OwnerId;

use super::Caller;
use super::ledger::Ledger;
use crate::demand::Demand;
use crate::environment::Environment;
use crate::resources::Resources;

/// The longest time until a process registers. After that it is given up: its message was lost, or it hangs.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(30);
/// After the end of its lease, a worker that may be busy reports within this time that it is free. If it does not, it
/// counts as busy.
pub(super) const FREE_PATIENCE: Duration = Duration::from_millis(100);
/// The time before a broken process is killed. Usually it is already ending, and its own exit reason tells more.
pub(super) const BROKEN_PATIENCE: Duration = Duration::from_millis(100);

/// A process of the session other than the driver.
pub(in crate::head) struct Worker<C> {
    pub(in crate::head) pid: u32,
    /// The environment that it was started in.
    pub(in crate::head) environment: Environment,
    /// The GPUs that it can use.
    pub(super) gpus: Vec<usize>,
    /// The link to the process, once it has registered.
    pub(in crate::head) link: Option<C>,
    pub(in crate::head) job: Job,
    /// The caller to which it is leased.
    pub(super) lessee: Option<C>,
    /// When it was leased, or became an actor's.
    pub(super) given: Option<Instant>,
    /// The demand of its calls, from the grant until it is idle again.
    pub(super) demand: Demand,
    /// The part of the demand that it holds.
    pub(super) held: Resources,
    /// Whether its call waits for results of other calls.
    pub(super) blocked: bool,
    /// It begins no more calls, and ends when it has none left.
    pub(super) spent: bool,
    /// It is spent and waits for no other call, so it keeps its resources other than CPUs until it has ended.
    pub(super) keeps: bool,
    /// Since when the process is broken: its connection is closed, or its records cannot be read.
    pub(in crate::head) broken: Option<Instant>,
    /// Whether it took too long to end and was killed.
    pub(in crate::head) killed: bool,
}

/// The use of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::head) enum Job {
    Starting {
        since: Instant,
    },
    Idle {
        since: Instant,
    },
    Leased {
        recalled: bool,
    },
    /// No caller has it any more, but it may still run calls.
    Finishing {
        since: Instant,
        asked: bool,
    },
    Actor {
        actor: u64,
    },
    /// It is killed if it has not ended by then.
    Exiting {
        until: Instant,
    },
}

impl<C: Caller> Worker<C> {
    /// The process, once it has registered.
    pub(super) fn process(&self) -> Option<OwnerId> {
        self.link.as_ref().map(Caller::peer)
    }

    pub(super) fn is_leased_to(&self, caller: &C) -> bool {
        matches!(self.job, Job::Leased { .. })
            && self.lessee.as_ref().is_some_and(|lessee| lessee.id() == caller.id())
    }

    /// It begins no more calls. If it `keeps`, it has the resources of its calls other than CPUs until it has ended.
    pub(super) fn set_spent(&mut self, keeps: bool, now: Instant) {
        (self.spent, self.keeps) = (true, keeps);
        if matches!(self.job, Job::Idle { .. }) {
            // It has given back what its calls demanded, and is asked whether it has any left.
            self.demand = Demand::nothing();
            self.job = Job::Finishing { since: now, asked: false };
        }
    }

    pub(super) fn end_lease(&mut self, is_busy: bool, now: Instant) {
        // A worker that is spent may still wait for calls that it made.
        self.job = match is_busy || self.spent {
            true => Job::Finishing { since: now, asked: false },
            false => Job::Idle { since: now },
        };
        self.lessee = None;
    }

    /// The demand of its calls, with the GPUs that it can use.
    fn whole(&self) -> Resources {
        self.demand.on_gpus(&self.gpus).into_owned()
    }

    /// The part that it should hold, by its job.
    fn due(&self) -> Resources {
        match self.job {
            Job::Idle { .. } if self.keeps => self.whole().without_cpus(),
            // The calls that it waits for may demand what its own call had.
            Job::Finishing { .. } if self.spent && !self.keeps => Resources::default(),
            Job::Starting { .. } | Job::Idle { .. } => Resources::default(),
            // It keeps its part until it has ended.
            Job::Exiting { .. } => self.held.clone(),
            Job::Finishing { .. } => self.whole().without_cpus(),
            _ if self.blocked => self.whole().without_cpus(),
            Job::Leased { .. } | Job::Actor { .. } => self.whole(),
        }
    }

    /// Takes and gives back resources, after it began or ended something.
    pub(super) fn charge(&mut self, ledger: &mut Ledger) {
        let due = self.due();
        ledger.replace(&mut self.held, due);
    }

    pub(super) fn is_recalled(&self) -> bool {
        matches!(self.job, Job::Leased { recalled: true })
    }

    /// Whether it could be recalled, and would then give back what it holds.
    pub(super) fn is_recallable(&self) -> bool {
        matches!(self.job, Job::Leased { recalled: false }) && !self.blocked
    }

    /// Whether it has taken longer to start, or to end, than it may.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let is_late = match self.job {
            Job::Starting { since } => now.duration_since(since) > START_PATIENCE,
            Job::Exiting { until } => now > until,
            _ => false,
        };
        is_late || self.broken.is_some_and(|since| now.duration_since(since) > BROKEN_PATIENCE)
    }

    /// Whether it will do something for which others may wait. Its end counts too.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        match self.job {
            Job::Starting { .. } | Job::Exiting { .. } => true,
            Job::Idle { .. } | Job::Leased { .. } => self.broken.is_some() || !self.blocked,
            Job::Finishing { since, .. } => now.duration_since(since) < FREE_PATIENCE,
            Job::Actor { .. } => self.broken.is_some(),
        }
    }

    /// Whether the process has no work, and can begin some.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.job, Job::Idle { .. })
            && !(self.blocked || self.spent)
            && self.broken.is_none()
            && self.link.is_some()
    }

    /// Whether it is spent, and has no work left.
    pub(super) fn is_over(&self) -> bool {
        self.spent && matches!(self.job, Job::Idle { .. })
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.job, Job::Starting { .. })
    }

    /// Whether it will soon be free, or is found to be busy.
    pub(super) fn is_finishing(&self, now: Instant) -> bool {
        matches!(self.job, Job::Finishing { .. }) && self.serves(now)
    }

    /// Whether it ends soon, or is found to wait for calls that it made.
    pub(super) fn is_ending(&self, now: Instant) -> bool {
        match self.job {
            Job::Exiting { .. } => true,
            Job::Finishing { since, .. } => self.spent && now.duration_since(since) < FREE_PATIENCE,
            _ => false,
        }
    }

    /// Whether it runs, or could soon run, a call for which a process waits.
    pub(super) fn serves(&self, now: Instant) -> bool {
        let has_part = match self.job {
            Job::Starting { .. } | Job::Idle { .. } | Job::Leased { .. } => true,
            Job::Finishing { since, .. } => now.duration_since(since) < FREE_PATIENCE,
            Job::Actor { .. } | Job::Exiting { .. } => false,
        };
        has_part && !(self.blocked || self.spent) && self.broken.is_none()
    }
}
