//! Carriers that a producer fills in place: their memory is in the store, and is sealed without a copy.
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

/// Bytes of the store that are still being written. They deref to a `&mut [u8]`.
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn count(bytes: Bytes, byte: u8) -> usize {
///     bytes.iter().filter(|&&other| other == byte).count()
/// }
///
/// let _mobula = init()?;
/// let mut bytes = BytesMut::create(1 << 20)?;
/// bytes.fill(7); // written where they stay
/// let bytes = bytes.seal(); // goes into values, tasks and objects without another copy
/// assert_eq!(count::remote(bytes, 7).get()?, 1 << 20);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "the memory is given back when this is dropped before it is sealed"]
pub struct BytesMut {
    writer: ObjectWriter,
}

impl BytesMut {
    /// `length` bytes of the session's store, 64-byte aligned, with the values that the memory held before. No system
    /// call while the memory that this process has leased has room.
    ///
    /// ```
    /// use mobula::value::BytesMut;
    ///
    /// let _mobula = mobula::init()?;
    /// let mut bytes = BytesMut::create(5)?;
    /// bytes.copy_from_slice(b"manta");
    /// assert_eq!(&bytes.seal()[..], b"manta");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ValueError::NoSession`]; [`ValueError::Store`] when the store has no room.
    pub fn create(length: usize) -> Result<Self, ValueError> {
        Self::create_in(&super::client()?, length)
    }

    /// Makes one like [`create`](Self::create), in the store of `client`. This is for a program that uses the store
    /// without a session, with a client of its own.
    ///
    /// ```
    /// use mobula::value::BytesMut;
    ///
    /// let session = mobula::init()?;
    /// let client = mobula::Client::connect(session.socket())?; // in another program
    /// let bytes = BytesMut::create_in(&client, 5)?;
    /// assert_eq!(bytes.len(), 5);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ValueError::Store`] when the store has no room.
    pub fn create_in(client: &Client, length: usize) -> Result<Self, ValueError> {
        let layout = Layout::new(length as u64).format(format::RAW);
        Ok(Self { writer: client.create(layout)? })
    }

    /// Makes the bytes final, so that they can be shared. Copies nothing: one store makes the object visible.
    ///
    /// ```
    /// use mobula::value::{Bytes, BytesMut};
    ///
    /// let _mobula = mobula::init()?;
    /// let mut bytes = BytesMut::create(3)?;
    /// bytes.fill(1);
    /// let bytes: Bytes = bytes.seal();
    /// assert_eq!(&bytes[..], [1, 1, 1]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
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
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn gradient(height: usize, width: usize) -> Result<Tensor<f32>, mobula::value::ValueError> {
///     let mut image = TensorMut::<f32>::create(&[height, width])?; // in the worker's part of the store
///     for (index, pixel) in image.as_mut_slice().iter_mut().enumerate() {
///         *pixel = (index % width) as f32;
///     }
///     Ok(image.seal()) // is returned without a copy
/// }
///
/// let _mobula = init()?;
/// let image = gradient::remote(480, 640).get()?; // lies where the worker wrote it
/// assert_eq!(image.shape(), [480, 640]);
/// assert_eq!(image.as_slice()[641], 1.0);
/// # Ok::<(), mobula::Error>(())
/// ```
#[must_use = "the memory is given back when this is dropped before it is sealed"]
pub struct TensorMut<T> {
    shape: Vec<usize>,
    memory: BytesMut,
    element: PhantomData<T>,
}

impl<T: Element> TensorMut<T> {
    /// A tensor in the session's store, with the length of each axis. Its elements are those that the memory held
    /// before (of `bool`: `false`), so this is for a producer that writes all of them. No system call while the memory
    /// that this process has leased has room.
    ///
    /// ```
    /// use mobula::value::TensorMut;
    ///
    /// let _mobula = mobula::init()?;
    /// let mut squares = TensorMut::<u64>::create(&[3])?;
    /// squares.as_mut_slice().copy_from_slice(&[0, 1, 4]);
    /// assert_eq!(squares.seal().as_slice(), [0, 1, 4]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ValueError::NoSession`]; [`ValueError::Store`] when the store has no room; [`ValueError::Shape`] for a shape
    /// larger than memory.
    pub fn create(shape: &[usize]) -> Result<Self, ValueError> {
        Self::create_in(&super::client()?, shape)
    }

    /// Makes one like [`create`](Self::create), in the store of `client`.
    ///
    /// ```
    /// use mobula::value::TensorMut;
    ///
    /// let session = mobula::init()?;
    /// let client = mobula::Client::connect(session.socket())?; // in another program
    /// let tensor = TensorMut::<f64>::create_in(&client, &[2, 2])?;
    /// assert_eq!(tensor.shape(), [2, 2]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ValueError::Store`] when the store has no room; [`ValueError::Shape`] for a shape larger than memory.
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

    /// A tensor of zeros in the session's store. Writes all of its memory.
    ///
    /// ```
    /// use mobula::value::TensorMut;
    ///
    /// let _mobula = mobula::init()?;
    /// let counts = TensorMut::<u32>::zeros(&[2, 3])?;
    /// assert_eq!(counts.seal().as_slice(), [0; 6]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn zeros(shape: &[usize]) -> Result<Self, ValueError> {
        Self::zeros_in(&super::client()?, shape)
    }

    /// Makes one like [`zeros`](Self::zeros), in the store of `client`.
    ///
    /// ```
    /// use mobula::value::TensorMut;
    ///
    /// let session = mobula::init()?;
    /// let counts = TensorMut::<u32>::zeros_in(&session.client(), &[2, 3])?;
    /// assert_eq!(counts.shape(), [2, 3]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`create_in`](Self::create_in).
    pub fn zeros_in(client: &Client, shape: &[usize]) -> Result<Self, ValueError> {
        let mut tensor = Self::create_in(client, shape)?;
        tensor.memory.fill(0);
        Ok(tensor)
    }

    /// The length of each axis. Empty for a single number.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// assert_eq!(mobula::value::TensorMut::<u8>::zeros(&[4, 5])?.shape(), [4, 5]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in row-major order, in place: writing to them is writing to the store.
    ///
    /// ```
    /// use mobula::value::TensorMut;
    ///
    /// let _mobula = mobula::init()?;
    /// let mut tensor = TensorMut::<i32>::zeros(&[2, 2])?;
    /// tensor.as_mut_slice()[2] = 5; // row 1, column 0
    /// assert_eq!(tensor.seal().as_slice(), [0, 0, 5, 0]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // Empty memory need not be aligned.
        if self.memory.is_empty() {
            return &mut [];
        }
        // SAFETY: all bytes are elements, or they were zeros at first and only elements were written, through this. No
        // other process can write them.
        unsafe { T::slice_mut(&mut self.memory) }
    }

    /// The elements as `ndarray` sees them, in place.
    ///
    /// ```
    /// use mobula::value::TensorMut;
    ///
    /// let _mobula = mobula::init()?;
    /// let mut tensor = TensorMut::<i32>::zeros(&[2, 2])?;
    /// tensor.view_mut()[[1, 0]] = 5;
    /// assert_eq!(tensor.seal().as_slice(), [0, 0, 5, 0]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[cfg(feature = "ndarray")]
    #[must_use]
    pub fn view_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = IxDyn(&self.shape);
        ArrayViewMutD::from_shape(shape, self.as_mut_slice()).expect("the shape was checked")
    }

    /// Makes the elements final, so that they can be shared. Copies nothing: one store makes the object visible.
    ///
    /// ```
    /// use mobula::value::{Tensor, TensorMut};
    ///
    /// let _mobula = mobula::init()?;
    /// let tensor: Tensor<bool> = TensorMut::zeros(&[2])?.seal();
    /// assert_eq!(tensor.as_slice(), [false, false]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
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
