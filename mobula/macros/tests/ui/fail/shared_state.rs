//! States that threads cannot share.

use std::cell::Cell;
use std::rc::Rc;

struct Counter(Cell<u64>);

#[mobula::remote(max_concurrency = 4)]
impl Counter {
    fn new() -> Self {
        Counter(Cell::new(0))
    }
}

struct Tree(Rc<u64>);

#[mobula::remote]
impl Tree {
    fn new() -> Result<Self, String> {
        Ok(Tree(Rc::new(1)))
    }

    async fn root(&self) -> u64 {
        *self.0
    }
}

struct Grouped(Cell<u64>);

#[mobula::remote(concurrency_groups(io = 2))]
impl Grouped {
    fn new() -> Grouped {
        Grouped(Cell::new(0))
    }
}

fn main() {}
