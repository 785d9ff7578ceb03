//! Calls as the side that makes them sees them: their arguments, their options, and the references to their results.
//!
//! On its way a call goes through `arguments` (values become payloads), `task` (the call, with a cell for each result), the
//! submitter, and comes back into its `result_cell`, which an `object_ref` points to.

pub(crate) mod arguments;
pub(crate) mod object_ref;
pub(crate) mod payload;
pub(crate) mod ref_id;
pub(crate) mod result_cell;
pub(crate) mod task;
