//! Questions to the head that a thread waits for: a place for an actor, actors by their names, and what is free.

use std::sync::Arc;

use mobula_client::{Client, Handle};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::definition::Key;
use crate::error::{Failure, Result};
use crate::mail::link::TooLarge;
use crate::mail::links::Links;
use crate::resources::Resources;
use crate::wire::{FoundActor, GroupRecord, NamedActor, ReservedActor, ToHead};

/// An actor that was found by its name.
pub(crate) struct Found {
    pub(crate) actor: u64,
    pub(crate) class: Key,
    pub(crate) class_name: String,
    pub(crate) max_pending_calls: u32,
    pub(crate) description: String,
    /// Keeps it alive.
    pub(crate) token: Handle,
}

pub(crate) enum Answer {
    Reserved(Result<(u64, Handle), Failure>),
    Found(Result<Option<Found>, Failure>),
    Names(Vec<NamedActor>),
    /// The resources that are free.
    Resources(Resources),
    GroupMade(Result<u64, Failure>),
    Groups(Result<Vec<GroupRecord>, Failure>),
}

/// See the module's documentation.
pub(crate) struct Questions {
    client: Client,
    links: Arc<Links>,
    /// The answers that have come, by the numbers of the questions.
    answers: Mutex<FxHashMap<u64, Answer>>,
    /// The names that have come, while others are to come.
    names: Mutex<FxHashMap<u64, Vec<NamedActor>>>,
    /// The unanswered questions about ends of actors, and of other waits.
    ends: Mutex<FxHashSet<u64>>,
}

/// A question about the end of an actor, or of another wait. Dropping it withdraws the question.
pub(crate) struct AwaitsEnd<'a> {
    questions: &'a Questions,
    request: u64,
}

impl Drop for AwaitsEnd<'_> {
    fn drop(&mut self) {
        self.questions.ends.lock().remove(&self.request);
    }
}

impl Questions {
    pub(super) fn new(client: Client, links: Arc<Links>) -> Self {
        Self { client, links, answers: Mutex::default(), names: Mutex::default(), ends: Mutex::default() }
    }

    /// Asks the head a question; its [`answer`](Self::answer) is found by the question's number.
    ///
    /// # Errors
    /// [`Failure::SessionOver`]; [`Failure::NameTooLong`].
    pub(crate) fn ask(&self, question: &ToHead<'_>) -> Result<(), Failure> {
        let head = self.links.head().ok_or(Failure::SessionOver)?;
        head.send(question, Vec::new()).map_err(|TooLarge| {
            let name = match question {
                ToHead::ReserveActor { actor, .. } => [actor.namespace, actor.name.unwrap_or_default()],
                ToHead::FindActor { namespace, name, .. } => [*namespace, *name],
                ToHead::ListActors { namespace, .. } => [namespace.unwrap_or_default(), ""],
                _ => ["", ""],
            };
            Failure::NameTooLong { bytes: name.iter().map(|part| part.len()).sum() }
        })
    }

    /// The head's answer, or an error if none will come; `None` before it arrives.
    pub(crate) fn answer(&self, request: u64) -> Option<Result<Answer, Failure>> {
        let answer = self.answers.lock().remove(&request);
        answer.map(Ok).or_else(|| self.is_head_gone().then_some(Err(Failure::SessionOver)))
    }

    fn is_head_gone(&self) -> bool {
        self.links.head().is_none_or(|head| head.is_closed())
    }

    /// Asks the head for an answer at the end of a wait, such as the end of an actor's process.
    ///
    /// # Errors
    /// [`Failure::SessionOver`].
    pub(crate) fn await_end(&self, request: u64, question: &ToHead<'_>) -> Result<AwaitsEnd<'_>, Failure> {
        self.ends.lock().insert(request);
        let awaits = AwaitsEnd { questions: self, request };
        self.ask(question)?;
        Ok(awaits)
    }

    /// Whether the wait has ended; `None` before the answer is there.
    pub(crate) fn has_ended(&self, request: u64) -> Option<Result<(), Failure>> {
        let has_ended = !self.ends.lock().contains(&request);
        has_ended.then_some(Ok(())).or_else(|| self.is_head_gone().then_some(Err(Failure::SessionOver)))
    }

    /// The head has answered.
    pub(super) fn on_reserved(&self, request: u64, result: Result<ReservedActor, Failure>) {
        let held = result.and_then(|ReservedActor { actor, token }| Ok((actor, self.client.hold(token)?)));
        self.answers.lock().insert(request, Answer::Reserved(held));
    }

    /// The head has answered.
    pub(super) fn on_found(&self, request: u64, actor: Result<Option<FoundActor>, Failure>) {
        let hold = |FoundActor { actor, token, class, class_name, max_pending_calls, description }| {
            let token = self.client.hold(token).ok()?;
            Some(Found { actor, class, class_name, max_pending_calls, description, token })
        };
        let found = actor.map(|actor| actor.and_then(hold));
        self.answers.lock().insert(request, Answer::Found(found));
    }

    /// The head has answered, or begun to.
    pub(super) fn on_names(&self, request: u64, names: Vec<NamedActor>, is_last: bool) {
        let mut coming = self.names.lock();
        coming.entry(request).or_default().extend(names);
        if is_last && let Some(all) = coming.remove(&request) {
            self.answers.lock().insert(request, Answer::Names(all));
        }
    }

    /// The head has answered.
    pub(super) fn on_ended(&self, request: u64) {
        self.ends.lock().remove(&request);
    }

    /// The head has answered.
    pub(super) fn on_group_made(&self, request: u64, result: Result<u64, Failure>) {
        self.answers.lock().insert(request, Answer::GroupMade(result));
    }

    /// The head has answered.
    pub(super) fn on_groups(&self, request: u64, groups: Result<Vec<GroupRecord>, Failure>) {
        self.answers.lock().insert(request, Answer::Groups(groups));
    }

    /// The head has answered.
    pub(super) fn on_resources(&self, request: u64, free: Resources) {
        self.answers.lock().insert(request, Answer::Resources(free));
    }
}
