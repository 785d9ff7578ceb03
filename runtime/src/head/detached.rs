//! The detached actors of a driver, in a session that drivers share. They outlive the driver, so a head in a process of
//! its own keeps them.
//!
//! [`DetachedHead`] is the driver's side: the head that it has started, and the actors that wait for its start. A
//! thread starts the process, so the driver's head does not wait for it. [`Detached`] is the side of the started head:
//! it decides when that head is no longer needed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use mobula_client::OwnerId;

use crate::error::Failure;
use crate::mail::link::Link;
use crate::wire::{self, FromHead, NewActor};

/// Starts the process.
#[derive(Clone)]
pub(crate) struct StartDetached(Arc<Start>);

/// Tells the driver's head that the head of its detached actors serves, or why that head does not start.
pub(super) type OnDetached = Arc<dyn Fn(Result<OwnerId, String>) + Send + Sync>;

/// Gets the id of the driver's head, and blocks until the process serves. The error says why it does not serve.
type Start = dyn Fn(OwnerId) -> Result<OwnerId, String> + Send + Sync;

impl StartDetached {
    pub(crate) fn new(start: impl Fn(OwnerId) -> Result<OwnerId, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(start))
    }
}

impl fmt::Debug for StartDetached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StartDetached")
    }
}

/// See the module's documentation.
pub(super) struct DetachedHead {
    start: StartDetached,
    stage: Stage,
}

enum Stage {
    None,
    Starting(Vec<DetachedRequest>),
    At(OwnerId),
}

/// A request for a detached actor.
pub(super) struct DetachedRequest {
    pub(super) from: Arc<Link>,
    pub(super) request: u64,
    /// The record of the [`NewActor`].
    actor: Vec<u8>,
}

impl DetachedRequest {
    pub(super) fn actor(&self) -> Option<NewActor<'_>> {
        wire::read(&self.actor).ok()
    }

    pub(super) fn fail(&self, failure: Failure) {
        let record = FromHead::ActorReserved { request: self.request, result: Err(failure) };
        let _ = self.from.send(&record, Vec::new());
    }
}

impl DetachedHead {
    pub(super) fn new(start: StartDetached) -> Self {
        Self { start, stage: Stage::None }
    }

    /// The head that serves; `None` until one does.
    pub(super) fn at(&self) -> Option<OwnerId> {
        match self.stage {
            Stage::At(head) => Some(head),
            _ => None,
        }
    }

    /// A process wants a detached actor, and no head serves yet. The first such request starts one. `started` gets its
    /// id, on another thread.
    pub(super) fn wait(
        &mut self,
        from: &Arc<Link>,
        request: u64,
        actor: &NewActor<'_>,
        driver: OwnerId,
        started: impl FnOnce(Result<OwnerId, String>) + Send + 'static,
    ) {
        let waiting = DetachedRequest { from: from.clone(), request, actor: wire::to_vec(actor) };
        if let Stage::Starting(all) = &mut self.stage {
            return all.push(waiting);
        }
        let start = self.start.clone();
        let thread = std::thread::Builder::new().name("mobula-start".into()).stack_size(256 << 10);
        match thread.spawn(move || started((start.0)(driver))) {
            Ok(_) => self.stage = Stage::Starting(vec![waiting]),
            Err(error) => waiting.fail(cannot_start(&error.to_string())),
        }
    }

    /// The head serves, or has failed to start. Returns the requests that wait for it.
    pub(super) fn started(&mut self, head: Result<OwnerId, String>) -> Vec<DetachedRequest> {
        let stage = std::mem::replace(&mut self.stage, Stage::None);
        let Stage::Starting(waiting) = stage else { return Vec::new() };
        match head {
            Ok(head) => {
                self.stage = Stage::At(head);
                waiting
            }
            Err(reason) => {
                waiting.iter().for_each(|waiting| waiting.fail(cannot_start(&reason)));
                Vec::new()
            }
        }
    }

    /// The head has ended: the next detached actor starts another one.
    pub(super) fn is_gone(&mut self) {
        self.stage = Stage::None;
    }
}

fn cannot_start(reason: &str) -> Failure {
    Failure::NoWorkers { reason: format!("the head of the detached actors does not start: {reason}") }
}

/// The task of a head that keeps detached actors. The head ends after the last of them.
#[derive(Debug)]
pub(crate) struct Detached {
    /// The driver's head. This head stays as long as that one lives, too.
    driver: OwnerId,
    /// The time by which the driver must have opened its link. After it, this head does not wait for the driver.
    until: Instant,
    has_come: bool,
    /// Gets a message when this head is not needed any more.
    over: Sender<()>,
}

impl Detached {
    pub(crate) fn new(driver: OwnerId, patience: Duration, over: Sender<()>) -> Self {
        Self { driver, until: Instant::now() + patience, has_come: false, over }
    }

    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        (!self.has_come).then(|| self.until.saturating_duration_since(now))
    }

    /// Checks whether this head is needed. `has_link` says whether a process has a link to it.
    pub(super) fn look(&mut self, has_link: impl Fn(OwnerId) -> bool, is_in_use: bool, is_store_lost: bool) {
        let is_there = has_link(self.driver);
        self.has_come |= is_there;
        let is_awaited = is_there || !self.has_come && Instant::now() < self.until;
        if is_store_lost || !(is_awaited || is_in_use) {
            let _ = self.over.try_send(());
        }
    }
}
