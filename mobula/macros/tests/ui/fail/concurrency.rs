//! Options of actors with several calls at a time.

struct Groups;

#[mobula::remote(concurrency_groups(io = 2, io = 3))]
impl Groups {
    fn new() -> Self {
        Groups
    }
}

struct Zero;

#[mobula::remote(max_concurrency = 0)]
impl Zero {
    fn new() -> Self {
        Zero
    }
}

struct Unknown;

#[mobula::remote(concurrency_groups(io = 2))]
impl Unknown {
    fn new() -> Self {
        Unknown
    }

    #[remote(group = "disk")]
    fn read(&self) {}
}

struct Deep;

#[mobula::remote(concurrency_groups(a::b = 2))]
impl Deep {
    fn new() -> Self {
        Deep
    }
}

struct Watching;

#[mobula::remote(max_concurrency = 2)]
impl Watching {
    fn new() -> Self {
        Watching
    }

    #[remote(caller_gone)]
    fn gone(&mut self, _caller: mobula::Caller) {}
}

fn main() {}
