//! The owner's side of the handshake: freeing, spilling and compacting objects that no client uses.

use crate::failpoints::{Failpoint, failpoint};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::table::{State, Word};

/// The owner's side of the handshake: `true` when the entry is free now, with the next generation.
///
/// `from` is the state that the entry is in, `Sealed`, `Deleted` or `Spilled`; `held` looks at every reader's pin, and
/// says
/// `true` as well when it does not know all readers. It is called after the fence.
pub fn try_free(word: &AtomicU64, generation: u32, from: State, held: impl Fn() -> bool) -> bool {
    store_dying(word, generation);
    failpoint(Failpoint::SweepDying);
    if held() {
        // Release, so that a reader that finds it sealed again also finds the location.
        word.store(Word::new(generation, from).bits(), Ordering::Release);
        return false;
    }
    word.store(Word::new(generation.wrapping_add(1), State::Free).bits(), Ordering::Release);
    true
}

/// The owner's side of the handshake for a sealed object that is to be evicted from memory: `true` when it is spilled,
/// and its memory can be used for other objects.
///
/// Its spill record is whole already. `mapped` looks for [`MAPPED`](super::MAPPED) in every reader's pin, and says
/// `true` as well when it does not know all readers; `commit` notes where the record lies. After a process is killed in
/// between, the object is spilled if a [place](crate::table) is noted, and otherwise sealed.
pub fn try_spill(
    word: &AtomicU64,
    generation: u32,
    mapped: impl FnOnce() -> bool,
    commit: impl FnOnce(),
) -> bool {
    try_leave(
        word,
        generation,
        mapped,
        commit,
        State::Spilled,
        [Failpoint::SpillDying, Failpoint::SpillNoted],
    )
}

/// The owner's side of the handshake for a sealed object that is to move to another position in memory: `true` when it
/// has moved, and the old position can be used for other objects.
///
/// The bytes are at the new position already. `mapped` is as for [`try_spill`]; `commit`
/// [says](crate::table::TableWriter::set_place) the new position in one store. A process that is killed in between
/// leaves the object at the old position or at the new one.
pub fn try_compact(
    word: &AtomicU64,
    generation: u32,
    mapped: impl FnOnce() -> bool,
    commit: impl FnOnce(),
) -> bool {
    try_leave(
        word,
        generation,
        mapped,
        commit,
        State::Sealed,
        [Failpoint::CompactDying, Failpoint::CompactNoted],
    )
}

fn try_leave(
    word: &AtomicU64,
    generation: u32,
    mapped: impl FnOnce() -> bool,
    commit: impl FnOnce(),
    then: State,
    failpoints: [Failpoint; 2],
) -> bool {
    store_dying(word, generation);
    failpoint(failpoints[0]);
    let stays = mapped();
    if !stays {
        commit();
        failpoint(failpoints[1]);
    }
    let state = if stays { State::Sealed } else { then };
    // Release, so that a reader that finds it sealed again also finds the location.
    word.store(Word::new(generation, state).bits(), Ordering::Release);
    !stays
}

/// The first half of the owner's side of the handshake for one entry.
fn store_dying(word: &AtomicU64, generation: u32) {
    // Relaxed: the fence puts it before the look at the pins.
    word.store(Word::new(generation, State::Dying).bits(), Ordering::Relaxed);
    // SeqCst: pairs with the reader's fence between its store of the pin and its load of the word.
    fence(Ordering::SeqCst);
}

/// An entry that its owner would like to free together with others.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Index of the entry.
    pub index: u32,
    /// Its state word.
    pub word: &'a AtomicU64,
    /// The value of the word: a generation, and `Sealed`, `Deleted`, `Spilled` or `Lost`.
    pub from: Word,
    /// Whether a client has been found to hold it.
    pub held: bool,
}

/// The owner's side of the handshake for many entries, with one fence for all of them. Entries that are not `held`
/// afterwards are free, with the next generation; the others are as before.
///
/// `look` looks at every reader's pins on every candidate and marks those that are held: all of them, when it does not
/// know all readers. It is called after the fence.
pub fn free_together<'a>(candidates: &mut [Candidate<'a>], look: impl FnOnce(&mut [Candidate<'a>])) {
    // A lost promise has no bytes to protect, and must never be taken for an object: if this process dies now, the
    // daemon makes an entry that it finds dying sealed, or spilled.
    let with_bytes = candidates.iter().filter(|candidate| candidate.from.state() != Some(State::Lost));
    for candidate in with_bytes {
        let dying = Word::new(candidate.from.generation(), State::Dying);
        // Relaxed: the fence puts it before the look at the pins.
        candidate.word.store(dying.bits(), Ordering::Relaxed);
        failpoint(Failpoint::FreeDying);
    }
    // SeqCst: pairs with the reader's fence between its store of the pin and its load of the word.
    fence(Ordering::SeqCst);
    failpoint(Failpoint::FreeFenced);
    look(candidates);
    failpoint(Failpoint::FreeLooked);
    for candidate in candidates.iter() {
        let from = candidate.from;
        let next = Word::new(from.generation().wrapping_add(1), State::Free);
        // Release, so that a reader that finds it sealed again also finds the location.
        candidate.word.store(if candidate.held { from } else { next }.bits(), Ordering::Release);
        failpoint(Failpoint::FreeStored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::pages::{HELD, MAPPED};
    use std::sync::atomic::AtomicU32;

    #[test]
    fn freeing_goes_to_the_next_generation_only_while_no_client_holds() {
        let word = AtomicU64::new(Word::new(7, State::Sealed).bits());
        assert!(!try_free(&word, 7, State::Sealed, || true));
        assert_eq!(word.load(Ordering::Relaxed), Word::new(7, State::Sealed).bits());
        assert!(try_free(&word, 7, State::Sealed, || false));
        assert_eq!(word.load(Ordering::Relaxed), Word::new(8, State::Free).bits());
    }

    /// The reader's side of the handshake, as `PinWriter::set` and `TableReader::word` have it.
    fn pin_then_load(pin: &AtomicU32, bits: u32, word: &AtomicU64) -> u64 {
        pin.store(bits, Ordering::Release);
        fence(Ordering::SeqCst);
        word.load(Ordering::Acquire)
    }

    /// Miri is slow.
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 20_000 };

    #[test]
    fn pin_and_free_never_both_win() {
        let (word, pin) = (AtomicU64::new(0), AtomicU32::new(0));
        for generation in 0..ROUNDS {
            word.store(Word::new(generation, State::Sealed).bits(), Ordering::SeqCst);
            pin.store(0, Ordering::SeqCst);
            let (pinned, freed) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    pin_then_load(&pin, HELD, &word) == Word::new(generation, State::Sealed).bits()
                });
                let freed = try_free(&word, generation, State::Sealed, || pin.load(Ordering::Acquire) != 0);
                (reader.join().unwrap(), freed)
            });
            // A reader may have passed before the swap or after it was taken back, but never an entry that was freed.
            assert!(!(pinned && freed), "generation {generation} was freed under a reader");
        }
    }

    #[test]
    fn bytes_are_lent_or_spilled_and_never_both() {
        let (word, pin) = (AtomicU64::new(0), AtomicU32::new(0));
        for generation in 0..ROUNDS {
            let sealed = Word::new(generation, State::Sealed);
            word.store(sealed.bits(), Ordering::SeqCst);
            // Held throughout, which is no reason to stay in memory.
            pin.store(HELD, Ordering::SeqCst);
            let mut noted = false;
            let (borrowed, spilled) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| pin_then_load(&pin, HELD | MAPPED, &word) == sealed.bits());
                let mapped = || pin.load(Ordering::Acquire) & MAPPED != 0;
                let spilled = try_spill(&word, generation, mapped, || noted = true);
                (reader.join().unwrap(), spilled)
            });
            assert!(!(borrowed && spilled), "generation {generation} was spilled under a reader");
            assert_eq!(noted, spilled);
            let state = if spilled { State::Spilled } else { State::Sealed };
            assert_eq!(word.load(Ordering::Relaxed), Word::new(generation, state).bits());
        }
    }

    #[test]
    fn pin_and_free_together_never_both_win() {
        const COUNT: usize = 8;
        let words: [AtomicU64; COUNT] = Default::default();
        let pins: [AtomicU32; COUNT] = Default::default();
        for generation in 0..ROUNDS / 2 {
            let sealed = Word::new(generation, State::Sealed);
            words.iter().for_each(|word| word.store(sealed.bits(), Ordering::SeqCst));
            pins.iter().for_each(|pin| pin.store(0, Ordering::SeqCst));
            let mut candidates: [Candidate<'_>; COUNT] = std::array::from_fn(|at| Candidate {
                index: at as u32,
                word: &words[at],
                from: sealed,
                held: false,
            });
            let pinned = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    // Against the owner's order, so that the two meet somewhere.
                    let mut pinned = [false; COUNT];
                    for at in (0..COUNT).rev() {
                        pinned[at] = pin_then_load(&pins[at], HELD, &words[at]) == sealed.bits();
                    }
                    pinned
                });
                free_together(&mut candidates, |candidates| {
                    for candidate in candidates {
                        candidate.held = pins[candidate.index as usize].load(Ordering::Acquire) != 0;
                    }
                });
                reader.join().unwrap()
            });
            for (at, candidate) in candidates.iter().enumerate() {
                assert!(
                    !pinned[at] || candidate.held,
                    "{at} in generation {generation} was freed under a reader"
                );
                let next = Word::new(generation + 1, State::Free);
                let expected = if candidate.held { sealed } else { next };
                assert_eq!(words[at].load(Ordering::Relaxed), expected.bits());
            }
        }
    }
}
