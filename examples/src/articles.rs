//! The texts: which files they are, and how they are dealt to their readers.
//!
//! Only names go to other processes, and each process reads the texts that it needs: it finds out there that a file
//! cannot be read.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

/// A file whose words are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Article {
    /// Not a `PathBuf`: serde sends those only where they are UTF-8, and a file's name need not be.
    path: OsString,
}

impl Article {
    /// Where it is.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// Its bytes, in any encoding.
    ///
    /// # Errors
    /// [`ArticleError::Unreadable`].
    pub fn read(&self) -> Result<Vec<u8>, ArticleError> {
        fs::read(&self.path)
            .map_err(|error| ArticleError::Unreadable { path: self.path.clone().into(), error })
    }
}

impl From<PathBuf> for Article {
    fn from(path: PathBuf) -> Self {
        Self { path: path.into() }
    }
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
        articles.sort();
        Ok(articles)
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
    articles.sort();
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
}
