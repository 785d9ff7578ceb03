//! The output of the word counts: one JSON object, or a table for people.

use std::cmp::Reverse;
use std::fmt::Write;

use serde::Serialize;

use crate::words::Counts;

/// A word and how often it occurs.
pub type Frequency = (String, u64);

/// All that was counted.
#[derive(Debug, PartialEq, Serialize)]
pub struct Report {
    /// Each round, where the program has rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<Vec<Round>>,
    /// All rounds together.
    pub total: Total,
}

/// The words that one round added.
#[derive(Debug, PartialEq, Serialize)]
pub struct Round {
    /// The number of the round; the first is 0.
    pub round: usize,
    /// Words, repetitions included.
    pub words: u64,
    /// The round's most frequent words.
    pub top: Vec<Frequency>,
}

impl Round {
    /// The report on a round with these counts, with the `top_count` most frequent words.
    pub fn new(round: usize, counts: &Counts, top_count: usize) -> Self {
        Self { round, words: counts.words(), top: top(counts, top_count) }
    }
}

/// The words of all rounds.
#[derive(Debug, PartialEq, Serialize)]
pub struct Total {
    /// Words, repetitions included.
    pub words: u64,
    /// Different words.
    pub distinct: u64,
    /// The most frequent words.
    pub top: Vec<Frequency>,
}

impl Total {
    /// The report on these counts, with the `top_count` most frequent words.
    pub fn new(counts: &Counts, top_count: usize) -> Self {
        Self { words: counts.words(), distinct: counts.distinct(), top: top(counts, top_count) }
    }
}

impl Report {
    /// The report as text with a line end.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(rounds) = &self.rounds {
            let _ = writeln!(text, "{:>5}  {:>9}  most frequent", "round", "words");
            for Round { round, words, top } in rounds {
                let top: Vec<_> = top.iter().map(|(word, count)| format!("{word} {count}")).collect();
                let _ = writeln!(text, "{round:>5}  {words:>9}  {}", top.join(", "));
            }
            text.push('\n');
        }
        let Total { words, distinct, top } = &self.total;
        let _ = writeln!(text, "total: {words} words, {distinct} of them different");
        for (word, count) in top {
            let _ = writeln!(text, "{count:>9}  {word}");
        }
        text
    }
}

/// The most frequent words; of equally frequent ones those that come first in the alphabet.
fn top(counts: &Counts, count: usize) -> Vec<Frequency> {
    let mut words: Vec<_> = counts.iter().map(|(word, count)| (Reverse(count), word)).collect();
    if let Some(last) = count.min(words.len()).checked_sub(1) {
        words.select_nth_unstable(last);
    }
    words.truncate(count);
    words.sort_unstable();
    let text = |word| String::from_utf8_lossy(word).into_owned();
    words.into_iter().map(|(Reverse(count), word)| (text(word), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_in_the_alphabets_order() {
        let mut tally = crate::words::Tally::default();
        tally.count(&mut b"b c a b c d e e e".to_vec());
        let counts = tally.counts();
        let names = |count| top(&counts, count).into_iter().map(|(word, _)| word).collect::<Vec<_>>();
        assert_eq!(names(0), [""; 0]);
        assert_eq!(names(2), ["e", "b"]);
        assert_eq!(names(9), ["e", "b", "c", "a", "d"]);
    }
}
