//! Tests of the allocator's promises.

use mobula_shm::table::ALIGNMENT;

use super::allocator::SMALL_BYTES_MAX;
use super::{Allocation, Allocator};

#[test]
fn classes_are_aligned_and_waste_a_quarter_at_most() {
    let allocator = Allocator::new();
    let class_bytes: Vec<u64> = allocator.classes.iter().map(|class| class.bytes).collect();
    assert_eq!(class_bytes.first(), Some(&64));
    assert_eq!(class_bytes.last(), Some(&SMALL_BYTES_MAX));
    for pair in class_bytes.windows(2) {
        assert_eq!(pair[1] % ALIGNMENT, 0);
        assert!(pair[1] - pair[0] <= (pair[0] / 4).max(ALIGNMENT), "{pair:?}");
    }
    for bytes in 1..=SMALL_BYTES_MAX {
        let class = usize::from(allocator.class_of[bytes.div_ceil(ALIGNMENT) as usize]);
        assert_eq!(class, class_bytes.partition_point(|class_bytes| *class_bytes < bytes), "{bytes}");
    }
}

#[test]
fn the_whole_of_a_segment_can_be_one_object() {
    let mut allocator = Allocator::new();
    let number = allocator.add_segment(1 << 20);
    let all = allocator.allocate(1 << 20).unwrap();
    assert_eq!((all.segment, all.offset()), (number, 0));
    assert!(allocator.allocate(1).is_none());
    assert!(!allocator.remove_segment(number));
    allocator.free(all);
    assert!(allocator.remove_segment(number));
    assert!(!allocator.remove_segment(number));
    assert!(!allocator.has_segments());
    // The number is used again, and nothing of the old segment with it.
    assert_eq!(allocator.add_segment(1 << 20), number);
    let all = allocator.allocate(1 << 20).unwrap();
    assert_eq!((all.segment, all.offset()), (number, 0));
}

#[test]
fn what_was_freed_last_is_used_first() {
    let mut allocator = Allocator::new();
    allocator.add_segment(1 << 20);
    for bytes in [100, 100_000] {
        let places: Vec<_> = (0..4).map(|_| allocator.allocate(bytes).unwrap()).collect();
        allocator.free(places[2]);
        assert_eq!(allocator.allocate(bytes), Some(places[2]), "{bytes} bytes");
        places.into_iter().for_each(|place| allocator.free(place));
    }
}

#[test]
fn a_large_object_that_is_put_and_dropped_again_and_again_keeps_its_place() {
    let mut allocator = Allocator::new();
    allocator.add_segment(8 << 20);
    let small: Vec<_> = (0..100).map(|_| allocator.allocate(5000).unwrap()).collect();
    let first = allocator.allocate(5 << 20).unwrap();
    allocator.free(first);
    small.into_iter().for_each(|place| allocator.free(place));
    for _ in 0..100 {
        let place = allocator.allocate(5 << 20).unwrap();
        assert_eq!(place, first);
        // Others come and go meanwhile.
        let (other, another) = (allocator.allocate(100).unwrap(), allocator.allocate(100_000).unwrap());
        allocator.free(place);
        allocator.free(other);
        allocator.free(another);
    }
}

#[test]
fn what_is_kept_for_the_next_object_of_a_size_is_there_for_one_of_any_size() {
    let mut allocator = Allocator::new();
    let number = allocator.add_segment(1 << 20);
    for bytes in [64, 100, 1000, 16 << 10, 20_000, 100_000, 200_000] {
        let place = allocator.allocate(bytes).unwrap();
        allocator.free(place);
    }
    assert_eq!(allocator.empty_since(0), [number]);
    let all = allocator.allocate(1 << 20).unwrap();
    assert_eq!(all.offset(), 0);
    allocator.free(all);
    // A spare slab goes with its segment.
    let place = allocator.allocate(64).unwrap();
    allocator.free(place);
    assert!(allocator.remove_segment(number));
    assert!(allocator.allocate(64).is_none());
}

#[test]
fn nothing_is_allocated_in_a_closed_segment_until_it_is_reopened() {
    let mut allocator = Allocator::new();
    let number = allocator.add_segment(1 << 20);
    let places: Vec<_> = [64, 64, 5000, 100_000].map(|bytes| allocator.allocate(bytes).unwrap()).into();
    let spare = allocator.allocate(1000).unwrap();
    allocator.free(spare);
    allocator.close(number);
    assert!([64, 1000, 5000, 100_000].iter().all(|bytes| allocator.allocate(*bytes).is_none()));
    let other = allocator.add_segment(1 << 20);
    assert_eq!(allocator.allocate(64).map(|place| place.segment), Some(other));
    // Memory that is freed in it meanwhile is not used again.
    allocator.free(places[1]);
    assert_eq!(allocator.allocate(64).map(|place| place.segment), Some(other));
    assert!(!allocator.remove_segment(number));
    // It is opened again: its free memory can be used, and no other.
    allocator.reopen(number);
    assert_eq!(allocator.least_recent().collect::<Vec<_>>(), [number, other]);
    allocator.close(other);
    assert_eq!(allocator.allocate(64), Some(places[1]));
    assert!(allocator.allocate(500_000).is_some_and(|place| place.segment == number));
    // It is closed in the end.
    allocator.close(number);
    let mut allocator_empty = |places: &[Allocation]| {
        places.iter().for_each(|place| allocator.free(*place));
        allocator.empty_since(u64::MAX).is_empty()
    };
    assert!(allocator_empty(&places));
    assert!(!allocator.remove_segment(number), "an object is still there");
}

/// Random allocations never overlap, stay inside, and leave an empty segment once all are freed.
#[test]
fn random_use_keeps_places_apart() {
    let seed = 0x6d6f_6275_6c61u64;
    println!("seed {seed}");
    let mut random = seed;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut allocator = Allocator::new();
    let segment_bytes = 1u64 << 20;
    allocator.add_segment(segment_bytes);
    allocator.add_segment(segment_bytes);
    let mut live: Vec<(Allocation, u64)> = Vec::new();
    // Miri is slow.
    const STEPS: u32 = if cfg!(miri) { 200 } else { 20_000 };
    for step in 0..STEPS {
        if next() % 2 == 0 {
            let bytes = 1 + next() % [100, 2_000, 20_000, 200_000][(next() % 4) as usize];
            if let Some(place) = allocator.allocate(bytes) {
                let (start, end) = (place.offset(), place.offset() + bytes);
                assert!(end <= segment_bytes && start % ALIGNMENT == 0, "step {step}");
                for (other, other_bytes) in &live {
                    let apart = other.segment != place.segment
                        || other.offset() >= end
                        || other.offset() + other_bytes <= start;
                    assert!(apart, "step {step}: {place:?} of {bytes} overlaps {other:?}");
                }
                live.push((place, bytes));
            }
        } else if !live.is_empty() {
            let (place, _) = live.swap_remove((next() % live.len() as u64) as usize);
            allocator.free(place);
        }
    }
    live.into_iter().for_each(|(place, _)| allocator.free(place));
    assert_eq!(allocator.empty_since(0).len(), 2);
    assert_eq!(allocator.allocate(segment_bytes).map(|place| place.offset()), Some(0));
}
