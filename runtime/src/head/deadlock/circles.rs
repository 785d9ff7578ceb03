//! Circles in a graph.

use std::collections::{BTreeMap, VecDeque};

/// The shortest circle through each node that is in one: the node itself, and the others in the order of the edges.
pub(super) fn circles<N: Copy + Ord>(edges: &BTreeMap<N, Vec<N>>) -> Vec<Vec<N>> {
    edges.keys().filter_map(|start| circle(*start, edges)).collect()
}

fn circle<N: Copy + Ord>(start: N, edges: &BTreeMap<N, Vec<N>>) -> Option<Vec<N>> {
    // How each node was reached first.
    let mut from: BTreeMap<N, N> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(node) = next.pop_front() {
        for target in edges.get(&node).into_iter().flatten() {
            if *target == start {
                let mut back = vec![node];
                while let Some(before) = from.get(&back[back.len() - 1]) {
                    back.push(*before);
                }
                back.reverse();
                return Some(back);
            }
            if !from.contains_key(target) {
                from.insert(*target, node);
                next.push_back(*target);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_of_a_circle_gets_the_circle_from_itself_on() {
        let edges = |edges: &[(u32, &[u32])]| -> BTreeMap<u32, Vec<u32>> {
            edges.iter().map(|(node, targets)| (*node, targets.to_vec())).collect()
        };
        assert_eq!(circles(&edges(&[(1, &[1])])), [[1]]);
        let found = circles(&edges(&[(1, &[2]), (2, &[3, 4]), (3, &[1]), (4, &[])]));
        assert_eq!(found, [[1, 2, 3], [2, 3, 1], [3, 1, 2]]);
        // One that only leads to a circle is in none.
        assert_eq!(circles(&edges(&[(1, &[2]), (2, &[3]), (3, &[2])])), [[2, 3], [3, 2]]);
        assert!(circles(&edges(&[(1, &[2]), (2, &[])])).is_empty());
    }
}
