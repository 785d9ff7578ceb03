//! Large objects: their cost beside the one copy, or the one look at each byte, that cannot be saved.

use super::{AxisUnit, Row, Series, SeriesGoal, Who};
use crate::measure::Unit;

const LARGE_BYTES: u64 = 256 << 20;

pub(super) fn rows() -> Vec<Row> {
    let large =
        |key: &str, work: &str| Row::new(key, work, Unit::Seconds).bytes(LARGE_BYTES).rounds(5, 300).primed();
    let mut rows = vec![
        large("put-large", "put 256 MiB, steady")
            .method(
                "The same 256 MiB of heap are put repeatedly; the first of each round is not counted. Mobula drops \
                 each object (not timed), Plasma makes room by evicting old ones. Both write to memory that they have \
                 written to before. The limit is `memcpy` of the same bytes into a memfd whose huge pages are \
                 allocated.",
            )
            .ask(Who::Mobula, format!("put-large {LARGE_BYTES}"))
            .ask(Who::Plasma, format!("put-large {LARGE_BYTES}"))
            .ask_as("a copy into warm huge pages", Who::Limit, format!("copy {LARGE_BYTES}"))
            .times(Who::Limit, 0.9)
            .times(Who::Plasma, 3.0)
            .headline(),
        large("put-large-first", "put 256 MiB, first after start-up")
            .method("A new store process, a new client, and the very first put.")
            .ask(Who::Mobula, format!("put-large-first {LARGE_BYTES}"))
            .ask(Who::Plasma, format!("put-large-first {LARGE_BYTES}"))
            .times(Who::Plasma, 5.0)
            .headline(),
        large("read-large-first", "first read of 256 MiB in another process")
            .method(
                "A process that has just started gets an object of 256 MiB and sums it as 64-bit words. Mapping the \
                 object is part of the time. Attaching to its owner is not (a get of a small object does it before), \
                 because Plasma's client has connected before, too. The limit is the same sum over a warm `Vec` of \
                 the process's own.",
            )
            .ask(Who::Mobula, format!("read-large-first {LARGE_BYTES}"))
            .ask(Who::Plasma, format!("read-large-first {LARGE_BYTES}"))
            .ask_as("reading one’s own heap", Who::Limit, format!("read {LARGE_BYTES}"))
            .times(Who::Limit, 0.9),
    ];
    for (bytes, name) in [
        (1 << 10, "1 KiB"),
        (64 << 10, "64 KiB"),
        (1 << 20, "1 MiB"),
        (16 << 20, "16 MiB"),
        (LARGE_BYTES, "256 MiB"),
    ] {
        rows.push(
            Row::new(
                format!("seal-{bytes}"),
                format!("seal {name} that were filled in place"),
                Unit::Seconds,
            )
            .ask(Who::Mobula, format!("seal {bytes}"))
            .point("seal", bytes as f64),
        );
    }
    rows
}

pub(super) fn series() -> Vec<Series> {
    vec![Series {
        key: "seal",
        work: "seal of 1 KiB … 256 MiB filled in place",
        axis: "size of the object",
        axis_unit: AxisUnit::Bytes,
        unit: Unit::Seconds,
        method: "Every byte of an `ObjectWriter` is filled. Then only its `seal` is timed, one at a time; the figure \
                 includes the clock’s own 20–50 ns.",
        goals: vec![SeriesGoal::AtMost(1e-6)],
        log: false,
    }]
}
