//! Counting words.
//!
//! A word is a run of ASCII letters, as long as possible, in lower case. So bytes of any encoding that contains ASCII
//! can be counted, and a letter outside ASCII ends a word as a space does.
//!
//! Words are counted in a hash map ([`Tally`]), which finds a word in nanoseconds and makes no `String` for it. Between
//! processes, counts travel as two columns ([`Counts`]), which are encoded and decoded with one copy each.

use std::collections::HashMap;
use std::collections::hash_map::Iter;

use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// The first letters that a reducer is responsible for: from `keys[0]` to `keys[1]`, both included.
pub type Keys = [char; 2];

/// Reducers that there are letters for.
pub const REDUCERS_MAX: usize = 26;

/// Counts to add to.
#[derive(Debug, Default)]
pub struct Tally {
    counts: HashMap<Box<[u8]>, u64, FxBuildHasher>,
}

impl Tally {
    /// Adds the words of a text, which is put into lower case for that.
    pub fn count(&mut self, text: &mut [u8]) {
        text.make_ascii_lowercase();
        for word in text.split(|byte| !byte.is_ascii_lowercase()).filter(|word| !word.is_empty()) {
            self.add_word(word, 1);
        }
    }

    /// Adds other counts.
    pub fn add(&mut self, counts: &Counts) {
        counts.iter().for_each(|(word, count)| self.add_word(word, count));
    }

    /// Adds the counts of another tally.
    pub fn add_tally(&mut self, other: Self) {
        counted(other.counts.iter()).for_each(|(word, count)| self.add_word(word, count));
    }

    fn add_word(&mut self, word: &[u8], count: u64) {
        match self.counts.get_mut(word) {
            Some(sum) => *sum += count,
            None => {
                self.counts.insert(word.into(), count);
            }
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        counted(self.counts.iter()).collect()
    }

    /// The counts so far, each with the others of its first letter; `a` is first.
    pub fn by_letter(&self) -> [Counts; 26] {
        let mut letters = <[Counts; 26]>::default();
        for (word, count) in counted(self.counts.iter()) {
            letters[usize::from(word[0] - b'a')].push(word, count);
        }
        letters
    }

    /// Begins at zero. The words stay, because most of them come again: then no memory is allocated for them.
    pub fn reset(&mut self) {
        self.counts.values_mut().for_each(|count| *count = 0);
    }
}

/// The words that have been counted since the last reset.
fn counted<'a>(counts: Iter<'a, Box<[u8]>, u64>) -> impl Iterator<Item = (&'a [u8], u64)> {
    counts.map(|(word, &count)| (&**word, count)).filter(|&(_, count)| count > 0)
}

/// Words, and how often each occurs, in no order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Counts {
    /// The words, each with a space behind it.
    words: Vec<u8>,
    /// The count of each word.
    counts: Vec<u64>,
}

impl Counts {
    /// Each word and its count.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.words.split(|&byte| byte == b' ').zip(self.counts.iter().copied())
    }

    /// Words, repetitions included.
    pub fn words(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Different words.
    pub fn distinct(&self) -> u64 {
        self.counts.len() as u64
    }

    /// Puts the counts of other words behind these.
    pub fn append(&mut self, others: &Self) {
        self.words.extend_from_slice(&others.words);
        self.counts.extend_from_slice(&others.counts);
    }

    fn push(&mut self, word: &[u8], count: u64) {
        self.words.extend_from_slice(word);
        self.words.push(b' ');
        self.counts.push(count);
    }
}

impl<'a> FromIterator<(&'a [u8], u64)> for Counts {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], u64)>>(counted: I) -> Self {
        let mut counts = Self::default();
        counted.into_iter().for_each(|(word, count)| counts.push(word, count));
        counts
    }
}

/// Puts counts of different words together.
pub fn joined<'a>(parts: impl IntoIterator<Item = &'a Counts>) -> Counts {
    let mut all = Counts::default();
    parts.into_iter().for_each(|counts| all.append(counts));
    all
}

/// The places of the first letters `keys` in the alphabet.
pub fn letters([first, last]: Keys) -> std::ops::RangeInclusive<usize> {
    let place = |letter: char| letter as usize - 'a' as usize;
    place(first)..=place(last)
}

/// a–z in `reducers` ranges as even as they can be.
///
/// # Panics
/// If there are no reducers, or more than [`REDUCERS_MAX`].
pub fn partition(reducers: usize) -> Vec<Keys> {
    assert!((1..=REDUCERS_MAX).contains(&reducers), "{reducers} ranges of letters");
    let start = |range: usize| range * REDUCERS_MAX / reducers;
    let letter = |index: usize| char::from(b'a' + index as u8);
    (0..reducers).map(|range| [letter(start(range)), letter(start(range + 1) - 1)]).collect()
}

/// The number of reducers, from the command line.
///
/// # Errors
/// When there is no letter for each.
pub fn parse_reducers(text: &str) -> Result<usize, String> {
    let reducers: usize = text.parse().map_err(|error| format!("{error}"))?;
    match reducers {
        1..=REDUCERS_MAX => Ok(reducers),
        _ => Err(format!("the letters a–z are split among 1 to {REDUCERS_MAX} reducers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &[u8]) -> Tally {
        let mut tally = Tally::default();
        tally.count(&mut text.to_vec());
        tally
    }

    fn sorted(counts: &Counts) -> Vec<(String, u64)> {
        let text = |word: &[u8]| String::from_utf8(word.to_vec()).unwrap();
        let mut sorted: Vec<_> = counts.iter().map(|(word, count)| (text(word), count)).collect();
        sorted.sort();
        sorted
    }

    #[test]
    fn a_word_is_a_run_of_ascii_letters() {
        let check = |text: &[u8], expected: &[(&str, u64)]| {
            let expected: Vec<_> = expected.iter().map(|&(word, count)| (word.to_owned(), count)).collect();
            let counts = count(text).counts();
            assert_eq!(sorted(&counts), expected, "{}", text.escape_ascii());
            assert_eq!(counts.distinct(), expected.len() as u64);
            assert_eq!(counts.words(), expected.iter().map(|(_, count)| count).sum::<u64>());
        };
        check(b"", &[]);
        check(b" 1984 -- \xff", &[]);
        check(b"The the THE", &[("the", 3)]);
        check(b"don't", &[("don", 1), ("t", 1)]);
        check(b"_italic_,7th", &[("italic", 1), ("th", 1)]);
        check(b"OLM\xdcTZ", &[("olm", 1), ("tz", 1)]);
        check("Köchel".as_bytes(), &[("chel", 1), ("k", 1)]);
    }

    #[test]
    fn a_tally_adds_up_and_begins_again() {
        let mut tally = count(b"one two two");
        tally.add(&count(b"two three").counts());
        let expected = [("one", 1), ("three", 1), ("two", 3)].map(|(word, count)| (word.to_owned(), count));
        assert_eq!(sorted(&tally.counts()), expected);
        tally.reset();
        assert_eq!(sorted(&tally.counts()), []);
        assert!(tally.by_letter().iter().all(|counts| counts.distinct() == 0));
        tally.count(&mut b"two four".to_vec());
        assert_eq!(sorted(&tally.counts()), [("four".to_owned(), 1), ("two".to_owned(), 1)]);
    }

    #[test]
    fn the_ranges_are_even_and_leave_no_letter_out() {
        assert_eq!(partition(1), [['a', 'z']]);
        assert_eq!(partition(2), [['a', 'm'], ['n', 'z']]);
        for reducers in 1..=REDUCERS_MAX {
            let ranges = partition(reducers);
            let places: Vec<usize> = ranges.iter().flat_map(|&keys| letters(keys)).collect();
            assert_eq!(places, (0..26).collect::<Vec<_>>());
            let lengths = ranges.iter().map(|&[first, last]| last as usize - first as usize + 1);
            assert!(lengths.clone().max() <= lengths.min().map(|least| least + 1), "{ranges:?}");
        }
    }

    #[test]
    fn the_ranges_of_counts_add_up_to_all_of_them() {
        let all = count(b"a an and bee cat zoo zz my n nn n");
        let by_letter = all.by_letter();
        for reducers in 1..=REDUCERS_MAX {
            let ranges = partition(reducers).into_iter().map(|keys| {
                let range = joined(&by_letter[letters(keys)]);
                let [first, last] = keys.map(|letter| letter as u8);
                assert!(range.iter().all(|(word, _)| (first..=last).contains(&word[0])));
                range
            });
            let ranges: Vec<Counts> = ranges.collect();
            assert_eq!(sorted(&joined(&ranges)), sorted(&all.counts()));
        }
    }
}
