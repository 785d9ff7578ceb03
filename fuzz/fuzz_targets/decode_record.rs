//! Any bytes as a record from another process of the session: calls, results, and what the head is told and says. They
//! are read or refused, without a panic, and so are the payloads that a record says that follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mobula::fuzzing::read_record;

fuzz_target!(|bytes: &[u8]| read_record(bytes));
