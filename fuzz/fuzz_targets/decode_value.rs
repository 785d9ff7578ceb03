//! Any bytes as the payload of a value: they decode or are refused, without a panic, and what decodes can be used, and
//! encoded and decoded again.
#![no_main]

use arrow::array::Array;
use libfuzzer_sys::fuzz_target;
use mobula::value::{Source, decode, encode};
use mobula_fuzz::values::Victim;

fuzz_target!(|bytes: &[u8]| {
    let Ok(victim) = decode::<Victim>(Source::heap(bytes.to_vec(), vec![])) else { return };
    // Looks at every element: a buffer that is too short shows here.
    let _ = format!("{:?} {:?}", victim.batch, victim.array);
    let read: f64 = victim.tensor.as_slice().iter().sum();
    let _ = std::hint::black_box((read, victim.bytes.iter().max(), victim.array.len()));

    let again = encode(&victim).expect("what was decoded can be encoded");
    let again: Victim =
        decode(Source::heap(again.to_vec(), vec![])).expect("what was encoded can be decoded");
    assert_eq!(again.name, victim.name);
    assert_eq!(again.numbers, victim.numbers);
    assert_eq!(again.bytes, victim.bytes);
    assert!(again.floats.iter().map(|n| n.to_bits()).eq(victim.floats.iter().map(|n| n.to_bits())));
    assert_eq!((again.maybe, &again.letters, &again.any), (victim.maybe, &victim.letters, &victim.any));
    assert_eq!(again.batch.num_rows(), victim.batch.num_rows());
});
