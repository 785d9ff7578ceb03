//! The texts whose words are counted: made words, of which few are frequent and many are rare, as in real texts. They
//! are the same in every run.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mobula_examples::Article;
use mobula_examples::numbers::scrambled;
use mobula_examples::words::Counts;

use crate::peer::{Failure, check};

const WORDS: usize = 50_000;
const FILE_BYTES: usize = 8 << 20;
/// The file that has each word and its count.
const COUNTS: &str = "counts";

/// The files of so many bytes, all but the last of 8 MiB, and the file of counts beside them. They are made if they are
/// not there.
pub(crate) fn make(scratch: &Path, bytes: usize) -> io::Result<()> {
    let texts = directory(scratch, bytes);
    if texts.exists() {
        return Ok(());
    }
    let partial = texts.with_extension("partial");
    fs::create_dir_all(partial.join("files"))?;
    let words: Vec<String> = (0..WORDS).map(word).collect();
    let (mut counts, mut text, mut random) = (vec![0_u64; WORDS], Vec::with_capacity(FILE_BYTES), 0);
    for file in 0..bytes.div_ceil(FILE_BYTES) {
        let file_bytes = FILE_BYTES.min(bytes - file * FILE_BYTES);
        text.clear();
        while text.len() < file_bytes {
            random += 1;
            let rank = rank(scrambled(random));
            let word = &words[rank];
            if text.len() + word.len() + 2 > file_bytes {
                text.resize(file_bytes, b' ');
                break;
            }
            counts[rank] += 1;
            push(&mut text, word, scrambled(!random));
        }
        fs::write(partial.join("files").join(format!("{file:04}.txt")), &text)?;
    }
    let counted = words.iter().zip(&counts).filter(|(_, count)| **count > 0);
    let lines: String = counted.map(|(word, count)| format!("{word} {count}\n")).collect();
    fs::write(partial.join(COUNTS), lines)?;
    fs::rename(partial, texts)
}

/// A word, and what stands behind it: sentences begin with a capital letter.
fn push(text: &mut Vec<u8>, word: &str, random: u64) {
    let begins = text.len() < 2 || text.ends_with(b".\n");
    let start = text.len();
    text.extend_from_slice(word.as_bytes());
    if begins {
        text[start].make_ascii_uppercase();
    }
    text.extend_from_slice(match random % 16 {
        0 => b".\n",
        1 => b", ",
        _ => b" ",
    });
}

/// The rank of a word by its frequency: rank `n` comes about half as often as rank `n/2` (Zipf's law).
fn rank(random: u64) -> usize {
    let part = (random >> 11) as f64 / (1_u64 << 53) as f64;
    ((WORDS as f64).powf(part) as usize - 1).min(WORDS - 1)
}

/// The word of a rank: a syllable for each digit, so that no two are the same and frequent ones are short.
fn word(rank: usize) -> String {
    const SYLLABLES: [&str; 20] = [
        "an", "be", "co", "da", "el", "fi", "go", "hu", "in", "ka", "lo", "mi", "nu", "or", "pe", "ra", "su",
        "te", "vo", "wi",
    ];
    let (mut word, mut rest) = (String::new(), rank);
    loop {
        word += SYLLABLES[rest % SYLLABLES.len()];
        rest /= SYLLABLES.len();
        if rest == 0 {
            return word;
        }
        rest -= 1;
    }
}

/// The texts of a size as a contender finds them.
pub(crate) struct Texts {
    pub(crate) files: PathBuf,
    counts: HashMap<Vec<u8>, u64>,
}

impl Texts {
    pub(crate) fn open(scratch: &Path, bytes: usize) -> Result<Self, Failure> {
        let texts = directory(scratch, bytes);
        let mut counts = HashMap::new();
        for line in fs::read_to_string(texts.join(COUNTS))?.lines() {
            let (word, count) = line.split_once(' ').unwrap_or_default();
            counts.insert(word.as_bytes().to_vec(), count.parse()?);
        }
        Ok(Self { files: texts.join("files"), counts })
    }

    /// The files, in the order of their names.
    pub(crate) fn articles(&self) -> Result<Vec<Article>, Failure> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.files)? {
            paths.push(entry?.path());
        }
        paths.sort();
        Ok(paths.into_iter().map(Article::from).collect())
    }

    /// Compares all counts.
    pub(crate) fn check(&self, counts: &Counts) -> Result<(), Failure> {
        let same = counts.iter().all(|(word, count)| self.counts.get(word) == Some(&count));
        check(same && counts.distinct() == self.counts.len() as u64, "the counts of all words")
    }
}

fn directory(scratch: &Path, bytes: usize) -> PathBuf {
    scratch.join(format!("texts-{bytes}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use mobula_examples::rivals;

    use super::*;

    #[test]
    fn made_texts_have_the_counts_that_stand_beside_them() {
        let scratch = tempfile::tempdir().unwrap();
        make(scratch.path(), 100_000).unwrap();
        let texts = Texts::open(scratch.path(), 100_000).unwrap();
        let articles = texts.articles().unwrap();
        assert_eq!(articles.len(), 1);
        texts.check(&rivals::one_thread(&articles).unwrap()).unwrap();
        let length = fs::metadata(articles[0].path()).unwrap().len();
        assert_eq!(length, 100_000);
        fs::write(articles[0].path(), "another text").unwrap();
        assert!(texts.check(&rivals::one_thread(&articles).unwrap()).is_err());
    }

    #[test]
    fn no_two_words_are_the_same() {
        let words: HashSet<String> = (0..WORDS).map(word).collect();
        assert_eq!(words.len(), WORDS);
    }
}
