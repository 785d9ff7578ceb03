//! Writes the inputs that the targets begin with, next to this file: messages of each direction, records, payloads of a
//! few values, and sequences of steps. Run again, after the format has changed:
//!
//! ```text
//! cargo run --manifest-path fuzz/Cargo.toml --features values --example seeds
//! ```
//!
//! Without the feature, all but records and values.

use std::fs;
use std::path::Path;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{ClientInfo, NameInfo, Notice, ObjectInfo, Refusal, Reply, Request, Totals};

/// Sequences for each target that takes some.
const SEQUENCES: usize = 8;
/// Steps of a sequence.
const STEPS: usize = 60;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    write("decode_message", messages())?;
    write("read_ring", sequences(&[10, 3, 2, 0, 0, 2, 0]))?;
    write("read_recorder", sequences(&[12, 9, 9, 4, 8]))?;
    write("look_at_session", sequences(&[11, 3, 13, 5]))?;
    write("read_table", sequences(&[10, 6, 6, 1, 4]))?;
    write("take_over_table", sequences(&[9, 22, 7, 10, 3, 5, 2, 2, 2, 0]))?;
    write("operations", sequences(&[4, 1, 4, 2, 2, 1, 1, 1, 2, 3, 2, 2, 1, 1, 0]))?;
    #[cfg(feature = "values")]
    {
        write("decode_record", mobula::fuzzing::records())?;
        write("decode_value", values::values()?)?;
    }
    Ok(())
}

fn write(target: &str, seeds: Vec<(impl AsRef<Path>, Vec<u8>)>) -> Result<(), Box<dyn std::error::Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    for (name, bytes) in seeds {
        fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let owner = OwnerId::new(3, 99);
    let object = ObjectId::new(owner, 5, 6);
    let name = || b"scores".to_vec();
    let mut info = ObjectInfo::new(object);
    info.bytes = 1 << 20;
    info.format = 2;
    info.holders = 3;
    info.named = true;
    info.spilled = true;
    let mut client = ClientInfo::new(owner);
    client.pid = 4711;
    client.label = "driver 4711".into();
    client.leased_bytes = 1 << 22;
    client.segments = 2;
    client.objects = 7;
    client.object_bytes = 1 << 21;
    client.pins = 9;
    client.spilled_objects = 1;
    client.spilled_bytes = 1 << 20;
    let mut totals = Totals::default();
    totals.capacity_bytes = 1 << 30;
    totals.leased_bytes = 1 << 22;
    totals.retired_bytes = 4096;
    totals.free_bytes = 1 << 29;
    totals.clients = 2;
    totals.dead_clients = 1;
    totals.segments = 3;
    totals.names = 4;
    totals.channels = 5;
    totals.spill_bytes = 1 << 21;
    totals.spill_files = 1;
    let full = Refusal::StoreFull { requested_bytes: 3, capacity_bytes: 2, free_bytes: 1 };
    let limit = Refusal::LimitReached { limit: "clients_max".into(), max: 1024 };
    let names = vec![NameInfo::new(name(), object)];
    vec![
        ("request_hello", Request::Hello { label: "wörker".into(), serial: 1 }.encode(1)),
        ("request_lease", Request::Lease { bytes: 1 << 20, timeout_ms: 10_000 }.encode(2)),
        ("request_attach", Request::Attach { owner }.encode(3)),
        ("request_map", Request::MapSegment { owner, segment: 4 }.encode(4)),
        ("request_publish", Request::Publish { name: name(), object }.encode(5)),
        ("request_lookup", Request::Lookup { name: name(), timeout_ms: 0 }.encode(6)),
        ("request_stats", Request::Stats {}.encode(7)),
        ("reply_done", Reply::Done {}.encode(1)),
        ("reply_full", Reply::Failed { refusal: full }.encode(2)),
        ("reply_limit", Reply::Failed { refusal: limit }.encode(3)),
        (
            "reply_welcome",
            Reply::Welcome { owner, slots: 1025, entries: 4096, capacity_bytes: 1 << 30 }.encode(4),
        ),
        ("reply_names", Reply::Names { names, more: true }.encode(5)),
        ("reply_objects", Reply::Objects { objects: vec![info; 2], next: Some(8) }.encode(6)),
        ("reply_clients", Reply::Clients { clients: vec![client], next: None }.encode(7)),
        ("reply_stats", Reply::Stats { totals }.encode(8)),
        ("notice_joined", Notice::ReaderJoined { reader: owner }.encode(0)),
        ("notice_channel", Notice::ChannelOpened { channel: 1, peer: owner, data_bytes: 65_536 }.encode(0)),
    ]
}

/// Steps as `arbitrary` reads them: a byte that says that there is one more, the step's number, then its fields.
/// `kinds` has the number of field bytes of each kind of step.
fn sequences(kinds: &[usize]) -> Vec<(String, Vec<u8>)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    };
    let mut sequence = || {
        let mut bytes = Vec::new();
        for _ in 0..STEPS {
            let kind = below(kinds.len());
            bytes.push(1);
            bytes.extend_from_slice(&(((2 * kind as u64 + 1) << 31) / kinds.len() as u64).to_le_bytes()[..4]);
            // Small numbers above all.
            bytes.extend((0..kinds[kind]).map(|_| below(256) as u8 * u8::from(below(3) == 0)));
        }
        bytes
    };
    (0..SEQUENCES).map(|number| (format!("sequence_{number}"), sequence())).collect()
}

#[cfg(feature = "values")]
mod values {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use mobula::arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
    use mobula::arrow::datatypes::Int32Type;
    use mobula::value::{Tensor, encode};
    use mobula_fuzz::values::{Any, Tagged, Victim, home};
    use serde_bytes::ByteBuf;

    pub(super) fn values() -> Result<Vec<(&'static str, Vec<u8>)>, Box<dyn std::error::Error>> {
        let lists = [Some(vec![Some(1), None]), None, Some(vec![])];
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let columns = [
            ("numbers", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef),
            ("words", Arc::new(StringArray::from(vec!["one", "two", "three"]))),
            ("lists", Arc::new(lists)),
        ];
        let full = Victim {
            name: "full".into(),
            numbers: BTreeMap::from([(1, -1), (2, i64::MAX)]),
            bytes: vec![7; 100].into(),
            tensor: Tensor::from_shape_vec(&[2, 3], vec![0.5; 6])?,
            more: vec![None, Some(Tensor::from_shape_vec(&[3], vec![1, 2, 3])?)],
            array: (Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef).into(),
            batch: RecordBatch::try_from_iter(columns)?.into(),
            floats: vec![0.5; 2000],
            maybe: Some(Some(None)),
            letters: BTreeMap::from([((i128::MIN, 'a'), u128::MAX)]),
            any: Any::List(vec![
                Any::Map(BTreeMap::from([("key".into(), Any::Number(-7)), ("other".into(), Any::Nothing)])),
                Any::Tagged(Tagged::Pair(1, vec![2, 3])),
                Any::Bytes(ByteBuf::from(vec![b'x'; 5])),
                Any::Bytes(ByteBuf::from(vec![0xff; 5000])),
            ]),
            references: vec![],
        };
        let empty: ArrayRef = Arc::new(Int64Array::from(Vec::<i64>::new()));
        let empty = Victim {
            name: String::new(),
            numbers: BTreeMap::new(),
            bytes: Vec::new().into(),
            tensor: Tensor::from_shape_vec(&[0], vec![])?,
            more: vec![],
            array: empty.clone().into(),
            batch: RecordBatch::try_from_iter_with_nullable([("none", empty, false)])?.into(),
            floats: vec![],
            maybe: None,
            letters: BTreeMap::new(),
            any: Any::Text("text".into()),
            references: vec![None],
        };
        // Bytes that lie in the store go by reference.
        let home = home();
        let bytes = home.bytes();
        let batch = home.batch()?;
        let stored = Victim {
            name: "stored".into(),
            numbers: BTreeMap::new(),
            bytes: bytes.slice(100..200),
            tensor: Tensor::from_shape_vec(&[1], vec![1.5])?,
            more: vec![],
            array: batch.column(1).clone().into(),
            batch: batch.clone(),
            floats: vec![],
            maybe: Some(None),
            letters: BTreeMap::new(),
            any: Any::Bytes(ByteBuf::from(vec![b'x'; 5000])),
            references: vec![Some(home.reference()), None, Some(home.reference())],
        };
        let input = |victim: &Victim| Ok::<_, mobula::value::ValueError>(home.write(&encode(victim)?));
        Ok(vec![("full", input(&full)?), ("empty", input(&empty)?), ("stored", input(&stored)?)])
    }
}
