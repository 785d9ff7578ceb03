//! The carrier of n-dimensional arrays of numbers.
//!
//! Rule: a tensor's buffer is exactly as long as its shape needs, aligned for its elements, and holds nothing else than
//! elements. The code that makes a tensor checks that; all other code relies on it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use mobula_client::ObjectId;
#[cfg(feature = "ndarray")]
use ndarray::{Array, ArrayD, ArrayViewD, Dimension, IxDyn};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::buffer::Buffer;
use super::copied::{Copied, Form};
use super::stream::{self, Extension};
use super::{Element, ValueError, context};

/// An n-dimensional array of numbers (see [`Element`]), row-major and contiguous, immutable and shared. Its elements
/// travel beside the stream: an aligned copy when they come from the heap, a reference when they lie in the store.
///
/// Cloning and reading copy nothing. A tensor that was read from the store stays in it, and keeps its object alive and
/// mapped. Its shape is read from a copy. Its numbers do not change, unless the process that wrote them is faulty and
/// writes into sealed objects. Every pattern of bits is a number, so no other harm can follow. Only a `Tensor<bool>` is
/// read from a copy on the heap, in which each element is checked, because not every byte is a `bool`.
///
/// ```
/// use mobula::value::Tensor;
///
/// let tensor = Tensor::from_shape_vec(&[2, 2], vec![1, 2, 3, 4])?;
/// assert_eq!(tensor.view()[[1, 0]], 3);
/// assert_eq!(tensor.view().sum(), 10);
/// assert_eq!(Tensor::from(vec![1.5, 2.5]).shape(), [2]);
/// # Ok::<(), mobula::value::ValueError>(())
/// ```
pub struct Tensor<T> {
    shape: Arc<[usize]>,
    buffer: Buffer,
    element: PhantomData<T>,
}

impl<T: Element> Tensor<T> {
    /// A tensor of `elements` in row-major order, with the length of each axis. Takes the vector's memory over.
    ///
    /// ```
    /// use mobula::value::{Tensor, ValueError};
    ///
    /// let tensor = Tensor::from_shape_vec(&[2, 3], vec![1, 2, 3, 4, 5, 6])?;
    /// assert_eq!(tensor.shape(), [2, 3]);
    /// let error = Tensor::from_shape_vec(&[2, 2], vec![1, 2, 3]).unwrap_err();
    /// assert!(matches!(error, ValueError::Shape { elements: 3, .. }));
    /// # Ok::<(), ValueError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ValueError::Shape`] when the shape does not hold exactly as many elements.
    pub fn from_shape_vec(shape: &[usize], elements: Vec<T>) -> Result<Self, ValueError> {
        check_shape::<T>(shape, elements.len())?;
        Ok(Self::new(shape.into(), Buffer::on_heap(bytes::Bytes::from_owner(Elements(elements)))))
    }

    /// A tensor over `buffer`, which is copied if it is not aligned for `T`, or if it may contain invalid elements.
    pub(super) fn from_buffer(shape: &[usize], buffer: Buffer) -> Result<Self, ValueError> {
        let elements = buffer.len() / size_of::<T>();
        check_shape::<T>(shape, elements)?;
        if !buffer.len().is_multiple_of(size_of::<T>()) {
            return Err(ValueError::Shape { shape: shape.to_vec(), elements });
        }
        let settled = if T::IS_PLAIN { buffer } else { buffer.copied_out(Form::Unchanged) };
        if !T::are_elements(&settled) {
            return Err(ValueError::Elements { element: T::NAME });
        }
        let aligned = settled.is_empty() || settled.as_ptr().addr().is_multiple_of(align_of::<T>());
        let copy = || Buffer::on_heap(bytes::Bytes::from_owner(Copied::of(&settled, Form::Unchanged)));
        Ok(Self::new(shape.into(), if aligned { settled } else { copy() }))
    }

    /// A tensor over memory that was made for its shape, and that no other process has written or can write.
    pub(super) fn of_own(shape: &[usize], buffer: Buffer) -> Self {
        Self::new(shape.into(), buffer)
    }

    fn new(shape: Arc<[usize]>, buffer: Buffer) -> Self {
        Self { shape, buffer, element: PhantomData }
    }

    /// The length of each axis. Empty for a single number.
    ///
    /// ```
    /// use mobula::value::Tensor;
    ///
    /// assert_eq!(Tensor::from(vec![1.5, 2.5]).shape(), [2]);
    /// assert!(Tensor::from_shape_vec(&[], vec![7])?.shape().is_empty());
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order, where they lie. Copies nothing.
    ///
    /// ```
    /// use mobula::value::Tensor;
    ///
    /// let tensor = Tensor::from_shape_vec(&[2, 2], vec![1, 2, 3, 4])?;
    /// assert_eq!(tensor.as_slice().iter().sum::<i32>(), 10);
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        // The pointer of an empty buffer need not be aligned.
        if self.buffer.is_empty() {
            return &[];
        }
        // SAFETY: a tensor's buffer holds elements. Only a faulty owner changes it, and every bit pattern of such a
        // type is a valid element.
        unsafe { T::slice(&self.buffer) }
    }

    /// The elements as `ndarray` sees them. Copies nothing.
    ///
    /// ```
    /// use mobula::ndarray::Axis;
    /// use mobula::value::Tensor;
    ///
    /// let tensor = Tensor::from_shape_vec(&[2, 2], vec![1, 2, 3, 4])?;
    /// assert_eq!(tensor.view()[[1, 0]], 3);
    /// assert_eq!(tensor.view().sum_axis(Axis(0)).as_slice(), Some(&[4, 6][..]));
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    #[cfg(feature = "ndarray")]
    #[must_use]
    pub fn view(&self) -> ArrayViewD<'_, T> {
        ArrayViewD::from_shape(IxDyn(&self.shape), self.as_slice()).expect("the shape was checked")
    }

    /// A copy of the elements on the heap, to be changed.
    ///
    /// ```
    /// use mobula::value::Tensor;
    ///
    /// let mut array = Tensor::from(vec![1, 2]).to_array();
    /// array[0] = 5;
    /// assert_eq!(Tensor::from(array).as_slice(), [5, 2]);
    /// ```
    #[cfg(feature = "ndarray")]
    #[must_use]
    pub fn to_array(&self) -> ArrayD<T> {
        self.view().to_owned()
    }

    /// The object of the store that the elements lie in, or were copied from when they were read. `None` for elements
    /// on the heap.
    ///
    /// ```
    /// use mobula::value::{Tensor, TensorMut};
    ///
    /// let _mobula = mobula::init()?;
    /// assert!(TensorMut::<f32>::zeros(&[8])?.seal().object_id().is_some());
    /// assert!(Tensor::from(vec![0.0_f32; 8]).object_id().is_none());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.buffer.object_id()
    }
}

/// Checks that `shape` has this number of `elements`. Also checks that the bytes of all axes together fit into a
/// number, which `ndarray` requires even of an empty array.
pub(super) fn check_shape<T>(shape: &[usize], elements: usize) -> Result<(), ValueError> {
    let error = || ValueError::Shape { shape: shape.to_vec(), elements };
    let axes = shape.iter().filter(|&&axis| axis != 0);
    let spanned = axes.copied().try_fold(size_of::<T>(), usize::checked_mul).ok_or_else(error)?;
    let held = if shape.contains(&0) { 0 } else { spanned / size_of::<T>() };
    if isize::try_from(spanned).is_ok() && held == elements { Ok(()) } else { Err(error()) }
}

/// A vector of numbers as the owner of its bytes.
struct Elements<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Elements<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<T> Clone for Tensor<T> {
    fn clone(&self) -> Self {
        Self { shape: self.shape.clone(), buffer: self.buffer.clone(), element: PhantomData }
    }
}

impl<T: Element> From<Vec<T>> for Tensor<T> {
    /// A tensor of one axis. Takes the vector's memory over.
    fn from(elements: Vec<T>) -> Self {
        let shape = Arc::from([elements.len()]);
        Self::new(shape, Buffer::on_heap(bytes::Bytes::from_owner(Elements(elements))))
    }
}

#[cfg(feature = "ndarray")]
impl<T: Element, D: Dimension> From<Array<T, D>> for Tensor<T> {
    /// Takes the array's memory over when its elements lie in row-major order, and copies them otherwise.
    fn from(array: Array<T, D>) -> Self {
        let shape = Arc::from(array.shape());
        let length = array.len();
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        let (elements, first) = array.into_raw_vec_and_offset();
        let start = first.unwrap_or(0) * size_of::<T>();
        let bytes = bytes::Bytes::from_owner(Elements(elements));
        Self::new(shape, Buffer::on_heap(bytes.slice(start..start + length * size_of::<T>())))
    }
}

#[cfg(feature = "ndarray")]
impl<T: Element> From<Tensor<T>> for ArrayD<T> {
    /// Copies the elements.
    fn from(tensor: Tensor<T>) -> Self {
        tensor.to_array()
    }
}

impl<T: Element> PartialEq for Tensor<T> {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.as_slice() == other.as_slice()
    }
}

impl<T: Element> fmt::Debug for Tensor<T> {
    /// Shows the shape and the object. The elements are left out, because they may be gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("element", &T::NAME)
            .field("shape", &self.shape)
            .field("object_id", &self.object_id())
            .finish()
    }
}

/// A tensor in a payload's stream.
#[derive(serde::Serialize)]
struct BesideStream<'a> {
    element: &'static str,
    shape: &'a [usize],
    buffer: &'a Buffer,
}

/// A tensor in any other format: numbers that a reader can read.
#[derive(serde::Serialize, serde::Deserialize)]
struct InLine<S, E> {
    shape: S,
    elements: E,
}

/// Either of them.
#[derive(serde::Deserialize)]
struct BesideOrInLine<T> {
    shape: Vec<usize>,
    element: Option<String>,
    buffer: Option<Buffer>,
    elements: Option<Vec<T>>,
}

impl<T: Element> Serialize for Tensor<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(Extension::Tensor.name(), &Content(self))
    }
}

struct Content<'a, T>(&'a Tensor<T>);

impl<T: Element> Serialize for Content<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Tensor { shape, buffer, .. } = self.0;
        if context::take_invitation() {
            BesideStream { element: T::NAME, shape, buffer }.serialize(serializer)
        } else {
            InLine { shape, elements: self.0.as_slice() }.serialize(serializer)
        }
    }
}

impl<'de, T: Element> Deserialize<'de> for Tensor<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(Extension::Tensor.name(), Parts(PhantomData))
    }
}

struct Parts<T>(PhantomData<T>);

impl<'de, T: Element> de::Visitor<'de> for Parts<T> {
    type Value = Tensor<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a tensor of {}", T::NAME)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tensor<T>, D::Error> {
        // A binary format must be told which type to read. It is not a payload's stream.
        if !deserializer.is_human_readable() {
            let parts = InLine::<Vec<usize>, Vec<T>>::deserialize(deserializer)?;
            return Tensor::from_shape_vec(&parts.shape, parts.elements).map_err(de::Error::custom);
        }
        let parts: BesideOrInLine<T> = stream::content(deserializer)?;
        match (parts.element, parts.buffer, parts.elements) {
            (Some(element), Some(buffer), None) if element == T::NAME => {
                Tensor::from_buffer(&parts.shape, buffer).map_err(context::refuse)
            }
            (Some(element), Some(_), None) => Err(context::refuse(ValueError::WrongType {
                expected: std::any::type_name::<Tensor<T>>(),
                found: format!("tensor of {element}"),
            })),
            (None, None, Some(elements)) => {
                Tensor::from_shape_vec(&parts.shape, elements).map_err(context::refuse)
            }
            _ => Err(de::Error::custom("a tensor has a buffer of elements, or elements in line")),
        }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Tensor<T>, A::Error> {
        self.visit_newtype_struct(de::value::MapAccessDeserializer::new(map))
    }
}
