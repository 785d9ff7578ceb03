//! The simulated links, tokens and store, and the records that the head sends.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use mobula_client::{ObjectId, OwnerId};

use super::super::processes::Kill;
use super::super::surroundings::{Peer, Store, Token};
use crate::error::{ExitReason, Failure};
use crate::head::pool::Caller;
use crate::mail::link::TooLarge;
use crate::wire::FromHead;

/// The most bytes of arguments that fit a record.
pub(super) const ARGUMENT_BYTES_MAX: usize = 100;

/// A record of the head.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    At { actor: u64, process: u64, retries: u32 },
    Restarts { actor: u64, pid: u32, reason: ExitReason },
    Over { actor: u64, pid: u32, failure: Failure },
    Reserved { request: u64, actor: Result<u64, Failure> },
    Found { request: u64, actor: Option<(u64, u32)> },
    Construct { actor: u64, restarts: u32 },
    Ended { request: u64 },
    Exit,
}

impl Told {
    fn of(record: &FromHead<'_>) -> Self {
        match record {
            FromHead::ActorAt { actor, process, max_task_retries: retries } => {
                Self::At { actor: *actor, process: process.epoch(), retries: *retries }
            }
            FromHead::ActorRestarts { actor, pid, reason } => {
                Self::Restarts { actor: *actor, pid: *pid, reason: *reason }
            }
            FromHead::ActorOver { actor, pid, failure } => {
                Self::Over { actor: *actor, pid: *pid, failure: failure.clone() }
            }
            FromHead::ActorReserved { request, result } => {
                let actor = result.as_ref().map(|reserved| reserved.actor).map_err(Clone::clone);
                Self::Reserved { request: *request, actor }
            }
            FromHead::ActorFound { request, actor } => {
                let found = actor.as_ref().expect("all are of one build");
                let actor = found.as_ref().map(|found| (found.actor, found.max_pending_calls));
                Self::Found { request: *request, actor }
            }
            FromHead::Construct { actor, restarts, .. } => {
                Self::Construct { actor: *actor, restarts: *restarts }
            }
            FromHead::ActorEnded { request } => Self::Ended { request: *request },
            FromHead::Exit => Self::Exit,
            record => panic!("not about actors: {record:?}"),
        }
    }

    /// The actor or the request that it is about. The order of records about different ones is of no interest.
    pub(super) fn subject(&self) -> u64 {
        match self {
            Self::At { actor, .. }
            | Self::Restarts { actor, .. }
            | Self::Over { actor, .. }
            | Self::Construct { actor, .. } => *actor,
            Self::Reserved { request, .. } | Self::Found { request, .. } | Self::Ended { request } => {
                *request
            }
            Self::Exit => 0,
        }
    }
}

/// The records that the head has sent.
#[derive(Default)]
pub(super) struct Post {
    /// Those that the model has not seen, each with the process at the other end.
    pub(super) unseen: Vec<(u64, Told)>,
    /// Those that have not arrived, by the process, with the handles that they keep.
    pub(super) queues: BTreeMap<u64, VecDeque<(Told, Vec<Handle>)>>,
    /// The links that are closed.
    pub(super) closed: Vec<u64>,
}

/// The head's end of the link to a process.
#[derive(Clone)]
pub(super) struct End {
    pub(super) process: u64,
    pub(super) post: Rc<RefCell<Post>>,
}

impl Caller for End {
    fn id(&self) -> u64 {
        self.process
    }

    fn peer(&self) -> OwnerId {
        OwnerId::new(1, self.process)
    }
}

impl Peer for End {
    type Handle = Handle;

    fn tell(&self, record: &FromHead<'_>, held: Vec<Handle>) -> Result<(), TooLarge> {
        if matches!(record, FromHead::Construct { payloads, .. } if payloads.len() > ARGUMENT_BYTES_MAX) {
            return Err(TooLarge);
        }
        let told = Told::of(record);
        let mut post = self.post.borrow_mut();
        post.unseen.push((self.process, told.clone()));
        if !post.closed.contains(&self.process) {
            post.queues.entry(self.process).or_default().push_back((told, held));
        }
        Ok(())
    }
}

/// A handle to a token.
#[derive(Clone)]
pub(super) struct Handle(Rc<ObjectId>);

impl Token for Handle {
    fn id(&self) -> ObjectId {
        *self.0
    }

    fn is_held_by_others(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}

/// The store, which has room for tokens unless it is full.
#[derive(Default)]
pub(super) struct Tokens {
    made: Cell<u32>,
    pub(super) is_full: Cell<bool>,
}

impl Tokens {
    pub(super) fn full() -> Failure {
        Failure::Other("the store is full".to_owned())
    }
}

impl Store<Handle> for Tokens {
    fn make_token(&self) -> Result<Handle, Failure> {
        if self.is_full.get() {
            return Err(Self::full());
        }
        self.made.set(self.made.get() + 1);
        Ok(Handle(Rc::new(ObjectId::new(OwnerId::new(0, 1), self.made.get(), 1))))
    }

    fn hold_object(&self, _: ObjectId) -> Result<Handle, Failure> {
        unreachable!("arguments here name no objects")
    }
}

/// The processes that the head has killed.
#[derive(Default)]
pub(super) struct Killed(pub(super) Vec<u64>);

impl Kill for Killed {
    fn kill(&mut self, token: u64) {
        self.0.push(token);
    }
}
