//! The parts of a call: its options, its arguments as payloads, the task, and a cell for each result, where the
//! outcome arrives.

pub(crate) mod arguments;
pub(crate) mod error_retries;
pub(crate) mod inline;
pub(crate) mod items;
pub(crate) mod limits;
pub(crate) mod method_options;
pub(crate) mod options;
pub(crate) mod outcome;
pub(crate) mod payload;
pub(crate) mod pending_calls;
pub(crate) mod ref_id;
pub(crate) mod result_cell;
pub(crate) mod task;
pub(crate) mod task_id;
pub(crate) mod waiter;
pub(crate) mod watched;

/// Runs a test with a client of a store of its own.
#[cfg(test)]
pub(crate) fn with_store(test: impl FnOnce(&mobula_client::Client)) {
    use mobula_store::{Config, Server};

    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("store.sock");
    let server = Server::bind(Config::new(&socket, 1 << 20)).unwrap();
    let stopper = server.stopper();
    let thread = std::thread::spawn(move || server.run());
    test(&mobula_client::Client::connect(&socket).unwrap());
    stopper.stop();
    thread.join().unwrap().unwrap();
}
