//! What bounds the rows that are not reached, written by hand: the page shows a note beneath the table when its row (or
//! series) is missed, and says so when there is none.

/// Keys of rows and series, each with its note in Markdown.
pub(crate) const NOTES: &[(&str, &str)] = &[
    (
        "put-large",
        "What bounds it is the copy. Mobula copies by streaming stores, which do not read what they overwrite: 19 GB/s with \
         one thread, where the C library’s `memcpy` (the row’s limit) has 12 to 14 GB/s. More threads could copy faster, \
         but starting one is a system call, and a put into leased memory makes none. Who fills the object in place copies \
         nothing at all (see the seal).",
    ),
    (
        "put-large-first",
        "The copy takes what the steady row shows, and making the huge pages about as long again. What is beyond that is the \
         machine’s memory, which its host takes away while it is free and is slow to give back: the spread of the rounds \
         shows it.",
    ),
    (
        "read-large-first",
        "The sum runs at the speed of one’s own heap. On top of it come the round trip in which the daemon hands the segment \
         over, mapping it, and one page fault for each 2 MiB, in a process that has only just started: less than a \
         millisecond on a quiet machine, and more in some runs (see the spread).",
    ),
    (
        "actor-call-asleep",
        "A call that finds its actor asleep is two wake-ups, and what both processes do in between with caches that have \
         gone cold: more the longer the pause, as the chart “actor call and wait after a pause” shows beside the bare \
         wake-up. Awake, the same call takes a microsecond. There are no system calls to save: `strace -f` shows one \
         write, one poll and one read on each side, where the bare wake-up has a write and a read that blocks.",
    ),
    (
        "wait-1k",
        "Most of the loop is its 1,000 tasks, not the waiting. A loop that only waits (the next row) is over in 0.17 ms, and \
         1,000 tasks alone take 0.53 ms at the rate of “tasks, many at once”: together that is 1,400 to 1,700 loops a \
         second. 1,000 times Ray, whose figure is bounded by its tasks too, would need 2 to 2.3 million tasks a second \
         from one thread.",
    ),
    (
        "pass",
        "The calls back to back do not depend on the size: each passes the same 16 bytes, and the actor looks at both ends. \
         What differs is the machine, which goes back and forth between two states, for seconds each, in which the same \
         cache lines between its two processors take about 1 or about 2 times as long (the row of the spinning call shows \
         both). With a pause before each call, the cold caches of the row above come on top.",
    ),
    (
        "live",
        "Puts, and gets in order, stay flat. A get at random of one among a million objects touches four lines that no cache \
         can have (the entry, the pin, the count and the object), two of them one after the other: it grows by two to \
         three times what one load at random takes on this machine, which is the last column.",
    ),
    (
        "clients",
        "A free looks at one word for each reader that is attached, 64 bytes apart from the others; a get does not depend on \
         the others at all. What remains is noise of the machine, which has two processors for the 65 processes.",
    ),
    (
        "workers",
        "Short calls go to one worker as long as it has room, however many there are. What differs is how often the others \
         are woken to find nothing to do, and the state of the machine (see “pass a stored array”).",
    ),
    (
        "crowd-call",
        "Both figures are those of a machine with ten processes for two processors, where the scheduler decides: their ranges \
         overlap. Spinning is off in both after the first look at the load.",
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
