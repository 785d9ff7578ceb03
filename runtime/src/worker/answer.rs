//! The answer to a call, as records: its results, its failure, or the end of its stream.

use crate::call::payload::Payloads;
use crate::error::Failure;
use crate::mail::link::Link;
use crate::wire::{NoResults, Results, StreamEnd};

/// The most bytes of results in one record. A ring has room for such a record.
const RESULTS_BYTES_MAX: usize = 8 << 10;

/// Sends the results, in as many records as needed.
pub(crate) fn reply(to: &Link, task: u64, mut payloads: Payloads, ran_nanos: u64) {
    let mut held = payloads.take_held();
    let mut first = 0;
    loop {
        let next = end_of_part(&payloads, first);
        let is_last = next == payloads.count();
        let results = Results { task, first: first as u32, count: (next - first) as u32, is_last, ran_nanos };
        // Objects in earlier records are held until the last record has been handled.
        let held = if is_last { std::mem::take(&mut held) } else { Vec::new() };
        let sent = to.send_with(held, |record| {
            results.append_to(record);
            record.extend_from_slice(payloads.bytes_of(first..next));
        });
        debug_assert!(sent.is_ok(), "a part of the results fits a record");
        if is_last {
            return;
        }
        first = next;
    }
}

/// Sends the failure of a call.
pub(crate) fn fail(to: &Link, task: u64, failure: Failure, ran_nanos: u64) {
    let failed = NoResults::Failed { task, failure, ran_nanos };
    let _ = to.send_with(Vec::new(), |record| failed.append_to(record));
}

/// Tells the caller that a call with time limits has begun.
pub(crate) fn say_begun(to: &Link, task: u64) {
    let _ = to.send_with(Vec::new(), |record| NoResults::Begun { task }.append_to(record));
}

/// Sends the end of a stream, which is the one result of the call.
pub(super) fn reply_with_end(to: &Link, end: StreamEnd, mut result: Payloads) {
    let held = result.take_held();
    let sent = to.send_with(held, |record| {
        end.append_to(record);
        record.extend_from_slice(result.bytes());
    });
    debug_assert!(sent.is_ok(), "a payload fits a record");
}

/// The end of the results that fit into one record, beginning with `first`: at least one result, if there is one.
fn end_of_part(payloads: &Payloads, first: usize) -> usize {
    let count = payloads.count();
    (first + 1..count)
        .find(|end| payloads.bytes_of(first..end + 1).len() > RESULTS_BYTES_MAX)
        .unwrap_or(count)
}
