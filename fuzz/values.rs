//! The type that `decode_value` decodes to: each carrier once, among ordinary fields.
//!
//! A payload names its type, so the seeds must be written of the same one that the target reads: that is why it has a
//! place of its own.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch};
use mobula::value::{Arrow, Bytes, Tensor};
use serde::{Deserialize, Serialize};

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Victim {
    /// Text in the stream.
    pub name: String,
    /// A container in the stream.
    pub numbers: BTreeMap<u8, i64>,
    /// A buffer of any length and alignment.
    pub bytes: Bytes,
    /// A buffer whose length must fit a shape.
    pub tensor: Tensor<f64>,
    /// Any number of buffers.
    pub more: Vec<Option<Tensor<u16>>>,
    /// An array of any type.
    pub array: Arrow<ArrayRef>,
    /// Columns of any types, and of one length.
    pub batch: Arrow<RecordBatch>,
    /// Numbers in one piece, in the stream or beside it.
    pub floats: Vec<f32>,
    /// `Some`s around nil.
    pub maybe: Option<Option<Option<()>>>,
    /// Wide numbers, letters, and keys that are no text.
    pub letters: BTreeMap<(i128, char), u128>,
    /// What is buffered before it is known what it is.
    pub any: Any,
}

/// Anything, level by level.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Any {
    /// Nil.
    Nothing,
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Any>),
    /// A map.
    Map(BTreeMap<String, Any>),
    /// A variant with a tag.
    Tagged(Tagged),
}

/// A variant with a tag, and without.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Tagged {
    /// Without content.
    Nothing,
    /// With a list as its content.
    Pair(u8, Vec<u16>),
}
