//! Actors with several calls at a time, `async` methods, and methods that answer later.

#![deny(warnings)]
#![deny(clippy::all, clippy::pedantic)]

use std::sync::atomic::{AtomicU64, Ordering};

use mobula::{ActorHandle, ObjectRef, ObjectRefStream, Reply};

struct Counter(AtomicU64);

#[mobula::remote(
    max_concurrency = 4,
    concurrency_groups(io = 2, compute = unlimited),
    allow_out_of_order,
    max_restarts = 1
)]
impl Counter {
    fn new(start: u64) -> Result<Self, String> {
        Ok(Counter(AtomicU64::new(start)))
    }

    fn add(&self, by: u64) -> u64 {
        self.0.fetch_add(by, Ordering::Relaxed)
    }

    #[remote(group = "io")]
    fn reset(&mut self) {
        *self.0.get_mut() = 0;
    }

    #[remote(group = "compute", streaming, max_in_flight = 4)]
    fn stream(&self) -> impl Iterator<Item = Result<u64, String>> {
        (0..self.0.load(Ordering::Relaxed)).map(Ok)
    }

    #[remote(num_returns = 2)]
    fn both(&self, a: u64) -> Result<(u64, u64), String> {
        Ok((a, self.0.load(Ordering::Relaxed)))
    }

    fn later(self: &Self, before: u64, _reply: Reply<u64>, after: u64) {
        let _ = before + after;
    }
}

struct Asynchronous;

#[mobula::remote]
impl Asynchronous {
    fn new() -> Self {
        Asynchronous
    }

    async fn one(&self) -> u64 {
        1
    }

    async fn two(&mut self, text: String) -> Result<u64, std::num::ParseIntError> {
        text.parse()
    }

    async fn nothing(&self) {}

    async fn later(&self, reply: Reply<Vec<u64>>) {
        reply.send(vec![1]);
    }

    #[remote(streaming)]
    async fn stream(&self) -> Vec<Result<u64, String>> {
        vec![Ok(1)]
    }

    fn blocking(&self) -> u64 {
        3
    }
}

fn remotely() {
    let counter: ActorHandle<Counter> = Counter::remote(5);
    let _: ObjectRef<u64> = counter.add(1);
    let _: ObjectRef<()> = counter.reset();
    let _: ObjectRefStream<u64> = counter.stream();
    let _: (ObjectRef<u64>, ObjectRef<u64>) = counter.both(1);
    let _: ObjectRef<u64> = counter.later(1, 2);
    let it: ActorHandle<Asynchronous> = Asynchronous::remote();
    let _: ObjectRef<u64> = it.one();
    let _: ObjectRef<u64> = it.two("2".to_owned());
    let _: ObjectRef<()> = it.nothing();
    let _: ObjectRef<Vec<u64>> = it.later();
    let _: ObjectRefStream<u64> = it.stream();
    let _: ObjectRef<u64> = it.blocking();
}

fn main() {
    let _: fn() = remotely;
}
