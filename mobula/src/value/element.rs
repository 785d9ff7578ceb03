//! The elements that a [`Tensor`](super::Tensor) can hold.
//!
//! Elements lie in the store as they do in memory. In nearly all types every pattern of bits is a number, so elements
//! are used where they lie. `bool` is the exception: a byte that is neither 0 nor 1 is no `bool`, and a faulty owner
//! could write such a byte after the check. So tensors of `bool` are read from a copy.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The elements that a [`Tensor`](super::Tensor) can hold: `i8` to `i64`, `u8` to `u64`, `f32`, `f64` and `bool`; with
/// the feature `half` also `half::f16` and `half::bf16`, and with the feature `complex` also
/// `num_complex::Complex<f32>` and `num_complex::Complex<f64>`. The trait is sealed: other types cannot implement it.
///
/// ```
/// use mobula::value::{Element, Tensor};
///
/// fn count<T: Element>(tensor: &Tensor<T>, wanted: T) -> usize {
///     tensor.as_slice().iter().filter(|element| **element == wanted).count()
/// }
///
/// assert_eq!(count(&Tensor::from(vec![0, 1, 0]), 0), 2);
/// assert_eq!(count(&Tensor::from(vec![true, false]), true), 1);
/// ```
pub trait Element:
    sealed::Sealed + Copy + PartialEq + fmt::Debug + Serialize + DeserializeOwned + Send + Sync
{
    /// The type's name in payloads and messages.
    ///
    /// ```
    /// use mobula::value::Element;
    ///
    /// assert_eq!(f32::NAME, "f32");
    /// ```
    const NAME: &'static str;
}

pub(super) mod sealed {
    use bytemuck::{NoUninit, Zeroable};

    /// The bounds of another crate are here and not on `Element`, so that programs need not know them.
    pub trait Sealed: NoUninit + Zeroable {
        /// Whether every pattern of bits is an element.
        const IS_PLAIN: bool;

        /// Whether all of `bytes` are elements.
        fn are_elements(bytes: &[u8]) -> bool;

        /// # Safety
        ///
        /// [`are_elements`](Self::are_elements) must hold for `bytes` as long as they are borrowed.
        ///
        /// # Panics
        ///
        /// If `bytes` are not aligned, or not a whole number of elements.
        unsafe fn slice(bytes: &[u8]) -> &[Self];

        /// # Safety
        ///
        /// As of [`slice`](Self::slice).
        ///
        /// # Panics
        ///
        /// As [`slice`](Self::slice).
        unsafe fn slice_mut(bytes: &mut [u8]) -> &mut [Self];
    }
}

macro_rules! plain_elements {
    ($($element:ty: $name:literal;)*) => {$(
        impl Element for $element {
            const NAME: &'static str = $name;
        }

        impl sealed::Sealed for $element {
            const IS_PLAIN: bool = true;

            fn are_elements(_bytes: &[u8]) -> bool {
                true
            }

            unsafe fn slice(bytes: &[u8]) -> &[Self] {
                bytemuck::cast_slice(bytes)
            }

            unsafe fn slice_mut(bytes: &mut [u8]) -> &mut [Self] {
                bytemuck::cast_slice_mut(bytes)
            }
        }
    )*};
}

plain_elements! {
    i8: "i8";
    i16: "i16";
    i32: "i32";
    i64: "i64";
    u8: "u8";
    u16: "u16";
    u32: "u32";
    u64: "u64";
    f32: "f32";
    f64: "f64";
}

#[cfg(feature = "half")]
plain_elements! {
    half::f16: "f16";
    half::bf16: "bf16";
}

#[cfg(feature = "complex")]
plain_elements! {
    num_complex::Complex<f32>: "complex64";
    num_complex::Complex<f64>: "complex128";
}

impl Element for bool {
    const NAME: &'static str = "bool";
}

impl sealed::Sealed for bool {
    const IS_PLAIN: bool = false;

    fn are_elements(bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| *byte <= 1)
    }

    unsafe fn slice(bytes: &[u8]) -> &[Self] {
        // SAFETY: a `bool` is a byte that is 0 or 1, and the caller says that these are, for as long as the borrow.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }

    unsafe fn slice_mut(bytes: &mut [u8]) -> &mut [Self] {
        // SAFETY: as in `slice`; what is written through the slice are `bool`s again.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }
}
