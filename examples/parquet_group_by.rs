//! A group-by over Parquet files: a task for each row group, and a tree of tasks that merges their tables.
//!
//! Each task reads the two columns that it needs of one row group, and makes a small table: for each city the number of
//! sales and their sum. `util::reduce` merges these tables two by two, as soon as both are there. So no process ever
//! has more than two of them, and the driver gets one.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use mobula::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use mobula::arrow::datatypes::Int64Type;
use mobula::arrow::error::ArrowError;
use mobula::prelude::*;
use mobula_examples::compare::{Times, table};
use mobula_examples::numbers::scrambled;
use mobula_examples::output::{Outcome, exit_code, print, progress_bar};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use rayon::prelude::*;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// The sales of a city.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Total {
    sales: u64,
    cents: i64,
}

impl Total {
    fn add(&mut self, more: Total) {
        self.sales += more.sales;
        self.cents += more.cents;
    }
}

type Totals = BTreeMap<String, Total>;

/// A part of a file, and the work of one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RowGroup {
    file: PathBuf,
    number: usize,
}

/// The totals of one row group. The path travels, and the file is read where the task runs.
#[mobula::remote]
fn add_sales_up(group: RowGroup) -> Result<Totals, ParquetError> {
    totals(&group)
}

/// Two tables in one.
#[mobula::remote]
fn merge(sum: Totals, more: Totals) -> Totals {
    merged(sum, more)
}

/// The work itself: reads two columns of a row group, and adds the sales up by city.
fn totals(group: &RowGroup) -> Result<Totals, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&group.file)?)?;
    let columns = ProjectionMask::columns(reader.parquet_schema(), ["city", "cents"]);
    let mut sums = Totals::new();
    for batch in reader.with_projection(columns).with_row_groups(vec![group.number]).build()? {
        let batch = batch?;
        let (cities, cents) = (batch["city"].as_string::<i32>(), batch["cents"].as_primitive::<Int64Type>());
        let mut totals: HashMap<&str, Total, FxBuildHasher> = HashMap::default();
        for (row, &cents) in cents.values().iter().enumerate() {
            totals.entry(cities.value(row)).or_default().add(Total { sales: 1, cents });
        }
        sums = merged(sums, totals.into_iter().map(|(city, total)| (city.to_owned(), total)));
    }
    Ok(sums)
}

fn merged(mut sum: Totals, more: impl IntoIterator<Item = (String, Total)>) -> Totals {
    for (city, total) in more {
        sum.entry(city).or_default().add(total);
    }
    sum
}

/// Adds sales in Parquet files up by city, with a task for each row group and a tree of tasks that merge.
#[derive(Parser)]
struct Options {
    /// How many files are made and read.
    #[arg(long, value_name = "N", default_value_t = 4)]
    files: usize,

    /// How many rows a file has.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    rows: usize,

    /// How many rows a row group has, and so a task.
    #[arg(long, value_name = "N", default_value = "250000")]
    group: NonZeroUsize,

    /// How many of the cities with the largest sums to show.
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,

    /// Where the directory of the files is made, which is removed at the end. Default: that of temporary files.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,

    /// Add all sales up again in one pass, without Mobula and without Parquet, and fail if anything differs.
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
    let directory = match &options.directory {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let files = make_files(directory.path(), options)?;
    let groups = row_groups(&files)?;

    let started = Instant::now();
    let totals = group_by(&groups)?;
    let seconds = started.elapsed().as_secs_f64();
    let rows = options.files * options.rows;
    print(&format!(
        "{rows} sales in {} row groups of {} files, {} cities, in {seconds:.3} s\n",
        groups.len(),
        files.len(),
        totals.len()
    ))?;
    let mut by_sum: Vec<_> = totals.iter().collect();
    by_sum.sort_by_key(|(_, total)| -total.cents);
    for (city, Total { sales, cents }) in by_sum.into_iter().take(options.top) {
        print(&format!("{city:>16} {sales:>9} sales, {:>14.2}\n", *cents as f64 / 100.0))?;
    }
    if options.check {
        check(&totals, &expected(options))?;
        print(&format!("check: sales {rows}, cities {}: ok\n", totals.len()))?;
    }
    if let Some(times) = options.compare {
        print(&compare(times, &groups, &expected(options))?)?;
    }
    Ok(())
}

/// The totals of all row groups.
fn group_by(groups: &[RowGroup]) -> mobula::Result<Totals> {
    let totals: Vec<_> = groups.iter().cloned().map(add_sales_up::remote).collect();
    let all = mobula::util::reduce(&totals, merge::remote);
    let bar = progress_bar(totals.len(), "row groups");
    for _ in mobula::as_completed(&totals) {
        bar.inc(1);
    }
    // If a row group fails, so do the merges that depend on it, and the last one has the reason.
    all.map_or_else(|| Ok(Totals::new()), |all| all.get())
}

/// The same with this thread alone.
fn group_by_one_thread(groups: &[RowGroup]) -> Result<Totals, ParquetError> {
    groups.iter().try_fold(Totals::new(), |sum, group| Ok(merged(sum, totals(group)?)))
}

/// The same with rayon's threads.
fn group_by_rayon(groups: &[RowGroup]) -> Result<Totals, ParquetError> {
    groups.par_iter().map(totals).try_reduce(Totals::new, |sum, more| Ok(merged(sum, more)))
}

/// The times of adding up files that the system has in memory.
fn compare(times: NonZeroUsize, groups: &[RowGroup], expected: &Totals) -> Outcome<String> {
    let mut rows = ["Mobula", "one thread", "rayon"].map(Times::new);
    let [mobula, one_thread, rayon] = &mut rows;
    for _ in 0..times.get() {
        check(&mobula.measure(|| Ok(group_by(groups)?))?, expected)?;
        check(&one_thread.measure(|| Ok(group_by_one_thread(groups)?))?, expected)?;
        check(&rayon.measure(|| Ok(group_by_rayon(groups)?))?, expected)?;
    }
    Ok(table(&rows, times))
}

// ---- the files ----

const CITIES: usize = 1000;

/// Makes all files, with a task for each.
fn make_files(directory: &Path, options: &Options) -> mobula::Result<Vec<PathBuf>> {
    let path = |file| directory.join(format!("sales-{file}.parquet"));
    let files: Vec<PathBuf> = (0..options.files).map(path).collect();
    let (rows, group) = (options.rows, options.group.get());
    let paths = files.iter().cloned().enumerate();
    mobula::get(paths.map(|(file, path)| make_file::remote(path, file, rows, group)))?;
    Ok(files)
}

/// Writes a file.
#[mobula::remote]
fn make_file(path: PathBuf, file: usize, rows: usize, group: usize) -> Result<(), ParquetError> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    // Without rows it has its columns all the same.
    let schema = sales(file, 0..0)?.schema();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, Some(properties))?;
    for first in (0..rows).step_by(group) {
        writer.write(&sales(file, first..rows.min(first + group))?)?;
    }
    writer.close()?;
    Ok(())
}

/// The row groups that the files say they have.
fn row_groups(files: &[PathBuf]) -> Result<Vec<RowGroup>, ParquetError> {
    let mut groups = Vec::new();
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
        let numbers = 0..reader.metadata().num_row_groups();
        groups.extend(numbers.map(|number| RowGroup { file: file.clone(), number }));
    }
    Ok(groups)
}

fn sales(file: usize, rows: std::ops::Range<usize>) -> Result<RecordBatch, ArrowError> {
    let names: Vec<String> = (0..CITIES).map(name).collect();
    let ids = Int64Array::from_iter_values(rows.clone().map(|row| row as i64));
    let cities = StringArray::from_iter_values(rows.clone().map(|row| &names[sale(file, row).0]));
    let cents = Int64Array::from_iter_values(rows.map(|row| sale(file, row).1));
    let columns: [(&str, ArrayRef); 3] =
        [("sale", Arc::new(ids)), ("city", Arc::new(cities)), ("cents", Arc::new(cents))];
    RecordBatch::try_from_iter(columns)
}

/// The city of a sale, and its cents.
fn sale(file: usize, row: usize) -> (usize, i64) {
    let random = scrambled(((file as u64) << 32) + row as u64);
    ((random % CITIES as u64) as usize, ((random >> 32) % 100_000) as i64)
}

fn name(city: usize) -> String {
    format!("city {city:03}")
}

/// The totals, from the numbers that the sales are made of.
fn expected(options: &Options) -> Totals {
    let mut totals = vec![Total::default(); CITIES];
    for (file, row) in (0..options.files).flat_map(|file| (0..options.rows).map(move |row| (file, row))) {
        let (city, cents) = sale(file, row);
        totals[city].add(Total { sales: 1, cents });
    }
    let named = totals.into_iter().enumerate().map(|(city, total)| (name(city), total));
    named.filter(|(_, total)| total.sales > 0).collect()
}

/// Compares totals with what they must be.
fn check(found: &Totals, expected: &Totals) -> Outcome {
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
