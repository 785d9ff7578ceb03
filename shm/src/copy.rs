//! Copying bytes into the shared memory, and out of it.
//!
//! [`copy`] is for objects, which may be larger than the caches. An ordinary copy reads every cache line that it is
//! about to overwrite. Streaming stores do not read it, which saves a third of the memory traffic. In
//! `docs/performance.md` a steady put of 256 MiB shows it beside the C library's `memcpy`. They also leave the caches
//! alone, which is right for objects larger than the caches, and wrong for objects that are read soon.
//!
//! [`copy_once`] is for bytes that must be checked before they are used: lengths, offsets, text. Their owner can still
//! write them, even after the object is sealed. The compiler may read a `&[u8]` any number of times, also again after a
//! check. So the check must read a copy, and the copy must be made by loads that the compiler cannot repeat.

const WORD_BYTES: usize = size_of::<u64>();

/// The size from which copies use streaming stores: the caches would not keep so many bytes for a reader.
const STREAMING_BYTES_MIN: usize = 32 << 20;

/// Copies all of `source`.
///
/// # Panics
/// Where the lengths differ.
pub fn copy(target: &mut [u8], source: &[u8]) {
    assert_eq!(target.len(), source.len(), "a copy is as long as its source");
    if source.len() < STREAMING_BYTES_MIN { target.copy_from_slice(source) } else { stream(target, source) }
}

/// Copies all of `source`, which another process may be writing meanwhile. Each byte is loaded once, so a check of
/// `target` stays valid. Bytes that are written meanwhile may arrive old or new, in any mixture.
///
/// # Panics
/// Where the lengths differ.
pub fn copy_once(target: &mut [u8], source: &[u8]) {
    assert_eq!(target.len(), source.len(), "a copy is as long as its source");
    // Up to the first word that is aligned, and behind the last one, byte by byte.
    let lead = source.as_ptr().align_offset(WORD_BYTES).min(source.len());
    let (target_lead, target) = target.split_at_mut(lead);
    let (source_lead, source) = source.split_at(lead);
    let (target_words, target_rest) = target.as_chunks_mut::<WORD_BYTES>();
    let (source_words, source_rest) = source.as_chunks::<WORD_BYTES>();
    load_bytes(target_lead, source_lead);
    for (target, source) in target_words.iter_mut().zip(source_words) {
        // SAFETY: the word begins a whole number of words behind an aligned address.
        *target = unsafe { load_word(source) }.to_ne_bytes();
    }
    load_bytes(target_rest, source_rest);
}

/// A new copy of `source`, each byte of which is loaded once, as by [`copy_once`]. It consists of words, so that it is
/// aligned for elements of every type; zeros fill the last one up. If `source` is aligned for 64-bit words, the memory
/// of the copy is written once, and not filled with zeros before.
pub fn copied_once(source: &[u8]) -> Vec<u128> {
    let (pairs, rest) = source.as_chunks::<{ size_of::<u128>() }>();
    let mut words: Vec<u128> = Vec::with_capacity(pairs.len() + 1);
    if source.as_ptr().align_offset(WORD_BYTES) == 0 {
        words.extend(pairs.iter().map(|pair| {
            let (halves, _) = pair.as_chunks::<WORD_BYTES>();
            // SAFETY: each half begins a whole number of words behind the aligned address of `source`.
            let [low, high] = [0, 1].map(|half| u128::from(unsafe { load_word(&halves[half]) }.to_le()));
            u128::from_le(low | high << 64)
        }));
    } else {
        words.extend(pairs.iter().map(|pair| loaded(pair)));
    }
    if !rest.is_empty() {
        words.push(loaded(rest));
    }
    words
}

/// A word of bytes that are loaded one by one; zeros fill it up.
fn loaded(bytes: &[u8]) -> u128 {
    let mut word = [0; size_of::<u128>()];
    load_bytes(&mut word[..bytes.len()], bytes);
    u128::from_ne_bytes(word)
}

/// Loads a word exactly once.
///
/// # Safety
/// The bytes must be aligned as a `u64`.
#[inline(always)]
unsafe fn load_word(source: &[u8; WORD_BYTES]) -> u64 {
    let word = std::ptr::from_ref(source).cast::<u64>();
    // SAFETY: the eight bytes of `source` are readable for as long as its borrow, and the caller promises that they are
    // aligned; every value of them is a valid `u64`. A volatile load is done exactly once. The writer is another
    // process, so its stores race with nothing of this program's.
    unsafe { word.read_volatile() }
}

fn load_bytes(target: &mut [u8], source: &[u8]) {
    for (target, source) in target.iter_mut().zip(source) {
        // SAFETY: a reference is readable and aligned; the rest is as in `copy_once`.
        *target = unsafe { std::ptr::from_ref(source).read_volatile() };
    }
}

#[cfg(target_arch = "x86_64")]
fn stream(target: &mut [u8], source: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LINE: usize = 64;
    // Streaming stores are aligned; whole lines of them go to memory in one piece.
    let lead = target.as_ptr().align_offset(LINE).min(target.len());
    let (target_lead, target) = target.split_at_mut(lead);
    let (source_lead, source) = source.split_at(lead);
    target_lead.copy_from_slice(source_lead);
    let (target_lines, target_rest) = target.as_chunks_mut::<LINE>();
    let (source_lines, source_rest) = source.as_chunks::<LINE>();
    for (target, source) in target_lines.iter_mut().zip(source_lines) {
        let (target, source) = (target.as_mut_ptr().cast::<__m128i>(), source.as_ptr().cast::<__m128i>());
        // SAFETY: four times 16 bytes are the 64 that each of the two has, initialised, and borrowed here alone. The
        // loads need no alignment. The stores need 16: the target is aligned to 64, as everything behind its lead is a
        // multiple of that away from an aligned place. That they are ordered with nothing, the fence below mends before
        // anything else is done with the target. SSE2 is a part of x86-64.
        unsafe {
            let words = [0, 1, 2, 3].map(|at| _mm_loadu_si128(source.add(at)));
            words.into_iter().enumerate().for_each(|(at, word)| _mm_stream_si128(target.add(at), word));
        }
    }
    // Streaming stores are ordered with nothing, not even with the release store that will publish them: this does it.
    // SAFETY: a fence, which every x86-64 has.
    unsafe { _mm_sfence() };
    target_rest.copy_from_slice(source_rest);
}

#[cfg(not(target_arch = "x86_64"))]
fn stream(target: &mut [u8], source: &[u8]) {
    target.copy_from_slice(source);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_whatever_the_alignment_and_the_length() {
        let source: Vec<u8> = (0..1000_u32).map(|at| (at % 251) as u8).collect();
        for (from, to) in [(0, 0), (1, 0), (0, 1), (3, 17), (63, 1), (16, 48)] {
            for length in [0, 1, 15, 63, 64, 65, 127, 128, 500, 900] {
                let mut target = vec![0xff; 1000];
                for way in [stream, copy_once] {
                    target.fill(0xff);
                    way(&mut target[to..to + length], &source[from..from + length]);
                    assert_eq!(target[to..to + length], source[from..from + length], "{from} {to} {length}");
                    assert!(target[..to].iter().chain(&target[to + length..]).all(|byte| *byte == 0xff));
                }
            }
        }
    }

    #[test]
    fn a_new_copy_has_the_bytes_and_zeros_behind_them() {
        let source: Vec<u8> = (0..200).map(|at| (at % 251) as u8 + 1).collect();
        for from in 0..9 {
            for length in [0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 100, 190] {
                let words = copied_once(&source[from..from + length]);
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
                assert_eq!(bytes.len(), length.next_multiple_of(16), "{from} {length}");
                assert_eq!(bytes[..length], source[from..from + length], "{from} {length}");
                assert!(bytes[length..].iter().all(|byte| *byte == 0), "{from} {length}");
            }
        }
    }

    #[test]
    fn what_is_large_is_copied_too() {
        let source: Vec<u8> = (0..STREAMING_BYTES_MIN + 77).map(|at| (at % 253) as u8).collect();
        let mut target = vec![0; source.len()];
        copy(&mut target, &source);
        assert!(target == source);
    }

    #[test]
    #[should_panic(expected = "as long as its source")]
    fn a_copy_of_another_length_is_refused() {
        copy(&mut [0; 2], &[0; 3]);
    }

    #[test]
    #[should_panic(expected = "as long as its source")]
    fn a_copy_by_single_loads_of_another_length_is_refused() {
        copy_once(&mut [0; 3], &[0; 2]);
    }
}
