//! The module `crate::sync` for the runtime's files that are included here: the atomics, locks and thread-local values
//! of the checker, with the interfaces of the standard library and of `parking_lot`.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use loom::sync as inner;
pub(crate) use mobula_shm::model::atomics::{AtomicBool, AtomicU8, AtomicUsize};
pub(crate) use mobula_shm::sync::{AtomicU64, Ordering};

/// Each thread of a model has values of its own, although the checker runs them all on one thread.
macro_rules! of_each_thread {
    (static $name:ident: $type:ty = const { $value:expr };) => {
        loom::thread_local! { static $name: $type = $value; }
    };
}
pub(crate) use of_each_thread as thread_local;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(inner::Mutex<T>);

pub(crate) struct MutexGuard<'a, T>(Option<inner::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(inner::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap()))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is locked")
    }
}

#[derive(Debug)]
pub(crate) struct Condvar(inner::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(inner::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let locked = guard.0.take().expect("it is locked");
        guard.0 = Some(self.0.wait(locked).unwrap());
    }

    pub(crate) fn wait_until<T>(&self, _: &mut MutexGuard<'_, T>, _: Instant) {
        unreachable!("there is no time in a model");
    }

    pub(crate) fn wait_for<T>(&self, _: &mut MutexGuard<'_, T>, _: Duration) -> TimedOut {
        unreachable!("there is no time in a model");
    }
}

pub(crate) struct TimedOut;

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        unreachable!("there is no time in a model");
    }
}
