//! The types of Arrow that values are made of, from the crates that this version of Mobula uses.
//!
//! They are the types of the crate `arrow` of the same major version: a program that uses that crate needs nothing of
//! this module. A program that only makes and reads arrays can use this module instead: the crate `arrow` also has
//! kernels and file formats, which take long to compile.
//!
//! ```
//! use mobula::arrow::array::{Array, Int64Array};
//! use mobula::value::Arrow;
//!
//! let numbers = Arrow::from(Int64Array::from(vec![1, 2, 3]));
//! assert_eq!(numbers.len(), 3);
//! ```

/// Arrays, their builders, and their parts.
///
/// ```
/// use mobula::arrow::array::{Array, StringBuilder};
///
/// let mut names = StringBuilder::new();
/// names.append_value("manta");
/// names.append_null();
/// let names = names.finish();
/// assert_eq!((names.value(0), names.null_count()), ("manta", 1));
/// ```
pub mod array {
    pub use arrow_array::builder::*;
    pub use arrow_array::cast::*;
    pub use arrow_array::iterator::*;
    pub use arrow_array::*;
    pub use arrow_data::{ArrayData, ArrayDataBuilder, ArrayDataRef, BufferSpec, DataTypeLayout, layout};
}

/// The memory of arrays.
///
/// ```
/// use mobula::arrow::array::Int32Array;
/// use mobula::arrow::buffer::ScalarBuffer;
///
/// let numbers = Int32Array::new(ScalarBuffer::from(vec![1, 2, 3]), None); // takes the vector's memory over
/// assert_eq!(numbers.value(2), 3);
/// ```
pub mod buffer {
    pub use arrow_buffer::buffer::*;
}

/// Types of arrays, fields and schemas.
///
/// ```
/// use mobula::arrow::datatypes::{DataType, Field, Schema};
///
/// let schema = Schema::new(vec![Field::new("name", DataType::Utf8, false)]);
/// assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
/// ```
pub mod datatypes {
    pub use arrow_array::types::*;
    pub use arrow_array::{ArrowNativeTypeOp, ArrowNumericType, ArrowPrimitiveType};
    pub use arrow_buffer::{ArrowNativeType, ToByteSlice, i256};
    pub use arrow_schema::{
        DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaBuilder, SchemaRef, TimeUnit,
        UnionFields, UnionMode,
    };
}

/// The error of Arrow for data that is not valid.
///
/// ```
/// use mobula::arrow::array::StringArray;
/// use mobula::arrow::buffer::OffsetBuffer;
/// use mobula::arrow::error::ArrowError;
///
/// let error = StringArray::try_new(OffsetBuffer::from_lengths([1]), vec![0xff].into(), None).unwrap_err();
/// assert!(matches!(error, ArrowError::InvalidArgumentError(_)));
/// ```
pub mod error {
    pub use arrow_schema::ArrowError;
}

/// Tables.
///
/// ```
/// use std::sync::Arc;
/// use mobula::arrow::array::{ArrayRef, Float64Array};
/// use mobula::arrow::record_batch::RecordBatch;
///
/// let prices: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.5]));
/// let table = RecordBatch::try_from_iter([("price", prices)])?;
/// assert_eq!((table.num_rows(), table.num_columns()), (2, 1));
/// # Ok::<(), mobula::arrow::error::ArrowError>(())
/// ```
pub mod record_batch {
    pub use arrow_array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
}
