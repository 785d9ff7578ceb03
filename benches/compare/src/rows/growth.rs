//! The growth of costs with the number of live objects, of attached clients, of workers, of actors, of pending calls
//! and of threads.

use super::{AxisUnit, Row, Series, SeriesGoal, Task, Who};
use crate::measure::Unit;

const OBJECTS: u64 = 1_000_000;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = crowd();
    for objects in [1_000_u64, 10_000, 100_000, OBJECTS] {
        rows.push(
            Row::new(
                format!("live-{objects}"),
                format!("put and get, {objects} objects alive"),
                Unit::Seconds,
            )
            .ask_as("put and drop", Who::Mobula, format!("live-put {objects}"))
            .ask_as("get, in order", Who::Mobula, format!("live-get {objects}"))
            .ask_as("get, at random", Who::Mobula, format!("live-get-random {objects}"))
            .ask_as("the machine: one load at random", Who::Limit, format!("random-load {objects}"))
            .rounds(5, 100)
            .point("live", objects as f64),
        );
    }
    for clients in [1, 4, 16, 64] {
        rows.push(
            Row::new(format!("clients-{clients}"), format!("put and get, {clients} clients"), Unit::Seconds)
                .ask_as("put and drop", Who::Mobula, format!("clients-put {clients}"))
                .ask_as("get, first time", Who::Mobula, format!("clients-get {clients}"))
                .rounds(5, 100)
                .point("clients", f64::from(clients))
                .in_turn(),
        );
    }
    for workers in [1, 2, 4, 8, 16] {
        rows.push(
            Row::new(format!("workers-{workers}"), format!("tasks, {workers} workers"), Unit::PerSecond)
                .ask(Who::Mobula, format!("task-many {workers}"))
                .rounds(5, 150)
                .point("workers", f64::from(workers))
                .in_turn(),
        );
    }
    rows.push(
        Row::new("object-memory", "memory for an object beside its bytes", Unit::Bytes)
            .method(
                "The memory that store and owner take with 1,000,000 objects of 64 bytes, less the memory that they \
                 take with none, for each object and without its 64 bytes (PSS and all shared memory; the handles in \
                 the owner’s `Vec` are included). Objects lie at multiples of 64 bytes, as Arrow requires: a smaller \
                 object leaves the rest empty.",
            )
            .contender(
                Who::Mobula.name(),
                Who::Mobula,
                Task::ObjectMemory { objects: OBJECTS, object_bytes: 64 },
                1,
            )
            .rounds(1, 0)
            .at_most(128.0),
    );
    let crowded = |key: &str, work: &str, unit: Unit, words: &str| {
        Row::new(key, work, unit)
            .ask(Who::Mobula, words)
            .ask(Who::MobulaSleeping, words)
            .within(Who::MobulaSleeping, 1.05)
            .rounds(9, 250)
    };
    rows
        .push(crowded("crowd-tasks", "tasks, many at once, 8 workers", Unit::PerSecond, "task-many 8").method(
        "As with 2 workers, beside the same with `Builder::spin` of zero: no process spins before it sleeps.",
    ));
    rows.push(
        crowded(
            "crowd-call",
            "actor call and wait while 8 workers compute",
            Unit::Seconds,
            "call-while-busy 8",
        )
        .method("The median call of an actor while 8 workers are kept busy with tasks of 200 µs."),
    );
    rows
}

/// More and more actors, nested calls, pending calls and threads.
fn crowd() -> Vec<Row> {
    let mut rows = Vec::new();
    let one = |series: &'static str, at: u32, work: String, unit: Unit| {
        Row::new(format!("{series}-{at}"), work, unit).point(series, f64::from(at))
    };
    // Hundreds of processes, and many more calls, take long.
    let unless_quick = |slow: bool, row: Row| if slow { row.slow() } else { row };
    const ACTORS: [u32; 5] = [10, 100, 300, 600, 1000];
    rows.extend(ACTORS.map(|actors| {
        let row = one("beside", actors, format!("calls beside {actors} actors"), Unit::Seconds)
            .ask_as("actor call and wait", Who::Mobula, format!("crowd-actor-call {actors}"))
            .ask_as("task, call and wait", Who::Mobula, format!("crowd-task-call {actors}"))
            .ask_as("actor call of 500 µs", Who::Mobula, format!("crowd-actor-call-asleep {actors}"))
            .rounds(9, 100);
        unless_quick(actors > 100, row)
    }));
    rows.extend(ACTORS.map(|actors| {
        let row = one("start", actors, format!("start of an actor beside {actors}"), Unit::Seconds)
            .ask(Who::Mobula, format!("crowd-start {actors}"))
            .ask_as("a process that does nothing", Who::Limit, "process");
        unless_quick(actors > 100, row)
    }));
    rows.extend([10, 100, 300, 900].map(|levels| {
        let row = one("nested", levels, format!("{levels} nested calls"), Unit::Seconds)
            .ask(Who::Mobula, format!("nested {levels}"))
            .rounds(3, 0);
        unless_quick(levels > 100, row)
    }));
    rows.extend([10_000, 100_000, 1_000_000].map(|calls| {
        let row = one("pending", calls, format!("{calls} pending calls"), Unit::Bytes)
            .ask(Who::Mobula, format!("pending {calls}"))
            .rounds(3, 0);
        unless_quick(calls > 10_000, row)
    }));
    rows.extend([1, 2, 4].map(|threads| {
        one("threads", threads, format!("calls and gets of {threads} threads"), Unit::PerSecond)
            .ask_as("actor call and wait", Who::Mobula, format!("threads-call {threads}"))
            .ask_as("1,000 calls at once", Who::Mobula, format!("threads-call-many {threads}"))
            .ask_as("get of one object", Who::Mobula, format!("threads-get {threads}"))
            .in_turn()
    }));
    rows.extend([1, 2, 4].map(|threads| {
        one("threads-put", threads, format!("puts of {threads} threads"), Unit::PerSecond)
            .ask(Who::Mobula, format!("threads-put {threads}"))
            .in_turn()
    }));
    rows
}

pub(super) fn series() -> Vec<Series> {
    let crowd = |key, work, axis, unit, method, goals| Series {
        key,
        work,
        axis,
        axis_unit: AxisUnit::Count,
        unit,
        method,
        goals,
        log: false,
    };
    vec![
        Series {
            log: true,
            ..crowd(
                "beside",
                "calls beside 10 … 1,000 actors",
                "actors",
                Unit::Seconds,
                "A call of one actor and its result, back to back; a task and its result; and a call whose method \
                 sleeps for 500 µs, so that the caller sleeps too. The session has so many actors, each of which is a \
                 process that has answered a call.",
                vec![SeriesGoal::Flat(0.2)],
            )
        },
        crowd(
            "start",
            "start of an actor beside 10 … 1,000 others",
            "actors",
            Unit::Seconds,
            "From the making of one more actor to the result of its first call; its process is started for it. It ends \
             before the next one starts (not timed). The limit is a process of the same program from its start to \
             its end, which comes at once.",
            vec![SeriesGoal::AtMost(1e-3), SeriesGoal::Flat(0.2)],
        ),
        crowd(
            "nested",
            "10 … 900 nested calls, each level",
            "levels",
            Unit::Seconds,
            "A function calls itself and waits for the result, so many times, in a new session. Because all levels \
             wait, each starts a process. The figure is the time of the whole, divided by the levels.",
            vec![SeriesGoal::AtMost(1e-3), SeriesGoal::Flat(0.2)],
        ),
        crowd(
            "pending",
            "memory of 10,000 … 1,000,000 pending calls, each",
            "pending calls",
            Unit::Bytes,
            "The private memory that the caller takes for calls of an actor with a number each, while none of them has \
             a result. The references to the results are part of it, their place in the caller’s `Vec` is not.",
            vec![SeriesGoal::AtMost(400.0)],
        ),
        crowd(
            "threads",
            "calls and gets of 1 … 4 threads of one process",
            "threads",
            Unit::PerSecond,
            "So many threads do the same with one actor, or one object, and the figure is what they do together: a \
             call and its result; 1,000 calls and then their results; a get of a number.",
            vec![SeriesGoal::NoWorseThanAt(1.0, 0.05)],
        ),
        crowd(
            "threads-put",
            "puts of 1 … 4 threads of one process",
            "threads",
            Unit::PerSecond,
            "Each thread puts numbers and drops the references; the figure is what they do together. The machine has \
             two processors.",
            vec![SeriesGoal::TimesFirst(2.0, 1.8), SeriesGoal::NoWorseThanAt(1.0, 0.05)],
        ),
        Series {
            key: "live",
            work: "put and get with 1,000 … 1,000,000 objects alive",
            axis: "objects alive",
            axis_unit: AxisUnit::Count,
            unit: Unit::Seconds,
            method: "Objects of 8 bytes. Put and drop of one more; get and drop of all of them in another process, in \
                     the order in which they were put, and in a random order. The limit is a load from a random one \
                     of as many cache lines; the address of the next load depends on it.",
            goals: vec![SeriesGoal::Flat(0.2)],
            log: false,
        },
        Series {
            key: "clients",
            work: "put and get with 1 … 64 clients attached",
            axis: "other clients, each with an object of the owner’s",
            axis_unit: AxisUnit::Count,
            unit: Unit::Seconds,
            method: "Each client is a process that holds an object of the owner. Put and drop at the owner; the first \
                     get of new objects in one of the clients.",
            goals: vec![SeriesGoal::Flat(0.2)],
            log: false,
        },
        Series {
            key: "workers",
            work: "tasks, many at once, with 1 … 16 workers",
            axis: "workers",
            axis_unit: AxisUnit::Count,
            unit: Unit::PerSecond,
            method: "The caller submits 10,000 tasks, then gets all results.",
            goals: vec![SeriesGoal::NoWorseThanAt(2.0, 0.05)],
            log: false,
        },
    ]
}
