//! The carrier of Arrow data: record batches and arrays, in the types of the `arrow` crate.
//!
//! This file has the face; `visible` takes arrays apart, and `parts` puts them together again from bytes that it does
//! not trust.

use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::arrow::array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray,
    GenericByteArray, GenericByteViewArray, GenericListArray, GenericListViewArray, MapArray, NullArray,
    OffsetSizeTrait, PrimitiveArray, RecordBatch, RecordBatchOptions, RunArray, StructArray, UnionArray,
};
use crate::arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowPrimitiveType, ByteArrayType, ByteViewType, Field, RunEndIndexType, Schema,
};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use self::parts::Parts;
use super::stream::{self, Extension};
use super::{ValueError, context};

mod parts;
mod views;
mod visible;

/// Arrow data as a value: an `Arrow<RecordBatch>`, an `Arrow<ArrayRef>`, or an `Arrow` of one of the array types, such
/// as `Arrow<Int64Array>` or `Arrow<StringArray>`. Dereferencing it gives the `arrow` crate's own type.
///
/// # Writing
///
/// Buffers travel beside the stream: as aligned copies when they come from the heap, as references when they lie in the
/// store. Only visible rows travel: of a slice, only its own rows. If the rows of an array are spread over much larger
/// memory (views, list views, unions), they are copied together first. All values of a dictionary travel, because their
/// keys are a part of the data. Arrow's `garbage_collect_any_dictionary` removes unused values.
///
/// # Reading
///
/// - Numbers, dates, decimals, and the bytes of `Binary` and `FixedSizeBinary` lie in the store after reading. They
///   keep their memory alive and mapped, also when they go on into other arrays. This costs nothing.
/// - Text, views and the bytes that they point to, offsets, sizes, type ids, run ends, the keys of dictionaries,
///   booleans, and the bits that say which rows are null, lie in a copy on the heap. This costs a copy, and its
///   validation.
///
/// Copied parts are validated in the copy, text and offsets included. So an array cannot be made to read outside its
/// memory, and a `&str` of it is valid UTF-8, even if the process that wrote it is faulty and writes into sealed
/// objects. Such a process can change numbers and plain bytes while they are read. Every number is valid for Arrow by
/// itself. But a function may check numbers as positions and then read them again without a check, as a kernel such as
/// `arrow::compute::take` may do with its indices. It could then access memory outside the array. Copy a column of
/// positions before such a use, if its owner may be faulty.
///
/// A column of text therefore takes about as long to read as to copy. If that is too much, read bytes: a `BinaryArray`
/// of the same text stays in place, except for its offsets.
///
/// Data that was read and is put again goes by reference, copied parts included: they are known as copies of data in
/// the store. A part that several arrays of a value share, such as a dictionary, is copied once.
///
/// ```
/// use mobula::arrow::array::{Array, StringArray};
/// use mobula::value::{decode, encode, Arrow, Source};
///
/// let names = Arrow::from(StringArray::from(vec![Some("manta"), None, Some("mobula")]));
/// let payload = encode(&names)?.to_vec();
/// let back: Arrow<StringArray> = decode(Source::heap(payload, vec![]))?;
/// assert_eq!((back.len(), back.value(2)), (3, "mobula"));
/// # Ok::<(), mobula::value::ValueError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Arrow<A>(A);

impl<A: ArrowValue> Arrow<A> {
    /// The data itself. Copies nothing.
    ///
    /// ```
    /// use mobula::arrow::array::Int64Array;
    /// use mobula::value::Arrow;
    ///
    /// let numbers: Int64Array = Arrow::from(Int64Array::from(vec![1, 2])).into_inner();
    /// assert_eq!(numbers.values(), &[1, 2]);
    /// ```
    #[must_use]
    pub fn into_inner(self) -> A {
        self.0
    }
}

/// The types that an [`Arrow`] can hold: [`RecordBatch`], [`ArrayRef`], and the array types of the `arrow` crate. The
/// trait is sealed: other types cannot implement it.
///
/// ```
/// use mobula::arrow::array::{Array, BooleanArray, Int64Array};
/// use mobula::value::{Arrow, ArrowValue};
///
/// fn nulls<A: ArrowValue + Array>(data: &Arrow<A>) -> usize {
///     data.null_count()
/// }
///
/// assert_eq!(nulls(&Arrow::from(Int64Array::from(vec![Some(1), None]))), 1);
/// assert_eq!(nulls(&Arrow::from(BooleanArray::from(vec![true]))), 0);
/// ```
pub trait ArrowValue: Clone + sealed::Sealed {}

mod sealed {
    use super::{Parts, ValueError};

    pub trait Sealed: Sized {
        fn to_parts(&self) -> Parts;
        fn from_parts(parts: Parts) -> Result<Self, ValueError>;
    }
}

impl ArrowValue for RecordBatch {}

impl sealed::Sealed for RecordBatch {
    fn to_parts(&self) -> Parts {
        Parts::of_columns(
            self.schema(),
            self.num_rows(),
            self.columns().iter().map(|column| column.to_data()),
        )
    }

    fn from_parts(parts: Parts) -> Result<Self, ValueError> {
        let (schema, rows, columns) = parts.into_columns()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}

impl ArrowValue for ArrayRef {}

impl sealed::Sealed for ArrayRef {
    fn to_parts(&self) -> Parts {
        array_to_parts(self)
    }

    fn from_parts(parts: Parts) -> Result<Self, ValueError> {
        array_from_parts::<Self>(parts)
    }
}

/// An array travels as the only column of a table without names.
fn array_to_parts(array: &dyn Array) -> Parts {
    let field = Field::new("", array.data_type().clone(), true);
    Parts::of_columns(Arc::new(Schema::new(vec![field])), array.len(), [array.to_data()])
}

fn array_from_parts<A: ArrowValue>(parts: Parts) -> Result<ArrayRef, ValueError> {
    let (_, _, mut columns) = parts.into_columns()?;
    match (columns.pop(), columns.len()) {
        (Some(array), 0) => Ok(array),
        (popped, left) => {
            let columns = left + usize::from(popped.is_some());
            Err(wrong_type::<A>(format!("table of {columns} columns")))
        }
    }
}

fn wrong_type<A: ArrowValue>(found: String) -> ValueError {
    ValueError::WrongType { expected: std::any::type_name::<Arrow<A>>(), found }
}

macro_rules! arrays {
    ($($array:ty $(, $parameter:ident: $bound:path)?;)*) => {$(
        impl$(<$parameter: $bound>)? ArrowValue for $array {}

        impl$(<$parameter: $bound>)? sealed::Sealed for $array {
            fn to_parts(&self) -> Parts {
                array_to_parts(self)
            }

            fn from_parts(parts: Parts) -> Result<Self, ValueError> {
                let array = array_from_parts::<Self>(parts)?;
                let concrete = array.as_any().downcast_ref::<Self>().cloned();
                concrete.ok_or_else(|| wrong_type::<Self>(format!("array of {}", array.data_type())))
            }
        }
    )*};
}

arrays! {
    NullArray;
    BooleanArray;
    PrimitiveArray<T>, T: ArrowPrimitiveType;
    GenericByteArray<T>, T: ByteArrayType;
    GenericByteViewArray<T>, T: ByteViewType;
    FixedSizeBinaryArray;
    GenericListArray<O>, O: OffsetSizeTrait;
    GenericListViewArray<O>, O: OffsetSizeTrait;
    FixedSizeListArray;
    StructArray;
    MapArray;
    UnionArray;
    DictionaryArray<K>, K: ArrowDictionaryKeyType;
    RunArray<R>, R: RunEndIndexType;
}

impl<A: ArrowValue> From<A> for Arrow<A> {
    fn from(data: A) -> Self {
        Self(data)
    }
}

impl<A> Deref for Arrow<A> {
    type Target = A;

    fn deref(&self) -> &A {
        &self.0
    }
}

impl<A: fmt::Debug> fmt::Debug for Arrow<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<A: ArrowValue> Serialize for Arrow<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(Extension::Arrow.name(), &Content(self.0.to_parts()))
    }
}

struct Content(Parts);

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The content has one form in all formats; only its buffers have another within a payload, and ask for it
        // themselves.
        context::take_invitation();
        self.0.serialize(serializer)
    }
}

impl<'de, A: ArrowValue> Deserialize<'de> for Arrow<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = deserializer.deserialize_newtype_struct(Extension::Arrow.name(), ContentVisitor)?;
        // Everything that Arrow's validation is known to take for granted has been checked. Other panics of it are
        // caught.
        let made = catch_unwind(AssertUnwindSafe(|| A::from_parts(parts)));
        let made = made.unwrap_or_else(|_| Err(parts::invalid("Arrow panicked on it".to_owned())));
        made.map(Self).map_err(context::refuse)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Parts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arrow data")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parts, D::Error> {
        // A binary format must be told which type to read. It is not a payload's stream.
        if deserializer.is_human_readable() {
            stream::content(deserializer)
        } else {
            Parts::deserialize(deserializer)
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Parts, M::Error> {
        Parts::deserialize(de::value::MapAccessDeserializer::new(map))
    }
}
