//! The bounds of the rows that are not reached, written by hand. The page shows a note beneath the table when its row
//! (or series) is missed, and says so when there is none.

/// The bound of Python’s short calls.
const PYTHON: &str = "The interpreter runs the loop, makes the arguments and the reference, and gives back and takes \
     its lock around each wait; in a worker it runs the function. The Rust rows of the same work show what Mobula \
     takes of it on this machine.";

/// Keys of rows and series, each with its note in Markdown.
pub(crate) const NOTES: &[(&str, &str)] = &[
    (
        "job-sort",
        "Both sort in memory that they had before, but rayon sorts in place, and Mobula copies each number once into \
         its range. In new memory the system clears all pages first, which takes as long as the sort where the host \
         of a virtual machine gives memory back slowly: `perf` shows half of all time in `clear_page`.",
    ),
    (
        "job-groups",
        "A column of text is copied before it is read, so that no other process can change it after it was found to \
         be UTF-8 (`Arrow` says more). Of the processor time of a worker, copies and their validation take 7 parts, \
         where the work itself takes 67 (`perf`): 1.1 times as long as over one’s own memory is the bound. Numbers, \
         and text in columns of bytes, are read in place.",
    ),
    (
        "job-words",
        "On two processors one thread’s time cannot be more than halved, and the driver, two mappers and two reducers \
         share them. The time has the start of four actors in it. Besides, each round’s counts of all words go from \
         the mappers to the reducers, where rayon’s threads add up once at the end.",
    ),
    (
        "spin-10",
        "Two workers and the thread that makes the calls share two processors. That thread takes some 2 µs for each \
         call and its result, and a worker some 0.5 µs around each call: of 10 µs of work there are 12.5, which bounds \
         the row near 0.8 of rayon.",
    ),
    (
        "spin-100",
        "As above; besides, the thread that waits is woken for some results one by one, because it must be awake \
         before the last one comes: about five switches for ten tasks.",
    ),
    (
        "spin-1000",
        "A thread that waits for results of a millisecond is woken for nearly each of them: two switches and some \
         15 µs of processor time for each task. Rayon’s threads take the next task without a message.",
    ),
    (
        "put-large",
        "The copy limits it. Mobula copies by streaming stores, which do not read what they overwrite: 19 GB/s with \
         one thread, where the C library’s `memcpy` (the row’s limit) has 12 to 14 GB/s. More threads could copy \
         faster, but starting one is a system call, and a put into leased memory makes none. A program that fills the \
         object in place copies nothing (see the seal).",
    ),
    (
        "put-large-first",
        "The copy takes as long as in the steady row, and making the huge pages takes about as long again. The rest \
         is the machine’s memory: its host takes free memory away, and is slow to give it back. The spread of the \
         rounds shows it.",
    ),
    (
        "read-large-first",
        "The sum runs as fast as over the process’s own heap. In addition there are the message to the daemon that \
         asks for the segment, the mapping, and one page fault for each 2 MiB, in a process that has just started: \
         less than a millisecond on a quiet machine, and more in some runs (see the spread).",
    ),
    (
        "actor-call",
        "Two cache lines go there, the record and the count of bytes written, and two come back. The row’s limit, and \
         an exchange by publish and subscribe, are a number on its way; a call has a callee, arguments, and a result \
         that may fail, and both sides look at the mail of others as well.",
    ),
    (
        "actor-call-asleep",
        "A call that finds its actor asleep costs two wake-ups, and the work of both processes with cold caches. The \
         longer the pause, the colder the caches: the chart “actor call and wait after a pause” shows it beside the \
         bare wake-up. Awake, the same call takes a microsecond. There are no system calls to save: `strace -f` shows \
         one write, one poll and one read on each side; the bare wake-up has a write and a read that blocks.",
    ),
    (
        "wait-1k",
        "The loop looks at the references that are left, up to the first that is ready. Making and running the \
         1,000 tasks is the rest, and limits Ray’s figure too: to be 1,000 times as fast, one thread would have to \
         make about a million tasks a second and wait for nothing. The version of this figure looked at the \
         session of all references beforehand. Since then, in turn with it on the same day, this row is 1.5 times as \
         fast, and the next one 3.9 times.",
    ),
    (
        "refs-10k",
        "A get reads 10,000 ids and counts a use of each of their objects, which lie in as many cache lines. \
         How long that takes depends on the machine’s memory: the version of 2026-11-28, measured in the same \
         hour, was as fast.",
    ),
    (
        "actor-many",
        "The goal was reached on another machine on 2026-11-24 (1.9 M/s). On this one, the version of \
         2026-11-28 made 0.72 M/s in the same hour, in turn with this one (0.71 M/s): caller and actor hand \
         each other cache lines, which take longer here.",
    ),
    (
        "recorded-actor-call",
        "The rounds of all three overlap, and differ more from each other than the three do: the machine was \
         not quiet. With nothing beside, it was 0.99 of nothing recorded (2026-11-30, earlier).",
    ),
    ("recorded-task-many", "As in the row before: the spread of the rounds is larger than the difference."),
    (
        "seal",
        "Up to 16 MiB the goal is reached. The writer has then filled more than all caches hold, so what the \
         seal reads and writes comes from memory. On another machine the same seal of 256 MiB took 0.4 µs \
         (2026-11-24).",
    ),
    (
        "pass",
        "The calls back to back do not depend on the size: each passes the same 16 bytes, and the actor looks at both \
         ends. The machine differs: it changes between two states, for seconds each, in which the same cache lines \
         between its two processors take about 1 or about 2 times as long (the row of the spinning call shows both). \
         With a pause before each call, the cold caches of the row above are added.",
    ),
    (
        "job-tasks",
        "The driver shares the two processors with the two workers. It makes 5,000 calls before it waits, and it \
         is woken for results while the workers compute; rayon’s threads are the driver.",
    ),
    (
        "asleep",
        "As for the callee that is asleep, whose note has the counts: two wake-ups, and two processes whose \
         caches are the colder the longer the pause is.",
    ),
    (
        "beside",
        "The time of a call does not follow the number of actors: points with more actors are faster than points \
         with fewer. The differences are those of the machine, which changes between two states, for seconds each \
         (see “pass a stored array”).",
    ),
    (
        "start",
        "A process of this program that does nothing takes longer than the goal, as the table under “How costs \
         grow” shows. In the rest of the time, the new process connects to the store, maps its tables, starts its \
         threads, meets the caller, and makes the actor. Why this part grows beside a thousand other processes is \
         not known yet.",
    ),
    ("nested", "Each level starts a process, so the note on the start of an actor holds here, too."),
    (
        "pending",
        "A pending call has a task (328 bytes of the heap: what is called, the arguments, and the counts of \
         retries), a cell for its result (136 bytes), an entry in the table of calls under way, and the bytes of \
         its record, which waits for room in the ring. Table and buffer have room for up to twice as many when \
         they have just grown. The calls of the first points find memory that earlier rounds have left.",
    ),
    (
        "threads",
        "The machine has two processors, and the actor needs one of them. A second calling thread takes it away: \
         then a call and its result cost switches between threads. Calls at once and gets of one object meet in \
         the same cache lines (the ring’s lock, and the object’s count), which move between the processors.",
    ),
    (
        "threads-put",
        "All puts of a process take one lock, under which the object’s entry and its memory are found. Two \
         threads that only put hand it to each other, and its cache lines move between the processors.",
    ),
    (
        "idle-cpu",
        "The memory monitor reads the system’s figures four times a second, as Ray’s does. Without it \
         (`MOBULA_MEMORY_MONITOR_INTERVAL_MS=0`) the row has 0.0 %.",
    ),
    (
        "live",
        "Puts, and gets in order, stay flat. A get of a random one among a million objects touches four lines that \
         are in no cache (the entry, the pin, the count and the object), two of them one after the other. So it grows \
         by two to three times the time of one random load on this machine, which is the last column.",
    ),
    (
        "clients",
        "A free looks at one word for each attached reader, 64 bytes apart from the others; a get does not depend on \
         other clients. The rest is noise of the machine, which has two processors for the 65 processes.",
    ),
    (
        "workers",
        "Short calls go to one worker as long as it has room, however many workers there are. The differences come \
         from waking the other workers, which then find nothing to do, and from the state of the machine (see “pass a \
         stored array”).",
    ),
    (
        "crowd-call",
        "Both figures are of a machine with ten processes for two processors, where the scheduler decides: their \
         ranges overlap. Spinning is off in both after the first look at the load.",
    ),
    ("python-put", PYTHON),
    ("python-get", PYTHON),
    ("python-actor-call", PYTHON),
    ("python-task-call", PYTHON),
    ("python-actor-many", PYTHON),
    ("python-task-many", PYTHON),
    ("python-small-array", PYTHON),
    ("python-get-array", PYTHON),
    ("python-pass-array", PYTHON),
    (
        "python-init",
        "The imports of the driver, the start of a session, and the start of a worker, which is a new \
         interpreter with the same imports, come one after the other. 116 ms were measured on another machine \
         (2026-11-29).",
    ),
];

/// The note of a row.
pub(crate) fn note(key: &str) -> Option<&'static str> {
    NOTES.iter().find(|(of, _)| *of == key).map(|(_, note)| *note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;

    #[test]
    fn every_note_belongs_to_something() {
        let rows = rows::rows();
        let series = rows::series();
        for (key, _) in NOTES {
            let known =
                rows.iter().any(|row| row.key == *key) || series.iter().any(|series| series.key == *key);
            assert!(known, "a note for {key}, which there is not");
        }
    }
}
