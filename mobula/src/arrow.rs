//! The types of Arrow that values are made of, from the crates that this version of Mobula uses.
//!
//! They are the types of the crate `arrow` of the same major version: a program that uses that crate needs nothing of this
//! module. One that only makes arrays and looks at them does not need that crate, with its kernels and file formats, which
//! take long to compile.
//!
//! ```
//! use mobula::arrow::array::{Array, Int64Array};
//! use mobula::value::Arrow;
//!
//! let numbers = Arrow::from(Int64Array::from(vec![1, 2, 3]));
//! assert_eq!(numbers.len(), 3);
//! ```

/// Arrays, their builders, and what they are taken apart into.
pub mod array {
    pub use arrow_array::builder::*;
    pub use arrow_array::cast::*;
    pub use arrow_array::iterator::*;
    pub use arrow_array::*;
    pub use arrow_data::{ArrayData, ArrayDataBuilder, ArrayDataRef, BufferSpec, DataTypeLayout, layout};
}

/// The memory of arrays.
pub mod buffer {
    pub use arrow_buffer::buffer::*;
}

/// Types of arrays, fields and schemas.
pub mod datatypes {
    pub use arrow_array::types::*;
    pub use arrow_array::{ArrowNativeTypeOp, ArrowNumericType, ArrowPrimitiveType};
    pub use arrow_buffer::{ArrowNativeType, ToByteSlice, i256};
    pub use arrow_schema::{
        DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaBuilder, SchemaRef, TimeUnit,
        UnionFields, UnionMode,
    };
}

/// What Arrow says of data that is not valid.
pub mod error {
    pub use arrow_schema::ArrowError;
}

/// Tables.
pub mod record_batch {
    pub use arrow_array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
}
