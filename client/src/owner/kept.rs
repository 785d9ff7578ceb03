//! The references that objects keep: lists of them, each with a number by which an entry names it.
//!
//! Few objects refer to others, so an entry has room for a number and not for a list.

use crate::counting::raw::RawReference;

/// All lists of one owner.
#[derive(Default)]
pub(crate) struct Kept {
    lists: Vec<Vec<RawReference>>,
    /// Numbers of empty lists.
    vacant: Vec<u32>,
}

impl Kept {
    /// Keeps a list; returns its number.
    pub(crate) fn add(&mut self, references: Vec<RawReference>) -> u32 {
        match self.vacant.pop() {
            Some(number) => {
                self.lists[number as usize] = references;
                number
            }
            None => {
                self.lists.push(references);
                self.lists.len() as u32 - 1
            }
        }
    }

    /// Takes all lists out, as one.
    pub(crate) fn take_all(&mut self) -> Vec<RawReference> {
        self.vacant.clear();
        std::mem::take(&mut self.lists).into_iter().flatten().collect()
    }

    /// Takes a list out.
    pub(crate) fn take(&mut self, number: u32) -> Vec<RawReference> {
        self.vacant.push(number);
        std::mem::take(&mut self.lists[number as usize])
    }
}
