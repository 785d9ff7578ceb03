//! Whole jobs, from their data to their results. People choose by these.

use super::{Row, Task, Who};
use crate::measure::Unit;

pub(super) fn rows() -> Vec<Row> {
    vec![
        job("words", "count the words of 300 MB of text", 300_000_000)
            .method(
                "The text consists of made words whose frequencies follow Zipf’s law, in files of 8 MiB, which the \
                 system has in memory. The time goes from the files to the counts of all words. Mobula: \
                 `examples/streaming_mapreduce.rs` with 2 mappers and 2 reducers, with the start of these actors. One \
                 thread and rayon find and count words with the same code. Pool and Ray: a task for each file, with \
                 `re` and `Counter`.",
            )
            .within(Who::Thread, 0.55)
            .within(Who::Rayon, 1.1)
            .budget_ms(5000),
        job("sort", "sort 1 GB of `u64`", 1_000_000_000)
            .method(
                "Random numbers lie in memory, and so does the result. Mobula: `examples/sample_sort.rs`; the numbers \
                 lie in 16 blocks in the store, and the result in two ranges, in memory that the result of a sort just \
                 before had; after a pause the system has to make that memory anew. One thread: `sort_unstable`; \
                 rayon: `par_sort_unstable`, both in place. Pool and Ray: the same sample sort with `numpy.sort`, \
                 whose code compares many numbers at once; Pool in shared memory that the processes inherit.",
            )
            .contender("Mobula, in new memory", Who::Mobula, task("sort-new", 1_000_000_000), usize::MAX)
            .within(Who::Rayon, 1.15)
            .budget_ms(6000),
        job("groups", "filter and group 1 GB of Arrow batches", 1_000_000_000)
            .method(
                "Batches of a million orders with a city (text), a number and an amount, in memory: for each of 1,000 \
                 cities, the number and the sum of the orders of at least 500, which are half of them. Mobula: \
                 `examples/arrow_group_by.rs`, a task for each batch; one thread and rayon run the same code over \
                 batches of their own. Pool and Ray: `filter` and `group_by` of pyarrow, a task for each batch; Pool’s \
                 processes inherit the batches, and Ray’s read them in its store.",
            )
            .within(Who::Rayon, 1.15)
            .budget_ms(2000),
        job("tasks", "5,000 tasks of 1 to 20 ms", 5000)
            .method(
                "Each task computes until it has used its processor time, 10.5 ms on average, and returns a number. \
                 The tasks of all contenders have the same times in the same order. All are submitted at once; then \
                 all results are got. Pool: `map` with chunks of 8.",
            )
            .within(Who::Rayon, 1.02)
            .rounds(2, 27_000),
        job("server", "a parameter server with 100 MB of weights, 20 rounds", 100_000_000)
            .method(
                "In a round two trainers read all weights (`f32`) and make a gradient each; the server makes new \
                 weights of both. One step before is not timed. Mobula: `examples/parameter_server.rs`, with two \
                 shards; Ray: the same with numpy. Pool: the trainers are its processes, and weights and gradients \
                 lie in shared memory that they inherit. One thread and rayon run Mobula’s code over their own \
                 memory.",
            )
            .budget_ms(2000),
        job("chain", "a chain of three actors, 1,000 times", 1000)
            .method(
                "A number goes through three actors, each of which adds 1, and back to the driver, which checks it and \
                 begins again. Pool: three pools of one process, `apply` after `apply`. One thread: three calls of a \
                 function; rayon has nothing to do side by side. Ray’s compiled graph: `experimental_compile` over the \
                 same actors.",
            )
            .without(Who::Rayon)
            .contender("Ray, compiled graph", Who::Ray, task("graph", 1000), usize::MAX)
            .budget_ms(1000),
    ]
}

/// A job with all contenders, each of which does it three times.
fn job(key: &str, work: &str, size: u64) -> Row {
    let contenders = [Who::Mobula, Who::Thread, Who::Rayon, Who::Pool, Who::Ray];
    let row = Row { job: true, ..Row::new(format!("job-{key}"), work, Unit::Seconds) };
    let row = contenders
        .into_iter()
        .fold(row, |row, who| row.contender(who.name(), who, task(key, size), usize::MAX));
    row.rounds(3, 0)
}

fn task(key: &str, size: u64) -> Task {
    Task::Job { words: format!("job-{key}"), size }
}
