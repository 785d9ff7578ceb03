//! The events that a process records: those that its environment names, and none by default. A process that records any
//! events also records its running call, the waits of its threads, and the lengths of its queues. [Rare events](USUAL)
//! and an event for each call have different words, because the second costs each call more.

use mobula_client::internal::recorder::{Kind, ORIGINS};

/// The variable that selects the events to record: `all`, `none`, `usual`, or names of [`GROUPS`] separated by commas.
/// Without the variable, no events are recorded.
const EVENTS: &str = "MOBULA_EVENTS";

/// The variable that, set to 1, records the place where each object is made, for `mobula memory`.
const CALL_SITES: &str = "MOBULA_CALL_SITES";

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

/// The kinds of events that this process records, as bits; 0 for none.
pub(crate) fn kinds() -> u32 {
    let kinds = kinds_in(std::env::var(EVENTS).ok().as_deref());
    let is_on = std::env::var(CALL_SITES).is_ok_and(|on| !matches!(on.trim(), "" | "0"));
    if is_on { kinds | ORIGINS } else { kinds }
}

fn kinds_in(text: Option<&str>) -> u32 {
    let bits = |is_in: &dyn Fn(&str) -> bool| {
        let groups = GROUPS.iter().filter(|(name, _)| is_in(name));
        groups.flat_map(|(_, kinds)| *kinds).fold(0, |bits, kind| bits | kind.bit())
    };
    match text.map(str::trim) {
        Some("usual") => USUAL.into_iter().fold(0, |bits, kind| bits | kind.bit()),
        None | Some("" | "none" | "0") => 0,
        Some("all" | "1") => bits(&|_| true),
        Some(names) => bits(&|name| names.split(',').any(|wanted| wanted.trim() == name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_what_is_recorded() {
        for nothing in [None, Some(""), Some("none"), Some("0")] {
            assert_eq!(kinds_in(nothing), 0);
        }
        let usual = kinds_in(Some("usual"));
        assert_eq!(usual.count_ones(), 8);
        assert_eq!(usual & (Kind::Made.bit() | Kind::Ran.bit() | Kind::Waited.bit()), 0);
        let every = GROUPS.iter().flat_map(|(_, kinds)| *kinds).fold(0, |bits, kind| bits | kind.bit());
        assert_eq!((kinds_in(Some("all")), kinds_in(Some("1"))), (every, every));
        assert_eq!(every.count_ones() as usize, Kind::ALL.len(), "each kind is of a group");
        let of_some = [Kind::Waited, Kind::Promised, Kind::Mark, Kind::Span];
        let of_some = of_some.iter().fold(0, |bits, kind| bits | kind.bit());
        assert_eq!(kinds_in(Some("waits, marks")), of_some);
        assert_eq!(kinds_in(Some("nonsense")), 0);
    }
}
