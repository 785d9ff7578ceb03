//! Small objects: put, and get in another process.

use super::{Row, Who};
use crate::measure::Unit;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (bytes, name) in [(8, "8 B"), (64, "64 B"), (1024, "1 KiB")] {
        let mut row = Row::new(format!("put-{bytes}"), format!("put {name}"), Unit::Seconds)
            .ask(Who::Mobula, format!("put {bytes}"))
            .ask(Who::Plasma, format!("put {bytes}"))
            .ask(Who::Lmdb, format!("put {bytes}"))
            .times(Who::Plasma, 300.0)
            .times(Who::Lmdb, 1.0);
        if bytes == 8 {
            row = row.headline().method(
                "Mobula: `Client::put`, and a drop of the object, which frees it (the others free nothing), while \
                 1,000 other objects are alive. Plasma: Create, copy, Seal and Release of a new id. LMDB: one write \
                 transaction with one put, on tmpfs, with `NOSYNC`, `NOMETASYNC` and `WRITEMAP`, so that it never \
                 waits for a disk.",
            );
        }
        rows.push(row);
    }
    rows.push(
        Row::new("get-first", "get 8 B in another process, first time", Unit::Seconds)
            .method(
                "A process gets objects that are new to it, one after the other, looks at both ends, and drops each \
                 (Plasma: Get and Release; LMDB: a read transaction with one get, in the process that has put). It is \
                 attached to the owner before.",
            )
            .ask(Who::Mobula, "get-first 8")
            .ask(Who::Plasma, "get-first 8")
            .ask(Who::Lmdb, "get 8")
            .times(Who::Plasma, 80.0)
            .headline(),
    );
    rows.push(
        Row::new("get-held", "get 8 B again while it is held", Unit::Seconds)
            .method("The same get of one object that this process holds already, and a drop of the second reference.")
            .ask(Who::Mobula, "get-held 8")
            .ask(Who::Plasma, "get-held 8")
            .times(Who::Plasma, 4.0)
            .headline(),
    );
    rows
}
