//! The example programs whose work is compared. They are parts of this program, so that the comparison measures the
//! code that a reader of `examples/` sees. Their `main` and their options for people are not used here.

#[expect(dead_code, reason = "only the work of the program is used")]
#[path = "../../../examples/arrow_group_by.rs"]
pub(crate) mod arrow_group_by;
#[expect(dead_code, reason = "only the work of the program is used")]
#[path = "../../../examples/parameter_server.rs"]
pub(crate) mod parameter_server;
#[expect(dead_code, reason = "only the work of the program is used")]
#[path = "../../../examples/sample_sort.rs"]
pub(crate) mod sample_sort;
#[expect(dead_code, reason = "only the work of the program is used")]
#[path = "../../../examples/streaming_mapreduce.rs"]
pub(crate) mod streaming_mapreduce;
