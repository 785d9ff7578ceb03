//! Which events a process records: what its environment says, and without that nearly everything.

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

/// The kinds of events that this process records, as bits: without a variable, everything but `calls` and `results`,
/// which cost each call something. Calls are counted in any case, and the running one is known.
pub(crate) fn kinds() -> u32 {
    kinds_in(std::env::var(EVENTS).ok().as_deref())
}

fn kinds_in(text: Option<&str>) -> u32 {
    let bits = |is_in: &dyn Fn(&str) -> bool| {
        let groups = GROUPS.iter().filter(|(name, _)| is_in(name));
        groups.flat_map(|(_, kinds)| *kinds).fold(0, |bits, kind| bits | kind.bit())
    };
    match text.map(str::trim) {
        None | Some("") => bits(&|name| name != "calls" && name != "results"),
        Some("all" | "1") => bits(&|_| true),
        Some("none" | "0") => 0,
        Some(names) => bits(&|name| names.split(',').any(|wanted| wanted.trim() == name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_says_what_is_recorded() {
        let all = kinds_in(Some("all"));
        let default = kinds_in(None);
        assert_eq!((kinds_in(Some("")), kinds_in(Some("none")), kinds_in(Some("0"))), (default, 0, 0));
        let of_calls = [Kind::Made, Kind::Sent, Kind::Ran, Kind::Ended];
        assert_eq!(all & !default, of_calls.iter().fold(0, |bits, kind| bits | kind.bit()));
        assert_eq!(default & !all, 0);
        let of_some = [Kind::Waited, Kind::Promised, Kind::Mark, Kind::Span];
        let of_some = of_some.iter().fold(0, |bits, kind| bits | kind.bit());
        assert_eq!(kinds_in(Some("waits, marks")), of_some);
        assert_eq!(kinds_in(Some("nonsense")), 0);
    }
}
