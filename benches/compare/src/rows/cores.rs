//! Every core at work: many short tasks at once, which compute.

use super::{Row, Who};
use crate::measure::Unit;

pub(super) fn rows() -> Vec<Row> {
    let row = |microseconds: u64, name: &str, part: f64| {
        let words = format!("spin {microseconds}");
        Row::new(format!("spin-{microseconds}"), format!("tasks that compute for {name}"), Unit::PerSecond)
            .ask(Who::Mobula, words.as_str())
            .ask(Who::Rayon, words.as_str())
            .ask(Who::Pool, words.as_str())
            .ask(Who::Dask, words.as_str())
            .ask(Who::Ray, words.as_str())
            .times(Who::Rayon, part)
            .rounds(5, 300)
    };
    vec![
        row(10, "10 µs", 0.85).method(
            "Each task computes until it has used so much processor time. Tasks for 0.1 s of one core (Ray and Dask: \
             at most 1,000) are submitted at once, to 2 workers, threads or processes; then all results are got. \
             Pool: `map`; Dask: `Client.map` and `gather`, with a local cluster of two processes.",
        ),
        row(100, "100 µs", 0.95),
        row(1000, "1 ms", 0.98),
    ]
}
