//! Functions that cannot run before the first call.

#[mobula::worker_init]
fn takes(_level: u8) {}

#[mobula::worker_init]
fn returns() -> u8 {
    1
}

#[mobula::worker_init(order = 1)]
fn ordered() {}

#[mobula::worker_init]
async fn later() {}

#[mobula::worker_init]
struct NoFunction;

fn main() {}
