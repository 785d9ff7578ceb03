//! Calls whose results are forgotten: if these fail, results that no process can ever read stay in the store, and a
//! program that fires and forgets fills it.

use std::path::{Path, PathBuf};

use mobula::value::Bytes;
use mobula_tests::{eventually, session_with};

const MIB: usize = 1 << 20;
/// The results of all calls are many times what the store holds.
const CAPACITY: u64 = 32 << 20;
const RESULT_BYTES: usize = 2 * MIB;
const CALLS: usize = 60;

/// Leaves a file when it has made its result.
#[mobula::remote]
fn makes(directory: PathBuf, number: usize) -> Bytes {
    let made = result(number);
    note(&directory, number);
    made
}

#[mobula::remote(num_returns = 2)]
fn makes_two(directory: PathBuf, number: usize) -> (Bytes, Bytes) {
    note(&directory, number);
    (result(1), result(2))
}

#[mobula::remote]
fn passes(directory: PathBuf, number: usize, value: Bytes) -> Bytes {
    note(&directory, number);
    value
}

/// Forgets the results of calls that it makes.
#[mobula::remote]
fn parent(directory: PathBuf, number: usize) {
    makes::remote(directory, number);
}

#[mobula::remote(streaming)]
fn streams(directory: PathBuf, number: usize) -> impl Iterator<Item = Bytes> {
    (0..3).map(move |item| {
        if item == 1 {
            note(&directory, number);
        }
        result(item)
    })
}

struct Maker(PathBuf);

#[mobula::remote]
impl Maker {
    fn new(directory: PathBuf) -> Self {
        Maker(directory)
    }

    fn make(&mut self, number: usize) -> Bytes {
        note(&self.0, number);
        result(number)
    }
}

fn result(number: usize) -> Bytes {
    Bytes::from(vec![number as u8; RESULT_BYTES])
}

fn note(directory: &Path, number: usize) {
    std::fs::write(directory.join(number.to_string()), []).unwrap();
}

/// Makes calls and forgets them. In the end they have all run, and the store has the objects that it had before.
fn check(what: &str, mut call: impl FnMut(PathBuf, usize)) {
    let session = session_with(mobula::Builder::new().workers(2).capacity_bytes(CAPACITY));
    let directory = tempfile::tempdir().unwrap();
    let objects = || session.session.client().list().unwrap().len();
    let before = objects();
    (0..CALLS).for_each(|number| call(directory.path().to_owned(), number));
    eventually("all calls have run", || std::fs::read_dir(directory.path()).unwrap().count() == CALLS);
    eventually(&format!("no result is left: {what}"), || objects() <= before);
    // Nothing was spilled to make room for results that are never read.
    let stats = session.session.client().stats().unwrap();
    assert!(stats.clients.iter().all(|client| client.spilled_bytes == 0), "{what}: {stats:?}");
}

#[test]
fn results_of_tasks_are_not_kept() {
    check("one result", |directory, number| _ = makes::remote(directory, number));
    check("two results", |directory, number| _ = makes_two::remote(directory, number));
}

#[test]
fn a_result_that_only_a_forgotten_call_reads_is_not_kept() {
    check("arguments", |directory, number| {
        let value = makes::remote(directory.clone(), number);
        passes::remote(directory, number, value);
    });
}

#[test]
fn results_that_a_call_forgets_are_not_kept() {
    check("children", |directory, number| _ = parent::remote(directory, number));
}

#[test]
fn results_of_methods_are_not_kept() {
    let mut maker = None;
    check("methods", |directory, number| {
        maker.get_or_insert_with(|| Maker::remote(directory)).make(number);
        if number + 1 == CALLS {
            maker = None;
        }
    });
}

/// The caller takes the first item, and forgets it and the rest.
#[test]
fn items_of_a_stream_are_not_kept() {
    check("items", |directory, number| {
        let mut stream = streams::remote(directory.clone(), number);
        drop(stream.next().unwrap());
        eventually("the second item is made", || directory.join(number.to_string()).exists());
    });
}
