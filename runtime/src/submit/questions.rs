//! Questions to the head that a thread waits for: a place for an actor, actors by their names, and what is free.

use std::sync::Arc;

use mobula_client::{Client, Handle};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::definition::Key;
use crate::error::{Failure, Result};
use crate::mail::link::TooLarge;
use crate::mail::links::Links;
use crate::resources::Resources;
use crate::wire::{FoundActor, ReservedActor, ToHead};

/// An actor that was found by its name.
pub(crate) struct Found {
    pub(crate) actor: u64,
    pub(crate) class: Key,
    pub(crate) class_name: String,
    /// Keeps it alive.
    pub(crate) token: Handle,
}

pub(crate) enum Answer {
    Reserved(Result<(u64, Handle), Failure>),
    Found(Option<Found>),
    /// The resources that are free.
    Resources(Resources),
}

/// See the module's documentation.
pub(crate) struct Questions {
    client: Client,
    links: Arc<Links>,
    /// The answers that have come, by the numbers of the questions.
    answers: Mutex<FxHashMap<u64, Answer>>,
}

impl Questions {
    pub(super) fn new(client: Client, links: Arc<Links>) -> Self {
        Self { client, links, answers: Mutex::default() }
    }

    /// Asks the head something; its [`answer`](Self::answer) comes by the question's number.
    ///
    /// # Errors
    /// [`Failure::SessionOver`]; [`Failure::NameTooLong`].
    pub(crate) fn ask(&self, question: &ToHead<'_>) -> Result<(), Failure> {
        let head = self.links.head().ok_or(Failure::SessionOver)?;
        head.send(question, Vec::new()).map_err(|TooLarge| {
            let name = match question {
                ToHead::ReserveActor { actor, .. } => actor.name.unwrap_or_default(),
                ToHead::FindActor { name, .. } => name,
                _ => "",
            };
            Failure::NameTooLong { bytes: name.len() }
        })
    }

    /// The head's answer, or an error if none will come; `None` before it arrives.
    pub(crate) fn answer(&self, request: u64) -> Option<Result<Answer, Failure>> {
        let answer = self.answers.lock().remove(&request);
        let is_closed = || self.links.head().is_none_or(|head| head.is_closed());
        answer.map(Ok).or_else(|| is_closed().then_some(Err(Failure::SessionOver)))
    }

    /// The head has answered.
    pub(super) fn on_reserved(&self, request: u64, result: Result<ReservedActor, Failure>) {
        let held = result.and_then(|ReservedActor { actor, token }| Ok((actor, self.client.hold(token)?)));
        self.answers.lock().insert(request, Answer::Reserved(held));
    }

    /// The head has answered.
    pub(super) fn on_found(&self, request: u64, actor: Option<FoundActor>) {
        let found = actor.and_then(|FoundActor { actor, token, class, class_name }| {
            Some(Found { actor, class, class_name, token: self.client.hold(token).ok()? })
        });
        self.answers.lock().insert(request, Answer::Found(found));
    }

    /// The head has answered.
    pub(super) fn on_resources(&self, request: u64, free: Resources) {
        self.answers.lock().insert(request, Answer::Resources(free));
    }
}
