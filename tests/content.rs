//! Random numbers that follow from a seed, and bytes of objects that follow from an id, alike in every process.
//!
//! A part of the tests, and of `chaos/`, which takes it from here.

use mobula_client::ObjectId;

/// A pseudo-random sequence (xorshift) that a printed seed replays.
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// Writes the bytes that every test gives the object with this id: other ids, and other lengths, have others.
pub fn fill(bytes: &mut [u8], id: ObjectId) {
    let seed = content_seed(id, bytes.len());
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for (position, word) in words.iter_mut().enumerate() {
        *word = content_word(seed, position);
    }
    rest.copy_from_slice(&content_word(seed, words.len())[..rest.len()]);
}

/// Whether bytes are those that [`fill`] wrote.
pub fn is_content_of(bytes: &[u8], id: ObjectId) -> bool {
    let seed = content_seed(id, bytes.len());
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().enumerate().all(|(position, word)| *word == content_word(seed, position))
        && *rest == content_word(seed, words.len())[..rest.len()]
}

fn content_seed(id: ObjectId, length: usize) -> u64 {
    let (low, high) = (id.owner().bits(), u64::from(id.index()) << 32 | u64::from(id.generation()));
    (low ^ high.rotate_left(17) ^ length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn content_word(seed: u64, position: usize) -> [u8; 8] {
    (seed ^ (position as u64).wrapping_mul(0xd6e8_feb8_6659_fd93)).to_le_bytes()
}
