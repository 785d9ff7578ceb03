//! Any bytes as the payload of a value, on the heap and in the store, with references to objects: they decode or are
//! refused, without a panic, and what decodes can be used, and encoded and decoded again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mobula::arrow::array::Array;
use mobula::value::{Source, decode, encode};
use mobula_fuzz::values::{Victim, home};

fuzz_target!(|bytes: &[u8]| {
    let (payload, references) = home().read(bytes);
    let on_heap = decode::<Victim>(Source::heap(payload.to_vec(), references.clone()));
    let in_store = decode::<Victim>(Source::object(home().object(payload), references));
    assert_eq!(on_heap.is_ok(), in_store.is_ok(), "{:?} {:?}", on_heap.err(), in_store.err());
    on_heap.into_iter().chain(in_store).for_each(use_all);
});

fn use_all(victim: Victim) {
    // Looks at every element: a buffer that is too short shows here.
    let _ = format!("{:?} {:?}", victim.batch, victim.array);
    let read: f64 = victim.tensor.as_slice().iter().sum();
    let _ = std::hint::black_box((read, victim.bytes.iter().max(), victim.array.len()));

    let again = encode(&victim).expect("what was decoded can be encoded");
    let source = Source::heap(again.to_vec(), again.references().to_vec());
    let again: Victim = decode(source).expect("what was encoded can be decoded");
    assert_eq!(again.name, victim.name);
    assert_eq!(again.numbers, victim.numbers);
    assert_eq!(again.bytes, victim.bytes);
    assert!(again.floats.iter().map(|n| n.to_bits()).eq(victim.floats.iter().map(|n| n.to_bits())));
    assert_eq!((again.maybe, &again.letters, &again.any), (victim.maybe, &victim.letters, &victim.any));
    assert_eq!(again.batch.num_rows(), victim.batch.num_rows());
    let ids = |victim: &Victim| {
        victim.references.iter().map(|it| it.as_ref().map(|it| it.id())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&again), ids(&victim));
}
