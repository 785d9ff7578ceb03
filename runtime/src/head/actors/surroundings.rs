//! The session around the actors, as far as they need it: the links to processes, and the store.

use std::sync::Arc;

use mobula_client::{Client, Handle, ObjectId};

use crate::error::Failure;
use crate::head::pool::Caller;
use crate::mail::link::{Link, TooLarge};
use crate::wire::FromHead;

/// A link to a process of the session.
pub(in crate::head) trait Peer: Caller {
    type Handle: Token;

    /// Sends a record. Keeps `held` until the other end has handled it.
    fn tell(&self, record: &FromHead<'_>, held: Vec<Self::Handle>) -> Result<(), TooLarge>;
}

/// The head's handle to the token of an actor.
pub(in crate::head) trait Token: Clone {
    fn id(&self) -> ObjectId;

    /// Whether there are handles other than this one, in any process or record.
    fn is_held_by_others(&self) -> bool;
}

/// The store of the session.
pub(in crate::head) trait Store<H> {
    /// Makes the token of an actor.
    fn make_token(&self) -> Result<H, Failure>;

    /// A handle to an object that an argument names.
    fn hold_object(&self, object: ObjectId) -> Result<H, Failure>;
}

impl Peer for Arc<Link> {
    type Handle = Handle;

    fn tell(&self, record: &FromHead<'_>, held: Vec<Handle>) -> Result<(), TooLarge> {
        self.send(record, held)
    }
}

impl Token for Handle {
    fn id(&self) -> ObjectId {
        Handle::id(self)
    }

    fn is_held_by_others(&self) -> bool {
        self.is_held_elsewhere(1)
    }
}

impl Store<Handle> for Client {
    fn make_token(&self) -> Result<Handle, Failure> {
        Ok(self.put(&[])?.handle())
    }

    fn hold_object(&self, object: ObjectId) -> Result<Handle, Failure> {
        Ok(self.hold(object)?)
    }
}
