//! The arguments of constructors, which the head keeps as long as a constructor may run again.

use super::surroundings::Store;
use crate::call::payload;
use crate::error::Failure;
use crate::wire::CallContext;

/// A constructor's arguments, and handles to the objects that they name.
pub(super) struct Arguments<H> {
    pub(super) count: u32,
    /// The context in which the actor was made.
    pub(super) context: Option<CallContext>,
    pub(super) payloads: Vec<u8>,
    #[expect(dead_code, reason = "held, not read")]
    held: Vec<H>,
}

impl<H> Arguments<H> {
    pub(super) fn hold(
        store: &impl Store<H>,
        count: u32,
        context: Option<CallContext>,
        payloads: &[u8],
    ) -> Result<Self, Failure> {
        let held = objects_of(store, count, payloads)?;
        Ok(Self { count, context, payloads: payloads.to_vec(), held })
    }
}

/// Handles to the objects that arguments name.
pub(in crate::head) fn objects_of<H>(
    store: &impl Store<H>,
    count: u32,
    payloads: &[u8],
) -> Result<Vec<H>, Failure> {
    let (mut held, mut rest) = (Vec::new(), payloads);
    for _ in 0..count {
        let payload = payload::take(&mut rest).map_err(|malformed| Failure::Other(malformed.to_string()))?;
        for object in payload.objects() {
            held.push(store.hold_object(object)?);
        }
    }
    Ok(held)
}
