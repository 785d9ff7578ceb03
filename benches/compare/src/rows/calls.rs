//! Calls of actors, tasks, waiting for them, and arrays that go with them.

use super::{AxisUnit, Row, Series, SeriesGoal, Who};
use crate::measure::Unit;

const MADE_BYTES: u64 = 500_000_000;
const STREAM_ITEMS: u64 = 100_000;
const QUEUE_ITEMS: u64 = 10_000;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = waits();
    rows.extend(pauses());
    rows.extend(many());
    rows.extend(recorded());
    rows.extend(ways());
    rows.extend(actors());
    rows.extend(references());
    rows.extend(arrays());
    rows
}

/// One call at a time.
fn waits() -> Vec<Row> {
    vec![
        Row::new("actor-call", "actor call and wait, callee spinning", Unit::Seconds)
            .method(
                "`actor.add(1).get()` back to back. iceoryx2: a `u64` there and back by publish and subscribe; both \
                 processes poll all the time. The limit is a cache line there and back.",
            )
            .ask(Who::Mobula, "actor-call")
            .ask(Who::Iceoryx, "there-and-back")
            .ask_as("a cache line there and back", Who::Limit, "line")
            .within(Who::Iceoryx, 1.0)
            .headline(),
        Row::new("actor-call-asleep", "actor call and wait, callee asleep", Unit::Seconds)
            .method(
                "The same call after a pause of 2 ms in which the caller sleeps too (not timed). The limit is an \
                 eventfd that wakes another process, and one back, after the same pause. ipc-channel sends 64 bytes \
                 there and back, after the same pause.",
            )
            .ask(Who::Mobula, "actor-call-asleep 2000")
            .ask_as("an eventfd wake there and back", Who::Limit, "wake 2000")
            .ask(Who::IpcChannel, "there-and-back 2000")
            .rounds(5, 300)
            .within(Who::Limit, 1.3),
        Row::new("actor-call-ray", "actor call and wait", Unit::Seconds)
            .method("Back to back, as above, beside Ray’s `ray.get(actor.add.remote(1))`.")
            .ask(Who::Mobula, "actor-call")
            .ask(Who::Ray, "actor-call")
            .headline(),
        Row::new("task-call", "task, call and wait", Unit::Seconds)
            .method("`successor::remote(x).get()` back to back, with 2 workers.")
            .ask(Who::Mobula, "task-call")
            .ask(Who::Ray, "task-call")
            .times(Who::Ray, 30.0)
            .headline(),
    ]
}

/// Many calls at once.
fn many() -> Vec<Row> {
    vec![
        Row::new("actor-many", "actor calls, many at once", Unit::PerSecond)
            .method(
                "The caller submits 10,000 calls of one actor (Ray: 500), then gets all results, in order.",
            )
            .ask(Who::Mobula, "actor-many")
            .ask(Who::Ray, "actor-many")
            .times(Who::Ray, 200.0)
            .at_least(1e6)
            .headline(),
        Row::new("task-many", "tasks, many at once", Unit::PerSecond)
            .method("The same with tasks and 2 workers.")
            .ask(Who::Mobula, "task-many 2")
            .ask(Who::Ray, "task-many")
            .times(Who::Ray, 250.0)
            .at_least(5e5)
            .headline(),
    ]
}

/// The cost of recording, which `mobula status`, `why` and `timeline` need.
fn recorded() -> Vec<Row> {
    let row = |key: &str, work: &str, unit: Unit, words: &str| {
        Row::new(key, work, unit)
            .ask(Who::Mobula, words)
            .ask(Who::MobulaSilent, words)
            .ask(Who::MobulaRecording, words)
            .rounds(31, 100)
    };
    vec![
        row("recorded-actor-call", "recording: actor call and wait", Unit::Seconds, "actor-call")
            .within(Who::MobulaSilent, 1.03)
            .method(
                "`actor.add(1).get()` back to back, in a session with the default of `MOBULA_EVENTS`, and beside it in \
                 sessions with `none` and `all`.",
            ),
        row("recorded-task-many", "recording: tasks, many at once", Unit::PerSecond, "task-many 2")
            .within(Who::MobulaSilent, 1.03)
            .method("10,000 tasks and their results, in the same sessions."),
        row("recorded-put", "recording: put a `u64`", Unit::Seconds, "value-put")
            .method("`mobula::put` of a number and a drop of its reference, in the same sessions."),
    ]
}

/// Other ways to call than to submit and get.
fn ways() -> Vec<Row> {
    vec![
        Row::new("task-await", "task, call and await", Unit::Seconds)
            .method(
                "`successor::remote(x).await` back to back, with 2 workers; the executor is pollster, one thread. The \
                 same with `get` beside it.",
            )
            .ask(Who::Mobula, "task-await")
            .ask_as("with `get`", Who::Mobula, "task-call"),
        Row::new("cancel-4000", "cancel 4,000 calls that wait", Unit::Seconds)
            .method("One `mobula::cancel` of 4,000 calls of 4 ms, with 2 workers, so nearly all of them wait.")
            .ask(Who::Mobula, "cancel-many"),
        Row::new("cancel-4000-next", "the next call after these are cancelled", Unit::Seconds)
            .method(
                "A call that is made just then, and its result. The calls of 4 ms that ran when they were cancelled \
                 may go on to their end.",
            )
            .ask(Who::Mobula, "cancel-many-next")
            .at_most(0.01),
        Row::new("stream", "a stream of 100,000 items", Unit::PerSecond)
            .method(
                "A function makes numbers, and the caller gets each item by its reference as it comes; at most 128 \
                 items are in flight. Ray: 5,000 items of a generator with `num_returns=\"streaming\"`. The figure is \
                 items a second.",
            )
            .ask(Who::Mobula, format!("stream {STREAM_ITEMS}"))
            .ask_rarely(Who::Ray, "stream 5000", 3),
        Row::new("limited", "calls of 200 µs, of which one fits at a time", Unit::PerSecond)
            .method(
                "500 calls at once that each demand all there is of a resource of the session, and compute for 200 µs: \
                 so at most 5,000 a second.",
            )
            .ask(Who::Mobula, "limited"),
    ]
}

/// Actors with many calls at a time, many callers, and a queue.
fn actors() -> Vec<Row> {
    vec![
        Row::new("async-calls", "calls of an `async` method that waits 1 ms", Unit::PerSecond)
            .method(
                "The caller submits 10,000 calls (Ray: 1,000) of one actor, then gets all results. At most 1,000 are \
                 under way at a time, so at most 1,000,000 a second.",
            )
            .ask(Who::Mobula, "async-calls")
            .ask(Who::Ray, "async-calls"),
        Row::new("many-to-many", "2 callers, 2 actors, each calls each", Unit::PerSecond)
            .method(
                "Ray’s microbenchmark “n:n actor calls async” with 2 of each: two tasks submit 5,000 calls each (Ray: \
                 500), to the two actors in turn, and get the results. The figure is calls a second of both callers.",
            )
            .ask(Who::Mobula, "many-to-many 2")
            .ask(Who::Ray, "many-to-many 2"),
        Row::new("queue", "items from process to process through a queue", Unit::PerSecond)
            .method(
                "A `u64` each, from one producer to one consumer, at most 1,000 in the queue. A third process has the \
                 queue of Mobula and of Ray (`ray.util.queue.Queue`), and each `put` and `get` waits for its answer; \
                 `put_many` and `get_many` move 100 items with one call. `multiprocessing.Queue` is a pipe with a \
                 thread that feeds it. crossbeam: a channel between two threads. iceoryx2: publish and subscribe \
                 without loss; both processes poll.",
            )
            .ask(Who::Mobula, format!("queue {QUEUE_ITEMS} 1"))
            .ask_as("Mobula, 100 at a time", Who::Mobula, format!("queue {} 100", 20 * QUEUE_ITEMS))
            .ask_as("multiprocessing.Queue", Who::Pool, format!("queue {QUEUE_ITEMS}"))
            .ask_as("crossbeam, one process", Who::Thread, format!("queue {}", 20 * QUEUE_ITEMS))
            .ask(Who::Iceoryx, format!("queue {}", 20 * QUEUE_ITEMS))
            .ask_rarely(Who::Ray, "queue 300", 2),
    ]
}

/// Many references.
fn references() -> Vec<Row> {
    vec![
        Row::new("wait-1k", "`wait` on 1,000 refs, one at a time", Unit::PerSecond)
            .method(
                "Ray’s microbenchmark “single client wait 1k refs”: the caller submits 1,000 small tasks and waits \
                 with `wait(refs, 1)` until none is left. The figure is loops a second.",
            )
            .ask(Who::Mobula, "wait-1k")
            .ask_rarely(Who::Ray, "wait-1k", 3)
            .times(Who::Ray, 1000.0)
            .headline(),
        Row::new("wait-1k-done", "the same of finished tasks", Unit::PerSecond)
            .method("The same loop over results that have arrived already, so only `wait` is measured.")
            .ask(Who::Mobula, "wait-1k-done")
            .ask(Who::Ray, "wait-1k-done"),
        Row::new("refs-10k", "get an object that holds 10,000 refs", Unit::PerSecond)
            .method(
                "Ray’s microbenchmark “single client get object containing 10k refs”: a list of 10,000 references to \
                 put values is put, and then got repeatedly. The figure is gets a second.",
            )
            .ask(Who::Mobula, "refs-10k")
            .ask(Who::Ray, "refs-10k")
            .times(Who::Ray, 100.0)
            .headline(),
    ]
}

/// A call after a pause, the longer the colder.
fn pauses() -> Vec<Row> {
    let row = |pause_us: u32| {
        let work = format!("actor call and wait after {pause_us} µs");
        Row::new(format!("asleep-{pause_us}"), work, Unit::Seconds)
            .ask(Who::Mobula, format!("actor-call-asleep {pause_us}"))
            .ask_as("an eventfd wake there and back", Who::Limit, format!("wake {pause_us}"))
            .rounds(5, 200)
            .point("asleep", f64::from(pause_us))
            .in_turn()
    };
    [200, 2_000, 10_000].map(row).into()
}

/// Large arrays.
fn arrays() -> Vec<Row> {
    let mut rows = Vec::new();
    for (bytes, name, ray, slow) in [
        (1_000_000_u64, "1 MB", true, false),
        (10_000_000, "10 MB", false, false),
        (100_000_000, "100 MB", true, false),
        (500_000_000, "500 MB", true, true),
        (1_000_000_000, "1 GB", false, true),
        (4_000_000_000, "4 GB", false, true),
    ] {
        let mut row =
            Row::new(format!("pass-{bytes}"), format!("pass a stored array of {name}"), Unit::Seconds)
                .ask_as("Mobula, back to back", Who::Mobula, format!("pass {bytes}"))
                .ask_as("Mobula, callee asleep", Who::Mobula, format!("pass-asleep {bytes}"))
                .rounds(5, 150)
                .point("pass", bytes as f64);
        if ray {
            row = row.ask(Who::Ray, format!("pass {bytes} awake"));
        }
        rows.push(if slow { row.slow() } else { row });
    }
    rows.push(
        Row::new("pass-asleep", "pass a stored array of 100 MB, callee asleep", Unit::Seconds)
            .method(
                "As in the chart of the same name, after a pause of 2 ms in which caller and callee sleep.",
            )
            .ask(Who::Mobula, "pass-asleep 100000000")
            .ask(Who::Ray, "pass 100000000 asleep")
            .times(Who::Ray, 20.0)
            .headline(),
    );
    rows.push(
        Row::new("make", "an actor makes 500 MB, the driver reads it", Unit::Seconds)
            .method(
                "The actor fills an array of 500 MB in store memory and returns it; the driver sums it and drops it \
                 (Ray: `numpy.full` and `sum`). The first of each round is not counted. One process alone: it fills, \
                 sums and frees a new `Vec` each time.",
            )
            .bytes(MADE_BYTES)
            .ask(Who::Mobula, format!("make {MADE_BYTES}"))
            .ask_as("one process alone", Who::Limit, format!("make {MADE_BYTES}"))
            .ask_rarely(Who::Ray, format!("make {MADE_BYTES}"), 2)
            .rounds(5, 300)
            .within(Who::Limit, 1.1)
            .headline(),
    );
    rows
}

pub(super) fn series() -> Vec<Series> {
    let asleep = Series {
        key: "asleep",
        work: "actor call and wait after a pause",
        axis: "pause before each call, in µs",
        axis_unit: AxisUnit::Count,
        unit: Unit::Seconds,
        method: "As in the row of the callee that is asleep, after longer pauses, in which the caches of both \
                 processes become colder. The limit is an eventfd there and back after the same pause, in processes \
                 that do nothing else.",
        goals: vec![SeriesGoal::Within(Who::Limit, 1.3)],
        log: true,
    };
    let pass = Series {
        key: "pass",
        work: "pass a stored array of 1 MB … 4 GB to an actor",
        axis: "size of the array",
        axis_unit: AxisUnit::Bytes,
        unit: Unit::Seconds,
        method: "A caller passes an array of `f64` in the store to an actor, which looks at its first and last \
                 element. The figure is the call and its result, back to back and after 2 ms of sleep. Ray: numpy, \
                 back to back.",
        goals: vec![SeriesGoal::Flat(0.2)],
        log: true,
    };
    vec![asleep, pass]
}
