//! The type that `decode_value` decodes to: each carrier once, among ordinary fields.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch};
use mobula::value::{Arrow, Bytes, Tensor};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Victim {
    pub(crate) name: String,
    pub(crate) numbers: BTreeMap<u8, i64>,
    pub(crate) bytes: Bytes,
    pub(crate) tensor: Tensor<f64>,
    pub(crate) more: Vec<Option<Tensor<u16>>>,
    pub(crate) array: Arrow<ArrayRef>,
    pub(crate) batch: Arrow<RecordBatch>,
}
