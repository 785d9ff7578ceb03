//! Lists of numbers, which are written as numbers: several times as fast as a pickle of them is written and read.

use pyo3::PyTypeInfo;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyList};

use super::kind;

/// A shorter list is pickled.
const LENGTH_MIN: usize = 16;

/// A list of which all elements are `int`, or all are `float`, as its kind and its numbers. `None`: it is another list,
/// or a short one, or has a number of more than 64 bits.
pub(super) fn pack(list: &Bound<'_, PyList>) -> Option<(u8, Vec<u8>)> {
    if list.len() < LENGTH_MIN {
        return None;
    }
    let first = list.get_item(0).ok()?;
    if first.is_exact_instance_of::<PyInt>() {
        let numbers = elements::<PyInt, i64>(list, |number| number.extract().ok())?;
        // Most numbers are small.
        let narrow = numbers.iter().map(|number| i32::try_from(*number)).collect::<Result<Vec<_>, _>>();
        Some(match narrow {
            Ok(narrow) => {
                (kind::NARROW_INTS, narrow.iter().flat_map(|number| number.to_le_bytes()).collect())
            }
            Err(_) => (kind::INTS, numbers.iter().flat_map(|number| number.to_le_bytes()).collect()),
        })
    } else if first.is_exact_instance_of::<PyFloat>() {
        let numbers = elements::<PyFloat, f64>(list, |number| Some(number.value()))?;
        Some((kind::FLOATS, numbers.iter().flat_map(|number| number.to_le_bytes()).collect()))
    } else {
        None
    }
}

/// The elements of a list, if all are of this very class.
fn elements<T: PyTypeInfo, N>(
    list: &Bound<'_, PyList>,
    number: impl Fn(&Bound<'_, T>) -> Option<N>,
) -> Option<Vec<N>> {
    list.iter().map(|item| number(item.cast_exact::<T>().ok()?)).collect()
}

/// The list that was packed. `None`: the numbers are cut short.
pub(super) fn unpack<'py>(py: Python<'py>, kind: u8, numbers: &[u8]) -> Option<PyResult<Bound<'py, PyList>>> {
    Some(match kind {
        kind::NARROW_INTS => {
            let numbers = whole::<4>(numbers)?;
            PyList::new(py, numbers.iter().map(|bytes| i32::from_le_bytes(*bytes)))
        }
        kind::INTS => PyList::new(py, whole::<8>(numbers)?.iter().map(|bytes| i64::from_le_bytes(*bytes))),
        _ => PyList::new(py, whole::<8>(numbers)?.iter().map(|bytes| f64::from_le_bytes(*bytes))),
    })
}

fn whole<const BYTES: usize>(numbers: &[u8]) -> Option<&[[u8; BYTES]]> {
    let (numbers, rest) = numbers.as_chunks::<BYTES>();
    rest.is_empty().then_some(numbers)
}
