//! Lists of numbers. They are written and read in one piece, at about the speed of a copy.
//!
//! `serde` gives a list element by element, and does not tell the type of the elements. But code that writes the list
//! with [`collect_seq`](serde::Serializer::collect_seq), as all collections of the standard library do, passes an
//! iterator, and the compiler knows the type of its items. If they are numbers, their bytes are copied as one block.

use std::any::TypeId;

use bytemuck::Pod;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::Error;
use super::error::Step;

// Buffers and streams are little-endian, and written as the numbers lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "payloads are little-endian");

/// A number that a list may be made of.
pub(super) trait Number: Pod + Send {
    /// The letter that it has in the stream.
    const CODE: u8;

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error>;
}

macro_rules! numbers {
    ($($number:ty, $as:ty, $code:literal, $visit:ident;)*) => {
        $(
            impl Number for $number {
                const CODE: u8 = $code;

                #[inline(always)]
                fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
                    visitor.$visit(self as $as)
                }
            }
        )*

        /// Hands `items` on as numbers, if they are references to some.
        #[inline]
        pub(super) fn dispatch<I: Iterator, R: Receiver>(items: I, receiver: R) -> Result<R::Output, (I, R)> {
            let item = typeid::of::<I::Item>();
            $(
                if item == TypeId::of::<&'static $number>() {
                    return Ok(receiver.receive(items.map(|item| {
                        // SAFETY: the item is a `&$number`, since it has the same type id but for lifetimes; it is
                        // copied out of the reference while it is alive, and a reference has no destructor to run
                        // twice.
                        unsafe { *std::mem::transmute_copy::<I::Item, &$number>(&item) }
                    })));
                }
            )*
            Err((items, receiver))
        }

        /// Hands the visitor a list of the numbers that `bytes` are.
        pub(super) fn visit<'de, V: Visitor<'de>>(code: u8, bytes: &[u8], visitor: V) -> Result<V::Value, Error> {
            // Of two types of the same letter, the first is met: both are read alike.
            $(
                if code == $code {
                    return visit_list::<$number, V>(bytes, visitor);
                }
            )*
            Err(Error::new(format!("a list of numbers of the unknown kind {code:#04x}")))
        }
    };
}

numbers! {
    u8, u8, b'B', visit_u8;
    i8, i8, b'b', visit_i8;
    u16, u16, b'H', visit_u16;
    i16, i16, b'h', visit_i16;
    u32, u32, b'I', visit_u32;
    i32, i32, b'i', visit_i32;
    u64, u64, b'Q', visit_u64;
    i64, i64, b'q', visit_i64;
    f32, f32, b'f', visit_f32;
    f64, f64, b'd', visit_f64;
    usize, u64, b'Q', visit_u64;
    isize, i64, b'q', visit_i64;
}

/// Takes numbers, of any type.
pub(super) trait Receiver {
    type Output;

    fn receive<N: Number>(self, numbers: impl Iterator<Item = N>) -> Self::Output;
}

/// Hands the visitor a list of the numbers that `bytes` are. Their owner may write them meanwhile, so each is loaded
/// once: the visitor keeps the value that it checks.
fn visit_list<'de, N: Number, V: Visitor<'de>>(bytes: &[u8], visitor: V) -> Result<V::Value, Error> {
    if !bytes.len().is_multiple_of(size_of::<N>()) {
        let name = std::any::type_name::<N>();
        return Err(Error::new(format!("{} bytes are no whole number of {name}", bytes.len())));
    }
    match bytemuck::try_cast_slice::<u8, N>(bytes) {
        Ok(numbers) => List::visit(numbers.iter().map(load_once), visitor),
        Err(_) => {
            let load = |bytes| {
                let mut number = N::zeroed();
                mobula_client::internal::copy_once(bytemuck::bytes_of_mut(&mut number), bytes);
                number
            };
            List::visit(bytes.chunks_exact(size_of::<N>()).map(load), visitor)
        }
    }
}

#[inline(always)]
fn load_once<N: Number>(number: &N) -> N {
    // SAFETY: a reference is readable and aligned, and every value of its bytes is a number. A volatile load is done
    // exactly once. If there is a writer, it is another process, so its stores race with nothing of this program's.
    unsafe { std::ptr::from_ref(number).read_volatile() }
}

/// A list being read.
struct List<I> {
    numbers: I,
    length: usize,
}

impl<N: Number, I: ExactSizeIterator<Item = N>> List<I> {
    fn visit<'de, V: Visitor<'de>>(numbers: I, visitor: V) -> Result<V::Value, Error> {
        let mut list = Self { length: numbers.len(), numbers };
        let value = visitor.visit_seq(&mut list)?;
        match list.numbers.len() {
            0 => Ok(value),
            left => Err(Error::new(format!("a list has {left} elements more than are read"))),
        }
    }
}

impl<'de, N: Number, I: ExactSizeIterator<Item = N>> SeqAccess<'de> for List<I> {
    type Error = Error;

    #[inline(always)]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(number) = self.numbers.next() else { return Ok(None) };
        match seed.deserialize(Element(number)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(error.at(Step::Index(self.length - self.numbers.len() - 1), None)),
        }
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.numbers.len())
    }
}

/// An element of such a list.
struct Element<N>(N);

impl<'de, N: Number> Deserializer<'de> for Element<N> {
    type Error = Error;

    #[inline(always)]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.visit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
