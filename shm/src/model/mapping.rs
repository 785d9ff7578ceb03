//! Mappings with the face of the real ones, of a model's [`File`]: its words, and no addresses.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::model::File;
use crate::model::Words;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

const WORD_BYTES: usize = size_of::<u64>();

#[derive(Debug)]
struct AddressRange {
    words: Arc<Words>,
    start: usize,
    len: usize,
}

impl AddressRange {
    fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Ok(Self { words: File::words(descriptor), start: offset as usize, len })
    }

    fn wide(&self, offset: usize) -> &AtomicU64 {
        self.words.wide(self.start + offset)
    }

    fn narrow(&self, offset: usize) -> &AtomicU32 {
        self.words.narrow(self.start + offset)
    }
}

/// Memory that this process alone writes.
#[derive(Debug)]
pub struct WriteMapping {
    range: AddressRange,
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "these are those of the real mapping")]
impl WriteMapping {
    pub fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Ok(Self { range: AddressRange::map(descriptor, offset, len)? })
    }

    pub fn collapse(&self) -> bool {
        false
    }

    pub fn populate(&self, _: usize, _: usize) -> io::Result<()> {
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.range.len
    }

    pub fn is_empty(&self) -> bool {
        self.range.len == 0
    }

    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        self.range.wide(offset)
    }

    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        self.range.narrow(offset)
    }

    pub fn store_words(&self, offset: usize, bytes: &[u8]) {
        for (at, chunk) in bytes.chunks(WORD_BYTES).enumerate() {
            let mut word = [0; WORD_BYTES];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word64(offset + at * WORD_BYTES).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }

    pub fn words64<const N: usize>(&self, offset: usize) -> [&AtomicU64; N] {
        std::array::from_fn(|at| self.word64(offset + at * WORD_BYTES))
    }
}

/// Memory that another process writes, or wrote.
#[derive(Debug)]
pub struct ReadMapping {
    range: AddressRange,
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "these are those of the real mapping")]
impl ReadMapping {
    pub fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Ok(Self { range: AddressRange::map(descriptor, offset, len)? })
    }

    pub fn map_scattered(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Self::map(descriptor, offset, len)
    }

    pub fn len(&self) -> usize {
        self.range.len
    }

    pub fn is_empty(&self) -> bool {
        self.range.len == 0
    }

    pub fn load64_relaxed(&self, offset: usize) -> u64 {
        self.range.wide(offset).load(Ordering::Relaxed)
    }

    pub fn load32_relaxed(&self, offset: usize) -> u32 {
        self.range.narrow(offset).load(Ordering::Relaxed)
    }

    pub fn load64_acquire(&self, offset: usize) -> u64 {
        let value = self.load64_relaxed(offset);
        fence(Ordering::Acquire);
        value
    }

    pub fn load32_acquire(&self, offset: usize) -> u32 {
        let value = self.load32_relaxed(offset);
        fence(Ordering::Acquire);
        value
    }

    pub fn load_words(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        let end = out.len() + len;
        for at in 0..len.div_ceil(WORD_BYTES) {
            out.extend(self.load64_relaxed(offset + at * WORD_BYTES).to_ne_bytes());
        }
        out.truncate(end);
    }

    pub fn or_words32(&self, offset: usize, count: usize) -> u32 {
        let load = |at: usize| self.load32_relaxed(offset + at * size_of::<u32>());
        (0..count).fold(0, |bits, at| bits | load(at))
    }

    pub fn load_words64<const N: usize>(&self, offset: usize) -> [u64; N] {
        std::array::from_fn(|at| self.load64_relaxed(offset + at * WORD_BYTES))
    }
}
