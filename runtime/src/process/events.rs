//! The events that a process records: the [rare ones](USUAL), or those that its environment names. A process that
//! records any events also records its running call, the waits of its threads, and the lengths of its queues. An event
//! for each call is recorded only on request, because it costs each call more.

use mobula_client::internal::recorder::{Kind, ORIGINS};

/// The variable that selects the events to record: `usual`, which is the default, `all`, `none`, or names of [`GROUPS`]
/// separated by commas.
pub(crate) const EVENTS: &str = "MOBULA_EVENTS";

/// Its values.
pub(crate) const EXPECTED: &str = "usual, all, none, or some of calls, exceptions, results, waits, memory, marks and \
                                   processes, separated by commas";

/// The variable that, set to 1, records the place where each object is made, for `mobula memory`.
pub(crate) const CALL_SITES: &str = "MOBULA_CALL_SITES";

/// The groups of events, by name.
const GROUPS: [(&str, &[Kind]); 7] = [
    ("calls", &[Kind::Made, Kind::Sent, Kind::Began, Kind::Ran]),
    ("exceptions", &[Kind::Blocked, Kind::Failed]),
    ("results", &[Kind::Ended]),
    ("waits", &[Kind::Waited, Kind::Promised]),
    ("memory", &[Kind::Leased, Kind::Spilled, Kind::Restored]),
    ("marks", &[Kind::Mark, Kind::Span]),
    ("processes", &[Kind::Process]),
];

/// The events of `usual`: none of them comes with each call.
const USUAL: [Kind; 8] = [
    Kind::Failed,
    Kind::Promised,
    Kind::Leased,
    Kind::Spilled,
    Kind::Restored,
    Kind::Mark,
    Kind::Span,
    Kind::Process,
];

/// The kinds of events that this process records, as bits; 0 for none. The start of the session has checked the
/// variables. Here a bad value counts as if the variable were not set.
pub(crate) fn kinds() -> u32 {
    let given = std::env::var(EVENTS).ok().and_then(|text| kinds_in(&text));
    let kinds = given.unwrap_or_else(|| bits(&USUAL));
    let is_on = std::env::var(CALL_SITES).is_ok_and(|on| !matches!(on.trim(), "" | "0"));
    if is_on { kinds | ORIGINS } else { kinds }
}

/// The kinds that a value of the variable selects; `None` if it cannot be understood.
pub(crate) fn kinds_in(text: &str) -> Option<u32> {
    match text.trim() {
        "" | "usual" => Some(bits(&USUAL)),
        "none" | "0" => Some(0),
        "all" | "1" => Some(bits(&Kind::ALL)),
        names => names.split(',').try_fold(0, |chosen, wanted| {
            let (_, kinds) = GROUPS.iter().find(|(name, _)| *name == wanted.trim())?;
            Some(chosen | bits(kinds))
        }),
    }
}

fn bits(kinds: &[Kind]) -> u32 {
    kinds.iter().fold(0, |bits, kind| bits | kind.bit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_what_is_recorded() {
        assert_eq!((kinds_in("none"), kinds_in("0")), (Some(0), Some(0)));
        let usual = bits(&USUAL);
        assert_eq!((kinds_in("usual"), kinds_in("")), (Some(usual), Some(usual)));
        assert_eq!(usual.count_ones(), 8);
        assert_eq!(usual & (Kind::Made.bit() | Kind::Ran.bit() | Kind::Waited.bit()), 0);
        let every = GROUPS.iter().flat_map(|(_, kinds)| *kinds).fold(0, |bits, kind| bits | kind.bit());
        assert_eq!((kinds_in("all"), kinds_in("1")), (Some(every), Some(every)), "each kind is of a group");
        let of_some = [Kind::Waited, Kind::Promised, Kind::Mark, Kind::Span];
        assert_eq!(kinds_in("waits, marks"), Some(bits(&of_some)));
        assert_eq!((kinds_in("nonsense"), kinds_in("waits,nonsense")), (None, None));
        assert!(GROUPS.iter().all(|(name, _)| EXPECTED.contains(name)));
    }
}
