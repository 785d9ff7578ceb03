//! The cost of put and get with many objects alive, and with many clients attached.

use std::path::Path;
use std::time::Duration;

use mobula_client::{Client, Handle, Object, ObjectId};

use super::objects::bytes_of;
use super::store::Store;
use crate::limits::shuffled;
use crate::peer::{Failure, Figure, median_of, median_of_batches, pattern, same_ends};
use crate::side::Side;

const CAPACITY_BYTES: u64 = 512 << 20;
const OBJECT_BYTES: usize = 8;
const BATCH: usize = 1000;

/// A store that has more and more in it.
pub(super) struct Growth {
    alive: Vec<Handle>,
    readers: Vec<Side>,
    client: Client,
    store: Store,
    value: Vec<u8>,
}

impl Growth {
    pub(super) fn new(scratch: &Path) -> Result<Self, Failure> {
        let store = Store::start(scratch, CAPACITY_BYTES)?;
        let (client, value) = (store.client()?, pattern(OBJECT_BYTES));
        Ok(Self { alive: Vec::new(), readers: Vec::new(), client, store, value })
    }

    /// Makes so many objects of so many bytes alive, and nothing else.
    pub(super) fn live_of(&mut self, bytes: usize, count: usize) -> Figure {
        self.alive.clear();
        self.value = pattern(bytes);
        self.alive.reserve_exact(count);
        self.live(count)
    }

    /// Makes so many objects alive.
    pub(super) fn live(&mut self, count: usize) -> Figure {
        self.alive.truncate(count);
        while self.alive.len() < count {
            self.alive.push(self.client.put(&self.value)?.handle());
        }
        Ok(self.alive.len() as f64)
    }

    /// Put and drop, beside them.
    pub(super) fn live_put(&mut self, count: usize, budget: Duration) -> Figure {
        self.live(count)?;
        median_of_batches(budget, BATCH, || {
            for _ in 0..BATCH {
                same_ends(&self.client.put(&self.value)?, &self.value)?;
            }
            Ok(())
        })
    }

    /// Get and let go in another process, of all of them in the order in which they were put, or in a random one.
    pub(super) fn live_get(&mut self, count: usize, random: bool, budget: Duration) -> Figure {
        self.live(count)?;
        self.have_readers(1)?;
        let order = if random { shuffled(count) } else { (0..count).collect() };
        let ids = self.client.put(&bytes_of(order.into_iter().map(|at| self.alive[at].id())))?;
        self.get_all(ids.id(), budget)
    }

    /// Put and drop with so many other clients, each of which has got an object and holds it.
    pub(super) fn clients_put(&mut self, clients: usize, budget: Duration) -> Figure {
        self.have_readers(clients)?;
        self.live_put(BATCH, budget)
    }

    /// Get and let go in one of them, of objects that are new to it.
    pub(super) fn clients_get(&mut self, clients: usize, budget: Duration) -> Figure {
        self.have_readers(clients)?;
        median_of(budget, || {
            let fresh: Vec<_> = (0..BATCH).map(|_| self.client.put(&self.value)).collect::<Result<_, _>>()?;
            let ids = self.client.put(&bytes_of(fresh.iter().map(Object::id)))?;
            self.get_once(ids.id())
        })
    }

    fn have_readers(&mut self, count: usize) -> Result<(), Failure> {
        self.live(1.max(self.alive.len()))?;
        self.readers.truncate(count);
        while self.readers.len() < count {
            let mut reader = self.store.reader()?;
            reader.ask(&format!("hold {}", self.alive[0].id()))?;
            self.readers.push(reader);
        }
        Ok(())
    }

    fn get_all(&mut self, ids: ObjectId, budget: Duration) -> Figure {
        median_of(budget, || self.get_once(ids))
    }

    fn get_once(&mut self, ids: ObjectId) -> Figure {
        let (first, last) = (self.value[0], self.value[OBJECT_BYTES - 1]);
        match self.readers.first_mut() {
            Some(reader) => reader.ask(&format!("get-first {ids} {first} {last}")),
            None => crate::peer::error("there is no reader"),
        }
    }
}
