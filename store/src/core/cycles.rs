//! Reference cycles: objects that keep each other alive.
//!
//! An object refers to older ones, so the references of an honest client form no cycle. There is one exception: an
//! object may refer to a promise that is settled with an object which refers back. But a client can write anything into
//! its memory until it dies, and a cycle would be kept for ever if the daemon held a part of it.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// `recorded` has the references of one owner's objects. Removes each reference through which an object refers back to
/// itself, directly or through other objects.
///
/// `refers` returns the references of any other object. At most `looks_max` references are followed in all; nothing is
/// removed because of references beyond them.
pub(crate) fn cut<T: Copy + Eq + Hash + Ord>(
    recorded: &mut HashMap<T, Vec<T>>,
    mut refers: impl FnMut(T) -> Vec<T>,
    mut looks_max: usize,
) {
    let mut places: HashMap<T, Place> = HashMap::new();
    // Pairs of from and to. They are removed at the end: one by one, each would cost a walk through all references.
    let mut taken_out: HashSet<(T, T)> = HashSet::new();
    let mut roots: Vec<T> = recorded.keys().copied().collect();
    roots.sort_unstable();
    for root in roots {
        let mut path: Vec<Stop<T>> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(object) = next.take() {
                match places.get(&object) {
                    Some(Place::Behind) => {}
                    Some(Place::OnPath(first)) => {
                        // The last place on the way round where a reference can be removed. Without one, the cycle is
                        // of other owners.
                        let cut =
                            (*first..path.len()).rev().find(|at| recorded.contains_key(&path[*at].object));
                        if let Some(cut) = cut {
                            for stop in path.drain(cut + 1..) {
                                places.remove(&stop.object);
                            }
                            let stop = &path[cut];
                            taken_out.insert((stop.object, stop.references[stop.at - 1]));
                        }
                    }
                    None => {
                        let mut references = match recorded.get(&object) {
                            Some(references) => references.clone(),
                            None if looks_max > 0 => refers(object),
                            None => Vec::new(),
                        };
                        references.truncate(looks_max);
                        looks_max -= references.len();
                        places.insert(object, Place::OnPath(path.len()));
                        path.push(Stop { object, references, at: 0 });
                    }
                }
            }
            let Some(stop) = path.last_mut() else { break };
            let left = &stop.references[stop.at..];
            let skipped = left.iter().take_while(|to| taken_out.contains(&(stop.object, **to))).count();
            next = left.get(skipped).copied();
            stop.at += skipped + 1;
            if next.is_none() {
                places.insert(stop.object, Place::Behind);
                path.pop();
            }
        }
    }
    for (object, references) in recorded {
        references.retain(|reference| !taken_out.contains(&(*object, *reference)));
    }
}

/// Where the walk is, seen from an object.
enum Place {
    /// The walk came through here, as the stop with this number.
    OnPath(usize),
    /// All objects that it leads to have been visited.
    Behind,
}

/// An object that the walk comes through.
struct Stop<T> {
    object: T,
    references: Vec<T>,
    /// The reference that is followed next.
    at: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::random::Random;

    fn check(ours: &[(u32, &[u32])], others: &[(u32, &[u32])], expected: &[(u32, &[u32])]) {
        let owned = |list: &[(u32, &[u32])]| -> HashMap<u32, Vec<u32>> {
            list.iter().map(|(object, references)| (*object, references.to_vec())).collect()
        };
        let (mut recorded, others) = (owned(ours), owned(others));
        cut(&mut recorded, |object| others.get(&object).cloned().unwrap_or_default(), 1000);
        assert_eq!(recorded, owned(expected), "{ours:?} and {others:?}");
    }

    #[test]
    fn what_leads_back_is_taken_out_and_nothing_else_is() {
        check(&[(1, &[1])], &[], &[(1, &[])]);
        check(&[(1, &[2, 3, 2])], &[], &[(1, &[2, 3, 2])]);
        // Through another's object.
        check(&[(1, &[7, 8])], &[(7, &[1]), (8, &[])], &[(1, &[8])]);
        // A diamond is no cycle.
        check(&[(1, &[7, 8])], &[(7, &[9]), (8, &[9])], &[(1, &[7, 8])]);
        // Two of ours, one of which has to give way.
        check(&[(1, &[2]), (2, &[1])], &[], &[(1, &[2]), (2, &[])]);
        // A cycle of other owners' objects is not cut.
        check(&[(1, &[7])], &[(7, &[8]), (8, &[7])], &[(1, &[7])]);
        // Everything on the way round is looked at again, for what else it leads to.
        check(&[(1, &[7, 9]), (2, &[7])], &[(7, &[8]), (8, &[1])], &[(1, &[9]), (2, &[7])]);
    }

    #[test]
    fn random_references_end_without_a_cycle_of_ours() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let objects = 2 + random.below(12);
            let mut some = |count: u64| -> Vec<u64> {
                (0..random.below(count)).map(|_| random.below(objects)).collect()
            };
            let mut recorded: HashMap<u64, Vec<u64>> =
                (0..objects / 2).map(|object| (object, some(4))).collect();
            // Others refer to older ones only.
            let others: HashMap<u64, Vec<u64>> = (objects / 2..objects)
                .map(|object| (object, some(4).into_iter().filter(|other| *other < object).collect()))
                .collect();
            let before = recorded.clone();
            cut(&mut recorded, |object| others[&object].clone(), 10_000);
            let leads_back = |from: u64, references: &HashMap<u64, Vec<u64>>| {
                let (mut seen, mut next) = (Vec::new(), references[&from].clone());
                while let Some(object) = next.pop() {
                    if !seen.contains(&object) {
                        seen.push(object);
                        next.extend(references.get(&object).unwrap_or_else(|| &others[&object]));
                    }
                }
                seen.contains(&from)
            };
            for (object, references) in &recorded {
                assert!(
                    !leads_back(*object, &recorded),
                    "seed {seed}: {object} in {recorded:?} and {others:?}"
                );
                assert!(references.iter().all(|reference| before[object].contains(reference)), "seed {seed}");
            }
            if (0..objects / 2).all(|object| !leads_back(object, &before)) {
                assert_eq!(recorded, before, "seed {seed}: nothing led back");
            }
        }
    }

    #[test]
    fn many_references_that_lead_back_take_no_longer_each() {
        const MANY: u32 = 50_000;
        // Minutes, if each took a look at all.
        let mut recorded = HashMap::from([(0, vec![0; MANY as usize]), (1, (0..MANY).collect())]);
        cut(&mut recorded, |_| vec![1], 2_000_000);
        assert_eq!(recorded, HashMap::from([(0, vec![]), (1, vec![0])]));
    }

    #[test]
    fn a_long_way_is_not_followed_to_its_end() {
        let mut recorded = HashMap::from([(0, vec![1])]);
        let mut looks = 0;
        let endless = |object: u32| {
            looks += 1;
            vec![object + 1]
        };
        cut(&mut recorded, endless, 100);
        assert_eq!(recorded[&0], [1]);
        assert!(looks <= 100, "{looks}");
    }
}
