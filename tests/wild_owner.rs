//! An owner goes wild and writes into the values that it has sealed, while others read them. If this fails, such a
//! process takes its readers with it: a `&str` that is no text, an offset that leads out of its memory, a crash.

use std::sync::atomic::{AtomicBool, Ordering};

use mobula_tests::carriers::CARRIERS;
use mobula_tests::{Random, Store};

/// How long it is wild.
const MILLISECONDS: u64 = 3000;
const READERS: usize = 2;

#[test]
fn readers_get_a_sound_value_or_an_error() {
    let store = Store::start(env!("CARGO_BIN_EXE_mobula-test-peer"), 64 << 20);
    let mut owner = store.peer();
    let ids: Vec<_> = owner.ok("put-carriers").split(' ').map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids.len(), CARRIERS.len());
    let client = store.client();
    let objects = || CARRIERS.iter().zip(ids.iter().map(|id| client.get(*id).unwrap()));
    let all_are_whole =
        || objects().for_each(|(carrier, object)| assert!(carrier.is_whole(object), "{}", carrier.name));
    all_are_whole();

    let seed = Random::from_environment().below(u64::MAX);
    assert!(owner.send(format_args!("scribble-carriers {seed} {MILLISECONDS}")));
    let over = AtomicBool::new(false);
    let read_until_over = || {
        let mut counts = [[0; 2]; CARRIERS.len()];
        while !over.load(Ordering::Relaxed) {
            for ((carrier, object), counts) in objects().zip(&mut counts) {
                counts[usize::from(carrier.read(object).is_err())] += 1;
            }
        }
        counts
    };
    let written: u64 = std::thread::scope(|scope| {
        let readers = [(); READERS].map(|()| scope.spawn(read_until_over));
        let written = owner.answer();
        over.store(true, Ordering::Relaxed);
        for (reader, counts) in readers.into_iter().map(|reader| reader.join().unwrap()).enumerate() {
            for (carrier, [read, refused]) in CARRIERS.iter().zip(counts) {
                println!("reader {reader}, {}: {read} read, {refused} refused", carrier.name);
            }
        }
        written.unwrap().parse().unwrap()
    });
    assert!(written > 0, "nothing was written");
    // Its owner has put everything right again.
    all_are_whole();
}
