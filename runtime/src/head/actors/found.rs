//! Finding actors by their names.

use super::surroundings::Token;
use super::{Actor, Actors, Peer};
use crate::wire::{FoundActor, FromHead, NamedActor};

/// The most bytes of names in one record, unless one name alone has more.
const NAMES_BYTES_MAX: usize = 4 << 10;
/// The bytes that a name takes in a record, in addition to its text.
const NAME_BYTES: usize = 16;

impl<P: Peer> Actors<P> {
    pub(in crate::head) fn find(&self, from: &P, request: u64, namespace: &str, name: &str) {
        self.answer_found(from, request, self.found(namespace, name));
    }

    pub(super) fn found(&self, namespace: &str, name: &str) -> Option<(u64, &Actor<P>)> {
        let actor = self.names.get(&(namespace.to_owned(), name.to_owned()))?;
        Some((*actor, self.actors.get(actor)?))
    }

    pub(super) fn answer_found(&self, to: &P, request: u64, found: Option<(u64, &Actor<P>)>) {
        let held = found.map(|(_, record)| record.token.clone()).into_iter().collect();
        let actor = found.map(|(actor, record)| FoundActor {
            actor,
            token: record.token.id(),
            class: record.class,
            class_name: record.class_name.clone(),
            max_pending_calls: record.max_pending_calls,
            description: record.description.to_string(),
        });
        let _ = to.tell(&FromHead::ActorFound { request, actor: Ok(actor) }, held);
    }

    /// Answers with the names of the living actors, in as many records as they need.
    pub(in crate::head) fn list(&self, from: &P, request: u64, namespace: Option<&str>) {
        let is_listed = |of: &str| namespace.is_none_or(|namespace| namespace == of);
        let (mut names, mut bytes) = (Vec::new(), 0);
        let all = match &self.shared_names {
            Some(names) => names.list(),
            None => self.names.keys().cloned().collect(),
        };
        for (of, name) in all.iter().filter(|(of, _)| is_listed(of)) {
            if bytes > 0 && bytes + of.len() + name.len() > NAMES_BYTES_MAX {
                let part =
                    FromHead::ActorNames { request, names: std::mem::take(&mut names), is_last: false };
                let _ = from.tell(&part, Vec::new());
                bytes = 0;
            }
            bytes += of.len() + name.len() + NAME_BYTES;
            names.push(NamedActor::new(of, name));
        }
        let _ = from.tell(&FromHead::ActorNames { request, names, is_last: true }, Vec::new());
    }
}
