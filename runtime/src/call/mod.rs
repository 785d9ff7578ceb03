//! The parts of a call: its arguments as payloads, the task, and a cell for each result.

pub(crate) mod arguments;
pub(crate) mod payload;
pub(crate) mod ref_id;
pub(crate) mod result_cell;
pub(crate) mod task;
