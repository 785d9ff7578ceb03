//! The head's work with other heads: with those of other drivers, for their actors, and with the head of this driver's
//! detached actors.

use std::sync::Arc;

use mobula_client::{Client, OwnerId};

use super::State;
use crate::error::{ActorEnd, Failure};
use crate::head::detached::{Detached, DetachedHead, OnDetached, StartDetached};
use crate::mail::link::Link;
use crate::wire::{self, FromHead, NewActor};

impl State {
    /// Sets how detached actors are kept: by a head of their own, which this head starts; or this head is such a head.
    pub(in crate::head) fn has_detached(
        &mut self,
        starts: Option<(StartDetached, OnDetached)>,
        detached: Option<Detached>,
    ) {
        self.detached_head = starts.map(|(start, on_started)| (DetachedHead::new(start), on_started));
        self.detached = detached;
    }

    /// Handles a record of the head of another driver.
    pub(super) fn on_record_of_head(&mut self, from: &Arc<Link>, record: &[u8]) {
        match (wire::read(record), &mut self.foreign) {
            (Ok(record), Some(foreign)) => foreign.on_record(record),
            (Err(error), _) => {
                tracing::error!(peer = %from.peer, %error, "a record of another head that cannot be read");
                from.close();
            }
            (Ok(_), None) => {}
        }
    }

    pub(super) fn watch_actor(&mut self, from: &Arc<Link>, actor: u64) {
        match &mut self.foreign {
            Some(foreign) if foreign.is_of_other_build(from) => {
                let failure = Failure::OtherBuild { class: self.actors.class_name(actor) };
                let _ = from.send(&FromHead::ActorOver { actor, pid: 0, failure }, Vec::new());
            }
            // If another head asks, the actor is here, or does not exist.
            Some(foreign) if foreign.is_elsewhere(actor) && !foreign.is_head(from) => {
                foreign.watch(from, actor);
            }
            _ => self.actors.watch(from, actor),
        }
    }

    pub(super) fn find_actor(&mut self, from: &Arc<Link>, request: u64, namespace: &str, name: &str) {
        let is_here = self.actors.has_name(namespace, name);
        match &mut self.foreign {
            Some(foreign) if is_here && foreign.is_of_other_build(from) => {
                let actor = Err(Failure::OtherBuild { class: self.actors.class_of_name(namespace, name) });
                let _ = from.send(&FromHead::ActorFound { request, actor }, Vec::new());
            }
            Some(foreign) if !is_here && !foreign.is_head(from) => {
                foreign.find(from, request, namespace, name);
            }
            _ => self.actors.find(from, request, namespace, name),
        }
    }

    pub(super) fn reserve_actor(
        &mut self,
        client: &Client,
        from: &Arc<Link>,
        request: u64,
        actor: NewActor<'_>,
    ) {
        if let Some(foreign) = &mut self.foreign
            && let Some(name) = actor.name.filter(|_| actor.get_if_exists)
            && !self.actors.has_name(actor.namespace, name)
            && foreign.has_name(actor.namespace, name)
        {
            return foreign.find(from, request, actor.namespace, name);
        }
        let is_here = || actor.name.is_some_and(|name| self.actors.has_name(actor.namespace, name));
        if actor.is_detached && !(actor.get_if_exists && is_here()) && self.detached_head.is_some() {
            return self.reserve_detached(client, from, request, &actor);
        }
        self.actors.reserve(client, from, request, actor);
    }

    /// A process wants an actor that outlives this driver.
    fn reserve_detached(&mut self, client: &Client, from: &Arc<Link>, request: u64, actor: &NewActor<'_>) {
        let (Some((head, on_started)), Some(foreign)) = (&mut self.detached_head, &mut self.foreign) else {
            return;
        };
        if actor.demand.group().is_some() {
            let failure = Failure::BadOption {
                option: "placement".to_owned(),
                value: "a placement group of this driver".to_owned(),
                expected: "none: the detached actor outlives the driver, and its groups do not".to_owned(),
            };
            let _ = from.send(&FromHead::ActorReserved { request, result: Err(failure) }, Vec::new());
            return;
        }
        if let Some(at) = head.at() {
            if foreign.reserve(from, request, at, actor) {
                return;
            }
            // That head was killed, or has ended: another one starts.
            head.is_gone();
        }
        let on_started = on_started.clone();
        head.wait(from, request, actor, client.id(), move |head| on_started(head));
    }

    /// The head of the detached actors serves, or has failed to start.
    pub(in crate::head) fn detached_started(&mut self, started: Result<OwnerId, String>) {
        let (Some((head, _)), Some(foreign)) = (&mut self.detached_head, &mut self.foreign) else { return };
        for waiting in head.started(started) {
            let Some((at, actor)) = head.at().zip(waiting.actor()) else { continue };
            if !foreign.reserve(&waiting.from, waiting.request, at, &actor) {
                waiting.fail(detached_head_ended(actor.class_name));
            }
        }
    }

    /// Checks whether this head, which keeps detached actors, is still needed.
    pub(in crate::head) fn look_after_use(&mut self) {
        let Some(detached) = &mut self.detached else { return };
        let links = &self.links;
        detached.look(|head| links.contains_key(&head), self.actors.is_any_living(), self.is_store_lost);
    }
}

/// The failure of a detached actor whose head has ended before it was reserved.
fn detached_head_ended(class: &str) -> Failure {
    let (class, method) = (class.to_owned(), String::new());
    Failure::ActorDied { class, method, pid: 0, cause: ActorEnd::DriverEnded }
}
