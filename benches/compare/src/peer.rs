//! This program as another process: a contender's side, seen from within.
//!
//! A side takes commands from standard input, a line each, and answers each with a line: `ok FIGURE`, `error TEXT`
//! when it cannot be measured, `wrong TEXT` when a result is not the expected one. It ends when its input does, so
//! none outlives the harness. `side.rs` is the harness's end of it; the sides in C++ and Python speak the same.
//! `sides.rs` has the sides.

use std::error::Error;
use std::fmt;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use crate::measure::median;

/// The reason why there is no figure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be measured.
    Error(String),
    /// It was measured, and the result is wrong.
    Wrong(String),
}

impl Failure {
    /// The text of either.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Error(text) | Self::Wrong(text) => text,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(text) => write!(f, "error {text}"),
            Self::Wrong(text) => write!(f, "wrong {text}"),
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.to_string())
    }
}

/// The answer to a command.
pub(crate) type Figure = Result<f64, Failure>;

/// Fails with a wrong result unless the condition holds.
pub(crate) fn check(condition: bool, what: &str) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(Failure::Wrong(what.to_owned())) }
}

/// An error in words.
pub(crate) fn error<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Error(text.into()))
}

/// Takes commands until there are no more. `work` gets a command's words.
pub(crate) fn serve(mut work: impl FnMut(&[&str]) -> Figure) -> Result<(), Failure> {
    let mut answers = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match work(&words) {
            Ok(figure) => format!("ok {figure:e}"),
            Err(failure) => failure.to_string().replace('\n', " "),
        };
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

/// The budget of a command, in the words of the protocol: milliseconds.
pub(crate) fn budget(word: &str) -> Result<Duration, Failure> {
    Ok(Duration::from_millis(word.parse()?))
}

/// The median time of one of the things that `batch` does so many of, in seconds; as many batches as the budget allows.
pub(crate) fn median_of_batches(
    budget: Duration,
    count: usize,
    mut batch: impl FnMut() -> Result<(), Failure>,
) -> Figure {
    // The first goes into cold caches, and maybe into cold memory.
    batch()?;
    median_of(budget, || {
        let start = Instant::now();
        batch()?;
        Ok(start.elapsed().as_secs_f64() / count as f64)
    })
}

/// The median of the figures of `one`, called as often as the budget allows, and at least once.
pub(crate) fn median_of(budget: Duration, mut one: impl FnMut() -> Figure) -> Figure {
    let (start, mut figures) = (Instant::now(), Vec::new());
    loop {
        figures.push(one()?);
        if start.elapsed() >= budget {
            return median(&figures).ok_or_else(|| Failure::Error("nothing was measured".into()));
        }
    }
}

/// Bytes of which no two neighbours, and no two pages, are the same.
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect()
}

/// The sum of bytes as words of eight, which touches all of them.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |total: u64, word| total.wrapping_add(u64::from_ne_bytes(*word)))
}

/// As much of a check as costs nothing.
#[inline]
pub(crate) fn same_ends(found: &[u8], value: &[u8]) -> Result<(), Failure> {
    let same = found.len() == value.len() && found.first() == value.first() && found.last() == value.last();
    if same { Ok(()) } else { Err(Failure::Wrong("other bytes than were put".into())) }
}
