//! The cost of objects: put, get in another process, fill in place and seal.

use std::path::Path;
use std::time::{Duration, Instant};

use mobula_client::{Client, Layout, ObjectId};

use super::store::Store;
use crate::peer::{Failure, Figure, check, median_of, median_of_batches, pattern, same_ends, sum};
use crate::side::Side;

const CAPACITY_BYTES: u64 = 1536 << 20;
const BATCH: usize = 10_000;
/// Large objects that are put before any is timed: as many as Plasma gets.
const WARM_UP: usize = 8;
/// Objects that are alive while others are put.
const OTHERS: usize = 1000;

/// A store, its owner and another process.
pub(super) struct Objects {
    // Clients end before their store.
    client: Client,
    reader: Side,
    store: Store,
    /// The bytes of large objects that are put.
    source: Vec<u8>,
}

impl Objects {
    pub(super) fn new(scratch: &Path) -> Result<Self, Failure> {
        let store = Store::start(scratch, CAPACITY_BYTES)?;
        Ok(Self { client: store.client()?, reader: store.reader()?, store, source: Vec::new() })
    }

    /// Drops everything that takes much memory.
    pub(super) fn rest(&mut self) {
        self.source = Vec::new();
        self.client.release_unused();
    }

    /// Put and drop: the memory that one object leaves is the next one's.
    pub(super) fn put(&mut self, bytes: usize, budget: Duration) -> Figure {
        let value = pattern(bytes);
        // As in a program, there are other objects: no real store is empty but for one object.
        let _others: Vec<_> = (0..OTHERS).map(|_| self.client.put(&value)).collect::<Result<_, _>>()?;
        let figure = median_of_batches(budget, BATCH, || {
            for _ in 0..BATCH {
                same_ends(&self.client.put(&value)?, &value)?;
            }
            Ok(())
        })?;
        check(self.client.put(&value)?[..] == value[..], "other bytes than were put")?;
        Ok(figure)
    }

    /// Objects that the other process has never seen, each got and let go of.
    pub(super) fn get_first(&mut self, bytes: usize, budget: Duration) -> Figure {
        let value = pattern(bytes);
        let mut one = || {
            let objects: Vec<_> = (0..BATCH).map(|_| self.client.put(&value)).collect::<Result<_, _>>()?;
            let ids = bytes_of(objects.iter().map(|object| object.id()));
            let ids = self.client.put(&ids)?;
            self.reader.ask(&format!("get-first {} {} {}", ids.id(), value[0], value[bytes - 1]))
        };
        one()?;
        median_of(budget, one)
    }

    /// An object that the other process holds already.
    pub(super) fn get_held(&mut self, bytes: usize, budget: Duration) -> Figure {
        let value = pattern(bytes);
        let object = self.client.put(&value)?;
        let (first, last, time) = (value[0], value[bytes - 1], budget.as_millis());
        self.reader.ask(&format!("get-held {} {first} {last} {time}", object.id()))
    }

    /// Only the seal of an object that was filled in place.
    pub(super) fn seal(&mut self, bytes: usize, budget: Duration) -> Figure {
        let layout = || Layout::new(bytes as u64);
        let mut value = 0_u8;
        median_of(budget, || {
            value = value.wrapping_add(1);
            let mut writer = self.client.create(layout())?;
            writer.fill(value);
            let start = Instant::now();
            let object = writer.seal();
            let taken = start.elapsed().as_secs_f64();
            let same = object.len() == bytes && object[0] == value && object[bytes - 1] == value;
            check(same, "other bytes than were filled in")?;
            Ok(taken)
        })
    }

    /// Put and drop of something large, over and over.
    pub(super) fn put_large(&mut self, bytes: usize, budget: Duration) -> Figure {
        if self.source.len() != bytes {
            self.source = pattern(bytes);
            // The first of them touch memory that nobody has touched before.
            for _ in 0..WARM_UP {
                drop(self.client.put(&self.source)?);
            }
        }
        // Memory that nothing was in for a while goes back to the system: a round begins with a put that is not
        // counted.
        drop(self.client.put(&self.source)?);
        median_of(budget, || {
            let start = Instant::now();
            let object = self.client.put(&self.source)?;
            let taken = start.elapsed().as_secs_f64();
            same_ends(&object, &self.source)?;
            Ok(taken)
        })
    }

    /// All bytes of a large object, in a process that has just begun: it knows the owner, nothing else.
    pub(super) fn read_large_first(&mut self, bytes: usize) -> Figure {
        if self.source.len() != bytes {
            self.source = pattern(bytes);
        }
        let large = self.client.put(&self.source)?;
        let small = self.client.put(&[1; 8])?;
        let mut reader = self.store.reader()?;
        reader.ask(&format!("read {} {} {}", large.id(), small.id(), sum(&self.source)))
    }
}

/// The first put of all into a store that has just started.
pub(super) fn put_large_first(scratch: &Path, bytes: usize) -> Figure {
    let source = pattern(bytes);
    let store = Store::start(scratch, CAPACITY_BYTES)?;
    let client = store.client()?;
    let start = Instant::now();
    let object = client.put(&source)?;
    let taken = start.elapsed().as_secs_f64();
    same_ends(&object, &source)?;
    Ok(taken)
}

/// The bytes of ids, one after the other.
pub(super) fn bytes_of(ids: impl Iterator<Item = ObjectId>) -> Vec<u8> {
    ids.flat_map(ObjectId::to_bytes).collect()
}
