//! A filter and a group-by over Arrow batches in the store: the number and the sum of each city's large orders.
//!
//! Each task gets one batch and reads it where it lies. It returns a small map, and the driver adds the maps up. So the
//! table is in memory once, however many processes work on it.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use mobula::arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray};
use mobula::arrow::datatypes::Float64Type;
use mobula::arrow::error::ArrowError;
use mobula::prelude::*;
use mobula_examples::compare::{Times, table};
use mobula_examples::numbers::scrambled;
use mobula_examples::output::{Outcome, exit_code, print};
use mobula_protocol::size::ByteSize;
use rayon::prelude::*;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// The orders of a city that are large enough.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Total {
    orders: u64,
    amount: f64,
}

pub(crate) type Totals = BTreeMap<String, Total>;

/// The least amount of an order that counts: half of the orders have it.
const LEAST: f64 = 500.0;

/// A batch of orders.
#[mobula::remote]
pub(crate) fn make_orders(batch: usize, rows: usize) -> Result<Arrow<RecordBatch>, ArrowError> {
    Ok(orders(batch, rows)?.into())
}

/// The totals of one batch.
#[mobula::remote]
fn add_orders_up(orders: Arrow<RecordBatch>) -> Totals {
    totals(&orders)
}

/// The work itself: keeps large orders, and adds them up by city.
fn totals(orders: &RecordBatch) -> Totals {
    let (cities, amounts) =
        (orders["city"].as_string::<i32>(), orders["amount"].as_primitive::<Float64Type>());
    let mut totals: HashMap<&str, Total, FxBuildHasher> = HashMap::default();
    for (row, &amount) in amounts.values().iter().enumerate() {
        if amount >= LEAST {
            let total = totals.entry(cities.value(row)).or_default();
            total.orders += 1;
            total.amount += amount;
        }
    }
    totals.into_iter().map(|(city, total)| (city.to_owned(), total)).collect()
}

/// Adds the totals of another batch.
fn add(mut sum: Totals, more: Totals) -> Totals {
    for (city, total) in more {
        let sum = sum.entry(city).or_default();
        sum.orders += total.orders;
        sum.amount += total.amount;
    }
    sum
}

/// Adds large orders up by city, over many Arrow batches in the store, with one task for each batch.
#[derive(Parser)]
struct Options {
    /// The size of all batches together, as in 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    bytes: ByteSize,

    /// How many of the cities with the largest amounts to show.
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// Add everything up again without Mobula and without Arrow, and fail if anything differs.
    #[arg(long)]
    check: bool,

    /// Add up N times each with Mobula, with one thread and with rayon, in turn, and print the times.
    #[arg(long, value_name = "N")]
    compare: Option<NonZeroUsize>,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let _mobula = mobula::init()?;
    let sizes = batches(options.bytes.0 as usize);
    let orders: Vec<_> =
        sizes.iter().enumerate().map(|(batch, &rows)| make_orders::remote(batch, rows)).collect();
    let mut rest = orders.clone();
    while !rest.is_empty() {
        (_, rest) = mobula::wait(rest, 1, None)?;
    }

    let started = Instant::now();
    let totals = group_by(&orders)?;
    let seconds = started.elapsed().as_secs_f64();
    let rows: usize = sizes.iter().sum();
    print(&format!("{rows} orders of {} cities in {seconds:.3} s\n", totals.len()))?;
    let mut by_amount: Vec<_> = totals.iter().collect();
    by_amount.sort_by(|(_, total), (_, other)| other.amount.total_cmp(&total.amount));
    for (city, Total { orders, amount }) in by_amount.into_iter().take(options.top) {
        print(&format!("{city:>16} {orders:>9} orders, {amount:>14}\n"))?;
    }
    if options.check {
        check(&totals, &expected(&sizes))?;
        print(&format!("check: orders {rows}, cities {}: ok\n", totals.len()))?;
    }
    if let Some(times) = options.compare {
        print(&compare(times, &orders, &sizes)?)?;
    }
    Ok(())
}

/// The totals of all batches, with one task for each.
pub(crate) fn group_by(orders: &[ObjectRef<Arrow<RecordBatch>>]) -> mobula::Result<Totals> {
    let totals: Vec<_> = orders.iter().map(add_orders_up::remote).collect();
    Ok(mobula::get(&totals)?.into_iter().fold(Totals::new(), add))
}

/// The same with this thread alone, over batches in its own memory.
pub(crate) fn group_by_one_thread(orders: &[RecordBatch]) -> Totals {
    orders.iter().map(totals).fold(Totals::new(), add)
}

/// The same with rayon's threads.
pub(crate) fn group_by_rayon(orders: &[RecordBatch]) -> Totals {
    orders.par_iter().map(totals).reduce(Totals::new, add)
}

/// The times of adding up batches that are in memory: in the store, or in this process.
fn compare(
    times: NonZeroUsize,
    orders: &[ObjectRef<Arrow<RecordBatch>>],
    sizes: &[usize],
) -> Outcome<String> {
    let here = all_orders(sizes)?;
    let mut rows = ["Mobula", "one thread", "rayon"].map(Times::new);
    let [mobula, one_thread, rayon] = &mut rows;
    let expected = expected(sizes);
    for _ in 0..times.get() {
        check(&mobula.measure(|| Ok(group_by(orders)?))?, &expected)?;
        check(&one_thread.measure(|| Ok(group_by_one_thread(&here)))?, &expected)?;
        check(&rayon.measure(|| Ok(group_by_rayon(&here)))?, &expected)?;
    }
    Ok(table(&rows, times))
}

// ---- the orders ----

/// Rows of a batch, but for the last one.
const ROWS: usize = 1 << 20;
/// About as many bytes has a row: a city, its offset, a number and an amount.
const ROW_BYTES: usize = 24;
const CITIES: usize = 1000;

/// The rows of each batch, so that all have about as many bytes.
pub(crate) fn batches(bytes: usize) -> Vec<usize> {
    let rows = bytes / ROW_BYTES;
    (0..rows.div_ceil(ROWS)).map(|batch| ROWS.min(rows - batch * ROWS)).collect()
}

/// The batches as the tasks make them, in this process.
pub(crate) fn all_orders(sizes: &[usize]) -> Result<Vec<RecordBatch>, ArrowError> {
    sizes.iter().enumerate().map(|(batch, &rows)| orders(batch, rows)).collect()
}

fn orders(batch: usize, rows: usize) -> Result<RecordBatch, ArrowError> {
    let names: Vec<String> = (0..CITIES).map(name).collect();
    let cities = StringArray::from_iter_values((0..rows).map(|row| &names[order(batch, row).0]));
    let ids = Int32Array::from_iter_values((0..rows).map(|row| (batch * ROWS + row) as i32));
    let amounts = Float64Array::from_iter_values((0..rows).map(|row| order(batch, row).1));
    let columns: [(&str, ArrayRef); 3] =
        [("city", Arc::new(cities)), ("order", Arc::new(ids)), ("amount", Arc::new(amounts))];
    RecordBatch::try_from_iter(columns)
}

/// The city of an order, and its amount: a whole number, so that sums do not depend on their order.
fn order(batch: usize, row: usize) -> (usize, f64) {
    let random = scrambled((batch * ROWS + row) as u64);
    ((random % CITIES as u64) as usize, ((random >> 32) % 1000) as f64)
}

fn name(city: usize) -> String {
    format!("city {city:03}")
}

/// The totals, from the numbers that the orders are made of.
pub(crate) fn expected(sizes: &[usize]) -> Totals {
    let mut totals = vec![Total::default(); CITIES];
    for (batch, &rows) in sizes.iter().enumerate() {
        for (city, amount) in (0..rows).map(|row| order(batch, row)).filter(|(_, amount)| *amount >= LEAST) {
            totals[city].orders += 1;
            totals[city].amount += amount;
        }
    }
    let named = totals.into_iter().enumerate().map(|(city, total)| (name(city), total));
    named.filter(|(_, total)| total.orders > 0).collect()
}

/// Compares totals with what they must be.
pub(crate) fn check(found: &Totals, expected: &Totals) -> Outcome {
    for (city, expected) in expected {
        match found.get(city) {
            Some(found) if found == expected => {}
            found => return Err(format!("check failed: {city}: {found:?}, {expected:?} expected").into()),
        }
    }
    match found.len() == expected.len() {
        true => Ok(()),
        false => Err(format!("check failed: {} cities, {} expected", found.len(), expected.len()).into()),
    }
}
