//! The cost of values that no carrier takes past the stream: 100 MB of numbers, bytes or text, in each direction,
//! beside a plain copy of the same; and of small values that are arguments, or are put.
//!
//! `cargo bench -p mobula-benches --bench values`; with `-- --test` each runs once, to check that it works.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};

const WORKERS: usize = 1;
const CAPACITY_BYTES: u64 = 1 << 30;
const BYTES: usize = 100 << 20;

/// A typical argument: some fields, some of them text.
type Small = (i64, String, Option<f64>, Vec<u32>);

#[mobula::remote]
fn echo(small: Small) -> Small {
    small
}

fn main() -> mobula::Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .sample_size(10)
        .configure_from_args();
    let _mobula = mobula::Builder::new().workers(WORKERS).capacity_bytes(CAPACITY_BYTES).init()?;
    small(&mut criterion);
    let numbers: Vec<f64> = (0..BYTES / size_of::<f64>()).map(|at| at as f64 * 0.5).collect();
    large(&mut criterion, "Vec<f64>", &numbers)?;
    large(&mut criterion, "Vec<u8>", &(0..BYTES).map(|at| at as u8).collect::<Vec<u8>>())?;
    large(
        &mut criterion,
        "String",
        &(0..BYTES).map(|at| char::from(b'a' + (at % 26) as u8)).collect::<String>(),
    )?;
    criterion.final_summary();
    Ok(())
}

fn small(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("small");
    group.sample_size(100);
    let value: Small = (42, "some words of text".to_owned(), Some(0.5), vec![1, 2, 3]);
    group.bench_function("put and get", |bencher| {
        bencher.iter(|| {
            let stored = mobula::put(black_box(&value)).expect("the store has room");
            assert!(stored.get().expect("it is there") == value);
        });
    });
    group.bench_function("call and get", |bencher| {
        bencher.iter(|| {
            assert!(echo::remote(value.clone()).get().expect("the task runs") == value);
        });
    });
    group.finish();
}

fn large<T>(criterion: &mut Criterion, name: &str, value: &T) -> mobula::Result<()>
where
    T: Clone + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("a plain copy", |bencher| bencher.iter(|| black_box(value.clone())));
    group.bench_function("put", |bencher| {
        bencher.iter(|| mobula::put(value).expect("the store has room"));
    });
    let stored = mobula::put(value)?;
    assert!(stored.get()? == *value, "{name}: another value");
    group.bench_function("get", |bencher| bencher.iter(|| stored.get().expect("it is there")));
    group.finish();
    Ok(())
}
