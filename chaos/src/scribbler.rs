//! A client gone mad: it fills everything of Mobula's that it can write with random words.

use std::time::{Duration, Instant};

use crate::content::Random;
use crate::procfs::{self, Mapping};

const PAGE_BYTES: usize = 4096;
const WORD_BYTES: usize = size_of::<u64>();
/// Words written before the processor is given to other threads.
const WORDS_AT_A_TIME: u64 = 256;

/// The memory that can be written.
pub(crate) const KINDS: [&str; 4] = ["tables", "pins", "segments", "rings"];

/// Scribbles for a while; returns how many words it wrote, by kind.
pub(crate) fn scribble(seed: u64, duration: Duration) -> [u64; KINDS.len()] {
    let mut random = Random::from_seed(seed);
    let (deadline, mut words) = (Instant::now() + duration, [0; KINDS.len()]);
    while Instant::now() < deadline {
        // Looked up again and again: this process's other thread may give memory back.
        let pages = writable_pages();
        for _ in 0..WORDS_AT_A_TIME {
            let kind = random.below(KINDS.len() as u64) as usize;
            let count = pages[kind].len() as u64;
            let Some(page) = pages[kind].get(random.below(count.max(1)) as usize) else { continue };
            let word = |random: &mut Random| {
                page + random.below((PAGE_BYTES / WORD_BYTES) as u64) as usize * WORD_BYTES
            };
            let (target, source) = (word(&mut random), word(&mut random));
            // SAFETY: not sound, and meant so: the words are mapped (a page that was given back a moment ago ends this
            // process, which is as good), and other processes must bear whatever is in them.
            unsafe {
                let pointer = std::ptr::with_exposed_provenance_mut::<u64>(target);
                let before = pointer.read_volatile();
                let copied = std::ptr::with_exposed_provenance::<u64>(source).read_volatile();
                pointer.write_volatile(value(&mut random, before, copied));
            }
            words[kind] += 1;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    words
}

/// The kinds of words: noise, and words that look like real ones.
fn value(random: &mut Random, before: u64, copied: u64) -> u64 {
    match random.below(6) {
        0 => random.below(u64::MAX),
        1 => random.below(8),
        2 => before ^ 1 << random.below(64),
        3 => copied,
        4 => before & !0xff | random.below(8),
        _ => [u64::MAX, 1 << 31, 1 << 62, 0][random.below(4) as usize],
    }
}

/// The pages of every kind of memory that have something behind them: others would be made by writing to them.
fn writable_pages() -> [Vec<usize>; KINDS.len()] {
    let mut pages = KINDS.map(|_| Vec::new());
    for mapping in procfs::mappings("self").iter().filter(|mapping| mapping.writable) {
        let kind = match (&*mapping.name, mapping.offset) {
            ("control", 0) => 0,
            ("control", _) => 1,
            ("segment", _) => 2,
            ("ring", _) => 3,
            (name, _) => panic!("memory of a kind that is not scribbled into: {name}"),
        };
        pages[kind].extend(resident_pages(mapping));
    }
    pages
}

fn resident_pages(mapping: &Mapping) -> Vec<usize> {
    let mut resident = vec![0u8; (mapping.end - mapping.start) / PAGE_BYTES];
    // SAFETY: asks about a range of addresses, whatever is there, and writes a byte for each of its pages.
    let status = unsafe {
        let start = std::ptr::without_provenance_mut(mapping.start);
        libc::mincore(start, mapping.end - mapping.start, resident.as_mut_ptr())
    };
    if status != 0 {
        return Vec::new();
    }
    let pages = resident.iter().enumerate().filter(|(_, resident)| **resident & 1 == 1);
    pages.map(|(page, _)| mapping.start + page * PAGE_BYTES).collect()
}
