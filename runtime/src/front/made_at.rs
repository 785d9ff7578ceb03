//! The places in the program where objects are made, for `mobula memory`.

use std::fmt::Display;

use mobula_client::internal::origin;

use crate::runtime::Runtime;

impl Runtime {
    /// Names the place in the program where this thread makes objects, until the guard is dropped. Costs one load,
    /// unless the program was started with `MOBULA_CALL_SITES=1`: then it calls `place`, and takes a lock for a moment.
    #[inline]
    pub fn made_at<T: Display>(&self, place: impl FnOnce() -> T) -> Option<MadeAt> {
        let recorder = self.client.recorder().filter(|recorder| recorder.notes_origins())?;
        Some(MadeAt { before: origin::set_place(recorder.name(&place().to_string())) })
    }
}

/// The guard of [`Runtime::made_at`].
#[derive(Debug)]
#[must_use = "the place is forgotten when this is dropped"]
pub struct MadeAt {
    before: u16,
}

impl Drop for MadeAt {
    fn drop(&mut self) {
        origin::set_place(self.before);
    }
}
