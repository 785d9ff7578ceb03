//! Names of objects, in order, and the time of each name's last lookup. Each name has a number, as small as possible:
//! the index of its record in the memory that outlives the daemon.
//!
//! A name holds its object. This module does not know how.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use mobula_protocol::id::{ObjectId, OwnerId};

#[derive(Debug)]
struct Named {
    object: ObjectId,
    place: u32,
    /// Key of `by_use`.
    used: u64,
}

/// All names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_name: BTreeMap<Vec<u8>, Named>,
    by_use: BTreeMap<u64, Vec<u8>>,
    /// How many names an object has.
    counts: HashMap<ObjectId, u32>,
    uses: u64,
    /// Vacant places: those below `places` that no name has.
    vacant: BTreeSet<u32>,
    places: u32,
}

impl Names {
    /// The place that the next name gets.
    pub(crate) fn next_place(&self) -> u32 {
        self.vacant.first().copied().unwrap_or(self.places)
    }

    /// Names an object, as used just now; returns the name's place.
    ///
    /// # Panics
    /// When the name is taken.
    pub(crate) fn insert(&mut self, name: Vec<u8>, object: ObjectId) -> u32 {
        let place = self.next_place();
        self.insert_at(place, name, object);
        place
    }

    /// Names an object at a place that is vacant.
    ///
    /// # Panics
    /// When the name is taken.
    pub(crate) fn insert_at(&mut self, place: u32, name: Vec<u8>, object: ObjectId) {
        self.vacant.extend(self.places..place);
        self.places = self.places.max(place + 1);
        self.vacant.remove(&place);
        self.uses += 1;
        self.by_use.insert(self.uses, name.clone());
        *self.counts.entry(object).or_default() += 1;
        let before = self.by_name.insert(name, Named { object, place, used: self.uses });
        assert!(before.is_none(), "a name was given twice");
    }

    /// The object of a name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<ObjectId> {
        self.by_name.get(name).map(|named| named.object)
    }

    /// Notes that a name was looked up.
    pub(crate) fn touch(&mut self, name: &[u8]) {
        let Some(named) = self.by_name.get_mut(name) else { return };
        self.uses += 1;
        if let Some(name) = self.by_use.remove(&named.used) {
            self.by_use.insert(self.uses, name);
        }
        named.used = self.uses;
    }

    /// Removes a name; returns the object that it no longer holds, and its place.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<(ObjectId, u32)> {
        let named = self.by_name.remove(name)?;
        self.vacant.insert(named.place);
        self.by_use.remove(&named.used);
        if let Some(count) = self.counts.get_mut(&named.object) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&named.object);
            }
        }
        Some((named.object, named.place))
    }

    /// Whether an object has a name.
    pub(crate) fn has_name(&self, object: ObjectId) -> bool {
        self.counts.contains_key(&object)
    }

    /// How many names an object has.
    pub(crate) fn count_of(&self, object: ObjectId) -> u32 {
        self.counts.get(&object).copied().unwrap_or(0)
    }

    /// Names and objects in the order of the names, behind `after`.
    pub(crate) fn after(&self, after: &[u8]) -> impl Iterator<Item = (&[u8], ObjectId)> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        self.by_name.range::<[u8], _>(range).map(|(name, named)| (name.as_slice(), named.object))
    }

    /// Names and objects, the one that was looked up least recently first.
    pub(crate) fn least_recent(&self) -> impl Iterator<Item = (&[u8], ObjectId)> {
        self.by_use.values().filter_map(|name| Some((name.as_slice(), self.get(name)?)))
    }

    /// The names of an owner's objects.
    pub(crate) fn of_owner(&self, owner: OwnerId) -> Vec<(Vec<u8>, ObjectId)> {
        let named = self.by_name.iter().filter(|(_, named)| named.object.owner() == owner);
        named.map(|(name, named)| (name.clone(), named.object)).collect()
    }

    /// The number of names.
    pub(crate) fn count(&self) -> usize {
        self.by_name.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::random::Random;

    fn object(index: u32) -> ObjectId {
        ObjectId::new(OwnerId::new(1, 1), index, 0)
    }

    #[test]
    fn random_operations_agree_with_a_list_in_order_of_use() {
        // Miri is slow.
        const SEEDS: u64 = if cfg!(miri) { 2 } else { 50 };
        for seed in 0..SEEDS {
            let (mut random, mut names) = (Random::new(seed), Names::default());
            let mut model: Vec<(Vec<u8>, ObjectId)> = Vec::new();
            for step in 0..400 {
                let name = vec![b'a' + random.below(12) as u8];
                let place = model.iter().position(|(known, _)| *known == name);
                match (random.below(3), place) {
                    (0, None) => {
                        let object = object(random.below(4) as u32);
                        names.insert(name.clone(), object);
                        model.push((name, object));
                    }
                    (1, place) => {
                        names.touch(&name);
                        if let Some(place) = place {
                            let entry = model.remove(place);
                            model.push(entry);
                        }
                    }
                    (2, place) => {
                        let object = names.remove(&name).map(|(object, _)| object);
                        assert_eq!(object, place.map(|place| model.remove(place).1));
                    }
                    _ => assert_eq!(names.get(&name), place.map(|place| model[place].1)),
                }
                let ours: Vec<_> =
                    names.least_recent().map(|(name, object)| (name.to_vec(), object)).collect();
                assert_eq!(ours, model, "seed {seed}, step {step}");
                for index in 0..4 {
                    let named = model.iter().any(|(_, named)| *named == object(index));
                    assert_eq!(names.has_name(object(index)), named, "seed {seed}, step {step}");
                }
            }
        }
    }

    #[test]
    fn each_name_has_a_place_of_its_own_the_smallest_that_is_vacant() {
        let mut names = Names::default();
        names.insert_at(2, b"c".to_vec(), object(0));
        assert_eq!(names.insert(b"a".to_vec(), object(0)), 0);
        assert_eq!(names.insert(b"b".to_vec(), object(0)), 1);
        assert_eq!(names.insert(b"d".to_vec(), object(0)), 3);
        assert_eq!(names.remove(b"c"), Some((object(0), 2)));
        assert_eq!((names.next_place(), names.insert(b"e".to_vec(), object(0))), (2, 2));
    }

    #[test]
    fn pages_go_on_behind_a_name_that_is_gone() {
        let mut names = Names::default();
        for name in [b"a", b"c", b"d"] {
            names.insert(name.to_vec(), object(0));
        }
        let behind = |after: &[u8]| names.after(after).map(|(name, _)| name.to_vec()).collect::<Vec<_>>();
        assert_eq!(behind(b"").len(), 3);
        assert_eq!(behind(b"b"), [b"c", b"d"]);
        assert_eq!(behind(b"d"), Vec::<Vec<u8>>::new());
    }
}
