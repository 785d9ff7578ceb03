//! The actor that keeps a queue's items.

use super::item::Item;
use super::items::{Answer, GetAnswer, Items, PutAnswer, Wanted};
use crate as mobula;
use crate::portable::Portable;
use crate::{Caller, Reply};

pub(super) struct QueueActor {
    maxsize: usize,
    items: Items<Caller, Item, Reply<PutAnswer>, Reply<GetAnswer<Item>>>,
}

#[mobula::remote(crate = mobula)]
impl QueueActor {
    pub(super) fn new(maxsize: usize) -> Self {
        Self { maxsize, items: Items::new(maxsize) }
    }

    pub(super) fn maxsize(&self) -> usize {
        self.maxsize
    }

    pub(super) fn size(&self) -> usize {
        self.items.len()
    }

    pub(super) fn put(&mut self, number: u64, items: Vec<Item>, waits: bool, reply: Reply<PutAnswer>) {
        if let Some(caller) = reply.caller() {
            self.items.put((caller, number), items, waits, reply);
        }
    }

    pub(super) fn get(&mut self, number: u64, wanted: Wanted, reply: Reply<GetAnswer<Item>>) {
        if let Some(caller) = reply.caller() {
            self.items.get((caller, number), wanted, reply);
        }
    }

    pub(super) fn received(&mut self, number: u64, reply: Reply<()>) {
        if let Some(caller) = reply.caller() {
            self.items.received((caller, number));
        }
        reply.send(());
    }

    pub(super) fn give_up(&mut self, number: u64, reply: Reply<()>) {
        if let Some(caller) = reply.caller() {
            self.items.give_up((caller, number));
        }
        reply.send(());
    }

    pub(super) fn close(&mut self) {
        self.items.close();
    }

    #[remote(caller_gone)]
    fn caller_gone(&mut self, caller: Caller) {
        self.items.caller_gone(caller);
    }
}

impl<A: Portable> Answer<A> for Reply<A> {
    fn give(self, answer: A) {
        self.send(answer);
    }

    fn is_wanted(&self) -> bool {
        Reply::is_wanted(self)
    }
}
