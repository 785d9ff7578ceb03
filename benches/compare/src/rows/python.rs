//! The Python package beside Ray and the standard library, all of them driven from Python.

use super::{Row, Who};
use crate::measure::Unit;

const ARRAY_BYTES: u64 = 100_000_000;

pub(super) fn rows() -> Vec<Row> {
    let row = |key: &str, work: &str, unit: Unit| {
        Row::new(format!("python-{key}"), format!("Python: {work}"), unit)
    };
    let both = |key: &str, work: &str, unit: Unit, words: &str| {
        row(key, work, unit).ask(Who::Python, words).ask(Who::Ray, words)
    };
    let pass_array = format!("face-pass-array {ARRAY_BYTES}");
    vec![
        both("put", "put an int", Unit::Seconds, "face-put")
            .method(
                "`ray.put(1)`, with `ray` being `mobula` or `ray`, as in all rows of Python. The reference is dropped.",
            )
            .at_most(0.5e-6),
        both("get", "get an int", Unit::Seconds, "face-get")
            .method("`ray.get(reference)` of an int that this process has put.")
            .at_most(0.3e-6),
        both("actor-call", "actor call and get", Unit::Seconds, "face-actor-call")
            .method("`ray.get(actor.same.remote(1))` back to back.")
            .at_most(2.5e-6)
            .times(Who::Ray, 200.0),
        both("task-call", "task, call and get", Unit::Seconds, "face-task-call")
            .method("`ray.get(same.remote(1))` back to back, with 2 workers. Pool: `apply`.")
            .ask(Who::Pool, "face-task-call")
            .at_most(3e-6)
            .times(Who::Ray, 200.0),
        row("actor-many", "actor calls, many at once", Unit::PerSecond)
            .method("The caller submits 10,000 calls of one actor (Ray: 500), then gets all results.")
            .ask(Who::Python, "face-actor-many 10000")
            .ask(Who::Ray, "face-actor-many 500")
            .at_least(6e5),
        row("task-many", "tasks, many at once", Unit::PerSecond)
            .method("The same with tasks and 2 workers. Pool: `map` with chunks of one item.")
            .ask(Who::Python, "face-task-many 10000")
            .ask(Who::Ray, "face-task-many 500")
            .ask(Who::Pool, "face-task-many 10000")
            .at_least(4e5),
        both("small-array", "an array of 80 bytes through a task", Unit::Seconds, "face-small-array")
            .method("Ten numbers of numpy go to a function and come back, and the caller gets them.")
            .ask(Who::Pool, "face-small-array")
            .at_most(6e-6),
        both("put-array", "put an array of 100 MB", Unit::Seconds, &format!("face-put-array {ARRAY_BYTES}"))
            .method(
                "`ray.put(array)`, and the reference is dropped (timed). The limit is `numpy.copyto` into memory that \
                 has been written to before, in a process of its own.",
            )
            .ask_as("a warm copy by numpy", Who::Pool, format!("face-copy-array {ARRAY_BYTES}"))
            .bytes(ARRAY_BYTES)
            .within(Who::Pool, 1.2),
        both("get-array", "get an array of 100 MB", Unit::Seconds, &format!("face-get-array {ARRAY_BYTES}"))
            .method("`ray.get(reference)` of an array that this process has put; the array is dropped (timed).")
            .at_most(1.5e-6),
        both("pass-array", "a stored array of 100 MB to an actor", Unit::Seconds, &pass_array)
            .method("`ray.get(actor.length.remote(reference))` back to back.")
            .at_most(5e-6),
        row("init", "import, `init` and the first task", Unit::Seconds)
            .method("In a new interpreter, from its first line to the result of a function.")
            .ask(Who::Python, "face-init")
            .ask_rarely(Who::Ray, "face-init", 2)
            .at_most(0.12),
        row("pool-map", "`Pool.map` of 1,000,000 items", Unit::Seconds)
            .method(
                "`pool.map(successor, range(1_000_000))` with 2 processes, which are there before: \
                 `mobula.multiprocessing.Pool` beside `multiprocessing.Pool`.",
            )
            .ask(Who::Python, "face-pool-map 1000000")
            .ask(Who::Pool, "face-pool-map 1000000")
            .times(Who::Pool, 1.0),
        row("joblib", "`joblib` with 10,000 calls", Unit::Seconds)
            .method(
                "`Parallel(n_jobs=2)(delayed(successor)(x) for x in range(10_000))` with the backend `mobula` and with \
                 joblib’s own, loky. Both keep their processes from the round before.",
            )
            .ask(Who::Python, "face-joblib 10000")
            .ask_as("loky", Who::Pool, "face-joblib 10000")
            .times(Who::Pool, 1.0),
    ]
}
