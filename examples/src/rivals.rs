//! The same work without Mobula, in one process: what the word counts are compared with.
//!
//! Both find and count words with the code that the mappers use, so a comparison shows what processes and messages
//! cost.

use rayon::prelude::*;

use crate::words::{Counts, Tally};
use crate::{Article, ArticleError};

/// Counts the words of articles with this thread alone.
///
/// # Errors
/// When one cannot be read.
pub fn one_thread(articles: &[Article]) -> Result<Counts, ArticleError> {
    let mut counter = Counter::default();
    for article in articles {
        counter.count(article)?;
    }
    Ok(counter.tally.counts())
}

/// Counts the words of articles with rayon's threads. Each counts on its own, and the counts are added up at the end.
///
/// # Errors
/// When one cannot be read.
pub fn rayon(articles: &[Article]) -> Result<Counts, ArticleError> {
    let counted = articles.par_iter().try_fold(Counter::default, |mut counter, article| {
        counter.count(article)?;
        Ok(counter)
    });
    let sum = counted.try_reduce(Counter::default, |mut sum, more| {
        sum.tally.add_tally(more.tally);
        Ok(sum)
    });
    Ok(sum?.tally.counts())
}

/// A tally, and memory for one article after the other.
#[derive(Default)]
struct Counter {
    text: Vec<u8>,
    tally: Tally,
}

impl Counter {
    fn count(&mut self, article: &Article) -> Result<(), ArticleError> {
        article.read(&mut self.text)?;
        self.tally.count(&mut self.text);
        Ok(())
    }
}
