//! Calls as the side that makes them sees them.
//!
//! On its way a call goes through `arguments` (payloads are collected), `task` (the call, with a cell for each result), the
//! submitter, and comes back into its `result_cell`, which a `reference` points to. `actor` is who has methods.

pub(crate) mod actor;
pub(crate) mod arguments;
pub(crate) mod payload;
pub(crate) mod ref_id;
pub(crate) mod reference;
pub(crate) mod result_cell;
pub(crate) mod task;
