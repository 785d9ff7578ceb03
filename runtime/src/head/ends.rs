//! The callers that wait until an actor and its process have ended: then its destructor has run.

use std::sync::Arc;

use crate::mail::link::Link;
use crate::wire::FromHead;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Ends(Vec<Awaited>);

struct Awaited {
    by: Arc<Link>,
    request: u64,
    actor: u64,
}

impl Ends {
    pub(super) fn ask(&mut self, by: &Arc<Link>, request: u64, actor: u64) {
        self.0.push(Awaited { by: by.clone(), request, actor });
    }

    pub(super) fn on_caller_gone(&mut self, link: &Arc<Link>) {
        self.0.retain(|awaited| !Arc::ptr_eq(&awaited.by, link));
    }

    /// Answers the callers whose actors have ended.
    pub(super) fn answer(&mut self, has_ended: impl Fn(u64) -> bool) {
        for Awaited { by, request, .. } in self.0.extract_if(.., |awaited| has_ended(awaited.actor)) {
            let _ = by.send(&FromHead::ActorEnded { request }, Vec::new());
        }
    }
}
