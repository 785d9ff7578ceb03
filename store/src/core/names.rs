//! Names of objects, in order, and which of them was asked for least recently.
//!
//! A name holds its object; what the hold is made of is not this module's business.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use mobula_protocol::id::{ObjectId, OwnerId};

#[derive(Debug)]
struct Named {
    object: ObjectId,
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
}

impl Names {
    /// Names an object, as used just now.
    ///
    /// # Panics
    /// When the name is taken.
    pub(crate) fn insert(&mut self, name: Vec<u8>, object: ObjectId) {
        self.uses += 1;
        self.by_use.insert(self.uses, name.clone());
        *self.counts.entry(object).or_default() += 1;
        let before = self.by_name.insert(name, Named { object, used: self.uses });
        assert!(before.is_none(), "a name was given twice");
    }

    /// What a name stands for.
    pub(crate) fn get(&self, name: &[u8]) -> Option<ObjectId> {
        self.by_name.get(name).map(|named| named.object)
    }

    /// Notes that a name was asked for.
    pub(crate) fn touch(&mut self, name: &[u8]) {
        let Some(named) = self.by_name.get_mut(name) else { return };
        self.uses += 1;
        if let Some(name) = self.by_use.remove(&named.used) {
            self.by_use.insert(self.uses, name);
        }
        named.used = self.uses;
    }

    /// Takes a name away; returns the object that it no longer holds.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<ObjectId> {
        let named = self.by_name.remove(name)?;
        self.by_use.remove(&named.used);
        if let Some(count) = self.counts.get_mut(&named.object) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&named.object);
            }
        }
        Some(named.object)
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

    /// Names and objects, the one that was asked for least recently first.
    pub(crate) fn least_recent(&self) -> impl Iterator<Item = (&[u8], ObjectId)> {
        self.by_use.values().filter_map(|name| Some((name.as_slice(), self.get(name)?)))
    }

    /// The names of an owner's objects.
    pub(crate) fn of_owner(&self, owner: OwnerId) -> Vec<(Vec<u8>, ObjectId)> {
        let named = self.by_name.iter().filter(|(_, named)| named.object.owner() == owner);
        named.map(|(name, named)| (name.clone(), named.object)).collect()
    }

    /// How many there are.
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
        for seed in 0..50 {
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
                        assert_eq!(names.remove(&name), place.map(|place| model.remove(place).1));
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
