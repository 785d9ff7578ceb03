//! Carriers that a producer fills where they will stay: memory of the store, written in place, sealed without a copy.
//!
//! Each is one object of the format [`RAW`](super::format::RAW). The sealed carrier refers to that object, so a value
//! that holds it is encoded without copying. A carrier that is dropped before it is sealed gives its memory back.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use mobula_client::{Client, Layout, ObjectWriter};
#[cfg(feature = "ndarray")]
use ndarray::{ArrayViewMutD, IxDyn};

use super::buffer::Buffer;
use super::tensor::check_shape;
use super::{Bytes, Element, Tensor, ValueError, format};

/// Bytes of the store that are still being written.
///
/// ```no_run
/// use mobula::value::BytesMut;
///
/// let mut bytes = BytesMut::create(1 << 20)?;
/// bytes.fill(7);
/// let bytes = bytes.seal(); // goes into values, tasks and objects without another copy
/// # Ok::<(), mobula::value::ValueError>(())
/// ```
pub struct BytesMut {
    writer: ObjectWriter,
}

impl BytesMut {
    /// `length` bytes of the session's store, 64-byte aligned, with the values that the memory held before.
    ///
    /// # Errors
    ///
    /// When there is no session, and when the store has no room.
    pub fn create(length: usize) -> Result<Self, ValueError> {
        Self::create_in(&super::client()?, length)
    }

    /// As [`create`](Self::create), in the store of `client`.
    ///
    /// # Errors
    ///
    /// When the store has no room.
    pub fn create_in(client: &Client, length: usize) -> Result<Self, ValueError> {
        let layout = Layout::new(length as u64).format(format::RAW);
        Ok(Self { writer: client.create(layout)? })
    }

    /// The bytes will not change any more, and can be shared. Copies nothing.
    pub fn seal(self) -> Bytes {
        Bytes(Buffer::of_object(self.writer.seal()))
    }
}

impl Deref for BytesMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.writer
    }
}

impl DerefMut for BytesMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.writer
    }
}

impl fmt::Debug for BytesMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesMut").field("length", &self.len()).field("id", &self.writer.id()).finish()
    }
}

/// A tensor of the store whose elements are still being written.
///
/// ```no_run
/// use mobula::value::TensorMut;
///
/// let mut image = TensorMut::<f32>::zeros(&[1080, 1920, 3])?;
/// image.view_mut()[[0, 0, 0]] = 1.0;
/// let image = image.seal();
/// # Ok::<(), mobula::value::ValueError>(())
/// ```
pub struct TensorMut<T> {
    shape: Vec<usize>,
    memory: BytesMut,
    element: PhantomData<T>,
}

impl<T: Element> TensorMut<T> {
    /// A tensor in the session's store. Its elements are those that the memory held before (`false`, of `bool`): this
    /// is for a producer that writes all of them.
    ///
    /// # Errors
    ///
    /// When there is no session, when the store has no room, and for a shape larger than memory.
    pub fn create(shape: &[usize]) -> Result<Self, ValueError> {
        Self::create_in(&super::client()?, shape)
    }

    /// As [`create`](Self::create), in the store of `client`.
    ///
    /// # Errors
    ///
    /// When the store has no room, and for a shape larger than memory.
    pub fn create_in(client: &Client, shape: &[usize]) -> Result<Self, ValueError> {
        let elements = shape.iter().copied().fold(1, usize::saturating_mul);
        check_shape::<T>(shape, elements)?;
        let mut memory = BytesMut::create_in(client, elements * size_of::<T>())?;
        if !T::IS_PLAIN {
            // Zeros are elements of every type; the bytes that the memory held before need not be.
            memory.fill(0);
        }
        Ok(Self { shape: shape.to_vec(), memory, element: PhantomData })
    }

    /// A tensor of zeros in the session's store.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn zeros(shape: &[usize]) -> Result<Self, ValueError> {
        Self::zeros_in(&super::client()?, shape)
    }

    /// As [`zeros`](Self::zeros), in the store of `client`.
    ///
    /// # Errors
    ///
    /// As [`create_in`](Self::create_in).
    pub fn zeros_in(client: &Client, shape: &[usize]) -> Result<Self, ValueError> {
        let mut tensor = Self::create_in(client, shape)?;
        tensor.memory.fill(0);
        Ok(tensor)
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // Empty memory need not be aligned.
        if self.memory.is_empty() {
            return &mut [];
        }
        // SAFETY: all bytes are elements, or they were zeros at first and only elements were written, through this. No
        // other process can write them.
        unsafe { T::slice_mut(&mut self.memory) }
    }

    /// The elements as `ndarray` sees them.
    #[cfg(feature = "ndarray")]
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = IxDyn(&self.shape);
        ArrayViewMutD::from_shape(shape, self.as_mut_slice()).expect("the shape was checked")
    }

    /// The elements will not change any more, and can be shared. Copies nothing.
    pub fn seal(self) -> Tensor<T> {
        Tensor::of_own(&self.shape, self.memory.seal().0)
    }
}

impl<T: Element> fmt::Debug for TensorMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorMut")
            .field("element", &T::NAME)
            .field("shape", &self.shape)
            .field("memory", &self.memory)
            .finish()
    }
}
