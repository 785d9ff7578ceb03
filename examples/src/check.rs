//! Counting the same words once more, as plainly as possible, to check the programs against.
//!
//! This shares no code with [`words`](crate::words), so that a mistake there is seen here: letter by letter with the
//! words as bytes, the number of words counted on its own, and no ranges of letters. Files are read whole, also where
//! only a part of one is counted.

use std::collections::HashMap;
use std::fs;

use crate::report::Frequency;
use crate::words::Counts;
use crate::{Article, ArticleError};

/// The words of some articles.
#[derive(Debug, Default)]
pub struct Expected {
    counts: HashMap<Vec<u8>, u64>,
    words: u64,
}

/// A count that differs from the expected one.
#[derive(Debug, thiserror::Error)]
#[error("check failed: {what}: {found} counted, {expected} expected")]
pub struct Difference {
    what: String,
    found: u64,
    expected: u64,
}

impl Expected {
    /// Counts the words of some articles.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn of(articles: &[Article]) -> Result<Self, ArticleError> {
        let mut expected = Self::default();
        for article in articles {
            let path = article.path();
            let unreadable = |error| ArticleError::Unreadable { path: path.to_owned(), error };
            let (text, begins) = (fs::read(path).map_err(unreadable)?, article.bytes());
            // From the word that goes on where the article begins.
            let start = text.len().min(begins.start as usize);
            let start = text[..start].iter().rposition(|byte| !byte.is_ascii_alphabetic()).unwrap_or(0);
            let mut word = Vec::new();
            // The byte at the end, which is no letter, ends a last word.
            for (at, byte) in (start as u64..).zip(text[start..].iter().copied().chain([0])) {
                if word.is_empty() && at >= begins.end {
                    break;
                }
                match byte {
                    b'a'..=b'z' => word.push(byte),
                    b'A'..=b'Z' => word.push(byte - b'A' + b'a'),
                    _ if word.is_empty() => {}
                    _ => {
                        let word = std::mem::take(&mut word);
                        if begins.contains(&(at - word.len() as u64)) {
                            expected.words += 1;
                            *expected.counts.entry(word).or_insert(0) += 1;
                        }
                    }
                }
            }
        }
        Ok(expected)
    }

    /// Words, repetitions included.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// Different words.
    pub fn distinct(&self) -> u64 {
        self.counts.len() as u64
    }

    /// Compares every word's count with the reported counts of `place`.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, place: &str, found: &Counts) -> Result<(), Difference> {
        let mut counts = HashMap::new();
        for (word, count) in found.iter() {
            *counts.entry(word).or_insert(0) += count;
        }
        let differing = |word: &[u8], found, expected| {
            same(format!("{place}, {:?}", String::from_utf8_lossy(word)), found, expected)
        };
        for (word, &count) in &counts {
            differing(word, count, self.counts.get(*word).copied().unwrap_or(0))?;
        }
        // Every word that was counted is as expected; so the only mistake left is that others were not counted at all,
        // or stand there twice.
        for (word, &expected) in &self.counts {
            differing(word, counts.get(&**word).copied().unwrap_or(0), expected)?;
        }
        same(format!("{place}, entries"), found.distinct(), self.distinct())
    }

    /// Compares the most frequent words that were reported for `place`, of which `top_count` were wanted.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare_top(&self, place: &str, top: &[Frequency], top_count: usize) -> Result<(), Difference> {
        let mut frequencies: Vec<_> = self.counts.iter().collect();
        frequencies
            .sort_by(|(word, count), (other, other_count)| other_count.cmp(count).then(word.cmp(other)));
        frequencies.truncate(top_count);
        same(format!("{place}, most frequent words"), top.len() as u64, frequencies.len() as u64)?;
        for (rank, ((word, count), (expected, expected_count))) in top.iter().zip(frequencies).enumerate() {
            let (rank, expected) = (rank + 1, String::from_utf8_lossy(expected));
            let what = format!("{place}, most frequent word {rank}, {word:?} where {expected:?} belongs");
            // A wrong word is a difference even if it is as frequent.
            let expected_count = if *word == expected { *expected_count } else { 0 };
            same(what, *count, expected_count)?;
        }
        Ok(())
    }

    /// Compares the numbers that were reported for `place`.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare_words(&self, place: &str, words: u64) -> Result<(), Difference> {
        same(format!("{place}, words"), words, self.words())
    }

    /// As [`compare_words`](Self::compare_words), for the number of different ones.
    ///
    /// # Errors
    /// The difference.
    pub fn compare_distinct(&self, place: &str, distinct: u64) -> Result<(), Difference> {
        same(format!("{place}, distinct words"), distinct, self.distinct())
    }
}

/// Compares two numbers.
///
/// # Errors
/// If they differ.
pub fn same(what: String, found: u64, expected: u64) -> Result<(), Difference> {
    if found == expected { Ok(()) } else { Err(Difference { what, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Tally;

    #[test]
    fn a_difference_is_found_whichever_side_it_is_on() {
        let text = b"One two, two: three \xe9t\xe9 end";
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text).unwrap();
        let expected = Expected::of(&[file.path().to_owned().into()]).unwrap();
        assert_eq!((expected.words(), expected.distinct()), (6, 5));

        let mut tally = Tally::default();
        tally.count(&mut text.to_vec());
        let counts = tally.counts();
        expected.compare("the text", &counts).unwrap();
        let check = |changed: Vec<(&[u8], u64)>, message: &str| {
            let difference = expected.compare("the text", &Counts::from_iter(changed)).unwrap_err();
            assert_eq!(difference.to_string(), format!("check failed: the text, {message}"));
        };
        let each = || counts.iter();
        let one_more = |(word, count)| (word, count + u64::from(word == b"two"));
        check(each().map(one_more).collect(), "\"two\": 3 counted, 2 expected");
        check(each().filter(|(word, _)| word != b"three").collect(), "\"three\": 0 counted, 1 expected");
        check(each().chain([(&b"four"[..], 4)]).collect(), "\"four\": 4 counted, 0 expected");
        check(each().chain([(&b"two"[..], 0)]).collect(), "entries: 6 counted, 5 expected");

        let top = |words: &[(&str, u64)]| {
            let top: Vec<_> = words.iter().map(|&(word, count)| (word.to_owned(), count)).collect();
            expected.compare_top("the text", &top, 3)
        };
        top(&[("two", 2), ("end", 1), ("one", 1)]).unwrap();
        top(&[("two", 2), ("end", 1)]).unwrap_err();
        top(&[("two", 2), ("one", 1), ("end", 1)]).unwrap_err();
        top(&[("two", 2), ("end", 2), ("one", 1)]).unwrap_err();
    }
}
