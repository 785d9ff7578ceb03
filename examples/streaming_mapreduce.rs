//! Word counts of streams of articles, with two kinds of actors: mappers that read, and reducers that add up.
//!
//! Each mapper streams some of the articles; each reducer is responsible for the words with certain first letters, and
//! holds a handle to every mapper. In a round every reducer asks every mapper for the counts of its next articles. The
//! driver has a few rounds under way at once, so no mapper waits for another.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;
use mobula::prelude::*;
use mobula_examples::articles::deal;
use mobula_examples::check::{Expected, same};
use mobula_examples::compare::compare;
use mobula_examples::output::{Outcome, exit_code, print, print_json, print_note, progress_bar};
use mobula_examples::report::{Report, Round, Total};
use mobula_examples::words::{Counts, Keys, Tally, joined, letters, parse_reducers, partition};
use mobula_examples::{Article, ArticleError, WordOptions};

/// Reads a stream of articles, no further than it has been asked for.
struct Mapper {
    title_stream: VecDeque<Article>,
    /// The index of the first article of the stream, which is the next to be read.
    next_article_index: usize,
    tally: Tally,
    text: Vec<u8>,
    /// Counts that not all reducers have come for, by first letter, each with the index of its last article.
    counted: VecDeque<(usize, [Counts; 26])>,
}

#[mobula::remote]
impl Mapper {
    fn new(title_stream: Vec<Article>) -> Self {
        Self {
            title_stream: title_stream.into(),
            next_article_index: 0,
            tally: Tally::default(),
            text: Vec::new(),
            counted: VecDeque::new(),
        }
    }

    /// The words whose first letter lies between `keys[0]` and `keys[1]` in the articles up to this index of which
    /// these words have not been asked for; none when the stream has ended before.
    fn get_range(&mut self, article_index: usize, keys: Keys) -> Result<Counts, ArticleError> {
        self.read(article_index)?;
        let mut range = Counts::default();
        for (_, counts) in self.counted.iter_mut().take_while(|(last, _)| *last <= article_index) {
            for counts in &mut counts[letters(keys)] {
                range.append(&std::mem::take(counts));
            }
        }
        while self.counted.pop_front_if(|(_, counts)| counts.iter().all(|c| c.distinct() == 0)).is_some() {}
        Ok(range)
    }
}

impl Mapper {
    /// Reads the articles up to this one that have not been read.
    fn read(&mut self, article_index: usize) -> Result<(), ArticleError> {
        if self.next_article_index > article_index {
            return Ok(());
        }
        while self.next_article_index <= article_index
            && let Some(article) = self.title_stream.front()
        {
            // An article that cannot be read stays the next one, so that every reducer gets the error.
            article.read(&mut self.text)?;
            self.tally.count(&mut self.text);
            self.title_stream.pop_front();
            self.next_article_index += 1;
        }
        self.counted.push_back((article_index, self.tally.by_letter()));
        self.tally.reset();
        Ok(())
    }
}

/// Adds up the mappers' counts of the words with certain first letters.
struct Reducer {
    keys: Keys,
    mappers: Vec<ActorHandle<Mapper>>,
    /// The counts that the mappers have been asked for, each with the index of the last article of each stream.
    asked: VecDeque<(usize, Vec<ObjectRef<Counts>>)>,
    added: Tally,
    accumulated: Tally,
}

#[mobula::remote]
impl Reducer {
    fn new(keys: Keys, mappers: Vec<ActorHandle<Mapper>>) -> Self {
        let (added, accumulated) = (Tally::default(), Tally::default());
        Self { keys, mappers, asked: VecDeque::new(), added, accumulated }
    }

    /// Asks all mappers at once for the articles up to `article_index`, and waits for none: they count while this
    /// reducer adds up the articles before.
    fn ask(&mut self, article_index: usize) {
        let ranges = self.mappers.iter().map(|mapper| mapper.get_range(article_index, self.keys)).collect();
        self.asked.push_back((article_index, ranges));
    }

    /// Gets the articles up to `article_index` that have not been got from the mappers, and accumulates their counts.
    /// Returns the counts of these articles.
    fn next_reduce_result(&mut self, article_index: usize) -> mobula::Result<Counts> {
        if self.asked.back().is_none_or(|(asked, _)| *asked < article_index) {
            self.ask(article_index);
        }
        while let Some((_, ranges)) = self.asked.pop_front_if(|(asked, _)| *asked <= article_index) {
            for counts in mobula::get(ranges)? {
                self.added.add(&counts);
            }
        }
        let added = self.added.counts();
        self.added.reset();
        self.accumulated.add(&added);
        Ok(added)
    }

    /// The counts of all articles so far.
    fn accumulated(&self) -> Counts {
        self.accumulated.counts()
    }
}

/// Counts the words of a collection of texts in rounds: mappers stream the texts, reducers add their counts up.
///
/// The articles, sorted by name, are dealt to the mappers in turn: of M mappers, mapper m streams the articles m, m+M,
/// and so on. In a round everyone goes on by the same number of articles. The letters a to z are split evenly among the
/// reducers. A word is a run of ASCII letters, in lower case.
#[derive(Parser)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) words: WordOptions,

    /// How many mappers read, each in a process of its own.
    #[arg(long, value_name = "M", default_value_t = 3, value_parser = parse_mappers)]
    mappers: usize,

    /// How many reducers add up, each in a process of its own: 1 to 26.
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = parse_reducers)]
    reducers: usize,

    /// How many rounds to count, if the streams do not end before. Default: until they end.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,

    /// How many articles of each stream make a round. Default: as many that 16 rounds suffice.
    #[arg(long, value_name = "N")]
    articles_per_round: Option<NonZeroUsize>,
}

impl Options {
    fn articles_per_round(&self, parts: &[Article]) -> usize {
        let longest = parts.len().div_ceil(self.mappers);
        self.articles_per_round.map_or(longest.div_ceil(ROUNDS), NonZeroUsize::get)
    }

    /// The rounds until the streams end, or as many as were asked for.
    fn rounds(&self, parts: &[Article]) -> usize {
        let longest = parts.len().div_ceil(self.mappers);
        longest.div_ceil(self.articles_per_round(parts)).min(self.rounds.unwrap_or(usize::MAX))
    }
}

/// Rounds that there are by default, at most: in short ones messages would take more time than words.
const ROUNDS: usize = 16;
/// Rounds that are under way at once. More of them make mappers independent of each other, and take more memory.
const ROUNDS_AHEAD: usize = 3;

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
    let parts = options.words.articles.in_parts(&articles);
    let top = options.words.top;
    if let Some(times) = options.words.compare {
        let with_mobula = || {
            let _mobula = mobula::init()?;
            let total = count(&parts, options, |counts| drop(Round::new(0, &counts, top)))?;
            Ok(Total::new(&total, top))
        };
        let table = compare(times, &parts, top, with_mobula)?;
        return Ok(print(&table)?);
    }

    let _mobula = mobula::init()?;
    let (mut rounds, mut counted) = (Vec::new(), Vec::new());
    let total = count(&parts, options, |counts| {
        rounds.push(Round::new(rounds.len(), &counts, top));
        if options.words.check {
            counted.push(counts);
        }
    })?;
    let report = Report { rounds: Some(rounds), total: Total::new(&total, top) };
    match options.words.json {
        true => print_json(&report)?,
        false => print(&report.to_text())?,
    }
    if options.words.check {
        let checked = check(&articles, &parts, options, &Counted { rounds: counted, total }, &report)?;
        print_note(&checked, options.words.json)?;
    }
    Ok(())
}

/// Counts all words. Calls `on_round` with the counts of each round, in order.
pub(crate) fn count(
    parts: &[Article],
    options: &Options,
    mut on_round: impl FnMut(Counts),
) -> mobula::Result<Counts> {
    let streams = deal(parts, options.mappers);
    let mappers: Vec<ActorHandle<Mapper>> = streams.into_iter().map(Mapper::remote).collect();
    let ranges = partition(options.reducers).into_iter();
    let reducers: Vec<ActorHandle<Reducer>> =
        ranges.map(|keys| Reducer::remote(keys, mappers.clone())).collect();

    let rounds = options.rounds(parts);
    let progress = progress_bar(rounds, "rounds");
    let last_article = |round: usize| (round + 1) * options.articles_per_round(parts) - 1;
    let ask = |round| reducers.iter().for_each(|reducer| drop(reducer.ask(last_article(round))));
    (0..rounds.min(ROUNDS_AHEAD)).for_each(ask);
    for round in 0..rounds {
        let results = reducers.iter().map(|reducer| reducer.next_reduce_result(last_article(round)));
        let counts = mobula::get(results)?;
        if round + ROUNDS_AHEAD < rounds {
            ask(round + ROUNDS_AHEAD);
        }
        on_round(joined(&counts));
        progress.inc(1);
    }
    drop(progress);
    Ok(joined(&mobula::get(reducers.iter().map(|reducer| reducer.accumulated()))?))
}

/// The counts that came back.
struct Counted {
    rounds: Vec<Counts>,
    total: Counts,
}

/// Compares everything with a count in this process, and returns the text about it.
fn check(
    articles: &[Article],
    parts: &[Article],
    options: &Options,
    counted: &Counted,
    report: &Report,
) -> Outcome<String> {
    let top = options.words.top;
    let reported = report.rounds.as_deref().unwrap_or_default();
    // In each round every mapper reads the same number of articles, and they were dealt in turn: a round is the next
    // few of them.
    let per_round = options.mappers * options.articles_per_round(parts);
    let rounds: Vec<&[Article]> = parts.chunks(per_round).take(counted.rounds.len()).collect();
    same("rounds".to_owned(), reported.len() as u64, options.rounds(parts) as u64)?;
    for ((counts, round), articles) in counted.rounds.iter().zip(reported).zip(&rounds) {
        let (expected, place) = (Expected::of(articles)?, format!("round {}", round.round));
        expected.compare(&place, counts)?;
        expected.compare_words(&place, round.words)?;
        expected.compare_top(&place, &round.top, top)?;
    }
    let read = rounds.concat();
    // All parts together are the files as they were.
    let expected = Expected::of(if read.len() == parts.len() { articles } else { &read })?;
    let total = &report.total;
    expected.compare("total", &counted.total)?;
    expected.compare_words("total", total.words)?;
    expected.compare_distinct("total", total.distinct)?;
    expected.compare_top("total", &total.top, top)?;
    let (rounds, words, distinct) = (reported.len(), expected.words(), expected.distinct());
    Ok(format!("check: rounds {rounds}, words {words}, distinct {distinct}: ok"))
}
