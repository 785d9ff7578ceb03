//! Counting words.
//!
//! A word is a run of ASCII letters, as long as possible, in lower case. So bytes of any encoding that contains ASCII
//! can be counted, and a letter outside ASCII ends a word as a space does.

use std::collections::BTreeMap;

/// How often each word occurs. Sorted, so that the words of a range of first letters stand together.
pub type Counts = BTreeMap<String, u64>;

/// The first letters that a reducer is responsible for: from `keys[0]` to `keys[1]`, both included.
pub type Keys = [char; 2];

/// Reducers that there are letters for.
pub const REDUCERS_MAX: usize = 26;

/// The words of a text.
pub fn count(text: &[u8]) -> Counts {
    let mut counts = Counts::new();
    for word in text.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
        let word = word.iter().map(|&letter| char::from(letter.to_ascii_lowercase())).collect();
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// The counts whose first letter is one of `keys`.
pub fn in_range(counts: &Counts, [first, last]: Keys) -> Counts {
    let from_first = counts.range(first.to_string()..);
    let words = from_first.take_while(|(word, _)| word.starts_with(|letter| letter <= last));
    words.map(|(word, &count)| (word.clone(), count)).collect()
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut Counts, more: &Counts) {
    for (word, count) in more {
        match sum.get_mut(word) {
            Some(sum) => *sum += count,
            None => {
                sum.insert(word.clone(), *count);
            }
        }
    }
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

    #[test]
    fn a_word_is_a_run_of_ascii_letters() {
        let check = |text: &[u8], expected: &[(&str, u64)]| {
            let expected = expected.iter().map(|&(word, count)| (word.to_owned(), count)).collect();
            assert_eq!(count(text), expected, "{}", text.escape_ascii());
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
    fn the_ranges_are_even_and_leave_no_letter_out() {
        assert_eq!(partition(1), [['a', 'z']]);
        assert_eq!(partition(2), [['a', 'm'], ['n', 'z']]);
        for reducers in 1..=REDUCERS_MAX {
            let ranges = partition(reducers);
            let letters: Vec<char> = ranges.iter().flat_map(|&[first, last]| first..=last).collect();
            assert_eq!(letters, ('a'..='z').collect::<Vec<_>>());
            let lengths = ranges.iter().map(|&[first, last]| last as usize - first as usize + 1);
            assert!(lengths.clone().max() <= lengths.min().map(|least| least + 1), "{ranges:?}");
        }
    }

    #[test]
    fn the_ranges_of_counts_add_up_to_all_of_them() {
        let all = count(b"a an and bee cat zoo zz my n nn");
        for reducers in 1..=REDUCERS_MAX {
            let mut sum = Counts::new();
            for keys in partition(reducers) {
                let part = in_range(&all, keys);
                assert!(
                    part.keys().all(|word| word.starts_with(|letter| keys[0] <= letter && letter <= keys[1]))
                );
                add(&mut sum, &part);
            }
            assert_eq!(sum, all);
        }
    }
}
