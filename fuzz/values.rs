//! The type that `decode_value` decodes to: each carrier once, among ordinary fields. And the objects that its payloads
//! can refer to.
//!
//! A payload names its type, so the seeds must be written of the same one that the target reads: that is why it has a
//! place of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use mobula::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use mobula::fuzzing::Reference;
use mobula::value::{Arrow, Bytes, Encoded, Source, Tensor, ValueError, decode, encode, format};
use mobula_client::{Client, Handle, Layout, Object};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::store;

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Victim {
    /// Text in the stream.
    pub name: String,
    /// A container in the stream.
    pub numbers: BTreeMap<u8, i64>,
    /// A buffer of any length and alignment.
    pub bytes: Bytes,
    /// A buffer whose length must fit a shape.
    pub tensor: Tensor<f64>,
    /// Any number of buffers.
    pub more: Vec<Option<Tensor<u16>>>,
    /// An array of any type.
    pub array: Arrow<ArrayRef>,
    /// Columns of any types, and of one length.
    pub batch: Arrow<RecordBatch>,
    /// Numbers in one piece, in the stream or beside it.
    pub floats: Vec<f32>,
    /// `Some`s around nil.
    pub maybe: Option<Option<Option<()>>>,
    /// Wide numbers, letters, and keys that are no text.
    pub letters: BTreeMap<(i128, char), u128>,
    /// A value that is buffered before its type is known.
    pub any: Any,
    /// References to objects.
    pub references: Vec<Option<Reference>>,
}

/// Anything, level by level.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Any {
    /// Nil.
    Nothing,
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
    /// Bytes, which are a list there.
    Bytes(ByteBuf),
    /// A list.
    List(Vec<Any>),
    /// A map.
    Map(BTreeMap<String, Any>),
    /// A variant with a tag.
    Tagged(Tagged),
}

/// A variant with a tag, and without.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Tagged {
    /// Without content.
    Nothing,
    /// With a list as its content.
    Pair(u8, Vec<u16>),
}

/// Objects of a store, as one of its clients sees what another has put.
pub struct Home {
    owner: Client,
    reader: Client,
    /// Kept alive.
    objects: Vec<Object>,
    handles: Vec<Handle>,
}

/// The same objects in each process.
pub fn home() -> &'static Home {
    static HOME: OnceLock<Home> = OnceLock::new();
    HOME.get_or_init(|| {
        let connect = || Client::connect(store::socket()).expect("the store accepts");
        let mut home = Home { owner: connect(), reader: connect(), objects: vec![], handles: vec![] };
        home.add(home.put(&[7; 8192], format::RAW));
        home.add(home.put(&[], format::RAW));
        home.add(home.put(&encode(&batch()).expect("a batch").to_vec(), format::PLAIN));
        home
    })
}

fn batch() -> Arrow<RecordBatch> {
    let numbers = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef;
    let words = Arc::new(StringArray::from(vec![Some("one"), Some("two"), None])) as ArrayRef;
    RecordBatch::try_from_iter([("numbers", numbers), ("words", words)])
        .expect("columns of one length")
        .into()
}

impl Home {
    fn add(&mut self, object: Object) {
        self.handles.push(self.reader.hold(object.id()).expect("its owner keeps it"));
        self.objects.push(object);
    }

    fn put(&self, bytes: &[u8], format: u32) -> Object {
        let layout = Layout::new(bytes.len() as u64).format(format);
        let mut writer = self.owner.create(layout).expect("the store has room");
        writer.copy_from_slice(bytes);
        writer.seal()
    }

    /// An input: how many references there are, to which objects, and the payload.
    pub fn write(&self, encoded: &Encoded) -> Vec<u8> {
        let position = |handle: &Handle| {
            let position = self.objects.iter().position(|object| object.id() == handle.id());
            position.expect("a payload refers to these objects") as u8
        };
        let references = encoded.references();
        let mut input = vec![references.len() as u8];
        input.extend(references.iter().map(position));
        input.extend(encoded.to_vec());
        input
    }

    /// The payload of an input, and the references that go with it. There are few.
    pub fn read<'a>(&self, input: &'a [u8]) -> (&'a [u8], Vec<Handle>) {
        let Some((count, rest)) = input.split_first() else { return (input, vec![]) };
        let (positions, payload) = rest.split_at(rest.len().min((count % 8).into()));
        let handle = |position: &u8| self.handles[usize::from(*position) % self.handles.len()].clone();
        (payload, positions.iter().map(handle).collect())
    }

    /// The payload as an object that another process has put.
    pub fn object(&self, payload: &[u8]) -> Object {
        let object = self.put(payload, format::PLAIN);
        self.reader.get(object.id()).expect("it is there")
    }

    /// Bytes of an object.
    pub fn bytes(&self) -> Bytes {
        self.reader.get(self.objects[0].id()).expect("it is there").into()
    }

    /// A value whose memory is an object's.
    pub fn batch(&self) -> Result<Arrow<RecordBatch>, ValueError> {
        decode(Source::object(self.reader.get(self.objects[2].id())?, vec![]))
    }

    /// A reference to an object.
    pub fn reference(&self) -> Reference {
        Reference::new(self.handles[0].clone())
    }
}
