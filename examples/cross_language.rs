//! Rust and Python in one program, both ways.
//!
//! Rust calls Python functions: this program has numpy work on an array that lies in shared memory once, and reads the
//! result there.
//!
//! Python calls Rust: `examples/python/cross_language.py` calls the functions and the class that this program exports.
//! Its workers are this program, started again; `main` does not run in them.
//!
//! ```text
//! pip install ./python numpy
//! cargo run -p mobula-examples --features arrow --example cross_language -- --check
//! ```
//!
//! `MOBULA_PYTHON` names the interpreter that has the package `mobula`, if `python3` is another one.

use std::collections::BTreeMap;

use clap::Parser;
use mobula::arrow::array::{ArrayRef, AsArray, RecordBatch};
use mobula::arrow::datatypes::Int64Type;
use mobula::prelude::*;
use mobula::python;
use mobula::value::{Arrow, Tensor};

/// Multiplies an array. Python passes one of numpy, and gets one.
#[mobula::remote(export = "scale")]
fn scale(array: Tensor<f64>, factor: f64) -> Tensor<f64> {
    Tensor::from(array.to_array() * factor)
}

/// Adds the columns of a table of integers up.
#[mobula::remote(export = "column_sums")]
fn column_sums(table: Arrow<RecordBatch>) -> BTreeMap<String, i64> {
    let schema = table.schema();
    let sum = |column: &ArrayRef| column.as_primitive::<Int64Type>().iter().flatten().sum();
    schema
        .fields()
        .iter()
        .zip(table.columns())
        .map(|(field, column)| (field.name().clone(), sum(column)))
        .collect()
}

/// Gives a table back: the caller reads the same memory again.
#[mobula::remote(export = "same_table")]
fn same_table(table: Arrow<RecordBatch>) -> Arrow<RecordBatch> {
    table
}

/// Gives back what it gets, as text and as another kind of value.
#[mobula::remote(export = "greet")]
fn greet(names: Vec<String>, times: u32) -> (String, BTreeMap<String, u32>) {
    (names.join(" and "), names.into_iter().map(|name| (name, times)).collect())
}

/// Divides, or fails.
#[mobula::remote(export = "divide")]
fn divide(dividend: i64, divisor: i64) -> Result<i64, String> {
    dividend.checked_div(divisor).ok_or_else(|| format!("{dividend} cannot be divided by {divisor}"))
}

/// Counts down, an item at a time.
#[mobula::remote(export = "countdown", streaming)]
fn countdown(from: u32) -> impl Iterator<Item = u32> {
    (0..from).rev()
}

/// Sums numbers up in a process of its own.
struct Total {
    total: f64,
}

#[mobula::remote(export = "Total")]
impl Total {
    fn new(start: f64) -> Self {
        Self { total: start }
    }

    fn add(&mut self, numbers: Tensor<f64>) -> f64 {
        self.total += numbers.as_slice().iter().sum::<f64>();
        self.total
    }

    fn total(&self) -> f64 {
        self.total
    }
}

/// Calls Python functions from Rust.
#[derive(Debug, Parser)]
struct Options {
    /// Checks the results.
    #[arg(long)]
    check: bool,
    /// How many numbers the array has.
    #[arg(long, default_value_t = 1_000_000)]
    numbers: usize,
}

fn main() -> mobula::Result<()> {
    let options = Options::parse();
    let _mobula = mobula::init()?;

    let hypotenuse: f64 = python::function("math:hypot").arg(&3.0).arg(&4.0).call().get()?;
    println!("math.hypot(3, 4) = {hypotenuse}");

    // Copied into the store once. numpy reads it there, and Rust reads numpy's result there.
    let numbers: Vec<f64> = (0..options.numbers).map(|number| number as f64).collect();
    let numbers = mobula::put(&Tensor::from(numbers))?;
    let roots = python::function("numpy:sqrt").reference(&numbers).call::<Tensor<f64>>().get()?;
    println!("numpy.sqrt of {} numbers: the last one is {:?}", options.numbers, roots.as_slice().last());

    let sorted: Vec<String> =
        python::function("builtins:sorted").arg(&["manta", "eagle ray"]).call().get()?;
    println!("sorted: {sorted:?}");

    let error =
        python::function("math:sqrt").arg(&-1.0).call::<f64>().get().expect_err("there is no such root");
    println!("math.sqrt(-1): {}", error.to_string().lines().last().unwrap_or_default());

    if options.check {
        assert_eq!(hypotenuse, 5.0);
        assert!(roots.as_slice().iter().enumerate().all(|(at, root)| *root == (at as f64).sqrt()));
        assert_eq!(sorted, ["eagle ray", "manta"]);
        let mobula::Error::Task(error) = error else { panic!("another error: {error}") };
        assert!(error.message.contains("ValueError"), "{}", error.message);
        println!("checked");
    }
    Ok(())
}
