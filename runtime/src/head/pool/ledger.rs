//! The resources of a session, and the part of them that is taken.
//!
//! Only CPUs may be taken beyond the number that exists: a call that waited for others has given its CPUs back, and
//! takes them again when it continues, although another call may have them by then.
//!
//! GPUs are counted twice: all together, as other resources, and each by itself. A demand gives a number of GPUs, or a
//! part of one, and fits where these are free. A process keeps its GPUs for as long as it lives.

use crate::resources::Resources;

/// The resources of a session; see the module's documentation.
#[derive(Debug)]
pub(super) struct Ledger {
    /// With single GPUs, as `used`.
    total: Resources,
    /// The resources that are taken, or that other drivers have.
    used: Resources,
    /// The resources that other drivers of the session may have.
    elsewhere: Resources,
    /// The part of `total` that are resources of placement groups, in addition to those that they have taken.
    groups: Resources,
}

impl Ledger {
    pub(super) fn new(total: Resources) -> Self {
        let all: Vec<usize> = (0..total.gpu_count()).collect();
        let total = total.on_gpus(&all).into_owned();
        let nothing = Resources::default;
        Self { total, used: nothing(), elsewhere: nothing(), groups: nothing() }
    }

    /// Sets the resources that are here, with single GPUs. Other drivers may have the others.
    pub(super) fn set_here(&mut self, here: &Resources) {
        let elsewhere = self.total.less(here).less(&self.groups);
        self.used.subtract(&std::mem::take(&mut self.elsewhere));
        self.used.add(&elsewhere);
        self.elsewhere = elsewhere;
    }

    /// Adds the resources of a placement group.
    pub(super) fn add_group(&mut self, offer: &Resources) {
        self.total.add(offer);
        self.groups.add(offer);
    }

    /// Removes the resources of a placement group.
    pub(super) fn remove_group(&mut self, offer: &Resources) {
        self.total.subtract(offer);
        self.groups.subtract(offer);
    }

    /// All resources, with single GPUs.
    pub(super) fn total(&self) -> &Resources {
        &self.total
    }

    pub(super) fn free(&self) -> Resources {
        self.free_with_gpus().of_session()
    }

    /// The resources that the processes of this driver have.
    pub(super) fn used(&self) -> Resources {
        self.used.less(&self.elsewhere).of_session()
    }

    /// The resources that are free, with single GPUs.
    pub(super) fn free_with_gpus(&self) -> Resources {
        self.total.less(&self.used)
    }

    /// Replaces the resources that a process has taken by those that it takes now.
    pub(super) fn replace(&mut self, was: &mut Resources, now: Resources) {
        self.used.subtract(was);
        self.used.add(&now);
        *was = now;
    }

    /// Whether a demand fits into the free resources.
    pub(super) fn has(&self, demand: &Resources) -> bool {
        self.has_with(demand, &self.used)
    }

    /// Whether a demand fits into the free resources, with these GPUs.
    pub(super) fn has_on(&self, demand: &Resources, gpus: &[usize]) -> bool {
        demand.on_gpus(gpus).fits(&self.total, [&self.used])
    }

    /// Whether a demand fits beside `reserved`, considering the resources that both demand. Reserved GPUs are not
    /// chosen yet, so beside them no GPU counts as free.
    pub(super) fn has_beside(&self, demand: &Resources, reserved: &Resources) -> bool {
        match (demand.gpu_count(), reserved.gpu_count()) {
            (0, _) => demand.fits(&self.total, [&self.used, reserved]),
            (_, 0) => demand.fits(&self.total, [&self.used, reserved]) && self.has(demand),
            _ => false,
        }
    }

    /// A demand with the best GPUs after `coming` is given back: those that lack least of it.
    pub(super) fn on_best_gpus(&self, demand: &Resources, coming: &Resources) -> Resources {
        demand.on_gpus(&self.best_gpus(demand, &self.total.less(&self.used.less(coming)))).into_owned()
    }

    /// The best GPUs for a demand when `free` is free: those that lack least of it.
    pub(super) fn best_gpus(&self, demand: &Resources, free: &Resources) -> Vec<usize> {
        if demand.gpu_count() == 0 {
            return Vec::new();
        }
        demand.best_gpus(&self.total, free)
    }

    /// The part of a demand that is not free, when `coming` is given back.
    pub(super) fn lack(&self, demand: &Resources, coming: &Resources) -> Resources {
        demand.beyond(&self.total.less(&self.used.less(coming)))
    }

    /// Whether a demand would fit if only `kept` were taken.
    pub(super) fn has_but(&self, demand: &Resources, kept: &Resources) -> bool {
        self.has_with(demand, kept)
    }

    /// Whether a demand would fit if `taken` were taken.
    fn has_with(&self, demand: &Resources, taken: &Resources) -> bool {
        if demand.gpu_count() == 0 {
            return demand.fits(&self.total, [taken]);
        }
        let gpus = demand.best_gpus(&self.total, &self.total.less(taken));
        demand.on_gpus(&gpus).fits(&self.total, [taken])
    }
}
