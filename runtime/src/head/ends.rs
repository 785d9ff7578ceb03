//! The callers that wait until an actor and its process have ended: then its destructor has run.

use super::actors::Peer;
use crate::wire::FromHead;

/// See the module's documentation.
pub(super) struct Ends<P>(Vec<Awaited<P>>);

struct Awaited<P> {
    by: P,
    request: u64,
    actor: u64,
}

impl<P: Peer> Ends<P> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn ask(&mut self, by: &P, request: u64, actor: u64) {
        self.0.push(Awaited { by: by.clone(), request, actor });
    }

    pub(super) fn on_caller_gone(&mut self, link: &P) {
        self.0.retain(|awaited| awaited.by.id() != link.id());
    }

    /// Answers the callers whose actors have ended.
    pub(super) fn answer(&mut self, has_ended: impl Fn(u64) -> bool) {
        for Awaited { by, request, .. } in self.0.extract_if(.., |awaited| has_ended(awaited.actor)) {
            let _ = by.tell(&FromHead::ActorEnded { request }, Vec::new());
        }
    }
}
