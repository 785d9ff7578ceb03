//! Tensors of every element and shape. If this fails, a mask has bytes that are no `bool`, or half-precision weights
//! change on their way.

use ndarray::{Array2, arr2};

use super::store::{Store, get, put};
use super::{aligned, assert_within, from_heap, payload};
use crate::value::{Element, Tensor, TensorMut, ValueError, encode};

#[track_caller]
fn check<T: Element>(elements: [T; 6]) {
    let store = Store::start();
    let other = store.another_client();
    for shape in [&[6][..], &[2, 3], &[1, 3, 2, 1]] {
        let tensor = Tensor::from_shape_vec(shape, elements.to_vec()).unwrap();
        assert_eq!(from_heap::<Tensor<T>>(payload(&tensor)).unwrap(), tensor);
        let object = put(&store, &tensor);
        let read: Tensor<T> = get(&other, &object).unwrap();
        assert_eq!((&read, read.object_id()), (&tensor, Some(object.id())));
        assert_eq!(read.view().shape(), shape);
        assert_eq!(encode(&read).unwrap().copied_bytes(), 0);
    }
    // The same in other formats, from memory that is not aligned, and with one number, or none.
    let tensor = Tensor::from(elements.to_vec());
    assert_eq!((tensor.shape(), tensor.as_slice()), (&[6][..], &elements[..]));
    assert_eq!(serde_json::from_str::<Tensor<T>>(&serde_json::to_string(&tensor).unwrap()).unwrap(), tensor);
    let shifted = bytes::Bytes::from([&[0], &payload(&tensor)[..]].concat()).slice(1..);
    assert_eq!(from_heap::<Tensor<T>>(shifted).unwrap(), tensor);
    let scalar = Tensor::from_shape_vec(&[], vec![elements[0]]).unwrap();
    let back: Tensor<T> = from_heap(payload(&scalar)).unwrap();
    assert_eq!((back.view()[[]], back.shape()), (elements[0], &[][..]));
    let none = Tensor::<T>::from(vec![]);
    assert_eq!(
        (from_heap::<Tensor<T>>(payload(&none)).unwrap().shape(), none.as_slice()),
        (&[0][..], &[][..])
    );
    let flat = Tensor::<T>::from_shape_vec(&[3, 0, 2], vec![]).unwrap();
    assert_eq!(from_heap::<Tensor<T>>(payload(&flat)).unwrap(), flat);

    let mut filled = TensorMut::<T>::create_in(&store, &[2, 3]).unwrap();
    filled.view_mut().iter_mut().zip(elements).for_each(|(place, element)| *place = element);
    let filled = filled.seal();
    assert_eq!(filled.as_slice(), elements);
    assert_eq!(encode(&filled).unwrap().copied_bytes(), 0);
    for shape in [
        &[usize::MAX, 2][..],
        &[1 << 63, 0],
        &[isize::MAX as usize / size_of::<T>() + 1],
        &[1 << 32, 1 << 32],
    ] {
        let refused = Tensor::<T>::from_shape_vec(shape, vec![]);
        assert!(matches!(refused, Err(ValueError::Shape { .. })), "{shape:?}");
        assert!(
            matches!(TensorMut::<T>::create_in(&store, shape), Err(ValueError::Shape { .. })),
            "{shape:?}"
        );
    }
}

#[test]
fn numbers_come_back() {
    check([i8::MIN, -1, 0, 1, 2, i8::MAX]);
    check([f64::MIN, -0.0, f64::MIN_POSITIVE, 1.5, f64::MAX, f64::EPSILON]);
    check([u64::MAX, 1 << 63, 2, 1, 0, 9]);
}

#[test]
fn masks_come_back() {
    check([true, false, false, true, true, false]);
    let mask = Tensor::from(arr2(&[[true, false], [false, true]]));
    assert_eq!(Array2::from_shape_fn((2, 2), |(i, j)| i == j).into_dyn(), mask.view());
    let store = Store::start();
    assert!(
        TensorMut::<bool>::create_in(&store, &[1000]).unwrap().as_mut_slice().iter().all(|element| !element)
    );
}

#[test]
fn a_byte_that_is_no_bool_is_refused() {
    let mask = Tensor::from(vec![true; 100]);
    let honest = payload(&mask);
    for byte in [2, 0x80, 0xff] {
        let mut forged = honest.to_vec();
        *forged.last_mut().unwrap() = byte;
        let error = from_heap::<Tensor<bool>>(aligned(&forged)).unwrap_err();
        assert!(matches!(error, ValueError::Elements { element: "bool" }), "{error}");
    }
}

#[test]
fn only_masks_are_copied() {
    let store = Store::start();
    let other = store.another_client();
    let object = put(&store, &(Tensor::from(vec![true; 100]), Tensor::from(vec![7_u8; 100])));
    let (mask, numbers): (Tensor<bool>, Tensor<u8>) = get(&other, &object).unwrap();
    assert_within(numbers.as_slice(), &other.get(object.id()).unwrap());
    super::wild::scribble(&object, 0xff);
    assert_eq!((mask.as_slice(), numbers.as_slice()), (&[true; 100][..], &[0xff; 100][..]));
}

#[cfg(feature = "half")]
#[test]
fn half_precision_comes_back() {
    use half::{bf16, f16};
    check([f16::MIN, f16::MAX, f16::EPSILON, f16::NEG_ZERO, f16::INFINITY, f16::from_f32(1.5)]);
    check([bf16::MIN, bf16::MAX, bf16::EPSILON, bf16::NEG_ZERO, bf16::INFINITY, bf16::from_f32(1.5)]);
    let bits = Tensor::from(vec![f16::from_bits(0x7e01), f16::from_bits(0xfdff)]);
    let back: Tensor<f16> = from_heap(payload(&bits)).unwrap();
    assert_eq!(back.as_slice().iter().map(|number| number.to_bits()).collect::<Vec<_>>(), [0x7e01, 0xfdff]);
    is_refused::<f16, bf16>();
    is_refused::<u16, f16>();
}

#[cfg(feature = "complex")]
#[test]
fn complex_numbers_come_back() {
    use num_complex::Complex;
    check(
        [(0.0, 1.0), (-0.0, 2.0), (1.5, -1.5), (f32::MAX, f32::MIN), (3.0, 4.0), (0.5, 0.25)]
            .map(|(re, im)| Complex { re, im }),
    );
    check(
        [(0.0, 1.0), (-0.0, 2.0), (1.5, -1.5), (f64::MAX, f64::MIN), (3.0, 4.0), (0.5, 0.25)]
            .map(|(re, im)| Complex { re, im }),
    );
    assert_eq!(Tensor::from(vec![Complex::new(3.0_f64, 4.0)]).view().sum(), Complex::new(3.0, 4.0));
    is_refused::<Complex<f32>, f64>();
}

/// Elements of another type are refused, also where they are as long.
#[cfg(any(feature = "half", feature = "complex"))]
fn is_refused<T: Element, U: Element>() {
    let tensor = payload(&Tensor::from(vec![T::zeroed(); 3]));
    assert!(matches!(from_heap::<Tensor<U>>(tensor), Err(ValueError::WrongType { .. })));
}
