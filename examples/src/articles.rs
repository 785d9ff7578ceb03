//! The texts: which files they are, in which parts they are read, and how these are dealt to their readers.
//!
//! Only names go to other processes, and each process reads the texts that it needs: it finds out there that a file
//! cannot be read.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use mobula_protocol::size::ByteSize;
use serde::{Deserialize, Serialize};

/// A file whose words are counted, or a part of a large one.
///
/// A word belongs to the part in which it begins. So no word is counted twice or cut, wherever the parts end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Article {
    /// Not a `PathBuf`: serde sends those only where they are UTF-8, and a file's name need not be.
    path: OsString,
    /// The part of the file, in bytes. The last part has no end, for a file that grows.
    bytes: Range<u64>,
}

/// The end of a part that reaches as far as its file.
const END_OF_FILE: u64 = u64::MAX;

impl Article {
    /// Its file.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// Where in its file words of this article begin.
    pub fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }

    /// Replaces `text` with its words and what is between them, in any encoding.
    ///
    /// # Errors
    /// [`ArticleError::Unreadable`].
    pub fn read(&self, text: &mut Vec<u8>) -> Result<(), ArticleError> {
        self.read_from_file(text)
            .map_err(|error| ArticleError::Unreadable { path: self.path.clone().into(), error })
    }

    fn read_from_file(&self, text: &mut Vec<u8>) -> io::Result<()> {
        text.clear();
        let mut file = File::open(&self.path)?;
        let Range { start, end } = self.bytes;
        // With the byte before, which tells whether the part begins within a word.
        let first = start.saturating_sub(1);
        if first > 0 {
            file.seek(SeekFrom::Start(first))?;
        }
        file.by_ref().take(end - first).read_to_end(text)?;
        if end < END_OF_FILE {
            read_to_end_of_word(&mut file, text)?;
        }
        if start > 0 {
            let rest_of_word = letters_at_start(text);
            text.drain(..rest_of_word);
        }
        Ok(())
    }

    /// The whole file in parts of `part_bytes`, as far as it is long enough.
    fn parts(self, part_bytes: u64) -> impl Iterator<Item = Self> {
        // A file that cannot be looked at cannot be read either, which its reader reports.
        let file_bytes = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let parts = file_bytes.div_ceil(part_bytes).max(1);
        (0..parts).map(move |part| {
            let end = if part + 1 < parts { (part + 1) * part_bytes } else { END_OF_FILE };
            Self { path: self.path.clone(), bytes: part * part_bytes..end }
        })
    }
}

impl From<PathBuf> for Article {
    /// The whole file.
    fn from(path: PathBuf) -> Self {
        Self { path: path.into(), bytes: 0..END_OF_FILE }
    }
}

/// Reads on while the text ends with a letter.
fn read_to_end_of_word(file: &mut File, text: &mut Vec<u8>) -> io::Result<()> {
    const MORE_BYTES: u64 = 64;
    while text.last().is_some_and(u8::is_ascii_alphabetic) {
        let length = text.len();
        file.take(MORE_BYTES).read_to_end(text)?;
        let more = &text[length..];
        let rest_of_word = letters_at_start(more);
        if rest_of_word < more.len() || more.is_empty() {
            text.truncate(length + rest_of_word);
            break;
        }
    }
    Ok(())
}

fn letters_at_start(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count()
}

/// The reasons why there is nothing to count.
///
/// Paths are shown quoted and escaped, so that a message is one line for every name of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArticleError {
    /// The path leads nowhere.
    #[error("cannot find {path:?}: {error}; give --articles a directory or files that exist")]
    Missing {
        /// The path, as it was given.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A directory without files.
    #[error("there are no articles in {path:?}: give --articles a directory that has files in it, or files")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A pipe, a socket or a device: it may never end, and other processes cannot read it after this one.
    #[error("{path:?} is neither a file nor a directory: give --articles a directory or regular files")]
    NotAFile {
        /// The path, as it was given.
        path: PathBuf,
    },
    /// The directory's files cannot be listed.
    #[error("cannot list the directory {path:?}: {error}; make it readable, or give --articles another one")]
    Unlistable {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file is there, and cannot be read.
    #[error("cannot read the article {path:?}: {error}; make it readable, or leave it out of --articles")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

/// Which files to count.
#[derive(Debug, Args)]
pub struct ArticleOptions {
    /// Files to count, and directories of them.
    ///
    /// Of a directory these are the regular files that are directly in it; what is in its own directories, and hidden
    /// files, are left out. They need not be UTF-8. Default: the Markdown files of Mobula's source, or else those below
    /// the current directory.
    #[arg(long, value_name = "DIR|FILE", num_args = 1..)]
    articles: Vec<PathBuf>,

    /// The size of the parts in which larger files are counted, each as an article of its own.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = parse_part_bytes)]
    part_bytes: ByteSize,
}

fn parse_part_bytes(text: &str) -> Result<ByteSize, String> {
    match text.parse().map_err(|error| format!("{error}"))? {
        ByteSize(0) => Err("a part has at least one byte".to_owned()),
        bytes => Ok(bytes),
    }
}

impl ArticleOptions {
    /// The articles, sorted by name. There is at least one.
    ///
    /// # Errors
    /// When a path leads to no file, or a directory has none.
    pub fn find(&self) -> Result<Vec<Article>, ArticleError> {
        if self.articles.is_empty() {
            return markdown_of_the_source();
        }
        let mut articles = Vec::new();
        for path in &self.articles {
            let missing = |error| ArticleError::Missing { path: path.clone(), error };
            let metadata = fs::metadata(path).map_err(missing)?;
            if metadata.is_dir() {
                articles.extend(files_in(path)?);
            } else if metadata.is_file() {
                articles.push(path.clone().into());
            } else {
                return Err(ArticleError::NotAFile { path: path.clone() });
            }
        }
        articles.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(articles)
    }

    /// The articles as they are read: large files in parts.
    pub fn in_parts(&self, articles: &[Article]) -> Vec<Article> {
        articles.iter().flat_map(|article| article.clone().parts(self.part_bytes.0)).collect()
    }
}

/// Deals articles in turn: of `count` streams, stream `m` gets the articles `m`, `m + count`, ….
pub fn deal(articles: &[Article], count: usize) -> Vec<Vec<Article>> {
    (0..count).map(|stream| articles.iter().skip(stream).step_by(count).cloned().collect()).collect()
}

/// The regular files directly in a directory; at least one.
fn files_in(directory: &Path) -> Result<Vec<Article>, ArticleError> {
    let unlistable = |error| ArticleError::Unlistable { path: directory.to_owned(), error };
    let mut articles = Vec::new();
    for entry in fs::read_dir(directory).map_err(unlistable)? {
        let path = entry.map_err(unlistable)?.path();
        // A link that leads nowhere stays in: leaving it out silently would give wrong counts. The process that reads
        // it reports the error.
        let is_file = fs::metadata(&path).map_or(true, |metadata| metadata.is_file());
        if is_file && !is_hidden(&path) {
            articles.push(path.into());
        }
    }
    match articles.is_empty() {
        true => Err(ArticleError::Empty { path: directory.to_owned() }),
        false => Ok(articles),
    }
}

/// The Markdown files of the repository that this program was built from, if that is still there.
fn markdown_of_the_source() -> Result<Vec<Article>, ArticleError> {
    let mut articles = Vec::new();
    // The way up is taken by name, so that messages show no `..`.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|source| source.is_dir());
    let root = source.unwrap_or(Path::new("."));
    add_markdown_below(root, &mut articles)?;
    articles.sort_by(|a, b| a.path.cmp(&b.path));
    match articles.is_empty() {
        true => Err(ArticleError::Empty { path: root.to_owned() }),
        false => Ok(articles),
    }
}

/// Goes neither into hidden directories nor into build output, and follows no links.
fn add_markdown_below(directory: &Path, articles: &mut Vec<Article>) -> Result<(), ArticleError> {
    let unlistable = |error| ArticleError::Unlistable { path: directory.to_owned(), error };
    for entry in fs::read_dir(directory).map_err(unlistable)? {
        let entry = entry.map_err(unlistable)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(unlistable)?);
        if is_hidden(&path) {
            continue;
        }
        if kind.is_dir() && entry.file_name() != "target" {
            add_markdown_below(&path, articles)?;
        } else if kind.is_file() && path.extension() == Some(OsStr::new("md")) {
            articles.push(path.into());
        }
    }
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_are_dealt_in_turn() {
        let articles: Vec<Article> = ["a", "b", "c", "d", "e"].map(|name| PathBuf::from(name).into()).into();
        let dealt = |count| {
            let names =
                |stream: Vec<Article>| stream.iter().map(|a| a.path().display().to_string()).collect();
            deal(&articles, count).into_iter().map(names).collect::<Vec<String>>()
        };
        assert_eq!(dealt(1), ["abcde"]);
        assert_eq!(dealt(2), ["ace", "bd"]);
        assert_eq!(dealt(3), ["ad", "be", "c"]);
        assert_eq!(dealt(7), ["a", "b", "c", "d", "e", "", ""]);
    }

    /// Wherever parts end, each word is in one of them, and whole.
    #[test]
    fn each_word_is_in_one_part() {
        let text = b" one two,thr\xe9e FOUR--five\xff 6 seven";
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text).unwrap();
        let words = |text: &[u8]| {
            let words = text.split(|byte| !byte.is_ascii_alphabetic()).filter(|word| !word.is_empty());
            words.map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        for part_bytes in 1..=text.len() as u64 + 1 {
            let mut found = Vec::new();
            let parts: Vec<Article> = Article::from(file.path().to_owned()).parts(part_bytes).collect();
            assert_eq!(parts.len() as u64, (text.len() as u64).div_ceil(part_bytes));
            for part in parts {
                let mut text = b"text of before".to_vec();
                part.read(&mut text).unwrap();
                found.extend(words(&text));
            }
            assert_eq!(found, words(text), "parts of {part_bytes} bytes");
        }
    }

    /// A word that is longer than many parts is read once.
    #[test]
    fn a_word_is_in_the_part_where_it_begins() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &[b'w'; 1000]).unwrap();
        let lengths = |part_bytes| {
            let parts = Article::from(file.path().to_owned()).parts(part_bytes);
            let length = |part: Article| {
                let mut text = Vec::new();
                part.read(&mut text).unwrap();
                text.len()
            };
            parts.map(length).collect::<Vec<_>>()
        };
        assert_eq!(lengths(300), [1000, 0, 0, 0]);
        assert_eq!(lengths(999), [1000, 0]);
        assert_eq!(lengths(1000), [1000]);
    }
}
