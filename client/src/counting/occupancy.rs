//! A place that has at most one occupant at a time. An occupant stays as long as it has users.
//!
//! The users are counted beside the place, so a compare-and-swap makes a new user, without a lock and without a
//! reference to the occupant. The last user to leave takes the occupant out; only then can another one move in.
//!
//! The occupant may keep the memory that the place itself is a part of. So the place may be gone as soon as a user has
//! left. That is why [`leave`](Occupancy::leave) takes no `&self`, which would have to be valid until it returns, and
//! returns the occupant to the last user instead of dropping it.

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// A place, and the number of users of its occupant.
pub(crate) struct Occupancy<T> {
    users: AtomicU64,
    /// Whether the client that installed the occupant still counts as a user.
    known: AtomicBool,
    /// An `Arc` that was made a pointer; null exactly when the place is empty.
    occupant: AtomicPtr<T>,
}

/// A counted user: while it lives, there is an occupant.
///
/// It borrows the place, so its caller keeps that for as long.
pub(crate) struct Guest<'a, T> {
    place: &'a Occupancy<T>,
}

impl<T> Occupancy<T> {
    pub(crate) fn new() -> Self {
        Self {
            users: AtomicU64::new(0),
            known: AtomicBool::new(false),
            occupant: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Becomes a user; `None` when the place is empty, or about to be.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Guest<'_, T>> {
        let mut users = self.users.load(Ordering::Relaxed);
        while users > 0 {
            // Acquire: pairs with the store in `install`; the occupant is there.
            match self.users.compare_exchange_weak(users, users + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Guest { place: self }),
                Err(now) => users = now,
            }
        }
        None
    }

    /// Ends one user; the last one gets the occupant.
    ///
    /// # Safety
    /// The caller is a user that has not left, and no longer uses the occupant. As a user it keeps the place until this
    /// call. Nothing needs to keep the place afterwards: when this returns `None`, the place may be gone.
    #[inline]
    pub(crate) unsafe fn leave(place: NonNull<Self>) -> Option<Arc<T>> {
        let place = place.as_ptr();
        // SAFETY: the place is there, because this user has not left yet. Only the count is borrowed, and
        // only during the instruction that changes it: it is an atomic, of which a reference may dangle.
        let users = unsafe { &(*place).users };
        // Release: this user's work with the occupant comes before. Acquire: and before the last user drops it.
        if users.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        // SAFETY: there is no user any more, and there can be none until the occupant is taken out below. So the
        // occupant is there, and with it the memory that it keeps.
        let occupant = unsafe { &(*place).occupant };
        // Release: pairs with `install`, which does not begin before.
        let occupant = occupant.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: `install` made the pointer of an `Arc`, and only the last user, of which there is one for each
        // `install`, takes it out again.
        Some(unsafe { Arc::from_raw(occupant) })
    }

    /// Lets an occupant move in; `false` if another one is still used. One thread at a time.
    pub(crate) fn install(&self, occupant: Arc<T>) -> bool {
        self.forget(|_| true);
        // The last user may be about to take the old occupant out.
        while self.users.load(Ordering::Acquire) == 0 && !self.occupant.load(Ordering::Acquire).is_null() {
            std::thread::yield_now();
        }
        if self.users.load(Ordering::Acquire) > 0 {
            return false;
        }
        self.occupant.store(Arc::into_raw(occupant).cast_mut(), Ordering::Release);
        self.known.store(true, Ordering::Release);
        // Release: pairs with `enter`.
        self.users.store(1, Ordering::Release);
        true
    }

    /// If the occupant is `wanted`, the client that installed it is no longer a user. The occupant is removed when its
    /// last user leaves.
    pub(crate) fn forget(&self, wanted: impl FnOnce(&T) -> bool) {
        let Some(guest) = self.enter() else { return };
        if wanted(guest.occupant()) && self.known.swap(false, Ordering::AcqRel) {
            // SAFETY: `known` stood for a user that had not left, and does so no more. The guest is another user, so
            // this is not the last one.
            let last = unsafe { Self::leave(NonNull::from(self)) };
            debug_assert!(last.is_none());
        }
    }

    /// # Safety
    /// The caller is, or has, a user for as long as it uses the occupant.
    #[inline]
    pub(crate) unsafe fn occupant(&self) -> &T {
        // SAFETY: `install` stored the pointer of an `Arc` before there was a user, and it is taken out after the last
        // user has left, which is the caller at the earliest. Acquire: pairs with that store.
        unsafe { &*self.occupant.load(Ordering::Acquire) }
    }
}

impl<T> Drop for Occupancy<T> {
    fn drop(&mut self) {
        // Users keep the occupant, and the occupant, where it matters, keeps this.
        debug_assert!(self.occupant.get_mut().is_null());
    }
}

impl<T> Guest<'_, T> {
    #[inline]
    pub(crate) fn occupant(&self) -> &T {
        // SAFETY: this is a user.
        unsafe { self.place.occupant() }
    }

    /// A reference to the occupant that outlives this user.
    pub(crate) fn to_arc(&self) -> Arc<T> {
        // Acquire: pairs with the store in `install`.
        let occupant = self.place.occupant.load(Ordering::Acquire);
        // SAFETY: the pointer is the one of `Arc::into_raw` itself (in `install`), from which the count can be reached,
        // and that `Arc` lives as long as this user: so its count is above zero, and one more is counted for the new
        // `Arc`.
        unsafe {
            Arc::increment_strong_count(occupant);
            Arc::from_raw(occupant)
        }
    }

    /// Stays a user without this guard. The caller remembers that, and [leaves](Occupancy::leave) in the end.
    #[inline]
    pub(crate) fn stay(self) {
        std::mem::forget(self);
    }
}

impl<T> Drop for Guest<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is a user, which ends here.
        drop(unsafe { Occupancy::leave(NonNull::from(self.place)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for a client, of which a place is a part, and for a peer, which keeps its client.
    struct Client {
        name: &'static str,
        place: Occupancy<Peer>,
    }

    struct Peer {
        client: Arc<Client>,
    }

    /// Miri is slow.
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 2000 };

    /// A client whose place has so many users, and which nothing else keeps.
    fn used(users: usize) -> NonNull<Client> {
        let client = Arc::new(Client { name: "client", place: Occupancy::new() });
        assert!(client.place.install(Arc::new(Peer { client: client.clone() })));
        for _ in 0..users {
            client.place.enter().expect("it is occupied").stay();
        }
        client.place.forget(|peer| peer.client.name == "client");
        NonNull::from(&*client)
    }

    /// Ends a reference as a slot does.
    fn release(client: NonNull<Client>) -> bool {
        // SAFETY: each user leaves once, and until then keeps the peer, and with it the client.
        let last = unsafe { Occupancy::leave(NonNull::from(&(*client.as_ptr()).place)) };
        last.is_some()
    }

    /// Under Miri this shows that nothing is referred to when it is freed, as a `&self` would be.
    #[test]
    fn the_last_user_takes_the_place_along() {
        let client = used(2);
        assert!(!release(client));
        assert!(release(client));
    }

    #[test]
    fn one_of_several_threads_is_the_last() {
        struct Shared(NonNull<Client>);
        // SAFETY: what it points to may be used by any thread, and stays while there is a user.
        unsafe impl Sync for Shared {}
        for _ in 0..ROUNDS {
            let client = Shared(used(2));
            let ends = || release({ &client }.0);
            let last = std::thread::scope(|scope| {
                let other = scope.spawn(ends);
                [ends(), other.join().unwrap()]
            });
            assert_eq!(last.into_iter().filter(|last| *last).count(), 1);
        }
    }

    #[test]
    fn another_one_moves_in_once_nobody_uses_the_first() {
        let place = Occupancy::new();
        assert!(place.enter().is_none());
        assert!(place.install(Arc::new(1)));
        let guest = place.enter().unwrap();
        assert!(!place.install(Arc::new(2)), "the first is still used");
        assert_eq!((*guest.occupant(), *guest.to_arc()), (1, 1));
        assert!(place.enter().is_some(), "it stays while it has users");
        drop(guest);
        assert!(place.enter().is_none());
        assert!(place.install(Arc::new(3)));
        place.forget(|number| *number == 1);
        assert_eq!(*place.enter().unwrap().occupant(), 3);
        place.forget(|_| true);
        assert!(place.enter().is_none());
    }
}
