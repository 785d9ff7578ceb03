//! Random calls, and deaths of their callers: no item is lost or delivered twice, the order is kept, the limit holds,
//! and each call that can be answered is answered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;

/// The place of an answer that remembers it.
struct Place<A>(Rc<RefCell<Option<A>>>);

impl<A> Answer<A> for Place<A> {
    fn give(self, answer: A) {
        let before = self.0.borrow_mut().replace(answer);
        assert!(before.is_none(), "a call is answered once");
    }

    fn is_wanted(&self) -> bool {
        true
    }
}

type Given<A> = Rc<RefCell<Option<A>>>;

/// A small generator of random numbers (xorshift), so that a seed replays a run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

struct Model {
    items: Items<u64, u64, Place<PutAnswer>, Place<GetAnswer<u64>>>,
    random: Random,
    next_item: u64,
    next_call: u64,
    puts: BTreeMap<Call<u64>, (Vec<u64>, Given<PutAnswer>)>,
    gets: BTreeMap<Call<u64>, (Wanted, Given<GetAnswer<u64>>)>,
    /// Items of puts that were answered: they must come out.
    put: Vec<u64>,
    /// Items of callers that died in a put: they may come out.
    maybe: Vec<u64>,
    got: Vec<u64>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let maxsize = random.below(6) as usize;
        Self {
            items: Items::new(maxsize),
            random,
            next_item: 0,
            next_call: 0,
            puts: BTreeMap::new(),
            gets: BTreeMap::new(),
            put: Vec::new(),
            maybe: Vec::new(),
            got: Vec::new(),
        }
    }

    fn call(&mut self) -> Call<u64> {
        self.next_call += 1;
        (self.random.below(4), self.next_call)
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..=3 => {
                let (call, count) = (self.call(), self.random.below(4));
                let items: Vec<u64> = (self.next_item..self.next_item + count).collect();
                self.next_item += count;
                let (waits, place) = (self.random.below(2) == 0, Given::default());
                self.puts.insert(call, (items.clone(), place.clone()));
                self.items.put(call, items, waits, Place(place));
            }
            4..=7 => {
                let (call, waits) = (self.call(), self.random.below(2) == 0);
                let most = 1 + self.random.below(3) as usize;
                let wanted = Wanted { least: if waits { 1 } else { most }, most, waits };
                let place = Given::default();
                self.gets.insert(call, (wanted, place.clone()));
                self.items.get(call, wanted, Place(place));
            }
            8 => self.items_received(true),
            9 => self.give_up(),
            10 => self.die(),
            _ => self.items_received(false),
        }
        self.collect_puts();
        let Items { items, capacity, getters, putters, .. } = &self.items;
        assert!(getters.is_empty() || items.is_empty(), "a get waits although an item is there");
        assert!(putters.is_empty() || items.len() >= *capacity, "a put waits although there is room");
    }

    /// Callers take note of answers to puts.
    fn collect_puts(&mut self) {
        for (_, (items, place)) in self.puts.extract_if(.., |_, (_, place)| place.borrow().is_some()) {
            let accepted = match place.take() {
                Some(PutAnswer::Full(count) | PutAnswer::Closed(count)) => count,
                _ => items.len(),
            };
            self.put.extend(&items[..accepted]);
        }
    }

    /// Callers have the answers of their gets: the first of them, or all.
    fn items_received(&mut self, is_all: bool) {
        let answered: Vec<_> = self
            .gets
            .iter()
            .filter(|(_, (_, place))| place.borrow().is_some())
            .map(|(call, _)| *call)
            .collect();
        for call in answered.into_iter().take(if is_all { usize::MAX } else { 1 }) {
            let (wanted, place) = self.gets.remove(&call).unwrap();
            if let Some(GetAnswer::Items(items)) = place.take() {
                assert!((wanted.least..=wanted.most).contains(&items.len()));
                self.got.extend(items);
            }
            self.items.received(call);
        }
    }

    /// Gives a call up, perhaps after it was answered.
    fn give_up(&mut self) {
        let position = self.random.below(4) as usize;
        if let Some(call) = self.gets.keys().nth(position).copied() {
            self.gets.remove(&call);
            self.items.give_up(call);
        } else if let Some(call) = self.puts.keys().next().copied() {
            self.items.give_up(call);
            assert!(self.puts[&call].1.borrow().is_some(), "a put that is given up is answered");
        }
    }

    fn die(&mut self) {
        let caller = self.random.below(4);
        self.gets.retain(|call, _| call.0 != caller);
        for (_, (items, _)) in self.puts.extract_if(.., |call, _| call.0 == caller) {
            self.maybe.extend(items);
        }
        self.items.caller_gone(caller);
    }

    /// The queue is closed and emptied: all waits end.
    fn finish(&mut self) {
        self.items.close();
        self.collect_puts();
        assert!(self.puts.is_empty());
        for round in 0.. {
            assert!(round < 100_000, "the queue does not become empty");
            self.items_received(true);
            let (call, place) = (self.call(), Given::default());
            let wanted = Wanted { least: 1, most: 3, waits: true };
            self.gets.insert(call, (wanted, place.clone()));
            self.items.get(call, wanted, Place(place.clone()));
            if matches!(&*place.borrow(), Some(GetAnswer::Closed)) {
                break;
            }
        }
        assert!(self.gets.values().all(|(_, place)| place.borrow().is_some()), "no get waits any more");
        let mut got = self.got.clone();
        got.sort_unstable();
        assert!(got.is_sorted_by(|a, b| a < b), "no item comes twice");
        for item in &self.put {
            assert!(got.binary_search(item).is_ok(), "item {item} is lost");
        }
        let known = |item: &u64| self.put.contains(item) || self.maybe.contains(item);
        assert!(got.iter().all(known), "each item that comes was put");
    }
}

#[test]
fn no_item_is_lost_or_comes_twice() {
    for seed in 1..=2000 {
        let outcome = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed);
            let steps = model.random.below(120);
            (0..steps).for_each(|_| model.step());
            model.finish();
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn items_come_in_the_order_in_which_they_were_put() {
    let mut items = Items::<u64, u64, Place<PutAnswer>, Place<GetAnswer<u64>>>::new(2);
    let get = |items: &mut Items<_, _, _, Place<GetAnswer<u64>>>, number| {
        let place = Given::default();
        items.get((1, number), Wanted { least: 1, most: 1, waits: true }, Place(place.clone()));
        place
    };
    for (number, part) in [vec![1, 2], vec![3, 4, 5], vec![6]].into_iter().enumerate() {
        items.put((0, number as u64), part, true, Place(Given::default()));
    }
    let given: Vec<_> = (0..3).map(|number| get(&mut items, number)).collect();
    items.received((1, 0));
    // The second and the third come back, in their order.
    items.caller_gone(1);
    let mut order = vec![given[0].take()];
    order.extend((3..8).map(|number| get(&mut items, number).take()));
    assert_eq!(order, (1..=6).map(|item| Some(GetAnswer::Items(vec![item]))).collect::<Vec<_>>());
}
