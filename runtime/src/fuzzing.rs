//! Functions for the fuzz targets alone: they read records of other processes as this crate reads them.

use crate::call::payload;
use crate::wire::{Call, FromHead, ToCaller, ToHead, ToWorker, read};
use crate::{format, wire};

/// Reads bytes as each kind of record that comes through a ring. A record that can be written in one way only is
/// written again, and read once more.
pub fn read_record(record: &[u8]) {
    if let Some(call) = Call::read(record) {
        let mut again = Vec::new();
        let context = call.context(record);
        call.append_to(&mut again, context.as_ref());
        assert_eq!((again.len(), Call::read(&again)), (call.bytes(), Some(call)));
        assert_eq!(call.context(&again), context);
        take_payloads(&record[call.bytes()..], call.arguments);
        std::hint::black_box(call.returns.count());
    }
    if let Some(ToWorker::CancelPromised(cancel)) = ToWorker::read(record) {
        let mut again = Vec::new();
        cancel.append_to(&mut again);
        assert_eq!(ToWorker::read(&again), Some(ToWorker::CancelPromised(cancel)));
    }
    if let Some(ToWorker::Taken(taken)) = ToWorker::read(record) {
        let mut again = Vec::new();
        taken.append_to(&mut again);
        assert_eq!(ToWorker::read(&again), Some(ToWorker::Taken(taken)));
    }
    match ToCaller::read(record) {
        Some(ToCaller::Results(results, payloads)) => {
            let mut again = Vec::new();
            results.append_to(&mut again);
            again.extend_from_slice(payloads);
            assert!(matches!(ToCaller::read(&again), Some(ToCaller::Results(read, _)) if read == results));
            take_payloads(payloads, results.count);
        }
        Some(ToCaller::Item(item, payload)) => {
            let mut again = Vec::new();
            item.append_to(&mut again);
            again.extend_from_slice(payload);
            assert!(matches!(ToCaller::read(&again), Some(ToCaller::Item(read, _)) if read == item));
            take_payloads(payload, 1);
        }
        Some(ToCaller::StreamEnd(end, payload)) => {
            let mut again = Vec::new();
            end.append_to(&mut again);
            again.extend_from_slice(payload);
            assert!(matches!(ToCaller::read(&again), Some(ToCaller::StreamEnd(read, _)) if read == end));
            take_payloads(payload, 1);
        }
        Some(ToCaller::NoResults(none)) => {
            let mut again = Vec::new();
            none.append_to(&mut again);
            assert!(matches!(ToCaller::read(&again), Some(ToCaller::NoResults(_))));
        }
        None => {}
    }
    if let Ok(to_head) = read::<ToHead<'_>>(record) {
        if let ToHead::StartActor { arguments, payloads, .. } = to_head {
            take_payloads(payloads, arguments);
        }
        let again = wire::to_vec(&to_head);
        read::<ToHead<'_>>(&again).expect("what was written can be read");
    }
    if let Ok(from_head) = read::<FromHead<'_>>(record) {
        if let FromHead::Construct { arguments, payloads, .. } = from_head {
            take_payloads(payloads, arguments);
        }
        let again = wire::to_vec(&from_head);
        read::<FromHead<'_>>(&again).expect("what was written can be read");
    }
}

/// Takes the number of payloads that a record announces, or as many as there are.
fn take_payloads(mut bytes: &[u8], count: u32) {
    for _ in 0..count {
        let before = bytes.len();
        let Ok(payload) = payload::take(&mut bytes) else { return };
        assert!(bytes.len() < before, "a payload of no bytes");
        std::hint::black_box(payload.objects().count());
    }
}

/// A record of each kind, to begin with.
pub fn records() -> Vec<(&'static str, Vec<u8>)> {
    use mobula_client::{ObjectId, OwnerId};

    use crate::definition::Key;
    use crate::error::Failure;
    use crate::wire::{CallContext, Callee, Item, NoResults, Results, Returns, StreamEnd, Taken};

    let mut payloads = Vec::new();
    payload::append_inline(&mut payloads, format::PLAIN, b"small", &[]);
    payload::append_stored(&mut payloads, ObjectId::from_bytes([7; ObjectId::BYTES]));
    let key = Key::from_bits(0x1234_5678_9abc_def0);
    let call = |callee, returns, context: Option<&CallContext>| {
        let mut record = Vec::new();
        let (task, arguments, is_traced) = (5, 2, context.is_some());
        let (limits, is_detached, attempt) = (None, false, 0);
        Call { task, callee, returns, arguments, limits, is_detached, attempt, is_traced }
            .append_to(&mut record, context);
        record.extend_from_slice(&payloads);
        record
    };
    let mut results = Vec::new();
    Results { task: 5, first: 0, count: 2, is_last: true, ran_nanos: 77 }.append_to(&mut results);
    results.extend_from_slice(&payloads);
    let mut item = Vec::new();
    Item { task: 5, position: 3 }.append_to(&mut item);
    payload::append_inline(&mut item, format::PLAIN, b"small", &[]);
    let mut stream_end = Vec::new();
    StreamEnd { task: 5, items: 4, ran_nanos: 77 }.append_to(&mut stream_end);
    payload::append_inline(&mut stream_end, format::PLAIN, b"small", &[]);
    let mut taken = Vec::new();
    Taken { task: 5, items: 3 }.append_to(&mut taken);
    let none = |none: NoResults| {
        let mut record = Vec::new();
        none.append_to(&mut record);
        record
    };
    let failure = || Failure::from(mobula_client::ClientError::StoreLost);
    let to_head = |record: ToHead<'_>| wire::to_vec(&record);
    let from_head = |record: FromHead<'_>| wire::to_vec(&record);
    let context = CallContext([9; CallContext::BYTES]);
    let (class, worker) = (key, OwnerId::new(3, 99));
    vec![
        ("call_function", call(Callee::Function(key), Returns::One, None)),
        ("call_method", call(Callee::Method(3), Returns::Tuple(2), None)),
        ("call_stream", call(Callee::Function(key), Returns::Stream(16), None)),
        ("call_traced", call(Callee::Function(key), Returns::One, Some(&context))),
        ("results", results),
        ("item", item),
        ("stream_end", stream_end),
        ("taken", taken),
        ("failed", none(NoResults::Failed { task: 5, failure: failure(), ran_nanos: 1 })),
        ("declined", none(NoResults::Declined { task: 5 })),
        (
            "start_actor",
            to_head(ToHead::StartActor {
                actor: 1,
                arguments: 2,
                context: Some(context),
                payloads: &payloads,
            }),
        ),
        ("abandon_actor", to_head(ToHead::AbandonActor { actor: 1, failure: failure() })),
        ("return", to_head(ToHead::Return { worker, is_busy: true })),
        ("spent", to_head(ToHead::Spent { waits: true })),
        ("free", to_head(ToHead::Free)),
        (
            "construct",
            from_head(FromHead::Construct {
                actor: 1,
                class,
                restarts: 3,
                arguments: 2,
                context: None,
                payloads: &payloads,
            }),
        ),
        ("say_when_free", from_head(FromHead::SayWhenFree { is_spent: true })),
        ("actor_over", from_head(FromHead::ActorOver { actor: 1, pid: 4711, failure: failure() })),
        (
            "granted",
            from_head(FromHead::Granted { demand: crate::demand::Demand::default(), worker, pid: 4711 }),
        ),
    ]
}
