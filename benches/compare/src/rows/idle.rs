//! The use of CPU time and memory while nothing is done.

use super::{Row, Task, Who};
use crate::measure::Unit;

/// Nothing, to one digit behind the point.
const IDLE_PERCENT: f64 = 0.049;

pub(super) fn rows() -> Vec<Row> {
    let idle = |key: &str, work: &str, unit: Unit, task: Task| {
        Row::new(key, work, unit)
            .contender(Who::Mobula.name(), Who::Mobula, task.clone(), 1)
            .contender(Who::Ray.name(), Who::Ray, task, 1)
            .rounds(1, 0)
    };
    vec![
        idle("idle-cpu", "idle: store, driver, 2 workers: CPU", Unit::Percent, Task::IdleCpu)
            .method(
                "A session that has run tasks is left alone for 3 s. The figure is the CPU time of all its processes \
                 over the next 5 s, as a part of one core.",
            )
            .at_most(IDLE_PERCENT),
        idle("idle-memory", "idle: store, driver, 2 workers: memory", Unit::Bytes, Task::IdleMemory)
            .method(
                "At the same time: of all its processes, the private memory and their part of the memory that they \
                 share (PSS), and all shared memory that they have open, mapped or not.",
            )
            .at_most(30e6)
            .headline(),
    ]
}
