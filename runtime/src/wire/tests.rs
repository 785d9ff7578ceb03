//! Records are read as they were written, and malformed bytes are refused.

use std::time::Instant;

use mobula_client::ObjectId;

use super::*;
use crate::definition::Key;
use crate::demand::Demand;
use crate::error::{ExitReason, Failure, MemoryLimit, TaskError, TaskErrorKind, WaitingCall};

#[test]
fn calls_and_results_are_read_as_they_were_written() {
    let (mut record, key) = (Vec::new(), Key::from_bits(u64::MAX - 1));
    for callee in [Callee::Function(key), Callee::Method(7)] {
        for returns in [Returns::One, Returns::Tuple(3), Returns::List(u32::MAX), Returns::Stream(9)] {
            let call = Call {
                task: 1 << 40,
                callee,
                returns,
                arguments: 9,
                limits: None,
                is_detached: false,
                attempt: 7,
                is_traced: false,
            };
            record.clear();
            call.append_to(&mut record, None);
            assert_eq!((record.len(), Call::read(&record)), (Call::BYTES, Some(call)));
            assert_eq!(Call::read(&record[1..]), None);
            let limits = Some(CallBegin::by(Some(Instant::now())));
            let limited = Call { limits, is_detached: true, attempt: u16::MAX, ..call };
            record.clear();
            limited.append_to(&mut record, None);
            assert_eq!((record.len(), Call::read(&record)), (limited.bytes(), Some(limited)));
            assert_eq!(Call::read(&record[..record.len() - 1]), None);
            for untraced in [call, limited] {
                let traced = Call { is_traced: true, ..untraced };
                let context = CallContext(std::array::from_fn(|at| at as u8));
                record.clear();
                traced.append_to(&mut record, Some(&context));
                assert_eq!((record.len(), Call::read(&record)), (traced.bytes(), Some(traced)));
                assert_eq!(traced.bytes(), untraced.bytes() + CallContext::BYTES);
                assert_eq!((traced.context(&record), untraced.context(&record)), (Some(context), None));
                assert_eq!(Call::read(&record[..record.len() - 1]), None);
            }
        }
    }
    let results = Results { task: 5, first: 6, count: 7, is_last: true, ran_nanos: 8 };
    record.clear();
    results.append_to(&mut record);
    record.extend_from_slice(b"payloads");
    match ToCaller::read(&record) {
        Some(ToCaller::Results(read, b"payloads")) => assert_eq!(read, results),
        other => panic!("{other:?}"),
    }
    record.clear();
    let item = Item { task: 5, position: 1 << 40 };
    item.append_to(&mut record);
    record.extend_from_slice(b"payload");
    assert!(matches!(ToCaller::read(&record), Some(ToCaller::Item(read, b"payload")) if read == item));
    record.clear();
    let end = StreamEnd { task: 5, items: 1 << 40, ran_nanos: 8 };
    end.append_to(&mut record);
    record.extend_from_slice(b"payload");
    assert!(matches!(ToCaller::read(&record), Some(ToCaller::StreamEnd(read, b"payload")) if read == end));
    record.clear();
    let taken = Taken { task: 5, items: 1 << 40 };
    taken.append_to(&mut record);
    assert_eq!(ToWorker::read(&record), Some(ToWorker::Taken(taken)));
    let promise = ObjectId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    let cancel = CancelPromised { promise, force: true, recursive: false, by: 17 };
    record.clear();
    cancel.append_to(&mut record);
    assert_eq!(ToWorker::read(&record), Some(ToWorker::CancelPromised(cancel)));
    record.clear();
    NoResults::Declined { task: 3 }.append_to(&mut record);
    assert!(matches!(ToCaller::read(&record), Some(ToCaller::NoResults(NoResults::Declined { task: 3 }))));
}

#[test]
fn nonsense_is_no_record() {
    for record in [&[][..], &[9; 3], &[9; 64], &[1, 0, 0, 0, 77], &[0, 0, 0, 0, 1]] {
        assert!(ToCaller::read(record).is_none(), "{record:?}");
    }
    for (at, value) in [(16, 2), (20, 4)] {
        let mut record = [0; Call::BYTES];
        record[at] = value;
        assert_eq!(Call::read(&record), None, "{value} at {at}");
    }
    // A method's number has 32 bits.
    let mut record = [0xff; Call::BYTES];
    record[16..24].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Call::read(&record), None);
}

/// Every kind of record that a process may find in a ring.
fn records() -> Vec<Vec<u8>> {
    let key = Key::from_bits(7);
    let object = ObjectId::from_bytes([3; ObjectId::BYTES]);
    let owner = object.owner();
    let error = TaskError::new("f", TaskErrorKind::Panicked, "a message".to_owned());
    let failure = Failure::ConstructorFailed { class: "C".to_owned(), error };
    let mut records = Vec::new();
    let mut fixed = |append: &dyn Fn(&mut Vec<u8>)| {
        let mut record = Vec::new();
        append(&mut record);
        records.push(record);
    };
    let call = Call {
        task: 1,
        callee: Callee::Method(2),
        returns: Returns::List(3),
        arguments: 4,
        limits: Some(CallBegin::by(None)),
        is_detached: false,
        attempt: 0,
        is_traced: false,
    };
    fixed(&|record| call.append_to(record, None));
    let context = CallContext([7; CallContext::BYTES]);
    let traced = Call { is_traced: true, ..call };
    fixed(&|record| traced.append_to(record, Some(&context)));
    let results = Results { task: 1, first: 2, count: 3, is_last: true, ran_nanos: 4 };
    fixed(&|record| results.append_to(record));
    fixed(&|record| Item { task: 1, position: 2 }.append_to(record));
    fixed(&|record| StreamEnd { task: 1, items: 2, ran_nanos: 3 }.append_to(record));
    fixed(&|record| Taken { task: 1, items: 2 }.append_to(record));
    let failed = NoResults::Failed { task: 1, failure: failure.clone(), ran_nanos: 2 };
    fixed(&|record| failed.append_to(record));
    let actor = NewActor {
        class: key,
        class_name: "C",
        namespace: "s",
        name: Some("n"),
        get_if_exists: true,
        is_detached: false,
        max_pending_calls: 3,
        description: "d",
        max_restarts: 1,
        max_task_retries: 2,
        demand: Demand::default(),
    };
    let item = Need::Item { process: owner, task: 1, position: 2 };
    let needs = vec![Need::Call { process: owner, task: 1 }, item, Need::Promise { object }, Need::Unknown];
    let waits = Waits {
        number: 1,
        function: "f".to_owned(),
        waits_for: "g".to_owned(),
        at: Some("src/main.rs:1:2".to_owned()),
        is_only: true,
        needed: 1,
        results: vec![needs, vec![Need::Worker { demand: Demand::default() }]],
    };
    for record in [
        ToHead::Register { token: 1, pid: 2, build_id: 3 },
        ToHead::Want { demand: Demand::default(), workers: 300 },
        ToHead::Want { demand: Demand::nothing(), workers: 1 },
        ToHead::Broken { process: owner },
        ToHead::Runs {
            worker: owner,
            call: Some(RunningCall { function: "f".to_owned(), is_retriable: true }),
        },
        ToHead::ReserveActor { request: 1, actor },
        ToHead::StartActor { actor: 1, arguments: 1, context: Some(context), payloads: b"payloads" },
        ToHead::FindActor { request: 1, namespace: "s", name: "n" },
        ToHead::ListActors { request: 1, namespace: Some("s") },
        ToHead::AwaitActorEnd { request: 1, actor: 2 },
        ToHead::ActorExits { actor: 1 },
        ToHead::Waits(waits.clone()),
        ToHead::WaitOver { wait: 1 },
        ToHead::AllWaits {
            round: 1,
            waits: vec![waits],
            holds: vec![Held { caller: owner, task: 3, behind: vec![vec![1, 2], vec![3]], items: 4 }],
        },
        ToHead::PromiseNeeds { round: 1, object, needs: vec![Need::Actor { actor: 1 }] },
        ToHead::Constructed { actor: 1, result: Err(failure.clone()) },
    ] {
        records.push(to_vec(&record));
    }
    let short_of_memory = ExitReason::OutOfMemory {
        limit: MemoryLimit::Machine,
        used_bytes: 1,
        limit_bytes: 2,
        shared_bytes: 3,
        own_bytes: 4,
    };
    let found = FoundActor {
        actor: 1,
        token: object,
        class: key,
        class_name: "C".to_owned(),
        max_pending_calls: 2,
        description: "d".to_owned(),
    };
    let names = vec![NamedActor::new("s", "n")];
    let cycle = vec![WaitingCall::new(1, "f".to_owned(), "g".to_owned(), None)];
    for record in [
        FromHead::Granted { demand: Demand::nothing(), worker: owner, pid: 1 },
        FromHead::Construct {
            actor: 1,
            class: key,
            restarts: 2,
            arguments: 1,
            context: None,
            payloads: b"payloads",
        },
        FromHead::ActorReserved { request: 1, result: Ok(ReservedActor { actor: 1, token: object }) },
        FromHead::ActorFound { request: 1, actor: Ok(Some(found)) },
        FromHead::ActorNames { request: 1, names, is_last: true },
        FromHead::ActorEnded { request: 1 },
        FromHead::AskWaits { round: 1, calls: vec![(owner, 3)] },
        FromHead::AskPromise { round: 1, object },
        FromHead::Deadlocks { cycles: vec![(1, cycle)] },
        FromHead::ActorAt { actor: 1, process: owner, max_task_retries: 3 },
        FromHead::ActorRestarts { actor: 1, pid: 2, reason: ExitReason::Killed { signal: 9 } },
        FromHead::AskCall { worker: owner },
        FromHead::SayWhenFree { is_spent: true },
        FromHead::Died { process: owner, reason: short_of_memory, memory_retries: 5 },
        FromHead::ActorOver { actor: 1, pid: 2, failure },
    ] {
        records.push(to_vec(&record));
    }
    records
}

/// Reads bytes as every kind of record: each reader returns a record or refuses them.
fn read_as_everything(bytes: &[u8]) {
    if let Some(call) = Call::read(bytes) {
        assert_eq!(call.context(bytes).is_some(), call.is_traced);
    }
    let _ = ToWorker::read(bytes);
    if let Some(ToCaller::Results(results, mut rest)) = ToCaller::read(bytes) {
        for _ in 0..results.count {
            match crate::call::payload::take(&mut rest) {
                Ok(payload) => _ = payload.objects().count(),
                Err(_) => break,
            }
        }
    }
    let _ = read::<ToHead<'_>>(bytes);
    let _ = read::<FromHead<'_>>(bytes);
    let _ = crate::call::payload::take(&mut &bytes[..]);
}

#[test]
fn damaged_records_are_read_as_something_or_refused() {
    let records = records();
    for record in &records {
        for length in 0..record.len() {
            read_as_everything(&record[..length]);
        }
        for at in 0..record.len() {
            for bit in 0..8 {
                let mut damaged = record.clone();
                damaged[at] ^= 1 << bit;
                read_as_everything(&damaged);
            }
        }
    }
    // splitmix64, so that a failure comes again.
    let mut state = 0u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    };
    for _ in 0..20_000 {
        let mut record = records[next() as usize % records.len()].clone();
        for _ in 0..next() % 6 {
            let at = next() as usize % record.len();
            record[at] = [next() as u8, 0, 0xff, 0x7f, 0x80][next() as usize % 5];
        }
        read_as_everything(&record);
    }
}

/// A call that fails may well do so deep within a recursion.
#[test]
fn a_record_is_written_where_little_is_left_of_the_stack() {
    let error = TaskError::new("f", TaskErrorKind::Panicked, "a message".to_owned());
    let failure = Failure::Task(error.clone().caused_by(error));
    let record = crate::process::stack::near_the_end(|| {
        let mut record = Vec::new();
        NoResults::Failed { task: 7, failure, ran_nanos: 1 }.append_to(&mut record);
        record
    });
    assert!(matches!(ToCaller::read(&record), Some(ToCaller::NoResults(NoResults::Failed { task: 7, .. }))));
}

#[test]
fn a_failure_with_causes_without_end_is_refused() {
    let with_causes = |count: usize| {
        let mut error = TaskError::new("f", TaskErrorKind::Panicked, "a message".to_owned());
        for _ in 0..count {
            let outer = TaskError::new("", TaskErrorKind::Returned, String::new());
            error = outer.caused_by(error);
        }
        error
    };
    let error = with_causes(64);
    assert_eq!(read::<TaskError>(&to_vec(&error)).unwrap(), error);
    // A list of causes that is too long is cut when it is written, and refused when it is read.
    let cut: TaskError = read(&to_vec(&with_causes(65))).unwrap();
    let (mut count, mut last) = (1, &cut);
    while let Some(Failure::Task(cause)) = last.cause.as_deref() {
        (count, last) = (count + 1, cause);
    }
    assert_eq!(count, 65);
    let alone = to_vec(&with_causes(0));
    let [length, link @ .., end] = &alone[..] else { unreachable!() };
    assert_eq!((length, end), (&1, &0), "a list of one, and nothing behind it");
    // The length of a longer list, 100,000 as a varint, and the only element of this one.
    let forged = [&[0xa0, 0x8d, 0x06][..], &link.repeat(100_000), &[0]].concat();
    assert!(read::<TaskError>(&forged).is_err());
    // A list in the place of the failure behind it, again and again.
    let failure = to_vec(&Failure::Task(with_causes(0)));
    let deeper = [&failure[..failure.len() - 1], &[1]].concat();
    for depth in [1, 100_000] {
        let forged = [&deeper.repeat(depth)[..], &failure].concat();
        assert!(read::<Failure>(&forged).is_err());
    }
    assert_eq!(read::<Failure>(&failure).unwrap(), Failure::Task(with_causes(0)));
}
