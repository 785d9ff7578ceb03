//! The records that processes of a session send each other through their rings.
//!
//! Calls and results are the most frequent records and have a fixed layout, with [payloads](crate::call::payload)
//! behind it. Every other record is one of the enums here, encoded by `postcard` and borrowed from the record where
//! possible. Both ends are the same build, so the encoding need not describe itself. A [`Failure`] that is stored in
//! place of a result has the same encoding.

use bytemuck::{Pod, Zeroable};
use mobula_client::{ObjectId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::definition::Key;
use crate::error::{ExitReason, Failure};

/// Reads a record, or a failure, with nothing behind it.
pub(crate) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (record, []) => Ok(record),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

/// Appends a record, or a failure, to `out`.
pub(crate) fn append(record: &impl Serialize, out: &mut Vec<u8>) {
    postcard::to_io(record, out).expect("records are plain data, and memory takes all of it");
}

/// A record, or a failure, alone.
pub(crate) fn to_vec(record: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(record, &mut bytes);
    bytes
}

/// The function or method that a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callee {
    Function(Key),
    Method(u32),
}

/// How many objects the result of a call becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// One, of any type.
    One,
    /// The elements of a tuple of this many.
    Tuple(u32),
    /// The elements of a list that must be this long.
    List(u32),
}

impl Returns {
    /// That number.
    pub fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Tuple(count) | Self::List(count) => count as usize,
        }
    }
}

/// A call, from a caller to the process that runs it. The payloads of the arguments follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// The number of the call, chosen by the caller. The results contain it.
    pub(crate) task: u64,
    pub(crate) callee: Callee,
    pub(crate) returns: Returns,
    /// How many payloads follow.
    pub(crate) arguments: u32,
}

/// The layout of a [`Call`] in a record.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct CallLayout {
    task: u64,
    /// A function's key, or a method's number.
    callee: u64,
    is_method: u32,
    /// 0 for one result, 1 for those of a tuple, 2 for those of a list.
    shape: u32,
    returns: u32,
    arguments: u32,
}

impl Call {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let (is_method, callee) = match self.callee {
            Callee::Function(key) => (0, key.bits()),
            Callee::Method(method) => (1, u64::from(method)),
        };
        let (shape, returns) = match self.returns {
            Returns::One => (0, 1),
            Returns::Tuple(count) => (1, count),
            Returns::List(count) => (2, count),
        };
        let Self { task, arguments, .. } = *self;
        let layout = CallLayout { task, callee, is_method, shape, returns, arguments };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
    }

    /// The call at the front of a record; `None` if there is no call. Its payloads begin at [`BYTES`](Self::BYTES).
    pub(crate) fn read(record: &[u8]) -> Option<Self> {
        let layout: CallLayout = bytemuck::pod_read_unaligned(record.get(..Self::BYTES)?);
        let callee = match layout.is_method {
            0 => Callee::Function(Key::from_bits(layout.callee)),
            1 => Callee::Method(u32::try_from(layout.callee).ok()?),
            _ => return None,
        };
        let returns = match layout.shape {
            0 => Returns::One,
            1 => Returns::Tuple(layout.returns),
            2 => Returns::List(layout.returns),
            _ => return None,
        };
        Some(Self { task: layout.task, callee, returns, arguments: layout.arguments })
    }

    /// The length of a call without its payloads.
    pub(crate) const BYTES: usize = size_of::<CallLayout>();
}

/// Some of a call's results, to the caller. Their payloads follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Results {
    pub(crate) task: u64,
    /// Position of the first of these results.
    pub(crate) first: u32,
    /// How many payloads follow.
    pub(crate) count: u32,
    /// Whether the call is over with these results.
    pub(crate) is_last: bool,
    /// How long the call ran, in the record with the last of its results; 0 for a method.
    pub(crate) ran_nanos: u64,
}

/// The layout of [`Results`] in a record.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ResultsLayout {
    kind: u32,
    is_last: u32,
    task: u64,
    ran_nanos: u64,
    first: u32,
    count: u32,
}

/// Kinds of records to a caller.
const RESULTS: u32 = 0;
const NO_RESULTS: u32 = 1;
const KIND_BYTES: usize = size_of::<u32>();

impl Results {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        let Self { task, first, count, is_last, ran_nanos } = *self;
        let layout =
            ResultsLayout { kind: RESULTS, is_last: u32::from(is_last), task, ran_nanos, first, count };
        record.extend_from_slice(bytemuck::bytes_of(&layout));
    }
}

/// Why there are no results, to the caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NoResults {
    /// The call failed.
    Failed { task: u64, failure: Failure, ran_nanos: u64 },
    /// The call has not begun, and another process should run it: this one will be busy for long.
    Declined { task: u64 },
}

impl NoResults {
    pub(crate) fn append_to(&self, record: &mut Vec<u8>) {
        record.extend_from_slice(&NO_RESULTS.to_le_bytes());
        append(self, record);
    }
}

/// A record to a caller.
#[derive(Debug)]
pub(crate) enum ToCaller<'a> {
    /// Results, and the payloads that follow them.
    Results(Results, &'a [u8]),
    NoResults(NoResults),
}

impl<'a> ToCaller<'a> {
    /// Reads a record to a caller; `None` if it is none.
    pub(crate) fn read(record: &'a [u8]) -> Option<Self> {
        match u32::from_le_bytes(record.get(..KIND_BYTES)?.try_into().ok()?) {
            RESULTS => {
                let (layout, payloads) = record.split_at_checked(size_of::<ResultsLayout>())?;
                let ResultsLayout { task, first, count, is_last, ran_nanos, .. } =
                    bytemuck::pod_read_unaligned(layout);
                let is_last = is_last != 0;
                Some(Self::Results(Results { task, first, count, is_last, ran_nanos }, payloads))
            }
            NO_RESULTS => read(&record[KIND_BYTES..]).ok().map(Self::NoResults),
            _ => None,
        }
    }
}

/// A record from any process of the session to the head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHead<'a> {
    /// A process that the head started is ready to serve.
    Register {
        token: u64,
        pid: u32,
        build_id: u64,
    },
    /// The caller wants so many more workers. Replaces its earlier requests.
    Want {
        workers: u32,
    },
    /// A caller does not need a worker any more.
    Return {
        worker: OwnerId,
        /// It may still run calls of other processes.
        is_busy: bool,
    },
    /// The worker has no calls left. Answers `SayWhenFree`.
    Free,
    /// This worker waits for results of other calls, and gives its place up meanwhile.
    Blocked,
    /// The worker does not wait any more.
    Unblocked,
    /// That process wrote an unreadable record: it cannot be relied upon any more.
    Broken {
        process: OwnerId,
    },
    /// Asks how a process ended that had calls of the sender. Answered by `Died`, once it has ended.
    AskDeath {
        process: OwnerId,
    },
    /// Reserves an actor, still without a process. Answered by `ActorReserved`.
    ReserveActor {
        request: u64,
        #[serde(borrow)]
        actor: NewActor<'a>,
    },
    /// The arguments of the actor's constructor are there.
    StartActor {
        actor: u64,
        arguments: u32,
        #[serde(borrow, with = "bytes_field")]
        payloads: &'a [u8],
    },
    /// The arguments of the actor's constructor will never be there.
    AbandonActor {
        actor: u64,
        failure: Failure,
    },
    /// Asks what becomes of an actor. Answered by `ActorAt` or `ActorOver` once it is known, and again at each change;
    /// and by `ActorRestarts`.
    WatchActor {
        actor: u64,
    },
    /// Asks for an actor by its name. Answered by `ActorFound`.
    FindActor {
        request: u64,
        name: &'a str,
    },
    KillActor {
        actor: u64,
    },
    /// The constructor has run, in this process.
    Constructed {
        actor: u64,
        result: Result<(), Failure>,
    },
}

/// An actor that a caller reserves.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct NewActor<'a> {
    pub(crate) class: Key,
    pub(crate) class_name: &'a str,
    pub(crate) name: Option<&'a str>,
    /// How often it is restarted when its process dies.
    pub(crate) max_restarts: u32,
    /// How often its calls are retried then.
    pub(crate) max_task_retries: u32,
}

/// A record from the head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHead<'a> {
    /// A worker to send calls to.
    Granted {
        worker: OwnerId,
        pid: u32,
    },
    /// No worker will be granted: processes do not start.
    NoWorkers {
        failure: Failure,
    },
    /// Another caller has no worker: return this one when its calls are over.
    Recall {
        worker: OwnerId,
    },
    /// To a worker: send `Free` when no call is left.
    SayWhenFree,
    Died {
        process: OwnerId,
        reason: ExitReason,
    },
    /// To a worker: construct this actor.
    Construct {
        actor: u64,
        class: Key,
        arguments: u32,
        #[serde(borrow, with = "bytes_field")]
        payloads: &'a [u8],
    },
    /// To a worker: end when the running call is over.
    Exit,
    ActorReserved {
        request: u64,
        result: Result<ReservedActor, Failure>,
    },
    ActorFound {
        request: u64,
        actor: Option<FoundActor>,
    },
    ActorAt {
        actor: u64,
        process: OwnerId,
    },
    /// The actor's process is gone, and another one will take its place: `ActorAt` or `ActorOver` follows.
    ActorRestarts {
        actor: u64,
        pid: u32,
        reason: ExitReason,
        /// How often calls that had begun may be retried.
        max_task_retries: u32,
    },
    ActorOver {
        actor: u64,
        pid: u32,
        failure: Failure,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ReservedActor {
    pub(crate) actor: u64,
    /// An object that stands for the actor. The actor ends when no other handle to it is left.
    pub(crate) token: ObjectId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FoundActor {
    pub(crate) actor: u64,
    pub(crate) token: ObjectId,
    pub(crate) class: Key,
    pub(crate) class_name: String,
}

/// Serializes bytes as bytes, not as a sequence of numbers.
mod bytes_field {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{TaskError, TaskErrorKind};

    #[test]
    fn calls_and_results_are_read_as_they_were_written() {
        let (mut record, key) = (Vec::new(), Key::from_bits(u64::MAX - 1));
        for callee in [Callee::Function(key), Callee::Method(7)] {
            for returns in [Returns::One, Returns::Tuple(3), Returns::List(u32::MAX)] {
                let call = Call { task: 1 << 40, callee, returns, arguments: 9 };
                record.clear();
                call.append_to(&mut record);
                assert_eq!((record.len(), Call::read(&record)), (Call::BYTES, Some(call)));
                assert_eq!(Call::read(&record[1..]), None);
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
        NoResults::Declined { task: 3 }.append_to(&mut record);
        assert!(matches!(
            ToCaller::read(&record),
            Some(ToCaller::NoResults(NoResults::Declined { task: 3 }))
        ));
    }

    #[test]
    fn nonsense_is_no_record() {
        for record in [&[][..], &[9; 3], &[9; 64], &[1, 0, 0, 0, 77], &[0, 0, 0, 0, 1]] {
            assert!(ToCaller::read(record).is_none(), "{record:?}");
        }
        for (at, value) in [(16, 2), (20, 3)] {
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
        let call = Call { task: 1, callee: Callee::Method(2), returns: Returns::List(3), arguments: 4 };
        fixed(&|record| call.append_to(record));
        let results = Results { task: 1, first: 2, count: 3, is_last: true, ran_nanos: 4 };
        fixed(&|record| results.append_to(record));
        let failed = NoResults::Failed { task: 1, failure: failure.clone(), ran_nanos: 2 };
        fixed(&|record| failed.append_to(record));
        let actor =
            NewActor { class: key, class_name: "C", name: Some("n"), max_restarts: 1, max_task_retries: 2 };
        for record in [
            ToHead::Register { token: 1, pid: 2, build_id: 3 },
            ToHead::Want { workers: 300 },
            ToHead::Broken { process: owner },
            ToHead::ReserveActor { request: 1, actor },
            ToHead::StartActor { actor: 1, arguments: 1, payloads: b"payloads" },
            ToHead::FindActor { request: 1, name: "n" },
            ToHead::Constructed { actor: 1, result: Err(failure.clone()) },
        ] {
            records.push(to_vec(&record));
        }
        let found = FoundActor { actor: 1, token: object, class: key, class_name: "C".to_owned() };
        for record in [
            FromHead::Granted { worker: owner, pid: 1 },
            FromHead::Construct { actor: 1, class: key, arguments: 1, payloads: b"payloads" },
            FromHead::ActorReserved { request: 1, result: Ok(ReservedActor { actor: 1, token: object }) },
            FromHead::ActorFound { request: 1, actor: Some(found) },
            FromHead::ActorRestarts {
                actor: 1,
                pid: 2,
                reason: ExitReason::Killed { signal: 9 },
                max_task_retries: 3,
            },
            FromHead::ActorOver { actor: 1, pid: 2, failure },
        ] {
            records.push(to_vec(&record));
        }
        records
    }

    /// Reads bytes as every kind of record: each reader returns a record or refuses them.
    fn read_as_everything(bytes: &[u8]) {
        let _ = Call::read(bytes);
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
        assert!(matches!(
            ToCaller::read(&record),
            Some(ToCaller::NoResults(NoResults::Failed { task: 7, .. }))
        ));
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
        // What is longer than can be is cut when it is written, and refused when it is read.
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
}
