//! Word counts with tasks that keep nothing: each map task returns an object for each reducer, and merges of two
//! objects into one are chained by giving one task's result to the next as its argument.
//!
//! The driver makes all calls at once and waits only for the last: a merge begins when both of its arguments are there,
//! and the counts never pass through the driver until they are complete.

use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser;
use mobula::prelude::*;
use mobula_examples::articles::deal;
use mobula_examples::check::Expected;
use mobula_examples::compare::compare;
use mobula_examples::output::{Outcome, exit_code, print, print_json, print_note, progress_bar};
use mobula_examples::report::{Report, Total};
use mobula_examples::words::{Counts, Tally, joined, letters, parse_reducers, partition};
use mobula_examples::{Article, ArticleError, WordOptions};

/// The words of some articles, separated by the reducer that their first letters belong to.
#[mobula::remote]
fn count_words(articles: Vec<Article>, reducers: usize) -> Result<Vec<Counts>, ArticleError> {
    let (mut tally, mut text) = (Tally::default(), Vec::new());
    for article in articles {
        article.read(&mut text)?;
        tally.count(&mut text);
    }
    let by_letter = tally.by_letter();
    Ok(partition(reducers).into_iter().map(|keys| joined(&by_letter[letters(keys)])).collect())
}

/// The sum of two counts.
#[mobula::remote]
fn merge(counts: Counts, more: Counts) -> Counts {
    let mut sum = Tally::default();
    sum.add(&counts);
    sum.add(&more);
    sum.counts()
}

/// Counts the words of a collection of texts with stateless tasks: map tasks count, reduce tasks merge their counts two
/// by two.
///
/// The articles, sorted by name, are dealt to the map tasks in turn. Each map task returns one result for each reducer;
/// the letters a to z are split evenly among these. A word is a run of ASCII letters, in lower case.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    words: WordOptions,

    /// How many map tasks share the articles: at most one for each. Default: 8 for each processor.
    #[arg(long, value_name = "M", value_parser = parse_tasks)]
    tasks: Option<usize>,

    /// Into how many ranges of first letters the counts are split, each reduced on its own: 1 to 26.
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = parse_reducers)]
    reducers: usize,
}

fn parse_tasks(text: &str) -> Result<usize, String> {
    match text.parse().map_err(|error| format!("{error}"))? {
        0 => Err("there is at least one task".to_owned()),
        tasks => Ok(tasks),
    }
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let articles = options.words.articles.find()?;
    let parts = options.words.articles.in_parts(&articles);
    let top = options.words.top;
    // Several for each processor, so that all are at work until the end; and not too many, each of which has results.
    let tasks = options.tasks.unwrap_or_else(|| 8 * available_parallelism().map_or(1, usize::from));
    let count = || count(deal(&parts, tasks.min(parts.len())), options.reducers);
    if let Some(times) = options.words.compare {
        let table = compare(times, &parts, top, || Ok(Total::new(&count()?, top)))?;
        return Ok(print(&table)?);
    }

    let counts = count()?;
    let report = Report { rounds: None, total: Total::new(&counts, top) };
    match options.words.json {
        true => print_json(&report)?,
        false => print(&report.to_text())?,
    }
    if options.words.check {
        print_note(&check(&articles, &counts, &report.total, top)?, options.words.json)?;
    }
    Ok(())
}

fn count(shares: Vec<Vec<Article>>, reducers: usize) -> mobula::Result<Counts> {
    let _mobula = mobula::init()?;
    let map_results: Vec<Vec<ObjectRef<Counts>>> = shares
        .into_iter()
        .map(|articles| count_words::num_returns(reducers).remote(articles, reducers))
        .collect();
    // The j-th result of each map task.
    let ranges = (0..reducers).map(|j| map_results.iter().map(|results| results[j].clone()).collect());
    let mut reduced: Vec<ObjectRef<Counts>> = ranges.map(merge_all).collect();

    let progress = progress_bar(reducers, "ranges of letters");
    let mut all = Counts::default();
    while !reduced.is_empty() {
        let (ready, rest) = mobula::wait(reduced, 1, None)?;
        for counts in mobula::get(ready)? {
            all.append(&counts);
            progress.inc(1);
        }
        reduced = rest;
    }
    drop(progress);
    Ok(all)
}

/// The sum of all `counts`, of which there is at least one, by merges of two neighbours: those of one level run side by
/// side.
fn merge_all(mut counts: Vec<ObjectRef<Counts>>) -> ObjectRef<Counts> {
    while counts.len() > 1 {
        let pairs = counts.chunks(2).map(|pair| match pair {
            [sum, more] => merge::remote(sum, more),
            rest => rest[0].clone(),
        });
        counts = pairs.collect();
    }
    counts.remove(0)
}

/// Compares everything with a count in this process, and returns the text about it.
fn check(articles: &[Article], counts: &Counts, total: &Total, top: usize) -> Outcome<String> {
    let expected = Expected::of(articles)?;
    expected.compare("total", counts)?;
    expected.compare_words("total", total.words)?;
    expected.compare_distinct("total", total.distinct)?;
    expected.compare_top("total", &total.top, top)?;
    Ok(format!("check: words {}, distinct {}: ok", expected.words(), expected.distinct()))
}
