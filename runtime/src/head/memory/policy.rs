//! The choice of the process that is ended when memory is short.
//!
//! The processes that run calls of one caller are a *group*. Groups whose calls may be retried come first; among them
//! the largest group, and of that, the process that got its call last: it loses the least work. So each caller keeps
//! one running call while another caller has several. Processes whose calls may not be retried are one group, which
//! comes last.
//!
//! The last process of a caller is ended too, if need be. Its call is not retried: nothing else of its caller was left
//! to end, so a retry would not fit into memory either, and the caller would wait for ever.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

/// A process that could be ended. Its caller is a `K`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<K> {
    pub(crate) token: u64,
    pub(crate) caller: K,
    pub(crate) is_retriable: bool,
    /// The time at which its lease was granted: since then it has had its call.
    pub(crate) since: Instant,
}

/// The process that is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(crate) token: u64,
    /// Whether its call is retried.
    pub(super) is_retried: bool,
}

/// Chooses the process that is ended; `None` if there is none.
pub(super) fn choose<K: Copy + Eq + Hash>(candidates: &[Candidate<K>]) -> Option<Choice> {
    let mut groups: HashMap<Option<K>, Vec<&Candidate<K>>> = HashMap::new();
    for candidate in candidates {
        groups.entry(candidate.is_retriable.then_some(candidate.caller)).or_default().push(candidate);
    }
    let newest = |group: &[&Candidate<K>]| group.iter().map(|one| (one.since, one.token)).max();
    let (caller, group) =
        groups.iter().max_by_key(|(caller, group)| (caller.is_some(), group.len(), newest(group)))?;
    let (_, token) = newest(group)?;
    Some(Choice { token, is_retried: caller.is_some() && group.len() > 1 })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Candidates `(caller, is_retriable)`, from the oldest to the newest.
    fn candidates(of: &[(u32, bool)]) -> Vec<Candidate<u32>> {
        let begin = Instant::now();
        let each = (0u32..).zip(of).map(|(number, (caller, is_retriable))| Candidate {
            token: number.into(),
            caller: *caller,
            is_retriable: *is_retriable,
            since: begin + Duration::from_millis(number.into()),
        });
        each.collect()
    }

    #[test]
    fn the_newest_of_the_largest_retriable_group_is_ended() {
        let check = |of: &[(u32, bool)], expected: Option<(u64, bool)>| {
            let expected = expected.map(|(token, is_retried)| Choice { token, is_retried });
            assert_eq!(choose(&candidates(of)), expected, "{of:?}");
        };
        check(&[], None);
        check(&[(1, true)], Some((0, false)));
        check(&[(1, false)], Some((0, false)));
        check(&[(1, true), (1, true), (2, true)], Some((1, true)));
        check(&[(1, true), (2, true), (2, true), (1, true), (1, true), (3, true)], Some((4, true)));
        // Calls that may be retried are ended first, however few.
        check(&[(1, true), (2, false), (2, false), (3, false)], Some((0, false)));
        check(&[(1, false), (1, true), (1, true), (1, false)], Some((2, true)));
        // Calls that may not be retried are one group.
        check(&[(1, false), (2, false), (3, false)], Some((2, false)));
    }

    #[test]
    fn random_candidates_are_ended_in_order() {
        let seed = std::env::var("MOBULA_SEED").ok().and_then(|seed| seed.parse().ok());
        for seed in seed.map_or(0..2000, |seed: u64| seed..seed + 1) {
            println!("MOBULA_SEED={seed}");
            let mut state = seed;
            let mut random = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let count = random(20);
            let of: Vec<_> = (0..count).map(|_| (random(4) as u32, random(3) > 0)).collect();
            let mut left = candidates(&of);
            // In any order.
            for position in (1..left.len()).rev() {
                left.swap(position, random(position as u64 + 1) as usize);
            }
            while let Some(Choice { token, is_retried }) = choose(&left) {
                let chosen = *left.iter().find(|one| one.token == token).expect("it is one of them");
                let size = |of: &Candidate<u32>| {
                    let is_same = |one: &&Candidate<u32>| {
                        one.is_retriable == of.is_retriable && (one.caller == of.caller || !of.is_retriable)
                    };
                    left.iter().filter(is_same).count()
                };
                assert!(chosen.is_retriable || left.iter().all(|one| !one.is_retriable));
                for other in left.iter().filter(|one| one.is_retriable == chosen.is_retriable) {
                    assert!(size(other) <= size(&chosen));
                    assert!(other.caller != chosen.caller || other.since <= chosen.since);
                }
                assert_eq!(is_retried, chosen.is_retriable && size(&chosen) > 1);
                left.retain(|one| one.token != token);
            }
            assert!(left.is_empty());
        }
    }
}
