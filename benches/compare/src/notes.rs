//! The bounds of the rows that are not reached, written by hand. The page shows a note beneath the table when its row
//! (or series) is missed, and says so when there is none.

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
        "The 1,000 tasks take most of the loop, not the waiting. A loop that only waits (the next row) takes 0.17 ms, \
         and 1,000 tasks alone take 0.53 ms at the rate of “tasks, many at once”: together that is 1,400 to 1,700 \
         loops a second. Tasks limit Ray’s figure too. To be 1,000 times as fast, one thread would have to make 2 to \
         2.3 million tasks a second.",
    ),
    (
        "pass",
        "The calls back to back do not depend on the size: each passes the same 16 bytes, and the actor looks at both \
         ends. The machine differs: it changes between two states, for seconds each, in which the same cache lines \
         between its two processors take about 1 or about 2 times as long (the row of the spinning call shows both). \
         With a pause before each call, the cold caches of the row above are added.",
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
