//! An object in the making: an entry and writable memory, with one reference, until the object is sealed.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use mobula_protocol::id::ObjectId;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::table::Location;

use crate::counting::count::Kind;
use crate::error::ClientError;
use crate::located::Located;
use crate::owner::{Owner, Reserved};
use crate::reference::{Reference, Source};

/// An object in the making. It derefs to the payload, which no process sees before the object is sealed. Dropping it
/// frees the entry and the memory.
pub(crate) struct Draft {
    reference: Reference,
    located: Located,
}

// SAFETY: the draft alone gives access to its bytes, in whatever thread it is. Its parts but the pointer to them are
// Send.
unsafe impl Send for Draft {}
// SAFETY: threads that share it can only read its bytes, which are written through a `&mut` of it. Its parts but the
// pointer to them are Sync.
unsafe impl Sync for Draft {}

impl Draft {
    /// Reserves an entry and memory for an object that keeps `references`.
    #[inline]
    pub(crate) fn new(
        owner: &Owner,
        length: u64,
        format: u32,
        references: impl ExactSizeIterator<Item = Reference>,
    ) -> Result<Self, ClientError> {
        let what = Location { length, format, references: references.len() as u32, ..Location::default() };
        let Reserved { reference, located, .. } = owner.reserve(what, Kind::Borrow)?;
        let draft = Self { reference: Reference::of_raw(reference), located };
        if references.len() > 0 {
            draft.keep(owner, references);
        }
        Ok(draft)
    }

    /// The id that the object will have.
    pub(crate) fn id(&self) -> ObjectId {
        self.reference.id()
    }

    /// Makes the object visible to every process. Returns the reference, which is a borrow, and where the bytes lie.
    ///
    /// # Panics
    /// In a forked child.
    #[inline]
    pub(crate) fn seal(self) -> (Reference, Located) {
        let owner = self.owner();
        owner.assert_process();
        let id = self.reference.id();
        owner.table.seal(id.index(), id.generation(), &self.located.location);
        (self.reference, self.located)
    }

    /// Gives the content to a promised object.
    ///
    /// # Panics
    /// In a forked child.
    pub(crate) fn fulfil(self, promised: ObjectId) {
        let owner = self.owner();
        owner.assert_process();
        owner.fulfil(promised, self.reference.id(), &self.located.location);
    }

    /// Gives the memory, into which payload and references of a spilled object were written, to that object; `false` if
    /// it is not spilled any more. The caller has a reference to the object.
    pub(crate) fn restore(self, object: ObjectId, location: &Location) -> bool {
        let Location { segment, offset, .. } = self.located.location;
        self.owner().restore(object, self.reference.id(), &Location { segment, offset, ..*location })
    }

    /// Writes the ids of the references behind the payload, for the process that looks after the object when this one
    /// is gone, and lets the object keep them.
    #[cold]
    fn keep(&self, owner: &Owner, references: impl Iterator<Item = Reference>) {
        let location = &self.located.location;
        let start = location.references_offset().expect("memory was reserved for them") - location.offset;
        let write = |(position, reference): (usize, Reference)| {
            let offset = start as usize + position * ObjectId::BYTES;
            // SAFETY: payload and references were reserved together (`Location::extent`), and the pointer was checked
            // against the mapping for all of it. This draft is the only user, and its reference keeps the mapping. The
            // write need not be aligned. Not in a forked child, where none of it is mapped: `reserve` has refused that.
            unsafe {
                let target = self.pointer().byte_add(offset).cast::<[u8; ObjectId::BYTES]>();
                target.write_unaligned(reference.id().to_bytes());
            }
            reference.into_raw()
        };
        // As many as there is room for, even if the iterator has given a wrong length.
        let kept = references.take(location.references as usize).enumerate().map(write).collect();
        failpoint(Failpoint::SealReferenced);
        owner.keep(self.reference.id(), kept);
    }

    #[inline]
    fn owner(&self) -> &Owner {
        match self.reference.source() {
            Source::Own(owner) => owner,
            Source::Peer(_) => unreachable!("a draft is this client's own"),
        }
    }

    #[inline]
    fn pointer(&self) -> NonNull<u8> {
        self.located.pointer
    }

    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.located.location.length as usize
    }
}

impl Deref for Draft {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.owner().assert_process();
        // SAFETY: as in `deref_mut`, of which this is the shared half: the range was reserved for this draft and lies
        // inside a mapping that its reference keeps; its bytes are initialised; and they are written only through a
        // `&mut` of the draft. A forked child has panicked.
        unsafe { std::slice::from_raw_parts(self.pointer().as_ptr(), self.length()) }
    }
}

impl DerefMut for Draft {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        failpoint(Failpoint::Write);
        // Memory that is written is not mapped in a forked child.
        self.owner().assert_process();
        // SAFETY: the range was reserved for this draft and lies inside a mapping, which stays while its entry is in
        // use: an owner does not give back a segment in which such an entry has memory. Its bytes are initialised (the
        // file's zeros, or an earlier object's). No object refers to it before `seal`, which takes the draft, and
        // nobody pins an object before that.
        unsafe { std::slice::from_raw_parts_mut(self.pointer().as_ptr(), self.length()) }
    }
}
