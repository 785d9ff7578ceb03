//! The resources of a session, and the part of them that is taken.
//!
//! CPUs may be taken beyond what there is, and nothing else: a call that waited for others has given its CPUs back, and
//! takes them again when it goes on, although another call may have them by then.

use crate::resources::Resources;

/// The resources of a session; see the module's documentation.
#[derive(Debug)]
pub(super) struct Ledger {
    total: Resources,
    used: Resources,
}

impl Ledger {
    pub(super) fn new(total: Resources) -> Self {
        Self { total, used: Resources::default() }
    }

    pub(super) fn free(&self) -> Resources {
        self.total.less(&self.used)
    }

    /// Replaces what a process has taken by what it takes now.
    pub(super) fn replace(&mut self, was: &mut Resources, now: Resources) {
        self.used.subtract(was);
        self.used.add(&now);
        *was = now;
    }

    /// Whether so much is free.
    pub(super) fn has(&self, demand: &Resources) -> bool {
        demand.fits(&self.total, [&self.used])
    }

    /// Whether so much is free beside `reserved`, of the resources that both demand.
    pub(super) fn has_beside(&self, demand: &Resources, reserved: &Resources) -> bool {
        demand.fits(&self.total, [&self.used, reserved])
    }

    /// The part of a demand that is not free, when `coming` is given back.
    pub(super) fn lack(&self, demand: &Resources, coming: &Resources) -> Resources {
        demand.beyond(&self.total.less(&self.used.less(coming)))
    }

    /// Whether so much would be free if only `kept` were taken.
    pub(super) fn has_but(&self, demand: &Resources, kept: &Resources) -> bool {
        demand.fits(&self.total, [kept])
    }
}
