//! Values whose payload, or whose buffers, lie in the store. If this fails, reading from the store copies, passing a
//! value on copies it again, or memory is freed while somebody still looks at it.

use std::sync::Arc;
use std::thread;

use crate::arrow::array::{ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, StringArray};
use crate::arrow::datatypes::{Int32Type, Int64Type, Schema};
use mobula_client::Layout;

use super::store::{Store, get, put, put_encoded};
use super::{addresses, aligned, assert_within};
use crate::value::region::listed_within;
use crate::value::{
    Arrow, Bytes, BytesMut, Reference, Source, Tensor, TensorMut, ValueError, decode, encode, format,
};

#[test]
fn reading_borrows_from_the_object() {
    let store = Store::start();
    let object = put(
        &store,
        &(Bytes::from(vec![1; 999]), Tensor::from_shape_vec(&[3, 5], vec![2.0_f64; 15]).unwrap()),
    );
    let (bytes, tensor): (Bytes, Tensor<f64>) = get(&store, &object).unwrap();
    assert_within(&bytes, &object);
    assert_within(tensor.as_slice(), &object);
    assert_eq!(tensor.as_slice().as_ptr().addr() % 64, 0);
    assert_eq!((bytes.object_id(), tensor.object_id()), (Some(object.id()), Some(object.id())));
}

#[test]
fn another_process_reads_in_place_too() {
    let store = Store::start();
    let other = store.another_client();
    let tensor = Tensor::from_shape_vec(&[1000], (0..1000).collect::<Vec<i32>>()).unwrap();
    let first = put(&store, &tensor);
    // A value that the other client has read goes on, also to its origin, as the one object that it is.
    let seen: Tensor<i32> = get(&other, &first).unwrap();
    assert_eq!((&seen, seen.object_id()), (&tensor, Some(first.id())));
    assert_ne!(addresses(seen.as_slice()), addresses(&first));
    let second = put(&other, &vec![seen.clone(), seen]);
    let [back, again] = &get::<Vec<Tensor<i32>>>(&store, &second).unwrap()[..] else { panic!("two tensors") };
    assert_within(back.as_slice(), &first);
    assert_eq!((back, addresses(back.as_slice())), (&tensor, addresses(again.as_slice())));
}

#[test]
fn what_lies_in_the_store_goes_on_by_reference() {
    let store = Store::start();
    let texts = StringArray::from_iter_values((0..100).map(|i| format!("row {i}")));
    let numbers = ListArray::from_iter_primitive::<Int32Type, _, _>((0..100).map(|i| Some(vec![Some(i); 3])));
    let columns: [(&str, ArrayRef); 2] = [("text", Arc::new(texts)), ("number", Arc::new(numbers))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let first = put(&store, &(Arrow::from(batch.clone()), Bytes::from(vec![7; 500])));
    let (table, bytes): (Arrow<RecordBatch>, Bytes) = get(&store, &first).unwrap();

    // A slice goes by reference too, also after it has been through another crate's types.
    let slice = table.slice(40, 20);
    let bytes = Bytes::from(bytes::Bytes::from(bytes).slice(100..));
    let encoded = encode(&(Arrow::from(slice), vec![Some(bytes)])).unwrap();
    assert_eq!(encoded.copied_bytes(), 0);
    assert_eq!(encoded.references().iter().map(|handle| handle.id()).collect::<Vec<_>>(), [first.id()]);

    let second = put_encoded(&store, &encoded, format::PLAIN);
    assert_eq!(second.references(), [first.id()]);
    let (table, bytes): (Arrow<RecordBatch>, Vec<Option<Bytes>>) = get(&store, &second).unwrap();
    assert_eq!(*table, batch.slice(40, 20));
    // Numbers lie where they were put; text is read from a copy.
    let numbers: &ListArray = table.column(1).as_list();
    assert_within(numbers.values().as_primitive::<Int32Type>().values(), &first);
    let bytes = bytes[0].as_ref().unwrap();
    assert_eq!((&bytes[..], bytes.object_id()), (&[7; 400][..], Some(first.id())));
    assert_within(bytes, &first);
    // The third hop goes to the first object, not through the second.
    let third = encode(&(table, bytes)).unwrap();
    assert_eq!((third.copied_bytes(), third.references()[0].id()), (0, first.id()));
}

#[test]
fn what_was_filled_in_place_is_never_copied() {
    let store = Store::start();
    let mut bytes = BytesMut::create_in(&store, 1000).unwrap();
    bytes.fill(3);
    let place = addresses(&bytes);
    let bytes = bytes.seal();
    let mut tensor = TensorMut::<i32>::zeros_in(&store, &[10, 10]).unwrap();
    tensor.view_mut()[[4, 2]] = 42;
    assert_eq!(tensor.as_mut_slice().len(), 100);
    let tensor = tensor.seal();

    let encoded = encode(&(&bytes, &tensor)).unwrap();
    assert_eq!((encoded.copied_bytes(), encoded.references().len()), (0, 2));
    let encoded = encode(&(bytes.clone(), tensor.clone())).unwrap();
    let object = put_encoded(&store, &encoded, format::PLAIN);
    let (read_bytes, read_tensor): (Bytes, Tensor<i32>) = get(&store, &object).unwrap();
    // The owner reads it through the same mapping.
    assert_eq!(addresses(&read_bytes), place);
    assert_eq!(read_tensor, tensor);
    assert_eq!(read_tensor.view()[[4, 2]], 42);
    assert_eq!(read_tensor.object_id(), tensor.object_id());
}

#[test]
fn writable_carriers_need_a_session() {
    assert!(matches!(BytesMut::create(10), Err(ValueError::NoSession)));
    assert!(matches!(TensorMut::<f32>::create(&[1]), Err(ValueError::NoSession)));
    let store = Store::start();
    let bytes = TensorMut::<u8>::zeros_in(&store, &[3, 0, 2]).unwrap().seal();
    assert_eq!(bytes.shape(), [3, 0, 2]);
    assert_eq!(BytesMut::create_in(&store, 10).unwrap().len(), 10);
    assert!(matches!(TensorMut::<f32>::create_in(&store, &[usize::MAX, 2]), Err(ValueError::Shape { .. })));
}

#[test]
fn plain_objects_read_as_bytes_only() {
    let store = Store::start();
    let mut writer = store.create(Layout::new(100).format(format::RAW)).unwrap();
    writer.fill(9);
    let object = writer.seal();
    let bytes: Bytes = get(&store, &object).unwrap();
    assert_eq!(addresses(&bytes), addresses(&object));
    assert_eq!(encode(&bytes).unwrap().copied_bytes(), 0);
    let error = get::<Tensor<f32>>(&store, &object).unwrap_err();
    assert!(matches!(error, ValueError::WrongType { .. }), "{error}");

    let encoded = encode(&1).unwrap();
    for format in [format::RAISED, format::FORWARD, format::PYTHON, 77] {
        let error = get::<i32>(&store, &put_encoded(&store, &encoded, format)).unwrap_err();
        assert!(matches!(error, ValueError::NotAValue { format: found } if found == format), "{error}");
    }
}

#[test]
fn tags_say_what_a_payload_is() {
    let tensor = Tensor::from_shape_vec(&[2], vec![1_u8, 2]).unwrap();
    assert_eq!(encode(&tensor).unwrap().format(), format::TENSOR);
    assert_eq!(encode(&(tensor.clone(), 1)).unwrap().format(), format::PLAIN);
    assert_eq!(encode(&vec![tensor]).unwrap().format(), format::PLAIN);
    assert_eq!(encode(&Arrow::from(Int64Array::from(vec![1]))).unwrap().format(), format::ARROW);
    assert_eq!(
        encode(&Arrow::from(RecordBatch::new_empty(Arc::new(Schema::empty())))).unwrap().format(),
        format::ARROW
    );
    assert_eq!(encode(&Bytes::new()).unwrap().format(), format::PLAIN);
    assert_eq!(encode("text").unwrap().format(), format::PLAIN);
}

#[test]
fn carriers_keep_their_memory_and_let_it_go() {
    let store = Store::start();
    let object = put(&store, &(Arrow::from(Int64Array::from_iter_values(0..100)), Bytes::from(vec![1; 100])));
    let place = addresses(&object);
    let (id, numbers, bytes) = {
        let (numbers, bytes): (Arrow<Int64Array>, Bytes) = get(&store, &object).unwrap();
        (object.id(), numbers.into_inner(), bytes)
    };
    drop(object);
    assert_eq!(listed_within(place.clone()), 1);
    drop(bytes);
    // The buffer of a single column, in another array by now, is enough.
    let reversed: ArrayRef = Arc::new(numbers.slice(50, 50));
    drop(numbers);
    assert_eq!(store.get(id).map(|object| object.id()).unwrap(), id);
    assert_eq!(reversed.as_primitive::<Int64Type>().value(49), 99);
    assert_eq!(encode(&Arrow::from(reversed.clone())).unwrap().copied_bytes(), 0);
    drop(reversed);
    assert_eq!(listed_within(place), 0);
}

#[test]
fn threads_lend_and_let_go_at_once() {
    let store = Store::start();
    let object = put(&store, &Arrow::from(Int64Array::from_iter_values(0..100)));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let numbers: Arrow<Int64Array> = get(&store, &object).unwrap();
                    let again = encode(&numbers).unwrap();
                    drop(numbers);
                    assert_eq!(again.copied_bytes(), 0);
                }
            });
        }
    });
    assert_eq!(listed_within(addresses(&object)), 0);
}

#[test]
fn forged_external_places_are_refused() {
    use crate::value::payload::BufferRecord;

    let store = Store::start();
    let bytes = BytesMut::create_in(&store, 100).unwrap().seal();
    let encoded = encode(&bytes).unwrap();
    let references = encoded.references().to_vec();
    for (offset, length) in [(100, 1), (0, 101), (u64::MAX, 2), (2, u64::MAX)] {
        let mut forged = encoded.to_vec();
        BufferRecord { offset, length, reference: Some(0) }.write(&mut forged, 0);
        let error = decode::<Bytes>(Source::heap(aligned(&forged), references.clone())).unwrap_err();
        assert!(matches!(error, ValueError::BufferOutOfBounds { available: 100, .. }), "{error}");
    }
    let error = decode::<Bytes>(Source::heap(encoded.to_vec(), vec![])).unwrap_err();
    assert!(matches!(error, ValueError::NoSuchReference { reference: 0, count: 0 }), "{error}");
}

#[test]
fn references_of_others_share_the_list() {
    let store = Store::start();
    let bytes = BytesMut::create_in(&store, 10).unwrap().seal();
    let (one, two) = (put(&store, &1), put(&store, &2));
    let value = vec![
        (Reference(one.handle()), bytes.clone()),
        (Reference(two.handle()), bytes.clone()),
        (Reference(one.handle()), bytes.slice(1..)),
    ];
    let encoded = encode(&value).unwrap();
    let ids: Vec<_> = encoded.references().iter().map(|handle| handle.id()).collect();
    assert_eq!(ids, [one.id(), bytes.object_id().unwrap(), two.id()]);
    let back: Vec<(Reference, Bytes)> =
        decode(Source::heap(encoded.to_vec(), encoded.references().to_vec())).unwrap();
    assert_eq!(
        back.iter().map(|(reference, _)| reference.0.id()).collect::<Vec<_>>(),
        [one.id(), two.id(), one.id()]
    );
    // Nothing but a payload can hold a reference, also while a value is being written.
    let error = serde_json::to_string(&Reference(one.handle())).unwrap_err();
    assert!(error.to_string().contains("only be sent through mobula"), "{error}");
    let error = serde_json::from_str::<Reference>("[0]").unwrap_err();
    assert!(error.to_string().contains("only mobula can read"), "{error}");
}
