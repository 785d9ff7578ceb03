//! The functions and the actor that are called.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mobula::{TaskOptions, UNLIMITED};

/// Elements of a page: too many to travel in a record.
const PAGE: u64 = 20_000;

#[mobula::remote]
pub(super) fn double(x: u64) -> u64 {
    2 * x
}

/// Runs for so long, or until it is cancelled.
#[mobula::remote]
pub(super) fn nap(x: u64, milliseconds: u64) -> u64 {
    for _ in 0..milliseconds {
        if mobula::is_cancelled() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    2 * x
}

fn nap_detached(x: u64, milliseconds: u64) -> mobula::ObjectRef<u64> {
    nap::options(TaskOptions::new().detached(true).max_retries(UNLIMITED)).remote(x, milliseconds)
}

/// Returns a reference to the result of a call that goes on without this one.
#[mobula::remote]
pub(super) fn hands_on(x: u64, milliseconds: u64) -> mobula::ObjectRef<u64> {
    nap_detached(x, milliseconds)
}

/// Makes calls that nobody waits for, detached and not, and waits a little itself.
#[mobula::remote]
pub(super) fn leaves_behind(x: u64, milliseconds: u64) -> u64 {
    drop(nap_detached(x, milliseconds));
    drop(nap::remote(x, milliseconds));
    std::thread::sleep(Duration::from_millis(milliseconds));
    x
}

/// Waits for calls of its own, which wait for theirs: 2ᵈᵉᵖᵗʰ times `x`.
#[mobula::remote]
pub(super) fn tree(x: u64, depth: u32, max_retries: u32) -> mobula::Result<u64> {
    if depth == 0 {
        return Ok(x);
    }
    let child =
        || tree::options(TaskOptions::new().max_retries(max_retries)).remote(x, depth - 1, max_retries);
    Ok(mobula::get([child(), child()])?.into_iter().sum())
}

/// The error of a function that fails half of the time.
pub(super) const NO_LUCK: &str = "no luck this time";

#[mobula::remote]
pub(super) fn flaky(x: u64) -> Result<u64, String> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    if (nanos / 64).is_multiple_of(2) { Ok(2 * x) } else { Err(NO_LUCK.to_owned()) }
}

/// A value that is an object of its process.
#[mobula::remote]
pub(super) fn page(first: u64) -> Vec<u64> {
    (first..first + PAGE).collect()
}

#[mobula::remote]
pub(super) fn sum(page: Vec<u64>) -> u64 {
    page.iter().sum()
}

pub(super) fn page_elements() -> u64 {
    PAGE
}

pub(super) fn sum_of_page(first: u64) -> u64 {
    PAGE * first + PAGE * (PAGE - 1) / 2
}

#[mobula::remote(streaming, max_in_flight = 4)]
pub(super) fn numbers(first: u64, count: u64) -> impl Iterator<Item = u64> {
    first..first + count
}

#[mobula::remote(streaming, max_in_flight = 2)]
pub(super) fn pages(first: u64, count: u64) -> impl Iterator<Item = Vec<u64>> {
    (first..first + count).map(|first| (first..first + PAGE).collect())
}

/// An actor whose answers do not depend on how often it was restarted.
pub(super) struct Echo;

#[mobula::remote]
impl Echo {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn double(&self, x: u64) -> u64 {
        2 * x
    }
}
