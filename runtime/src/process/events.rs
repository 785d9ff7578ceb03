//! Which events a process records: what its environment says, and without that none. To count calls and to know the
//! running one costs a call and its result 2 to 5 percent, also where no event is recorded.

use mobula_client::internal::recorder::Kind;

/// The variable that says which events are recorded: `all`, `none`, or names of [`GROUPS`] with commas between them.
const EVENTS: &str = "MOBULA_EVENTS";

/// What can be recorded, by name.
const GROUPS: [(&str, &[Kind]); 7] = [
    ("calls", &[Kind::Made, Kind::Sent, Kind::Ran]),
    ("exceptions", &[Kind::Blocked, Kind::Failed]),
    ("results", &[Kind::Ended]),
    ("waits", &[Kind::Waited, Kind::Promised]),
    ("memory", &[Kind::Leased, Kind::Spilled, Kind::Restored]),
    ("marks", &[Kind::Mark, Kind::Span]),
    ("processes", &[Kind::Process]),
];

/// The kinds of events that this process records, as bits. If there are any, calls are counted, too, and the running
/// one is known.
pub(crate) fn kinds() -> u32 {
    kinds_in(std::env::var(EVENTS).ok().as_deref())
}

fn kinds_in(text: Option<&str>) -> u32 {
    let bits = |is_in: &dyn Fn(&str) -> bool| {
        let groups = GROUPS.iter().filter(|(name, _)| is_in(name));
        groups.flat_map(|(_, kinds)| *kinds).fold(0, |bits, kind| bits | kind.bit())
    };
    match text.map(str::trim) {
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
        let every = GROUPS.iter().flat_map(|(_, kinds)| *kinds).fold(0, |bits, kind| bits | kind.bit());
        assert_eq!((kinds_in(Some("all")), kinds_in(Some("1"))), (every, every));
        assert_eq!(every.count_ones(), 14, "each kind is of a group");
        let of_some = [Kind::Waited, Kind::Promised, Kind::Mark, Kind::Span];
        let of_some = of_some.iter().fold(0, |bits, kind| bits | kind.bit());
        assert_eq!(kinds_in(Some("waits, marks")), of_some);
        assert_eq!(kinds_in(Some("nonsense")), 0);
    }
}
