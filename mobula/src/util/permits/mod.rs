//! Permits that processes hold for a while: the actor that keeps them, and the calls for permits. `Semaphore` and
//! `RwLock` are the public types.

mod state;

use std::time::Duration;

use mobula_runtime::{Failure, Result, UtilFailure};

pub(super) use self::state::Grant;
use self::state::{Asker, Permits};
use super::waiting::{PendingCall, next_number};
use crate as mobula;
use crate::actor::ActorHandle;
use crate::{Caller, Reply};

/// The process that keeps the permits.
pub(super) struct PermitsActor {
    permits: Permits<Caller, Reply<Grant>>,
}

#[mobula::remote(crate = mobula)]
impl PermitsActor {
    pub(super) fn new(total: u32) -> Self {
        Self { permits: Permits::new(total) }
    }

    pub(super) fn free(&self) -> u32 {
        self.permits.free()
    }

    pub(super) fn acquire(&mut self, number: u64, count: u32, waits: bool, reply: Reply<Grant>) {
        if let Some(caller) = reply.caller() {
            self.permits.acquire((caller, number), count, waits, reply);
        }
    }

    pub(super) fn release(&mut self, number: u64, reply: Reply<()>) {
        if let Some(caller) = reply.caller() {
            self.permits.release((caller, number));
        }
        reply.send(());
    }

    pub(super) fn forget(&mut self, number: u64, reply: Reply<()>) {
        if let Some(caller) = reply.caller() {
            self.permits.forget((caller, number));
        }
        reply.send(());
    }

    pub(super) fn add(&mut self, count: u32) {
        self.permits.add(count);
    }

    pub(super) fn clear_death(&mut self) {
        self.permits.clear_death();
    }

    #[remote(caller_gone)]
    fn caller_gone(&mut self, caller: Caller) {
        self.permits.caller_gone(caller);
    }
}

impl Asker for Reply<Grant> {
    fn give(self, grant: Grant) {
        self.send(grant);
    }

    fn is_wanted(&self) -> bool {
        Reply::is_wanted(self)
    }
}

/// Permits of this process. Dropping this returns them, by a call that is not waited for.
pub(super) struct Held {
    pub(super) actor: ActorHandle<PermitsActor>,
    pub(super) number: u64,
    /// Whether a process has died while it had all permits.
    pub(super) after_death: bool,
    is_forgotten: bool,
}

impl Held {
    /// Waits for permits. `None`: the wait has timed out, or the call does not wait and the permits are not free.
    pub(super) fn get(
        actor: &ActorHandle<PermitsActor>,
        count: u32,
        waits: bool,
        timeout: Option<Duration>,
    ) -> Result<Option<Self>> {
        let number = next_number();
        let grant = Self::ask(actor, number, count, waits).wait(timeout)?;
        Self::of(actor, number, count, grant)
    }

    /// Waits for permits as a future, which can be dropped.
    pub(super) async fn get_async(actor: &ActorHandle<PermitsActor>, count: u32) -> Result<Option<Self>> {
        let number = next_number();
        let mut ask = Self::ask(actor, number, count, true);
        let grant = ask.wait_async().await?;
        Self::of(actor, number, count, grant)
    }

    /// Keeps the permits for ever.
    pub(super) fn forget(mut self) {
        self.is_forgotten = true;
        self.actor.forget(self.number);
    }

    fn ask(
        actor: &ActorHandle<PermitsActor>,
        number: u64,
        count: u32,
        waits: bool,
    ) -> PendingCall<Grant, impl FnOnce() + use<'_>> {
        PendingCall::new(actor.acquire(number, count, waits), move || _ = actor.release(number))
    }

    fn of(
        actor: &ActorHandle<PermitsActor>,
        number: u64,
        count: u32,
        grant: Option<Grant>,
    ) -> Result<Option<Self>> {
        match grant {
            Some(Grant::Granted { after_death }) => {
                Ok(Some(Self { actor: actor.clone(), number, after_death, is_forgotten: false }))
            }
            Some(Grant::TooMany(permits)) => {
                Err(Failure::Util(UtilFailure::TooFewPermits { requested: count, permits }).into())
            }
            Some(Grant::Busy) | None => Ok(None),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_forgotten {
            self.actor.release(self.number);
        }
    }
}
