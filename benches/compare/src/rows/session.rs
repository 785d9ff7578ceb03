//! A session's beginning and end.

use super::{Row, Who};
use crate::measure::Unit;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::new("init", "`init` until the first task is done", Unit::Seconds)
            .method("With 2 workers, in a process that runs already (Ray is imported already).")
            .ask(Who::Mobula, "init")
            .ask_rarely(Who::Ray, "init", 2)
            .at_most(0.05)
            .headline(),
        Row::new("join", "a second driver joins, until its first task is done", Unit::Seconds)
            .method(
                "A session that drivers share, with 2 CPUs and another driver that has run a task. The process that \
                 joins runs already (Ray is imported already); its first worker is started.",
            )
            .ask(Who::Mobula, "join")
            .ask_rarely(Who::Ray, "join", 3),
        Row::new("shutdown", "shutdown", Unit::Seconds)
            .method("Until each process of the session has ended.")
            .ask(Who::Mobula, "shutdown")
            .ask_rarely(Who::Ray, "shutdown", 2)
            .at_most(0.05),
        Row::new("actors-10", "10 actors, start and first call", Unit::Seconds)
            .method(
                "The caller makes ten actors, each in a process of its own, and waits for one call of each.",
            )
            .ask(Who::Mobula, "actors-10")
            .ask_rarely(Who::Ray, "actors-10", 2)
            .at_most(0.1)
            .headline(),
    ]
}
