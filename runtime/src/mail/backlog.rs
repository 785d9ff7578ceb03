//! Records that wait for room in a ring, in order, with the objects that they name.
//!
//! The bytes of all records are in one buffer: a program may have a million calls under way, and memory of its own for
//! each record would be twice what its bytes take.

use std::collections::VecDeque;

use mobula_client::Handle;

/// Bytes of the length before a record.
const LENGTH_BYTES: usize = 4;
/// Bytes of records that are gone, at the front of the buffer, and bytes that an empty buffer keeps for the next ones.
const SPARE_BYTES: usize = 64 << 10;

/// The records; see the module's documentation.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Each record behind its length.
    bytes: Vec<u8>,
    /// Where the first record begins.
    start: usize,
    /// The number of records that are gone.
    gone: u64,
    /// The number of records that wait.
    waiting: u64,
    /// The objects of the records that name some, by the numbers of the records.
    held: VecDeque<(u64, Vec<Handle>)>,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Appends a record. It is no longer than a ring's longest, so that its length fits.
    pub(crate) fn push(&mut self, record: &[u8], held: Vec<Handle>) {
        if !held.is_empty() {
            self.held.push_back((self.gone + self.waiting, held));
        }
        self.bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.waiting += 1;
    }

    /// The first record.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        let (length, rest) = self.bytes.get(self.start..)?.split_first_chunk::<LENGTH_BYTES>()?;
        rest.get(..u32::from_le_bytes(*length) as usize)
    }

    /// Removes the first record. Returns the objects that it names.
    pub(crate) fn pop(&mut self) -> Vec<Handle> {
        let Some(length) = self.first().map(<[u8]>::len) else { return Vec::new() };
        self.start += LENGTH_BYTES + length;
        let number = self.gone;
        (self.gone, self.waiting) = (self.gone + 1, self.waiting - 1);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(SPARE_BYTES);
            self.start = 0;
        } else if self.start > SPARE_BYTES.max(self.bytes.len() / 2) {
            // Fewer bytes are moved than have been sent since the last time.
            self.bytes.drain(..self.start);
            self.bytes.shrink_to(2 * self.bytes.len());
            self.start = 0;
        }
        self.held.pop_front_if(|(of, _)| *of == number).map(|(_, held)| held).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::with_store;

    #[test]
    fn records_of_any_length_come_out_in_order() {
        let mut backlog = Backlog::default();
        assert!(backlog.first().is_none());
        let record = |number: usize| vec![number as u8; number * 7 % 500];
        let (mut pushed, mut popped) = (0, 0);
        // It grows, and empties, and grows again.
        for (push, pop) in [(3, 3), (2000, 1500), (1000, 1499), (5, 6), (0, 0)] {
            for _ in 0..push {
                backlog.push(&record(pushed), Vec::new());
                pushed += 1;
            }
            for _ in 0..pop {
                assert_eq!(backlog.first(), Some(&record(popped)[..]));
                assert!(backlog.pop().is_empty());
                popped += 1;
            }
            assert_eq!(backlog.is_empty(), pushed == popped);
        }
        assert!(backlog.is_empty() && backlog.first().is_none());
        assert!(backlog.bytes.capacity() <= SPARE_BYTES, "{} bytes are kept", backlog.bytes.capacity());
    }

    #[test]
    fn the_objects_stay_with_their_records() {
        with_store(|client| {
            let mut backlog = Backlog::default();
            let handles: Vec<_> = (0..3).map(|_| client.put(b"an object").unwrap().handle()).collect();
            backlog.push(b"none", Vec::new());
            backlog.push(b"one", vec![handles[0].clone()]);
            backlog.push(b"none", Vec::new());
            backlog.push(b"two", handles[1..].to_vec());
            let ids = |held: Vec<Handle>| held.iter().map(Handle::id).collect::<Vec<_>>();
            let popped: Vec<_> = (0..4).map(|_| ids(backlog.pop())).collect();
            let expected = [vec![], vec![handles[0].id()], vec![], vec![handles[1].id(), handles[2].id()]];
            assert_eq!(popped, expected);
        });
    }
}
