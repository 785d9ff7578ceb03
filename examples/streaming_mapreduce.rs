//! Word counts of streams of articles, with two kinds of actors: mappers that read, and reducers that add up.
//!
//! Each mapper streams some of the articles; each reducer is responsible for the words with certain first letters, and
//! holds a handle to every mapper. In round *i* every reducer asks every mapper for the counts of its *i*-th article.

use std::process::ExitCode;

use clap::Parser;
use mobula::prelude::*;
use mobula_examples::articles::deal;
use mobula_examples::check::{Expected, same};
use mobula_examples::output::{Outcome, exit_code, print, print_json, print_note, progress_bar};
use mobula_examples::report::{Report, Round, Total};
use mobula_examples::words::{self, Counts, Keys, add, parse_reducers, partition};
use mobula_examples::{Article, ArticleError, WordOptions};

/// Reads a stream of articles, no further than it has been asked for.
struct Mapper {
    title_stream: Vec<Article>,
    /// The counts so far: the reducers come for the same article one after the other, each for its own letters.
    counted: Vec<Counts>,
}

#[mobula::remote]
impl Mapper {
    fn new(title_stream: Vec<Article>) -> Self {
        Self { title_stream, counted: Vec::new() }
    }

    /// The words of the article of this index whose first letter lies between `keys[0]` and `keys[1]`; none when the
    /// stream has ended before. Reads the articles up to this one that have not been read.
    fn get_range(&mut self, article_index: usize, keys: Keys) -> Result<Counts, ArticleError> {
        // An article that cannot be read stays the next one, so that every reducer gets the error.
        let unread = self.title_stream.iter().take(article_index.saturating_add(1)).skip(self.counted.len());
        for article in unread {
            self.counted.push(words::count(&article.read()?));
        }
        let counted = self.counted.get(article_index);
        Ok(counted.map(|counts| words::in_range(counts, keys)).unwrap_or_default())
    }
}

/// Adds up the mappers' counts of the words with certain first letters.
struct Reducer {
    keys: Keys,
    mappers: Vec<ActorHandle<Mapper>>,
    /// The first article of each mapper that has not been asked for.
    next_article_index: usize,
    accumulated: Counts,
}

#[mobula::remote]
impl Reducer {
    fn new(keys: Keys, mappers: Vec<ActorHandle<Mapper>>) -> Self {
        Self { keys, mappers, next_article_index: 0, accumulated: Counts::new() }
    }

    /// Gets the articles up to `article_index` that have not been asked for from all mappers at once, and accumulates
    /// their counts. Returns the counts of these articles.
    fn next_reduce_result(&mut self, article_index: usize) -> mobula::Result<Counts> {
        let mut added = Counts::new();
        while self.next_article_index <= article_index {
            let ranges =
                self.mappers.iter().map(|mapper| mapper.get_range(self.next_article_index, self.keys));
            for counts in mobula::get(ranges)? {
                add(&mut added, &counts);
            }
            self.next_article_index += 1;
        }
        add(&mut self.accumulated, &added);
        Ok(added)
    }

    /// The counts of all articles so far.
    fn accumulated(&self) -> Counts {
        self.accumulated.clone()
    }
}

/// Counts the words of a collection of texts in rounds: mappers stream the texts, reducers add their counts up.
///
/// The articles, sorted by name, are dealt to the mappers in turn: of M mappers, mapper m streams the articles m, m+M,
/// and so on, and in round i everyone is at the i-th article of each stream. The letters a to z are split evenly among
/// the reducers. A word is a run of ASCII letters, in lower case.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    words: WordOptions,

    /// How many mappers read, each in a process of its own.
    #[arg(long, value_name = "M", default_value_t = 3, value_parser = parse_mappers)]
    mappers: usize,

    /// How many reducers add up, each in a process of its own: 1 to 26.
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = parse_reducers)]
    reducers: usize,

    /// How many rounds to count, if the streams do not end before. Default: until they end.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// Processes are not for free: a machine of today bears about this many.
const MAPPERS_MAX: usize = 256;

fn parse_mappers(text: &str) -> Result<usize, String> {
    match text.parse().map_err(|error| format!("{error}"))? {
        mappers @ 1..=MAPPERS_MAX => Ok(mappers),
        _ => Err(format!("there can be 1 to {MAPPERS_MAX} mappers, each of which is a process")),
    }
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Outcome {
    let articles = options.words.articles.find()?;
    let streams = deal(&articles, options.mappers);
    let longest = streams.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = options.rounds.map_or(longest, |rounds| rounds.min(longest));

    let counted = count(streams, options.reducers, rounds)?;

    let top = options.words.top;
    let each = counted.rounds.iter().enumerate();
    let each = each.map(|(round, counts)| Round::new(round, counts, top)).collect();
    let report = Report { rounds: Some(each), total: Total::new(&counted.total, top) };
    match options.words.json {
        true => print_json(&report)?,
        false => print(&report.to_text())?,
    }
    if options.words.check {
        let checked = check(&articles, options, &counted, &report)?;
        print_note(&checked, options.words.json)?;
    }
    Ok(())
}

/// The counts that came back.
struct Counted {
    rounds: Vec<Counts>,
    total: Counts,
}

fn count(streams: Vec<Vec<Article>>, reducers: usize, rounds: usize) -> mobula::Result<Counted> {
    let _mobula = mobula::init()?;
    let mappers: Vec<ActorHandle<Mapper>> = streams.into_iter().map(Mapper::remote).collect();
    let reducers: Vec<ActorHandle<Reducer>> =
        partition(reducers).into_iter().map(|keys| Reducer::remote(keys, mappers.clone())).collect();

    let progress = progress_bar(rounds, "rounds");
    let mut counted = Vec::new();
    for article_index in 0..rounds {
        let counts = mobula::get(reducers.iter().map(|reducer| reducer.next_reduce_result(article_index)))?;
        counted.push(joined(&counts));
        progress.inc(1);
    }
    drop(progress);
    let total = joined(&mobula::get(reducers.iter().map(|reducer| reducer.accumulated()))?);
    Ok(Counted { rounds: counted, total })
}

/// The counts of all reducers together.
fn joined(counts: &[Counts]) -> Counts {
    let mut all = Counts::new();
    counts.iter().for_each(|counts| add(&mut all, counts));
    all
}

/// Compares everything with a count in this process, and returns the text about it.
fn check(articles: &[Article], options: &Options, counted: &Counted, report: &Report) -> Outcome<String> {
    let top = options.words.top;
    let reported = report.rounds.as_deref().unwrap_or_default();
    // In each round every mapper reads one article, and they were dealt in turn: a round is the next few of them.
    let expected: Vec<&[Article]> = articles.chunks(options.mappers).take(counted.rounds.len()).collect();
    same("rounds".to_owned(), reported.len() as u64, expected.len() as u64)?;
    for ((counts, round), articles) in counted.rounds.iter().zip(reported).zip(&expected) {
        let (expected, place) = (Expected::of(articles)?, format!("round {}", round.round));
        expected.compare(&place, counts)?;
        expected.compare_words(&place, round.words)?;
        expected.compare_top(&place, &round.top, top)?;
    }
    let (expected, total) = (Expected::of(&expected.concat())?, &report.total);
    expected.compare("total", &counted.total)?;
    expected.compare_words("total", total.words)?;
    expected.compare_distinct("total", total.distinct)?;
    expected.compare_top("total", &total.top, top)?;
    let (rounds, words, distinct) = (reported.len(), expected.words(), expected.distinct());
    Ok(format!("check: rounds {rounds}, words {words}, distinct {distinct}: ok"))
}
