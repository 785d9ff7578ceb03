//! Actors of other drivers in a session that drivers share. Their heads know them. This head asks those heads as
//! callers ask it, and passes on their answers. So the processes of a driver communicate with its own head alone.
//!
//! The number of an actor says which head it belongs to: its upper half is the lower half of the epoch of the head's
//! client. A driver of another build learns only that the actor exists.

use std::collections::HashMap;
use std::sync::Arc;

use mobula_client::{Client, OwnerId};

use super::actors::objects_of;
use super::names::SharedNames;
use crate::error::{ActorEnd, Failure};
use crate::mail::link::Link;
use crate::mail::links::Links;
use crate::wire::{CallContext, FoundActor, FromHead, NewActor, ReservedActor, ToHead};

/// The beginning of the labels of heads.
pub(super) const LABEL: &str = "head";

/// The number before the first actor of a head.
pub(super) fn numbers_of(head: OwnerId) -> u64 {
    head.epoch() << 32
}

/// See the module's documentation.
pub(super) struct Foreign {
    client: Client,
    links: Arc<Links>,
    names: SharedNames,
    build_id: u64,
    /// The links to other heads, by the upper halves of their actors' numbers.
    heads: HashMap<u64, Arc<Link>>,
    /// The actors that processes of this driver watch.
    actors: HashMap<u64, Watched>,
    /// The questions of processes of this driver that other heads have not answered.
    questions: HashMap<u64, Question>,
    question_last: u64,
    /// The actors of other heads that processes of this driver have reserved and not started, and the links of these.
    reserved: HashMap<u64, Arc<Link>>,
    /// The links of other heads to this one, by their numbers, and the builds of these heads.
    introduced: HashMap<u64, u64>,
}

/// A question that another head is asked for a process of this driver.
struct Question {
    from: Arc<Link>,
    /// The process's number of it.
    request: u64,
    /// The link to the head.
    to: u64,
    /// The answer if there is no actor.
    nobody: fn(u64) -> FromHead<'static>,
}

impl Question {
    fn answer_nobody(&self) {
        let _ = self.from.send(&(self.nobody)(self.request), Vec::new());
    }
}

struct Watched {
    watchers: Vec<Arc<Link>>,
    said: Option<Said>,
}

/// The last state that the actor's head reported.
#[derive(Clone)]
enum Said {
    At { process: OwnerId, max_task_retries: u32 },
    Over { pid: u32, failure: Failure },
}

impl Said {
    fn tell(&self, actor: u64, link: &Link) {
        let message = match self.clone() {
            Self::At { process, max_task_retries } => FromHead::ActorAt { actor, process, max_task_retries },
            Self::Over { pid, failure } => FromHead::ActorOver { actor, pid, failure },
        };
        let _ = link.send(&message, Vec::new());
    }
}

fn half(actor: u64) -> u64 {
    actor >> 32
}

/// An actor that no head knows.
fn unknown(cause: ActorEnd) -> Said {
    Said::Over { pid: 0, failure: died(cause) }
}

fn died(cause: ActorEnd) -> Failure {
    Failure::ActorDied { class: "an actor".to_owned(), method: String::new(), pid: 0, cause }
}

impl Foreign {
    pub(super) fn new(client: Client, links: Arc<Links>, names: SharedNames, build_id: u64) -> Self {
        Self {
            client,
            links,
            names,
            build_id,
            heads: HashMap::new(),
            actors: HashMap::new(),
            questions: HashMap::new(),
            question_last: 0,
            reserved: HashMap::new(),
            introduced: HashMap::new(),
        }
    }

    /// Whether an actor is another driver's.
    pub(super) fn is_elsewhere(&self, actor: u64) -> bool {
        half(actor) != half(numbers_of(self.client.id()))
    }

    // ---- as a caller ----

    /// Whether another driver has, or had just now, an actor of this name.
    pub(super) fn has_name(&mut self, namespace: &str, name: &str) -> bool {
        let head = self.names.head_of(namespace, name);
        head.is_some_and(|head| self.link_to(head).is_some())
    }

    /// A process looks for an actor that this head does not have.
    pub(super) fn find(&mut self, from: &Arc<Link>, request: u64, namespace: &str, name: &str) {
        let link = self.names.head_of(namespace, name).and_then(|head| self.link_to(head));
        let nobody = |request| FromHead::ActorFound { request, actor: Ok(None) };
        self.ask(from, request, link, nobody, |request| ToHead::FindActor { request, namespace, name });
    }

    /// A process waits until an actor has ended.
    pub(super) fn await_end(&mut self, from: &Arc<Link>, request: u64, actor: u64) {
        let link = self.link_of(actor);
        let nobody = |request| FromHead::ActorEnded { request };
        self.ask(from, request, link, nobody, |request| ToHead::AwaitActorEnd { request, actor });
    }

    fn ask<'a>(
        &mut self,
        from: &Arc<Link>,
        request: u64,
        link: Option<Arc<Link>>,
        nobody: fn(u64) -> FromHead<'static>,
        question: impl FnOnce(u64) -> ToHead<'a>,
    ) {
        self.question_last += 1;
        let number = self.question_last;
        let to = link.as_ref().map_or(0, |link| link.id);
        let asked = Question { from: from.clone(), request, to, nobody };
        match link {
            Some(link) if link.send(&question(number), Vec::new()).is_ok() => {
                self.questions.insert(number, asked);
            }
            _ => asked.answer_nobody(),
        }
    }

    /// A process wants an actor that another head keeps. Returns `false` if that head has ended.
    pub(super) fn reserve(
        &mut self,
        from: &Arc<Link>,
        request: u64,
        head: OwnerId,
        actor: &NewActor<'_>,
    ) -> bool {
        let Some(link) = self.link_to(head).filter(|link| !link.is_closed()) else { return false };
        let nobody = |request| {
            let failure = died(ActorEnd::DriverEnded);
            FromHead::ActorReserved { request, result: Err(failure) }
        };
        self.ask(from, request, Some(link), nobody, |request| ToHead::ReserveActor {
            request,
            actor: actor.clone(),
        });
        true
    }

    /// The arguments of the constructor of an actor of another head are there.
    pub(super) fn start(
        &mut self,
        actor: u64,
        arguments: u32,
        context: Option<CallContext>,
        payloads: &[u8],
    ) {
        self.reserved.remove(&actor);
        let Some(link) = self.link_of(actor) else { return };
        // This head holds the objects until that head holds them.
        match objects_of(&self.client, arguments, payloads) {
            Ok(held) => {
                let _ = link.send(&ToHead::StartActor { actor, arguments, context, payloads }, held);
            }
            Err(failure) => _ = link.send(&ToHead::AbandonActor { actor, failure }, Vec::new()),
        }
    }

    /// The arguments will never be there.
    pub(super) fn abandon(&mut self, actor: u64, failure: Failure) {
        self.reserved.remove(&actor);
        if let Some(link) = self.link_of(actor) {
            let _ = link.send(&ToHead::AbandonActor { actor, failure }, Vec::new());
        }
    }

    /// A process asks to be told of the state of an actor.
    pub(super) fn watch(&mut self, from: &Arc<Link>, actor: u64) {
        if let Some(watched) = self.actors.get_mut(&actor) {
            watched.watchers.push(from.clone());
            return watched.said.iter().for_each(|said| said.tell(actor, from));
        }
        let watchers = vec![from.clone()];
        match self.link_of(actor) {
            Some(link) => {
                self.actors.insert(actor, Watched { watchers, said: None });
                let _ = link.send(&ToHead::WatchActor { actor }, Vec::new());
            }
            None => unknown(ActorEnd::Forgotten).tell(actor, from),
        }
    }

    pub(super) fn kill(&mut self, actor: u64, restarts: bool) {
        if let Some(link) = self.link_of(actor) {
            let _ = link.send(&ToHead::KillActor { actor, restarts }, Vec::new());
        }
    }

    /// A record of another head has arrived.
    pub(super) fn on_record(&mut self, record: FromHead<'_>) {
        match record {
            FromHead::ActorFound { request, actor } => self.on_found(request, actor),
            FromHead::ActorReserved { request, result } => self.on_reserved(request, result),
            FromHead::ActorEnded { request } => {
                if let Some(Question { from, request, .. }) = self.questions.remove(&request) {
                    let _ = from.send(&FromHead::ActorEnded { request }, Vec::new());
                }
            }
            FromHead::ActorAt { actor, process, max_task_retries } => {
                self.on_said(actor, Some(Said::At { process, max_task_retries }));
            }
            FromHead::ActorOver { actor, pid, failure } => {
                self.on_said(actor, Some(Said::Over { pid, failure }));
            }
            FromHead::ActorRestarts { actor, pid, reason } => {
                self.on_said(actor, None);
                for link in self.actors.get(&actor).iter().flat_map(|watched| &watched.watchers) {
                    let message = FromHead::ActorRestarts { actor, pid, reason };
                    let _ = link.send(&message, Vec::new());
                }
            }
            record => tracing::warn!(?record, "another head sent an answer to no question"),
        }
    }

    fn on_found(&mut self, request: u64, actor: Result<Option<FoundActor>, Failure>) {
        let Some(Question { from, request, .. }) = self.questions.remove(&request) else { return };
        // Held until the process holds it: the other head lets go when this function returns.
        let held = actor.iter().flatten().map(|actor| self.client.hold(actor.token)).collect();
        let answer = match held {
            Ok(held) => from.send(&FromHead::ActorFound { request, actor }, held),
            // It ended meanwhile.
            Err(_) => from.send(&FromHead::ActorFound { request, actor: Ok(None) }, Vec::new()),
        };
        let _ = answer;
    }

    fn on_reserved(&mut self, request: u64, result: Result<ReservedActor, Failure>) {
        let Some(Question { from, request, .. }) = self.questions.remove(&request) else {
            // The process that asked is gone.
            if let Ok(ReservedActor { actor, .. }) = result {
                self.abandon(actor, died(ActorEnd::CreatorDied));
            }
            return;
        };
        // This head holds the object until the process holds it.
        let held = result.iter().map(|reserved| self.client.hold(reserved.token)).collect();
        let result = match &held {
            Ok(_) => result,
            Err(_) => Err(died(ActorEnd::DriverEnded)),
        };
        if let Ok(ReservedActor { actor, .. }) = result {
            self.reserved.insert(actor, from.clone());
        }
        let _ = from.send(&FromHead::ActorReserved { request, result }, held.unwrap_or_default());
    }

    fn on_said(&mut self, actor: u64, said: Option<Said>) {
        let Some(watched) = self.actors.get_mut(&actor) else { return };
        if let Some(said) = &said {
            watched.watchers.iter().for_each(|link| said.tell(actor, link));
        }
        match said {
            // Its head knows it for those that ask later.
            Some(Said::Over { .. }) => _ = self.actors.remove(&actor),
            said => watched.said = said,
        }
    }

    /// A link is closed: that of a process of this driver, or of another head.
    pub(super) fn on_link_closed(&mut self, link: &Arc<Link>) {
        self.introduced.remove(&link.id);
        let reserved = self.reserved.extract_if(|_, by| Arc::ptr_eq(by, link));
        for actor in reserved.map(|(actor, _)| actor).collect::<Vec<_>>() {
            self.abandon(actor, died(ActorEnd::CreatorDied));
        }
        self.questions.retain(|_, question| !Arc::ptr_eq(&question.from, link));
        for watched in self.actors.values_mut() {
            watched.watchers.retain(|watcher| !Arc::ptr_eq(watcher, link));
        }
        let Some(head) = self.heads.extract_if(|_, its| Arc::ptr_eq(its, link)).next().map(|(head, _)| head)
        else {
            return;
        };
        let over: Vec<u64> = self.actors.keys().copied().filter(|actor| half(*actor) == head).collect();
        for actor in over {
            self.on_said(actor, Some(unknown(ActorEnd::DriverEnded)));
        }
        // Nobody else has the actors that it was asked about.
        for (_, question) in self.questions.extract_if(|_, question| question.to == link.id) {
            question.answer_nobody();
        }
    }

    fn link_of(&mut self, actor: u64) -> Option<Arc<Link>> {
        if let Some(link) = self.heads.get(&half(actor)) {
            return Some(link.clone());
        }
        let clients = self.client.stats().ok()?.clients;
        let is_its = |id: OwnerId| half(numbers_of(id)) == half(actor);
        let head = clients.iter().find(|client| client.label.starts_with(LABEL) && is_its(client.owner))?;
        self.link_to(head.owner)
    }

    /// The link to another head. The first use opens it.
    fn link_to(&mut self, head: OwnerId) -> Option<Arc<Link>> {
        if head == self.client.id() {
            return None;
        }
        let key = half(numbers_of(head));
        if let Some(link) = self.heads.get(&key) {
            return Some(link.clone());
        }
        let channel = self.client.connect_to(head).inspect_err(|error| {
            tracing::debug!(%head, %error, "no channel could be opened to another head");
        });
        let link = Arc::new(Link::new(channel.ok()?, false));
        if !self.links.add(&link) {
            link.close();
            return None;
        }
        let _ = link.send(&ToHead::Introduce { build_id: self.build_id }, Vec::new());
        self.heads.insert(key, link.clone());
        Some(link)
    }

    // ---- as the head that others ask ----

    /// Another head introduces itself.
    pub(super) fn introduce(&mut self, link: &Link, build_id: u64) {
        self.introduced.insert(link.id, build_id);
    }

    /// Whether it is the link of another head.
    pub(super) fn is_head(&self, link: &Link) -> bool {
        self.introduced.contains_key(&link.id)
    }

    /// Whether it is the link of another head whose driver has another build.
    pub(super) fn is_of_other_build(&self, link: &Link) -> bool {
        self.introduced.get(&link.id).is_some_and(|build_id| *build_id != self.build_id)
    }
}
