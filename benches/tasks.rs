//! The cost of tasks, actors and typed values, with two workers: one call and its result, a thousand at once, and large
//! arrays passed without a copy.
//!
//! `cargo bench -p mobula-benches --bench tasks`; with `-- --test` each runs once, to check that it works.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use mobula::prelude::*;

const WORKERS: usize = 2;
const CAPACITY_BYTES: u64 = 512 << 20;
const AT_ONCE: i64 = 1000;
/// Elements of a tensor of 64 MiB.
const ELEMENTS: usize = (64 << 20) / size_of::<f64>();

#[mobula::remote]
fn successor(x: i64) -> i64 {
    x + 1
}

struct Total {
    value: i64,
}

#[mobula::remote]
impl Total {
    fn new() -> Self {
        Self { value: 0 }
    }

    fn add(&mut self, x: i64) -> i64 {
        self.value += x;
        self.value
    }

    fn ends(&mut self, tensor: Tensor<f64>) -> (usize, f64, f64) {
        let elements = tensor.as_slice();
        (elements.len(), elements[0], elements[elements.len() - 1])
    }
}

fn main() -> mobula::Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(50)
        .configure_from_args();
    session(&mut criterion);
    let _mobula = start();
    values(&mut criterion)?;
    tasks(&mut criterion);
    actors(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

fn start() -> mobula::Session {
    let builder = mobula::Builder::new().workers(WORKERS).capacity_bytes(CAPACITY_BYTES);
    builder.init().expect("a session starts")
}

/// From nothing to the first result, and back to nothing.
fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.sample_size(10);
    group.bench_function("start, one task, end", |bencher| {
        bencher.iter(|| {
            let _mobula = start();
            assert_eq!(successor::remote(1).get().expect("the task runs"), 2);
        });
    });
    group.finish();
}

fn values(criterion: &mut Criterion) -> mobula::Result<()> {
    let mut group = criterion.benchmark_group("value");
    group.bench_function("put an i64", |bencher| {
        bencher.iter(|| mobula::put(&42_i64).expect("the store has room"));
    });
    let stored = mobula::put(&42_i64)?;
    group.bench_function("get an i64", |bencher| {
        bencher.iter(|| assert_eq!(stored.get().expect("it is there"), 42));
    });
    group.bench_function("put and get an i64", |bencher| {
        let mut next = 0_i64;
        bencher.iter(|| {
            next += 1;
            let stored = mobula::put(&next).expect("the store has room");
            assert_eq!(stored.get().expect("it is there"), next);
        });
    });
    group.finish();
    Ok(())
}

fn tasks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("task");
    group.bench_function("call and get", |bencher| {
        let mut x = 0;
        bencher.iter(|| {
            x += 1;
            assert_eq!(successor::remote(x).get().expect("the task runs"), x + 1);
        });
    });
    group.throughput(Throughput::Elements(AT_ONCE as u64));
    group.bench_function("1000 at once", |bencher| {
        bencher.iter(|| {
            let results: Vec<_> = (0..AT_ONCE).map(successor::remote).collect();
            let results = mobula::get(&results).expect("the tasks run");
            assert!(results.into_iter().eq(1..=AT_ONCE));
        });
    });
    group.finish();
}

fn actors(criterion: &mut Criterion) -> mobula::Result<()> {
    let mut group = criterion.benchmark_group("actor");
    let actor = Total::remote();
    let mut total = 0;
    group.bench_function("call and get", |bencher| {
        bencher.iter(|| {
            total += 1;
            assert_eq!(actor.add(1).get().expect("the actor answers"), total);
        });
    });
    group.bench_function("pass a stored tensor of 64 MiB", |bencher| {
        let mut tensor = TensorMut::<f64>::zeros(&[ELEMENTS]).expect("the store has room");
        tensor.as_mut_slice()[0] = 1.0;
        tensor.as_mut_slice()[ELEMENTS - 1] = 2.0;
        let tensor = mobula::put(&tensor.seal()).expect("only the reference is put");
        bencher.iter(|| {
            let ends = actor.ends(&tensor).get().expect("the actor answers");
            assert_eq!(ends, (ELEMENTS, 1.0, 2.0));
        });
    });
    group.throughput(Throughput::Elements(AT_ONCE as u64));
    group.bench_function("1000 calls at once", |bencher| {
        bencher.iter(|| {
            let results: Vec<_> = (0..AT_ONCE).map(|_| actor.add(1)).collect();
            let results = mobula::get(&results).expect("the actor answers");
            // In order, and each exactly once.
            assert!(results.into_iter().eq(total + 1..=total + AT_ONCE));
            total += AT_ONCE;
        });
    });
    group.finish();
    Ok(())
}
