//! The parts that the example programs share, none of which needs Mobula: finding articles, counting their words,
//! checking the counts, comparing their time with that of rivals, and printing.
//!
//! The programs themselves stand beside this folder, one file each: `streaming_mapreduce` and `task_mapreduce` count
//! words; the others use only [`numbers`], [`output`] and the tables of [`compare`], if anything.

pub mod articles;
pub mod check;
pub mod compare;
pub mod numbers;
pub mod output;
pub mod report;
pub mod rivals;
pub mod words;

use std::num::NonZeroUsize;

use clap::Args;

pub use crate::articles::{Article, ArticleError};

/// The options that both word counts take.
#[derive(Debug, Args)]
pub struct WordOptions {
    /// The texts to count.
    #[command(flatten)]
    pub articles: articles::ArticleOptions,

    /// How many of the most frequent words to show.
    #[arg(long, value_name = "K", default_value_t = 10)]
    pub top: usize,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,

    /// Count everything again in this process, without Mobula, and fail if anything differs.
    #[arg(long)]
    pub check: bool,

    /// Count the words N times each with Mobula, with one thread and with rayon, in turn, and print the times.
    #[arg(long, value_name = "N", conflicts_with_all = ["json", "check"])]
    pub compare: Option<NonZeroUsize>,
}
