//! Values of every kind that is read from the store, and the checks that each of them must pass although its owner
//! changes its bytes meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;

use arrow_cast::display::{ArrayFormatter, FormatOptions};
use mobula::arrow::array::*;
use mobula::arrow::buffer::OffsetBuffer;
use mobula::arrow::datatypes::*;
use mobula::value::{Arrow, Bytes, Encoded, Source, Tensor, ValueError, decode, encode};
use mobula_client::{Client, ClientError, Layout, Object};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of value: how to make one, and how to read it.
pub struct Carrier {
    /// The name of the kind.
    pub name: &'static str,
    encode: fn() -> Encoded,
    read: fn(Source) -> Result<(), ValueError>,
    is_whole: fn(Source) -> bool,
}

macro_rules! carrier {
    ($name:literal, $make:expr, $check:expr) => {
        Carrier {
            name: $name,
            encode: || encode(&$make()).expect("it can be written"),
            read: |source| read(source, $check),
            is_whole: |source| is_whole(source, $make),
        }
    };
}
/// Every kind.
pub const CARRIERS: [Carrier; 22] = [
    carrier!("a string", string, |read: &String| check_text(read)),
    carrier!("strings", strings, |read: &Vec<String>| read.iter().for_each(|text| check_text(text))),
    carrier!("characters", characters, |read: &Vec<char>| check_text(&read.iter().collect::<String>())),
    carrier!("a map", map, |read: &BTreeMap<String, Vec<u8>>| read.keys().for_each(|text| check_text(text))),
    carrier!("numbers", numbers, |_: &Vec<f64>| {}),
    carrier!("checked numbers", checked_numbers, |read: &Vec<NonZeroU32>| {
        assert!(read.iter().all(|number| std::hint::black_box(number.get()) != 0));
    }),
    carrier!("bytes", || Bytes::from(vec![7; 3000]), |_: &Bytes| {}),
    carrier!("a tensor", tensor, |read: &Tensor<f64>| assert_eq!(read.view().len(), 600)),
    carrier!("text", text, check_array),
    carrier!("large text", || cast(text(), DataType::LargeUtf8), check_array),
    carrier!("views", || cast(text(), DataType::Utf8View), check_array),
    carrier!("binary", || cast(text(), DataType::Binary), check_array),
    carrier!("binary views", || cast(text(), DataType::BinaryView), check_array),
    carrier!("a dictionary", || cast(text(), dictionary()), check_array),
    carrier!("lists", lists, check_array),
    carrier!("list views", list_views, check_array),
    carrier!("a sparse union", || union(None), check_array),
    carrier!("a dense union", || union(Some((0..ROWS).rev().collect())), check_array),
    carrier!("runs", runs, check_array),
    carrier!("maps", maps, check_array),
    carrier!(
        "booleans",
        || arrow(BooleanArray::from_iter((0..ROWS).map(|i| (i % 3 > 0).then_some(i % 2 > 0)))),
        check_array
    ),
    carrier!("a table", table, |read: &Arrow<RecordBatch>| read.columns().iter().for_each(check_column)),
];

impl Carrier {
    /// Puts one.
    ///
    /// # Errors
    /// The client's.
    pub fn put(&self, client: &Client) -> Result<Object, ClientError> {
        let encoded = (self.encode)();
        let layout = Layout::new(encoded.len() as u64).format(encoded.format());
        let mut writer = client.create(layout)?;
        encoded.write_into(&mut writer);
        Ok(writer.seal())
    }

    /// Reads one, and looks at it.
    ///
    /// # Errors
    /// That of the value.
    ///
    /// # Panics
    /// When what was read is not sound.
    pub fn read(&self, object: Object) -> Result<(), ValueError> {
        (self.read)(Source::object(object, vec![]))
    }

    /// Whether one is as it was put.
    pub fn is_whole(&self, object: Object) -> bool {
        (self.is_whole)(Source::object(object, vec![]))
    }
}

/// How often a value is looked at after it was read.
const LOOKS: usize = 3;

fn read<T: Serialize + DeserializeOwned>(source: Source, check: impl Fn(&T)) -> Result<(), ValueError> {
    let value: T = decode(source)?;
    (0..LOOKS).for_each(|_| check(&value));
    // It goes on by reference, and comes back, or not, since that reads what lies there once more.
    let encoded = encode(&value)?;
    let again = decode::<T>(Source::heap(encoded.to_vec(), encoded.references().to_vec()))?;
    check(&again);
    Ok(())
}

fn is_whole<T: DeserializeOwned + PartialEq>(source: Source, make: impl FnOnce() -> T) -> bool {
    decode::<T>(source).is_ok_and(|value| value == make())
}

fn check_text(text: &str) {
    let checked = std::str::from_utf8(std::hint::black_box(text.as_bytes()));
    assert!(checked.is_ok(), "text that is none: {checked:?}");
}

fn check_array(array: &Arrow<ArrayRef>) {
    check_column(array);
}

/// All that Arrow takes for granted is still true, and every row can be looked at.
fn check_column(array: &ArrayRef) {
    array.to_data().validate_full().expect("valid when it was read, and still");
    let options = FormatOptions::default();
    let rows = ArrayFormatter::try_new(array, &options).expect("every type can be shown");
    let mut text = String::new();
    for row in 0..array.len() {
        let _ = write!(text, "{}", rows.value(row));
    }
    check_text(&text);
}

const ROWS: i32 = 60;

fn texts() -> impl Iterator<Item = Option<String>> {
    (0..ROWS).map(|i| (i % 5 > 0).then(|| format!("{i} ü{}", "ä long text ".repeat(i as usize % 4))))
}

/// Large enough to lie beside the stream.
fn string() -> String {
    strings().concat().repeat(8)
}

/// Numbers that are checked when they are read.
fn checked_numbers() -> Vec<NonZeroU32> {
    (1..2000).filter_map(NonZeroU32::new).collect()
}

fn strings() -> Vec<String> {
    texts().flatten().collect()
}

fn characters() -> Vec<char> {
    string().chars().collect()
}

fn map() -> BTreeMap<String, Vec<u8>> {
    strings().into_iter().map(|text| (text.clone(), text.into_bytes())).collect()
}

fn numbers() -> Vec<f64> {
    (0..1000).map(f64::from).collect()
}

fn tensor() -> Tensor<f64> {
    Tensor::from_shape_vec(&[3, 10, 20], (0..600).map(f64::from).collect()).expect("the shape fits")
}

fn arrow(array: impl Array + 'static) -> Arrow<ArrayRef> {
    Arrow::from(Arc::new(array) as ArrayRef)
}

fn text() -> Arrow<ArrayRef> {
    arrow(texts().collect::<StringArray>())
}

fn dictionary() -> DataType {
    DataType::Dictionary(DataType::Int16.into(), DataType::Utf8.into())
}

fn cast(array: Arrow<ArrayRef>, to: DataType) -> Arrow<ArrayRef> {
    Arrow::from(arrow_cast::cast(&*array, &to).expect("there is such a cast"))
}

fn item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Utf8, true))
}

fn lists() -> Arrow<ArrayRef> {
    let lengths = (0..ROWS as usize).map(|i| i % 2 * 2);
    arrow(ListArray::new(item(), OffsetBuffer::from_lengths(lengths), text().into_inner(), None))
}

fn list_views() -> Arrow<ArrayRef> {
    let offsets = (0..ROWS).rev().collect::<Vec<i32>>();
    arrow(ListViewArray::new(
        item(),
        offsets.into(),
        vec![1; ROWS as usize].into(),
        text().into_inner(),
        None,
    ))
}

fn union(offsets: Option<Vec<i32>>) -> Arrow<ArrayRef> {
    let number = Arc::new(Field::new("number", DataType::Int64, true));
    let fields: UnionFields = [(0, number), (3, item())].into_iter().collect();
    let children =
        vec![Arc::new(Int64Array::from_iter_values(0..i64::from(ROWS))) as ArrayRef, text().into_inner()];
    let type_ids = (0..ROWS).map(|i| [0, 3][i as usize % 2]).collect::<Vec<i8>>();
    let array = UnionArray::try_new(fields, type_ids.into(), offsets.map(Into::into), children);
    arrow(array.expect("children of that many rows"))
}

fn runs() -> Arrow<ArrayRef> {
    let mut runs = StringRunBuilder::<Int32Type>::new();
    texts().for_each(|text| (0..3).for_each(|_| runs.append_option(text.as_ref())));
    arrow(runs.finish())
}

fn maps() -> Arrow<ArrayRef> {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for i in 0..ROWS {
        (0..i % 3).for_each(|key| {
            maps.keys().append_value(format!("key {key}"));
            maps.values().append_value(i64::from(i));
        });
        maps.append(i % 7 > 0).expect("as many keys as values");
    }
    arrow(maps.finish())
}

fn table() -> Arrow<RecordBatch> {
    let numbers: ArrayRef =
        Arc::new(Float64Array::from_iter((0..ROWS).map(|i| (i % 4 > 0).then_some(f64::from(i)))));
    let columns = [
        ("text", text().into_inner()),
        ("category", cast(text(), dictionary()).into_inner()),
        ("view", cast(text(), DataType::Utf8View).into_inner()),
        ("number", numbers),
    ];
    Arrow::from(RecordBatch::try_from_iter(columns).expect("columns of one length"))
}
